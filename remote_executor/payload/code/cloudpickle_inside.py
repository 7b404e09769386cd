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

from collections import ChainMap
from collections.abc import Callable, Iterable
from types import CodeType, FunctionType, ModuleType
from typing import Any, ClassVar, cast

import cloudpickle
from cloudpickle import cloudpickle as inside

__all__ = [
    "Pickler",
    "fill_class",
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

#: Give a function or a class what cloudpickle's state says.
fill_function = cast("Callable[[FunctionType, Any], None]", inside._function_setstate)
fill_class = cast("Callable[[type, Any], Any]", inside._class_setstate)

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


def _reduce_code(code: CodeType) -> tuple[Any, ...]:
    return CodeType, tuple(getattr(code, name) for name in _CODE)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's own, with code objects that keep the names of their files."""

    dispatch_table: ClassVar[Any] = ChainMap(
        {CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table
    )
