"""
Maps that look at each item: one that fails is tried again, or does not end the others.

::

    a batch comes back            values 0 1 _ 3, item 2 failed
    a part is settled             0 1   3           may be taken when their turn comes
    item 2                        is sent again, alone: a batch of one, in a while
                                  or has failed for good: raised, returned or skipped at its turn

What is settled is handed to the map in pieces that have no gaps.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, Protocol

from remote_executor.client.notes import note_item, note_task
from remote_executor.client.refusals import anew
from remote_executor.client.results import open_failure, pid_of, unloadable
from remote_executor.client.retry import Retrying
from remote_executor.errors import PayloadError
from remote_executor.payload.failures import decode_failure
from remote_executor.payload.pickles import load
from remote_executor.wire.messages import EACH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_executor.client.driver import Driver
    from remote_executor.core.tasks import Task
    from remote_executor.retry import Retry
    from remote_executor.wire.frames import Buffer, Frame

__all__ = ["Each"]


class Items(Protocol):
    """A map, as :class:`Each` tells it what becomes of its items."""

    def settled(
        self, first: int, count: int, values: list[tuple[int, Any]], failed: set[int]
    ) -> None:
        """It is known what became of some items."""

    def broke(self, index: int, error: BaseException) -> None:
        """An item has failed for good."""

    def again(self, task: Task, index: int, count: int, seconds: float, retrying: Any) -> None:
        """Have some items of a batch sent again."""


class Each:
    """
    What becomes of the items of batches that have not gone well. For the I/O thread, without mutex.

    Args:
        sink: The map.
        driver: Runs it.
        errors: One of :data:`~remote_executor.options.ERRORS`.
        retry: When items are tried again; None for never.
    """

    def __init__(self, sink: Items, driver: Driver, errors: str, retry: Retry | None) -> None:
        self._sink = sink
        self._driver = driver
        self._errors = errors
        self._first = None if retry is None else Retrying(retry)

    def arrived(self, task: Task, frame: Frame, error: BaseException | None, place: str) -> None:
        """
        A batch has come back, and not all of it went well.

        Args:
            task: The batch.
            frame: The FAILURE.
            error: What to say instead of what the frame says.
            place: Where it ran.
        """
        if not frame.flags & EACH:
            self.failed(task, error or open_failure(frame), pid_of(frame), place)
            return
        failures = {
            index: decode_failure(summary, pickled)
            for index, summary, pickled in pickle.loads(frame.buffers[0])
        }
        body, buffers = frame.buffers[1], frame.buffers[2:]
        try:
            values = load(body, buffers)
        except Exception as exc:
            self.unloadable(task, exc, body, buffers, failures)
            return
        good = iter(values)
        # The worker does not come to what follows an item that cannot be unpickled.
        reached = len(values) + len(failures)
        found = {i: next(good) for i in range(reached) if i not in failures}
        self._sort(task, found, failures, pid_of(frame), place, singly=False)

    def failed(self, task: Task, error: BaseException, pid: int | None, place: str) -> None:
        """
        A batch has failed as a whole.

        Args:
            task: The batch.
            error: Why.
            pid: The process id of its worker, if that is known.
            place: Where it ran; empty if it did not.
        """
        if isinstance(error, PayloadError) and task.count > 1 and not place:
            self._sort(task, {}, {}, pid, place)  # one of them cannot be pickled: each by itself
            return
        errors = {0: error}
        errors.update((index, anew(error)) for index in range(1, task.count))
        self._sort(task, {}, errors, pid, place)

    def unloadable(
        self,
        task: Task,
        error: BaseException,
        body: Buffer,
        buffers: Sequence[Buffer],
        failures: dict[int, BaseException] | None = None,
    ) -> None:
        """
        A batch has come back, and the value of an item cannot be unpickled here.

        The others of a larger batch are run once more, each by itself: what came is one pickle.

        Args:
            task: The batch.
            error: What unpickling has raised.
            body: The pickle of the values.
            buffers: Its buffers.
            failures: What is known of items that have failed.
        """
        from remote_executor.payload.salvage import load_before

        failures = failures or {}
        good = (index for index in range(task.count) if index not in failures)
        found = dict(zip(good, load_before(body, buffers), strict=False))
        index = next(each for each in range(task.count) if each not in {**found, **failures})
        words = f"the result for item {task.first + index} of a map"
        known = {each: failures[each] for each in failures if each < index}
        known[index] = unloadable(error, body, self._driver, words)
        self._sort(task, found, known, None, "", again=False)

    # -------------------------------------------------------------------- inside

    def _sort(
        self,
        task: Task,
        found: dict[int, Any],
        failures: dict[int, BaseException],
        pid: int | None,
        place: str,
        again: bool = True,
        singly: bool = True,
    ) -> None:
        """
        Settle what is known of the items of a batch, and send the others again.

        Args:
            task: The batch.
            found: What has come, by the index of the item in the batch.
            failures: What has been raised.
            pid: The process id of its worker, if that is known.
            place: Where it ran; empty if it did not.
            again: Whether what has failed may be tried again.
            singly: Whether what is sent again is to be a batch of one each, since nobody knows
                which item is to blame.
        """
        retrying = task.retrying or self._first
        piece: list[tuple[int, Any]] = []
        failed: set[int] = set()
        start = index = 0
        later: list[tuple[int, float, Retrying | None]] = []

        def settle() -> None:
            if index > start:
                values = [(at - start, value) for at, value in piece]
                errors = {at - start for at in failed}
                self._sink.settled(task.first + start, index - start, values, errors)
            piece.clear()
            failed.clear()

        for index in range(task.count):
            if index in found:
                piece.append((index, found[index]))
                continue
            error = failures.get(index)
            following = None
            if error is not None and retrying is not None and again:
                following = retrying.at(index).failed(task, error, pid, place)
            if error is None or following is not None:
                settle()
                start = index + 1
                known = None if task.retrying is None else task.retrying.at(index)
                later.append((index, *(following or (0.0, known))))
                continue
            if singly and not found and task.count == len(failures):
                note_task(error, task, pid, place)  # one of them is to blame
            else:
                note_item(error, task, index, pid, place)
            if self._errors == "raise":
                settle()
                start = index + 1
                self._sink.broke(task.first + index, error)
            elif self._errors == "return":
                piece.append((index, error))
                failed.add(index)
        index = task.count
        settle()
        self._send_again(task, later, singly, place)

    def _send_again(
        self,
        task: Task,
        later: list[tuple[int, float, Retrying | None]],
        singly: bool,
        place: str,
    ) -> None:
        """Send items again: neighbours as a batch, unless each is to be alone."""
        at = 0
        while at < len(later):
            first, seconds, _ = later[at]
            count = 1
            while not singly and at + count < len(later) and later[at + count][0] == first + count:
                count += 1
            tries = [each for _, _, each in later[at : at + count] if each is not None]
            at += count
            retrying = None
            if len(tries) == count:
                retrying = tries[0] if count == 1 else Retrying.of_batch(tries)
                retrying.avoid = self._driver.server_at(place)
            self._sink.again(task, first, count, seconds, retrying)
