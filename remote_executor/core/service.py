"""
What a server decides about its sessions, apart from which worker runs what.

As yet: what follows when a session's workers do not start. ::

    GOING --failed--> FAILING --ready--> GOING
      |                  |
      |                  +-- the last of MAX_TRIES failed, and the session has no other worker
      |                  v
      +-- initializer -> GIVEN_UP      the client is told, and takes its tasks elsewhere

A limit of processes, descriptors or memory is often hit for a moment only, by somebody else's
programs. So the next worker is tried after a pause, which doubles; and as long as the session has a
worker that lives, its tasks are done by that one, and there is no last try.
"""

from __future__ import annotations

import enum
import errno
import os
import signal
from typing import NamedTuple

__all__ = [
    "FailedStart",
    "GiveUp",
    "Pause",
    "StartStage",
    "StartState",
    "Starts",
    "errno_words",
]

FIRST_PAUSE = 0.1
"""Seconds from the first failed start to the next try; doubled each time."""

LAST_PAUSE = 2.0
"""The longest of these pauses in seconds."""

MAX_TRIES = 8
"""So many starts in a row may fail, in some seven seconds."""

MAX_KILLED = 20
"""The same where workers are killed by SIGKILL: whoever does that need not do it to the next."""

CURES = {
    errno.EAGAIN: "raise the limit of processes there (ulimit -u, or pids.max of its cgroup)",
    errno.EMFILE: "raise the limit of open files there (ulimit -n)",
    errno.ENFILE: "too many files are open on that host (fs.file-max)",
    errno.ENOMEM: "that host has no memory left for one more process",
    errno.ENOSPC: "that host has no room left (inotify or epoll watches, or a full disk)",
}


class StartState(enum.Enum):
    """How the starts of a session's workers go."""

    GOING = "going"
    FAILING = "failing"
    GIVEN_UP = "given up"


GOING = StartState.GOING
FAILING = StartState.FAILING
GIVEN_UP = StartState.GIVEN_UP

MOVES = {
    GOING: (GOING, FAILING, GIVEN_UP),
    FAILING: (GOING, FAILING, GIVEN_UP),
    GIVEN_UP: (),
}


class StartStage(enum.Enum):
    """How far a worker came that did not start."""

    MADE = "made"
    """No process could be made: the system refused a descriptor, memory or a process."""
    PREPARED = "prepared"
    """The process ended before the user's initializer was called."""
    INITIALIZED = "initialized"
    """The process ended, and may have been in the initializer."""


class FailedStart(NamedTuple):
    """
    A worker that did not start.

    Attributes:
        stage: How far it came.
        reason: Why, in words.
        errno: The system's number for the reason, if it has given one.
        status: The exit code of its process, negative for a signal; None if there was none.
    """

    stage: StartStage
    reason: str
    errno: int | None = None
    status: int | None = None


class Pause(NamedTuple):
    """Start no worker for this session before ``until``, in monotonic seconds."""

    until: float


class GiveUp(NamedTuple):
    """
    Tell the client that this server has no workers for it.

    Attributes:
        reason: Why, in words that name what failed and what to do.
        initializer: Whether the user's initializer is to blame.
    """

    reason: str
    initializer: bool


class Starts:
    """
    Decide what follows when workers of a session do not start.

    Call :meth:`ready` when one has started, :meth:`failed` when one has not.
    """

    __slots__ = ("_began", "_failures", "_until", "state")

    def __init__(self) -> None:
        self.state = GOING
        self._failures = 0
        self._began = 0.0
        """When the first start failed since the last that went well."""
        self._until = 0.0
        """When the last pause ends."""

    def __repr__(self) -> str:
        return f"<Starts {self.state.value} failures={self._failures}>"

    def ready(self) -> None:
        """Take note that a worker has started."""
        if self.state is not GIVEN_UP:
            self._failures = 0
            self._move(GOING)

    def failed(
        self, failure: FailedStart, initializer: bool, others: int, now: float
    ) -> Pause | GiveUp | None:
        """
        Decide what follows from a worker that did not start.

        Args:
            failure: What is known of it.
            initializer: Whether the session has an initializer.
            others: How many workers of the session live.
            now: Monotonic time in seconds.

        Returns:
            What to do; None once it was given up.
        """
        if self.state is GIVEN_UP:
            return None
        if initializer and failure.stage is StartStage.INITIALIZED:
            self._failures += 1
            self._move(GIVEN_UP)
            return GiveUp(failure.reason, initializer=True)
        if not self._failures:
            self._began = now
        elif now < self._until:
            # Its start was begun before the pause was: many at once are one failure.
            return Pause(self._until)
        self._failures += 1
        killed = failure.status == -signal.SIGKILL
        if not others and self._failures >= (MAX_KILLED if killed else MAX_TRIES):
            self._move(GIVEN_UP)
            return GiveUp(self._words(failure, now), initializer=False)
        self._move(FAILING)
        # 2 ** 1000 and more would be no float any more: a session may fail for weeks.
        doublings = min(self._failures - 1, 16)
        self._until = now + min(LAST_PAUSE, FIRST_PAUSE * 2**doublings)
        return Pause(self._until)

    def _words(self, failure: FailedStart, now: float) -> str:
        words = f"{failure.reason}, {self._failures} times in {now - self._began:.1f} s"
        cure = CURES.get(failure.errno or 0)
        return f"{words}; {cure}" if cure else words

    def _move(self, state: StartState) -> None:
        """Move to another state: the one place where it changes."""
        assert state in MOVES[self.state], f"{self!r} cannot become {state.value}"
        self.state = state

    def check(self) -> None:
        """State what must always hold."""
        assert (self.state is FAILING) <= (self._failures > 0)
        assert (self.state is GOING) <= (self._failures == 0)


def errno_words(number: int | None) -> str:
    """Return the name and the words of a system's error number, such as "EMFILE: ..."."""
    if number is None:
        return "an unknown error"
    return f"{errno.errorcode.get(number, number)}: {os.strerror(number)}"
