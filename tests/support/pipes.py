"""Token pipes in memory, for tests of the pool."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_executor.core.pool import PoolWorker

__all__ = ["FakePipes"]


class FakePipes:
    """
    The token pipes of workers that a test plays itself.

    Attributes:
        pipes: What each worker may still read.
        claimed: What each worker has read and not finished: one task at most.
    """

    def __init__(self) -> None:
        self.pipes: dict[PoolWorker, deque[int]] = {}
        self.claimed: dict[PoolWorker, int] = {}

    def give(self, worker: PoolWorker, ids: Sequence[int]) -> None:
        """Do as the supervisor does with an action."""
        self.pipes.setdefault(worker, deque()).extend(ids)

    def claim(self, worker: PoolWorker) -> int | None:
        """Play the worker: begin the next task, if there is one and none has begun."""
        pipe = self.pipes.get(worker)
        if worker in self.claimed or not pipe:
            return None
        self.claimed[worker] = pipe.popleft()
        return self.claimed[worker]

    def reclaim(self, worker: PoolWorker) -> list[int]:
        """See :class:`remote_executor.core.pool.Tokens`."""
        pipe = self.pipes.get(worker, deque())
        ids = list(pipe)
        pipe.clear()
        return ids

    def restore(self, worker: PoolWorker, ids: Sequence[int]) -> None:
        """See :class:`remote_executor.core.pool.Tokens`."""
        assert not self.pipes.get(worker)
        self.pipes.setdefault(worker, deque()).extend(ids)

    def unread(self, worker: PoolWorker) -> int:
        """See :class:`remote_executor.core.pool.Tokens`."""
        return len(self.pipes.get(worker, ()))
