"""
Searches: quantifiers, find, count and remove, each over parts of a sequence.

Those that may know the answer early cancel the rest, and on a farm stop what runs.
"""

from __future__ import annotations

import itertools
import sys
from array import array
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from remote_executor.parallel import calls
from remote_executor.parallel.kernel import SERIAL, Kernel, kernel_of
from remote_executor.parallel.parts import (
    columns_of,
    count_of,
    one_of,
    part_bounds,
    parts_of,
    section_of,
)
from remote_executor.parallel.work import Work
from remote_executor.payload.slices import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from concurrent.futures import Executor

__all__ = [
    "pcount",
    "pcount_if",
    "pcount_if_not",
    "pevery",
    "pfind",
    "pfind_if",
    "pfind_if_not",
    "pnotany",
    "pnotevery",
    "premove",
    "premove_if",
    "premove_if_not",
    "psome",
]

T = TypeVar("T")

PARTS_PER_WORKER = 4
"""Parts by default: with more of them than workers, an early answer spares some."""


def _callable(predicate: Callable[..., Any], name: str = "the predicate") -> Callable[..., Any]:
    if not callable(predicate):
        raise TypeError(f"{name} must be callable, not {predicate!r}")
    return predicate


def _parts(parts: int | None, kernel: Kernel) -> int:
    if parts is not None:
        return count_of(parts, "parts", 1)
    return 1 if kernel is SERIAL else PARTS_PER_WORKER * kernel.worker_count


# -------------------------------------------------------------------- quantifiers


def quantify(
    run: Callable[..., Any],
    predicate: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    size: int | None,
    parts: int | None,
    timeout: float | None,
    executor: Executor | Kernel | None,
    chunksize: int | None = None,
) -> Iterator[Any]:
    """Yield what came of each part, in order of completion. Ended early, it stops the rest."""
    _callable(predicate)
    if not iterables:
        raise TypeError("there must be at least one input")
    most = None if size is None else count_of(size, "size")
    kernel = kernel_of(executor)
    count = _parts(parts, kernel)
    _, length = one_of(None, chunksize)
    columns = columns_of(iterables, most)
    if not columns:
        return
    count = parts_of(len(columns), count, length)
    run = partial(run, predicate, len(iterables) > 1)
    with Work(kernel, timeout) as work:
        for start, end in part_bounds(len(columns), count):
            work.submit(run, columns[start:end])
        for _, result in work.answers():
            yield result


def pevery(
    predicate: Callable[..., Any],
    *iterables: Iterable[Any],
    size: int | None = None,
    parts: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> bool:
    """
    Return whether a predicate is true of all items. lparallel's pevery; the serial one is ``all``.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pevery(str.isdigit, ["1", "2", "x"])  # False

    The first part to say no decides, whatever its place, and the rest is stopped: cancelled, and on
    a farm killed if it does not end soon. An error counts unless a part before it in order says no,
    or any part does before the error is known.

    Args:
        predicate: Called with one item of each input.
        iterables: At least one; the shortest ends it.
        size: How many items count at most. Endless inputs need it.
        parts: How many parts; by default four for each worker.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        TypeError: If the predicate is not callable, or there is no input.
        TimeoutError: It took too long.
        Exception: What the predicate raised.
    """
    results = quantify(calls.every_part, predicate, iterables, size, parts, timeout, executor)
    return all(results)


def pnotevery(
    predicate: Callable[..., Any],
    *iterables: Iterable[Any],
    size: int | None = None,
    parts: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> bool:
    """
    Return whether a predicate is false of some item. The opposite of :func:`pevery`.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pnotevery(str.isdigit, ["1", "2", "x"])  # True

    Args:
        predicate: Called with an item, or with what ``key`` gives for it.
        iterables: At least one; the shortest ends it.
        size: How many items count at most. Endless inputs need it.
        parts: How many parts; by default four for each worker.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        TypeError: If what should be a function is not callable, also for an empty sequence.
        ValueError: If a number is out of range.
        TimeoutError: It took too long.
        Exception: What a function raised.
    """
    return not pevery(
        predicate, *iterables, size=size, parts=parts, timeout=timeout, executor=executor
    )


def psome(
    predicate: Callable[..., Any],
    *iterables: Iterable[Any],
    size: int | None = None,
    parts: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> Any:
    """
    Return a true value of a predicate, or None. lparallel's psome; the serial one is ``any``.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.psome({"b": 2}.get, "abc")  # 2

    Of several true values it is the first of the part that is done first. For the first in order
    of the input see :func:`pfind_if`.

    Args:
        predicate: Called with an item, or with what ``key`` gives for it.
        iterables: At least one; the shortest ends it.
        size: How many items count at most. Endless inputs need it.
        parts: How many parts; by default four for each worker.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        TypeError: If what should be a function is not callable, also for an empty sequence.
        ValueError: If a number is out of range.
        TimeoutError: It took too long.
        Exception: What a function raised.
    """
    for found in quantify(calls.some_part, predicate, iterables, size, parts, timeout, executor):
        if found:
            return found[0]
    return None


def pnotany(
    predicate: Callable[..., Any],
    *iterables: Iterable[Any],
    size: int | None = None,
    parts: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> bool:
    """
    Return whether a predicate is false of all items. The opposite of :func:`psome`.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pnotany(str.isdigit, "abc")  # True

    Args:
        predicate: Called with an item, or with what ``key`` gives for it.
        iterables: At least one; the shortest ends it.
        size: How many items count at most. Endless inputs need it.
        parts: How many parts; by default four for each worker.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        TypeError: If what should be a function is not callable, also for an empty sequence.
        ValueError: If a number is out of range.
        TimeoutError: It took too long.
        Exception: What a function raised.
    """
    found = psome(
        partial(calls.truth, _callable(predicate)),
        *iterables,
        size=size,
        parts=parts,
        timeout=timeout,
        executor=executor,
    )
    return found is None


# ------------------------------------------------------- find, count, remove: their parts


class Search:
    """What a search was asked for, once its arguments are checked."""

    def __init__(
        self,
        predicate: Callable[..., Any],
        sequence: Iterable[Any],
        key: Callable[[Any], Any] | None,
        start: int,
        end: int | None,
        parts: int | None,
        timeout: float | None,
        executor: Executor | Kernel | None,
        *,
        given: tuple[Any, ...] = (),
        whole: bool = False,
    ) -> None:
        self.predicate = _callable(predicate)
        self.given = given
        self.key = key if key is None else _callable(key, "key")
        self.kernel = kernel_of(executor)
        self.parts = _parts(parts, self.kernel)
        self.timeout = timeout
        self.items, self.first, self.last = section_of(sequence, start, end, whole=whole)

    def spans(self) -> list[tuple[int, int]]:
        """Return where each part starts and ends."""
        return list(part_bounds(self.last - self.first, self.parts, self.first))

    def results(
        self,
        run: Callable[..., Any],
        spans: list[tuple[int, int]],
        ends: Callable[[Any], bool] | None = None,
    ) -> Generator[Any, None, None]:
        """Yield what comes of each part, in order of ``spans``; for ``ends`` see Work."""
        if not spans:
            return
        with Work(self.kernel, self.timeout) as work:
            for start, end in spans:
                work.submit(run, cut(self.items, start, end), *self.given)
            yield from work.in_order(ends)

    def find(self, from_end: bool, default: Any) -> Any:
        run = partial(calls.find_part, self.predicate, self.key, from_end)
        spans = self.spans()
        if from_end:
            spans.reverse()
        with closing(self.results(run, spans, _is_found)) as results:
            for (start, _), index in zip(spans, results, strict=True):
                if _is_found(index):
                    return _item(self.items, start + index)
        return default

    def count(self) -> int:
        run = partial(calls.count_part, self.predicate, self.key)
        return sum(self.results(run, self.spans()))

    def keep(self) -> list[Any]:
        run = partial(calls.flag_part, self.predicate, self.key)
        return list(itertools.compress(self.items, b"".join(self.results(run, self.spans()))))

    def remove(self) -> Any:
        run = partial(calls.flag_part, self.predicate, self.key)
        removed = b"".join(self.results(run, self.spans()))
        kept = bytes(self.first) + removed + bytes(len(self.items) - self.last)
        return _without(self.items, kept)


def _is_found(index: int) -> bool:
    return index >= 0


def _item(items: Any, index: int) -> Any:
    by_position = getattr(items, "iloc", None)
    return (items if by_position is None else by_position)[index]


def _without(items: Any, removed: bytes) -> Any:
    """Return the items without those that are flagged, in a sequence of their kind or a list."""
    keep = removed.translate(NOT)
    ndarray: Any = getattr(sys.modules.get("numpy"), "ndarray", ())
    if hasattr(items, "iloc") or isinstance(items, ndarray):
        return items[sys.modules["numpy"].frombuffer(keep, "?")]
    left = itertools.compress(items, keep)
    if isinstance(items, str):
        return "".join(left)
    if isinstance(items, (bytes, bytearray, tuple)):
        return type(items)(left)
    if isinstance(items, array):
        return array(items.typecode, left)
    return list(left)


NOT = bytes([1, 0]) + bytes(254)
"""What turns a flag into its opposite."""


def _test(
    test: Callable[[Any, Any], Any] | None,
    test_not: Callable[[Any, Any], Any] | None,
) -> Callable[[Any, Any], Any]:
    """Return what to call with the item that is looked for and each item."""
    if test is not None and test_not is not None:
        raise ValueError("test= and test_not= exclude each other")
    if test_not is not None:
        return partial(calls.negated, _callable(test_not, "test_not"))
    return calls.same if test is None else _callable(test, "test")


def _negated(predicate: Callable[[Any], Any]) -> Callable[[Any], bool]:
    return partial(calls.negated, _callable(predicate))


# -------------------------------------------------------------------------- find


def pfind_if(
    predicate: Callable[[Any], Any],
    sequence: Iterable[T],
    *,
    key: Callable[[Any], Any] | None = None,
    start: int = 0,
    end: int | None = None,
    from_end: bool = False,
    default: Any = None,
    parts: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> T | Any:
    """
    Return the first item of which a predicate is true. lparallel's pfind-if.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pfind_if(str.isdigit, ["a", "1", "2"])  # '1'

    It is the first in order of the sequence, and your own object, not a copy. What comes after it
    is not searched to its end.

    Args:
        predicate: Called with an item, or with what ``key`` gives for it.
        sequence: Any iterable.
        key: Applied to each item first.
        start: Where to begin.
        end: Where to stop; None for the end.
        from_end: Whether to return the last such item.
        default: What to return if there is none.
        parts: How many parts; by default four for each worker.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        TypeError: If the predicate is not callable, also for an empty sequence.
        ValueError: If the bounds are outside the sequence.
        TimeoutError: It took too long.
        Exception: What the predicate raised, unless the item was found before that in order.
    """
    search = Search(predicate, sequence, key, start, end, parts, timeout, executor)
    return search.find(from_end, default)


def pfind_if_not(
    predicate: Callable[[Any], Any],
    sequence: Iterable[T],
    *,
    key: Callable[[Any], Any] | None = None,
    start: int = 0,
    end: int | None = None,
    from_end: bool = False,
    default: Any = None,
    parts: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> T | Any:
    """
    Return the first item of which a predicate is false, in order of the sequence.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pfind_if_not(str.isdigit, ["1", "a", "2"])  # 'a'

    Args:
        predicate: Called with an item, or with what ``key`` gives for it.
        sequence: Any iterable.
        key: Applied to each item first.
        start: The first item that counts, from 0.
        end: Where to stop; None for the end.
        from_end: Whether to return the last such item.
        default: What to return if there is none.
        parts: How many parts; by default four for each worker.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        TypeError: If what should be a function is not callable, also for an empty sequence.
        ValueError: If a number is out of range.
        TimeoutError: It took too long.
        Exception: What a function raised.
    """
    search = Search(_negated(predicate), sequence, key, start, end, parts, timeout, executor)
    return search.find(from_end, default)


def pfind(
    item: Any,
    sequence: Iterable[T],
    *,
    test: Callable[[Any, Any], Any] | None = None,
    test_not: Callable[[Any, Any], Any] | None = None,
    key: Callable[[Any], Any] | None = None,
    start: int = 0,
    end: int | None = None,
    from_end: bool = False,
    default: Any = None,
    parts: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> T | Any:
    """
    Return the first item that equals the given one, in order of the sequence.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pfind(2, [(1, 4), (3, 5)], key=max, default="none")  # 'none'

    It is your own object, which is of use where ``test`` or ``key`` say what is equal.

    Args:
        item: What to look for.
        sequence: Any iterable.
        test: Called with ``item`` and each item; true means that they are equal. By default they
            are compared as ``in`` does it: an object equals itself, on every engine.
        test_not: The same, and false means found.
        key: Applied to each item first.
        start: The first item that counts, from 0.
        end: Where to stop; None for the end.
        from_end: Whether to return the last such item.
        default: What to return if there is none.
        parts: How many parts; by default four for each worker.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        ValueError: If both tests are given.
        TypeError: If what should be a function is not callable, also for an empty sequence.
        ValueError: If a number is out of range.
        TimeoutError: It took too long.
        Exception: What a function raised.
    """
    found = _test(test, test_not)
    search = Search(found, sequence, key, start, end, parts, timeout, executor, given=(item,))
    return search.find(from_end, default)


# ------------------------------------------------------------------------- count


def pcount_if(
    predicate: Callable[[Any], Any],
    sequence: Iterable[Any],
    *,
    key: Callable[[Any], Any] | None = None,
    start: int = 0,
    end: int | None = None,
    parts: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> int:
    """
    Return of how many items a predicate is true. lparallel's pcount-if.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pcount_if(str.isdigit, ["a", "1", "2"])  # 2

    Args:
        predicate: Called with an item, or with what ``key`` gives for it.
        sequence: Any iterable.
        key: Applied to each item first.
        start: The first item that counts, from 0.
        end: Where to stop; None for the end.
        parts: How many parts; by default four for each worker.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        TypeError: If what should be a function is not callable, also for an empty sequence.
        ValueError: If a number is out of range.
        TimeoutError: It took too long.
        Exception: What a function raised.
    """
    return Search(predicate, sequence, key, start, end, parts, timeout, executor).count()


def pcount_if_not(
    predicate: Callable[[Any], Any],
    sequence: Iterable[Any],
    *,
    key: Callable[[Any], Any] | None = None,
    start: int = 0,
    end: int | None = None,
    parts: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> int:
    """
    Return of how many items a predicate is false.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pcount_if_not(str.isdigit, ["a", "1", "2"])  # 1

    Args:
        predicate: Called with an item, or with what ``key`` gives for it.
        sequence: Any iterable.
        key: Applied to each item first.
        start: The first item that counts, from 0.
        end: Where to stop; None for the end.
        parts: How many parts; by default four for each worker.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        TypeError: If what should be a function is not callable, also for an empty sequence.
        ValueError: If a number is out of range.
        TimeoutError: It took too long.
        Exception: What a function raised.
    """
    predicate = _negated(predicate)
    return Search(predicate, sequence, key, start, end, parts, timeout, executor).count()


def pcount(
    item: Any,
    sequence: Iterable[Any],
    *,
    test: Callable[[Any, Any], Any] | None = None,
    test_not: Callable[[Any, Any], Any] | None = None,
    key: Callable[[Any], Any] | None = None,
    start: int = 0,
    end: int | None = None,
    parts: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> int:
    """
    Return how many items equal the given one. The serial one is ``list.count``.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pcount("a", "banana")  # 3

    Args:
        item: What to count.
        sequence: Any iterable.
        test: Called with ``item`` and each item; true means that they are equal. By default they
            are compared as ``in`` does it: an object equals itself, on every engine.
        test_not: The same, and false means equal.
        key: Applied to each item first.
        start: The first item that counts, from 0.
        end: Where to stop; None for the end.
        parts: How many parts; by default four for each worker.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        TypeError: If what should be a function is not callable, also for an empty sequence.
        ValueError: If a number is out of range.
        TimeoutError: It took too long.
        Exception: What a function raised.
    """
    found = _test(test, test_not)
    search = Search(found, sequence, key, start, end, parts, timeout, executor, given=(item,))
    return search.count()


# ------------------------------------------------------------------------ remove


def premove_if(
    predicate: Callable[[Any], Any],
    sequence: Iterable[Any],
    *,
    key: Callable[[Any], Any] | None = None,
    start: int = 0,
    end: int | None = None,
    parts: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> Any:
    """
    Return the items of which a predicate is false, in order. lparallel's premove-if.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.premove_if(str.isdigit, ["a", "1", "b"])  # ['a', 'b']

    Items outside ``start`` and ``end`` stay. They are your own objects, not copies.

    Args:
        predicate: Called with an item, or with what ``key`` gives for it.
        sequence: Any iterable.
        key: Applied to each item first.
        start: The first item that counts, from 0.
        end: Where to stop; None for the end.
        parts: How many parts; by default four for each worker.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Returns:
        A str, bytes, bytearray, tuple, array, numpy array or Series for one of those; else a list.

    Raises:
        TypeError: If what should be a function is not callable, also for an empty sequence.
        ValueError: If a number is out of range.
        TimeoutError: It took too long.
        Exception: What a function raised.
    """
    return Search(
        predicate, sequence, key, start, end, parts, timeout, executor, whole=True
    ).remove()


def premove_if_not(
    predicate: Callable[[Any], Any],
    sequence: Iterable[Any],
    *,
    key: Callable[[Any], Any] | None = None,
    start: int = 0,
    end: int | None = None,
    parts: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> Any:
    """
    Return the items of which a predicate is true, in order. The serial one is ``filter``.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.premove_if_not(str.isdigit, ["a", "1", "b"])  # ['1']

    Args:
        predicate: Called with an item, or with what ``key`` gives for it.
        sequence: Any iterable.
        key: Applied to each item first.
        start: The first item that counts, from 0.
        end: Where to stop; None for the end.
        parts: How many parts; by default four for each worker.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        TypeError: If what should be a function is not callable, also for an empty sequence.
        ValueError: If a number is out of range.
        TimeoutError: It took too long.
        Exception: What a function raised.
    """
    predicate = _negated(predicate)
    return Search(
        predicate, sequence, key, start, end, parts, timeout, executor, whole=True
    ).remove()


def premove(
    item: Any,
    sequence: Iterable[Any],
    *,
    test: Callable[[Any, Any], Any] | None = None,
    test_not: Callable[[Any, Any], Any] | None = None,
    key: Callable[[Any], Any] | None = None,
    start: int = 0,
    end: int | None = None,
    parts: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> Any:
    """
    Return the items that do not equal the given one, in order.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.premove("a", "banana")  # 'bnn'

    Items outside ``start`` and ``end`` stay. They are your own objects, not copies.

    Args:
        item: What to remove.
        sequence: Any iterable.
        test: Called with ``item`` and each item; true means that they are equal. By default they
            are compared as ``in`` does it: an object equals itself, on every engine.
        test_not: The same, and false means equal.
        key: Applied to each item first.
        start: The first item that counts, from 0.
        end: Where to stop; None for the end.
        parts: How many parts; by default four for each worker.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        TypeError: If what should be a function is not callable, also for an empty sequence.
        ValueError: If a number is out of range.
        TimeoutError: It took too long.
        Exception: What a function raised.
    """
    return Search(
        _test(test, test_not),
        sequence,
        key,
        start,
        end,
        parts,
        timeout,
        executor,
        given=(item,),
        whole=True,
    ).remove()
