"""
A map in asyncio: ``async for result in executor.amap(fn, items)``.

The batches of items and their results are those of :mod:`remote_executor.client.maps`. What is
added is who waits: the loop is woken, by its mailbox, when the result whose turn it is has come.
::

    async source --> the reader, a task of asyncio --> batches --> the farm
                        waits while buffersize items                  |
                        are under way or unread                       v
    async for <----- values of a batch <--- unpickled <--- mailbox <-- I/O thread

Iterables that are not asynchronous need no reader: they are read as ``map`` reads them.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from remote_executor.client.awaiting import mailbox
from remote_executor.client.maps import MapResults, PushedResults

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = ["AsyncMap", "begin"]

T = TypeVar("T")

SHARE_SECONDS = 0.005
"""Others of the loop have their turn after so long, though there is always a result, or an item."""

LOOK_ITEMS = 64
"""Items that are read before the time is looked at."""


def begin(
    begin_map: Callable[..., MapResults],
    fn: Callable[..., Any],
    iterables: tuple[Any, ...],
    timeout: float | None,
    chunksize: int | None,
    buffersize: int | None,
    ordered: bool,
    kills: bool,
) -> AsyncMap[Any]:
    """
    Begin a map; see :meth:`FarmExecutor.amap`.

    Args:
        begin_map: Makes the results: the executor's ``_begin_map``.
        fn: As for amap.
        iterables: As for amap.
        timeout: As for amap.
        chunksize: As for amap.
        buffersize: As for amap.
        ordered: As for amap.
        kills: Whether to stop what runs if it is left early.
    """
    star = len(iterables) != 1
    reader: _Reader | None = None
    if any(isinstance(each, AsyncIterable) for each in iterables):
        if buffersize is not None and not (type(buffersize) is int and buffersize > 0):
            begin_map(fn, (), star, chunksize, buffersize, ordered)  # raises the error for that
        results = begin_map(fn, (), star, chunksize, sys.maxsize, ordered, PushedResults)
        assert isinstance(results, PushedResults)
        reader = _Reader(results, iterables, buffersize)
    else:
        items = zip(*iterables, strict=False) if star else iterables[0]
        results = begin_map(fn, items, star, chunksize, buffersize, ordered)
    return AsyncMap(results, reader, timeout, buffersize is not None, kills)


class AsyncMap(Generic[T]):
    """
    The results of a map, as they come; made by :meth:`FarmExecutor.amap`.

    For one ``async for`` at a time. Any exception that comes out of it ends it, a cancellation too.

    Args:
        results: Where the batches arrive.
        reader: Reads asynchronous iterables; None if there are none.
        timeout: Seconds from now until which all results must have come.
        counts: Whether each result that is taken lets more items be read.
        kills: Whether to stop what runs if it is left early.
    """

    def __init__(
        self,
        results: MapResults,
        reader: _Reader | None,
        timeout: float | None,
        counts: bool,
        kills: bool,
    ) -> None:
        self._results: MapResults | None = results
        self._reader = reader
        self._until = None if timeout is None else time.monotonic() + timeout
        self._counts = counts
        self._kills = kills
        self._values: Iterator[T] = iter(())
        self._error: BaseException | None = None
        """What has ended the batch that is taken now, for when its values are taken."""
        self._waits = False
        self._turn = 0.0

    def __aiter__(self) -> AsyncMap[T]:
        return self

    async def __anext__(self) -> T:
        for value in self._values:
            return value
        return await self._next_batch()

    async def _next_batch(self) -> T:
        if self._waits:
            raise RuntimeError("somebody else waits for the next result of this map")
        done = False
        self._waits = True
        try:
            while await self._take():
                for value in self._values:
                    done = True
                    return value
            raise StopAsyncIteration
        finally:
            self._waits = False
            if not done:
                self._leave()

    async def _take(self) -> bool:
        """Take the next batch; return False if there is none."""
        error, self._error = self._error, None
        if error is not None:
            raise error
        results, reader = self._results, self._reader
        if results is None:
            return False
        if reader is not None:
            reader.start()
        if not results.is_ready():
            await self._wait(results)
        elif time.monotonic() - self._turn >= SHARE_SECONDS:
            await asyncio.sleep(0)
        self._turn = time.monotonic()
        outcome = results.wait(None)  # it is ready
        if outcome is None:
            if results.source_error is not None:
                raise results.source_error
            return False
        opened = results.opened(outcome)
        if opened is None:
            return True
        values, self._error = opened
        self._values = iter(values)
        if self._counts:
            self._values = (reader or results).counted(iter(values))
            if reader is not None and self._error is None:
                reader.skip(outcome.items - len(values))
        return True

    async def _wait(self, results: MapResults) -> None:
        """Wait until the next batch is there, or nothing to wait for any more."""
        loop = asyncio.get_running_loop()
        box = mailbox(loop)
        while True:
            waiter = loop.create_future()
            results.told = partial(_tell, results, partial(box.put, waiter))
            late = None
            try:
                if results.is_ready():  # since then
                    return
                if self._until is not None:
                    left = self._until - time.monotonic()
                    if left <= 0:
                        raise asyncio.TimeoutError(results.words_if_late())
                    late = loop.call_later(left, partial(box.put, waiter))
                await waiter
            finally:
                results.told = None
                if late is not None:
                    late.cancel()

    async def aclose(self) -> None:
        """
        Leave it: what has not begun is dropped.

        What runs goes on, unless ``options(kill_on_cancel=True)`` says otherwise.
        """
        reader = self._reader
        self._leave()
        if reader is not None:
            await reader.ended()

    def _leave(self) -> None:
        results, self._results, reader = self._results, None, self._reader
        self._values, self._error = iter(()), None
        if reader is not None:
            reader.stop()
        if results is not None:
            results.told = None
            if self._kills and not results.is_over():
                results.kill()
            else:
                results.close()

    def __del__(self) -> None:
        if self._results is not None:
            self._leave()


def _tell(results: MapResults, tell: Callable[[], object]) -> None:
    """Wake the loop if it is the turn of what has come. In the I/O thread."""
    if results.is_ready():
        tell()


class _Reader:
    """
    Reads asynchronous iterables for a map, in a task of its own.

    Args:
        results: Where the items go.
        iterables: One, or several of which each item takes one of each.
        buffersize: How many items may be under way or unread; None for any number.
    """

    def __init__(
        self, results: PushedResults, iterables: tuple[Any, ...], buffersize: int | None
    ) -> None:
        self._results = results
        self._iterables = iterables
        self._limit = sys.maxsize if buffersize is None else buffersize
        self._taken = 0
        self._read = 0
        self._fresh: list[Any] = []
        """What was read since the loop had its turn."""
        self._room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to read. Does nothing the second time."""
        if self._task is None:
            self._loop = asyncio.get_running_loop()
            self._task = self._loop.create_task(self._run(), name="remote_executor amap")
            # A loop that is closed without an end of its tasks: the map is over, nothing is lost.
            with contextlib.suppress(AttributeError):
                self._task._log_destroy_pending = False  # type: ignore[attr-defined]

    async def _run(self) -> None:
        try:
            await self._read_all()
        except BaseException as exc:
            self._results.source_error = exc
            if isinstance(exc, (KeyboardInterrupt, SystemExit, GeneratorExit)):
                raise
        finally:
            self._hand_in()
            self._results.end()

    async def _read_all(self) -> None:
        turn = time.monotonic()
        loop = asyncio.get_running_loop()
        one = len(self._iterables) == 1
        async for item in self._iterables[0] if one else _together(self._iterables):
            if not self._fresh:
                loop.call_soon(self._hand_in)
            self._fresh.append(item)
            self._read += 1
            while self._read - self._taken >= self._limit:
                self._hand_in()
                self._room = loop.create_future()
                await self._room
                turn = time.monotonic()
            if self._read % LOOK_ITEMS == 0 and time.monotonic() - turn >= SHARE_SECONDS:
                await asyncio.sleep(0)
                turn = time.monotonic()

    def _hand_in(self) -> None:
        """Hand in what was read. An error is what has ended the reading."""
        fresh, self._fresh = self._fresh, []
        try:
            self._results.push(fresh)
        except RuntimeError as exc:  # the executor has ended
            self._results.source_error = self._results.source_error or exc
            self.stop()

    def counted(self, values: Iterator[Any]) -> Iterator[Any]:
        """Yield values; each that is taken makes room for another item."""
        for value in values:
            self.skip(1)
            yield value

    def skip(self, count: int) -> None:
        """So many items are done with, and make room for others."""
        self._taken += count
        room = self._room
        if room is not None and self._read - self._taken <= self._limit - max(1, self._limit // 16):
            self._room = None
            if not room.done():
                room.set_result(None)

    def stop(self) -> None:
        """Read no more. Any thread may call this: whoever dropped the map."""
        task, loop = self._task, self._loop
        if task is None or loop is None or task.done():
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            if asyncio._get_running_loop() is loop:
                task.cancel()
            else:
                loop.call_soon_threadsafe(task.cancel)

    async def ended(self) -> None:
        """Wait until the iterables have been left."""
        if self._task is not None and self._task is not asyncio.current_task():
            await asyncio.wait([self._task])


async def _together(iterables: tuple[Any, ...]) -> AsyncIterator[tuple[Any, ...]]:
    """Yield one item of each, until one of them has none, as ``zip`` does."""
    sources = [
        each.__aiter__() if isinstance(each, AsyncIterable) else _plain(each) for each in iterables
    ]
    while True:
        items = []
        for source in sources:
            try:
                items.append(await source.__anext__())
            except StopAsyncIteration:
                return
        yield tuple(items)


async def _plain(iterable: Any) -> AsyncIterator[Any]:
    for item in iterable:
        yield item
