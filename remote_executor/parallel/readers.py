"""
Who could receive from a channel: to tell a wait for room that may end from one that cannot.

A channel that is full gets room when somebody receives. The thread that waits for room cannot, so
some other one must. None of them can be asked what it will do; what can be known is which threads
there are, which of them have received before, and which are older than the channel.
"""

from __future__ import annotations

import threading
from _thread import get_ident
from typing import TYPE_CHECKING, Any, final

from remote_executor.parallel.engines import works_for

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["DOUBTFUL_SECONDS", "HOPELESS_SECONDS", "Readers"]

HOPELESS_SECONDS = 0.5
"""How long to wait where no other thread is left that could receive: a done-callback may still."""

DOUBTFUL_SECONDS = 5.0
"""How long to wait where all other threads are older than the channel and have never used it."""

_active: dict[int, threading.Thread] = vars(threading)["_active"]
"""All threads. ``threading.enumerate`` takes a lock, which a signal could leave taken."""


def _threads() -> list[threading.Thread]:
    return list(_active.values())


def _is_service(thread: Any) -> bool:
    """Return whether it is a library's own thread, which runs nothing of the user's for long."""
    runs = getattr(getattr(thread, "_target", None), "__module__", None) or ""
    made_by = type(thread).__module__
    return (
        thread.name.startswith("remote_executor")
        or thread.name == "QueueFeederThread"
        or runs.startswith("remote_executor.")
        or made_by.startswith(("remote_executor.", "concurrent.futures.", "paramiko."))
    )


@final
class Readers:
    """
    The threads that have to do with one channel.

    Args:
        executor: Where the channel's tasks run.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._older = frozenset(_threads())
        self._known: set[threading.Thread] = set()
        self._waiting: set[threading.Thread] = set()
        self.note()  # who made it may receive

    def note(self) -> None:
        """Take note that this thread receives, or may."""
        thread = _active.get(get_ident())
        if thread is not None:
            self._known.add(thread)

    def waits(self, for_room: bool) -> None:
        """
        Take note that this thread waits for room, and so does not receive.

        Args:
            for_room: Whether it does from now on.
        """
        thread = _active.get(get_ident())
        if thread is not None:
            (self._waiting.add if for_room else self._waiting.discard)(thread)

    def patience(self) -> float | None:
        """
        Return after how many seconds it is hopeless to wait for others; None for never.

        For a channel that is full of results, while nothing of its own runs any more.
        """
        others = [each for each in _threads() if each not in self._waiting]
        if any(each in self._known for each in others):
            return None
        strangers = [each for each in others if not _is_service(each)]
        if not strangers:
            return HOPELESS_SECONDS
        if any(self._may_be_meant(each) for each in strangers):
            return None
        return DOUBTFUL_SECONDS

    def _may_be_meant(self, thread: Any) -> bool:
        """Return whether a thread was started since there is the channel, and not to run tasks."""
        return thread not in self._older and not works_for(self._executor, thread)
