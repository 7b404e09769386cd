"""How workers see, without asking, whether slots of their server are idle."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["IdlePage"]


class IdlePage:
    """
    A page of memory whose first byte tells how many slots nobody uses.

    Attributes:
        is_open: Whether somebody looks at it.
    """

    __slots__ = ("_fd", "_memory", "_said", "is_open")

    def __init__(self) -> None:
        self.is_open = False
        self._said = 0
        self._memory: mmap.mmap | None = None
        self._fd = -1

    def open(self) -> int:
        """Make the page, if it is not there; return a descriptor of it, -1 if there can be none."""
        create: Callable[[str], int] | None = getattr(os, "memfd_create", None)
        if self._memory is None and create is not None:
            try:
                self._fd = create("remote_executor idle slots")
                os.ftruncate(self._fd, mmap.PAGESIZE)
                self._memory = mmap.mmap(self._fd, mmap.PAGESIZE)
                self.is_open = True
            except OSError:  # no memory or descriptors: nobody sees idle slots, and that is all
                return -1
        return self._fd

    def say(self, idle: int) -> None:
        """Tell how many slots nobody uses, nor waits for."""
        if self._memory is not None and idle != self._said:
            self._said = idle
            self._memory[0] = min(255, max(0, idle))

    def close(self) -> None:
        """Let go of it."""
        if self._memory is not None:
            self._memory.close()
            os.close(self._fd)
            self._memory, self._fd, self.is_open = None, -1, False
