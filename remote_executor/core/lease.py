"""
How long a server lives that was launched for one client.

::

    launched --attached--> HELD --cut--> ALONE --attached--> HELD
                             |             |
                             |             +-- the grace is over
                             |             +-- it was no silence but an end, and the channel over
                             |                 which the server was launched has ended, too: the
                             |                 client is dead
                             +-- goodbye: the owner ends it

A network that is cut says nothing at all: both are then found out by silence, and the client may be
back within the grace. A client that dies closes everything at once.
"""

from __future__ import annotations

__all__ = ["LINGER_SECONDS", "QUIET_SECONDS", "Lease"]

LINGER_SECONDS = 3.0
"""After the end of link and channel: a client that lives is back by then."""

QUIET_SECONDS = 10.0
"""A link on which nothing came for so long had been cut before it was closed."""

FIRST_SECONDS = 60.0
"""How long the client may take for its first link, at least."""


class Lease:
    """
    Decide when a launched server is to end.

    Tell it what happens; it is over once :meth:`deadline` has come.

    Args:
        now: Monotonic time in seconds.
        grace: Seconds for which it waits for a client that cannot reach it.

    Attributes:
        grace: As given.
    """

    def __init__(self, now: float, grace: float) -> None:
        self.grace = grace
        self._held = False
        self._abrupt = True
        """Whether the last link was closed rather than silent."""
        self._channel = True
        self._over_at: float | None = now + max(grace, FIRST_SECONDS)

    def attached(self) -> None:
        """The client has a link."""
        self._held = True
        self._over_at = None

    def cut(self, now: float, heard: float, closed: bool) -> None:
        """
        The client's link is gone, and it had not said goodbye.

        Args:
            now: Monotonic time in seconds.
            heard: When the last byte came.
            closed: Whether the stream was closed or broken; otherwise it was silent.
        """
        self._held = False
        self._abrupt = closed and now - heard < QUIET_SECONDS
        self._over_at = heard + self.grace
        self._hasten(now)

    def hung_up(self, now: float) -> None:
        """The channel over which the server was launched has ended."""
        self._channel = False
        self._hasten(now)

    def _hasten(self, now: float) -> None:
        if self._abrupt and not self._held and not self._channel:
            assert self._over_at is not None
            self._over_at = min(self._over_at, now + LINGER_SECONDS)

    def deadline(self) -> float | None:
        """When the server is to end if nothing happens; None while the client is there."""
        return self._over_at
