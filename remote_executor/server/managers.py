"""
Let tasks use ``multiprocessing.Manager`` objects of the client, as under ProcessPoolExecutor.

A proxy of a manager's object proves itself with the key of the process that it is in. Children of
multiprocessing inherit that key; ours are told. It is set when multiprocessing is first imported
in a worker, since most workers never do.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from remote_executor.server.imports import next_spec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["share_key"]

MODULE = "multiprocessing.process"


def share_key(key: bytes) -> None:
    """Make ``key`` this process's authentication key in multiprocessing, now or once it is used."""
    module = sys.modules.get(MODULE)
    if module is not None:
        module.current_process().authkey = key
    else:
        sys.meta_path.insert(0, _Finder(key))


class _Finder:
    """Finds one module as everybody does, and sets the key once that is loaded."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Take part in imports."""
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = next_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            load = loader.exec_module

            def exec_module(module: Any) -> None:
                load(module)
                module.current_process().authkey = self._key

            loader.exec_module = exec_module
        return spec
