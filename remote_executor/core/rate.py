"""
How often something may be said.

A few times at once is fine; whoever makes it happen a thousand times a second, such as one who
guesses at a secret, must not fill the disk with the log of it. What was left out is counted, and
the count is said.
"""

from __future__ import annotations

__all__ = ["RateLimit"]


class RateLimit:
    """
    Lets so many through in a period, and counts the rest.

    Args:
        most: How many in one period.
        period: Seconds.
    """

    __slots__ = ("_left_out", "_most", "_period", "_said", "_until")

    def __init__(self, most: int, period: float) -> None:
        self._most = most
        self._period = period
        self._said = 0
        self._left_out = 0
        self._until = float("-inf")

    def __repr__(self) -> str:
        return f"<RateLimit {self._said} of {self._most} said, {self._left_out} left out>"

    def admits(self, now: float) -> bool:
        """
        Tell whether one more may be said. Ask :meth:`take_left_out` before it is.

        Args:
            now: Monotonic time in seconds.
        """
        if now >= self._until:
            self._until = now + self._period
            self._said = 0
        if self._said < self._most:
            self._said += 1
            return True
        self._left_out += 1
        return False

    def deadline(self) -> float | None:
        """Return when the count of those left out should be said; None if there are none."""
        return self._until if self._left_out else None

    def take_left_out(self) -> int:
        """Return how many were left out since this was last called."""
        count, self._left_out = self._left_out, 0
        return count
