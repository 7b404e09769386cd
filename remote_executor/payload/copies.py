"""
Private copies of buffers, again and again, for the price of the pages that are touched.

A function with a large captured array is rebuilt for each call, upon buffers that the call may
write to. To copy 20 MB each time costs milliseconds. A private mapping of a memory file costs
microseconds, the kernel copies a page when it is written. To map its pages anew for each call takes
longer than many a call, so the mapping of the last one is used again if it was left unwritten.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from remote_executor.payload.file_mappings import map_file
from remote_executor.payload.writes import faults, unwritten

__all__ = ["MAPPED", "PrivateCopies"]

#: From so many bytes on, a mapping is cheaper than a copy.
MAPPED = 1024 * 1024

_MEMORY_FILE: Callable[[str], int] | None = getattr(os, "memfd_create", None)

_references: Callable[[object], int] | None = getattr(sys, "getrefcount", None)


def _identity(fd: int, fstat: Callable[[int], os.stat_result] = os.fstat) -> tuple[int, int] | None:
    try:
        status = fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class PrivateCopies:
    """Hands out writable copies of the same buffers."""

    __slots__ = ("_faults", "_fd", "_identity", "_last", "_pristine", "_rested", "_spans")

    def __init__(
        self,
        buffers: Sequence[Any],
        memory_file: Callable[[str], int] | None = _MEMORY_FILE,
    ) -> None:
        """
        Take the buffers over. Nobody else may write to them from now on.

        Args:
            buffers: Flat bytes-like objects.
            memory_file: Makes a file in memory and returns its descriptor; None where there is no
                such thing, and copies are made.
        """
        self._fd = -1
        self._identity: tuple[int, int] | None = None
        self._spans: list[tuple[int, int]] = []
        self._pristine: Any = None
        self._last: mmap.mmap | None = None
        """What was handed out last, and how many faults there had been when it was unwritten."""
        self._faults = 0
        self._rested = False
        end = 0
        for buffer in buffers:
            self._spans.append((end, end + len(buffer)))
            end += -(-len(buffer) // mmap.PAGESIZE) * mmap.PAGESIZE
        if memory_file is None or end < MAPPED or not self._map(memory_file, end):
            self._pristine = bytearray(end)
        for (start, stop), buffer in zip(self._spans, buffers, strict=True):
            self._pristine[start:stop] = buffer

    def _map(self, memory_file: Callable[[str], int], size: int) -> bool:
        """Make a file in memory; return False where that is refused, or files must be smaller."""
        try:
            fd = memory_file("remote_executor")
        except OSError:
            return False
        try:
            os.ftruncate(fd, size)
            self._pristine = mmap.mmap(fd, size)
        except (OSError, ValueError):
            os.close(fd)
            return False
        self._fd = fd
        self._identity = _identity(fd)
        return True

    @classmethod
    def of_file(cls, fd: int, spans: Sequence[tuple[int, int]]) -> PrivateCopies:
        """
        Hand out copies of what a memory file has, which other processes share.

        Args:
            fd: Its descriptor, which becomes ours.
            spans: Where each buffer begins and ends in it.

        Raises:
            OSError: If it cannot be mapped.
        """
        copies = cls.__new__(cls)
        copies._fd = fd
        copies._identity = _identity(fd)
        copies._spans = list(spans)
        copies._last = None
        copies._faults = 0
        copies._rested = False
        # Never touched as long as the descriptor is there, so it takes no memory.
        copies._pristine = map_file(fd, copies._spans[-1][1])
        return copies

    def fresh(self) -> list[memoryview]:
        """Return copies that the caller may write to and keep."""
        self.rest()
        self._rested = False
        if self._last is None and self._fd >= 0 and _identity(self._fd) == self._identity:
            with contextlib.suppress(OSError):  # no room for one more: copies are made
                self._last = map_file(self._fd, len(self._pristine))
        if self._last is not None:
            self._faults = faults()
            whole = memoryview(self._last)
            return [whole[start:stop] for start, stop in self._spans]
        # Also when a task has closed our descriptor, and perhaps opened another by its number.
        view = memoryview(self._pristine)
        return [memoryview(bytearray(view[start:stop])) for start, stop in self._spans]

    def rest(self) -> None:
        """
        Let go of the last copies if they were written to; others are kept for the next call.

        For when a call is over: what it wrote takes memory.
        """
        if not self._rested:
            self._rested = self._is_as_new()
            if not self._rested:
                self._last = None

    def _is_as_new(self) -> bool:
        """Whether what was handed out last has come back as it was: unwritten, with no users."""
        if self._last is None or _references is None or _references(self._last) > 2:
            return False
        return faults() == self._faults or unwritten(self._last)

    def __del__(self) -> None:
        if self._fd >= 0:
            self._close()

    # At the interpreter's end the names of a module may be None already; a default is there.
    def _close(
        self,
        identity: Callable[[int], tuple[int, int] | None] = _identity,
        close: Callable[[int], None] = os.close,
    ) -> None:
        if identity(self._fd) == self._identity:
            close(self._fd)
            self._fd = -1
