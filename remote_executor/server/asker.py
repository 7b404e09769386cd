"""
A worker's end of the way by which it asks the client for modules.

It is a socket of its own, so that any thread of a task may import while the main thread talks to
the supervisor. This module is loaded at the first import that fails; see ``worker.LateFinder``.
"""

from __future__ import annotations

import socket
from _thread import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any

from remote_executor.net.interruptible import Turns
from remote_executor.payload.imports import RemoteFinder
from remote_executor.wire.frames import FrameReader, make_frame
from remote_executor.wire.messages import Kind, decode_fields, encode_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_executor.wire.frames import Buffer, Frame

__all__ = ["Asker", "make_finder"]

LIMIT = 64 * 1024**3


class Asker:
    """
    Puts one question at a time.

    Args:
        fd: The descriptor of the socket, which becomes this object's.
    """

    def __init__(self, fd: int) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
        self._sock.setblocking(True)
        self._reader = FrameReader(LIMIT)
        self._reader.open_up(LIMIT)
        self._turns = Turns()
        self._number = 0
        self._open = True

    def ask(self, question: dict[str, Any]) -> tuple[dict[str, Any], Sequence[Buffer]] | None:
        """
        Ask the client, and wait for its answer.

        While the link to the client is cut this waits, as all else does. The supervisor ends this
        process, or closes the socket, when no answer can come any more.

        Args:
            question: See :meth:`remote_executor.payload.modules.Modules.answer`.

        Returns:
            The answer's fields and contents; None if there is nobody to ask, or if a ``__del__``
            or a signal's handler asks in the middle of a question of its own thread.
        """
        while (done := self._turns.attempt(lambda: self._ask(question))) is None:
            if self._turns.holder() == get_ident():
                return None
            self._turns.wait()
        answer = done[0]
        return None if answer is None else (decode_fields(answer.body), answer.buffers)

    def _ask(self, question: dict[str, Any]) -> Frame | None:
        if not self._open:
            return None
        self._number += 1
        try:
            frame = make_frame(Kind.WANT, self._number, encode_fields(question))
            self._sock.sendall(frame.raw)
            answer = self._receive(self._number)
        except OSError:
            answer = None
        if answer is None:
            self.close()
        return answer

    def _receive(self, number: int) -> Frame | None:
        """Return the answer of that number; an earlier one may be left of a wait that was left."""
        while True:
            size = self._sock.recv_into(self._reader.get_buffer())
            if not size:
                return None
            for frame in self._reader.filled(size):
                if frame.id == number:
                    return frame

    def close(self) -> None:
        """Ask nobody any more."""
        self._open = False
        self._sock.close()

    def close_in_child(self) -> None:
        """A task forked: the child must not ask by a socket that it shares."""
        self.close()
        self._turns = Turns()  # a thread that is not in this process may have the other


def make_finder(fd: int) -> tuple[RemoteFinder, Asker]:
    """
    Make the finder that asks by a socket.

    Args:
        fd: The socket's descriptor.
    """
    asker = Asker(fd)
    return RemoteFinder(asker.ask, monotonic), asker
