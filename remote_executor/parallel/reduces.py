"""Reductions: each part is reduced on its own, and then the partial results are."""

from __future__ import annotations

import inspect
import time
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, Final, TypeVar

from remote_executor.parallel import calls
from remote_executor.parallel.kernel import Kernel, kernel_of
from remote_executor.parallel.parts import count_of, deadline_of, part_bounds, section_of
from remote_executor.parallel.work import Work
from remote_executor.payload.slices import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

__all__ = ["pmap_reduce", "preduce", "preduce_partial"]

T = TypeVar("T")


class _Nothing:
    """In place of an argument that was not given, where None would be one."""

    def __repr__(self) -> str:
        return "<nothing>"


NOTHING: Final[Any] = _Nothing()


def preduce(
    fn: Callable[[Any, Any], T],
    sequence: Iterable[Any],
    *,
    initial: Any = NOTHING,
    key: Callable[[Any], Any] | None = None,
    start: int = 0,
    end: int | None = None,
    from_end: bool = False,
    parts: int | None = None,
    recurse: bool = False,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> T:
    """
    Reduce a sequence in parallel. Comes from lparallel's and lfarm's preduce.

    The sequence is divided into parts, each part is reduced on a worker, and the partial results
    are reduced here, in the order of the parts. That equals ``functools.reduce`` if ``fn`` is
    associative; it need not be commutative.

    ``initial`` is the initial value *of each part*, so give one that changes nothing::

        preduce(operator.add, [1, 2, 3, 4], initial=0, parts=2)     # 10
        preduce(operator.add, [1, 2, 3, 4], initial=100, parts=2)   # 210, not 110

    ``initial`` must not be changed by ``fn``: threads would share it. With ``recurse`` it counts
    once for each part of each pass.

    A numpy array of numbers is reduced by numpy itself where ``fn`` is one of ``operator.add``,
    ``mul``, ``and_``, ``or_``, ``xor``, a ufunc of that kind such as ``numpy.maximum``, or, for
    integers, ``min`` or ``max``. The type of the result is that of the loop; floats are summed
    pairwise, so the last digits may differ; integers that overflow do so without a warning.

    Args:
        fn: Takes two values and returns one.
        sequence: Any iterable. What can be sliced is; each part travels by itself.
        initial: Where each part begins; without it, at its first item.
        key: Applied to each item first, on the workers.
        start: The first item to count.
        end: Where to stop; None for the end. An iterator is read no further, and may be endless.
        from_end: Whether each part is reduced from its end: ``fn(a, fn(b, c))``.
        parts: How many parts; by default one for each worker.
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
    asked = _Reduction(fn, key, from_end, initial, parts, timeout, executor)
    items, first, last = section_of(sequence, start, end)
    if first == last:
        if initial is NOTHING:
            raise TypeError("preduce of an empty sequence with no initial value")
        return initial  # type: ignore[no-any-return]
    results = asked.partial_results(items, first, last)
    while recurse and len(results) >= 4:
        asked.key = None
        asked.parts = min(asked.parts, len(results) // 2)
        results = asked.partial_results(results, 0, len(results))
    value: T = reduce(fn, results)
    return value


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
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> list[T]:
    """
    Reduce each part of a sequence, and return the partial results in the order of the parts.

    Args:
        fn: As for :func:`preduce`.
        sequence: As for :func:`preduce`; at least one item.
        initial: As for :func:`preduce`.
        key: As for :func:`preduce`.
        start: As for :func:`preduce`.
        end: As for :func:`preduce`.
        from_end: As for :func:`preduce`.
        parts: How many parts; the first ones are longer by one if it does not come out even.
        timeout: As for :func:`preduce`.
        executor: As for :func:`preduce`.

    Raises:
        ValueError: If there are no items, with or without an initial value.
        Exception: As :func:`preduce`.
    """
    asked = _Reduction(fn, key, from_end, initial, parts, timeout, executor)
    items, first, last = section_of(sequence, start, end)
    if first == last:
        raise ValueError("preduce_partial of an empty sequence")
    return asked.partial_results(items, first, last)


def pmap_reduce(
    fn: Callable[[Any], Any],
    op: Callable[[Any, Any], T],
    sequence: Iterable[Any],
    *,
    initial: Any = NOTHING,
    start: int = 0,
    end: int | None = None,
    from_end: bool = False,
    parts: int | None = None,
    recurse: bool = False,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> T:
    """
    Map and then reduce, both on the workers: :func:`preduce` with ``fn`` as its key.

    ::

        pmap_reduce(len, operator.add, words)

    Args:
        fn: Applied to each item.
        op: Takes two results of ``fn`` or of its own and returns one.
        sequence: As for :func:`preduce`.
        initial: As for :func:`preduce`.
        start: As for :func:`preduce`.
        end: As for :func:`preduce`.
        from_end: As for :func:`preduce`.
        parts: As for :func:`preduce`.
        recurse: As for :func:`preduce`.
        timeout: As for :func:`preduce`.
        executor: As for :func:`preduce`.

    Raises:
        TypeError: If ``fn`` or ``op`` is not callable, and as :func:`preduce`.
        Exception: As :func:`preduce`.
    """
    _check_arguments(fn, 1, "fn")
    _check_arguments(op, 2, "op")
    return preduce(
        op,
        sequence,
        initial=initial,
        key=fn,
        start=start,
        end=end,
        from_end=from_end,
        parts=parts,
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
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return  # of some functions written in C nothing is known
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
        parts: int | None,
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
        self.kernel = kernel_of(executor)
        self.parts = self.kernel.worker_count if parts is None else count_of(parts, "parts", 1)
        self.until = deadline_of(timeout)

    def partial_results(self, items: Any, first: int, last: int) -> list[Any]:
        _check_arguments(self.fn, 2, "fn")
        run = partial(calls.reduce_part, self.fn, self.key, self.from_end, self.initial)
        left = None if self.until is None else self.until - time.monotonic()
        with Work(self.kernel, left) as work:
            for start, end in part_bounds(last - first, self.parts, first):
                work.submit(run, cut(items, start, end))
            return list(work.in_order())
