"""Which of two tasks begins first, if they were given to two workers that came free together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from remote_executor.core.pool import WorkerState

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.core.pool import Pool, PoolWorker

__all__ = ["ORDER_SECONDS", "BeginOrder"]

ORDER_SECONDS = 0.03
"""For so long at most a task waits for one of a higher priority to begin on another worker. As a
rule that takes 50 µs; where there is more to do than there are cores, a worker may get none for
long."""

ORDER_PERIOD = 0.00002
MOST_RECENT = 64


class BeginOrder:
    """
    Hold back a task until those of a higher priority have begun that were given a moment ago.

    Only who uses priorities pays for it.

    Args:
        pool: Knows priorities, and what workers have.
        unread: How many tasks a worker has not begun to read.
        clock: Monotonic seconds.
        sleep: Waits for so many seconds.
    """

    __slots__ = ("_clock", "_pool", "_recent", "_sleep", "_unread")

    def __init__(
        self,
        pool: Pool,
        unread: Callable[[PoolWorker], int],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._pool = pool
        self._unread = unread
        self._clock = clock
        self._sleep = sleep
        self._recent: list[tuple[PoolWorker, float]] = []

    def wait_for_turn(self, worker: PoolWorker, id: int) -> None:
        """
        Return once it is a task's turn to begin, and take note that it does.

        Args:
            worker: Who is to be given it.
            id: The first task that it is to be given.
        """
        now = self._clock()
        recent = [(each, when) for each, when in self._recent if now - when < ORDER_SECONDS]
        for other, when in recent:
            while self._is_before(other, worker, id) and self._clock() - when < ORDER_SECONDS:
                self._sleep(ORDER_PERIOD)
        recent.append((worker, self._clock()))
        self._recent = recent[-MOST_RECENT:]

    def _is_before(self, other: PoolWorker, worker: PoolWorker, id: int) -> bool:
        if other.state is not WorkerState.BUSY or not self._pool.precedes(worker, id, other):
            return False
        return self._unread(other) >= len(other.assigned)
