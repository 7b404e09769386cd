"""
What code names, and whether what a function captured is still what was pickled.

A function that travels by value carries the values of its captured variables and of the globals
that it names, as they are when it is submitted (PARITY L12-L14). To pickle it costs some hundred
microseconds, to look whether these values are still the same costs less than one.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from functools import partial
from operator import is_
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType, NoneType
from typing import Any, NamedTuple, cast

from remote_executor.errors import PayloadError
from remote_executor.payload.code.steps import named_steps
from remote_executor.payload.pickles import dump

__all__ = [
    "Captures",
    "Facts",
    "facts",
    "is_code",
    "is_dispatcher",
    "is_fixed",
    "method_by_dispatch",
    "same_bytes",
]

_ATOMS = frozenset(
    {type(None), bool, int, float, complex, str, bytes, range, type(...), type(NotImplemented)}
)
_READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_WRITES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
_WRITES_FREE = frozenset({"STORE_DEREF", "DELETE_DEREF"})

LRU_CACHE: type = type(functools.lru_cache(lambda: None))
"""Of PyPy's, whose ``lru_cache`` is written in Python, it is that of functions."""

_DISPATCHER = cast("FunctionType", functools.singledispatch(lambda _: None)).__code__


class _Mark(Enum):
    MISSING = 1
    EMPTY = 2
    SELF = 3


class Facts(NamedTuple):
    """
    What a code object does with names that are not its own.

    Attributes:
        names: Globals (or builtins) that it reads or writes, also in code nested in it.
        written_free: Captured variables that it assigns.
        writes_globals: Whether it assigns a global.
    """

    names: tuple[str, ...]
    written_free: frozenset[str]
    writes_globals: bool


_facts: weakref.WeakKeyDictionary[CodeType, Facts] = weakref.WeakKeyDictionary()


def facts(code: CodeType) -> Facts:
    """Tell what a code object does with names that are not its own."""
    found = _facts.get(code)
    if found is not None:
        return found
    names: dict[str, None] = {}
    written_free: set[str] = set()
    writes_globals = False
    for operation, name in named_steps(code):
        if operation in _READS:
            names[name] = None
        elif operation in _WRITES:
            names[name] = None
            writes_globals = True
        elif operation in _WRITES_FREE:
            written_free.add(name)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = facts(constant)
            names.update(dict.fromkeys(inner.names))
            written_free |= inner.written_free
            writes_globals |= inner.writes_globals
    written_free.intersection_update(code.co_freevars)
    found = _facts[code] = Facts(tuple(names), frozenset(written_free), writes_globals)
    return found


def is_code(value: object) -> bool:
    """Tell code (functions, classes, modules), which has an identity, from data."""
    # Not by isinstance(): a proxy of wrapt says that it is a function, and is an object of its own.
    kind = type(value)
    if kind not in (FunctionType, LRU_CACHE) and not issubclass(kind, (type, ModuleType)):
        return False
    # A method by dispatch is a function, and yet holds an object, which may change.
    return method_by_dispatch(value) is None


def is_lru_cache(value: object) -> bool:
    """Tell whether something is what ``functools.lru_cache`` makes of a function."""
    return type(value) is LRU_CACHE and hasattr(value, "cache_parameters")


def is_dispatcher(value: object) -> bool:
    """Tell what ``functools.singledispatch`` made from other functions."""
    return type(value) is FunctionType and value.__code__ is _DISPATCHER


def method_by_dispatch(value: object) -> tuple[Any, str] | None:
    """
    Tell where a method of ``functools.singledispatchmethod`` was got from.

    Args:
        value: Perhaps the function that such an attribute gives.

    Returns:
        The object or class, and the attribute's name; None if it is something else.
    """
    if type(value) is not FunctionType or value.__code__.co_name != "_method":
        return None
    if value.__globals__ is not vars(functools) or not value.__closure__:
        return None
    cells = dict(zip(value.__code__.co_freevars, map(_contents, value.__closure__), strict=True))
    obj, cls = cells.get("obj"), cells.get("cls")
    wrapped = vars(value).get("__wrapped__")
    shadowed = set(getattr(obj, "__dict__", ()))
    for each in cast("type", cls if obj is None else type(obj)).__mro__:
        for name, attribute in vars(each).items():
            by_dispatch = isinstance(attribute, functools.singledispatchmethod)
            if by_dispatch and attribute.func is wrapped and name not in shadowed:
                return (cls if obj is None else obj), name
        shadowed.update(vars(each))  # what super() gives has no name that leads to it
    return None


def same_bytes(snapshot: memoryview, view: memoryview) -> bool:
    """
    Compare a view of a live object with a snapshot.

    Args:
        snapshot: A view of a whole bytes or bytearray.
        view: A flat view.
    """
    # A memoryview would compare item by item, a bytearray does it with memcmp.
    whole: Any = snapshot.obj
    if type(whole) is bytes:
        whole = bytearray(whole)
    return len(whole) == len(view) and bool(whole == view)


def is_fixed(value: object) -> bool:
    """Tell whether a value can only change by being replaced."""
    kind = type(value)
    if kind in _ATOMS or is_code(value) or isinstance(value, Enum):
        return True
    if kind is BuiltinFunctionType:
        return isinstance(value.__self__, (ModuleType, NoneType, type))  # type: ignore[attr-defined]
    if kind.__module__ == "dataclasses":  # the sentinels in the methods that it writes
        return True
    if kind is tuple or kind is frozenset:
        return all(map(is_fixed, value))  # type: ignore[call-overload]
    return False


class Captures:
    """
    The captured values that one pickle of a function was made from.

    Values that can only be replaced are compared by identity. All others, such as lists and
    arrays, are *loose*: they are pickled again and compared with a snapshot.

    Attributes:
        pure: Whether a worker may rebuild the function once and call it again and again, as calls
            cannot leave a trace in it. Globals of ``__main__`` do not count, they stay by design.
    """

    __slots__ = (
        "_cells",
        "_functions",
        "_loose",
        "_members",
        "_more",
        "_names",
        "_own",
        "_snapshot",
        "_unsent",
        "pure",
    )

    def __init__(
        self,
        root: object,
        functions: Sequence[tuple[FunctionType, dict[str, Any]]],
        classes: Sequence[type],
        dispatchers: Sequence[Any],
        main: dict[str, Any],
        unsent: AbstractSet[str],
        freeze: Callable[[list[memoryview]], list[memoryview]],
    ) -> None:
        """
        Take note of what was pickled.

        Args:
            root: What was pickled. It is not kept alive.
            functions: The functions that travel by value, with the globals that they named.
            classes: The classes that travel by value.
            dispatchers: What ``functools.singledispatch`` made that travels by value.
            main: The globals of ``__main__``.
            unsent: Globals of ``__main__`` that could not be pickled.
            freeze: Makes snapshots of buffers.

        Raises:
            PayloadError: If a loose value cannot be pickled.
        """
        self.pure = True
        self._names: list[tuple[dict[str, Any], str, object]] = []
        self._cells: list[tuple[CellType, object]] = []
        self._own: tuple[CodeType, object, object, int] | None = None
        self._functions: list[tuple[Any, CodeType, object, object, int]] = []
        # Attributes of classes, and what is registered with dispatchers.
        self._members: list[tuple[Mapping[Any, object], list[object]]] = []
        self._loose: list[Callable[[], object]] = []
        # By id, for these (locks, executors) are nothing to keep alive.
        self._unsent: list[tuple[dict[str, Any], str, int, type]] = []
        for function, named in functions:
            # What the standard library put around a function, such as a dataclass's __repr__,
            # keeps no state that is the program's.
            if not _is_of_python(function):
                self._note_globals(function, named, main, unsent)
                self._note_own(function, root)
        for cls in classes:
            self._note_class(cls)
        for dispatcher in dispatchers:
            self._members.append((dispatcher.registry, list(dispatcher.registry.values())))
            for cls, registered in dispatcher.registry.items():
                if not is_fixed(registered):
                    self._add_loose(partial(dispatcher.registry.get, cls))
        self._more = any((self._cells, self._functions, self._members, self._loose, self._unsent))
        self._snapshot: tuple[bytes, list[memoryview]] | None = None
        if self._loose:
            body, views = dump([fetch() for fetch in self._loose])
            self._snapshot = body, freeze(list(views))

    def _note_globals(
        self,
        function: FunctionType,
        named: dict[str, Any],
        main: dict[str, Any],
        unsent: AbstractSet[str],
    ) -> None:
        space = function.__globals__
        known = facts(function.__code__)
        if known.written_free or (known.writes_globals and space is not main):
            self.pure = False
        for name in known.names:
            value = named.get(name, _Mark.MISSING)
            if is_fixed(value):
                self._names.append((space, name, value))
            elif space is main and name in unsent:
                self._unsent.append((space, name, id(value), type(value)))
            else:
                self._loose.append(partial(space.get, name))
                self.pure = self.pure and space is main

    def _note_own(self, function: FunctionType, root: object) -> None:
        for cell in function.__closure__ or ():
            value = _contents(cell)
            if value is root:
                self._cells.append((cell, _Mark.SELF))
            elif is_fixed(value):
                self._cells.append((cell, value))
            else:
                self._add_loose(partial(_contents, cell))
        defaults = function.__defaults__
        reference = weakref.ref(function)
        if not is_fixed(defaults):
            self._add_loose(partial(_defaults, reference))
        for space in (function.__kwdefaults__ or {}, function.__dict__):
            for name, value in space.items():
                if is_fixed(value):
                    self._names.append((space, name, value))
                else:
                    self._add_loose(partial(space.get, name))
        own = function.__code__, defaults, function.__kwdefaults__, len(function.__dict__)
        if function is root:
            self._own = own
        else:
            self._functions.append((reference, *own))

    def _note_class(self, cls: type) -> None:
        self._members.append((cls.__dict__, list(cls.__dict__.values())))
        if issubclass(cls, Enum):
            return
        for name, value in cls.__dict__.items():
            of_python = name[:2] == "__" or name == "_field_defaults"
            if isinstance(value, (list, dict, set, bytearray)) and not of_python:
                self._add_loose(partial(getattr, cls, name, None))

    def _add_loose(self, fetch: Callable[[], object]) -> None:
        self._loose.append(fetch)
        self.pure = False

    def hold(self, root: Any) -> bool:
        """
        Tell whether all values are what they were.

        Args:
            root: What was pickled.
        """
        # The order is that of how often there is such a thing, for this is a hot path.
        if self._own is not None:
            code, defaults, kwdefaults, size = self._own
            if (
                root.__code__ is not code
                or root.__defaults__ is not defaults
                or root.__kwdefaults__ is not kwdefaults
                or len(root.__dict__) != size
            ):
                return False
        for space, name, value in self._names:
            if space.get(name, _MISSING) is not value:
                return False
        return not self._more or self._rest_holds(root)

    def _rest_holds(self, root: object) -> bool:
        for cell, value in self._cells:
            found = _contents(cell)
            if found is not value and (value is not _Mark.SELF or found is not root):
                return False
        for reference, code, defaults, kwdefaults, size in self._functions:
            function = reference()
            if (
                function is None
                or function.__code__ is not code
                or function.__defaults__ is not defaults
                or function.__kwdefaults__ is not kwdefaults
                or len(function.__dict__) != size
            ):
                return False
        for members, values in self._members:
            if len(values) != len(members) or not all(map(is_, values, members.values())):
                return False
        for space, name, identity, kind in self._unsent:
            found = space.get(name)
            if id(found) != identity or type(found) is not kind:
                return False
        return self._snapshot is None or self._same(*self._snapshot)

    def _same(self, body: bytes, snapshots: list[memoryview]) -> bool:
        try:
            now, views = dump([fetch() for fetch in self._loose])
        except PayloadError:
            return False  # to encode the function anew will say what is wrong
        return (
            body == now and len(snapshots) == len(views) and all(map(same_bytes, snapshots, views))
        )


_MISSING = _Mark.MISSING


def _is_of_python(function: FunctionType) -> bool:
    name = function.__globals__.get("__name__")
    return isinstance(name, str) and name.split(".")[0] in sys.stdlib_module_names


def _contents(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _Mark.EMPTY


def _defaults(reference: Callable[[], Any]) -> object:
    function = reference()
    return None if function is None else function.__defaults__
