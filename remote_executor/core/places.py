"""Which indices in the farm the workers of each server have."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Places"]

K = TypeVar("K")


class Places(Generic[K]):
    """
    Give each server a range of indices of its own: unique over the farm, from 0, without gaps.

    A server keeps its range as long as it belongs to the farm, also while it is away: what a worker
    has named by its index is found again by the one that takes its place. A range that a server has
    left is given to the next that it is large enough for.
    """

    def __init__(self) -> None:
        self._ranges: dict[K, range] = {}

    def allot(self, server: K, count: int) -> int:
        """
        Return the index of a server's first worker.

        Args:
            server: Which.
            count: How many workers it may have.
        """
        mine = self._ranges.pop(server, None)
        if mine is None or len(mine) < count:
            start = 0
            for other in sorted(self._ranges.values(), key=_start):
                if other.start - start >= count:
                    break
                start = max(start, other.stop)
            mine = range(start, start + count)
        self._ranges[server] = mine
        return mine.start

    def free(self, server: K) -> None:
        """A server has left the farm."""
        self._ranges.pop(server, None)


def _start(indices: range) -> int:
    return indices.start
