"""
Notices when this process reloads a module: by hand, or by IPython's autoreload.

Workers that have loaded the module do the same before their next task. There is no hook for that,
but ``importlib.reload`` asks the finders for the module's place once more and tells them that it is
a reload. So a finder that never finds anything hears of it, at no cost for anything else.

Autoreload may also put new functions into a module without a word to anybody. It does so before a
cell is run, if the module's file has changed; hence where it is in use, we look at the files, too,
once a cell.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from remote_executor.payload.modules import users_own_file

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
        self._cell: object = None
        self._times: dict[str, int] = {}

    def start(self) -> None:
        """Watch from now on. Does nothing the second time."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        """Note what is reloaded. The import system calls this."""
        if target is not None and users_own_file(target) is not None:
            self.names.append(name)

    def look(self) -> None:
        """Note what autoreload has changed. Cheap where it is not in use."""
        if "IPython.extensions.autoreload" not in sys.modules:
            return
        shell = sys.modules["IPython"].get_ipython()
        cell = getattr(shell, "execution_count", None)
        if cell == self._cell:
            return
        self._cell = cell
        for name, module in list(sys.modules.items()):
            file = users_own_file(module)
            try:
                changed = os.stat(file).st_mtime_ns if file is not None else 0
            except OSError:
                continue
            if self._times.setdefault(name, changed) != changed:
                self._times[name] = changed
                self.names.append(name)


reloads = ReloadWatch()
