"""
Streams in memory, with cuts, stalls, delays and partial reads.

For tests, yours too: a :class:`Pipe` stands where a socket would, and everything happens in one
thread and in an order that you say. Nothing in here waits, reads a clock, or is left to chance.
"""

from __future__ import annotations

import errno
import io
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.wire.frames import Buffer

__all__ = ["Pipe"]


class _Way:
    """One direction: the bytes that were sent and not yet received, each piece with its time."""

    __slots__ = ("end", "left", "pieces", "size")

    def __init__(self) -> None:
        self.pieces: deque[tuple[float, memoryview]] = deque()
        self.size = 0
        self.left: int | None = None
        """How many bytes still arrive before the cut; None if none is planned."""
        self.end: float | None = None
        """When the end of the stream arrives; None until the sender closes."""


class _Wire:
    """What both ends share."""

    __slots__ = ("capacity", "clock", "cut", "delay", "stalled", "stride")

    def __init__(
        self,
        capacity: int,
        stride: Callable[[], int] | None,
        delay: float,
        clock: Callable[[], float],
    ) -> None:
        self.capacity = capacity
        self.stride = stride
        self.delay = delay
        self.clock = clock
        self.cut = False
        self.stalled = False


class Pipe:
    """
    One end of a stream in memory: a :class:`remote_executor.net.streams.Stream`.

    Make both ends by :meth:`pair`. An end is not for use by several threads, and has no descriptor:
    ask :attr:`readable` and :attr:`writable` instead of a selector.
    """

    __slots__ = ("_closed", "_in", "_out", "_wire")

    holding = False
    waiting = False

    def __init__(self, wire: _Wire, incoming: _Way, outgoing: _Way) -> None:
        self._wire = wire
        self._in = incoming
        self._out = outgoing
        self._closed = False

    @classmethod
    def pair(
        cls,
        *,
        capacity: int = 64 * 1024,
        stride: int | Callable[[], int] | None = None,
        delay: float = 0.0,
        clock: Callable[[], float] | None = None,
    ) -> tuple[Pipe, Pipe]:
        """
        Return the two ends of a new stream.

        Args:
            capacity: How many bytes each direction holds before its sender must wait.
            stride: The most bytes that one call of :meth:`send` or :meth:`receive` moves: a number,
                or a function that gives the next one, such as a seeded generator's.
            delay: Seconds a byte is under way.
            clock: Gives the time in seconds; needed for a delay.

        Raises:
            ValueError: If there is a delay and no clock.
        """
        if delay and clock is None:
            raise ValueError("a delay needs a clock")
        if isinstance(stride, int):
            most = stride
            stride = lambda: most  # noqa: E731
        wire = _Wire(capacity, stride, delay, clock or (lambda: 0.0))
        there, back = _Way(), _Way()
        return cls(wire, back, there), cls(wire, there, back)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "cut" if self._wire.cut else "open"
        stalled = " stalled" if self._wire.stalled else ""
        return f"<Pipe {state}{stalled} sent={self._out.size} waiting={self._in.size}>"

    # ---------------------------------------------------------- what every stream has

    def fileno(self) -> int:
        """
        Refuse: there is no descriptor to wait for.

        Raises:
            io.UnsupportedOperation: Always.
        """
        raise io.UnsupportedOperation("a stream in memory has no descriptor")

    def channel(self) -> bytes:
        """Return nothing: see :class:`remote_executor.net.streams.Stream`."""
        return b""

    def receive(self, buffer: memoryview) -> int:
        """
        Receive into ``buffer``.

        Args:
            buffer: Where the bytes go.

        Returns:
            The number of bytes, 0 at the end of the stream, -1 if there is nothing now.

        Raises:
            ConnectionResetError: If the stream was cut.
            OSError: If this end was closed.
        """
        self._check()
        way, wire = self._in, self._wire
        room = self._most(len(buffer))
        if way.left is not None:
            room = min(room, way.left)
        count = 0
        while count < room and way.pieces and self._arrived():
            due, piece = way.pieces.popleft()
            here = min(len(piece), room - count)
            buffer[count : count + here] = piece[:here]
            count += here
            if here < len(piece):
                way.pieces.appendleft((due, piece[here:]))
        if not count:
            return 0 if self._arrived() else -1
        way.size -= count
        if way.left is not None:
            way.left -= count
            if not way.left:
                wire.cut = True
        return count

    def send(self, chunk: list[Buffer]) -> int:
        """
        Take what there is room for; the bytes are copied.

        Args:
            chunk: Buffers, as for ``socket.sendmsg``.

        Returns:
            The number of bytes taken, 0 if there is no room now.

        Raises:
            ConnectionResetError: If the stream was cut.
            BrokenPipeError: If the other end was closed.
            OSError: If this end was closed.
        """
        self._check()
        if self._in.end is not None:
            raise BrokenPipeError(errno.EPIPE, "the other end of the stream was closed")
        way, wire = self._out, self._wire
        room = self._most(wire.capacity - way.size)
        taken = bytearray()
        for buffer in chunk:
            taken += memoryview(buffer)[: room - len(taken)]
        if taken:
            way.pieces.append((wire.clock() + wire.delay, memoryview(taken)))
            way.size += len(taken)
        return len(taken)

    def close(self) -> None:
        """Close this end. The other one receives what is under way, then the end of the stream."""
        if not self._closed:
            self._closed = True
            self._out.end = self._wire.clock() + self._wire.delay

    # -------------------------------------------------------------------- for the test

    @property
    def readable(self) -> bool:
        """Whether :meth:`receive` would do anything but return -1."""
        return self._closed or self._wire.cut or self._arrived()

    @property
    def writable(self) -> bool:
        """Whether :meth:`send` would do anything but return 0."""
        full = self._out.size >= self._wire.capacity
        return self._closed or self._wire.cut or self._in.end is not None or not full

    def deadline(self) -> float | None:
        """When the next bytes or the end arrive here, by the clock; None if nothing is to come."""
        if self._wire.stalled:
            return None
        return self._in.pieces[0][0] if self._in.pieces else self._in.end

    def cut(self, after: int = 0) -> None:
        """
        Break the stream, as a pulled cable and a reset do.

        Both ends raise ConnectionResetError from then on, and what is under way is lost.

        Args:
            after: How many more bytes from this end the other one receives before that: as many as
                end a frame, or end in the middle of one.
        """
        if after <= 0:
            self._wire.cut = True
        else:
            self._out.left = after

    def stall(self) -> None:
        """Let nothing through, in both directions, until :meth:`resume`. Nobody is told."""
        self._wire.stalled = True

    def resume(self) -> None:
        """End a stall: what was held up arrives."""
        self._wire.stalled = False

    # ----------------------------------------------------------------------- inside

    def _check(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "this end of the stream was closed")
        if self._wire.cut:
            raise ConnectionResetError(errno.ECONNRESET, "the stream was cut")

    def _most(self, room: int) -> int:
        """Return how many bytes this call may move."""
        return room if self._wire.stride is None else min(room, max(1, self._wire.stride()))

    def _arrived(self) -> bool:
        """Whether bytes, or the end of the stream, are here."""
        due = self.deadline()
        return due is not None and due <= self._wire.clock()
