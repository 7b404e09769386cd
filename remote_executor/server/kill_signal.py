"""
How a task is told to stop: an exception in the main thread of its worker.

The signal is SIGURG. It does nothing to a process that has no handler for it, such as a program
that a task has started, and hardly anybody else uses it. It also ends a system call in which the
task waits. C code that does not return to Python is not reached; then the process is killed once
the grace is over.
"""

from __future__ import annotations

import signal
from typing import Any

__all__ = ["KILL_SIGNAL", "KillSignal", "TaskKilled"]

KILL_SIGNAL = signal.SIGURG

MOST_CAUSES = 100
"""Longer chains of exceptions are not followed."""


class TaskKilled(BaseException):
    """
    The task is to stop: somebody has killed it, or its time is over.

    Raised in its worker, in the main thread, where the task happens to be. Let it pass:
    ``finally``, ``with`` and ``except BaseException: ...; raise`` have until the end of the grace
    to put things in order. It is no ``Exception``, so that handlers for errors do not take it for
    one. Whoever waits for the future gets ``remote_executor.TaskKilled`` or ``TaskTimeout``.
    """


class KillSignal:
    """
    The handler of the signal.

    Attributes:
        open: Whether a task's own code runs, in which it may be raised.
        raised: Whether it was raised in this worker. It is raised once, so that it does not disturb
            what puts things in order.
    """

    __slots__ = ("open", "raised")

    def __init__(self) -> None:
        self.open = False
        self.raised = False

    def install(self) -> None:
        """Handle the signal from now on. For the main thread."""
        signal.signal(KILL_SIGNAL, self.handle)

    def handle(self, number: int, frame: Any) -> None:
        """
        Raise TaskKilled if a task's code runs. Otherwise the signal comes again soon.

        Raises:
            TaskKilled: In the frame that was interrupted.
        """
        if self.open and not self.raised:
            self.raised = True
            raise TaskKilled("the task was killed, or its time is over")

    def is_cause_of(self, error: BaseException) -> bool:
        """Return whether a task has failed since it was told to stop, and for no other reason."""
        if not self.raised:
            return False
        found: BaseException | None = error
        for _ in range(MOST_CAUSES):
            if found is None:
                return False
            if isinstance(found, TaskKilled):
                return True
            found = found.__cause__ or found.__context__
        return False
