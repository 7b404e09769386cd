"""
``multiprocessing.Pool`` on a farm: ``remote_executor.Pool``.

::

    from remote_executor import Pool  # in place of: from multiprocessing import Pool

    with Pool(4) as pool:
        print(pool.map(work, items))

The names, the arguments and the errors are multiprocessing's: programs that were written for it
change one import. A :class:`~remote_executor.FarmExecutor` does the work, so functions of
``__main__`` and lambdas travel, and a worker that dies fails its own call only.

Who does what: a call's items are pickled, and its callbacks made, by the executor's I/O thread;
values are unpickled by whoever asks for them. An iterable of ``imap`` that may wait for something
is read by a thread of its own, the *feeder*, since its owner may wait for results in between.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.pool
import threading
import time
import warnings
from collections import deque
from concurrent.futures import Future, TimeoutError
from concurrent.futures.process import _RemoteTraceback
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from remote_executor.client.executor import FarmExecutor
from remote_executor.client.futures import SafeFuture
from remote_executor.client.maps import MapResults, PushedResults, open_outcome
from remote_executor.errors import PayloadError
from remote_executor.net.interruptible import Gates, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

__all__ = ["AsyncResult", "IMapIterator", "Pool", "in_their_words"]

T = TypeVar("T")

log = logging.getLogger("remote_executor.adapters.pool")

RUN, CLOSE, TERMINATE = "RUN", "CLOSE", "TERMINATE"
"""The states of a pool, as multiprocessing.pool names them."""

LARGEST_CHUNK = 5000
"""Items in a chunk as multiprocessing makes it, a quarter of a worker's share. That takes one round
trip, and to measure an item first takes some more, which shows where a map takes milliseconds."""

AHEAD = 16
"""Chunks that a feeder is ahead of each worker."""

QUIET = (list, tuple, range, str, bytes)
"""Iterables that run no code of the user's when they are read."""


class Pool:
    """
    A pool of worker processes, as ``multiprocessing.Pool``, on a farm.

    On a server of its own, or on those that ``REMOTE_EXECUTOR_ADDRESSES`` names.

    Args:
        processes: How many; None for one for each core that this process may use.
        initializer: Called once in each worker before its first call.
        initargs: Its arguments.
        maxtasksperchild: After so many calls, or chunks of a map, a worker is replaced.
        context: Accepted for compatibility. Workers always start from a clean process.

    Raises:
        ValueError: If a number is out of range.
        TypeError: If the initializer is not callable.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        self._state = TERMINATE  # until it is made
        if processes is not None and processes < 1:
            raise ValueError("Number of processes must be at least 1")
        limit: Any = maxtasksperchild
        if limit is not None and not (isinstance(limit, int) and limit > 0):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._executor = FarmExecutor(
            processes, context, initializer, tuple(initargs), max_tasks_per_child=maxtasksperchild
        )
        self._feeders: list[threading.Thread] = []
        self._state = RUN
        self._executor._check_open()  # the workers start now, as multiprocessing's do

    def __repr__(self) -> str:
        cls = type(self)
        return (
            f"<{cls.__module__}.{cls.__qualname__} state={self._state} pool_size={self._processes}>"
        )

    @property
    def _processes(self) -> int:
        """How many calls run at a time; programs look here for a chunksize of their own."""
        return self._executor._max_workers

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")

    # ------------------------------------------------------------------ one call

    def apply(
        self, func: Callable[..., T], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}
    ) -> T:
        """
        Call ``func(*args, **kwds)`` in a worker, and wait for what it returns.

        Args:
            func: What to call.
            args: Its positional arguments.
            kwds: Its keyword arguments.

        Raises:
            ValueError: If the pool was closed.
            Exception: What the call raised.
        """
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., T],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callable[[T], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[T]:
        """
        Call ``func(*args, **kwds)`` in a worker, and do not wait.

        Args:
            func: What to call.
            args: Its positional arguments.
            kwds: Its keyword arguments.
            callback: Called here with the result, in the thread that brings results, before
                :meth:`AsyncResult.get` returns. It must not wait for the pool.
            error_callback: Called likewise with the error.

        Returns:
            What the result can be had from.

        Raises:
            ValueError: If the pool was closed.
        """
        self._check_running()
        future = self._executor.submit(func, *args, **kwds)
        if callback is None and error_callback is None:
            return AsyncResult(self, future)
        outcome: SafeFuture[T] = SafeFuture()
        settle = partial(_settle_future, self, outcome, callback, error_callback)
        future.add_done_callback(settle)
        return AsyncResult(self, outcome)

    # ---------------------------------------------------------------- whole lists

    def map(
        self, func: Callable[[Any], T], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[T]:
        """
        Call a function with each item, and return the list of results.

        If calls fail, all others are made all the same; then the first error is raised.

        Args:
            func: Called with one item.
            iterable: The items; read at once.
            chunksize: Items that travel together, exactly; None for a quarter of a worker's share,
                or for what their measured time suggests where that is more than some thousands.

        Raises:
            ValueError: If the pool was closed, or ``chunksize`` is below 1.
            Exception: What a call raised.
        """
        return self._map(func, iterable, chunksize, False)

    def starmap(
        self,
        func: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[T]:
        """
        As :meth:`map`, with each item unpacked into arguments.

        Args:
            func: Called with the arguments in one item.
            iterable: The items; read at once.
            chunksize: As for :meth:`map`.

        Raises:
            ValueError: If the pool was closed, or ``chunksize`` is below 1.
            Exception: What a call raised.
        """
        return self._map(func, iterable, chunksize, True)

    def _map(
        self, func: Callable[..., T], iterable: Iterable[Any], chunksize: int | None, star: bool
    ) -> list[T]:
        self._check_running()
        results = self._begin(MapResults, func, _sized(iterable), chunksize, star)
        try:
            return _collect(results)
        finally:
            results.close()

    def map_async(
        self,
        func: Callable[[Any], T],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[T]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[list[T]]:
        """
        As :meth:`map`, and do not wait.

        Args:
            func: As for :meth:`map`.
            iterable: As for :meth:`map`.
            chunksize: As for :meth:`map`.
            callback: Called with the list; see :meth:`apply_async`.
            error_callback: Called with the error.

        Raises:
            ValueError: If the pool was closed, or ``chunksize`` is below 1.
        """
        return self._map_async(func, iterable, chunksize, False, callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[T]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[list[T]]:
        """
        As :meth:`starmap`, and do not wait.

        Args:
            func: As for :meth:`starmap`.
            iterable: As for :meth:`starmap`.
            chunksize: As for :meth:`map`.
            callback: Called with the list; see :meth:`apply_async`.
            error_callback: Called with the error.

        Raises:
            ValueError: If the pool was closed, or ``chunksize`` is below 1.
        """
        return self._map_async(func, iterable, chunksize, True, callback, error_callback)

    def _map_async(
        self,
        func: Callable[..., T],
        iterable: Iterable[Any],
        chunksize: int | None,
        star: bool,
        callback: Callable[[list[T]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> AsyncResult[list[T]]:
        self._check_running()
        outcome: SafeFuture[list[T]] = SafeFuture()
        results = self._begin(_AllResults, func, _sized(iterable), chunksize, star)
        assert isinstance(results, _AllResults)
        if callback is None and error_callback is None:
            # Whoever asks unpickles.
            results.when_all_are_there(partial(_finish, outcome, cast("Any", None)))
            return _MapResult(self, outcome, results)
        settle = partial(_settle, self, outcome, callback, error_callback, results.collect)
        results.when_all_are_there(settle)
        return AsyncResult(self, outcome)

    # ------------------------------------------------------------------ piecemeal

    def imap(
        self, func: Callable[[Any], T], iterable: Iterable[Any], chunksize: int = 1
    ) -> IMapIterator[T]:
        """
        Call a function with each item, and return an iterator over the results, in order.

        Args:
            func: Called with one item.
            iterable: The items. It is read in another thread, a few chunks ahead of the workers;
                lists, tuples and ranges are read at once.
            chunksize: Items that travel together. After an error the items of later chunks follow.

        Raises:
            ValueError: If the pool was closed, or ``chunksize`` is below 1.
        """
        return self._imap(func, iterable, chunksize, True)

    def imap_unordered(
        self, func: Callable[[Any], T], iterable: Iterable[Any], chunksize: int = 1
    ) -> IMapIterator[T]:
        """
        As :meth:`imap`, with results in the order in which their chunks are done.

        Args:
            func: As for :meth:`imap`.
            iterable: As for :meth:`imap`.
            chunksize: As for :meth:`imap`.

        Raises:
            ValueError: If the pool was closed, or ``chunksize`` is below 1.
        """
        return self._imap(func, iterable, chunksize, False)

    def _imap(
        self, func: Callable[[Any], T], iterable: Iterable[Any], chunksize: int, ordered: bool
    ) -> IMapIterator[T]:
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        if type(iterable) in QUIET:
            results = self._begin(MapResults, func, iterable, chunksize, False, ordered)
            return IMapIterator(results)
        fed = self._begin(_FedResults, func, (), chunksize, False, ordered)
        assert isinstance(fed, _FedResults)
        source = iter(iterable)
        feeder = threading.Thread(
            target=self._feed,
            args=(fed, source, chunksize),
            name="remote_executor imap",
            daemon=True,  # its iterable may wait for ever
        )
        self._feeders = [*(each for each in self._feeders if each.is_alive()), feeder]
        start_thread(feeder)
        return IMapIterator(fed)

    def _feed(self, results: _FedResults, source: Iterator[Any], chunksize: int) -> None:
        """Read an iterable for imap. In a thread of its own."""
        try:
            while self._state != TERMINATE:
                # An error takes the chunk with it in which it comes, as in multiprocessing.
                items = list(islice(source, chunksize))
                if not items or not results.push(items):
                    break
                results.wait_for_room(AHEAD * max(1, self._processes) * chunksize)
        except BaseException as exc:
            results.source_error = exc  # raised by the iterator, at its turn
        results.end()
        self._feeders = [each for each in self._feeders if each is not threading.current_thread()]
        self._end_if_closed()

    def _begin(
        self,
        kind: type[MapResults],
        func: Callable[..., Any],
        items: Iterable[Any],
        chunksize: int | None,
        star: bool,
        ordered: bool = True,
    ) -> MapResults:
        buffersize = ENDLESS if kind is _FedResults else None
        if chunksize is None and isinstance(items, (list, tuple, range)):
            # As multiprocessing does it; what is longer is cut by the time that items take.
            chunksize = -(-len(items) // (4 * max(1, self._processes))) or 1
            if chunksize > LARGEST_CHUNK:
                chunksize = None
        return self._executor._begin_map(func, items, star, chunksize, buffersize, ordered, kind)

    # ------------------------------------------------------------------- the end

    def close(self) -> None:
        """Take no more calls. The workers end when all are done; see :meth:`join`."""
        if self._state == RUN:
            self._state = CLOSE
            self._end_if_closed()

    def _end_if_closed(self) -> None:
        if self._state == CLOSE and not self._feeders:
            self._executor.shutdown(wait=False)

    def terminate(self) -> None:
        """Stop the workers at once. Calls that are not done fail; no callback is made of it."""
        if self._state == TERMINATE:
            return
        self._state = TERMINATE
        self._executor.terminate_workers()

    def join(self) -> None:
        """
        Wait until all workers have ended.

        Raises:
            ValueError: If neither :meth:`close` nor :meth:`terminate` was called before.
        """
        if self._state == RUN:
            raise ValueError("Pool is still running")
        while self._state == CLOSE and self._feeders:
            for feeder in self._feeders:
                feeder.join(0.1)  # piecemeal: another thread may terminate
        self._executor.shutdown(wait=True)

    def __enter__(self) -> Pool:  # noqa: PYI034 - Self is of 3.11
        self._check_running()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.terminate()

    def __del__(self) -> None:
        if self._state == RUN:
            self._state = CLOSE
            warnings.warn(
                f"unclosed running multiprocessing pool {self!r}", ResourceWarning, 2, self
            )

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")


ENDLESS = 1 << 62
"""In place of a buffersize, for items that are handed in: whoever does so counts them."""


class AsyncResult(Generic[T]):
    """
    What becomes of an asynchronous call, as ``multiprocessing.pool.AsyncResult``.

    Args:
        pool: Whose; kept until the result has come.
        future: Brings the result.
    """

    def __init__(self, pool: Pool, future: Future[Any]) -> None:
        self._pool = pool
        self._future = future

    def ready(self) -> bool:
        """Return whether the call is over."""
        return self._future.done()

    def successful(self) -> bool:
        """
        Return whether the call has returned, and not raised.

        Raises:
            ValueError: If it is not over.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error() is None

    def wait(self, timeout: float | None = None) -> None:
        """
        Wait until the call is over.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.
        """
        future = self._future
        assert isinstance(future, SafeFuture)
        if not future.done():
            future.wait_until_done(timeout)

    def get(self, timeout: float | None = None) -> T:
        """
        Wait for the result and return it.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Raises:
            multiprocessing.TimeoutError: It has not come in time. It is not lost: ask again.
            Exception: What the call raised.
        """
        if timeout is not None:
            self.wait(timeout)
            if not self.ready():
                raise multiprocessing.TimeoutError
        try:
            return cast("T", self._future.result())
        except BaseException as exc:
            error = in_their_words(exc)
            if error is exc:
                raise
            raise error from exc

    def _error(self) -> BaseException | None:
        try:
            return self._future.exception(0)
        except BaseException as exc:  # cancelled
            return exc


class _MapResult(AsyncResult[list[T]]):
    """The result of a map: opened by the first who asks, and kept for the others."""

    def __init__(self, pool: Pool, future: Future[Any], results: _AllResults) -> None:
        super().__init__(pool, future)
        self._results = results

    def get(self, timeout: float | None = None) -> list[T]:
        """Wait for the list and return it; see :class:`AsyncResult`."""
        super().get(timeout)
        value, error = self._results.collect()
        if error is not None:
            raise error
        return cast("list[T]", value)

    def _error(self) -> BaseException | None:
        return self._results.collect()[1]


class IMapIterator(Generic[T]):
    """
    The results of ``imap`` as they come, as ``multiprocessing.pool.IMapIterator``.

    Args:
        results: Where they arrive.
    """

    def __init__(self, results: MapResults) -> None:
        self._results = results
        self._values: Iterator[T] = iter(())
        self._error: BaseException | None = None

    def __iter__(self) -> IMapIterator[T]:
        return self

    def next(self, timeout: float | None = None) -> T:
        """
        Return the next result.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Raises:
            StopIteration: There are no more.
            multiprocessing.TimeoutError: It has not come in time. It is not lost: ask again.
            Exception: What the call raised, or the iterable at its turn; others may follow.
        """
        until = None if timeout is None else time.monotonic() + timeout
        results = self._results
        while True:
            for value in self._values:
                return value
            error, self._error = self._error, None
            if error is not None:
                raise in_their_words(error)
            try:
                outcome = results.wait(until)
            except TimeoutError:
                raise multiprocessing.TimeoutError from None
            if outcome is None:
                error, results.source_error = results.source_error, None
                if error is not None:
                    raise error
                raise StopIteration
            values, self._error = open_outcome(outcome, results.driver)
            self._values = iter(values)

    __next__ = next


# -------------------------------------------------------------------------- inside


class _AllResults(MapResults):
    """Results of which somebody is told when all are there."""

    _seen = 0
    _collected: tuple[list[Any] | None, BaseException | None] | None = None

    def when_all_are_there(self, call: Callable[[], object]) -> None:
        """Have something called once, in the I/O thread, or at once if they are."""
        self.told = partial(self._look, [call])
        self.told()

    def _look(self, calls: list[Callable[[], object]]) -> None:
        seen = self._seen
        while (outcome := self._arrived.get(seen)) is not None:
            seen += outcome.items
        self._seen = seen
        if self._error is not None or seen >= self._pulled:
            self.told = None
            try:
                call = calls.pop()
            except IndexError:
                return  # another thread has seen it, too
            call()

    def collect(self) -> tuple[list[Any] | None, BaseException | None]:
        """Return the list of all values, or the first error; to be called when all are there."""
        arrived = self._arrived  # in this order: whoever has collected lets go of it afterwards
        found = self._collected
        if found is None:
            mine = _AllResults.__new__(_AllResults)
            mine.__dict__.update(self.__dict__, _arrived=dict(arrived))  # others may do this, too
            try:
                found = _collect(mine), None
            except KeyboardInterrupt:
                raise
            except BaseException as exc:
                found = None, exc  # for all who ask
            found = self.__dict__.setdefault("_collected", found)
            self._arrived = {}
        return found


class _FedResults(PushedResults):
    """Results of items that a feeder hands in while there is room."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._done: deque[int] = deque()
        self._left = 0
        self._space = Gates()

    def push(self, items: list[Any]) -> bool:
        """Hand in more items; see :class:`PushedResults`."""
        self._left += len(items)
        return super().push(items)

    def _put(self, outcome: Any) -> None:
        super()._put(outcome)
        self._space.open(partial(self._done.append, outcome.items))

    def failed(
        self, task: Any, error: BaseException, pid: int | None = None, place: str = ""
    ) -> None:
        """Take note that a batch, or all, has failed; see :class:`MapResults`."""
        super().failed(task, error, pid, place)
        self._space.open()

    def wait_for_room(self, limit: int) -> None:
        """Wait until fewer items than that are not done. For the feeder."""
        self._space.wait(lambda: self._count() < limit or self._error is not None)

    def _count(self) -> int:
        while self._done:
            self._left -= self._done.popleft()
        return self._left


def _sized(iterable: Iterable[Any]) -> Iterable[Any]:
    """Return an iterable, as a list unless it is one that can be cut."""
    return iterable if type(iterable) in (list, tuple, range) else list(iterable)


def _collect(results: MapResults) -> list[Any]:
    """Wait for all values; raise the first error once all calls are over."""
    values: list[Any] = []
    error: BaseException | None = None
    while (outcome := results.wait(None)) is not None:
        found, failed = open_outcome(outcome, results.driver)
        values += found
        error = error or failed
    if error is not None:
        raise in_their_words(error)
    return values


def _finish(outcome: SafeFuture[Any], value: Any) -> None:
    if not outcome.done():
        outcome.set_result(value)


def _settle_future(
    pool: Pool,
    outcome: SafeFuture[Any],
    callback: Callable[[Any], object] | None,
    error_callback: Callable[[BaseException], object] | None,
    future: Future[Any],
) -> None:
    """Make the callbacks of a single call, and settle what its user has. A done-callback."""

    def collect() -> tuple[Any, BaseException | None]:
        try:
            error = future.exception()
        except BaseException as exc:  # cancelled, as by terminate()
            error = exc
        return (None, in_their_words(error)) if error is not None else (future.result(), None)

    _settle(pool, outcome, callback, error_callback, collect)


def _settle(
    pool: Pool,
    outcome: SafeFuture[Any],
    callback: Callable[[Any], object] | None,
    error_callback: Callable[[BaseException], object] | None,
    collect: Callable[[], tuple[Any, BaseException | None]],
) -> None:
    """Make the callbacks of a call, then settle what its user has: ``get`` returns after them."""
    value, error = collect()
    try:
        if pool._state == TERMINATE and error is not None:
            pass  # it was stopped, which is no news
        elif error is None and callback is not None:
            callback(value)
        elif error is not None and error_callback is not None:
            error_callback(error)
    except Exception:
        log.exception("a callback of a pool has failed")
    finally:
        if outcome.done():
            pass  # its user has cancelled it
        elif error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(value)


def in_their_words(error: BaseException) -> BaseException:
    """Return the error that multiprocessing would give for one of ours."""
    theirs: Any = multiprocessing.pool
    cause = error.__cause__
    if type(error) is PayloadError and error.what.startswith("result"):
        # As multiprocessing's, it has texts, and not the objects.
        wrapped: BaseException = theirs.MaybeEncodingError(error, error.what)
        wrapped.__cause__ = error
        return wrapped
    ours = isinstance(error, PayloadError)
    if ours and isinstance(cause, Exception) and not isinstance(error, type(cause)):
        if hasattr(cause, "add_note"):
            cause.add_note(str(error))  # names the part that it was
        return cause  # what the object's own code has raised
    if type(cause) is _RemoteTraceback:
        error.__cause__ = theirs.RemoteTraceback(cause.tb)
    return error
