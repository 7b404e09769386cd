"""Reductions: each part is reduced on its own, and then the partial results are."""

from __future__ import annotations

import time
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from remote_executor.parallel import calls
from remote_executor.parallel.kernel import Kernel, kernel_of
from remote_executor.parallel.parts import (
    deadline_of,
    one_of,
    part_bounds,
    parts_of,
    section_of,
    signature_of,
)
from remote_executor.parallel.work import Work
from remote_executor.payload.slices import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

__all__ = ["pmap_reduce", "preduce", "preduce_partial"]

K = TypeVar("K")
T = TypeVar("T")


class _Nothing:
    """In place of an argument that was not given, where None would be one."""

    def __repr__(self) -> str:
        return "<nothing>"


NOTHING: Final[Any] = _Nothing()


@overload
def preduce(
    fn: Callable[[T, T], T],
    sequence: Iterable[T],
    initial: T = ...,
    *,
    initial_per_part: bool = False,
    key: None = None,
    start: int = 0,
    end: int | None = None,
    from_end: bool = False,
    parts: int | None = None,
    chunksize: int | None = None,
    recurse: bool = False,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> T: ...
@overload
def preduce(
    fn: Callable[[K, K], K],
    sequence: Iterable[T],
    initial: K = ...,
    *,
    initial_per_part: bool = False,
    key: Callable[[T], K],
    start: int = 0,
    end: int | None = None,
    from_end: bool = False,
    parts: int | None = None,
    chunksize: int | None = None,
    recurse: bool = False,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> K: ...
def preduce(
    fn: Callable[[Any, Any], Any],
    sequence: Iterable[Any],
    initial: Any = NOTHING,
    *,
    initial_per_part: bool = False,
    key: Callable[[Any], Any] | None = None,
    start: int = 0,
    end: int | None = None,
    from_end: bool = False,
    parts: int | None = None,
    chunksize: int | None = None,
    recurse: bool = False,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> Any:
    """
    Reduce a sequence in parallel, as ``functools.reduce(fn, sequence, initial)``.

    ::

        import operator
        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.preduce(operator.add, [1, 2, 3, 4])  # 10
            p.preduce(operator.add, [1, 2, 3, 4], 100)  # 110

    The sequence is divided into parts, each part is reduced on a worker, and the partial results
    are reduced here, in the order of the parts. That equals ``functools.reduce`` if ``fn`` is
    associative; it need not be commutative. Comes from lparallel's and lfarm's preduce.

    ``initial`` stands once in front of the items, as the first of them, so that the value is the
    same for any number of workers. In lparallel each part begins with it, so that it must be
    neutral, such as 0 for a sum; ``initial_per_part=True`` has it so, and then one that is not
    neutral gives another value for each number of parts::

        import operator
        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.preduce(operator.add, [1, 2], 100, initial_per_part=True, parts=2)  # 203

    ``initial`` must not be changed by ``fn``: threads would share it.

    A numpy array of numbers is reduced by numpy itself where ``fn`` is one of ``operator.add``,
    ``mul``, ``and_``, ``or_``, ``xor``, a ufunc of that kind such as ``numpy.maximum``, or, for
    integers, ``min`` or ``max``. The type of the result is that of the loop; floats are summed
    pairwise, so the last digits may differ; integers that overflow do so without a warning.

    Args:
        fn: Takes two values and returns one.
        sequence: Any iterable. What can be sliced is; each part travels by itself.
        initial: What stands in front of the items; with ``from_end``, behind them.
        initial_per_part: Whether each part begins with it, and with ``recurse`` each part of each
            pass.
        key: Applied to each item first, on the workers.
        start: The first item to count.
        end: Where to stop; None for the end. An iterator is read no further, and may be endless.
        from_end: Whether each part is reduced from its end: ``fn(a, fn(b, c))``.
        parts: How many parts; by default one for each worker.
        chunksize: How many items a part has, in place of ``parts``.
        recurse: Whether the partial results are reduced in parallel again while there are four
            or more of them.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Returns:
        The value; of nothing at all ``initial``.

    Raises:
        TypeError: If there are no items and no ``initial``, or an argument has a wrong type.
        ValueError: If the bounds are outside the sequence, or ``parts`` is below 1.
        TimeoutError: It took too long.
        Exception: What ``fn`` or ``key`` raised, in the first part that failed.
    """
    asked = _Reduction(
        fn, key, from_end, initial, initial_per_part, parts, chunksize, timeout, executor
    )
    items, first, last = section_of(sequence, start, end)
    if first == last:
        if initial is NOTHING:
            raise TypeError("preduce of an empty sequence with no initial value")
        return initial
    results = asked.partial_results(items, first, last)
    while recurse and len(results) >= 4:
        asked.again(len(results) // 2)
        results = asked.partial_results(results, 0, len(results))
    return reduce(fn, results)


def preduce_partial(
    fn: Callable[[Any, Any], T],
    sequence: Iterable[Any],
    *,
    initial: Any = NOTHING,
    key: Callable[[Any], Any] | None = None,
    start: int = 0,
    end: int | None = None,
    from_end: bool = False,
    parts: int | None = None,
    chunksize: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> list[T]:
    """
    Reduce each part of a sequence, and return the partial results in the order of the parts.

    ::

        import operator
        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.preduce_partial(operator.add, [1, 2, 3, 4, 5], parts=2)  # [6, 9]

    Args:
        fn: Takes two values and returns one.
        sequence: Any iterable with at least one item that counts.
        initial: What each part begins with; without it, its first item.
        key: Applied to each item first, on the workers.
        start: The first item to count.
        end: Where to stop; None for the end.
        from_end: Whether each part is reduced from its end: ``fn(a, fn(b, c))``.
        parts: How many parts, by default one for each worker; the first ones are longer by one if
            it does not come out even.
        chunksize: How many items a part has, in place of ``parts``.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        ValueError: If there are no items, with or without an initial value, the bounds are outside
            the sequence, or ``parts`` is below 1.
        TypeError: If an argument has a wrong type.
        TimeoutError: It took too long.
        Exception: What ``fn`` or ``key`` raised, in the first part that failed.
    """
    asked = _Reduction(fn, key, from_end, initial, True, parts, chunksize, timeout, executor)
    items, first, last = section_of(sequence, start, end)
    if first == last:
        raise ValueError("preduce_partial of an empty sequence")
    return asked.partial_results(items, first, last)


def pmap_reduce(
    fn: Callable[[T], K],
    op: Callable[[K, K], K],
    sequence: Iterable[T],
    initial: K = NOTHING,
    *,
    initial_per_part: bool = False,
    start: int = 0,
    end: int | None = None,
    from_end: bool = False,
    parts: int | None = None,
    chunksize: int | None = None,
    recurse: bool = False,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> K:
    """
    Map and then reduce, both on the workers, so that only one value for each part comes back.

    ::

        import operator
        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pmap_reduce(len, operator.add, ["pear", "fig"])  # 7

    Args:
        fn: Applied to each item.
        op: Takes two results of ``fn`` or of its own and returns one; associative.
        sequence: Any iterable. What can be sliced is; each part travels by itself.
        initial: What stands once in front of what ``fn`` gives; with ``from_end``, behind it.
        initial_per_part: Whether each part begins with ``initial``, which must be neutral then.
        start: The first item to count.
        end: Where to stop; None for the end. An iterator is read no further, and may be endless.
        from_end: Whether each part is reduced from its end: ``op(a, op(b, c))``.
        parts: How many parts; by default one for each worker.
        chunksize: How many items a part has, in place of ``parts``.
        recurse: Whether the partial results are reduced in parallel again while there are four
            or more of them.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Returns:
        The value; of nothing at all ``initial``.

    Raises:
        TypeError: If there are no items and no ``initial``, or ``fn`` or ``op`` cannot be called
            with one value and with two.
        ValueError: If the bounds are outside the sequence, or ``parts`` is below 1.
        TimeoutError: It took too long.
        Exception: What ``fn`` or ``op`` raised, in the first part that failed.
    """
    _check_arguments(fn, 1, "fn")
    _check_arguments(op, 2, "op")
    return preduce(
        op,
        sequence,
        initial,
        initial_per_part=initial_per_part,
        key=fn,
        start=start,
        end=end,
        from_end=from_end,
        parts=parts,
        chunksize=chunksize,
        recurse=recurse,
        timeout=timeout,
        executor=executor,
    )


def _check_arguments(fn: Any, count: int, name: str) -> None:
    """
    Check that a function can be called with so many values, as far as can be known without a call.

    Args:
        fn: The function.
        count: How many.
        name: The argument's name, for the error.

    Raises:
        TypeError: If it cannot.
    """
    if not callable(fn):
        raise TypeError(f"{name} must be callable, not {fn!r}")
    signature = signature_of(fn)
    if signature is None:
        return
    try:
        signature.bind(*range(count))
    except TypeError:
        called = getattr(fn, "__qualname__", repr(fn))
        values = "one value" if count == 1 else f"{count} values"
        raise TypeError(
            f"{name} is called with {values}, and {called}{signature} does not take that"
        ) from None


class _Reduction:
    """What a reduction was asked for, once its arguments are checked."""

    def __init__(
        self,
        fn: Callable[[Any, Any], Any],
        key: Callable[[Any], Any] | None,
        from_end: bool,
        initial: Any,
        initial_per_part: bool,
        parts: int | None,
        chunksize: int | None,
        timeout: float | None,
        executor: Executor | Kernel | None,
    ) -> None:
        if not callable(fn):
            raise TypeError(f"fn must be callable, not {fn!r}")
        if key is not None and not callable(key):
            raise TypeError(f"key must be callable, not {key!r}")
        self.fn = fn
        self.key = key
        self.from_end = from_end
        self.initial = () if initial is NOTHING else (initial,)
        self.once = not initial_per_part
        self.kernel = kernel_of(executor)
        self.parts, self.chunksize = one_of(parts, chunksize)
        self.until = deadline_of(timeout)

    def again(self, most: int) -> None:
        """Prepare to reduce the results once more, in so many parts at most."""
        self.key = None
        self.chunksize = None
        self.parts = min(self.parts or self.kernel.worker_count, most)
        if self.once:
            self.initial = ()

    def partial_results(self, items: Any, first: int, last: int) -> list[Any]:
        _check_arguments(self.fn, 2, "fn")
        parts = parts_of(last - first, self.parts or self.kernel.worker_count, self.chunksize)
        run = partial(calls.reduce_part, self.fn, self.key, self.from_end, self.initial)
        left = None if self.until is None else self.until - time.monotonic()
        with Work(self.kernel, left) as work:
            for start, end in part_bounds(last - first, parts, first):
                place = end == last if self.from_end else start == first
                counts = (place,) if self.initial and self.once else ()
                work.submit(run, cut(items, start, end), *counts)
            return list(work.in_order())
