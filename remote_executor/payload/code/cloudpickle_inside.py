"""
All that the library takes from cloudpickle's inside, and what it does in another way than that.

cloudpickle promises no more than ``dumps`` and ``loads``. What is used beyond that is imported here
and nowhere else, under names of our own, and tested against the oldest and the newest release that
the dependency admits, also with one of them at either end. Names that stand in pickles must be
found by both.

Code objects are taken apart here, not there: from release 3.1.3 on cloudpickle writes
``<dynamic-code>`` in the place of each file's name, so that tracebacks, warnings, ``inspect``,
debuggers and coverage know no line of what was sent.

It imports cloudpickle, which takes some milliseconds: import it when something needs it.
"""

from __future__ import annotations

import copyreg
import gc
import logging
import marshal
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from io import TextIOWrapper
from types import (
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    ModuleType,
)
from typing import Any, ClassVar, cast

try:
    import cloudpickle
    from cloudpickle import cloudpickle as inside

    # Releases before 3.1.1 do not, on CPython 3.14.
    if not inside._should_pickle_by_reference(inside._make_function):
        raise RuntimeError(f"release {cloudpickle.__version__} does not find its own functions")
except ImportError:
    raise
except Exception as exc:  # cloudpickle 3.1.3 on PyPy 8.0, for one
    raise ImportError(
        f"the installed cloudpickle does not work on this Python, {sys.implementation.name} "
        f"{sys.version.split()[0]} ({type(exc).__name__}: {exc}), so nothing can travel by value; "
        "install a release of cloudpickle that knows this Python, or use another Python"
    ) from exc

from remote_executor.payload.captures import facts
from remote_executor.payload.code.annotations import with_plain_annotations
from remote_executor.payload.code.steps import IS_CPYTHON, named_steps

__all__ = [
    "Pickler",
    "fill_function",
    "goes_by_name",
    "imported_submodules",
    "track",
    "tracked",
    "tracker_of",
]

#: Whether a function, class or module is found by its name in a module, other than ``__main__``.
goes_by_name = cast("Callable[[Any], bool]", inside._should_pickle_by_reference)

#: Return the id of a class, which is the same in all processes that know the class.
tracker_of = cast("Callable[[type], str]", inside._get_or_create_tracker_id)

#: Note the id of a class that was just made, and return the class: an earlier one, if there is one.
track = cast("Callable[[str, Any], Any]", inside._lookup_class_or_track)

#: Return the submodules that code gets at by way of packages among the values that it names.
imported_submodules = cast(
    "Callable[[CodeType, Iterable[object]], list[ModuleType]]", inside._find_imported_submodules
)


def tracked(tracker: str) -> Any:
    """Return the class that has this id, or None."""
    return inside._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker)


# ------------------------------------------------------------------------ code objects

#: What the constructor of code objects takes, in its order.
_CODE = [
    "co_argcount",
    "co_posonlyargcount",
    "co_kwonlyargcount",
    "co_nlocals",
    "co_stacksize",
    "co_flags",
    "co_code",
    "co_consts",
    "co_names",
    "co_varnames",
    "co_filename",
    "co_name",
    "co_firstlineno",
    "co_linetable" if hasattr(CodeType, "co_linetable") else "co_lnotab",
    "co_freevars",
    "co_cellvars",
]
if hasattr(CodeType, "co_exceptiontable"):  # pragma: no branch - from CPython 3.11 on
    _CODE.insert(_CODE.index("co_firstlineno"), "co_qualname")
    _CODE.insert(_CODE.index("co_freevars"), "co_exceptiontable")


def _global_names(code: CodeType) -> Iterator[str]:
    return (name for operation, name in named_steps(code) if operation.endswith("_GLOBAL"))


if not IS_CPYTHON:  # cloudpickle asks dis, which fails there
    inside._walk_global_ops = _global_names


def _reduce_code(code: CodeType) -> tuple[Any, ...]:
    if not IS_CPYTHON:
        # The constructor takes other things there, and cloudpickle 3.1.3 does not know which.
        return marshal.loads, (marshal.dumps(code),)
    parts = {name: getattr(code, name) for name in _CODE}
    parts["co_consts"] = tuple(_one_string(each, code) for each in parts["co_consts"])
    return CodeType, tuple(parts.values())


def _one_string(constant: Any, code: CodeType) -> Any:
    """
    Return a constant, and the very string in the place of one that is equal to the qualified name.

    The code of a class statement has its name twice. CPython 3.13 makes them one object the first
    time that code is compiled, and two while earlier code of the same name lives. A pickle tells
    that apart: a cell of a notebook that runs again would be sent again.
    """
    name = getattr(code, "co_qualname", None)  # from CPython 3.11 on
    return name if type(constant) is str and constant == name else constant


# ------------------------------------------------------------------- what it would convert


def _reduce_proxy(proxy: Any) -> tuple[Any, ...]:
    """Send the mapping itself: it may be no dict, and others may have it, too."""
    mapping: Any = _beneath(proxy)
    for value in mapping.values():
        if type(value) is GetSetDescriptorType and _beneath(vars(value.__objclass__)) is mapping:
            return vars, (value.__objclass__,)
    if sys.version_info >= (3, 15) and "__module__" in mapping:  # it may be a class's
        for each in gc.get_referrers(mapping):
            if isinstance(each, type) and _beneath(vars(each)) is mapping:
                return vars, (each,)
    return MappingProxyType, (mapping,)


def _reduce_view(view: Any) -> tuple[Any, ...]:
    """Send the dict itself, for a view of it shows what becomes of it."""
    return _VIEWS[type(view)], (_beneath(view),)


def _beneath(view: object) -> object:
    """Return the mapping that a proxy or a view is made upon; on PyPy a copy."""
    found = gc.get_referents(view)
    return found[0] if len(found) == 1 else dict(view)  # type: ignore[call-overload]


_VIEWS: dict[type, Any] = {
    type(how(cls())): how
    for cls in (dict, OrderedDict)
    for how in (cls.keys, cls.values, cls.items)
}


def _reduce_text_file(file: TextIOWrapper) -> tuple[Any, ...]:
    for name in ("stdin", "stdout", "stderr"):
        if file is getattr(sys, name):
            return getattr, (sys, name)
    raise TypeError(f"cannot pickle {type(file).__name__!r} object, an open file")


#: What pickle itself refuses, or does right, and cloudpickle makes something else of: an array's
#: memory would arrive as bytes, an open file as its text, a logger as another one of its name.
_LEFT_TO_PICKLE = frozenset({memoryview, logging.Logger, logging.RootLogger})

_TABLE = {
    **{
        kind: how
        for kind, how in cloudpickle.Pickler.dispatch_table.maps[0].items()
        if kind not in _LEFT_TO_PICKLE
    },
    **dict.fromkeys(_VIEWS, _reduce_view),
    CodeType: _reduce_code,
    MappingProxyType: _reduce_proxy,
    TextIOWrapper: _reduce_text_file,
}


# --------------------------------------------------------------------------- functions


def make_cell() -> CellType:
    """Make a captured variable, which is filled later."""
    return CellType()


def _is_filled(cell: CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def fill_function(function: FunctionType, state: tuple[Any, ...]) -> None:
    """
    Finish a function.

    Args:
        function: The function.
        state: Its attributes, and what a function has besides: also what its captured variables
            hold, as pairs.
    """
    attributes, slots = state
    for cell, value in slots["__closure__"]:
        cell.cell_contents = value
    inside._function_setstate(function, (attributes, {**slots, "__closure__": None}))


_BUILT_IN = {type(None), type(...), type(NotImplemented), *inside._BUILTIN_TYPE_NAMES}

_merged: dict[type, tuple[dict[type, Any], dict[type, Any]]] = {}
"""For each pickler: what was last registered with ``copyreg``, and that together with its own."""


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's own, but that nothing becomes something else without a word."""

    reducers: ClassVar[dict[type, Any]] = {}
    """How to pickle some more types."""

    def __init__(self, file: Any, protocol: int | None = None, buffer_callback: Any = None) -> None:
        super().__init__(file, protocol, buffer_callback)
        self._cells: set[int] = set()

    @property
    def dispatch_table(self) -> dict[type, Any]:
        """How to pickle some types: as one dict, which is looked up many times faster than two."""
        registered = copyreg.dispatch_table
        merged = _merged.get(type(self))
        if merged is None or merged[0] != registered:
            merged = dict(registered), {**registered, **_TABLE, **self.reducers}
            _merged[type(self)] = merged
        return merged[1]

    def reducer_override(self, obj: Any) -> Any:
        """
        Tell how to rebuild a function or a class that no name leads to.

        What only says that it is one, such as a proxy of wrapt around a decorated function, is not.
        """
        kind = type(obj)
        if kind is FunctionType:
            return self._function_reduce(obj)
        if kind is CellType:
            if id(obj) not in self._cells:
                raise TypeError("cannot pickle 'cell' object")
            return make_cell, ()
        if not issubclass(kind, type):
            return NotImplemented
        if obj in _BUILT_IN or goes_by_name(obj):
            return inside._class_reduce(obj)
        return self.reduce_class(obj)

    def reduce_class(self, cls: Any) -> Any:
        """Tell how to make a class that no name leads to."""
        return inside._dynamic_class_reduce(cls)

    def _dynamic_function_reduce(self, func: FunctionType) -> Any:
        """
        Tell how to make a function that no name leads to.

        Its captured variables go as what they are, for others may have them, too; what they hold
        goes with the state, since that may lead back to the function.
        """
        code = func.__code__
        inside._extract_code_globals_cache.setdefault(code, dict.fromkeys(facts(code).names))
        plain = with_plain_annotations(func)
        maker, args, (attributes, slots), *_ = super()._dynamic_function_reduce(plain)
        cells = func.__closure__ or ()
        self._cells.update(map(id, cells))
        slots["__closure__"] = [(cell, cell.cell_contents) for cell in cells if _is_filled(cell)]
        parameters = getattr(func, "__type_params__", ())  # from Python 3.12 on
        if parameters:
            slots["__type_params__"] = parameters
        args = *args[:-1], func.__closure__
        return maker, args, (attributes, slots), None, None, fill_function
