"""
What a pickled list still gives when one of its items does not load.

A batch of a map is one pickle, since one is much faster than many. If an item cannot be rebuilt,
those before it must not be lost: a pickle of a list that ends earlier is a pickle too, once the
list is closed. ::

    whole     PROTO FRAME EMPTY_LIST MEMOIZE MARK item item broken item APPENDS STOP
    salvaged  PROTO       EMPTY_LIST MEMOIZE MARK item item             APPENDS STOP
"""

from __future__ import annotations

import pickletools
from typing import TYPE_CHECKING, Any, NamedTuple

from remote_executor.payload.pickles import load

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["load_before"]

FRAME_SIZE = 9
"""Bytes of the operation and of its argument."""

APPENDS = b"e"
STOP = b"."


class _Cut(NamedTuple):
    """Where a pickle may end early, and what closes it there."""

    end: int
    closer: bytes


def load_before(body: bytes | bytearray | memoryview, buffers: Sequence[Any] = ()) -> list[Any]:
    """
    Unpickle the items before the first that cannot be unpickled.

    To be called after ``load`` has failed, by what the first broken item raised. Some items are
    rebuilt several times on the way.

    Args:
        body: The pickle of a list.
        buffers: Its buffers, in order.

    Returns:
        The items; none if it is not the pickle of a list.
    """
    try:
        data = _without_frames(bytes(body))
        cuts = _cuts(data)
    except Exception:  # pickletools raises this and that where there is no pickle
        return []
    values: list[Any] = []
    good, bad = 0, len(cuts)  # so many items load, and so many do not
    while bad - good > 1:
        middle = (good + bad) // 2
        cut = cuts[middle]
        try:
            values = load(data[: cut.end] + cut.closer, buffers)
        except KeyboardInterrupt:
            raise
        except BaseException:  # as broken as it was the first time
            bad = middle
        else:
            good = middle
    return values


def _without_frames(body: bytes) -> bytes:
    """Return a pickle without marks of how much to read ahead, which a cut would make wrong."""
    parts = []
    start = 0
    for operation, _, position in pickletools.genops(body):
        if operation.name == "FRAME":
            assert position is not None
            parts.append(body[start:position])
            start = position + FRAME_SIZE
    return b"".join((*parts, body[start:]))


def _cuts(data: bytes) -> list[_Cut]:
    """
    Return for 0, 1, 2, ... items of a pickled list where the pickle may end with so many.

    An item begins where the stack last grows from its height before this item to one more: what
    grows it earlier is consumed again, as arguments are by a call.
    """
    cuts: list[_Cut] = []
    levels = [0]
    """How many objects the stack holds: in all, and above each mark."""
    marks: list[int] = []
    starts: dict[tuple[int, int], int] = {}
    """Where the object began that is at this height of this level."""
    for operation, _, position in pickletools.genops(data):
        assert position is not None
        if operation.name == "MARK":
            levels.append(0)
            marks.append(position)
            continue
        takes, begin = operation.stack_before, position
        if pickletools.stackslice in takes:
            height = levels.pop()
            begin = marks.pop()
            if operation.name == "APPENDS" and levels == [1]:
                cuts += [_Cut(starts[2, index], APPENDS + STOP) for index in range(height)]
            takes = takes[: takes.index(pickletools.markobject)]
        elif operation.name == "APPEND" and levels == [2]:
            cuts.append(_Cut(starts[1, 1], STOP))
        before = levels[-1]
        levels[-1] += len(operation.stack_after) - len(takes)
        if levels[-1] > before:
            starts[len(levels), before] = begin
    return cuts
