"""
Calls that are to be made later, by one thread for the whole process.

The thread starts with the first call that waits and ends when none is left.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from remote_executor.net.interruptible import Turns, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Timer", "after"]

log = logging.getLogger("remote_executor.parallel")

LINGER_SECONDS = 0.1
"""How long the thread waits for another call before it ends."""


class Timer:
    """A call to be made at a time. It is made once at most, or cancelled."""

    __slots__ = ("_args", "_call", "when")

    def __init__(self, when: float, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.when = when
        self._call: list[Callable[..., object]] = [call]
        self._args = args

    def claim(self) -> bool:
        """Return whether the call was still to be made; nobody else makes it now."""
        try:
            self._call.pop()  # one of several threads succeeds
        except IndexError:
            return False
        _clock.discard()
        return True

    def is_open(self) -> bool:
        """Return whether the call is still to be made."""
        return bool(self._call)

    def run(self) -> None:
        """Make the call, unless somebody claimed it."""
        try:
            call = self._call.pop()
        except IndexError:
            return
        call(*self._args)


class _Clock:
    """The thread and the calls that wait for it, which are its own: others put into its inbox."""

    def __init__(self) -> None:
        self.inbox: SimpleQueue[Timer | None] = SimpleQueue()
        """Timers; None when one of them is not wanted any more."""
        self.waiting: list[tuple[float, int, Timer]] = []
        self.turns = Turns()
        """Had by the thread."""
        self.order = itertools.count()

    def add(self, timer: Timer) -> None:
        self.inbox.put(timer)
        # If the thread is about to end it looks into the inbox once more after its turn.
        if self.turns.holder() is None:
            thread = threading.Thread(target=self.run, name="remote_executor timers")
            thread.daemon = True  # a timer is no reason to keep the interpreter
            start_thread(thread)

    def discard(self) -> None:
        if self.turns.holder() is not None:
            self.inbox.put(None)

    def run(self) -> None:
        while not self.inbox.empty():
            if self.turns.attempt(self._serve) is None:
                return  # there is another thread

    def _serve(self) -> None:
        """Make the calls that are due until none is left."""
        while True:
            now = time.monotonic()
            if self.waiting and self.waiting[0][0] <= now:
                timer = heapq.heappop(self.waiting)[2]
                try:
                    timer.run()
                except BaseException:  # none of them is an end for the others
                    log.exception("a timer's call failed")
                continue
            left = self.waiting[0][0] - now if self.waiting else LINGER_SECONDS
            try:
                self._take(self.inbox.get(timeout=min(left, threading.TIMEOUT_MAX)))
            except Empty:
                if not self.waiting:
                    return

    def _take(self, timer: Timer | None) -> None:
        if timer is not None:
            heapq.heappush(self.waiting, (timer.when, next(self.order), timer))
        else:
            self.waiting = [entry for entry in self.waiting if entry[2].is_open()]
            heapq.heapify(self.waiting)


_clock = _Clock()


def _after_fork() -> None:
    global _clock
    _clock = _Clock()  # the thread is not here, and what waited for it was the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def after(seconds: float, call: Callable[..., object], *args: Any) -> Timer:
    """
    Have something called later, in a thread of ours.

    Args:
        seconds: From now.
        call: Quick; its errors are logged.
        args: Its arguments.

    Returns:
        The timer; claim it to cancel the call.
    """
    timer = Timer(time.monotonic() + seconds, call, args)
    _clock.add(timer)
    return timer
