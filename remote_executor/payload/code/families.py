"""
What classes know of others than their bases: ``__subclasses__()``, and ``register`` of an ABC.

A worker has a class once something needs it. Nothing names the subclasses of a base, so where code
asks for them all classes of the program go along, in the order in which they were made. Where a
module of the user's asks, those go along with each function that have a base in such a module. And
a class that is registered with an abstract one of a library takes that along.
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
    "derived",
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


# ------------------------------------------------------------------- asked by own modules

_looked_at: dict[str, int] = {}
_own: set[str] = set()
"""The user's packages, and modules in no package."""

_asking: list[str] = []
"""Modules of the user's whose text has the word."""


def derived() -> tuple[str, ...]:
    """
    Return the names of the program's classes that a module of the user's may ask their bases for.

    Called at each submit, and quick where no module of the user's asks any class.
    """
    if len(sys.modules) != len(_looked_at):
        _look_at_modules()
    if not _asking:
        return ()
    main = sys.modules["__main__"].__dict__
    ids = list(map(id, main.values()))
    before, found = _derived[-1]
    if ids != before:
        found = tuple(
            name
            for name in classes_of(main)
            if any(base.__module__.partition(".")[0] in _own for base in main[name].__mro__)
        )
        _derived[:] = [(ids, found)]
    return found


def _look_at_modules() -> None:
    """Look for the word in what was imported since: to find it in code would take far longer."""
    from remote_executor.payload.modules import users_own_file

    loaded = dict(sys.modules)
    for name in _looked_at.keys() - loaded.keys():
        del _looked_at[name]
    for name, module in loaded.items():
        if _looked_at.get(name) == id(module):
            continue
        _looked_at[name] = id(module)
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in _others:
            continue
        file = users_own_file(module)
        if file is None:
            if name == top and getattr(getattr(module, "__spec__", None), "has_location", False):
                _others.add(top)  # a package comes before what is in it
            continue
        _own.add(top)
        _derived[:] = [([], ())]
        try:
            text = module.__spec__.loader.get_data(file) if not _asking else b""  # type: ignore[union-attr]
            if _WORD in text:
                _asking.append(name)
        except (OSError, AttributeError):  # gone by now, or by a loader of the user's
            continue


_derived: list[tuple[list[int], tuple[str, ...]]] = [([], ())]
"""The ids of what names were bound to when they were looked at last, and what was found then."""

_WORD = b"__subclasses__"

_others = {"__main__", "__mp_main__", "remote_executor"}
"""Names of installed packages, and of what is nobody's module."""


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
