"""
The names of this process's ``__main__``: which name has an object, and when it was bound anew.

An object that a name of ``__main__`` binds travels as that name wherever it is met, so that a
worker has one object for it. :class:`Names` finds the name by the object's id. A name is checked
against the module on each use, so an outdated entry can never give a wrong one.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, KeysView
from types import BuiltinFunctionType, FunctionType, ModuleType, NoneType
from typing import Any

from remote_executor.payload.code.atoms import Atoms, has_identity

__all__ = [
    "ATOMS",
    "LRU_CACHE",
    "OF_THE_MODULE",
    "Names",
    "found_by_name",
    "is_atom",
    "is_by_hand",
    "main_globals",
    "main_name",
    "names",
]

OF_THE_MODULE = frozenset(
    {
        "__builtins__",
        "__cached__",
        "__loader__",
        "__name__",
        "__package__",
        "__spec__",
    }
)
"""Globals that belong to the module itself and not to the program."""

ATOMS = frozenset(
    {type(None), bool, int, float, complex, str, bytes, range, type(...), type(NotImplemented)}
)
"""Types of which each value is for ever what it is, and has nothing in it."""

LRU_CACHE: type = type(functools.lru_cache(lambda: None))
"""Of PyPy's, whose ``lru_cache`` is written in Python, it is that of functions."""


def main_globals() -> dict[str, Any]:
    """Return the globals of this process's ``__main__``."""
    return sys.modules["__main__"].__dict__


def is_atom(value: object) -> bool:
    """Tell values that have no identity of their own: numbers, texts, tuples of them."""
    kind = type(value)
    if kind in ATOMS:
        return True
    if kind is tuple or kind is frozenset:
        return all(map(is_atom, value))  # type: ignore[call-overload]
    return False


def is_by_hand(module: object) -> bool:
    """Tell a module that the program made itself from one that was imported."""
    return (
        isinstance(module, ModuleType)
        and getattr(module, "__spec__", None) is None
        and not hasattr(module, "__file__")
        and module.__name__ != "__main__"
    )


def found_by_name(value: object) -> bool:
    """Tell functions and classes that any process finds in the module that they name."""
    # Not by isinstance(): a proxy of wrapt says that it is a function.
    kind = type(value)
    if kind is BuiltinFunctionType:
        return isinstance(value.__self__, (ModuleType, NoneType))  # type: ignore[attr-defined]
    if kind is not FunctionType and not issubclass(kind, type):
        return False
    assert isinstance(value, (FunctionType, type))
    home = value.__module__
    if home in ("__main__", "__mp_main__"):
        return False
    found: Any = sys.modules.get(home)
    if is_by_hand(found):
        return False
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value


def main_name(obj: Any) -> str | None:
    """Return the dotted name that a function or class has, if ``__main__`` finds it by that."""
    if getattr(obj, "__module__", None) not in ("__main__", "__mp_main__"):
        return None
    home = getattr(obj, "__qualname__", None)
    if not isinstance(home, str):
        return None
    found: Any = sys.modules["__main__"]
    for name in home.split("."):
        # Not getattr(), which in a worker would ask the client.
        found = vars(found).get(name) if isinstance(found, ModuleType) else getattr(
            found, name, None
        )  # fmt: skip
    return home if found is obj else None


class Names:
    """
    Finds the name of ``__main__`` that binds an object.

    Attributes:
        generation: Goes up whenever a look shows that some name is bound anew, or is gone.
        asked: Names that workers have asked for, since no code names them. From then on they go
            along with each function.
        by_id: Names by the ids of the objects that they bound at the last look.
        atoms: The texts and numbers that they bound.
        refreshed: Goes up when values shall be pickled again, though nothing seems to have changed.
        watched: Whether a worker has asked for all names. From then on each submit looks at them.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.asked: dict[str, None] = {}
        self.refreshed = 0
        self.watched = False
        self._refreshed_all = 0
        self._refreshed_at: dict[str, int] = {}
        self._module: ModuleType | None = None
        self._ids: dict[str, int] = {}
        self.by_id: dict[int, str] = {}
        self.atoms = Atoms()
        self._bound_at: dict[str, int] = {}
        self._first_bound_at: dict[str, int] = {}

    def look(self) -> int:
        """
        Look whether names are bound to other objects than at the last look.

        Returns:
            The generation.
        """
        module = sys.modules["__main__"]
        # A copy in one step, as other threads may bind names.
        space = module.__dict__.copy()
        ids = {name: id(value) for name, value in space.items()}
        if module is not self._module or ids != self._ids:
            self._note(module, space, ids)
        return self.generation

    def _note(self, module: ModuleType, space: dict[str, Any], ids: dict[str, int]) -> None:
        if module is not self._module:
            self.asked = {}
            self._bound_at = {}
            self._first_bound_at = {}
            self._ids = {}
        generation = self.generation + 1
        before = self._ids
        for name in before.keys() | ids.keys():
            if before.get(name) != ids.get(name) and module is self._module:
                self._bound_at[name] = generation
                if name not in before:
                    self._first_bound_at[name] = generation
        by_id: dict[int, str] = {}
        atoms: dict[str, Any] = {}
        for name, value in space.items():
            # Not isinstance(), which may run code of the value's.
            if name in OF_THE_MODULE or issubclass(type(value), ModuleType):
                continue
            if is_atom(value):
                if name[:2] != "__" and has_identity(value):
                    atoms[name] = value
                continue
            if found_by_name(value):
                continue
            other = by_id.get(id(value))
            # Of several it stays the one that it was: workers have the object under that.
            if other is None or self.by_id.get(id(value)) == name or _is_home(value, name):
                by_id[id(value)] = name
        self._module, self._ids, self.by_id = module, ids, by_id
        self.atoms.note(atoms)
        self.generation = generation

    def refresh(self, which: Iterable[str] | None) -> None:
        """
        Have the values of names pickled again, though nothing in them seems to have changed.

        Args:
            which: The names; None for all.
        """
        self.refreshed += 1
        if which is None:
            self._refreshed_all = self.refreshed
        else:
            self._refreshed_at.update(dict.fromkeys(which, self.refreshed))

    def refreshed_at(self, name: str) -> int:
        """Return when a name was to be pickled again: the number that :attr:`refreshed` had."""
        return max(self._refreshed_all, self._refreshed_at.get(name, 0))

    def bound_since(self, name: str, generation: int) -> bool:
        """Tell whether a name was bound anew, or deleted, after a generation."""
        return self._bound_at.get(name, 0) > generation

    def bound_at(self, name: str) -> int:
        """Return the generation in which a name was bound anew last; 0 if it never was."""
        return self._bound_at.get(name, 0)

    def bind_any(self, ids: KeysView[int]) -> bool:
        """Tell whether a name binds one of some objects, as of the last look."""
        return not ids.isdisjoint(self.by_id)

    def new_since(self, generation: int) -> set[str]:
        """Return the names that were not bound at all when there was a generation."""
        return {name for name, since in self._first_bound_at.items() if since > generation}

    def name_of(self, obj: object) -> str | None:
        """Return the name that binds exactly this object, as of the last look or later."""
        name = self.by_id.get(id(obj))
        if name is None or self._module is None:
            return None
        return name if self._module.__dict__.get(name) is obj else None


def _is_home(value: object, name: str) -> bool:
    """Whether an object of several names calls itself by this one."""
    kind = type(value)
    if kind is not FunctionType and not issubclass(kind, type):
        return False
    return bool(value.__qualname__ == name)  # type: ignore[attr-defined]


names = Names()
"""Those of this process."""
