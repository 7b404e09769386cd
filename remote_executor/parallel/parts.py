"""
How an input is divided: what lparallel's subdivide and subsize do, for Python's sequences.

Parts are as even as can be, the first ones longer by one. There are never more parts than items.
"""

from __future__ import annotations

import itertools
import operator
import sys
import time
from array import array
from typing import TYPE_CHECKING, Any

from remote_executor.payload.slices import Columns

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = [
    "bounds",
    "columns_of",
    "count_of",
    "deadline_of",
    "one_of",
    "part_bounds",
    "parts_of",
    "seconds_of",
    "section_of",
    "sequence_of",
    "signature_of",
]

SLICED = (list, tuple, range, str, bytes, bytearray, array, memoryview)
"""Types whose slices carry their own items only. Of a subclass one cannot be sure."""
ENDLESS = (itertools.count, itertools.cycle)


def count_of(value: Any, name: str, least: int = 0) -> int:
    """
    Return a whole number that was given as an argument.

    Args:
        value: What was given.
        name: The argument's name, for the error.
        least: What it must be at least.

    Raises:
        TypeError: If it is not an int.
        ValueError: If it is too small.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, not {value!r}") from None
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return number


def seconds_of(value: Any, name: str = "timeout") -> float | None:
    """
    Return a time limit that was given as an argument.

    Args:
        value: Seconds, or None for no limit.
        name: The argument's name, for the error.

    Raises:
        TypeError: If it is not a number.
    """
    if value is None:
        return None
    try:
        return float(value + 0)
    except TypeError:
        raise TypeError(f"{name} must be a number of seconds, not {value!r}") from None


def deadline_of(timeout: Any) -> float | None:
    """
    Return when a time limit that begins now will be over, in monotonic seconds.

    Args:
        timeout: Seconds, or None for no limit.

    Raises:
        TypeError: If it is not a number.
    """
    seconds = seconds_of(timeout)
    return None if seconds is None else time.monotonic() + seconds


def bounds(length: int, start: Any = 0, end: Any = None) -> tuple[int, int]:
    """
    Check the bounds of a part of a sequence. Unlike a slice's they are not clipped.

    Args:
        length: How long the sequence is.
        start: The first item, from 0.
        end: Where to stop; None for the sequence's end.

    Raises:
        TypeError: If one of them is not an int.
        ValueError: If they are not inside the sequence.
    """
    first = count_of(start, "start")
    last = length if end is None else count_of(end, "end")
    if not first <= last <= length:
        raise ValueError(f"start={first}, end={last} do not fit a sequence of {length} items")
    return first, last


def one_of(parts: Any, chunksize: Any) -> tuple[int | None, int | None]:
    """
    Check the two ways to say how an input is divided, of which one at most may be given.

    Args:
        parts: Into how many parts; None if it is not said.
        chunksize: Into parts of how many items; None if it is not said.

    Raises:
        TypeError: If one is not an int, or both are given.
        ValueError: If one is below 1.
    """
    count = None if parts is None else count_of(parts, "parts", 1)
    size = None if chunksize is None else count_of(chunksize, "chunksize", 1)
    if count is not None and size is not None:
        raise TypeError("parts= and chunksize= exclude each other")
    return count, size


def parts_of(size: int, parts: int, chunksize: int | None) -> int:
    """
    Return into how many parts to divide so many items.

    Args:
        size: How many items there are.
        parts: How many parts, if it is not said how long they are.
        chunksize: How many items a part has at most; None if that is not said.
    """
    return parts if chunksize is None else max(1, -(-size // chunksize))


def signature_of(fn: Callable[..., Any]) -> inspect.Signature | None:
    """
    Return what arguments a function takes; None if that is not known, as of some written in C.

    Args:
        fn: The function.
    """
    import inspect  # brings ast and tokenize along, which most never need

    try:
        return inspect.signature(fn)
    except Exception:  # Python 3.14 evaluates annotations, and a __signature__ may be anything
        return None


def part_bounds(size: int, parts: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """
    Yield where each part starts and ends.

    Args:
        size: How many items there are.
        parts: How many parts to make, at most one for each item.
        start: Where the first part starts.
    """
    each, longer = divmod(size, parts)
    for index in range(parts if each else longer):
        end = start + each + (index < longer)
        yield start, end
        start = end


def section_of(
    items: Iterable[Any], start: Any = 0, end: Any = None, *, whole: bool = False
) -> tuple[Any, int, int]:
    """
    Return an input in a form that can be sliced, and the checked bounds of the part that is meant.

    Args:
        items: Any iterable; an iterator is read as far as ``end``.
        start: The first item, from 0.
        end: Where to stop; None for the input's end.
        whole: Whether what comes after ``end`` is wanted, too.

    Raises:
        TypeError: If it is not iterable, or a bound is not an int.
        ValueError: If the bounds are not inside the input, or it would never end.
    """
    first = count_of(start, "start")
    last = None if end is None else count_of(end, "end")
    sequence = sequence_of(items, None if whole else last, hint="where to stop with end=")
    return sequence, *bounds(len(sequence), first, last)


def sequence_of(
    items: Iterable[Any],
    size: int | None = None,
    name: str = "the input",
    hint: str = "how many items with size=",
) -> Any:
    """
    Return something that can be sliced and has a length: the input itself where that will do.

    Args:
        items: Any iterable.
        size: How many items are wanted at most; no more are read from an iterator.
        name: What to call it in an error.
        hint: What to say in the error about an input that never ends.

    Raises:
        TypeError: If it is not iterable.
        ValueError: If it would never end.
    """
    if _is_sliced(items):
        return items
    if size is None:
        if isinstance(items, (*ENDLESS, range)) or _repeats_for_ever(items):
            raise ValueError(f"{name} is endless: say {hint}")
        return list(_iterate(items, name))
    return list(itertools.islice(_iterate(items, name), size))


def _iterate(items: Iterable[Any], name: str) -> Iterator[Any]:
    try:
        return iter(items)
    except TypeError:
        raise TypeError(f"{name} must be iterable, not {items!r}") from None


def _repeats_for_ever(items: Any) -> bool:
    if not isinstance(items, itertools.repeat):
        return False
    try:
        items.__length_hint__()  # operator.length_hint would take it for 0
    except TypeError:  # its length is unsized
        return True
    return False


def _is_sliced(items: Any) -> bool:
    if type(items) is range:
        return _has_length(items)
    return type(items) in SLICED or _is_array(items)


def _has_length(items: range) -> bool:
    try:
        len(items)
    except OverflowError:  # as good as endless
        return False
    return True


def _is_array(items: Any) -> bool:
    """Whether it is a numpy array with at least one dimension, or a pandas Series."""
    # Another thread may be importing them: what has no such type yet has made no such object.
    if type(items) is getattr(sys.modules.get("numpy"), "ndarray", None):
        return bool(items.ndim)
    return type(items) is getattr(sys.modules.get("pandas"), "Series", None)


def columns_of(inputs: Sequence[Iterable[Any]], size: int | None = None) -> Columns:
    """
    Return the inputs side by side, as long as the shortest of them.

    An iterator is read no further than the shortest sequence reaches.

    Args:
        inputs: At least one iterable.
        size: How many items count at most; None for all.

    Raises:
        TypeError: If one is not iterable.
        ValueError: If all of them are endless.
    """
    columns: list[Any] = [None] * len(inputs)
    open_ended = []
    for index, items in enumerate(inputs):
        if _is_sliced(items):
            columns[index] = items
            length = len(items)  # type: ignore[arg-type]
            size = length if size is None else min(size, length)
        else:
            open_ended.append(index)
    # Those that are sure to end come first: they bound the others.
    open_ended.sort(key=lambda index: isinstance(inputs[index], (*ENDLESS, itertools.repeat)))
    for index in open_ended:
        column = sequence_of(inputs[index], size, f"input {index + 1}")
        columns[index] = column
        size = len(column) if size is None else min(size, len(column))
    return Columns(columns, size)
