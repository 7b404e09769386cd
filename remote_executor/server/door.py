"""Where a server's clients come in."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

from remote_executor.net.addresses import Address
from remote_executor.net.streams import listen, listen_everywhere

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Door"]


class Door:
    """
    An address to listen at, which can be left to others and taken again.

    A name may have several numbers, as localhost has: all of them, with one port.

    Args:
        address: Where; port 0 means any free one, and the same from then on.
        inherited: Sockets that listen there already, and are somebody else's to close; none to make
            some.
    """

    def __init__(self, address: Address, inherited: Sequence[socket.socket] = ()) -> None:
        self.address = address
        self._inherited = inherited
        self._listeners: list[socket.socket] = []
        self._made: tuple[int, int] | None = None
        """Device and inode of the Unix socket that we listen on."""

    def __repr__(self) -> str:
        return f"<Door {self.address} {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        """Whether clients can come in."""
        return bool(self._listeners)

    def open(self) -> None:
        """
        Let clients in.

        Raises:
            OSError: If the address cannot be had, which it names.
        """
        if self._inherited:
            self._listeners = [each.dup() for each in self._inherited]
            return
        try:
            self._listeners = _listen(self.address)
        except OSError as exc:
            words = f"cannot listen on {self.address}: {exc.strerror}"
            if exc.errno == errno.EADDRINUSE:
                words += f" ({_who_has_it(self.address)})"
            raise OSError(exc.errno, words) from exc
        if self.address.kind == "tcp":
            port = self._listeners[0].getsockname()[1]
            self.address = Address("tcp", self.address.host, port)
        else:
            self._made = _identity(self.address.path)

    def filenos(self) -> list[int]:
        """Return the descriptors to wait for, while it is open."""
        return [each.fileno() for each in self._listeners]

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next client's socket and where it is; BlockingIOError if there is none."""
        for listener in self._listeners:
            try:
                return listener.accept()
            except BlockingIOError:
                continue
        raise BlockingIOError

    def close(self) -> None:
        """Leave the address to whoever wants it. It may be closed already."""
        listeners, self._listeners = self._listeners, []
        if listeners:
            # First, while nobody else takes it for the socket of a dead server; and only if nobody
            # has put anything else in its place meanwhile.
            if self._made is not None and _identity(self.address.path) == self._made:
                _unlink(self.address.path)
            self._made = None
            for listener in listeners:
                listener.close()


def _listen(address: Address) -> list[socket.socket]:
    if address.kind == "tcp":
        return listen_everywhere(address)
    mask = os.umask(0o177)
    try:
        try:
            return [listen(address)]
        except OSError:
            if not _is_stale(address.path):
                raise
            _unlink(address.path)
            return [listen(address)]
    finally:
        os.umask(mask)


def _is_stale(path: str) -> bool:
    """Whether a dead server has left this socket behind. What is no socket is somebody's file."""
    if _identity(path) is None:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
    return False


def _identity(path: str) -> tuple[int, int] | None:
    """Return a Unix socket's device and inode; None if there is none, or something else."""
    try:
        status = os.lstat(path)  # not where a link leads to: the link would be deleted
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISSOCK(status.st_mode) else None


def _who_has_it(address: Address) -> str:
    if address.kind == "tcp":
        return "another program has it; port 0 is any free one"
    if _identity(address.path) is None:
        return "there is something that is no socket, and is left alone: name another path"
    return "another program listens there"


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
