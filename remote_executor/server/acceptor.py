"""Accepts clients at a door, and sees to it that the door is open while somebody may come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from remote_executor.net.segments import is_scarce

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from remote_executor.server.context import Context
    from remote_executor.server.door import Door

__all__ = ["Acceptor"]

DOOR_SECONDS = 0.5
"""For so long the address of a server that ends is free, even if a client has yet to come back."""

MOST_AT_ONCE = 32
"""So many are accepted before others have their turn."""

REST_SECONDS = 0.2
"""For so long nobody is accepted after that could not be done."""


class Acceptor:
    """
    Accepts connections.

    Args:
        context: The server's.
        door: Where they come in; it is open.
        connect: Called with the socket of each and where it is.
    """

    def __init__(
        self, context: Context, door: Door, connect: Callable[[socket.socket, Any], None]
    ) -> None:
        self._context = context
        self.door = door
        self._connect = connect
        self._timer = context.loop.timer(self._mind)
        self._watch()

    def __repr__(self) -> str:
        return f"<Acceptor {self.door!r}>"

    def _watch(self) -> None:
        for fd in self.door.filenos():
            self._context.loop.watch(fd, self._accept)

    def _accept(self) -> None:
        for _ in range(MOST_AT_ONCE):
            try:
                sock, where = self.door.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                self._rest(str(exc))
                return
            if is_scarce(sock.fileno()):
                # The last ones are for those that are here already.
                sock.close()
                self._rest("the last descriptors are not for newcomers")
                return
            self._connect(sock, where)

    def _rest(self, reason: str) -> None:
        """As a rule no descriptors are left. Let others be served meanwhile."""
        loop = self._context.loop
        self._context.log.write("warning", f"! cannot accept: {reason}")
        for fd in self.door.filenos():
            loop.want(fd, read=False)
        loop.timer(self._go_on).at(loop.now + REST_SECONDS)

    def _go_on(self, now: float) -> None:
        for fd in self.door.filenos():
            self._context.loop.want(fd)

    def close(self) -> None:
        """Accept nobody, and leave the address to others."""
        if self.door.is_open:
            for fd in self.door.filenos():
                self._context.loop.forget(fd)
            self.door.close()

    def recheck(self) -> None:
        """Somebody has come or gone: while the server ends, see to the door."""
        if self._context.ending and self._timer.when is None:
            self._timer.at(self._context.loop.now + DOOR_SECONDS)

    def _mind(self, now: float) -> None:
        """
        Open the door for a session that has lost its link, and for no longer than that.

        Until then the address is anybody's. If another server has it by now, that is where the
        client finds itself.
        """
        if all(client.connection is not None for client in self._context.sessions.values()):
            self.close()
        elif not self.door.is_open:
            try:
                self.door.open()
            except OSError as exc:
                self._context.log.write(
                    "warning", f"! a client that was cut off cannot come back yet: {exc}"
                )
                self._timer.at(now + DOOR_SECONDS)
            else:
                self._watch()
