"""
What classes know of others than their bases: ``__subclasses__()``, and ``register`` of an ABC.

A worker has a class once something needs it. Nothing names the subclasses of a base, so where code
asks for them all classes of the program go along, in the order in which they were made. And a class
that is registered with an abstract one of a library takes that along.
"""

from __future__ import annotations

import abc
import gc
import sys
from abc import get_cache_token
from typing import Any

from remote_executor.payload.code.names import is_by_hand

__all__ = [
    "SUBCLASSES",
    "Family",
    "classes_of",
    "family",
    "get_cache_token",
    "registered_with",
    "settle",
    "virtual_bases",
]

SUBCLASSES = "type.__subclasses__"
"""Stands for all subclasses where names of ``__main__`` do. No such name can be bound."""

Pairs = tuple[tuple[type, tuple[type, ...]], ...]


def classes_of(main: dict[str, Any]) -> list[str]:
    """Return the names of ``__main__`` that are bound to classes of the program."""
    return [
        name
        for name, value in list(main.items())
        if issubclass(type(value), type) and _is_of_the_program(value)
    ]


def family(main: dict[str, Any]) -> Pairs:
    """
    Return the classes of the program that have subclasses, and these, also those without a name.

    Args:
        main: The globals of ``__main__``.
    """
    found: dict[type, tuple[type, ...]] = {}
    todo: list[type] = [main[name] for name in classes_of(main)]
    seen: set[type] = set()
    while todo:
        cls = todo.pop()
        if cls in seen:
            continue
        seen.add(cls)
        subclasses = tuple(filter(_is_of_the_program, _subclasses(cls)))
        if subclasses:
            found[cls] = subclasses
        todo += subclasses
        todo += (base for base in cls.__bases__ if base.__module__ != "builtins")
    return tuple(found.items())


def _is_of_the_program(cls: type) -> bool:
    home = cls.__module__
    return home in ("__main__", "__mp_main__") or is_by_hand(sys.modules.get(home))


def _subclasses(cls: type) -> list[type]:
    return type.__subclasses__(cls)


class Family:
    """
    Unpickles to nothing: it sees to it that classes have the subclasses that they have here.

    Args:
        pairs: See :func:`family`.
    """

    __slots__ = ("pairs",)

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def __reduce__(self) -> tuple[Any, ...]:
        return settle, (self.pairs,)


_kept: list[Pairs] = []
"""The classes that no name keeps alive."""


def settle(pairs: Pairs) -> None:
    """
    Have classes in a worker say their subclasses in the client's order.

    Args:
        pairs: See :func:`family`.
    """
    _kept[:] = [pairs]
    for cls, subclasses in pairs:
        here = _subclasses(cls)
        if len(here) > len(subclasses):
            gc.collect()  # classes that the client had before under the same names
            here = _subclasses(cls)
        if [each for each in here if each in subclasses] != list(subclasses):
            for each in subclasses:
                try:
                    each.__bases__ = each.__bases__  # which makes it the last of its bases'
                except TypeError:  # a class with slots of its own
                    break


# ---------------------------------------------------------------------- abstract classes


def registered_with(cls: type) -> list[type]:
    """Return the classes that are registered with an abstract one."""
    if not isinstance(cls, abc.ABCMeta):
        return []
    get: Any = getattr(abc, "_get_dump", None)
    references = get(cls)[0] if get is not None else cls._abc_registry  # type: ignore[attr-defined]
    found = [
        each() if callable(each) and not isinstance(each, type) else each for each in references
    ]
    return [each for each in found if each is not None]


_virtual: dict[int, tuple[type, ...]] = {}
_token: object = None


def virtual_bases(cls: type) -> tuple[type, ...]:
    """
    Return the abstract classes of libraries that a class of the program is registered with.

    Args:
        cls: The class.
    """
    global _token
    token = get_cache_token()
    if token != _token:
        _virtual.clear()
        seen: dict[int, type] = {}  # by identity: a metaclass may compare as it likes
        todo: list[type] = [object]
        while todo:
            one = todo.pop()
            for each in _subclasses(one):
                if id(each) not in seen:
                    seen[id(each)] = each
                    todo.append(each)
        for each in seen.values():
            # Nothing is looked up by its name: that may run a module's own code.
            if isinstance(each, abc.ABCMeta) and not _is_of_the_program(each):
                for registered in registered_with(each):
                    if _is_of_the_program(registered) or "<locals>" in registered.__qualname__:
                        key = id(registered)
                        _virtual[key] = (*_virtual.get(key, ()), each)
        _token = token
    return _virtual.get(id(cls), ())
