"""
Notices when this process reloads a module: by hand, or by IPython's autoreload.

Workers that have loaded the module do the same before their next task. There is no hook for that,
but ``importlib.reload`` asks the finders for the module's place once more and tells them that it is
a reload. So a finder that never finds anything hears of it, at no cost for anything else.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from remote_executor.payload.modules import is_users_own

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ReloadWatch", "reloads"]


class ReloadWatch:
    """
    A finder that finds nothing.

    Attributes:
        names: The user's own modules that were reloaded, in that order, since :meth:`start`.
    """

    def __init__(self) -> None:
        self.names: list[str] = []

    def start(self) -> None:
        """Watch from now on. Does nothing the second time."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        """Note what is reloaded. The import system calls this."""
        if target is not None and is_users_own(target):
            self.names.append(name)


reloads = ReloadWatch()
