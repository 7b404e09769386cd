"""
Sequences that travel in slices: each part of a parallel map carries its own items and no others.

::

    Columns([names, ages])[10:20]  ->  Rows of the two slices   ->  iterates over (name, age)
    Columns([ages])[10:20]         ->  the slice itself: a list, an array, a range ...

Arrays stay arrays, so their slices go out of band and are not copied into a pickle.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Columns", "Memory", "Rows", "cut"]

FORMATS = frozenset("bBhHiIlLqQfdc?")
"""What a memoryview can be cast to."""


class Columns:
    """
    Sequences side by side, as long as the shortest of them, or as ``length`` if that is less.

    They are not copied: a slice is taken when it is asked for.

    Args:
        columns: At least one sequence that :func:`cut` knows how to slice.
        length: How many items count at most; None for all.
    """

    __slots__ = ("columns", "length")

    def __init__(self, columns: Sequence[Any], length: int | None = None) -> None:
        self.columns = tuple(columns)
        shortest = min(map(len, self.columns))
        self.length = shortest if length is None else min(shortest, length)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        return iter(self[:])

    def __getitem__(self, part: slice) -> Any:
        """Return a slice in the form in which it travels: something to iterate over, with a len."""
        start, stop, _ = part.indices(self.length)
        if len(self.columns) == 1:
            return cut(self.columns[0], start, stop)
        return Rows(tuple(cut(column, start, stop) for column in self.columns))


class Rows:
    """Slices of equal length that are read side by side, a tuple at a time."""

    __slots__ = ("columns",)

    def __init__(self, columns: tuple[Any, ...]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return zip(*self.columns, strict=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return Rows, (self.columns,)


class Memory:
    """A slice of a memoryview, which itself does not pickle. Its bytes go out of band."""

    __slots__ = ("view",)

    def __init__(self, view: memoryview) -> None:
        self.view = view

    def __len__(self) -> int:
        return len(self.view)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.view)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        data = pickle.PickleBuffer(self.view) if protocol >= 5 else self.view.tobytes()
        return _memory, (data, self.view.format)


def _memory(data: Any, form: str) -> Memory:
    return Memory(memoryview(data).cast("B").cast(form))  # type: ignore[call-overload]


def cut(sequence: Any, start: int, stop: int) -> Any:
    """
    Return the items from ``start`` to before ``stop``, in a form that travels.

    Args:
        sequence: A list, tuple, range, str, bytes, bytearray, array, memoryview, numpy array,
            pandas Series, or anything else that takes slices.
        start: The first item, from 0.
        stop: Where to end, at most its length.
    """
    if isinstance(sequence, memoryview):
        part = sequence[start:stop]
        if part.ndim == 1 and part.c_contiguous and part.format in FORMATS:
            return Memory(part)
        return part.tolist()
    by_position = getattr(sequence, "iloc", None)  # a Series takes its slices by label otherwise
    return (sequence if by_position is None else by_position)[start:stop]
