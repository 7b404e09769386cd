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
from copy import copy
from enum import Enum
from functools import partial
from itertools import repeat
from operator import attrgetter, is_, itemgetter
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType, NoneType
from typing import Any, NamedTuple, cast

from remote_executor.payload.code.digests import same_bytes
from remote_executor.payload.code.fingerprints import Print, fingerprint
from remote_executor.payload.code.steps import named_steps

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
_LOOK_AT_ALL = frozenset({"globals", "eval", "exec", "vars"})
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
        looks_at_all: Whether it may look at all globals, as ``eval`` does.
    """

    names: tuple[str, ...]
    written_free: frozenset[str]
    writes_globals: bool
    looks_at_all: bool = False


_facts: weakref.WeakKeyDictionary[CodeType, Facts] = weakref.WeakKeyDictionary()


def facts(code: CodeType) -> Facts:
    """Tell what a code object does with names that are not its own."""
    found = _facts.get(code)
    if found is not None:
        return found
    names: dict[str, None] = {}
    written_free: set[str] = set()
    writes_globals = looks_at_all = False
    for operation, name in named_steps(code):
        if operation in _READS:
            names[name] = None
            looks_at_all = looks_at_all or name in _LOOK_AT_ALL
        elif operation == "IMPORT_NAME":
            looks_at_all = looks_at_all or name == "__main__"
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
    written_free.intersection_update(code.co_freevars)
    found = _facts[code] = Facts(
        tuple(names), frozenset(written_free), writes_globals, looks_at_all
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
    The values that pickles were made from, and whether they are still the same.

    Values that can only be replaced are compared by identity. All others, such as lists and
    arrays, are *loose*: what is in them is compared with what was in them. Of large globals only
    the identity and the length are, as :data:`WATCHED` bounds the cost.

    Attributes:
        pure: Whether a worker may rebuild the function once and call it again and again, as calls
            cannot leave a trace in it. Globals of ``__main__`` do not count, they stay by design.
    """

    __slots__ = (
        "_bases",
        "_cells",
        "_functions",
        "_large",
        "_loose",
        "_main",
        "_main_names",
        "_main_values",
        "_members",
        "_more",
        "_names",
        "_own",
        "_print",
        "_unsent",
        "_values",
        "cost",
        "pure",
    )

    def __init__(self, root: object, visit: Any, main: dict[str, Any]) -> None:
        """
        Take note of what was pickled.

        Args:
            root: What was pickled, if that is a function or class. It is not kept alive.
            visit: What was met that travels by value: ``functions``, with the globals that each
                named and that went along; ``classes``; ``dispatchers``; ``modules``.
            main: The globals of ``__main__``.
        """
        self.pure = True
        self.cost = 0
        self._main = main
        self._main_names: list[str] = []
        self._main_values: list[object] = []
        self._names: list[tuple[Mapping[str, Any], str, object]] = []
        self._cells: list[tuple[CellType, object]] = []
        self._own: _Facets | None = None
        self._functions: list[tuple[Any, _Facets]] = []
        # Attributes of classes, and what is registered with dispatchers.
        self._members: list[tuple[Mapping[Any, object], list[object]]] = []
        self._bases: list[tuple[type, tuple[type, ...]]] = []
        self._loose: list[Callable[[], object]] = []
        self._values: list[tuple[Callable[[], object], int]] = []
        self._large: list[tuple[Callable[[], object], int]] = []
        # By id, for these (locks, executors) are nothing to keep alive.
        self._unsent: list[tuple[dict[str, Any], str, int, type]] = []
        for function, named in visit.functions:
            # What the standard library put around a function, such as a dataclass's __repr__,
            # keeps no state that is the program's.
            if not _is_of_python(function):
                self._note_globals(function, named, main)
                self._note_own(function, root)
        for cls in visit.classes:
            self._note_class(cls)
        for dispatcher in visit.dispatchers:
            self._members.append((dispatcher.registry, list(dispatcher.registry.values())))
            for cls, registered in dispatcher.registry.items():
                if not is_fixed(registered):
                    self._add_loose(partial(dispatcher.registry.get, cls))
        for module in visit.modules:
            self._members.append((module.__dict__, list(module.__dict__.values())))
            self._add_loose(partial(_data_of_module, module))
        self._print: Print | None = None
        self._settle()

    def add_global(self, name: str, value: object, cost: int) -> None:
        """
        Take note of a global of ``__main__`` that was pickled.

        Args:
            name: The global.
            value: What it is bound to.
            cost: Bytes to pickle if its content is to be compared; 0 if only it can be replaced.
        """
        self._main_names.append(name)
        self._main_values.append(value)
        if cost:
            fetch = partial(self._main.get, name)
            if cost > WATCHED:
                self._large.append((fetch, _length(value)))
            else:
                self._values.append((fetch, cost))
        self._settle()

    def add_unsent(self, name: str, value: object) -> None:
        """Take note of a global of ``__main__`` that cannot be pickled."""
        self._unsent.append((self._main, name, id(value), type(value)))
        self._settle()

    def add_absent(self, name: str) -> None:
        """Take note of a global that ``__main__`` does not have."""
        self._main_names.append(name)
        self._main_values.append(_Mark.MISSING)

    def joined(self, others: Sequence[Captures]) -> Captures:
        """
        Return this one together with those of the globals that it needs, to be compared as one.

        Args:
            others: Those of the globals. What is in them is compared up to :data:`WATCHED`, the
                smallest first.
        """
        made = copy(self)
        for slot in ("_main_names", "_main_values", "_names", "_cells", "_functions", "_members",
                     "_bases", "_large", "_unsent"):  # fmt: skip
            setattr(made, slot, list(getattr(self, slot)))
        values = list(self._values)
        for other in others:
            made._main_names += other._main_names
            made._main_values += other._main_values
            made._names += other._names
            made._cells += other._cells
            made._functions += other._functions
            made._members += other._members
            made._bases += other._bases
            made._unsent += other._unsent
            made._large += other._large
            values += other._values
            # Attributes of classes and functions: they are few, and as small as values.
            values += [(fetch, _cost_of(fetch())) for fetch in other._loose]
        left = WATCHED
        made._values = []
        for fetch, cost in sorted(values, key=_second):
            left -= cost
            if left >= 0:
                made._values.append((fetch, cost))
            else:
                made._large.append((fetch, _length(fetch())))
        made._settle()
        return made

    def _settle(self) -> None:
        fetches = [*self._loose, *(fetch for fetch, _ in self._values)]
        self._more = bool(
            self._cells
            or self._functions
            or self._members
            or fetches
            or self._unsent
            or self._large
        )
        self._print = fingerprint([fetch() for fetch in fetches]) if fetches else None

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
        for name, value in named.items():
            if is_fixed(value):
                self._names.append((space, name, value))
            else:
                self._loose.append(partial(space.get, name))
                self.pure = False
        for name in known.names:
            if name not in space:
                self._names.append((space, name, _Mark.MISSING))

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
        noted = _annotations(function)
        if noted:
            self._members.append((noted, list(noted.values())))
        for space in (function.__kwdefaults__ or {}, function.__dict__):
            for name, value in space.items():
                if is_fixed(value):
                    self._names.append((space, name, value))
                else:
                    self._add_loose(partial(space.get, name))
        own = _facets(function), len(function.__dict__)
        if function is root:
            self._own = own
        else:
            self._functions.append((reference, own))

    def _note_class(self, cls: type) -> None:
        self._members.append((cls.__dict__, list(cls.__dict__.values())))
        self._bases.append((cls, cls.__bases__))
        for noted in map(_annotations, (cls, *cls.__dict__.values())):
            if noted:
                self._members.append((noted, list(noted.values())))
        if issubclass(cls, Enum):
            for member in cls:
                self._members.append((vars(member), list(vars(member).values())))
            return
        for name, value in cls.__dict__.items():
            of_python = name[:2] == "__" or name in ("_field_defaults", "_abc_impl")
            if not of_python and not is_fixed(value) and not hasattr(type(value), "__get__"):
                self._add_loose(partial(cls.__dict__.get, name))

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
            facets, size = self._own
            if len(root.__dict__) != size or not all(map(is_, _facets(root), facets)):
                return False
        if self._main_names and not all(
            map(is_, map(self._main.get, self._main_names, repeat(_MISSING)), self._main_values)
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
        for reference, (facets, size) in self._functions:
            function = reference()
            if (
                function is None
                or len(function.__dict__) != size
                or not all(map(is_, _facets(function), facets))
            ):
                return False
        for members, values in self._members:
            if len(values) != len(members) or not all(map(is_, values, members.values())):
                return False
        for cls, bases in self._bases:
            if cls.__bases__ is not bases:
                return False
        for space, name, identity, kind in self._unsent:
            found = space.get(name)
            if id(found) != identity or type(found) is not kind:
                return False
        for fetch, length in self._large:
            if _length(fetch()) != length:
                return False
        return self._print is None or self._print.holds(
            [fetch() for fetch in self._loose] + [fetch() for fetch, _ in self._values]
        )


_MISSING = _Mark.MISSING


_Facets = tuple[tuple[Any, ...], int]

_facets = attrgetter("__code__", "__defaults__", "__kwdefaults__", "__name__", "__doc__")

WATCHED = 4096
"""
Bytes of pickle (and 256 times as many of arrays) up to which changes in place of globals are seen.

To pickle and compare 4 KB takes 20 to 40 µs, and so does to compare an array of 1 MB.
"""

_second = itemgetter(1)


def _length(value: object) -> int:
    try:
        return len(value) if type(value).__module__ == "builtins" else -1  # type: ignore[arg-type]
    except TypeError:
        return -1


def _cost_of(value: object) -> int:
    return fingerprint([value]).cost


def _data_of_module(module: ModuleType) -> list[object]:
    return [value for value in list(module.__dict__.values()) if not is_fixed(value)]


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


def _defaults(reference: Callable[[], Any]) -> object:
    function = reference()
    return None if function is None else function.__defaults__
