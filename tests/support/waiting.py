"""The one way in which a test waits for something that another thread or process does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from tests.support.scale import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["wait_until"]

T = TypeVar("T")


def wait_until(probe: Callable[[], T], timeout: float = 5.0, what: str = "") -> T:
    """
    Call ``probe`` until what it returns is true, and return that.

    Args:
        probe: Called at once, then after 1 ms, 2 ms, 4 ms ... up to 100 ms.
        timeout: Seconds until the test fails, before scaling.
        what: What was waited for, for the failure's text.

    Raises:
        AssertionError: If the time is over.
    """
    deadline = time.monotonic() + scaled(timeout)
    pause = 0.001
    while True:
        last_try = time.monotonic() >= deadline
        found = probe()
        if found:
            return found
        if last_try:
            name = what or getattr(probe, "__name__", repr(probe))
            raise AssertionError(f"waited {scaled(timeout):g} s in vain for: {name}")
        time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
        pause = min(2 * pause, 0.1)
