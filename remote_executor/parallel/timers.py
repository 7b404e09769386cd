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
from typing import TYPE_CHECKING, Any

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
        _clock.discard(self)
        return True

    def run(self) -> None:
        """Make the call, unless somebody claimed it."""
        try:
            call = self._call.pop()
        except IndexError:
            return
        call(*self._args)


class _Clock:
    """The thread and the calls that wait for it."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.waiting: list[tuple[float, int, Timer]] = []
        self.running = False
        self.order = itertools.count()

    def add(self, timer: Timer) -> None:
        with self.changed:
            heapq.heappush(self.waiting, (timer.when, next(self.order), timer))
            if not self.running:
                thread = threading.Thread(target=self.run, name="remote_executor timers")
                thread.daemon = True  # a timer is no reason to keep the interpreter
                thread.start()
                self.running = True
            elif self.waiting[0][2] is timer:
                self.changed.notify()

    def discard(self, timer: Timer) -> None:
        with self.changed:
            self.waiting = [entry for entry in self.waiting if entry[2] is not timer]
            heapq.heapify(self.waiting)
            self.changed.notify()  # there may be nothing left to wait for

    def run(self) -> None:
        while True:
            with self.changed:
                timer = self._due()
            if timer is None:
                return
            try:
                timer.run()
            except Exception:
                log.exception("a timer's call failed")

    def _due(self) -> Timer | None:
        """Wait for the next call; None if the thread is to end."""
        while True:
            now = time.monotonic()
            if self.waiting:
                left = self.waiting[0][0] - now
                if left <= 0:
                    return heapq.heappop(self.waiting)[2]
                self.changed.wait(min(left, threading.TIMEOUT_MAX))
            elif not self.changed.wait(LINGER_SECONDS) and not self.waiting:
                self.running = False
                return None


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
