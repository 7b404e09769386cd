"""Functions that travel by their definition alone: those of ``@deftask``."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FunctionType

__all__ = ["goes_alone", "send_alone"]

_alone: weakref.WeakSet[FunctionType] = weakref.WeakSet()


def send_alone(function: FunctionType) -> None:
    """Have a function travel by its definition, with no more of its module than it names."""
    _alone.add(function)


def goes_alone(function: object) -> bool:
    """Return whether a function is one of those. Quick where there are none."""
    try:
        return bool(_alone) and function in _alone
    except TypeError:  # it cannot be referred to weakly, so it is no function
        return False
