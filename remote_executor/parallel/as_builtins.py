"""Searches as Python's builtins have them: any, all and filter over parts of the inputs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from remote_executor.parallel import calls
from remote_executor.parallel.finds import Search, quantify
from remote_executor.parallel.parts import one_of, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from remote_executor.parallel.kernel import Kernel

__all__ = ["pall", "pany", "pfilter"]

T = TypeVar("T")


def pany(
    predicate: Callable[..., object] | None,
    *iterables: Iterable[Any],
    chunksize: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> bool:
    """
    Return whether a predicate is true of any item, as ``any(map(predicate, *iterables))``.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pany(str.isdigit, ["a", "1"])  # True

    The first part to find one decides, whatever its place, and the rest is stopped: cancelled, and
    on a farm killed if it does not end soon. An error counts unless a part before it in order finds
    one, or any part does before the error is known.

    Args:
        predicate: Called with one item of each input; None for whether the item itself is true.
        iterables: At least one; the shortest ends it.
        chunksize: How many items travel as one task; by default four tasks for each worker.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        TypeError: If the predicate is not callable, or there is no input.
        TimeoutError: It took too long.
        Exception: What the predicate raised.
    """
    run = calls.some_part
    test = partial(calls.truth, _predicate(predicate))
    return any(quantify(run, test, iterables, None, None, timeout, executor, chunksize))


def pall(
    predicate: Callable[..., object] | None,
    *iterables: Iterable[Any],
    chunksize: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> bool:
    """
    Return whether a predicate is true of all items, as ``all(map(predicate, *iterables))``.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pall(str.isdigit, ["a", "1"])  # False

    The first part to find one of which it is false decides, whatever its place, and the rest is
    stopped: cancelled, and on a farm killed if it does not end soon. An error counts unless a part
    before it in order finds one, or any part does before the error is known.

    Args:
        predicate: Called with one item of each input; None for whether the item itself is true.
        iterables: At least one; the shortest ends it.
        chunksize: How many items travel as one task; by default four tasks for each worker.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        TypeError: If the predicate is not callable, or there is no input.
        TimeoutError: It took too long.
        Exception: What the predicate raised.
    """
    test = _predicate(predicate)
    return all(
        quantify(calls.every_part, test, iterables, None, None, timeout, executor, chunksize)
    )


def pfilter(
    predicate: Callable[[T], object] | None,
    iterable: Iterable[T],
    *,
    chunksize: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> list[T]:
    """
    Return a list of the items of which a predicate is true, as ``list(filter(predicate, ...))``.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pfilter(str.isdigit, ["a", "1", "2"])  # ['1', '2']

    They are your own objects, not copies, in their order.

    Args:
        predicate: Called with an item; None for whether the item itself is true.
        iterable: Any iterable that ends.
        chunksize: How many items travel as one task; by default four tasks for each worker.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        TypeError: If the predicate is not callable, or the input is not iterable.
        TimeoutError: It took too long.
        Exception: What the predicate raised, in the first part that failed.
    """
    search = Search(_predicate(predicate), iterable, None, 0, None, None, timeout, executor)
    search.parts = parts_of(search.last, search.parts, one_of(None, chunksize)[1])
    return search.keep()


def _predicate(predicate: Any) -> Callable[..., object]:
    if predicate is None:
        return bool
    if not callable(predicate):
        raise TypeError(f"predicate must be callable or None, not {predicate!r}")
    return predicate  # type: ignore[no-any-return]
