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
from collections.abc import Sequence
from enum import Enum, EnumMeta
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

from remote_executor.errors import CannotShip, PayloadError
from remote_executor.payload import mains, source
from remote_executor.payload.by_value import (
    MAIN_NAMESPACE,
    SKIPPED,
    ClientPickler,
    Visit,
    WorkerPickler,
    code_token,
)
from remote_executor.payload.captures import LRU_CACHE, facts, is_code
from remote_executor.payload.code.cloudpickle_inside import (
    goes_by_name,
    imported_submodules,
    tracker_of,
)
from remote_executor.payload.code.definitions import functions_in, is_namedtuple
from remote_executor.payload.finder import check_syntax, class_source, function_recipe
from remote_executor.payload.pickles import keeper, plainly
from remote_executor.payload.pythons import abroad, python_words

__all__ = ["Pythons", "dump_abroad", "dump_for_foreign_client"]

Pythons = Sequence[tuple[str, tuple[int, ...]]]
"""Implementations and versions."""

_EMPTY = object()


class _Space:
    """Unpickles to new globals for functions of a module that travels with them."""

    __slots__ = ("args", "globals")

    def __init__(self, space: dict[str, Any]) -> None:
        self.globals = space  # so that its id stays its own
        self.args = space.get("__name__"), space.get("__file__")

    def __reduce__(self) -> tuple[Any, ...]:
        return source.new_space, self.args


class _BySource:
    """What the picklers for both ways have in common."""

    visit: Visit
    main: dict[str, Any]
    pythons: Pythons
    portable = True
    _spaces: dict[int, _Space]
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
        if kind is CellType:
            # What it holds comes later, since that may lead back here.
            return source.make_cell, ()
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
        named = self._globals(func.__globals__, facts(func.__code__).names)
        # Submodules that it uses by way of their package are imported there by this.
        values = (*named.values(), *(value for _, value in _contents(cells.values())))
        state = (
            dict(func.__dict__),
            _slots(func),
            _contents(cells.values()),
            mains.main_name(func),
            self._named(func.__globals__, named, func),
            imported_submodules(func.__code__, values),
        )
        args = recipe, self._space(func.__globals__), cells
        return source.make_function, args, state, None, None, source.fill_function

    def _globals(self, space: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
        return {name: space[name] for name in names if name in space and name not in SKIPPED}

    def _space(self, space: dict[str, Any]) -> Any:
        if space is self.main:
            return MAIN_NAMESPACE
        return self._spaces.setdefault(id(space), _Space(space))

    def _named(self, space: dict[str, Any], named: dict[str, Any], user: Any) -> tuple[Any, ...]:
        """Return what :func:`source.bind` binds."""
        if space is not self.main:
            return (), (), named
        code = [(name, code_token(value), value) for name, value in named.items() if is_code(value)]
        data = [
            self._data(name, value, user)  # type: ignore[attr-defined]
            for name, value in named.items()
            if not is_code(value) and name not in self.visit.open
        ]
        return code, data, {}

    # ------------------------------------------------------------------ classes

    def reduce_class(self, cls: Any) -> Any:
        """Tell how to make a class that no module has: as what it is, or else by its statement."""
        home = mains.main_name(cls)
        if home is not None and "." in home and "<locals>" not in home:
            outer = getattr(sys.modules["__main__"], home.partition(".")[0])
            for name in home.split(".")[1:-1]:
                outer = getattr(outer, name)
            if outer not in self._defined:
                return getattr, (outer, home.rpartition(".")[2])
        self._defined.add(cls)
        if _is_portable(cls):
            return super().reduce_class(cls)  # type: ignore[misc]
        tracker = tracker_of(cls)
        space = getattr(sys.modules.get(cls.__module__), "__dict__", {})
        found = class_source(
            cls, lambda code: facts(code).names, lambda name: _is_of_script(name, space)
        )
        if found is None:
            raise CannotShip(
                f"class {cls.__qualname__}",
                "there is no class statement of that name in a file that can be read",
                python_words(),
                "",
                "define it by a class statement in a file, or in a module that the server has",
            )
        for implementation, version in self.pythons:
            check_syntax(found.recipe, implementation, version)
        module = sys.modules.get(cls.__module__)
        globals_ = module.__dict__ if module is not None else {}
        space = self._space(globals_)
        named = self._globals(globals_, [name for name in found.names if name != cls.__name__])
        now = {name: value for name, value in named.items() if name in found.at_once}
        contents = _contents(found.cells.values())
        soon = _contents(cell for name, cell in found.cells.items() if name in found.at_once)
        args = found.recipe, space, found.cells, soon, self._named(globals_, now, cls), tracker
        state = space, self._named(globals_, named, cls), contents, self._attributes(cls, found)
        return (
            mains.rebuild_class,
            (source.define, args, tracker, home, code_token(cls)),
            state,
            None,
            None,
            source.fill_class,
        )

    def _attributes(self, cls: Any, found: Any) -> dict[str, Any]:
        """Return the attributes that may be others now than the class statement made them."""
        if issubclass(cls, Enum):
            return {}
        filename = found.recipe.filename
        attributes = {}
        for name, value in cls.__dict__.items():
            if (name[:2] == name[-2:] == "__") or name == "_abc_impl":
                continue
            if isinstance(value, FunctionType):
                code = value.__code__
                within = found.span[0] <= code.co_firstlineno <= found.span[1]
                if code.co_filename != filename or within:
                    continue
            elif hasattr(type(value), "__get__") or isinstance(value, type):
                continue
            else:
                try:
                    _ = plainly(value) or self.dump_apart(value)  # type: ignore[attr-defined]
                except Exception:
                    continue  # the class statement makes one there, as it did here
            attributes[name] = value
        return attributes


def _owner(func: FunctionType) -> type | None:
    """Return the class of ``__main__`` that a function is a method of."""
    home = mains.main_name(func)
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
    values = [value for _, value in _contents(func.__closure__ or ())]
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


def _is_of_script(decorator: str, space: dict[str, Any]) -> bool:
    """
    Whether a decorator is the script's, by the name that its expression begins with.

    What it did to a class is in the class. Python's own and those of libraries make methods that
    may be others in another Python.
    """
    value = space.get(decorator)
    home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    return home in (None, "__main__", "__mp_main__") or home not in sys.modules


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


def _contents(cells: Any) -> list[tuple[CellType, Any]]:
    """Return cells with what they hold; some are not assigned yet."""
    filled = []
    for cell in cells:
        try:
            filled.append((cell, cell.cell_contents))
        except ValueError:
            continue
    return filled


def _slots(func: Any) -> dict[str, Any]:
    slots = {
        "__name__": func.__name__,
        "__qualname__": func.__qualname__,
        "__module__": func.__module__,
        "__doc__": func.__doc__,
        "__defaults__": func.__defaults__,
        "__kwdefaults__": func.__kwdefaults__,
    }
    try:
        slots["__annotations__"] = func.__annotations__
    except Exception:  # pragma: no cover
        pass  # from Python 3.14 on they are evaluated now, and may name what is not there
    return slots


class SourcePickler(_BySource, WorkerPickler):
    """Pickles what a worker of another Python is to load."""

    def __init__(
        self, file: io.BytesIO, buffers: list[memoryview], visit: Visit, pythons: Pythons
    ) -> None:
        super().__init__(file, keeper(buffers), visit)
        self.pythons = pythons
        self._spaces = {}
        self._defined = set()

    def dump_apart(self, value: object) -> tuple[bytes, list[memoryview]]:
        """Pickle a global into a pickle of its own."""
        return _dump(value, self.visit, self.pythons)


class ForeignClientPickler(_BySource, ClientPickler):
    """Pickles in a worker what a client of another Python is to load."""

    def __init__(self, file: io.BytesIO, protocol: int = 5, buffer_callback: Any = None) -> None:
        super().__init__(file, protocol, buffer_callback)
        self.visit = Visit()
        self.main = {}  # globals go with each function, to be its own there
        self.pythons = ()
        self._spaces = {}
        self._defined = set()

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, FunctionType, LRU_CACHE)) and obj in mains.arrived:
            return ClientPickler.reducer_override(self, obj)
        return super().reducer_override(obj)

    def dump_apart(self, value: object) -> tuple[bytes, list[memoryview]]:
        """See whether a value can be pickled."""
        return dump_for_foreign_client(value)


def _dump(obj: object, visit: Visit, pythons: Pythons) -> tuple[bytes, list[memoryview]]:
    file = io.BytesIO()
    buffers: list[memoryview] = []
    SourcePickler(file, buffers, visit, pythons).dump(obj)
    return file.getvalue(), buffers


def dump_for_foreign_client(obj: object) -> tuple[bytes, list[memoryview]]:
    """Pickle an object in a worker for a client of another Python. See :func:`dump_abroad`."""
    file = io.BytesIO()
    buffers: list[memoryview] = []
    try:
        ForeignClientPickler(file, 5, keeper(buffers)).dump(obj)
    except CannotShip as error:
        raise error.between(python_words(), abroad.client) from error.__cause__
    return file.getvalue(), buffers


def dump_abroad(obj: object, what: str, pythons: Pythons) -> tuple[bytes, list[memoryview]]:
    """
    Pickle an object for workers of other Pythons, with source in place of bytecode.

    Args:
        obj: Anything.
        what: What it is, in the words of an error.
        pythons: The other Pythons as far as they are known.

    Returns:
        The pickle and its large buffers.

    Raises:
        CannotShip: If code in it cannot be sent.
        PayloadError: If something else in it cannot be pickled.
    """

    def way(part: object) -> tuple[bytes, list[memoryview]]:
        return _dump(part, Visit(), pythons)

    try:
        return way(obj)
    except PayloadError:
        raise
    except Exception as error:
        from remote_executor.payload.culprits import blame

        raise PayloadError(blame(obj, what, way), str(error) or type(error).__name__) from error
