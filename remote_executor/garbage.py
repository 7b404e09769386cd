"""
What we ask of the garbage collector, where it can be asked: PyPy's works in other ways.

For processes whose objects live long, or that are forked: a collection that looks at all of them
takes long, and writes to each, so that the pages are no longer shared.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["freeze", "set_threshold"]

_freeze: Callable[[], None] | None = getattr(gc, "freeze", None)
_set_threshold: Callable[[int, int, int], None] | None = getattr(gc, "set_threshold", None)


def freeze() -> None:
    """Have no collection look at what there is now."""
    if _freeze is not None:
        _freeze()


def set_threshold(first: int, second: int, third: int) -> None:
    """
    Set how many new objects begin a collection; see ``gc.set_threshold``.

    Args:
        first: Of the youngest.
        second: How many of these lead to one of the middle.
        third: How many of those lead to one of all.
    """
    if _set_threshold is not None:
        _set_threshold(first, second, third)
