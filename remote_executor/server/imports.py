"""Do something once a module is loaded, and not load it for that."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["OnImport", "next_spec"]


def next_spec(
    name: str, path: Sequence[str] | None, target: ModuleType | None
) -> ModuleSpec | None:
    """
    Find a module as the import system does, for a finder that has taken itself out of it.

    Args:
        name: As for ``find_spec`` of a finder, and so the others.
        path: Where its package is.
        target: The module to be loaded again.
    """
    for finder in list(sys.meta_path):
        find = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = find(name, path, target) if find is not None else None
        if spec is not None:
            return spec
    return None


class OnImport:
    """
    Call something when a module has been loaded: at once, or right after its first import.

    Args:
        name: A top-level module that comes from a file.
        call: What to call, without arguments.
    """

    def __init__(self, name: str, call: Callable[[], object]) -> None:
        self._name = name
        self._call = call
        if name in sys.modules:
            call()
        else:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module as Python does, and have its loader call us; see ``sys.meta_path``."""
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = next_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_call(module: ModuleType) -> None:
                execute(module)
                self._call()

            spec.loader.exec_module = execute_and_call  # type: ignore[method-assign]
        return spec
