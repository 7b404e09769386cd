"""
What a worker needs late is imported from where the server imports, not from where the user does.

A worker loads little before its first task: it starts fast so. By then ``sys.path`` is the user's,
with the folder of the script, or the current one, before the standard library. What we load then,
and what that loads in its turn, is to come from the standard library and from what is installed, as
all did that we loaded before; see :mod:`remote_executor.net.start`.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["load_own", "own_first", "use_own_path"]

PICKLES_NAME = ("cloudpickle", "tblib")
"""What a pickle may name without any module of ours having loaded it."""


class _Own:
    """Finds modules in the folders that were ours before the user's came."""

    def __init__(self) -> None:
        self.path: list[str] | None = None

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module that is in no package. The import system calls this."""
        return PathFinder.find_spec(name, self.path) if path is None else None


class _OwnOfPickles:
    """Finds what pickles name, and has it find there what it imports itself."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find one of a few modules. The import system calls this."""
        if name not in PICKLES_NAME:
            return None
        spec = PathFinder.find_spec(name, _own.path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_with_own(module: ModuleType) -> None:
                with own_first:
                    execute(module)

            spec.loader.exec_module = execute_with_own  # type: ignore[method-assign]
        return spec


_own = _Own()


class _OwnFirst:
    """
    A block in which imports come from our own folders first.

    Another thread that imports meanwhile finds what is installed before what is its own, too. What
    is loaded in the block under a name of the user's own, such as Python's ``textwrap``, is for us
    alone: by the end the name is free for the user's, or has that again.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._aside: dict[str, ModuleType] = {}

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth == 1:
            self._aside = _take_out(theirs)
        if _own.path is not None:
            _put_before_the_path(_own)

    def __exit__(self, *exc_info: object) -> None:
        if _own in sys.meta_path:
            sys.meta_path.remove(_own)
        self._depth -= 1
        if self._depth == 0 and theirs:
            _take_out(theirs)
            sys.modules.update(self._aside)
            self._aside = {}


theirs: set[str] = set()
"""Names of top-level modules that are the user's own, whatever Python has under them."""


def _take_out(names: set[str]) -> dict[str, ModuleType]:
    """Remove modules, and what is in them, from those that are loaded; return them."""
    if not names:
        return {}
    found = [each for each in list(sys.modules) if each.partition(".")[0] in names]
    return {each: sys.modules.pop(each) for each in found}


own_first = _OwnFirst()


def _put_before_the_path(finder: _Own | _OwnOfPickles) -> None:
    """Put a finder where ``sys.path`` is looked at: behind those that wait for an import."""
    finders = sys.meta_path
    index = finders.index(PathFinder) if PathFinder in finders else 0
    finders.insert(index, finder)


def use_own_path(path: Sequence[str]) -> None:
    """
    Say from where our own modules import what they need; until this is said there is no difference.

    Args:
        path: ``sys.path`` as it was before user code had its say.
    """
    _own.path = list(path)
    _put_before_the_path(_OwnOfPickles())


def load_own(name: str) -> None:
    """
    Load a module of ours, or of the standard library, that is to be imported next.

    Args:
        name: Its dotted name.
    """
    if name not in sys.modules and _own.path is not None:
        with own_first:
            __import__(name)
