"""
One factor for all waiting times of the tests.

``REMOTE_EXECUTOR_TEST_SCALE=5`` on a slow or busy machine makes every limit five times longer.
A limit says when a test gives up; nothing waits that long where all goes well.
"""

from __future__ import annotations

import os

__all__ = ["SCALE", "scaled"]

SCALE = float(os.environ.get("REMOTE_EXECUTOR_TEST_SCALE") or "1")
if not 0 < SCALE < 1000:
    raise ValueError(f"REMOTE_EXECUTOR_TEST_SCALE must be between 0 and 1000, not {SCALE!r}")


def scaled(seconds: float) -> float:
    """Return a limit in seconds, times the factor."""
    return seconds * SCALE
