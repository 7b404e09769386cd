"""
What an executor has shared: each object pickled once, its bytes kept as they were at that moment.

The bytes are in a shared-memory segment where that can be: servers of this host map that very
segment, and all others are sent what is in it. So there is one copy here and one on each host,
whatever the number of workers.
"""

from __future__ import annotations

import mmap
import os
import sys
from enum import Enum
from typing import TYPE_CHECKING, Any

from remote_executor.net.segments import AVAILABLE, WORTH, SegmentPool, layout, seal
from remote_executor.payload import shared
from remote_executor.payload.pickles import dump, holds_code
from remote_executor.wire.frames import make_frame
from remote_executor.wire.messages import Flag, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from remote_executor.core.known import Functions
    from remote_executor.net.segments import Segment
    from remote_executor.wire.frames import Buffer, Frame

__all__ = ["Blob", "Shares"]

MOST_SEGMENTS = 128
"""Shared objects in segments at a time, each of which holds a descriptor; the others are copies."""

ATOMS = (type(None), bool, int, float, complex, str, bytes, range)


class Blob:
    """
    A shared object's bytes. Freed when no handle and no unsettled task refers to it.

    Attributes:
        number: What it is called on the wire.
        token: What it is called in pickles.
        what: The object's type, in words.
        pure: Whether the object cannot change.
        code: Whether the pickle holds code by value.
        needs: Other shared objects that this one refers to.
        size: Bytes in all.
    """

    __slots__ = (
        "__weakref__",
        "_buffers",
        "_freed",
        "_segment",
        "code",
        "needs",
        "number",
        "pure",
        "size",
        "token",
        "what",
    )

    def __init__(
        self,
        number: int,
        token: bytes,
        obj: object,
        segment: Segment | None,
        buffers: Sequence[Buffer],
        needs: tuple[Blob, ...],
        freed: Callable[[int, Segment | None], None],
    ) -> None:
        self._freed = freed
        self._segment = segment
        self._buffers = buffers
        self.number = number
        self.token = token
        self.what = type(obj).__qualname__
        self.pure = _is_fixed(obj)
        self.code = holds_code(buffers[0])
        self.needs = needs
        self.size = sum(map(len, buffers))

    def frame(self, segments: bool) -> Frame:
        """
        Return what to send to a server.

        Args:
            segments: Whether it is on this host and takes descriptors.
        """
        flags = Flag.SHARED | (Flag.PURE if self.pure else 0)
        frame = make_frame(
            Kind.BLOB, 0, self.token, self._buffers, aux=self.number, flags=int(flags)
        )
        if segments and self._segment is not None:
            frame.set_segment(self._segment)
        return frame

    def __del__(self, is_at_the_end: Callable[[], bool] = sys.is_finalizing) -> None:
        # The garbage collector may call this in any thread, whatever that has in hand. At the
        # interpreter's end the names of modules may be None already, and nobody is there to tell.
        if not is_at_the_end():
            self._freed(self.number, self._segment)


class Shares:
    """
    The shared objects of an executor.

    Args:
        functions: Gives numbers.
        freed: Told the number of an object that nobody refers to any more, at any moment and in
            any thread.
    """

    def __init__(self, functions: Functions, freed: Callable[[int], None]) -> None:
        self._functions = functions
        self._owner = os.urandom(8)
        self._pool = SegmentPool(0)  # nothing is used again: nobody counts who maps it
        self._segments = 0
        self._tell = freed

    def share(self, obj: object) -> shared.Shared:
        """
        Take an object as it is now.

        Raises:
            PayloadError: If it cannot be pickled.
        """
        body, views = dump(obj)
        buffers: list[Buffer] = [body, *views]
        segment = None
        if AVAILABLE and sum(map(len, buffers)) >= WORTH and self._segments < MOST_SEGMENTS:
            segment = self._pool.lend(buffers)
        if segment is not None:
            seal(segment)  # it goes to several servers, of which one may be hostile
        if segment is None:
            buffers = [body, *(view.tobytes() for view in views)]
        else:
            buffers = _mapped(segment, buffers)
            self._segments += 1
        number = self._functions.next_number()
        token = shared.make_token(self._owner, number)
        blob = Blob(number, token, obj, segment, buffers, self._behind([body]), self._freed)
        shared.blobs[token] = blob
        return shared.Shared(blob)

    def met_in(self, encoded: Any, body: Buffer) -> tuple[Blob, ...]:
        """
        Return what a task refers to, each after those that it refers to itself.

        Args:
            encoded: The task's pickled function.
            body: The pickle of its arguments or items.
        """
        if encoded.tokens is None:
            encoded.tokens = shared.find(encoded.body)
        tokens = shared.find(body)
        if not tokens and not encoded.tokens:
            return ()
        return self._resolved([*encoded.tokens, *tokens])

    def _behind(self, bodies: Sequence[bytes]) -> tuple[Blob, ...]:
        return self._resolved([token for body in bodies for token in shared.find(body)])

    def _resolved(self, tokens: list[bytes]) -> tuple[Blob, ...]:
        found: dict[Blob, None] = {}
        for token in tokens:
            # Those of other executors are not known to our servers: the worker says so.
            blob = shared.blobs.get(token)
            if blob is not None and token[8:16] == self._owner:
                found.update(dict.fromkeys((*blob.needs, blob)))
        return tuple(found)

    def _freed(self, number: int, segment: Segment | None) -> None:
        if segment is not None:
            self._segments -= 1
        self._tell(number)


def _mapped(segment: Segment, buffers: Sequence[Buffer]) -> list[Buffer]:
    """Return the buffers where they are in a segment, to be read."""
    sizes = [len(buffer) for buffer in buffers]
    offsets, total = layout(sizes)
    mapping = mmap.mmap(segment.fd, total, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    view = memoryview(mapping)
    return [view[at : at + size] for at, size in zip(offsets, sizes, strict=True)]


def _is_fixed(value: object) -> bool:
    """Whether no task could change it, nor anything that it refers to."""
    kind = type(value)
    if kind is tuple or kind is frozenset:
        return all(map(_is_fixed, value))  # type: ignore[call-overload]
    return kind in ATOMS or isinstance(value, Enum)
