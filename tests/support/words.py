"""What tests are called in reports."""

from __future__ import annotations

import re

__all__ = ["without_address"]


def without_address(value: object) -> str:
    """
    Return `value`'s repr without its address.

    All processes of a parallel run must give a test the same name.
    """
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
