"""Byte streams over sockets, none of which ever blocks."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from itertools import starmap
from typing import TYPE_CHECKING, Any, Protocol

from remote_executor.net.segments import LOST, Descriptor
from remote_executor.wire.outbox import WithSegment

if TYPE_CHECKING:
    from remote_executor.net.addresses import Address
    from remote_executor.wire.frames import Buffer

__all__ = [
    "STEP",
    "SocketStream",
    "Steps",
    "Stream",
    "listen",
    "listen_everywhere",
    "receive_with_fds",
    "send_with_fd",
]

FD = struct.Struct("i")
MOST_FDS = 64
"""Descriptors that may wait for their frames; those of a large read come before it is cut."""
ANCILLARY = socket.CMSG_SPACE(FD.size * 8)
CLOEXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
"""Has descriptors closed on exec as they come; where it is missing (macOS) that is done later."""
TRUNCATED = int(socket.MSG_CTRUNC)
"""A plain number: to compare with a member of an enumeration takes as long as to receive."""

CROWDED = (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM)
"""There is no room for one more descriptor on its way, which may be otherwise soon."""

STEP = 16 * 1024
"""Bytes that are received in one of the :meth:`Stream.steps`."""

Steps = tuple[Callable[[Any], Iterator[int]], Callable[[], Iterator[Any]]]


NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""A number that this host does not have, or a family of numbers."""

MAX_PORTS_TRIED = 16
"""One that is free at a number may be taken at another."""


class Stream(Protocol):
    """
    What a shell needs of a stream; tests use :class:`remote_executor.net.memory.Pipe`.

    Attributes:
        holding: Whether there are bytes that no event of the descriptor will announce: call
            :meth:`receive` again, later.
        waiting: Whether nothing can be written before something is received, whatever room the
            descriptor has.
    """

    @property
    def holding(self) -> bool:
        """See above."""

    @property
    def waiting(self) -> bool:
        """See above."""

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

    def channel(self) -> bytes:
        """Return what names the stream at both ends, or nothing; proofs cover it."""

    def steps(self) -> Steps | None:
        """
        Return how to send bytes and how to receive some in single steps, or None if it cannot be.

        Each of the two makes an iterator, which does its work when it is advanced, once, in C: no
        other Python code runs before it is done, not even a signal's handler. The first one's gives
        how many bytes have gone, the second one's a sequence that begins with the bytes, and goes
        to :meth:`put_back`. Both raise OSError, also where they would have to wait.
        """

    def put_back(self, received: list[Any]) -> None:
        """Have :meth:`receive` return first what was received by :meth:`steps`."""

    def close(self) -> None:
        """Close the stream, at once."""


class SocketStream:
    """
    A connected socket.

    Args:
        sock: The socket; this object owns it from now on.

    Attributes:
        fds: A list, such as ``FrameReader.segments``, that takes the descriptors that come along
            with the bytes, in order; None if none may come. Only Unix sockets bring any.
    """

    fds: list[Descriptor] | None = None
    holding = False
    waiting = False

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(sock)
        self._sock = sock
        self._held = b""

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._sock.fileno()

    def channel(self) -> bytes:
        """Return nothing: a socket has no name that both ends know for sure."""
        return b""

    def certificate_name(self) -> str:
        """Return the name in the peer's certificate: there is none."""
        return ""

    def is_local(self) -> bool:
        """Whether the other end is on this host and can be passed descriptors."""
        return self._sock.family == socket.AF_UNIX

    def steps(self) -> Steps | None:
        """Return what calls ``send`` and ``recvmsg``; see :class:`Stream`."""
        send, receive = self._sock.send, self._sock.recvmsg
        arguments = ((STEP, 0 if self.fds is None else ANCILLARY, CLOEXEC),)
        return lambda data: map(send, (data,)), lambda: starmap(receive, arguments)

    def put_back(self, received: list[Any]) -> None:
        """Keep bytes and descriptors for :meth:`receive`; see :class:`Stream`."""
        for data, messages, flags, _ in received:
            self._held += data
            if self.fds is not None and (messages or flags & socket.MSG_CTRUNC):
                self.fds += descriptors(messages, flags)

    def receive(self, buffer: memoryview) -> int:
        """Receive into ``buffer``; see :class:`Stream`."""
        if self._held:
            count = min(len(buffer), len(self._held))
            buffer[:count] = self._held[:count]
            self._held = self._held[count:]
            return count
        try:
            if self.fds is None:
                return self._sock.recv_into(buffer)
            return receive_with_fds(self._sock, buffer, self.fds)
        except (BlockingIOError, InterruptedError):
            return -1

    def send(self, chunk: list[Buffer]) -> int:
        """Write what can be written now; see :class:`Stream`."""
        try:
            if len(chunk) == 1:
                part = chunk[0]
                if type(part) is WithSegment:
                    return send_with_fd(self._sock, part)
                return self._sock.send(part)
            return self._sock.sendmsg(chunk)
        except (BlockingIOError, InterruptedError):
            return 0

    def end_writing(self) -> None:
        """Let the peer find the end of the stream after what was written; reading goes on."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:  # the peer was faster
            pass

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


class DistantStream(SocketStream):
    """A socket that leads to another host, although its first piece is on this one."""

    def is_local(self) -> bool:
        """Whether descriptors can be passed: they cannot."""
        return False


def receive_with_fds(sock: socket.socket, buffer: memoryview, fds: list[Descriptor]) -> int:
    """
    Receive bytes, and the descriptors that come along with them.

    Args:
        sock: A Unix socket.
        buffer: Takes the bytes.
        fds: Takes the descriptors, in order.

    Returns:
        The number of bytes, 0 at the end of the stream.

    Raises:
        OSError: If more descriptors have come than frames could want.
    """
    if len(fds) > MOST_FDS:
        raise OSError(errno.EMFILE, "descriptors come without the frames they belong to")
    count, messages, flags, _ = sock.recvmsg_into([buffer], ANCILLARY, CLOEXEC)
    if messages or flags & TRUNCATED:
        fds += descriptors(messages, flags)
    return count


def descriptors(messages: list[tuple[int, int, bytes]], flags: int) -> list[Descriptor]:
    """Return the descriptors in what ``recvmsg`` has returned beside the bytes, lost ones too."""
    found: list[Descriptor] = []
    for level, kind, data in messages:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(data) - len(data) % FD.size
            found += [Descriptor(fd) for (fd,) in FD.iter_unpack(data[:whole])]
    if not CLOEXEC:
        for each in found:
            os.set_inheritable(each.fd, False)
    if flags & TRUNCATED:
        # The bytes came, and there was no room in this process for the descriptor: its frame is
        # whole but for that, and can be had again without one.
        found.append(Descriptor(LOST))
    return found


def send_with_fd(sock: socket.socket, part: WithSegment) -> int:
    """
    Send bytes with the descriptor that belongs to them.

    Returns:
        How many bytes went.

    Raises:
        BlockingIOError: If there is no room now, also for what the system keeps of descriptors that
            are on their way.
        OSError: If the socket is broken.
    """
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, FD.pack(part.segment.fd))
    try:
        return sock.sendmsg([part], [rights])
    except OSError as exc:
        if exc.errno in CROWDED:
            raise BlockingIOError(exc.errno, exc.strerror) from exc
        raise


def _keep_alive(sock: socket.socket) -> None:
    """Let the kernel find out about peers that are gone, also while we are busy elsewhere."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # The first is called TCP_KEEPALIVE on macOS.
    idle = "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"
    for name, value in ((idle, 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        option = getattr(socket, name, None)  # not every system has each of them
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def listen(address: Address, backlog: int = 1024) -> socket.socket:
    """
    Open a listening socket that does not block.

    Args:
        address: Where to listen; port 0 means any free one. Of a name's numbers the first.
        backlog: How many connections may wait to be accepted.

    Raises:
        OSError: If that address cannot be had.
    """
    if address.kind == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        return _listening(sock, address.path, backlog)
    family, where = _places(address)[0]
    return _listen_at(family, where, backlog)


def listen_everywhere(address: Address, backlog: int = 1024) -> list[socket.socket]:
    """
    Open a listening socket, as :func:`listen` does, at each number of a name, with one port.

    Numbers that this host does not have are left out, if it has another one.

    Args:
        address: Where to listen, not a path; port 0 means one that is free everywhere.
        backlog: How many connections may wait to be accepted.

    Raises:
        OSError: If none of the numbers can be had, or the port of one is taken.
    """
    places = _places(address)
    tries = 1 if address.port else MAX_PORTS_TRIED
    while True:
        tries -= 1
        made: list[socket.socket] = []
        error: OSError | None = None
        try:
            for family, where in places:
                port = made[0].getsockname()[1] if made else address.port
                try:
                    where = (where[0], port, *where[2:])
                    made.append(_listen_at(family, where, backlog, alone=len(places) == 1))
                except OSError as exc:
                    if exc.errno not in NOT_HERE:
                        raise
                    error = exc
            if made:
                return made
            assert error is not None
            raise error
        except OSError as exc:
            for sock in made:
                sock.close()
            if not tries or exc.errno != errno.EADDRINUSE:
                raise


def _places(address: Address) -> list[tuple[int, Any]]:
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    return list(dict.fromkeys((int(family), where) for family, _, _, _, where in found))


def _listen_at(family: int, where: Any, backlog: int, alone: bool = True) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # The port is free again at once after an end (PARITY D5).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and not alone:
            # Numbers of IPv4 have a socket of their own; else "::" takes them, too.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)
    except BaseException:
        sock.close()
        raise
    return _listening(sock, where, backlog)


def _listening(sock: socket.socket, where: Any, backlog: int) -> socket.socket:
    try:
        sock.bind(where)
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
