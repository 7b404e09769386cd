"""
The results of a map, as they come.

The items wait here until there is room for a batch of them at a server. Results are unpickled in
the thread that iterates, so the I/O thread is free for what comes next.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import CancelledError, TimeoutError
from functools import partial
from itertools import chain, islice, repeat, starmap
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from remote_executor.client.results import open_failure, unloadable
from remote_executor.errors import RemoteProtocolError
from remote_executor.net.interruptible import Gates
from remote_executor.payload.pickles import load
from remote_executor.payload.slices import Columns
from remote_executor.wire.messages import Flag, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from remote_executor.client.driver import Driver
    from remote_executor.core.scheduler import Feed, Task
    from remote_executor.wire.frames import Buffer, Frame

__all__ = ["MapResults", "PushedResults", "open_outcome"]

TINY = 16
"""Bytes of a pickled value, numbers for the most part."""

SLICED = (range, list, tuple, Columns)


class _Items(chain[Any]):
    """The items of batches, one after the other. Can be closed, as the stdlib's generator can."""

    close: Callable[[], None]
    kill: Callable[[], None]
    """As ``close``, and stops batches that run."""


class _Outcome(NamedTuple):
    """What became of a batch."""

    first: int
    """The index of its first item."""
    items: int
    """How many there were."""
    frame: Frame | None
    error: BaseException | None
    place: str = ""
    """Which server it comes from."""

    def is_tiny(self, count: int) -> bool:
        """Tell whether it is cheaper to keep the values until the last of them is taken."""
        return self.frame is not None and self.frame.size <= TINY * count


class MapResults:
    """
    Where the batches of one map arrive.

    Args:
        driver: Runs it.
        items: The items; consumed at once, or piecemeal with ``buffersize``.
        star: Whether each item is a tuple of arguments.
        buffersize: How many items may be under way or unread; None for any number.
        ordered: Whether results come in the order of the items.
    """

    def __init__(
        self,
        driver: Driver,
        items: Iterable[Any],
        *,
        star: bool,
        buffersize: int | None,
        ordered: bool,
    ) -> None:
        self.feed: Feed | None = None
        self._started: Feed | None = None
        """The feed, also after nobody wants more of it."""
        self.driver = driver
        self._star = star
        self._ordered = ordered
        self._buffersize = buffersize
        self._source: Iterator[Any] | None = None
        self._waiting: Any
        self._taken = 0
        self._pulled = 0
        self._yielded = 0
        self.keeper: object = None
        """The executor, which ends without references; kept until the source has been read."""
        self._gates = Gates()
        """Where the iteration waits."""
        self._arrived: dict[int, _Outcome] = {}
        """By the index of their first items."""
        self._error: BaseException | None = None
        self._next = 0
        self.told: Callable[[], object] | None = None
        """Called, in the I/O thread, each time that something has come."""
        self.source_error: BaseException | None = None
        """What the source has raised, for whoever takes the results."""
        if buffersize is None:
            # What can be sliced: each batch is a slice, cut when there is room for it. All else
            # is a list of ours, as of now; the last item first, so that batches are cut off its
            # end, and what has been sent is let go of.
            if type(items) in SLICED and type(items) is not list:
                self._waiting = items
            else:
                self._waiting = list(items)
                self._waiting.reverse()
            self._pulled = len(self._waiting)
        else:
            self._waiting = []
            self._source = iter(items)

    def start(self, feed: Feed) -> None:
        """Take a feed into use and offer it the first items."""
        self.feed = self._started = feed
        feed.flags = Flag.BATCH | (Flag.STAR if self._star else 0)
        if self._source is None:
            if self._pulled:
                self.driver.accept((feed, self._pulled))
        else:
            self._pull()

    def _pull(self) -> None:
        """Take more items from a source that is read piecemeal."""
        if self._source is None or self._buffersize is None:
            return
        room = self._buffersize - (self._pulled - self._yielded)
        # With a large buffer, not for every single item.
        if room < max(1, self._buffersize // 16):
            return
        fresh = list(islice(self._source, room))
        if len(fresh) < room:
            self._source = None
        if fresh:
            assert self.feed is not None
            self._pulled += len(fresh)
            self._waiting += fresh
            self.driver.accept((self.feed, len(fresh)))
        if self._source is None:
            self.keeper = None  # the executor finishes what it has been offered

    # ------------------------------------------------------------ for the driver

    def take(self, count: int) -> Any:
        """Return the next ``count`` items. Called in order, with the driver's mutex held."""
        waiting = self._waiting
        if self._buffersize is not None:
            items, waiting[:count] = waiting[:count], []
            return items
        if type(waiting) is list:
            items = waiting[: -count - 1 : -1]
            del waiting[-count:]
            return items
        start = self._taken
        self._taken += count
        items = waiting[start : start + count]
        # Of a list the server can tell what comes before a broken item.
        return list(items) if type(items) is tuple else items

    def arrived(
        self, task: Task, frame: Frame, error: BaseException | None = None, place: str = ""
    ) -> None:
        """
        A batch is done.

        Args:
            task: The batch.
            frame: What came.
            error: What to raise instead of the exception that came.
            place: Which server it comes from.
        """
        self._put(_Outcome(task.first, task.count, frame, error, place))

    def failed(self, task: Task | None, error: BaseException) -> None:
        """A batch, or with None the whole map, has failed otherwise than by its function."""
        if task is None:
            self._gates.open(partial(setattr, self, "_error", error))
            if self.told is not None:
                self.told()
        else:
            self._put(_Outcome(task.first, task.count, None, error))

    def dropped(self, task: Task | None) -> None:
        """A batch, or with None what was not cut yet, was cancelled."""
        self.failed(None, CancelledError())

    def _put(self, outcome: _Outcome) -> None:
        self._gates.open(partial(self._arrived.__setitem__, outcome.first, outcome))
        if self.told is not None:
            self.told()

    # ------------------------------------------------------------ for the caller

    def results(self, timeout: float | None) -> Iterator[Any]:
        """
        Yield the results.

        Args:
            timeout: Seconds from now after which waiting raises TimeoutError.

        Raises:
            TimeoutError: A result did not come in time.
            Exception: What the function raised for an item, at that item's turn.
        """
        until = None if timeout is None else time.monotonic() + timeout
        if self._buffersize is None:
            # One step of ours a batch; from item to item it is C all the way.
            source: Generator[Any, None, None] = self._batches(until)
            items = cast("_Items", _Items.from_iterable(source))
        else:
            source = self._one_by_one(until)
            items = _Items(source)
        items.close = source.close
        items.kill = self.kill
        return items

    def _batches(self, until: float | None) -> Generator[Iterator[Any], None, None]:
        try:
            while True:
                outcome = self.wait(until)
                if outcome is None:
                    self._started = None  # it refers to us: let both go now
                    return
                values, error = open_outcome(outcome, self.driver)
                if outcome.is_tiny(len(values)):
                    each = iter(values)
                else:
                    # Each value is let go of as it is taken, as the standard library does it.
                    values.reverse()
                    each = starmap(values.pop, repeat((), len(values)))
                del outcome, values
                yield each
                del each
                if error is not None:
                    try:
                        raise error
                    finally:
                        del error  # else the exception would hold on to this frame
        finally:
            self.close()

    def _one_by_one(self, until: float | None) -> Generator[Any, None, None]:
        """Read more of the source with each item that is taken."""
        for values in self._batches(until):
            yield from self.counted(values)

    def counted(self, values: Iterator[Any]) -> Iterator[Any]:
        """Yield values; each that is taken lets more of the source be read."""
        for value in values:
            self._yielded += 1
            self._pull()
            yield value

    def wait(self, until: float | None) -> _Outcome | None:
        """Wait for the next batch; None if there is none left."""
        forked = self.driver.forked()
        if forked is not None:
            raise forked
        if not self.is_ready():
            self.driver.check_may_wait()
            if not self._gates.wait(self.is_ready, until):
                raise TimeoutError(self.words_if_late())
        # Only the iteration takes out what has arrived.
        outcome = None
        if self._ordered:
            outcome = self._arrived.pop(self._next, None)
        elif self._arrived:
            outcome = self._arrived.pop(next(iter(tuple(self._arrived))))
        if outcome is not None:
            self._next += outcome.items
        elif self._error is not None:
            raise self._error
        return outcome

    def words_if_late(self) -> str:
        """Return what to say if the next batch has not come in time."""
        return f"only {self._next} results had come in time"

    def is_over(self) -> bool:
        """Tell whether all results were taken."""
        return self._next >= self._pulled and self._source is None

    def is_ready(self) -> bool:
        """Tell whether there is a batch to be taken, an error, or nothing to come."""
        if self._arrived and (not self._ordered or self._next in self._arrived):
            return True
        return self._error is not None or self.is_over()

    def close(self) -> None:
        """Nobody wants more: cut no more batches, and take back those that have not begun."""
        feed, self.feed, self.keeper = self.feed, None, None  # the feed refers to us
        if feed is not None:
            if not feed.closed:
                self.driver.close_feed(feed)
            self._waiting = []

    def kill(self) -> None:
        """Nobody wants more, not even of what runs: end the workers that run it."""
        self.close()
        started, self._started = self._started, None
        if started is not None:
            self.driver.kill_feed(started)


class PushedResults(MapResults):
    """
    Where the batches of a map arrive whose items are handed in one after the other.

    Made without items, and with a ``buffersize`` beyond all numbers. Then :meth:`push`, and
    :meth:`end` when there are no more. Who pushes sees to it that it is not too much.
    """

    def __init__(
        self,
        driver: Driver,
        items: Iterable[Any],
        *,
        star: bool,
        buffersize: int | None,
        ordered: bool,
    ) -> None:
        super().__init__(driver, items, star=star, buffersize=buffersize, ordered=ordered)
        self._waiting = deque[Any]()

    def _pull(self) -> None:
        """Leave it to :meth:`push`."""

    def take(self, count: int) -> Any:
        """Return the next ``count`` items, as a map's."""
        return list(starmap(self._waiting.popleft, repeat((), count)))

    def push(self, items: list[Any]) -> bool:
        """
        Hand in more items.

        Args:
            items: Which.

        Returns:
            False if nobody wants their results any more.

        Raises:
            RuntimeError: If the executor has ended.
        """
        feed = self.feed
        if feed is None:
            return False
        if items:
            self._pulled += len(items)
            self._waiting += items
            self.driver.accept((feed, len(items)))
        return True

    def end(self) -> None:
        """Say that there are no more items."""
        self._gates.open(partial(setattr, self, "_source", None))
        self.keeper = None  # the executor finishes what it has been offered
        if self.told is not None:
            self.told()

    @property
    def pulled(self) -> int:
        """How many items have been handed in."""
        return self._pulled


def open_outcome(outcome: _Outcome, driver: Driver) -> tuple[list[Any], BaseException | None]:
    """Unpickle a batch: the results, and what ended it early."""
    frame, error = outcome.frame, outcome.error
    if frame is None:
        return [], error
    body: Buffer = frame.body
    buffers = frame.buffers
    if frame.kind != Kind.RESULT:
        error = error or open_failure(frame, outcome.place)
        if len(buffers) < 2:
            return [], error
        body, buffers = buffers[1], buffers[2:]
    try:
        values = load(body, buffers)
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        from remote_executor.payload.salvage import load_before

        values = load_before(body, buffers)
        words = f"the result for item {outcome.first + len(values)} of a map"
        return values, unloadable(exc, body, driver, words)
    wanted = range(outcome.items) if error is not None else (outcome.items,)
    if type(values) is not list or len(values) not in wanted:
        # Else all that follow would be taken for the results of other items.
        words = f"{outcome.place} answers for {outcome.items} items of a map with something else"
        return [], RemoteProtocolError(words)
    return values, error
