"""
Tasks that have failed and are tried again, and the time that they wait for that.

What is to be tried again, and when, is said by a :class:`~remote_executor.retry.Retry`. A task that
waits is *parked* with the scheduler, so it takes no slot and no thread, and is cancelled, killed
and counted as any that has not begun.
"""

from __future__ import annotations

import heapq
import itertools
import time
from typing import TYPE_CHECKING, Any

from remote_executor.client.notes import add_note, attempt_of, short_repr
from remote_executor.core.tasks import TaskState
from remote_executor.errors import PayloadError
from remote_executor.printable import printable
from remote_executor.retry import Retry, RetryState
from remote_executor.task_errors import InitializerFailed, NoServerError, TaskKilled

if TYPE_CHECKING:
    from remote_executor.client.driver import Driver
    from remote_executor.core.scheduler import Scheduler
    from remote_executor.core.tasks import Server, Task
    from remote_executor.net.loop import Loop

__all__ = ["Delays", "Retrying", "try_again"]

FINAL = (TaskKilled, PayloadError, NoServerError, InitializerFailed)
"""What another try would not change, or what was asked for."""

MAX_LINES = 20
"""Earlier errors that the last one tells of."""

MAX_WORDS = 500
"""Characters of each."""


class Retrying:
    """
    How often a task was tried, and whether it is to be tried again.

    Args:
        policy: Says when.
    """

    __slots__ = ("_each", "_lines", "_since", "avoid", "policy", "tries")

    def __init__(self, policy: Retry) -> None:
        self.policy = policy
        self.tries = 0
        """Tries that have failed, those on servers that were lost not among them."""
        self.avoid: Server | None = None
        """Where the last one failed."""
        self._lines: list[str] = []
        self._since = time.monotonic()
        self._each: list[Retrying] = []

    @classmethod
    def of_batch(cls, each: list[Retrying]) -> Retrying:
        """Return what a batch is to know, given what each of its items is; all alike in tries."""
        self = cls(each[0].policy)
        self.tries = max(one.tries for one in each)
        self._each = each
        return self

    def at(self, index: int) -> Retrying:
        """Return what an item of a batch is to know."""
        return self._each[index] if self._each else self

    def failed(
        self, task: Task, error: BaseException, pid: int | None, place: str
    ) -> tuple[float, Retrying] | None:
        """
        Find out whether there is to be another try.

        Args:
            task: What has failed.
            error: Why.
            pid: The process id of its worker, if that is known.
            place: Where it ran.

        Returns:
            After how many seconds, and what the next try is to know; None if it has failed for
            good. Then the error has the earlier ones as notes.
        """
        seconds = None
        if not isinstance(error, FINAL):
            since = time.monotonic() - self._since if self.tries else 0.0
            try:
                seconds = self.policy.seconds(RetryState(error, self.tries + 1, since))
            except Exception as exc:  # of the user's condition or wait
                add_note(error, f"it was not tried again, for {self.policy!r} has raised {exc!r}")
        if seconds is None:
            for line in self._lines:
                add_note(error, line)
            return None
        following = Retrying(self.policy)
        following.tries = self.tries + 1
        if self.tries:
            following._since = self._since
        following._lines = [*self._lines, _line(task, error, pid, place)][-MAX_LINES:]
        return seconds, following


def _line(task: Task, error: BaseException, pid: int | None, place: str) -> str:
    try:
        words = str(error)
    except Exception as exc:
        words = f"<str() of it raises {type(exc).__qualname__}>"
    worker = f" in worker {pid}" if pid else ""
    what = f"{type(error).__qualname__}: {printable(words, MAX_WORDS)}"
    return f"attempt {attempt_of(task)}{worker} on {place or short_repr(None)} failed: {what}"


def try_again(
    driver: Driver, task: Task, error: BaseException, pid: int | None, place: str
) -> bool:
    """
    Have a single task tried again, if that is wanted. Not to be called with the mutex held.

    Args:
        driver: Runs it.
        task: It has failed, and is settled.
        error: Why.
        pid: The process id of its worker, if that is known.
        place: Where it ran.

    Returns:
        Whether it will be; otherwise its future is to have the error.
    """
    if task.sink.is_settled():
        return False
    following = task.retrying.failed(task, error, pid, place)
    if following is None:
        return False
    seconds, task.retrying = following
    task.retrying.avoid = driver.server_at(place)
    task.segment = None
    driver.park(task, seconds)
    return True


class Delays:
    """
    Parked tasks whose time comes. For the I/O thread.

    Args:
        loop: Knows the time.
        scheduler: Has the tasks.
    """

    def __init__(self, loop: Loop, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._heap: list[tuple[float, int, Task]] = []
        self._count = itertools.count()
        self._timer: Any = loop.timer(self._due)

    def __len__(self) -> int:
        return len(self._heap)

    def park(self, task: Task, seconds: float | None) -> None:
        """
        Park a task.

        Args:
            task: Which.
            seconds: For how long; None for as long as nobody unparks it.
        """
        self._scheduler.park(task)
        if seconds is None:
            return
        if not seconds:
            self._scheduler.unpark(task)
            return
        heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._count), task))
        self._timer.at(self._heap[0][0])

    def _due(self, now: float) -> None:
        heap = self._heap
        while heap and (heap[0][0] <= now or heap[0][2].state is not TaskState.QUEUED):
            self._scheduler.unpark(heapq.heappop(heap)[2])
        if heap:
            self._timer.at(heap[0][0])
