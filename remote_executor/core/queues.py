"""Queues of work: by priority, and fair among those who share a priority."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FairQueue"]

T = TypeVar("T")


class FairQueue(Generic[T]):
    """
    A queue of entries, each in the lane of whoever put it there.

    The highest priority goes first. Within one priority the lanes take turns, and within a lane
    entries leave in the order they came. All operations take constant time in the number of
    entries.
    """

    __slots__ = ("_levels", "_only", "count")

    def __init__(self) -> None:
        # Lanes by priority, the highest first, and within it the lane whose turn it is. Lanes that
        # run empty are removed, but for one that is alone: it will be wanted again.
        self._levels: dict[int, dict[object, deque[T]]] = {}
        self._only: deque[T] | None = None
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[T]:
        """Walk over all entries, lane by lane: not in the order in which they leave."""
        for level in self._levels.values():
            for entries in level.values():
                yield from entries

    def _lane(self, priority: int, lane: object) -> deque[T]:
        level = self._levels.get(priority)
        entries = None if level is None else level.get(lane)
        if entries is None:
            if not self.count:
                self._levels.clear()
                level = None
            if level is None:
                level = self._levels[priority] = {}
                self._levels = dict(sorted(self._levels.items(), reverse=True))
            entries = level[lane] = deque()
            self._only = entries if self.count == 0 else None
        return entries

    def push(self, entry: T, priority: int = 0, lane: object = None) -> None:
        """Append an entry to its lane."""
        self._lane(priority, lane).append(entry)
        self.count += 1

    def push_front(self, entry: T, priority: int = 0, lane: object = None) -> None:
        """Put an entry back at the head of its lane: it was here before."""
        self._lane(priority, lane).appendleft(entry)
        self.count += 1

    def highest(self) -> int | None:
        """Return the highest priority of an entry; None if there is none."""
        if not self.count:
            return None
        return next(each for each, level in self._levels.items() if any(level.values()))

    def pop(self) -> T:
        """
        Remove and return the entry whose turn it is.

        Raises:
            IndexError: If the queue is empty.
        """
        if self._only:
            self.count -= 1
            return self._only.popleft()
        if not self.count:
            raise IndexError("the queue is empty")
        priority, level = next(iter(self._levels.items()))
        lane, entries = next(iter(level.items()))
        entry = entries.popleft()
        self.count -= 1
        del level[lane]
        if entries:
            level[lane] = entries  # to the end: the next lane's turn
        elif not level:
            del self._levels[priority]
        return entry
