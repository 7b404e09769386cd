"""
How long the tests wait, and how much they try.

``REMOTE_EXECUTOR_TEST_SCALE=5`` on a slow or busy machine makes every limit five times longer.
A limit says when a test gives up; nothing waits that long where all goes well.

``REMOTE_EXECUTOR_ALL_PARAMETERS=1`` runs twice as many random histories as usual, and on engines of
others all parameter sets of each test.

``REMOTE_EXECUTOR_TEST_TRIES=0.3`` runs so many times as many random histories, as ``.ci/run`` does
at the ends of the range of Pythons.
"""

from __future__ import annotations

import os

__all__ = ["ALL_PARAMETERS", "SCALE", "scaled", "tries"]

ALL_PARAMETERS = bool(os.environ.get("REMOTE_EXECUTOR_ALL_PARAMETERS"))

TRIES = float(os.environ.get("REMOTE_EXECUTOR_TEST_TRIES") or "1")

SCALE = float(os.environ.get("REMOTE_EXECUTOR_TEST_SCALE") or "1")
if not 0 < SCALE < 1000:
    raise ValueError(f"REMOTE_EXECUTOR_TEST_SCALE must be between 0 and 1000, not {SCALE!r}")


def scaled(seconds: float) -> float:
    """Return a limit in seconds, times the factor."""
    return seconds * SCALE


def tries(usual: int) -> int:
    """Return how many random examples to try."""
    return max(1, int(usual * TRIES * (2 if ALL_PARAMETERS else 1)))
