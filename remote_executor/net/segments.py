"""
Large buffers between processes of one host: shared memory instead of a stream.

The sender copies the buffers into a segment and passes its descriptor along with the frame. The
receiver maps it privately, copy-on-write, so what it gets is its own to write to, and nothing was
copied for it. When the last mapping is gone the receiver says so, and the sender uses the segment
again: its pages are already there, which makes the next copy several times faster.

Where the system has no ``memfd_create``, :data:`AVAILABLE` is false and buffers go by the stream.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import resource
import sys
from typing import TYPE_CHECKING, Any

from remote_executor.payload.file_mappings import map_file

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from remote_executor.wire.frames import Buffer

__all__ = [
    "AVAILABLE",
    "WORTH",
    "Descriptor",
    "Mappings",
    "Segment",
    "SegmentPool",
    "check_segment",
    "read_segment",
    "seal",
]

# Linux alone has these.
_MFD_FLAGS: int = getattr(os, "MFD_CLOEXEC", 0) | getattr(os, "MFD_ALLOW_SEALING", 0)
_ADD_SEALS: int = getattr(fcntl, "F_ADD_SEALS", 0)
_GET_SEALS: int = getattr(fcntl, "F_GET_SEALS", 0)
_SEAL_SHRINK: int = getattr(fcntl, "F_SEAL_SHRINK", 0)
_SEAL_GROW: int = getattr(fcntl, "F_SEAL_GROW", 0)
_SEAL_WRITE: int = getattr(fcntl, "F_SEAL_WRITE", 0)

AVAILABLE: bool = sys.platform == "linux" and hasattr(os, "memfd_create") and _SEAL_SHRINK != 0

WORTH = 256 * 1024
"""Bytes of buffers from which on a segment is faster than a stream."""

ALIGN = 64
MOST_OPEN = 256
"""Mappings held at a time: they are looked at often. Beyond that buffers are copied."""
MOST_FREE = 256 * 1024 * 1024
MOST_FREE_SEGMENTS = 32
"""Segments kept that nobody uses: each holds a descriptor."""

LOST = -1
"""In place of a descriptor that came along, and for which there was no room in this process."""

SPARE = 24
"""Descriptors that are kept for those that come along with frames, and for tasks; or a fourth of
all, where there are few."""


def most_descriptors() -> int:
    """Return how many descriptors this process may have now."""
    soft: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


def is_scarce(fd: int) -> bool:
    """Whether a descriptor is one of the last that this process may have: see :data:`SPARE`."""
    most = most_descriptors()
    return fd >= most - min(SPARE, most // 4)


def raise_descriptor_limit(wanted: int = 65_536) -> None:
    """Have this process use as many descriptors as it is allowed to, up to those ``wanted``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        with contextlib.suppress(OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


class Descriptor:
    """A descriptor, such as came from another process. Closed when nobody refers to it."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    # At the interpreter's end the names of a module may be None already; a default is there.
    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1


def read_segment(fd: int, sizes: Sequence[int]) -> list[bytearray]:
    """
    Copy buffers out of a segment. This needs no descriptor and no mapping.

    Args:
        fd: Its descriptor.
        sizes: The bytes of each buffer in it.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is shorter than the buffers.
    """
    buffers = [bytearray(size) for size in sizes]
    for at, buffer in zip(layout(sizes)[0], buffers, strict=True):
        view = memoryview(buffer)
        done = 0
        while done < len(view):
            count = os.preadv(fd, [view[done:]], at + done)
            if not count:
                raise ValueError("a shared segment is shorter than its buffers")
            done += count
    return buffers


def check_segment(fd: int, total: int) -> None:
    """
    Make sure that a segment of another process can be mapped without danger.

    Args:
        fd: Its descriptor.
        total: How many bytes of it are wanted.

    Raises:
        ValueError: If it is shorter, or could become so.
    """
    if os.fstat(fd).st_size < total:
        raise ValueError("a shared segment is shorter than its buffers")
    if not AVAILABLE or not fcntl.fcntl(fd, _GET_SEALS) & _SEAL_SHRINK:
        raise ValueError("a shared segment could be cut short by its owner")


class Segment(Descriptor):
    """Shared memory that this process owns. Made by a :class:`SegmentPool`."""

    __slots__ = ("capacity", "mapping", "owner")

    def __init__(self, fd: int, capacity: int, owner: object = None) -> None:
        super().__init__(fd)
        self.capacity = capacity
        self.owner = owner
        """The token of the pool that made it."""
        self.mapping: mmap.mmap | None = None
        """Where this process reads and writes it, once it has to."""


def seal(segment: Segment) -> None:
    """
    Have nobody write to a segment any more, also those who get its descriptor.

    For what goes to several servers. Map it privately: older kernels refuse a shared mapping.
    """
    fcntl.fcntl(segment.fd, _ADD_SEALS, _SEAL_WRITE | _SEAL_GROW)


def layout(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Return the offset of each buffer in a segment, and the bytes of all."""
    offsets = []
    end = 0
    for size in sizes:
        offsets.append(end)
        end += -(-size // ALIGN) * ALIGN
    return offsets, end


class SegmentPool:
    """
    The segments of one sender for one session, to be used again. Several threads may use it.

    Never for two sessions: whoever has had a segment may have kept its descriptor. He would read
    what is in it next, and change it on its way to somebody else.

    It has no lock, which a ``__del__`` that shares or submits could meet again: whoever takes a
    segment out of the list, by one call into C, has it.

    Args:
        most_free: Bytes kept in segments that nobody uses.
    """

    def __init__(self, most_free: int = MOST_FREE) -> None:
        self._token = object()  # and not itself: that would be a cycle
        self._free: list[Segment] = []
        self._most_free = most_free
        self._closed = False

    def lend(self, buffers: Sequence[Buffer]) -> Segment | None:
        """
        Copy buffers into a segment.

        Args:
            buffers: Flat byte buffers.

        Returns:
            The segment, to be given to :meth:`back` when nobody uses it any more; if that cannot
            be known, forget it. None if there is no memory for one.
        """
        offsets, total = layout([len(buffer) for buffer in buffers])
        try:
            segment = self._take(total)
        except OSError:
            return None
        try:
            for offset, buffer in zip(offsets, buffers, strict=True):
                view = memoryview(buffer)
                done = 0
                while done < len(view):
                    # Not a mapping: pwrite makes fresh pages twice as fast, and lets go of the GIL.
                    done += os.pwrite(segment.fd, view[done:], offset + done)
        except OSError:
            return None
        return segment

    def lend_empty(self, sizes: Sequence[int]) -> tuple[Segment, list[memoryview]] | None:
        """
        Find room for buffers that are still to come.

        Args:
            sizes: The bytes of each.

        Returns:
            The segment and its parts, to be written to; None if there is no memory for one.
        """
        offsets, total = layout(sizes)
        try:
            segment = self._take(total)
            if segment.mapping is None:
                segment.mapping = mmap.mmap(segment.fd, segment.capacity)
        except OSError:
            return None
        view = memoryview(segment.mapping)
        parts = [view[at : at + size] for at, size in zip(offsets, sizes, strict=True)]
        return segment, parts

    def _take(self, total: int) -> Segment:
        """Find the smallest free segment that is large enough, or make one."""
        while fitting := [
            s for s in self._free[:] if total <= s.capacity <= max(4 * total, 1 << 22)
        ]:
            segment = min(fitting, key=lambda s: s.capacity)
            try:
                self._free.remove(segment)
            except ValueError:
                continue  # another thread was faster
            return segment
        capacity = -(-total // (1 << 20)) << 20
        create: Callable[[str, int], int] | None = getattr(os, "memfd_create", None)
        if create is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        segment = Segment(create("remote_executor", _MFD_FLAGS), capacity, self._token)
        if is_scarce(segment.fd):
            raise OSError(errno.EMFILE, "the last descriptors are not for segments")
        os.ftruncate(segment.fd, capacity)
        # Whoever maps it must never find it shorter, which would end his process.
        fcntl.fcntl(segment.fd, _ADD_SEALS, _SEAL_SHRINK)
        return segment

    def owns(self, segment: Segment) -> bool:
        """Tell whether a segment was made here."""
        return segment.owner is self._token

    @property
    def free_bytes(self) -> int:
        """How many bytes are in segments that nobody uses."""
        return sum(segment.capacity for segment in self._free[:])

    def drop_oldest(self) -> None:
        """Let go of the segment that was not used for longest."""
        try:
            self._free.pop(0)
        except IndexError:
            pass  # there is none, or another thread was faster

    def back(self, segment: Segment) -> None:
        """
        Take a segment back: nobody maps it any more.

        One that another pool has made is let go of.
        """
        if not self.owns(segment):
            return
        self._free.append(segment)
        most = 0 if self._closed else self._most_free
        while len(self._free) > MOST_FREE_SEGMENTS or sum(s.capacity for s in self._free[:]) > most:
            try:
                self._free.pop(0)
            except IndexError:
                return  # another thread was faster

    def close(self) -> None:
        """Let go of all free segments; those that are lent are closed when they come back."""
        self._closed = True
        self._free.clear()


class Mappings:
    """
    The segments of others that this process has mapped. For one thread at a time.

    Objects built upon a mapping keep it alive for as long as they live.
    """

    def __init__(self) -> None:
        self._open: dict[Hashable, Any] = {}
        self._copied: list[Hashable] = []

    def __len__(self) -> int:
        return len(self._open)

    def map(self, key: Hashable, fd: int, sizes: Sequence[int]) -> list[memoryview]:
        """
        Map a segment privately.

        Args:
            key: What :meth:`released` will call it.
            fd: Its descriptor, which is not needed afterwards.
            sizes: The bytes of each buffer in it.

        Returns:
            The buffers, writable; nobody else sees what is written.

        Raises:
            OSError: If it cannot be mapped.
            ValueError: If it is shorter than the buffers, or could become so.
        """
        offsets, total = layout(sizes)
        if len(self._open) >= MOST_OPEN:
            return self._copy(key, fd, sizes)
        check_segment(fd, total)
        try:
            mapping = map_file(fd, total)
        except OSError:  # too many mappings, or too much memory promised: a copy needs neither
            return self._copy(key, fd, sizes)
        self._open[key] = mapping
        view = memoryview(mapping)
        return [view[at : at + size] for at, size in zip(offsets, sizes, strict=True)]

    def _copy(self, key: Hashable, fd: int, sizes: Sequence[int]) -> list[memoryview]:
        buffers = [memoryview(buffer) for buffer in read_segment(fd, sizes)]
        self._copied.append(key)
        return buffers

    def forget(self) -> None:
        """Leave what is still in use to those who use it; nobody is to be told."""
        self._open.clear()
        self._copied.clear()

    def released(self) -> list[Hashable]:
        """Unmap what no object uses any more, and return the keys of it."""
        gone, self._copied = self._copied, []
        for key, mapping in list(self._open.items()):
            try:
                mapping.close()
            except BufferError:
                continue  # an array lives on it
            del self._open[key]
            gone.append(key)
        return gone
