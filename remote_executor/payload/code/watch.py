"""
Whether objects still hold the very same objects, at the speed of C.

A submit looks whether anything that its function reaches has changed since it was pickled: code,
defaults and attributes of functions, attributes of classes, what is in lists, dicts and instances.
To compare these one by one in Python costs 0.5 to 4 µs each, and a script may have hundreds. The
garbage collector knows at once what each object refers to (``gc.get_referents``: 60 ns for a
function). If these are the same objects in the same order as before, nothing has changed. Arrays
and other objects that keep data out of its sight are *opaque*: :mod:`.fingerprints` looks at them.
"""

from __future__ import annotations

import functools
import struct
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, KeysView
from gc import get_referents
from itertools import chain
from operator import attrgetter, is_, itemgetter
from types import (
    BuiltinFunctionType,
    CellType,
    FunctionType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

from remote_executor.payload.code.names import ATOMS
from remote_executor.payload.code.steps import IS_CPYTHON

__all__ = ["IN_MEMORY", "Watch", "holders_in"]

_MANY = 256
"""From so many objects on it pays to compare their addresses at once: 0.3 µs and 0.5 ns each."""

_MOST = 20_000
"""So many objects in a value are looked at one by one: from there on to pickle it is as fast."""

_CONTAINERS = (list, dict, set, deque, defaultdict, functools.partial, SimpleNamespace)
_UNCHANGING = (tuple, frozenset, MethodType)
_BY_IDENTITY = (BuiltinFunctionType, ModuleType, property)
_IMMUTABLE = frozenset(
    {
        ("datetime", "date"),
        ("datetime", "datetime"),
        ("datetime", "time"),
        ("datetime", "timedelta"),
        ("datetime", "timezone"),
        ("decimal", "Decimal"),
        ("re", "Pattern"),
        ("zoneinfo", "ZoneInfo"),
    }
)
"""Types written in C whose values never change, by module and name."""

IN_MEMORY = frozenset({"BytesIO", "StringIO"})
"""Types of ``io`` whose objects are data: what is written to them is in them."""

_HEAP = 1 << 9

_facets = attrgetter(
    "__code__", "__defaults__", "__kwdefaults__", "__name__", "__doc__", "__dict__"
)


def _read_addresses() -> Callable[[tuple[object, ...]], bytes] | None:
    """Return what gives the addresses of the objects in a tuple as bytes, if that can be had."""
    try:
        from ctypes import string_at
    except ImportError:  # a Python that was built without
        return None
    start, width = tuple.__basicsize__, tuple.__itemsize__

    def read(objects: tuple[object, ...]) -> bytes:
        return string_at(id(objects) + start, len(objects) * width)

    probe = (object(), None, object())
    return read if read(probe) == struct.pack("3P", *map(id, probe)) else None


_addresses: list[Callable[[tuple[object, ...]], bytes] | None] = []


class Watch:
    """
    Tells whether objects hold, and names are bound to, the same objects as when it was made.

    What it has seen is kept alive.

    Args:
        holders: Functions, classes, cells, dicts, and what :func:`holders_in` has found.
        spaces: Namespaces, with what names of each were bound to, and names that it did not have.

    Attributes:
        empty: Whether there is nothing to look at.
    """

    __slots__ = ("_absent", "_bytes", "_count", "_holders", "_keyed", "_named", "_seen", "empty")

    def __init__(
        self,
        holders: Iterable[object],
        spaces: Iterable[tuple[dict[str, Any], dict[str, object], Iterable[str]]] = (),
    ) -> None:
        self._holders = list({id(each): each for each in holders}.values())
        # Neither isinstance() nor iteration: a class may have ways of its own for these.
        dicts: Any = (each for each in self._holders if issubclass(type(each), dict))
        self._keyed: list[Iterable[Any]] = [dict.keys(each) for each in dicts]
        self._keyed = [each for each in self._keyed if _keys_tell(each)]
        self._named: list[tuple[Any, dict[str, Any]]] = []
        self._absent: list[tuple[KeysView[str], frozenset[str]]] = []
        seen = self._look()
        for space, found, absent in spaces:
            if found:
                # One name would be got without a tuple around it.
                names = [*found, *found][: max(2, len(found))]
                self._named.append((itemgetter(*names), space))
                seen += map(found.__getitem__, names)
            if absent:
                self._absent.append((space.keys(), frozenset(absent)))
        if len(self._keyed) > _FEW:
            self._keyed = [_Chained(self._keyed)]
        self.empty = not (self._holders or self._named or self._absent)
        self._seen = tuple(seen)
        self._count = len(seen)
        self._bytes = b""
        if self._count >= _MANY and IS_CPYTHON:
            if not _addresses:
                _addresses.append(_read_addresses())
            read = _addresses[0]
            if read is not None:
                self._bytes = read(self._seen)

    def holds(self) -> bool:
        """Tell whether nothing has changed."""
        try:  # as _look() does: a hot path
            held: Any = get_referents(*self._holders) if IS_CPYTHON else _referents(self._holders)
            for keys in self._keyed:
                held += keys
            for get, space in self._named:
                held += get(space)
        except (KeyError, RuntimeError):  # gone, or another thread changes a dict just now
            return False
        if self._bytes:
            read: Any = _addresses[0]
            # A tuple of its own: nobody else changes it while its memory is read.
            if read(tuple(held)) != self._bytes:
                return False
        elif len(held) != self._count or not all(map(is_, held, self._seen)):
            return False
        for names, absent in self._absent:  # noqa: SIM110 - a generator costs more
            if not names.isdisjoint(absent):
                return False
        return True

    def _look(self) -> list[object]:
        held: Any = get_referents(*self._holders) if IS_CPYTHON else _referents(self._holders)
        for keys in self._keyed:
            held += keys
        return list(held)


class _Chained:
    """The keys of many dicts, one after the other."""

    __slots__ = ("_views",)

    def __init__(self, views: list[Iterable[Any]]) -> None:
        self._views = views

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self._views)


_FEW = 8
"""From so many dicts on it pays to have their keys in one go."""


def _keys_tell(keys: Any) -> bool:
    """
    Whether the same values in the same order may have other keys.

    A new key comes last. So it is seen by its value in the dict of a class, which ends with what
    the class statement itself has put there.
    """
    last = next(reversed(keys), None)
    return not (last is None or (isinstance(last, str) and last[:2] == "__" == last[-2:]))


def _referents(holders: Iterable[object]) -> list[object]:
    """Return what is looked at on PyPy, whose collector does not see all attributes."""
    held: list[object] = []
    for each in holders:
        if isinstance(each, (dict, MappingProxyType)):
            held += [*each, *each.values()]
        elif isinstance(each, FunctionType):
            held += _facets(each)
        elif isinstance(each, CellType):
            held += get_referents(each)
        elif isinstance(each, type):
            held += each.__bases__
    return held


def holders_in(value: object, is_fixed: Callable[[object], bool]) -> list[object] | None:
    """
    Find what holds the content of a value, for a :class:`Watch`.

    Args:
        value: Anything.
        is_fixed: Tells what can change only by being replaced.

    Returns:
        The lists, dicts, instances in it; None if something in it is opaque.
    """
    holders: list[object] = []
    seen: dict[int, object] = {}
    todo = [value]
    left = _MOST
    while todo:
        obj = todo.pop()
        kind = type(obj)
        if id(obj) in seen or is_fixed(obj) or _is_leaf(kind):
            continue
        seen[id(obj)] = obj
        inside = get_referents(obj)
        if kind not in _UNCHANGING:
            if not IS_CPYTHON or not (kind in _CONTAINERS or kind is CellType or _is_plain(kind)):
                return None
            holders.append(obj)
            if kind not in _CONTAINERS:
                inside += _attributes(obj)
        left -= len(inside)
        if left < 0:
            return None
        if not ATOMS.issuperset(map(type, inside)):
            todo += inside
    return holders


def _attributes(obj: object) -> tuple[object, ...]:
    """Return the dict of an instance: a Python may keep attributes apart until it is asked for."""
    try:
        return (object.__getattribute__(obj, "__dict__"),)
    except AttributeError:
        return ()


def _is_leaf(kind: type) -> bool:
    return (
        kind is object
        or issubclass(kind, _BY_IDENTITY)
        or (kind.__module__ in ("_thread", "_io") and kind.__name__ not in IN_MEMORY)
        or (kind.__module__, kind.__name__) in _IMMUTABLE
    )


_plain: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


def _is_plain(kind: type) -> bool:
    """
    Tell classes written in Python, whose instances hold attributes, slots, and items at most.

    A class written in C has data of its own in its instances, so these are larger than those of a
    class in Python with the same slots.
    """
    found = _plain.get(kind)
    if found is None:
        found = _plain[kind] = _has_python_size(kind)
    return found


def _has_python_size(kind: Any) -> bool:
    base = next(each for each in kind.__mro__ if not each.__flags__ & _HEAP)
    if not kind.__flags__ & _HEAP or base not in (object, *_CONTAINERS, *_UNCHANGING):
        return False
    if OrderedDict in kind.__mro__:  # its order is out of sight
        return False
    if base.__itemsize__:  # a class derived from tuple can have no slots
        like = type("Like", (base,), {} if kind.__dictoffset__ else {"__slots__": ()})
        return bool(like.__basicsize__ == kind.__basicsize__)
    slots = [f"slot{number}" for number in range(sum(map(_count_slots, kind.__mro__)))]
    slots += [
        name
        for name, offset in (("__dict__", "__dictoffset__"), ("__weakref__", "__weakrefoffset__"))
        if getattr(kind, offset) and not getattr(base, offset)
    ]
    return bool(type("Like", (base,), {"__slots__": slots}).__basicsize__ == kind.__basicsize__)


def _count_slots(kind: type) -> int:
    if not kind.__flags__ & _HEAP:
        return 0
    return sum(type(value) is MemberDescriptorType for value in vars(kind).values())
