"""
The results of a map, as they come.

The items wait here until there is room for a batch of them at a server. Results are unpickled in
the thread that iterates, so the I/O thread is free for what comes next.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from concurrent.futures import CancelledError, TimeoutError
from functools import partial
from itertools import chain, islice, repeat, starmap
from operator import length_hint
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from remote_executor.client.each import Each
from remote_executor.client.notes import note_item, note_task
from remote_executor.client.results import open_failure, pid_of, unloadable
from remote_executor.errors import RemoteProtocolError
from remote_executor.net.interruptible import Gates
from remote_executor.payload.pickles import load
from remote_executor.payload.slices import Columns
from remote_executor.wire.messages import EACH, Flag, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from remote_executor.client.driver import Driver
    from remote_executor.client.keeping import Keeping
    from remote_executor.core.tasks import Feed, Task
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
    rest: Callable[[], dict[int, Any]]
    """What else had come when the iteration ended: see :meth:`MapResults.rest`."""
    hint: Callable[[], int]

    def __length_hint__(self) -> int:
        return self.hint()


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
    task: Task | None = None
    """The batch, if it has failed, or each of its items is looked at."""
    values: list[Any] | None = None
    """What became of the items, if that is known already; fewer than items if some are skipped."""
    stored: Callable[[], list[Any]] | None = None
    """Loads the results, if they were kept by an earlier run."""

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
        errors: "raise", "return" or "skip"; see ``FarmExecutor.map``.
        retry: Whether, when and how often items that fail are tried again.
    """

    def __init__(
        self,
        driver: Driver,
        items: Iterable[Any],
        *,
        star: bool,
        buffersize: int | None,
        ordered: bool,
        errors: str = "raise",
        retry: Any = None,
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
        self._current: Iterator[Any] = iter(())
        """Knows how many values of the present batch are still to be taken."""
        self.told: Callable[[], object] | None = None
        """Called, in the I/O thread, each time that something has come."""
        self.source_error: BaseException | None = None
        """What the source has raised, for whoever takes the results."""
        self._each: Each | None = None
        """Looks at each item, where one that fails is not the end of all."""
        if errors != "raise" or retry is not None:
            self._each = Each(self, driver, errors, retry)
        self._keeping: Keeping | None = None
        """Keeps results, if there is a journal."""
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

    def resume(self, keeping: Keeping) -> None:
        """
        Have results kept, and take those that are there. To be called before :meth:`start`.

        Raises:
            PayloadError: If no key can be made of an item.
            JournalError: If the journal cannot be read.
        """
        self._keeping = keeping
        if self._source is None:
            waiting = self._waiting
            missing = self._look_up(reversed(waiting) if type(waiting) is list else waiting)
            missing.reverse()
            self._waiting = missing

    def _look_up(self, items: Iterable[Any]) -> list[Any]:
        """Take the results that are there; return the items that are to be run."""
        if self._keeping is None:
            return list(items)
        missing, pieces = self._keeping.look(items)
        for number, count, stored in pieces:
            self._store(_Outcome(number, count, None, None, stored=stored))
        return missing

    @property
    def numbers(self) -> list[int] | None:
        """The number of each item by its place in the feed, where that is another one."""
        return None if self._keeping is None else self._keeping.numbers

    def start(self, feed: Feed) -> None:
        """Take a feed into use and offer it the first items."""
        self.feed = self._started = feed
        feed.flags = Flag.BATCH | (Flag.STAR if self._star else 0)
        if self._each is not None:
            feed.flags |= EACH
        if self._source is None:
            count = self._pulled if self._keeping is None else len(self._waiting)
            if count:
                self.driver.accept((feed, count))
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
            count = len(fresh)
            if self._keeping is not None:
                fresh = self._look_up(fresh)
            self._pulled += count
            self._waiting += fresh
            if fresh:
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
        failed = frame.kind != Kind.RESULT
        if failed and self._each is not None:
            self._each.arrived(task, frame, error, place)
            return
        given = task if failed or self._each is not None else None
        self._put(_Outcome(task.first, task.count, frame, error, place, given))

    def failed(
        self,
        task: Task | None,
        error: BaseException,
        pid: int | None = None,
        place: str = "",
    ) -> None:
        """
        A batch, or with None the whole map, has failed otherwise than by its function.

        Args:
            task: The batch.
            error: Why.
            pid: The process id of its worker, if that is known.
            place: Where it ran; empty if it did not.
        """
        if task is None:
            self._gates.open(partial(setattr, self, "_error", error))
            if self.told is not None:
                self.told()
        elif self._each is not None:
            self._each.failed(task, error, pid, place)
        else:
            self._put(_Outcome(task.first, task.count, None, note_task(error, task, pid, place)))

    def dropped(self, task: Task | None) -> None:
        """A batch, or with None what was not cut yet, was cancelled."""
        self.failed(None, CancelledError())

    def settled(
        self, first: int, count: int, values: list[tuple[int, Any]], failed: set[int]
    ) -> None:
        """
        It is known what became of some items.

        Args:
            first: The index of the first of them.
            count: How many they are.
            values: What is to be yielded, and for which of them; less if some are to be skipped.
            failed: For which of them it is an error.
        """
        if self._keeping is None:
            self._put(_Outcome(first, count, None, None, "", None, [value for _, value in values]))
        else:
            self._keep(first, count, values, failed, None)

    def broke(self, index: int, error: BaseException) -> None:
        """An item has failed for good, which is to be raised at its turn."""
        self._put(_Outcome(index, 1, None, error))

    def again(self, task: Task, index: int, count: int, seconds: float, retrying: Any) -> None:
        """
        Have some items of a batch sent again, unless nobody wants more.

        Args:
            task: The batch.
            index: The first of them in the batch.
            count: How many they are.
            seconds: When.
            retrying: What their batch is to know of earlier tries.
        """
        feed = self.feed
        if feed is None or feed.closed:
            return
        items = task.items[index : index + count]
        id = self.driver.scheduler.next_id()
        new = feed.batch(id, task.first + index, items, count)
        new.retries, new.lost_with, new.retrying = task.retries, task.lost_with, retrying
        with contextlib.suppress(RuntimeError):  # it has ended: then this map was told so
            if seconds:
                self.driver.park(new, seconds)
            else:
                self.driver.accept(new)

    def _keep(
        self,
        first: int,
        count: int,
        values: list[tuple[int, Any]],
        failed: set[int],
        error: BaseException | None,
    ) -> None:
        """Write results, and then hand them to whoever iterates; an error is that of the next."""
        keeping = self._keeping
        assert keeping is not None
        good = [each for each in values if each[0] not in failed]
        trouble = keeping.keep(first, good) if good else None
        if trouble is not None:
            self._store(_Outcome(keeping.numbers[first], 1, None, trouble))
            return
        for start, number, length in keeping.runs(first, count):
            here = [value for index, value in values if start <= index < start + length]
            self._store(_Outcome(number, length, None, None, "", None, here))
        if error is not None:
            self._store(_Outcome(keeping.numbers[first + count], 1, None, error))

    def _put(self, outcome: _Outcome) -> None:
        if self._keeping is None:
            self._store(outcome)
            return
        values, error = open_outcome(outcome, self.driver)
        frame, task = outcome.frame, outcome.task
        if error is not None and self._each is not None and frame is not None:
            assert task is not None
            self._each.unloadable(task, error.__cause__ or error, frame.body, frame.buffers)
            return
        self._keep(outcome.first, len(values), list(enumerate(values)), set(), error)

    def _store(self, outcome: _Outcome) -> None:
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
        items.rest = self.rest
        items.hint = self.hint
        return items

    def hint(self) -> int:
        """Return how many results are still to be taken, for ``operator.length_hint``."""
        if self.feed is None:
            return 0  # nobody wants more, or there are none
        if self._buffersize is not None:
            return self._pulled - self._yielded + length_hint(self._source or (), 0)
        return max(0, self._pulled - self._next) + length_hint(self._current, 0)

    def _batches(self, until: float | None) -> Generator[Iterator[Any], None, None]:
        try:
            while True:
                outcome = self.wait(until)
                if outcome is None:
                    self._started = None  # it refers to us: let both go now
                    return
                opened = self.opened(outcome)
                if opened is None:
                    continue
                values, error = opened
                if outcome.is_tiny(len(values)):
                    each = self._current = iter(values)
                else:
                    # Each value is let go of as it is taken, as the standard library does it.
                    values.reverse()
                    self._current = repeat((), len(values))
                    each = starmap(values.pop, self._current)
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

    def opened(self, outcome: _Outcome) -> tuple[list[Any], BaseException | None] | None:
        """
        Unpickle a batch.

        Returns:
            The results, and what ended it early; None if its items will come one by one, since one
            of them cannot be unpickled.
        """
        values, error = open_outcome(outcome, self.driver)
        if self._each is None:
            return values, error
        if error is None:
            skipped = outcome.items - len(values)
            if skipped:
                self.skip(skipped)
            return values, None
        if outcome.frame is None or outcome.task is None:
            return values, error
        self._next -= outcome.items
        cause = error.__cause__ or error
        self._each.unloadable(outcome.task, cause, outcome.frame.body, outcome.frame.buffers)
        return None

    def skip(self, count: int) -> None:
        """So many items have no results, and let more of the source be read."""
        self._yielded += count
        self._pull()

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

    def rest(self) -> dict[int, Any]:
        """
        Return what else has come, once the iteration has ended by an error.

        Returns:
            Results that were not yielded, by the numbers of their items. Where an item has failed,
            its exception stands in the place of a result. It is returned once.
        """
        found: dict[int, Any] = {}
        for first in sorted(self._arrived.copy()):
            outcome = self._arrived.pop(first, None)
            if outcome is None:
                continue
            values, error = open_outcome(outcome, self.driver)
            found.update(enumerate(values, first))
            if error is not None:
                found[first + len(values)] = error
        return found

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
        errors: str = "raise",
        retry: Any = None,
    ) -> None:
        super().__init__(
            driver,
            items,
            star=star,
            buffersize=buffersize,
            ordered=ordered,
            errors=errors,
            retry=retry,
        )
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
            count = len(items)
            missing = self._look_up(items)
            self._pulled += count
            self._waiting += missing
            if missing:
                self.driver.accept((feed, len(missing)))
            elif self.told is not None:
                self.told()
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
    if outcome.stored is not None:
        try:
            return outcome.stored(), None
        except Exception as exc:
            return [], exc
    if frame is None:
        return outcome.values or [], error
    body: Buffer = frame.body
    buffers = frame.buffers
    task = outcome.task
    failed = frame.kind != Kind.RESULT
    if failed and task is not None:
        error = error or open_failure(frame)
        if len(buffers) < 2:
            return [], note_task(error, task, pid_of(frame), outcome.place)
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
    if failed and task is not None and error is not None and len(values) < outcome.items:
        note_item(error, task, len(values), pid_of(frame), outcome.place)
    return values, error
