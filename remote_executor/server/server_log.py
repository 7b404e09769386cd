"""The log of a server: lines on standard error, and no more of them than somebody can read."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from remote_executor.core.rate import RateLimit
from remote_executor.printable import printable, printable_lines

if TYPE_CHECKING:
    from remote_executor.net.loop import Loop

__all__ = ["ServerLog"]

LEVELS = ("debug", "info", "warning", "error")

MOST_REFUSALS = 10
REFUSALS_SECONDS = 60.0
"""So many refused peers in so many seconds have a line each in the log; the rest are counted."""


class ServerLog:
    """
    Writes lines, each with the time and the process.

    Args:
        loop: Tells when it is time to say how many lines were left out.
        level: One of :data:`LEVELS`: what is less important is not written.
    """

    __slots__ = ("_level", "_loop", "_refusals", "_timer")

    def __init__(self, loop: Loop, level: str) -> None:
        self._level = LEVELS.index(level)
        self._loop = loop
        self._refusals = RateLimit(MOST_REFUSALS, REFUSALS_SECONDS)
        self._timer = loop.timer(self._tell_left_out)

    def write(self, level: str, text: str) -> None:
        """Write a line, if it is important enough."""
        if LEVELS.index(level) >= self._level:
            _write(printable(text))

    def exception(self, text: str) -> None:
        """Write a line and the traceback of the exception being handled."""
        import traceback

        _write(f"{printable(text)}\n{printable_lines(traceback.format_exc())}")

    def refusal(self, text: str) -> None:
        """Write a line about a peer that was refused, but not one for each try of a thousand."""
        now = self._loop.now
        admitted = self._refusals.admits(now)
        self._tell_left_out(now)
        if admitted:
            self.write("warning", text)
        else:
            self._timer.at(self._refusals.deadline())

    def _tell_left_out(self, now: float) -> None:
        deadline = self._refusals.deadline()
        if deadline is not None and now >= deadline:
            count = self._refusals.take_left_out()
            self.write("warning", f"! {count} more peers were refused")


def _write(text: str) -> None:
    stamp = time.strftime("%H:%M:%S")
    line = f"{stamp} remote_executor[{os.getpid()}] {text}"
    with contextlib.suppress(OSError, ValueError):  # the disk is full: no reason to stop
        print(line, file=sys.stderr, flush=True)  # noqa: T201
