"""
When "all servers" is settled, and who is missing then.

Right after a farm was made none of its servers has answered, and one that is down never will. So
whoever wants all of them waits until each address has answered or failed once, and no longer than
the farm's ``connect_timeout``, if it has one. ::

    UNHEARD --> AWAY        its first try has failed; it is tried again
       |          |
       +----------+--> UP        it serves
       +----------+--> LEFT_OUT  it is final: no task will ever run there
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Presence", "RollCall", "Standing"]


class Presence(enum.Enum):
    """How an address stands."""

    UNHEARD = "it has not answered yet"
    AWAY = "its last try has failed"
    UP = "it serves"
    LEFT_OUT = "it is left out for good"


class Standing(NamedTuple):
    """
    One address at this moment.

    Attributes:
        name: The address.
        presence: How it stands.
        since: Since when it does not serve, in monotonic seconds.
        reason: Why it does not, in words.
    """

    name: str
    presence: Presence
    since: float = 0.0
    reason: str = ""


class RollCall:
    """
    Decide whether everybody who can answer has answered.

    Args:
        patience: Seconds that an address has to answer: the farm's ``connect_timeout``. None if it
            was given no limit; then one failed try is an answer.
        obstinate: Whether an address that has failed is waited for as long as there is patience,
            without end if that is None. Otherwise one failed try is an answer, whatever the
            patience.
    """

    def __init__(self, patience: float | None, *, obstinate: bool = False) -> None:
        self.patience = patience
        self.obstinate = obstinate

    def is_settled(self, standings: Sequence[Standing], now: float) -> bool:
        """
        Return whether there is nobody left to wait for.

        While no server serves there is nothing to be done with the rest, so that is waited for
        as tasks wait; it is the farm that gives up then.

        Args:
            standings: All addresses.
            now: Monotonic time in seconds.
        """
        if not any(each.presence is Presence.UP for each in standings):
            return False
        return not any(self._is_awaited(each, now) for each in standings)

    def _is_awaited(self, standing: Standing, now: float) -> bool:
        if standing.presence in (Presence.UP, Presence.LEFT_OUT):
            return False
        if self.patience is not None and now >= standing.since + self.patience:
            return False
        return standing.presence is Presence.UNHEARD or self.obstinate

    def deadline(self, standings: Sequence[Standing], now: float) -> float | None:
        """Return when to look again even if nothing happens, in monotonic seconds."""
        if self.patience is None:
            return None
        ends = [each.since + self.patience for each in standings if self._is_awaited(each, now)]
        return min(ends, default=None)

    @staticmethod
    def missing(standings: Sequence[Standing]) -> dict[str, str]:
        """Return the addresses that do not serve, and why, in order."""
        return {each.name: each.reason for each in standings if each.presence is not Presence.UP}

    @staticmethod
    def words(missing: Mapping[str, str]) -> str:
        """Say who is missing and why."""
        return "; ".join(f"{name}: {reason}" for name, reason in missing.items())
