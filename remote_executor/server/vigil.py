"""Waiting awake: what comes very soon is waited for without going to sleep."""

from __future__ import annotations

import os
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Vigil"]

T = TypeVar("T")

SECONDS = 200e-6
"""How long to stay awake: to be woken takes a good part of that."""

_yield_processor = getattr(os, "sched_yield", lambda: None)


class Vigil:
    """
    Decide whether to wait awake, and do it.

    It pays where one short task follows the other. So it is done only if the last wait was as
    short, and one that was in vain is the last until there was such a wait again.
    """

    __slots__ = ("_began", "_brisk")

    def __init__(self) -> None:
        self._began = 0.0
        self._brisk = False

    def keep(self, look: Callable[[], T]) -> T | None:
        """
        Begin a wait; stay awake for it if the last one was short.

        Args:
            look: Looks, without waiting, whether something has come.

        Returns:
            What ``look`` returned when it was true. Otherwise go to sleep now, and call
            :meth:`end` when that is over.
        """
        self._began = perf_counter()
        if not self._brisk:
            return None
        until = self._began + SECONDS
        while True:
            found = look()
            if found:
                return found
            if perf_counter() >= until:
                return None
            _yield_processor()

    def end(self) -> None:
        """The wait is over."""
        self._brisk = perf_counter() - self._began < SECONDS
