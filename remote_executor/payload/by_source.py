"""
Picklers for another version of Python: functions and classes go as source, the rest as ever.

They are those of :mod:`remote_executor.payload.by_value` but for what would be bytecode. A pickle
made here can be loaded by any Python that the library supports, as far as the modules and syntax
that it names are known there. Functions of ``__main__`` share one namespace at the worker in this
form, too, and classes keep their identity.
"""

from __future__ import annotations

import enum
import io
import sys
from collections.abc import Container, Sequence
from enum import Enum, EnumMeta
from types import CodeType, FunctionType
from typing import Any

from remote_executor.errors import CannotShip
from remote_executor.payload import mains, source
from remote_executor.payload.by_value import (
    ClientPickler,
    Visit,
    WorkerPickler,
)
from remote_executor.payload.captures import facts, is_code
from remote_executor.payload.code import namespace
from remote_executor.payload.code.alone import goes_alone
from remote_executor.payload.code.annotations import annotations_of
from remote_executor.payload.code.bundles import (
    copied_bundle,
    function_bundle,
    whole_bundle,
)
from remote_executor.payload.code.cloudpickle_inside import (
    goes_by_name,
    imported_submodules,
)
from remote_executor.payload.code.definitions import functions_in, is_namedtuple
from remote_executor.payload.code.names import LRU_CACHE, main_name
from remote_executor.payload.code.statements import contents, reduce_by_statement
from remote_executor.payload.code.units import Make, Units
from remote_executor.payload.finder import check_syntax, function_recipe
from remote_executor.payload.pickles import guarded, keeper
from remote_executor.payload.pythons import abroad, python_words

__all__ = ["Pythons", "dump_abroad", "dump_for_foreign_client", "dump_whole"]

Pythons = Sequence[tuple[str, tuple[int, ...]]]
"""Implementations and versions."""

_EMPTY = object()


class _BySource:
    """What the picklers for both ways have in common."""

    met_function: Any
    new_space: Any
    identity: Any

    visit: Visit
    main: dict[str, Any]
    pythons: Pythons
    portable = True
    _cells: set[int]
    _defined: set[type]

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is CodeType:
            raise CannotShip(
                f"code object {obj.co_name!r}",
                "bytecode is for one version of Python",
                python_words(),
            )
        if obj is EnumMeta:
            return getattr, (enum, "EnumMeta")  # its own name for itself is newer
        return super().reducer_override(obj)  # type: ignore[misc]

    # ---------------------------------------------------------------- functions

    def _dynamic_function_reduce(self, func: FunctionType) -> Any:
        owner = _owner(func)
        if owner is not None and owner not in self._defined:
            return getattr, (owner, func.__qualname__.rpartition(".")[2])
        decorated = _decorated(func)
        if decorated is not None:
            return decorated
        recipe = function_recipe(func)
        for implementation, version in self.pythons:
            check_syntax(recipe, implementation, version)
        cells = dict(zip(func.__code__.co_freevars, func.__closure__ or (), strict=True))
        self._cells.update(map(id, cells.values()))
        wanted = facts(func.__code__).names
        named = self.met_function(func, wanted)
        # Submodules that it uses by way of their package are imported there by this. Packages are
        # also globals that come apart.
        space = func.__globals__
        values = [space[name] for name in wanted if name in space]
        values += [value for _, value in contents(cells.values())]
        state = (
            dict(func.__dict__),
            _slots(func),
            [(name, cell, value) for name in cells for cell, value in contents([cells[name]])],
            main_name(func),
            ((), (), named),
            imported_submodules(func.__code__, values),
        )
        make = recipe, self.new_space(space, wanted, alone=goes_alone(func)), cells
        args = self.identity(func), source.make_function, make
        return namespace.make_function, args, state, None, None, source.fill_function

    # ------------------------------------------------------------------ classes

    def reduce_class(self, cls: Any) -> Any:
        """Tell how to make a class that no module has: as what it is, or else by its statement."""
        home = main_name(cls)
        if home is not None and "." in home and "<locals>" not in home:
            outer = getattr(sys.modules["__main__"], home.partition(".")[0])
            for name in home.split(".")[1:-1]:
                outer = getattr(outer, name)
            if outer not in self._defined:
                return getattr, (outer, home.rpartition(".")[2])
        self._defined.add(cls)
        return super().reduce_class(cls)  # type: ignore[misc]

    def definition(self, cls: Any) -> Any:
        """Tell how to make a class, as what it is or by its statement."""
        if _is_portable(cls):
            return super().definition(cls)  # type: ignore[misc]
        return reduce_by_statement(self, cls)


def _owner(func: FunctionType) -> type | None:
    """Return the class of ``__main__`` that a function is a method of."""
    home = main_name(func)
    if home is None or "." not in home:
        return None
    found: Any = sys.modules["__main__"]
    for name in home.split(".")[:-1]:
        found = getattr(found, name)
    return found if isinstance(found, type) else None


def _decorated(func: FunctionType) -> tuple[Any, ...] | None:
    """
    Have a decorator applied there, if it can be found by name and keeps nothing but the function.

    So what ``contextlib.contextmanager`` puts around a function is that of the Python there.
    """
    name = str(func.__globals__.get("__name__"))
    module = sys.modules.get(name)
    if module is None or name == "__main__" or func.__globals__ is not module.__dict__:
        return None
    values = [value for _, value in contents(func.__closure__ or ())]
    if len(values) == 1 and isinstance(values[0], FunctionType):
        for decorator in list(module.__dict__.values()):
            if (
                isinstance(decorator, FunctionType)
                and func.__code__ in decorator.__code__.co_consts
                and decorator.__code__.co_argcount == 1
                and goes_by_name(decorator)
            ):
                return decorator, (values[0],)
    if _is_of_python(func):
        raise CannotShip(
            f"{func.__qualname__}()",
            f"it was made by a part of Python's own module {name}, which differs from version "
            "to version",
            python_words(),
            "",
            "make it in a function of yours that is called there",
        )
    return None


def _is_of_python(function: FunctionType) -> bool:
    name = function.__globals__.get("__name__")
    return isinstance(name, str) and name.partition(".")[0] in sys.stdlib_module_names


def _is_portable(cls: type) -> bool:
    """Whether a class can be made elsewhere of what it holds: if only the script made that."""
    if issubclass(cls, Enum) or is_namedtuple(cls):
        return True
    for function in functions_in(cls):
        if goes_by_name(function):
            continue
        if _is_of_python(function):  # it may be another in another Python
            return False
        try:
            function_recipe(function)
        except CannotShip:
            return False
    return True


def _slots(func: Any) -> dict[str, Any]:
    return {
        "__name__": func.__name__,
        "__qualname__": func.__qualname__,
        "__module__": func.__module__,
        "__doc__": func.__doc__,
        "__defaults__": func.__defaults__,
        "__kwdefaults__": func.__kwdefaults__,
        "__annotations__": annotations_of(func),
    }


class SourcePickler(_BySource, WorkerPickler):
    """Pickles what a worker of another Python is to load."""

    def __init__(
        self, file: io.BytesIO, keep: Any, visit: Visit, own: Sequence[str], pythons: Pythons
    ) -> None:
        super().__init__(file, keep, visit, own)
        self.pythons = pythons
        self._spaces = {}
        self._defined = set()

    def dump_apart(self, value: object) -> object:
        """See whether a value can be pickled."""
        return SourcePickler(io.BytesIO(), keeper([]), Visit(), self.own, self.pythons).dump(value)


class ForeignClientPickler(_BySource, ClientPickler):
    """Pickles in a worker what a client of another Python is to load."""

    def __init__(self, file: io.BytesIO, protocol: int = 5, buffer_callback: Any = None) -> None:
        super().__init__(file, protocol, buffer_callback)
        self._defined = set()

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, FunctionType, LRU_CACHE)) and obj in mains.arrived:
            return ClientPickler.reducer_override(self, obj)
        return super().reducer_override(obj)

    def dump_apart(self, value: object) -> object:
        """See whether a value can be pickled."""
        return dump_for_foreign_client(value)


def dump_for_foreign_client(obj: object) -> tuple[bytes, list[memoryview]]:
    """Pickle an object in a worker for a client of another Python. See :func:`dump_abroad`."""
    file = io.BytesIO()
    buffers: list[memoryview] = []
    try:
        ForeignClientPickler(file, 5, keeper(buffers)).dump(obj)
    except CannotShip as error:
        raise error.between(python_words(), abroad.client) from error.__cause__
    return file.getvalue(), buffers


_units: dict[Any, Units] = {}
"""The units of ``__main__`` as source, for each set of other Pythons."""


def dump_abroad(
    obj: object, what: str, pythons: Pythons, extra: Sequence[str] = ()
) -> tuple[bytes, list[memoryview]]:
    """
    Pickle an object for workers of other Pythons, with source in place of bytecode.

    Args:
        obj: Anything.
        what: What it is, in the words of an error.
        pythons: The other Pythons as far as they are known.
        extra: Names of ``__main__`` that are needed, too.

    Returns:
        The pickle and its large buffers.

    Raises:
        CannotShip: If code in it cannot be sent.
        PayloadError: If something else in it cannot be pickled.
    """
    units, make = _units_for(pythons)

    def way(part: object) -> tuple[bytes, list[memoryview]]:
        if what == "function" and is_code(part):
            return function_bundle(part, extra, (), units, make)[:2]
        return copied_bundle(part, what, extra, units, make)

    return guarded(way, obj, what)


def dump_whole(
    without: Container[str], withheld: Sequence[str], pythons: Pythons
) -> tuple[bytes, list[memoryview]]:
    """
    Pickle all names of ``__main__`` for workers of other Pythons.

    Args:
        without: See :func:`remote_executor.payload.code.bundles.whole_bundle` ...
        withheld: ... and so this.
        pythons: The other Pythons as far as they are known.
    """
    return whole_bundle(without, withheld, _units_for(pythons)[0])


def _units_for(pythons: Pythons) -> tuple[Units, Make]:
    def make(file: io.BytesIO, keep: Any, visit: Visit, own: Sequence[str]) -> SourcePickler:
        return SourcePickler(file, keep, visit, own, pythons)

    key = tuple(pythons)
    units = _units.get(key)
    if units is None:
        units = _units[key] = Units(make)
    return units, make
