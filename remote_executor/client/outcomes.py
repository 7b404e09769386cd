"""
Where tasks fail: counts for each server, and one warning.

A server where every task raises (a package is missing, a disk is full) is always the first to be
free again, so it gets more tasks than all others. It is tried no less for that, since failures may
come of the data; but the user is told.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from remote_executor.client.peer import Peer

__all__ = ["Outcomes"]

log = logging.getLogger("remote_executor.client")

LEAST_TASKS = 10
"""So many must have failed on a server, and been done elsewhere, before anything is said."""

LEAST_SHARE = 0.5
"""At least this share of its tasks must have failed."""

TIMES_OTHERS = 5.0
"""... and so many times the share that fails elsewhere."""


class Outcomes:
    """Compares how tasks end on the servers of a farm."""

    def __init__(self) -> None:
        self.suspects: dict[Peer, None] = {}
        """Servers where many tasks have failed; :meth:`look` finds out whether that is odd."""
        self._warned: set[str] = set()

    def failed(self, peers: Collection[Peer], peer: Peer, count: int) -> None:
        """
        Count tasks that have failed on a server.

        Args:
            peers: All servers of the farm.
            peer: The server.
            count: How many.
        """
        peer.failed += count
        if peer.failed >= LEAST_TASKS and len(peers) > 1 and peer.name not in self._warned:
            self.suspects[peer] = None
            self.look(peers)

    def look(self, peers: Collection[Peer]) -> None:
        """Warn, once each, of servers whose tasks fail as others' do not."""
        done = sum(peer.done for peer in peers)
        failed = sum(peer.failed for peer in peers)
        for peer in list(self.suspects):
            if peer not in peers:
                del self.suspects[peer]
                continue
            here = peer.done + peer.failed
            elsewhere = done + failed - here
            share = peer.failed / here
            if elsewhere < LEAST_TASKS or share < LEAST_SHARE:
                continue
            others = (failed - peer.failed) / elsewhere
            if share >= TIMES_OTHERS * others:
                del self.suspects[peer]
                self._warned.add(peer.name)
                log.warning(
                    "! %d of %d tasks have failed on %s, and %d of %d on the other servers: "
                    "is something amiss there?",
                    peer.failed,
                    here,
                    peer.place,
                    failed - peer.failed,
                    elsewhere,
                )
