"""
What the environment tells a process about those that have started it.

A task may make an executor of its own, whose tasks may do so too. A program that does so without
end, by mistake, would fill the machine with processes, so there is a greatest depth.

A server that a program starts has a mark in its environment until it has taken that off. So a
program that was started in the place of a Python knows; see :mod:`remote_executor.interpreter`.
"""

from __future__ import annotations

import os

__all__ = ["DEPTH", "MARK", "MAX_DEPTH", "check_depth", "depth", "take_off_mark"]

MAX_DEPTH = 10
DEPTH = "REMOTE_EXECUTOR_DEPTH"
"""In the environment of workers, and so of whatever their tasks start: how deep they are."""

MARK = "REMOTE_EXECUTOR_STARTED_AS"
"""In the environment of a server that is being started: the path of its Python."""


def depth() -> int:
    """Return how many executors this process is within: 0 in a program of the user's own."""
    text = os.environ.get(DEPTH, "")
    return int(text) if text.isdecimal() else 0


def check_depth() -> None:
    """
    Make sure that one more executor may be made here.

    Raises:
        RecursionError: If it would be too deep; it is a RuntimeError too.
    """
    if depth() >= MAX_DEPTH:
        raise RecursionError(
            f"executors within executors, {MAX_DEPTH} deep: does a task make an executor for the "
            f"same task again? If that is meant, take {DEPTH} off the task's environment"
        )


def take_off_mark() -> None:
    """Say that this process is the server that was meant, and may start others."""
    os.environ.pop(MARK, None)
