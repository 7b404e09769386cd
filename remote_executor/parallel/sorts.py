"""Sorting: keys are computed and parts are sorted on the workers, and merged here."""

from __future__ import annotations

import gc
import sys
from functools import cmp_to_key, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from remote_executor.parallel import calls
from remote_executor.parallel.kernel import Kernel, kernel_of
from remote_executor.parallel.parts import one_of, part_bounds, parts_of, sequence_of
from remote_executor.parallel.work import Work
from remote_executor.payload.slices import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

__all__ = ["psort"]

T = TypeVar("T")


class _Array(Protocol):
    """A numpy array, for type checkers: sorted, it is one again."""

    @property
    def ndim(self) -> int: ...

    @property
    def itemsize(self) -> int: ...

    @property
    def dtype(self) -> Any: ...


A = TypeVar("A", bound=_Array)


PLAIN_KINDS = "biufcmMUS"
"""The kinds of numpy arrays that hold values, which numpy sorts, and no objects."""


@overload
def psort(
    sequence: A,
    *,
    key: Callable[[Any], Any] | None = None,
    cmp: Callable[[Any, Any], int] | None = None,
    reverse: bool = False,
    parts: int | None = None,
    chunksize: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> A: ...
@overload
def psort(
    sequence: Iterable[T],
    *,
    key: Callable[[T], Any] | None = None,
    cmp: Callable[[Any, Any], int] | None = None,
    reverse: bool = False,
    parts: int | None = None,
    chunksize: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> list[T]: ...
def psort(
    sequence: Any,
    *,
    key: Callable[[Any], Any] | None = None,
    cmp: Callable[[Any, Any], int] | None = None,
    reverse: bool = False,
    parts: int | None = None,
    chunksize: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> Any:
    """
    Return a sorted list of the items: always equal to that of ``sorted``, and stable as it is.
    (Of items that have no order, such as NaN among floats, it is some list, as is that of sorted;
    numpy puts NaN last.)

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.psort(["pear", "Fig"], key=str.lower)  # ['Fig', 'pear']

    It pays when ``key`` is costly. Items are your own objects, not copies: what comes back from the
    workers are places and keys. Unlike lparallel's psort it leaves its input as it was.

    Args:
        sequence: Any iterable.
        key: What to compare items by; computed on the workers, once for each item. What
            ``functools.cmp_to_key`` gives will do.
        cmp: Compares two items, or what ``key`` gives for them: returns a number below, equal to or
            above 0. Called on the workers, and here to merge the parts.
        reverse: Whether the largest come first.
        parts: How many parts; by default one for each worker.
        chunksize: How many items a part has, in place of ``parts``.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Returns:
        A new list; for a numpy array of one dimension, a new array.

    Raises:
        TypeError: If items cannot be compared, or ``key`` is not callable.
        ValueError: If ``parts`` is below 1.
        TimeoutError: It took too long.
        Exception: What ``key`` raised, in the first part that failed.
    """
    if key is not None and not callable(key):
        raise TypeError(f"key must be callable, not {key!r}")
    if cmp is not None and not callable(cmp):
        raise TypeError(f"cmp must be callable, not {cmp!r}")
    compare = _compared_by(key)
    if compare is not None:
        if cmp is not None:
            raise TypeError("cmp= and key=functools.cmp_to_key(...) exclude each other")
        key, cmp = None, compare
    kernel = kernel_of(executor)
    count, length = one_of(parts, chunksize)
    items = sequence_of(sequence, None, "the sequence")
    count = parts_of(len(items), count or kernel.worker_count, length)
    spans = list(part_bounds(len(items), count))
    ndarray = getattr(sys.modules.get("numpy"), "ndarray", None)
    is_row = type(items) is ndarray and items.ndim == 1
    if is_row and key is None and cmp is None and items.dtype.kind in PLAIN_KINDS:
        return _sort_array(kernel, items, spans, reverse, timeout)
    places: list[int] = []
    keys: list[Any] = []
    if spans:
        run = partial(calls.sort_part, key, cmp, reverse)
        with Work(kernel, timeout) as work:
            for start, end in spans:
                work.submit(run, cut(items, start, end))
            for (start, _), (order, ordered) in zip(spans, work.in_order(), strict=True):
                places.extend(map(start.__add__, order))
                keys.extend(ordered or ())
    # What follows are runs that are sorted already: Timsort finds them and merges them. It is
    # stable in either direction, so equal items stay in the order of the runs, which is theirs.
    ordering = cmp_to_key(cmp) if cmp is not None else None
    if key is not None:
        ranks = keys if ordering is None else list(map(ordering, keys))
        merged = sorted(range(len(keys)), key=ranks.__getitem__, reverse=reverse)
        places = list(map(places.__getitem__, merged))
    elif is_row:
        rank = items.__getitem__
        by = rank if ordering is None else lambda place: ordering(rank(place))
        places.sort(key=by, reverse=reverse)
    else:
        own = items if isinstance(items, list) else list(items)
        return sorted(map(own.__getitem__, places), key=ordering, reverse=reverse)
    if is_row:
        return items[places] if places else items.copy()
    own = items if isinstance(items, list) else list(items)
    return list(map(own.__getitem__, places))


def _compared_by(key: Any) -> Callable[[Any, Any], int] | None:
    """Return the function of which ``functools.cmp_to_key`` made a key: it travels, the key not."""
    kind = type(key)
    if (kind.__module__, kind.__name__) == ("functools", "KeyWrapper"):
        # It is shown to the garbage collector alone.
        found: list[Any] = [each for each in gc.get_referents(key) if each is not kind]
    elif getattr(key, "__qualname__", "") == "cmp_to_key.<locals>.K":  # PyPy's is a class
        found = [cell.cell_contents for cell in key.__lt__.__closure__]
    else:
        return None
    return found[0]  # type: ignore[no-any-return]


def _sort_array(
    kernel: Kernel, items: Any, spans: list[tuple[int, int]], reverse: bool, timeout: float | None
) -> Any:
    """Sort an array of plain values. To reverse it, all is sorted in the order from its end."""
    if not spans:
        return items.copy()
    run = partial(calls.sort_array, reverse)
    with Work(kernel, timeout) as work:
        for start, end in spans:
            work.submit(run, items[start:end])
        runs = list(work.in_order())
    if reverse:
        runs.reverse()
    merged = sys.modules["numpy"].concatenate(runs)
    merged.sort(kind="stable")
    merged = merged.astype(items.dtype, copy=False)  # concatenation changes the byte order
    return merged[::-1].copy() if reverse else merged
