"""
What code names, and whether what a function captured is still what was pickled.

A function that travels by value carries the values of its captured variables and of the globals
that it names, as they are when it is submitted (PARITY L12-L14). To pickle it costs some hundred
microseconds, to look whether these values are still the same costs less than one.
"""

from __future__ import annotations

import builtins
import functools
import gc
import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from operator import attrgetter, itemgetter
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType, NoneType
from typing import Any, NamedTuple, cast

from remote_executor.payload.code.digests import same_bytes
from remote_executor.payload.code.dispatch import parts_by_dispatch
from remote_executor.payload.code.families import (
    get_cache_token,
    registered_with,
    virtual_bases,
)
from remote_executor.payload.code.fingerprints import fingerprint
from remote_executor.payload.code.names import ATOMS, LRU_CACHE
from remote_executor.payload.code.steps import IS_CPYTHON, named_steps
from remote_executor.payload.code.watch import Watch, holders_in

__all__ = [
    "Captures",
    "Facts",
    "facts",
    "is_code",
    "is_dispatcher",
    "is_fixed",
    "same_bytes",
]

_FIXED = ATOMS | {getattr(builtins, "sentinel", bool)}  # from Python 3.15 on
_READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_LOOK_AT_ALL = frozenset({"globals", "eval", "exec", "vars"})
_GETS = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_GLOBALS = frozenset({"__globals__", "f_globals"})
_WRITES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
_WRITES_FREE = frozenset({"STORE_DEREF", "DELETE_DEREF"})

_DISPATCHER = cast("FunctionType", functools.singledispatch(lambda _: None)).__code__


class _Mark(Enum):
    EMPTY = 1


class Facts(NamedTuple):
    """
    What a code object does with names that are not its own.

    Attributes:
        names: Globals (or builtins) that it reads or writes, also in code nested in it.
        written_free: Captured variables that it assigns.
        writes_globals: Whether it assigns a global.
        looks_at_all: Whether it may look at all globals, as ``eval`` does.
        looks_at_subclasses: Whether it names ``__subclasses__``.
        imports: Modules that it imports.
    """

    names: tuple[str, ...]
    written_free: frozenset[str]
    writes_globals: bool
    looks_at_all: bool = False
    looks_at_subclasses: bool = False
    imports: tuple[str, ...] = ()


_facts: weakref.WeakKeyDictionary[CodeType, Facts] = weakref.WeakKeyDictionary()


def facts(code: CodeType) -> Facts:
    """Tell what a code object does with names that are not its own."""
    found = _facts.get(code)
    if found is not None:
        return found
    names: dict[str, None] = {}
    written_free: set[str] = set()
    imports: dict[str, None] = {}
    writes_globals = looks_at_all = subclasses = False
    for operation, name in named_steps(code):
        if operation in _READS:
            names[name] = None
            looks_at_all = looks_at_all or name in _LOOK_AT_ALL
        elif operation == "IMPORT_NAME":
            looks_at_all = looks_at_all or name == "__main__"
            imports[name] = None
        elif operation in _GETS:
            looks_at_all = looks_at_all or name in _GLOBALS
            subclasses = subclasses or name == "__subclasses__"
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
            looks_at_all |= inner.looks_at_all
            subclasses |= inner.looks_at_subclasses
            imports.update(dict.fromkeys(inner.imports))
    written_free.intersection_update(code.co_freevars)
    found = _facts[code] = Facts(
        tuple(names),
        frozenset(written_free),
        writes_globals,
        looks_at_all,
        subclasses,
        tuple(imports),
    )
    return found


def is_code(value: object) -> bool:
    """Tell code (functions, classes, modules), which has an identity, from data."""
    # Not by isinstance(): a proxy of wrapt says that it is a function, and is an object of its own.
    kind = type(value)
    if kind not in (FunctionType, LRU_CACHE) and not issubclass(kind, (type, ModuleType)):
        return False
    if isinstance(value, ModuleType) and sys.modules.get(value.__name__) is not value:
        return False  # it was made by hand
    # A method by dispatch is a function, and yet holds an object, which may change.
    return parts_by_dispatch(value) is None


def is_lru_cache(value: object) -> bool:
    """Tell whether something is what ``functools.lru_cache`` makes of a function."""
    return type(value) is LRU_CACHE and hasattr(value, "cache_parameters")


def is_dispatcher(value: object) -> bool:
    """Tell what ``functools.singledispatch`` made from other functions."""
    return type(value) is FunctionType and value.__code__ is _DISPATCHER


def is_fixed(value: object) -> bool:
    """Tell whether a value can only change by being replaced."""
    kind = type(value)
    if kind in _FIXED or is_code(value) or issubclass(kind, Enum):
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
    The values that pickles were made from, and whether they are still the same.

    Values that can only be replaced are compared by identity. Of all others, such as lists and
    arrays, what is in them is compared with what was in them. Of large globals only the identity
    and the length are, as :data:`WATCHED` bounds the cost.

    Attributes:
        pure: Whether a worker may rebuild the function once and call it again and again, as calls
            cannot leave a trace in it. Globals of ``__main__`` do not count, they stay by design.
    """

    __slots__ = (
        "_absent",
        "_content",
        "_fetched",
        "_large",
        "_main",
        "_main_values",
        "_more",
        "_opaque",
        "_own",
        "_print",
        "_registered",
        "_self_cells",
        "_sizes",
        "_spaces",
        "_token",
        "_unsent",
        "_values",
        "_watch",
        "_watched",
        "pure",
    )

    def __init__(self, root: object, visit: Any, main: dict[str, Any]) -> None:
        """
        Take note of what was pickled. Call :meth:`seal` when all is noted.

        Args:
            root: What was pickled, if that is a function or class. It is not kept alive.
            visit: What was met that travels by value: ``functions``, with the globals that each
                named and that went along; ``classes``; ``dispatchers``; ``modules``.
            main: The globals of ``__main__``.
        """
        self.pure = True
        self._main = main
        self._main_values: dict[str, object] = {}
        self._absent: dict[str, None] = {}
        # Of the root itself: what it is made of, and how many attributes it has.
        self._own: tuple[Any, ...] | None = None
        self._self_cells: list[CellType] = []
        # By the id of other globals than those of __main__: the globals, names, absent names.
        self._spaces: dict[int, tuple[dict[str, Any], dict[str, object], dict[str, None]]] = {}
        # What holds other objects: functions, classes, cells, their dicts.
        self._watched: list[object] = []
        # Values that may change in place, and the bytes that it takes to look at each.
        self._values: list[tuple[object, int]] = []
        self._content: list[object] = []
        # What is got anew each time, and what was got.
        self._fetched: list[tuple[Callable[[], object], object]] = []
        # Who is registered with abstract classes, and the token that tells when that was looked at.
        self._registered: list[tuple[type, object]] = []
        self._token: object = get_cache_token()
        # By id, for these (locks, executors) are nothing to keep alive.
        self._unsent: list[tuple[str, int, type]] = []
        for function, named in visit.functions:
            # What the standard library put around a function, such as a dataclass's __repr__,
            # keeps no state that is the program's.
            if not _is_of_python(function):
                self._note_globals(function, named, main)
                self._note_own(function, root)
        for cls in visit.classes:
            self._note_class(cls)
        for dispatcher in visit.dispatchers:
            self._watched.append(_behind(dispatcher.registry))
            self._note_content(dispatcher.registry.values())
        for module in visit.modules:
            self._note_members(vars(module))

    def add_global(self, name: str, value: object, cost: int) -> None:
        """
        Take note of a global of ``__main__`` that was pickled.

        Args:
            name: The global.
            value: What it is bound to.
            cost: Bytes to pickle if its content is to be compared; 0 if only it can be replaced.
        """
        self._main_values[name] = value
        if cost:
            self._values.append((value, cost))

    def add_fetched(self, fetch: Callable[[], object]) -> None:
        """
        Take note of something that no object holds.

        Args:
            fetch: Returns it.
        """
        self._fetched.append((fetch, fetch()))

    def add_unsent(self, name: str, value: object) -> None:
        """Take note of a global of ``__main__`` that cannot be pickled."""
        self._unsent.append((name, id(value), type(value)))

    def add_absent(self, name: str) -> None:
        """Take note of a global that ``__main__`` does not have."""
        self._absent[name] = None

    def seal(self, others: Sequence[Captures] = ()) -> Captures:
        """
        Take note of what is in all that was noted: from now on :meth:`hold` compares with it.

        Args:
            others: Those of the globals that it needs, to be compared as one with it. What is in
                values of theirs is compared up to :data:`WATCHED`, the smallest first.

        Returns:
            Itself.
        """
        watched = list(self._watched)
        values = [] if others else self._values
        for other in others:
            watched += other._watched
            self._main_values.update(other._main_values)
            self._unsent += other._unsent
            self._fetched += other._fetched
            self._registered += other._registered
            if other._token != self._token:
                self._token = None  # of some it is long ago
            for space, found, absent in other._spaces.values():
                self._note_space(space, found, absent)
            values += other._values
            values += [(value, _cost_of(value)) for value in other._content]
        opaque: list[object] = []
        large: list[Any] = []
        left = WATCHED
        for value, cost in sorted(values, key=itemgetter(1)):
            holders = holders_in(value, is_fixed) if cost <= left else None
            left -= cost if holders is not None else cost + OPAQUE
            if holders is not None:
                watched += holders
            elif left >= 0:
                opaque.append(value)
            else:
                large.append(value)
        for value in self._content:
            holders = holders_in(value, is_fixed)
            if holders is not None:
                watched += holders
            else:
                opaque.append(value)
        spaces = [(self._main, self._main_values, self._absent), *self._spaces.values()]
        watch = Watch(watched, spaces)
        self._watch = None if watch.empty else watch
        self._print = fingerprint(opaque) if opaque else None
        self._opaque = opaque
        self._large = [value for value in large if _has_length(value)]
        self._sizes = list(map(len, self._large))
        more = opaque, self._large, self._unsent, self._self_cells, self._fetched, self._registered
        self._more = any(more)
        return self

    def _note_space(
        self, space: dict[str, Any], found: dict[str, object], absent: Iterable[str]
    ) -> None:
        noted = self._spaces.setdefault(id(space), (space, {}, {}))
        noted[1].update(found)
        noted[2].update(dict.fromkeys(absent))

    def _note_globals(
        self, function: FunctionType, named: dict[str, Any], main: dict[str, Any]
    ) -> None:
        space = function.__globals__
        known = facts(function.__code__)
        if known.written_free:
            self.pure = False
        if space is main:
            return
        if known.writes_globals:
            self.pure = False
        self._note_space(space, named, (name for name in known.names if name not in space))
        self._note_content(named.values())

    def _note_own(self, function: FunctionType, root: object) -> None:
        for cell in function.__closure__ or ():
            value = _contents(cell)
            if value is root:
                self._self_cells.append(cell)
            else:
                self._watched.append(cell)
                self._note_content((value,))
        self._note_content((function.__defaults__,))
        for space in (function.__kwdefaults__, function.__dict__):
            if space:
                self._note_members(space)
        self._note_annotations(function)
        if function is root:
            self._own = *_facets(function), len(function.__dict__)
        else:
            self._watched += [function, function.__dict__]

    def _note_annotations(self, obj: object) -> None:
        noted = _annotations(obj)
        if noted:
            self._watched.append(noted)

    def _note_members(self, members: dict[Any, Any]) -> None:
        self._watched.append(members)
        self._note_content(members.values())

    def _note_content(self, values: Iterable[object]) -> None:
        """Take note of what may change in place."""
        loose = [value for value in values if not is_fixed(value)]
        if loose:
            self._content += loose
            self.pure = False

    def _note_class(self, cls: type) -> None:
        self._registered.append((cls, _registrations(cls)))
        self._watched.append(_behind(cls.__dict__))
        if cls.__bases__ != (object,):  # Python has no others put in the place of that
            self._watched.append(cls)
        for each in (cls, *cls.__dict__.values()):
            self._note_annotations(each)
        if issubclass(cls, Enum):
            self._watched += map(vars, cls)
            return
        self._note_content(
            value
            for name, value in cls.__dict__.items()
            if name[:2] != "__" and name not in _OF_PYTHON and not hasattr(type(value), "__get__")
        )

    def at_one_look(self) -> Callable[[], bool] | None:
        """Return what tells the same as :meth:`hold`, if it needs nothing of what was pickled."""
        one = self._own is None and not self._more and self._watch is not None
        return self._watch.holds if one and self._watch is not None else None

    def hold(self, root: Any) -> bool:
        """
        Tell whether all values are what they were.

        Args:
            root: What was pickled.
        """
        # A hot path. To compare five attributes by name takes half as long as in a loop.
        own = self._own
        if own is not None and (
            root.__code__ is not own[0]
            or root.__defaults__ is not own[1]
            or root.__kwdefaults__ is not own[2]
            or root.__name__ is not own[3]
            or root.__doc__ is not own[4]
            or len(root.__dict__) != own[5]
        ):
            return False
        watch = self._watch
        return (watch is None or watch.holds()) and (not self._more or self._rest_holds(root))

    def _rest_holds(self, root: object) -> bool:
        for cell in self._self_cells:
            if _contents(cell) is not root:
                return False
        for name, identity, kind in self._unsent:
            found = self._main.get(name)
            if id(found) != identity or type(found) is not kind:
                return False
        if self._registered:
            token = get_cache_token()
            if token != self._token:
                if any(_registrations(cls) != known for cls, known in self._registered):
                    return False
                self._token = token
        if any(fetch() != known for fetch, known in self._fetched):
            return False
        if self._large and list(map(len, self._large)) != self._sizes:
            return False
        return self._print is None or self._print.holds(self._opaque)


_facets = attrgetter("__code__", "__defaults__", "__kwdefaults__", "__name__", "__doc__")


def _registrations(cls: type) -> object:
    return virtual_bases(cls), set(registered_with(cls))


_OF_PYTHON = ("_field_defaults", "_abc_impl")

WATCHED = 4096
"""
Bytes of pickle (and 256 times as many of arrays) up to which changes in place of globals are seen.

To pickle and compare 4 KB takes 20 to 40 µs, and so does to compare an array of 1 MB.
"""

OPAQUE = 192
"""So many bytes more counts a value that must be pickled to be compared, which takes 2 to 4 µs."""


def _has_length(value: object) -> bool:
    return type(value).__module__ == "builtins" and hasattr(type(value), "__len__")


def _cost_of(value: object) -> int:
    return fingerprint([value]).cost


def _behind(proxy: Any) -> Any:
    """Return the dict of a class, which shows a read-only view of it."""
    return gc.get_referents(proxy)[0] if IS_CPYTHON else proxy


def _is_of_python(function: FunctionType) -> bool:
    name = function.__globals__.get("__name__")
    return isinstance(name, str) and name.split(".")[0] in sys.stdlib_module_names


def _annotations(obj: object) -> dict[str, Any] | None:
    if type(obj) is FunctionType:
        return obj.__annotations__ if sys.version_info < (3, 14) else None
    return vars(obj).get("__annotations__") if isinstance(obj, type) else None


def _contents(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _Mark.EMPTY
