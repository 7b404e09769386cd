"""What is measured, and the bars to which its numbers are held."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

__all__ = ["Bar", "Factory", "Measure"]

Factory = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Bar:
    """
    What a number is held to.

    Args:
        number: Its name in what the measurement returns.
        what: Words for the table.
        unit: Its unit.
        kind: ``ratio`` (ours / theirs), ``above`` (ours - theirs), or ``plain`` (ours alone).
        limit: The bar.
        least: True if the result must be at least the limit, False if at most.
        against: The peers to compare with; the best of them counts.
        ours: Which of our peers is measured.
    """

    number: str
    what: str
    unit: str
    kind: str
    limit: float
    least: bool
    against: tuple[str, ...] = ("fork",)
    ours: str = "farm"


@dataclass(frozen=True)
class Measure:
    """A measurement: what to call, on whom, how large, and the bars."""

    function: Callable[[Factory, int], dict[str, float]]
    peers: tuple[str, ...]
    size: int
    quick: int
    rounds: int
    bars: tuple[Bar, ...]
    touches: int = 0  # bytes of memory that it uses, touched before the first round
