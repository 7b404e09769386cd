"""Who of a farm's servers is there: what "all" means to ``broadcast`` and ``wait_for_workers``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from remote_executor.client.driver import AFTER_SHUTDOWN
from remote_executor.client.peer import PeerState
from remote_executor.client.refusals import anew
from remote_executor.core.roll_call import Presence, RollCall, Standing

if TYPE_CHECKING:
    from remote_executor.client.driver import Driver

__all__ = ["COUNT_SECONDS", "count_slots", "standings", "wait_for_all"]

COUNT_SECONDS = 3.0
"""For so long who asks for the number of workers waits for an address that says nothing."""


def standings(driver: Driver, now: float) -> list[Standing]:
    """Return how each address stands. Any thread may ask."""
    found = []
    for peer, server in driver.peers():
        if server.up:  # also while its link is cut: its session lives, and takes tasks
            presence = Presence.UP
        elif peer.state in (PeerState.REFUSED, PeerState.CLOSED):
            presence = Presence.LEFT_OUT
        elif peer.core.failures:
            presence = Presence.AWAY
        else:
            presence = Presence.UNHEARD
        since = now if peer.away_since is None else peer.away_since
        found.append(Standing(peer.name, presence, since, peer.words))
    return found


def wait_for_all(driver: Driver, call: RollCall, until: float | None = None) -> list[Standing]:
    """
    Wait until all addresses have answered, as far as the roll call wants it.

    Args:
        driver: Whose servers.
        call: Says when it is settled.
        until: Monotonic seconds at which to give up; None for never.

    Returns:
        How they stand then.

    Raises:
        BrokenExecutor: If no server ever will serve.
        RuntimeError: After a shutdown, or in a done-callback that would have to wait.
    """

    def settled() -> bool:
        now = time.monotonic()
        return call.is_settled(standings(driver, now), now)

    while True:
        now = time.monotonic()
        found = standings(driver, now)
        if call.is_settled(found, now):
            return found
        if driver.broken is not None:
            raise anew(driver.broken)
        if driver.closed:
            raise RuntimeError(AFTER_SHUTDOWN)
        if until is not None and now >= until:
            return found
        ends = [each for each in (call.deadline(found, now), until) if each is not None]
        driver.wait_for_change(settled, min(ends, default=None))


def count_slots(driver: Driver) -> int:
    """
    Return how many tasks the farm runs at a time, once all have answered who do so soon.

    It is 0 if none has.

    Raises:
        BrokenExecutor: If no server ever will serve.
        RuntimeError: After a shutdown, or in a done-callback that would have to wait.
    """
    now = time.monotonic()
    latest = max((each.since for each in standings(driver, now)), default=now)
    wait_for_all(driver, RollCall(COUNT_SECONDS), latest + COUNT_SECONDS)
    return driver.scheduler.slots()
