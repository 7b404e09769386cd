"""
Maps: a function over the items of one or more inputs, in parallel.

On a farm the items travel in batches whose size follows the measured time of an item. Elsewhere,
or with ``parts=``, the inputs are divided into parts and each part is one task.
"""

from __future__ import annotations

import sys
from array import array
from concurrent.futures import TimeoutError
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar, overload

from remote_executor.client.notes import add_note, item_at, short_repr
from remote_executor.client.waits import check_may_wait
from remote_executor.options import check_errors
from remote_executor.parallel import calls
from remote_executor.parallel.kernel import Kernel, kernel_of
from remote_executor.parallel.parts import (
    columns_of,
    count_of,
    one_of,
    part_bounds,
    parts_of,
    seconds_of,
)
from remote_executor.parallel.progress import watched
from remote_executor.parallel.timers import after
from remote_executor.parallel.work import LAST_CHANCE, Work
from remote_executor.payload.slices import Columns
from remote_executor.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Executor

__all__ = ["pdotimes", "pmap", "pmap_into", "pmap_unordered", "pmapc", "pmapcan", "pstarmap"]

R = TypeVar("R")
T = TypeVar("T")

PARTS_PER_WORKER = 4
"""Parts by default where the scheduler does not measure: some take longer than others."""
CHUNK = 8192
"""Results that are put into an array at a time."""


class _Map:
    """What a map was asked for, once its arguments are checked."""

    def __init__(
        self,
        fn: Callable[..., Any],
        inputs: tuple[Iterable[Any], ...],
        executor: Executor | Kernel | None,
        *,
        parts: int | None = None,
        chunksize: int | None = None,
        size: int | None = None,
        buffersize: int | None = None,
        timeout: float | None = None,
        progress: bool = False,
        rows: bool = False,
        errors: str = "raise",
    ) -> None:
        if not callable(fn):
            raise TypeError(f"fn must be callable, not {fn!r}")
        self.fn = fn
        self.inputs = inputs
        self.parts, self.chunksize = one_of(parts, chunksize)
        self.size = None if size is None else count_of(size, "size")
        self.buffersize = None if buffersize is None else count_of(buffersize, "buffersize", 1)
        if self.buffersize is not None and self.parts is not None:
            raise ValueError("parts= divides what is known, buffersize= reads piece by piece")
        self.timeout = seconds_of(timeout)
        self.progress = progress
        check_errors(errors)
        self.errors = errors
        self.kernel = kernel_of(executor)
        self.star = rows or len(inputs) > 1
        """Whether each item has the arguments of a call."""

    def run(self, take: Callable[[Iterable[Any]], R]) -> R:
        """Map, and return what ``take`` makes of the results, in order. It is called once."""
        if self.buffersize is not None:
            inputs = self.inputs
            if self.size is not None:
                inputs = (islice(inputs[0], self.size), *inputs[1:])
            return self._run_piecemeal(inputs, take)
        return self.run_over(columns_of(self.inputs, self.size), take)

    def run_over(self, columns: Columns, take: Callable[[Iterable[Any]], R]) -> R:
        """As :meth:`run`, with the inputs side by side."""
        if not columns:
            return take(())
        if self.progress:
            take = _watching(take, len(columns), self.fn)
        if self.kernel.farm is None or self.parts is not None:
            return self._run_parts(columns, take)
        check_may_wait()
        view = self.kernel.view()
        if self.star:
            results = view.starmap(  # type: ignore[attr-defined]
                self.fn,
                columns,
                timeout=self.timeout,
                chunksize=self.chunksize,
                **self._more(),
            )
        else:
            results = view.map(
                self.fn,
                columns,
                timeout=self.timeout,
                **({} if self.chunksize is None else {"chunksize": self.chunksize}),
                **self._more(),
            )
        return _drain(results, take)

    def _run_parts(self, columns: Columns, take: Callable[[Iterable[Any]], R]) -> R:
        parts = self.parts or PARTS_PER_WORKER * self.kernel.worker_count
        parts = parts_of(len(columns), parts, self.chunksize)
        with Work(self.kernel, self.timeout) as work:
            for start, end in part_bounds(len(columns), parts):
                work.submit(self._part(), columns[start:end])
            return take(self._opened(work, columns, 0))

    def _more(self) -> dict[str, Any]:
        """Return what a farm's map is told beside the rest; a view may have said it, too."""
        return {} if self.errors == "raise" else {"errors": self.errors}

    def _part(self) -> Callable[[Any], list[Any]]:
        """Return what maps a part."""
        if self.kernel.farm is not None and self.errors == "raise":
            # The farm names the task, and tries it again if it was told to.
            return partial(calls.starmap_part if self.star else calls.map_part, self.fn)
        return partial(calls.each_part, self.fn, self.star, self.errors != "raise")

    def _opened(self, work: Work, items: Any, first: int) -> Iterator[Any]:
        """Yield the results of parts in order, and do with errors what is wanted."""
        index = 0
        for results in work.in_order(_has_failed if self.errors == "raise" else None):
            for result in results:
                if type(result) is not calls.Raised:
                    yield result
                else:
                    error = self._noted(result.error, items, index, first)
                    if self.errors == "raise":
                        raise error
                    if self.errors == "return":
                        yield error
                index += 1

    def _noted(self, error: BaseException, items: Any, index: int, first: int) -> BaseException:
        name = printable(getattr(self.fn, "__qualname__", "the function"))
        return add_note(
            error, f"item {first + index} of {name} ({short_repr(item_at(items, index))})"
        )

    def _run_piecemeal(
        self, inputs: tuple[Iterable[Any], ...], take: Callable[[Iterable[Any]], R]
    ) -> R:
        assert self.buffersize is not None
        if self.progress:
            take = _watching(take, None, self.fn)
        if self.kernel.farm is not None:
            check_may_wait()
            view: Any = self.kernel.view()
            results = (view.starmap if self.star else view.map)(
                self.fn,
                self._rows(inputs),
                timeout=self.timeout,
                chunksize=self.chunksize,
                buffersize=self.buffersize,
                **self._more(),
            )
            return _drain(results, take)
        return take(self._pieces(inputs, self.buffersize))

    def _rows(self, inputs: tuple[Iterable[Any], ...]) -> Iterable[Any]:
        return zip(*inputs, strict=False) if len(inputs) > 1 else inputs[0]

    def _pieces(self, inputs: tuple[Iterable[Any], ...], most: int) -> Iterator[Any]:
        """Map so many items, and then so many again."""
        rows = iter(self._rows(inputs))
        count = self.kernel.worker_count
        first = 0
        with Work(self.kernel, self.timeout) as work:
            while piece := list(islice(rows, most)):
                parts = parts_of(len(piece), count, self.chunksize)
                for start, end in part_bounds(len(piece), parts):
                    work.submit(self._part(), piece[start:end])
                yield from self._opened(work, piece, first)
                first += len(piece)


def _has_failed(results: list[Any]) -> bool:
    return bool(results) and type(results[-1]) is calls.Raised


def _drain(results: Any, take: Callable[[Iterable[Any]], R]) -> R:
    """Take the results that a farm's map gives, and stop it if that fails."""
    try:
        return take(results)
    except BaseException as exc:
        results.close()
        if not isinstance(exc, Exception) or isinstance(exc, TimeoutError):
            after(LAST_CHANCE, results.kill)  # nobody wants what runs any more
        raise


def _watching(
    take: Callable[[Iterable[Any]], R], total: int | None, fn: Callable[..., Any]
) -> Callable[[Iterable[Any]], R]:
    name = getattr(fn, "__name__", "pmap")
    return lambda results: take(watched(results, total, name))


@overload
def pmap(
    fn: Callable[..., T],
    *iterables: Iterable[Any],
    parts: int | None = None,
    chunksize: int | None = None,
    size: int | None = None,
    buffersize: int | None = None,
    timeout: float | None = None,
    progress: bool = False,
    errors: str = "raise",
    executor: Executor | Kernel | None = None,
) -> list[T]: ...
@overload
def pmap(
    fn: Callable[..., Any],
    *iterables: Iterable[Any],
    result_type: Callable[[list[Any]], R],
    parts: int | None = None,
    chunksize: int | None = None,
    size: int | None = None,
    buffersize: int | None = None,
    timeout: float | None = None,
    progress: bool = False,
    errors: str = "raise",
    executor: Executor | Kernel | None = None,
) -> R: ...
@overload
def pmap(
    fn: Callable[..., Any],
    *iterables: Iterable[Any],
    result_type: None,
    parts: int | None = None,
    chunksize: int | None = None,
    size: int | None = None,
    buffersize: int | None = None,
    timeout: float | None = None,
    progress: bool = False,
    errors: str = "raise",
    executor: Executor | Kernel | None = None,
) -> None: ...
def pmap(
    fn: Callable[..., Any],
    *iterables: Iterable[Any],
    result_type: Any = list,
    parts: int | None = None,
    chunksize: int | None = None,
    size: int | None = None,
    buffersize: int | None = None,
    timeout: float | None = None,
    progress: bool = False,
    errors: str = "raise",
    executor: Executor | Kernel | None = None,
) -> Any:
    """
    Map a function over inputs in parallel, and return all results in order.

    ::

        import math
        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pmap(math.sqrt, [1, 4, 9])  # [1.0, 2.0, 3.0]
            p.pmap("{}: {}".format, ["a", "b"], [1, 2], result_type=tuple)  # ('a: 1', 'b: 2')

    Comes from lparallel's and lfarm's pmap. For an iterator over results see the executor's
    ``map``, or :func:`pmap_unordered`; to fill something that exists, :func:`pmap_into`.

    Args:
        fn: Called with one item of each input.
        iterables: At least one; the shortest ends it. Lists, tuples, ranges, strings, arrays,
            memoryviews, numpy arrays and pandas Series are cut in slices, so do not change them
            meanwhile. Whatever else is read to its end first.
        result_type: What to make of the list of results; ``str`` joins them; None to run for
            effect only and return None.
        parts: In how many parts to divide the inputs, as even as can be; by default batches follow
            the measured time on a farm, and there are four parts for each worker elsewhere.
        chunksize: How many items travel as one task, in place of ``parts``.
        size: How many items to map at most. No more are read, so inputs may be endless.
        buffersize: Read the inputs piece by piece, at most so many items ahead of the results.
        timeout: Seconds for all of it. After that the work is stopped on a farm's servers, too.
        progress: Whether to show a bar on stderr (tqdm's, with the ``progress`` extra).
        errors: "raise" ends all at the first item that failed; "return" puts its exception in the
            place of its result; "skip" leaves the item out.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        Exception: What ``fn`` raised, the first in order of the inputs. The rest is cancelled.
        TimeoutError: It took too long.
        NoKernelError: If there is no kernel.
        TypeError: If ``fn`` is not callable, there is no input, or one is not iterable.
        ValueError: If a number is out of range, or the inputs are endless without ``size``.
    """
    _need_inputs(iterables)
    asked = _Map(
        fn if result_type is not None else partial(calls.effect, _callable(fn)),
        iterables,
        executor,
        parts=parts,
        chunksize=chunksize,
        size=size,
        buffersize=buffersize,
        timeout=timeout,
        progress=progress,
        errors=errors,
    )
    if result_type is None:
        return asked.run(_exhaust)
    results = asked.run(list)
    if result_type is list:
        return results
    return "".join(results) if result_type is str else result_type(results)


def pmapc(
    fn: Callable[..., object],
    first: Iterable[T],
    *others: Iterable[Any],
    parts: int | None = None,
    chunksize: int | None = None,
    size: int | None = None,
    buffersize: int | None = None,
    timeout: float | None = None,
    progress: bool = False,
    executor: Executor | Kernel | None = None,
) -> Iterable[T]:
    """
    Map for effect, as lparallel's pmapc: results do not travel. Return the first input as it is.

    ::

        import time
        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pmapc(time.sleep, [0.01, 0.02])  # [0.01, 0.02]

    Args:
        fn: Called with one item of each input.
        first: An input.
        others: More of them.
        parts: In how many parts to divide the inputs, as even as can be.
        chunksize: How many items travel as one task, in place of ``parts``.
        size: How many items to map at most. No more are read, so inputs may be endless.
        buffersize: Read the inputs piece by piece, at most so many items ahead of the results.
        timeout: Seconds for all of it. After that the work is stopped on a farm's servers, too.
        progress: Whether to show a bar on stderr (tqdm's, with the ``progress`` extra).
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        Exception: What ``fn`` raised, the first in order of the inputs. The rest is cancelled.
        TimeoutError: It took too long.
        NoKernelError: If there is no kernel.
        TypeError: If ``fn`` is not callable, or an input is not iterable.
        ValueError: If a number is out of range, or the inputs are endless without ``size``.
    """
    pmap(
        fn,
        first,
        *others,
        result_type=None,
        parts=parts,
        chunksize=chunksize,
        size=size,
        buffersize=buffersize,
        timeout=timeout,
        progress=progress,
        executor=executor,
    )
    return first


def pmapcan(
    fn: Callable[..., Iterable[T]],
    *iterables: Iterable[Any],
    parts: int | None = None,
    chunksize: int | None = None,
    size: int | None = None,
    buffersize: int | None = None,
    timeout: float | None = None,
    progress: bool = False,
    executor: Executor | Kernel | None = None,
) -> list[T]:
    """
    Map, and splice the results, which are iterables, into one list. lparallel's pmapcan, pmapcon.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pmapcan(range, [1, 2, 3])  # [0, 0, 1, 0, 1, 2]

    Args:
        fn: Called with one item of each input; returns something that travels, such as a list.
        iterables: At least one; the shortest ends it. See :func:`pmap` for what is cut in slices.
        parts: In how many parts to divide the inputs, as even as can be.
        chunksize: How many items travel as one task, in place of ``parts``.
        size: How many items to map at most. No more are read, so inputs may be endless.
        buffersize: Read the inputs piece by piece, at most so many items ahead of the results.
        timeout: Seconds for all of it. After that the work is stopped on a farm's servers, too.
        progress: Whether to show a bar on stderr (tqdm's, with the ``progress`` extra).
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        Exception: What ``fn`` raised, the first in order of the inputs. The rest is cancelled.
        TimeoutError: It took too long.
        NoKernelError: If there is no kernel.
        TypeError: If ``fn`` is not callable, or an input is not iterable.
        ValueError: If a number is out of range, or the inputs are endless without ``size``.
    """
    _need_inputs(iterables)
    asked = _Map(
        fn,
        iterables,
        executor,
        parts=parts,
        chunksize=chunksize,
        size=size,
        buffersize=buffersize,
        timeout=timeout,
        progress=progress,
    )
    return asked.run(lambda results: list(chain.from_iterable(results)))


def pstarmap(
    fn: Callable[..., T],
    rows: Iterable[Iterable[Any]],
    *,
    parts: int | None = None,
    chunksize: int | None = None,
    size: int | None = None,
    buffersize: int | None = None,
    timeout: float | None = None,
    progress: bool = False,
    errors: str = "raise",
    executor: Executor | Kernel | None = None,
) -> list[T]:
    """
    Map over rows of arguments in parallel, as ``itertools.starmap``, and return all in order.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pstarmap(pow, [(2, 3), (3, 2)])  # [8, 9]

    Args:
        fn: Called with the arguments of one row.
        rows: Any iterable of iterables.
        parts: In how many parts to divide the rows, as even as can be.
        chunksize: How many rows travel as one task, in place of ``parts``.
        size: How many rows to map at most. No more are read, so there may be no end of them.
        buffersize: Read the rows piece by piece, at most so many ahead of the results.
        timeout: Seconds for all of it. After that the work is stopped on a farm's servers, too.
        progress: Whether to show a bar on stderr (tqdm's, with the ``progress`` extra).
        errors: "raise" ends all at the first item that failed; "return" puts its exception in the
            place of its result; "skip" leaves the item out.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        Exception: What ``fn`` raised, the first in order of the rows. The rest is cancelled.
        TimeoutError: It took too long.
        NoKernelError: If there is no kernel.
        TypeError: If ``fn`` is not callable, or the rows are not iterable.
        ValueError: If a number is out of range, or there is no end of rows without ``size``.
    """
    asked = _Map(
        fn,
        (rows,),
        executor,
        parts=parts,
        chunksize=chunksize,
        size=size,
        buffersize=buffersize,
        timeout=timeout,
        progress=progress,
        errors=errors,
        rows=True,
    )
    return asked.run(list)


def pmap_unordered(
    fn: Callable[..., T],
    *iterables: Iterable[Any],
    chunksize: int = 1,
    buffersize: int | None = None,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> Iterator[T]:
    """
    Map lazily: return an iterator over the results, in the order in which they are done.

    ::

        import itertools
        import remote_executor.parallel as p

        with p.make_kernel(2):
            for root in p.pmap_unordered(abs, itertools.count(-5)):
                if root == 3:
                    break

    The inputs are read as results are taken, and may be endless. Nothing is read or submitted
    before the first result is asked for. What is under way when the iterator is closed, or dropped,
    is cancelled, and stopped where the executor can.

    Args:
        fn: Called with one item of each input.
        iterables: At least one; the shortest ends it. They are read in the thread that iterates.
        chunksize: How many items travel as one task. Their results come together.
        buffersize: How many items are read and their results not yet taken, at most; by default
            four tasks for each worker.
        timeout: Seconds for all of it, from the first result that is asked for.
        executor: An Executor or a Kernel; None for the current kernel as of now.

    Raises:
        Exception: What ``fn`` raised, or reading an input, when its turn comes. It ends the map.
        TimeoutError: It took too long.
        NoKernelError: If there is no kernel.
        TypeError: If ``fn`` is not callable, there is no input, or one is not iterable.
        ValueError: If a number is out of range.
    """
    _need_inputs(iterables)
    _callable(fn)
    chunk = count_of(chunksize, "chunksize", 1)
    most = None if buffersize is None else count_of(buffersize, "buffersize", 1)
    seconds = seconds_of(timeout)
    kernel = kernel_of(executor)
    rows: Iterator[Any] = (
        zip(*iterables, strict=False) if len(iterables) > 1 else iter(iterables[0])
    )
    run = partial(calls.starmap_part if len(iterables) > 1 else calls.map_part, fn)
    if most is None:
        most = PARTS_PER_WORKER * kernel.worker_count * chunk
    return _as_they_come(kernel, run, rows, min(chunk, most), most, seconds)


def _as_they_come(
    kernel: Kernel,
    run: Callable[[list[Any]], list[Any]],
    rows: Iterator[Any],
    chunk: int,
    most: int,
    timeout: float | None,
) -> Iterator[Any]:
    """Yield the results of chunks as they are done, with so many items under way. See Work."""
    with Work(kernel, timeout) as work:
        under_way = 0
        while True:
            while under_way + chunk <= most and (piece := list(islice(rows, chunk))):
                work.submit(run, piece)
                under_way += len(piece)
            if not under_way:
                return
            _, results = work.next()
            for result in results:
                yield result
                under_way -= 1


def pdotimes(
    n: int,
    body: Callable[[int], object],
    *,
    parts: int | None = None,
    chunksize: int | None = None,
    timeout: float | None = None,
    progress: bool = False,
    executor: Executor | Kernel | None = None,
) -> None:
    """
    Call ``body(i)`` for each i from 0 to before n, for effect, in any order.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pdotimes(3, print)

    Args:
        n: How often; nothing is done if it is below 1.
        body: What to call.
        parts: In how many parts to divide the inputs, as even as can be.
        chunksize: How many items travel as one task, in place of ``parts``.
        timeout: Seconds for all of it. After that the work is stopped on a farm's servers, too.
        progress: Whether to show a bar on stderr (tqdm's, with the ``progress`` extra).
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        Exception: What ``fn`` raised, the first in order of the inputs. The rest is cancelled.
        TimeoutError: It took too long.
        NoKernelError: If there is no kernel.
        TypeError: If ``fn`` is not callable, or an input is not iterable.
        ValueError: If a number is out of range, or the inputs are endless without ``size``.
        TypeError: If ``n`` is not an int.
    """
    pmap(
        body,
        range(count_of(n, "n", -sys.maxsize)),
        result_type=None,
        parts=parts,
        chunksize=chunksize,
        timeout=timeout,
        progress=progress,
        executor=executor,
    )


def pmap_into(
    target: T,
    fn: Callable[..., Any],
    *iterables: Iterable[Any],
    parts: int | None = None,
    chunksize: int | None = None,
    size: int | None = None,
    resize: bool = False,
    timeout: float | None = None,
    progress: bool = False,
    executor: Executor | Kernel | None = None,
) -> T:
    """
    Map, and write the results into something that exists, from its start. Return that.

    ::

        import array
        import math
        import remote_executor.parallel as p

        with p.make_kernel(2):
            roots = array.array("d", [0, 0, 0])
            p.pmap_into(roots, math.sqrt, [1, 4])  # array('d', [1.0, 2.0, 0.0])

    All or nothing: if anything fails, the target is as it was. What is beyond the number of results
    stays. Comes from lparallel's and lfarm's pmap-into.

    Args:
        target: A list, bytearray, array, writable memoryview of one dimension, or numpy array.
        fn: Called with one item of each input, or, without inputs, with none for each slot.
        iterables: The shortest of them and the target end it.
        parts: In how many parts to divide the inputs, as even as can be.
        chunksize: How many items travel as one task, in place of ``parts``.
        size: How many items to map at most.
        resize: Whether the target, a list, bytearray or array, takes all results and gets just
            their number as its length.
        timeout: Seconds for all of it. After that the work is stopped on a farm's servers, too.
        progress: Whether to show a bar on stderr (tqdm's, with the ``progress`` extra).
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        Exception: What ``fn`` raised, the first in order of the inputs, or what the target says to
            a value that does not fit.
        TimeoutError: It took too long.
        NoKernelError: If there is no kernel.
        TypeError: If ``fn`` is not callable, nothing can be written into the target, or it cannot
            be resized.
        ValueError: If a number is out of range.
    """
    room, stage = _target(target, resize)
    if not iterables and not resize:
        fn = partial(calls.thunk, _callable(fn))
    asked = _Map(
        fn,
        iterables,
        executor,
        parts=parts,
        chunksize=chunksize,
        size=size,
        timeout=timeout,
        progress=progress,
    )
    if not iterables:
        if resize:
            raise TypeError("resize=True needs an input, whose length the target gets")
        length = room if asked.size is None else min(asked.size, room)
        columns = Columns([range(length)])
    else:
        most = asked.size
        if not resize:
            most = room if most is None else min(most, room)
        columns = columns_of(iterables, most)
    results = asked.run_over(columns, partial(stage, len(columns)))
    if resize:
        target[:] = results  # type: ignore[index]
    else:
        target[: len(columns)] = results  # type: ignore[index]
    return target


def _target(target: Any, resize: bool) -> tuple[int, Callable[[int, Iterable[Any]], Any]]:
    """Return how many items a target has, and what collects results in a form that fits."""
    ndarray: Any = getattr(sys.modules.get("numpy"), "ndarray", ())
    if isinstance(target, ndarray):
        if not target.ndim or not target.flags.writeable:
            raise TypeError("the target must be an array that can be written to")
        stage: Any = partial(_stage_numpy, target)
    elif isinstance(target, memoryview):
        if target.readonly or target.ndim != 1:
            raise TypeError("the target must be a writable memoryview of one dimension")
        form = "B" if target.format == "c" else target.format
        stage = partial(_stage_array, form, True)
    elif isinstance(target, array):
        stage = partial(_stage_array, target.typecode, False)
    elif isinstance(target, bytearray):
        stage = _stage_bytes
    elif isinstance(target, list):
        stage = _stage_list
    else:
        raise TypeError(f"the target must be a list, bytearray or array, not {target!r}")
    if resize and not isinstance(target, (list, bytearray, array)):
        raise TypeError(f"a {type(target).__name__} cannot be resized")
    return len(target), stage


def _stage_list(_: int, results: Iterable[Any]) -> list[Any]:
    return list(results)


def _stage_bytes(_: int, results: Iterable[Any]) -> bytearray:
    return bytearray(results)


def _stage_array(typecode: str, as_view: bool, _: int, results: Iterable[Any]) -> Any:
    staged = array(typecode)
    staged.extend(results)
    return memoryview(staged) if as_view else staged


def _stage_numpy(target: Any, length: int, results: Iterable[Any]) -> Any:
    staged = sys.modules["numpy"].empty((length, *target.shape[1:]), target.dtype)
    source = iter(results)
    start = 0
    while chunk := list(islice(source, CHUNK)):
        staged[start : start + len(chunk)] = chunk
        start += len(chunk)
    return staged


def _exhaust(results: Iterable[Any]) -> None:
    for _ in results:
        pass


def _need_inputs(iterables: tuple[Iterable[Any], ...]) -> None:
    if not iterables:
        raise TypeError("there must be at least one input")


def _callable(fn: Callable[..., Any]) -> Callable[..., Any]:
    if not callable(fn):
        raise TypeError(f"the function must be callable, not {fn!r}")
    return fn
