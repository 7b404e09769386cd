"""Byte streams over sockets, none of which ever blocks."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Any, Protocol

from remote_executor.wire.outbox import WithSegment

if TYPE_CHECKING:
    from remote_executor.net.addresses import Address
    from remote_executor.wire.frames import Buffer

__all__ = ["SocketStream", "Stream", "listen"]

FD = struct.Struct("i")
ANCILLARY = socket.CMSG_SPACE(FD.size * 8)


class Stream(Protocol):
    """What a shell needs of a stream; tests use :class:`remote_executor.net.memory.Pipe`."""

    def fileno(self) -> int:
        """Return the descriptor to wait for."""

    def receive(self, buffer: memoryview) -> int:
        """
        Receive into ``buffer``.

        Returns:
            The number of bytes, 0 at the end of the stream, -1 if there is nothing now.

        Raises:
            OSError: If the stream is broken.
        """

    def send(self, chunk: list[Buffer]) -> int:
        """Write what can be written now; return the number of bytes, or raise OSError."""

    def close(self) -> None:
        """Close the stream, at once."""


class SocketStream:
    """
    A connected socket.

    Args:
        sock: The socket; this object owns it from now on.

    Attributes:
        fds: A list that takes the descriptors that come along with the bytes, in order; None if
            none may come. Only Unix sockets can bring any.
    """

    fds: list[int] | None = None

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(sock)
        self._sock = sock

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._sock.fileno()

    def receive(self, buffer: memoryview) -> int:
        """Receive into ``buffer``; see :class:`Stream`."""
        try:
            if self.fds is None:
                return self._sock.recv_into(buffer)
            count, messages, _, _ = self._sock.recvmsg_into(
                [buffer], ANCILLARY, socket.MSG_CMSG_CLOEXEC
            )
            for level, kind, data in messages:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    whole = len(data) - len(data) % FD.size
                    self.fds += [fd for (fd,) in FD.iter_unpack(data[:whole])]
            return count
        except (BlockingIOError, InterruptedError):
            return -1

    def send(self, chunk: list[Buffer]) -> int:
        """Write what can be written now; see :class:`Stream`."""
        try:
            if len(chunk) == 1:
                part = chunk[0]
                if type(part) is WithSegment:
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, FD.pack(part.fd))
                    return self._sock.sendmsg(chunk, [rights])
                return self._sock.send(part)
            return self._sock.sendmsg(chunk)
        except (BlockingIOError, InterruptedError):
            return 0

    def close(self) -> None:
        """Close the socket, and descriptors that came and were not taken."""
        for fd in self.fds or ():
            os.close(fd)
        self.fds = None
        self._sock.close()


def _keep_alive(sock: socket.socket) -> None:
    """Let the kernel find out about peers that are gone, also while we are busy elsewhere."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        option = getattr(socket, name, None)  # not every system has each of them
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def listen(address: Address, backlog: int = 128) -> socket.socket:
    """
    Open a listening socket that does not block.

    Args:
        address: Where to listen; port 0 means any free one.
        backlog: How many connections may wait to be accepted.

    Raises:
        OSError: If that address cannot be had.
    """
    where: Any = address.path
    if address.kind == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        info = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, where = info[0]
        sock = socket.socket(family, kind, protocol)
    try:
        if address.kind == "tcp":
            # The port is free again at once after an end (PARITY D5).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
