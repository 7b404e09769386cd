"""
Frames: the unit in which everything travels, on both hops.

::

    offset  size  field
         0     1  kind     what it is (messages.Kind)
         1     1  flags    messages.Flag
         2     2  count    how many buffers follow the body
         4     4  aux      TASK, BLOB: function number; RESULT: run time in microseconds
         8     8  id       task id, or what the kind says
        16     8  size     bytes of the body
        24   8*n  sizes    bytes of each buffer
         .     .  body     as a rule a pickle
         .     .  buffers  raw bytes that the pickle refers to (protocol 5)

All numbers are little-endian. A frame keeps its bytes as they came, so whoever passes it on need
not write it again. Small frames are cut out of one staging area, hundreds from one system call.
Large ones are received straight into the memory where they will stay.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from remote_executor.errors import LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "MAX_BUFFERS",
    "WORKER_LIMIT",
    "Buffer",
    "Frame",
    "FrameReader",
    "make_frame",
    "segment_is_lost",
    "total_size",
]

Buffer = bytes | bytearray | memoryview

if TYPE_CHECKING:
    Allocate = Callable[[Sequence[int]], tuple[Sequence[Buffer], object] | None]

HEADER = struct.Struct("<BBHIQQ")
MAX_BUFFERS = 16_384
"""More than anybody needs, and their sizes still fit the staging area."""

LARGE = 64 * 1024
"""Frames above this many bytes get memory of their own; smaller ones are cut from the staging."""

FIRST_ROOM = 1024 * 1024
"""Bytes of memory that are taken at once for a body or a buffer that is announced. It is doubled
as it is filled: whoever announces much and sends little costs little."""

WORKER_LIMIT = 64 * 1024**3
"""The largest frame in bytes that supervisor and worker accept from each other."""

SMALL_STAGING = 4 * 1024
STAGING = 256 * 1024

SEGMENT_BIT = 8
"""messages.Flag.SEGMENT as a plain int: this is the hot path."""


class Frame:
    """
    One frame.

    ``raw`` holds header, sizes and, unless ``tail`` is set, the body. ``segment`` is the shared
    memory that holds the buffers' bytes, where they did not come inline.
    """

    __slots__ = ("aux", "buffers", "flags", "id", "kind", "offset", "raw", "segment", "tail")

    def __init__(
        self,
        kind: int,
        flags: int,
        aux: int,
        id: int,
        raw: Buffer,
        offset: int,
        buffers: Sequence[Buffer] = (),
        tail: Buffer | None = None,
    ) -> None:
        self.kind = kind
        self.flags = flags
        self.aux = aux
        self.id = id
        self.raw = raw
        self.offset = offset
        self.buffers = buffers
        self.tail = tail
        self.segment: Any = None

    @property
    def body(self) -> Buffer:
        """The body's bytes."""
        if self.tail is not None:
            return self.tail
        raw = self.raw
        if len(raw) <= LARGE:
            return raw[self.offset :]  # to copy little takes less time than a view
        return memoryview(raw)[self.offset :]

    @property
    def size(self) -> int:
        """How many bytes the frame holds in memory, buffers in a segment included."""
        size = len(self.raw)
        if self.tail is not None:
            size += len(self.tail)
        for buffer in self.buffers:
            size += len(buffer)
        return size

    def set_segment(self, segment: Any) -> None:
        """
        Send the buffers' bytes in shared memory.

        Args:
            segment: What holds them; its ``fd`` goes along.
        """
        raw = bytearray(self.raw)
        raw[1] |= SEGMENT_BIT
        self.raw = raw
        self.flags |= SEGMENT_BIT
        self.segment = segment

    def inline(self, buffers: Sequence[Buffer]) -> Frame:
        """
        Return the same frame with its buffers in it, in place of a segment.

        Args:
            buffers: What is in the segment.
        """
        flags = self.flags & ~SEGMENT_BIT
        return make_frame(self.kind, self.id, bytes(self.body), buffers, aux=self.aux, flags=flags)

    def sizes(self) -> tuple[int, ...]:
        """The size in bytes of each buffer, also of those in a segment."""
        count = (self.offset - 24) // 8
        return struct.unpack_from(f"<{count}Q", self.raw, 24)

    def parts(self) -> list[Buffer]:
        """The frame's bytes for a stream, as a list of buffers that are not to be joined."""
        parts = [self.raw]
        if self.tail is not None:
            parts.append(self.tail)
        if self.buffers and not self.flags & SEGMENT_BIT:
            parts += self.buffers
        return parts

    def __repr__(self) -> str:
        return (
            f"<Frame kind={self.kind} id={self.id} aux={self.aux} flags={self.flags} "
            f"bytes={self.size} buffers={len(self.buffers)}>"
        )


def make_frame(
    kind: int,
    id: int = 0,
    body: Buffer = b"",
    buffers: Sequence[Buffer] = (),
    *,
    aux: int = 0,
    flags: int = 0,
) -> Frame:
    """
    Make a frame to be sent.

    Args:
        kind: One of :class:`messages.Kind`.
        id: Task id, or what the kind says.
        body: The body; copied if it is small, otherwise referred to.
        buffers: Contiguous byte buffers, referred to and never copied. They must not change until
            the frame is acknowledged.
        aux: A 32-bit number.
        flags: Bits of :class:`messages.Flag`.

    Raises:
        LocalProtocolError: If there are more than :data:`MAX_BUFFERS` buffers.
    """
    size = len(body)
    if not buffers:
        head = HEADER.pack(kind, flags, 0, aux, id, size)
        if size <= LARGE:
            return Frame(kind, flags, aux, id, head + body, 24)
        return Frame(kind, flags, aux, id, head, 24, (), body)
    count = len(buffers)
    if count > MAX_BUFFERS:
        raise LocalProtocolError(f"{count} buffers in one frame, at most {MAX_BUFFERS} fit")
    head = HEADER.pack(kind, flags, count, aux, id, size)
    head += struct.pack(f"<{count}Q", *map(len, buffers))
    if size <= LARGE:
        return Frame(kind, flags, aux, id, head + body, 24 + 8 * count, tuple(buffers))
    return Frame(kind, flags, aux, id, head, 24 + 8 * count, tuple(buffers), body)


def total_size(frames: Iterable[Frame]) -> int:
    """Return the sum of the frames' sizes; most are but a few bytes in one piece."""
    size = 0
    for frame in frames:
        if frame.tail is None and not frame.buffers:
            size += len(frame.raw)
        else:
            size += frame.size
    return size


def _no_memory(sizes: Sequence[int]) -> None:
    """Leave it to the reader to take memory as bytes arrive."""


class _Room:
    """
    Memory for bytes that were announced, filled from its beginning.

    Doubling costs what zeroing the memory at once would cost: it copies within memory that is new
    either way, and the system moves large pieces without copying them.

    Args:
        size: How many bytes were announced.
        memory: A view of memory for all of them; None to take some as bytes arrive.
    """

    __slots__ = ("_grown", "_have", "_size", "view")

    def __init__(self, size: int, memory: memoryview | None = None) -> None:
        self._size = size
        self._have = 0
        self._grown: bytearray | None = None
        if memory is None:
            first = size
            while first > FIRST_ROOM:
                first = (first + 1) // 2
            self._grown = bytearray(first)
            memory = memoryview(self._grown)
        self.view = memory
        """Where the next bytes go; empty once all are there."""

    @property
    def memory(self) -> bytearray:
        """The memory that was taken. The same object from the beginning on."""
        assert self._grown is not None
        return self._grown

    def filled(self, count: int) -> bool:
        """Take note that ``count`` bytes came into the view; return whether all are there."""
        self._have += count
        view, grown = self.view, self._grown
        self.view = rest = view[count:]
        if grown is None or len(grown) == self._size:
            return not len(rest)
        view.release()  # who received into it may refer to it still, and then nothing can grow
        if len(rest):
            return False
        rest.release()
        grown *= 2
        if len(grown) > self._size:
            del grown[self._size :]
        with memoryview(grown) as whole:
            self.view = whole[self._have :]
        return False


def segment_is_lost(segment: Any) -> bool:
    """Whether a frame's segment came along, and there was no room for its descriptor."""
    return getattr(segment, "fd", 0) < 0


class FrameReader:
    """
    Turn a stream of bytes into frames.

    Receive into :meth:`get_buffer`, then call :meth:`filled` with the number of bytes. Starts with
    a small staging area and a small limit, for peers that are not known yet; call :meth:`open_up`
    once they are.

    Args:
        limit: The largest frame in bytes that is accepted.
        allocate: Gives memory for the buffers of a frame: takes their sizes, whose sum is below
            the limit, returns the buffers and whatever owns them, which becomes
            ``frame.segment``. It had better give memory that the system takes only when it is
            written to. None from it means that it has none: the reader takes some as bytes
            arrive.
    """

    __slots__ = (
        "_ahead",
        "_allocate",
        "_end",
        "_frame",
        "_own",
        "_room",
        "_staging",
        "_start",
        "_total",
        "_view",
        "limit",
        "lost",
        "segments",
    )

    def __init__(
        self,
        limit: int,
        allocate: Allocate = _no_memory,
    ) -> None:
        self.limit = limit
        self.segments: list[Any] = []
        """Segments whose descriptors came in and whose frames have not been cut yet, in order."""
        self.lost = 0
        """How many frames have come whose segment's descriptor was lost."""
        self._allocate = allocate
        self._staging = bytearray(SMALL_STAGING)
        self._view = memoryview(self._staging)
        self._start = 0
        self._end = 0
        self._frame: Frame | None = None
        """The large frame that is coming."""
        self._room: _Room | None = None
        """The part of it that is coming."""
        self._ahead: list[int | Buffer] = []
        """Its parts after that, the last one first: their sizes, or memory that is there."""
        self._own: list[Buffer] = []
        """Its buffers, where their memory is taken as they come."""
        self._total = 0

    def open_up(self, limit: int, allocate: Allocate | None = None) -> None:
        """
        Accept frames of up to ``limit`` bytes, and read in larger strides.

        Args:
            limit: The largest frame in bytes that is accepted from now on.
            allocate: Used instead of the first one from now on.
        """
        if allocate is not None:
            self._allocate = allocate
        staging = bytearray(STAGING)
        held = self._end - self._start
        staging[:held] = self._view[self._start : self._end]
        self._staging = staging
        self._view = memoryview(staging)
        self._start, self._end = 0, held
        self.limit = limit

    def get_buffer(self) -> memoryview:
        """Return memory to receive into: never empty."""
        if self._room is not None:
            return self._room.view
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start and len(self._staging) - self._end < 4096:
            held = self._end - self._start
            self._staging[:held] = self._staging[self._start : self._end]
            self._start, self._end = 0, held
        return self._view[self._end :]

    def filled(self, count: int) -> list[Frame]:
        """
        Take note that ``count`` bytes came into the buffer, and return the frames now complete.

        Raises:
            RemoteProtocolError: If the bytes cannot be frames, or one is above the limit.
        """
        frames: list[Frame] = []
        if self._room is not None:
            try:
                complete = self._came(count)
            except MemoryError:
                assert self._frame is not None
                raise self._no_room(self._frame.kind) from None
            if complete:
                frames.append(self._finish())
            return frames
        self._end += count
        start, end, staging = self._start, self._end, self._staging
        unpack, limit = HEADER.unpack_from, self.limit
        while end - start >= 24:
            kind, flags, buffers, aux, id, size = unpack(staging, start)
            total = 24 + size
            if total > limit:
                raise RemoteProtocolError(
                    f"a frame of kind {kind} says {total} bytes, the limit is {limit}"
                )
            if not buffers:
                if end - start >= total:
                    whole = start + total
                    frames.append(Frame(kind, flags, aux, id, staging[start:whole], 24))
                    start = whole
                    continue
                if total <= LARGE and total <= len(staging):
                    break
            self._start = start
            frame = self._begin_large(kind, flags, buffers, aux, id, size)
            start = self._start
            if frame is None:
                break
            frames.append(frame)
        self._start = start
        return frames

    def _begin_large(
        self, kind: int, flags: int, count: int, aux: int, id: int, size: int
    ) -> Frame | None:
        """Begin a frame that has buffers or is large; return it if all of it is here."""
        start = self._start
        offset = 24 + 8 * count
        if count > MAX_BUFFERS or offset > len(self._staging):
            raise RemoteProtocolError(f"a frame of kind {kind} says it has {count} buffers")
        if self._end - start < offset:
            return None
        sizes = struct.unpack_from(f"<{count}Q", self._staging, start + 24)
        total = offset + size + sum(sizes)
        if total > self.limit:
            raise RemoteProtocolError(
                f"a frame of kind {kind} says {total} bytes, the limit is {self.limit}"
            )
        segment: Any = None
        given: Sequence[Buffer] | None = None
        self._own, self._ahead = [], []
        if count and flags & SEGMENT_BIT:
            if not self.segments:
                raise RemoteProtocolError("a frame names a shared segment that did not come along")
            segment = self.segments.pop(0)
            self.lost += segment_is_lost(segment)
            sizes = ()
        elif count:
            given, segment = self._allocate(sizes) or (None, None)
        self._ahead.extend(reversed(sizes if given is None else given))
        self._total = total
        try:
            self._room = room = _Room(offset + size)  # get_buffer() gives that from now on
            buffers = self._own if given is None else given
            frame = Frame(kind, flags, aux, id, room.memory, offset, buffers)
            frame.segment = segment
            self._frame = frame
            # What is here is used up; then the stream goes on in the frame's own memory.
            complete = False
            while not complete and start < self._end:
                view = self.get_buffer()
                here = min(len(view), self._end - start)
                view[:here] = self._view[start : start + here]
                start += here
                complete = self._came(here)
        except MemoryError:
            raise self._no_room(kind) from None
        self._start = start
        return self._finish() if complete else None

    def _came(self, count: int) -> bool:
        """Take note of bytes of the large frame; return whether it is complete."""
        room = self._room
        assert room is not None
        if not room.filled(count):
            return False
        while self._ahead:
            part = self._ahead.pop()
            if not isinstance(part, int):
                room = _Room(len(part), memoryview(part))
            else:
                room = _Room(part)
                self._own.append(room.memory)
            if len(room.view):
                self._room = room
                return False
        self._room = None
        return True

    def _no_room(self, kind: int) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"a frame of kind {kind} says {self._total} bytes, and there is no memory for it"
        )

    def _finish(self) -> Frame:
        frame = self._frame
        assert frame is not None
        self._frame = None
        self._own = []
        return frame
