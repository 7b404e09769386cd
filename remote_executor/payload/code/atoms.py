"""
Texts and numbers that names of ``__main__`` bind: each is one object there, as it is here.

``MISSING = "missing"`` and ``def get(default=MISSING): return default is MISSING``: scripts use a
text, a float or a tuple of them as a sentinel, and ``nan in values`` asks for the very object, too.
Such values never change, so a reference to their name (see :mod:`.names`) would cost more than it
gives: whatever holds the value would be pickled again whenever the name is bound anew. In place of
it each pickle has the value, with a number that tells which object of the client's it is.
"""

from __future__ import annotations

import itertools
import pickle
import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["SIZE", "Atoms", "Constant", "has_identity", "is_restored", "restore", "restored"]

_MAX_LENGTH = 200
"""Characters or bytes: longer ones are contents, and nobody's sentinels."""

_MAX_BITS = 1024
_MAX_ITEMS = 16

_MAX_RESTORED = 10_000
"""Objects that a worker remembers: a loop of the client's may bind a name to any number of them."""

SIZE = 20
"""Bytes that a reference takes more than a short value itself."""

_GROUPS: tuple[type, ...] = (tuple, frozenset)


def has_identity(value: Any) -> bool:
    """Tell an atom (see :func:`.names.is_atom`) of which equal ones may be other objects."""
    kind = type(value)
    if kind is str:
        return 1 < len(value) <= _MAX_LENGTH
    if kind is bytes:
        return 1 < len(value) <= _MAX_LENGTH
    if kind is int:  # a Python has one object for each of the small ones
        return not -5 <= value <= 256 and value.bit_length() <= _MAX_BITS
    if kind in _GROUPS:
        return 0 < len(value) <= _MAX_ITEMS
    return kind in (float, complex, range)


class _Atom:
    __slots__ = ("key", "pid", "value")

    def __init__(self, key: int, value: Any) -> None:
        self.key = key
        self.value = value  # it stays alive, so that its id stays its own
        self.pid: tuple[Any, ...] | None = None


class Atoms:
    """
    The atoms that the names of a process's ``__main__`` bind.

    Attributes:
        by_id: By their ids.
    """

    def __init__(self) -> None:
        self.by_id: dict[int, _Atom] = {}
        self._by_name: dict[str, _Atom] = {}
        self._next_key = itertools.count(1).__next__

    def note(self, found: Mapping[str, Any]) -> None:
        """
        Take note of what names bind now.

        A name that is bound to an equal value keeps its number: a worker has that value already.

        Args:
            found: Atoms by name, those that have an identity.
        """
        before, names_before = self.by_id, self._by_name
        self.by_id, self._by_name = {}, {}
        ids = set(map(id, found.values()))
        for name, value in found.items():
            atom = self.by_id.get(id(value)) or before.get(id(value))
            if atom is None:
                old = names_before.get(name)
                if old is not None and id(old.value) not in ids and _are_alike(old.value, value):
                    ids.add(id(old.value))  # its number is taken
                    atom = _Atom(old.key, value)
                else:
                    atom = _Atom(self._next_key(), value)
            self.by_id[id(value)] = self._by_name[name] = atom

    def pid_of(self, value: Any) -> tuple[Any, ...] | None:
        """
        Return what stands for an atom in pickles, None if no name binds this very object.

        Args:
            value: Any object.
        """
        atom = self.by_id.get(id(value))
        if atom is None:
            return None
        if atom.pid is None:  # the same each time, so that a pickle has it once
            kind = type(value)
            if kind in _GROUPS:  # each item is asked about in its turn
                atom.pid = atom.key, list(value), _GROUPS.index(kind)
            else:
                is_interned = kind is str and sys.intern(value) is value
                atom.pid = atom.key, pickle.dumps(value, 3), is_interned  # 5 has longer ones
        return atom.pid


class Constant:
    """
    Unpickles to an atom, where the pickler has no persistent ids.

    Args:
        pid: What stands for it.
    """

    __slots__ = ("_pid",)

    def __init__(self, pid: tuple[Any, ...]) -> None:
        self._pid = pid

    def __reduce__(self) -> tuple[Any, ...]:
        return restore, self._pid


restored: dict[int, Any] = {}
"""In a worker: what came before, by the client's number."""


def restore(key: int, content: Any, how: int) -> Any:
    """
    Return the object that a worker has for an atom of the client's.

    Args:
        key: The client's number.
        content: The pickle of the value, or the items of a tuple or frozenset.
        how: Whether the client's text is interned, so that the same text in code is the same
            object; or which of the two the items are for.
    """
    if type(content) is list:
        value = _GROUPS[how](content)
    else:
        value = pickle.loads(content)
        if how:
            return sys.intern(value)
    found = restored.pop(key, value)
    if not _are_alike(found, value):
        found = value
    if len(restored) >= _MAX_RESTORED:
        del restored[next(iter(restored))]
    restored[key] = found  # the last to go
    return found


def is_restored(value: object) -> bool:
    """Tell in a worker whether a value is the one that it has for a name's, and no equal one."""
    return any(value is each for each in list(restored.values()))


def _are_alike(one: Any, other: Any) -> bool:
    """Tell whether atoms are the same value: -0.0 is not 0.0, and (1,) is not (True,)."""
    return type(one) is type(other) and repr(one) == repr(other)
