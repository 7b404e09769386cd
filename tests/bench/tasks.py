"""What runs in workers, and before that. Kept light: a spawned worker imports this module."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "add_one",
    "keep",
    "make_array",
    "make_reader",
    "nap",
    "nothing",
    "size_of",
    "total",
    "total_of_kept",
    "touch_array",
    "warm",
]

kept: dict[str, Any] = {}


def nothing() -> None:
    """Do nothing."""


def add_one(number: int) -> int:
    """Return a small integer for a small integer."""
    return number + 1


def nap(seconds: float) -> float:
    """Sleep, since it takes its time whatever else the machine does."""
    time.sleep(seconds)
    return seconds


def touch_array(array: Any) -> float:
    """Read one number of each page, so that an array only mapped counts as no array."""
    return float(array[::512].sum())


def keep(name: str, array: Any, copy: bool) -> None:
    """Keep an array, or a copy of it, for the tasks to come."""
    kept[name] = array.copy() if copy else array


def total(array: Any) -> float:
    """Add up an array."""
    return float(array.sum())


def total_of_kept(name: str) -> float:
    """Add up an array that this worker keeps."""
    return total(kept[name])


def size_of(blob: bytes) -> int:
    """Return how many bytes came."""
    return len(blob)


def make_array(megabytes: int, seed: int) -> Any:
    """Return an array of so many MB, each page written."""
    import numpy

    return numpy.full(megabytes * 125_000, float(seed))


def make_reader(array: Any) -> Callable[[int], float]:
    """Return a closure over an array. It travels by value, with all that it captures."""

    def read(index: int) -> float:
        return float(array[index])

    return read


def warm(executor: Any) -> None:
    """Have every worker started and once used."""
    for future in [executor.submit(nap, 0.05) for _ in range(8)]:
        future.result()
