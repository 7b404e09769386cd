"""The bytes that wait to be written to a stream, in order."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from remote_executor.wire.frames import SEGMENT_BIT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from remote_executor.wire.frames import Buffer, Frame

__all__ = ["Outbox", "WithSegment"]

JOIN = 16 * 1024
"""Buffers smaller than this are joined into one write; larger ones are never copied."""

STRIDE = 256 * 1024

TINY = 1024
CROWD = 256
"""Frames below ``TINY`` bytes that are put in together are joined at once, so many at a time."""


class WithSegment(bytes):
    """Bytes whose first one takes a descriptor along. Goes out in a chunk of its own."""

    segment: Any
    """What has it, as ``fd``; kept alive until it is sent."""


class Outbox:
    """
    What is to be written.

    Ask :meth:`chunk` for buffers, write them with one system call, tell :meth:`sent` how many
    bytes went, and go on until ``size`` is zero.
    """

    __slots__ = ("_parts", "size")

    def __init__(self) -> None:
        self._parts: deque[Buffer] = deque()
        self.size = 0
        """Bytes not yet written."""

    def put(self, frame: Frame) -> None:
        """Append a frame."""
        if frame.flags & SEGMENT_BIT and frame.segment is not None:
            raw = WithSegment(frame.raw)
            raw.segment = frame.segment
            self._parts.append(raw)
            self.size += len(raw)
            if frame.tail is not None:
                self._parts.append(frame.tail)
                self.size += len(frame.tail)
        elif frame.tail is None and not frame.buffers:
            self._parts.append(frame.raw)
            self.size += len(frame.raw)
        else:
            for part in frame.parts():
                if len(part):
                    self._parts.append(part)
                    self.size += len(part)

    def put_all(self, frames: Iterable[Frame]) -> None:
        """Append frames; tiny ones are joined now, which takes less time than to do it later."""
        tiny: list[Buffer] = []
        for frame in frames:
            raw = frame.raw
            plain = frame.tail is None and not frame.buffers and frame.segment is None
            if plain and len(raw) < TINY:
                tiny.append(raw)
            else:
                self._join(tiny)
                tiny = []
                self.put(frame)
        self._join(tiny)

    def _join(self, tiny: list[Buffer]) -> None:
        for start in range(0, len(tiny), CROWD):
            joined = b"".join(tiny[start : start + CROWD])
            self._parts.append(joined)
            self.size += len(joined)

    def clear(self) -> None:
        """Forget everything: the stream is gone."""
        self._parts.clear()
        self.size = 0

    def chunk(self) -> list[Buffer]:
        """
        Return what to write next: some 256 KiB, or one larger buffer and what comes before it.

        Small buffers are joined here, since one copy is cheaper than a long vector. At most every
        other piece is a small one, so there are a few dozen, far below what ``sendmsg`` takes.
        """
        parts = self._parts
        if parts and (len(parts) == 1 or type(parts[0]) is WithSegment):
            return [parts[0]]
        chunk: list[Buffer] = []
        small: list[Buffer] = []
        total = 0
        while parts and total < STRIDE:
            part = parts.popleft()
            if type(part) is WithSegment:
                parts.appendleft(part)
                break
            total += len(part)
            if len(part) < JOIN:
                small.append(part)
                continue
            if small:
                chunk.append(b"".join(small) if len(small) > 1 else small[0])
                small = []
            chunk.append(part)
        if small:
            chunk.append(b"".join(small) if len(small) > 1 else small[0])
        parts.extendleft(reversed(chunk))
        return chunk

    def sent(self, count: int) -> None:
        """Take note that ``count`` bytes of the last :meth:`chunk` were written."""
        self.size -= count
        parts = self._parts
        while count:
            part = parts.popleft()
            if len(part) > count:
                parts.appendleft(memoryview(part)[count:])
                return
            count -= len(part)
