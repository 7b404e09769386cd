"""
Picklers for what cannot go by name: functions and classes of ``__main__``, lambdas and their kin.

They are cloudpickle's, with four changes: functions of ``__main__`` share one namespace at the
worker (see :mod:`remote_executor.payload.mains`); what came from the client goes back to it by
name; functions under ``lru_cache`` travel too; a Future or an Executor is refused in clear words.

It imports cloudpickle, and so it is imported when the first object needs it.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import io
import itertools
import os
import re
import sys
import weakref
from collections.abc import Callable, Container, Iterable, Sequence
from types import BuiltinFunctionType, CellType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from remote_executor.payload import mains, source
from remote_executor.payload.captures import (
    facts,
    is_code,
    is_dispatcher,
    is_fixed,
    is_lru_cache,
)
from remote_executor.payload.code import cloudpickle_inside, namespace, rebuild
from remote_executor.payload.code.alone import goes_alone
from remote_executor.payload.code.annotations import annotations_of
from remote_executor.payload.code.arrays import is_array, reduce_view
from remote_executor.payload.code.calls import is_future, keeps_data
from remote_executor.payload.code.cloudpickle_inside import tracker_of
from remote_executor.payload.code.definitions import (
    REDUCERS,
    reduce_accessor,
    reduce_by_state,
    reduce_class,
    reduce_library,
    reduce_validated,
)
from remote_executor.payload.code.dispatch import reduce_method_by_dispatch
from remote_executor.payload.code.families import virtual_bases
from remote_executor.payload.code.fingerprints import loses_attributes
from remote_executor.payload.code.lines import files
from remote_executor.payload.code.names import (
    LRU_CACHE,
    OF_THE_MODULE,
    found_by_name,
    is_by_hand,
    main_name,
    names,
)
from remote_executor.payload.code.origins import (
    is_environment,
    loaded_inside,
    module_of_globals,
    origin_of_method,
)
from remote_executor.payload.code.statements import needs_statement, reduce_by_statement
from remote_executor.payload.pickles import keeper, plainly

if TYPE_CHECKING:
    import pickle

__all__ = [
    "Visit",
    "WorkerPickler",
    "dump_for_client",
]

#: Globals that belong to the module itself and not to the program.
SKIPPED = frozenset({"__builtins__", "__loader__", "__name__", "__spec__"})

#: Attributes that ``functools.singledispatch`` makes itself.
OF_DISPATCHERS = frozenset({"__wrapped__", "_clear_cache", "dispatch", "register", "registry"})

#: Attributes that ``functools.lru_cache`` makes itself.
OF_CACHES = frozenset({"__wrapped__", "cache_clear", "cache_info", "cache_parameters"})

_ACCESSORS = (property, classmethod, staticmethod, functools.partialmethod)

_serials: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_next_serial = itertools.count(1).__next__


class Visit:
    """
    What one pickling met, for who sends what it needs and wants to know when it is outdated.

    Attributes:
        functions: Each function that travels by value, with the globals that went along.
        classes: Each class that travels by value.
        dispatchers: Each function of ``functools.singledispatch`` that travels by value.
        modules: Each module that was made by hand.
        references: Names of ``__main__`` that stand in the pickle.
        names: Names of ``__main__`` that the code in it names.
        all: Whether that code may look at all of ``__main__``.
        subclasses: Whether it asks classes for their subclasses.
        atoms: How many texts and numbers are in it that a name binds.
        shared: Objects in it that have an identity and no name, by id. They stay alive, so that
            no other can have that id meanwhile.
    """

    __slots__ = (
        "all",
        "atoms",
        "classes",
        "dispatchers",
        "functions",
        "modules",
        "names",
        "references",
        "shared",
        "subclasses",
    )

    def __init__(self) -> None:
        self.functions: list[tuple[FunctionType, dict[str, Any]]] = []
        self.classes: list[type] = []
        self.dispatchers: list[Any] = []
        self.modules: list[ModuleType] = []
        self.references: dict[str, None] = {}
        self.names: dict[str, None] = {}
        self.all = self.subclasses = False
        self.atoms = 0
        self.shared: dict[int, object] = {}


class Global:
    """Unpickles to what a module has. See :func:`namespace.import_attribute`."""

    __slots__ = ("args",)

    def __init__(self, module: str, name: str, copy: bytes | None = None) -> None:
        self.args = module, name, copy

    def __reduce__(self) -> tuple[Any, ...]:
        return namespace.import_attribute, self.args


class Imported:
    """Unpickles to a module that can be imported."""

    __slots__ = ("args",)

    def __init__(self, module: ModuleType) -> None:
        self.args = (module.__name__,)

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, self.args


class Space:
    """Unpickles to the globals of functions. See :meth:`WorkerPickler.space`."""

    __slots__ = ("args", "globals", "make")

    def __init__(self, space: dict[str, Any], make: Callable[..., Any], *args: Any) -> None:
        self.globals = space  # so that its id stays its own
        self.make = make
        self.args = args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.make, self.args


def dump_for_client(obj: object) -> tuple[bytes, list[memoryview]]:
    """Pickle an object in a worker that the client is to load."""
    file = io.BytesIO()
    buffers: list[memoryview] = []
    ClientPickler(file, 5, keeper(buffers)).dump(obj)
    return file.getvalue(), buffers


_BY_NAME = frozenset({FunctionType, LRU_CACHE})


def _contents(cell: CellType) -> tuple[object, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # not assigned yet
        return ()


class Need:
    """Stands in a pickle for a global that must be bound before what follows is loaded."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Bound:
    """The same for a global that is in this very pickle."""

    __slots__ = ("args",)

    def __init__(self, name: str, value: object) -> None:
        self.args = name, value

    def __reduce__(self) -> tuple[Any, ...]:
        return namespace.bind, self.args


class _Pickler(cloudpickle_inside.Pickler):
    visit: Visit
    main: dict[str, Any]
    _spaces: dict[int, Space]
    reducers: ClassVar[dict[type, Any]] = REDUCERS
    fill_part: ClassVar[Any] = staticmethod(rebuild.fill_part)
    fill_statement: ClassVar[Any] = staticmethod(rebuild.fill_statement)
    portable = False
    """Whether another Python is to load it."""
    pythons: Sequence[tuple[str, tuple[int, ...]]] = ()
    """Which ones, as far as they are known."""

    def reduce_class(self, cls: Any) -> Any:
        """Tell how to make a class that no module has."""
        maker, args, state, fill = self.definition(cls)
        return maker, args, state, None, None, fill

    def definition(self, cls: Any) -> Any:
        """Tell how to make a class, as what it is, unless a library has a hand in that."""
        if needs_statement(cls):
            return reduce_by_statement(self, cls)
        return reduce_class(cls, self.fill_part, self.portable)

    def statement_globals(
        self, space: dict[str, Any], wanted: Sequence[str], at_once: Container[str], cls: Any
    ) -> tuple[Any, Any, Any]:
        """
        Return the globals of a class statement, for where it is run.

        Args:
            space: The globals here.
            wanted: The names that the statement and its methods have.
            at_once: What the statement itself needs.
            cls: The class.

        Returns:
            The globals there, what is bound in them before it is run, and what afterwards.
        """
        named = self.reach(space, wanted)
        now = {name: value for name, value in named.items() if name in at_once}
        first: tuple[Any, ...] = ()
        if space is self.main:
            first = self.need(name for name in wanted if name in at_once)
        return self.new_space(space, wanted), ((), first, now), ((), (), named)

    # What a client loads has its globals with it: these are for what WorkerPickler has not.

    def reach(self, space: dict[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
        """Return the globals that go along with code."""
        return {name: space[name] for name in wanted if name in space and name not in SKIPPED}

    def space(self, space: dict[str, Any], wanted: Iterable[str] = ()) -> Any:
        """Return what unpickles to globals; None to have new ones made."""

    def new_space(
        self, space: dict[str, Any], wanted: Iterable[str], *, alone: bool = False
    ) -> Any:
        """Return what unpickles to globals, new ones if need be, or if they are to be."""
        found = None if alone else self.space(space, wanted)
        if found is None:
            args = space, source.new_space, space.get("__name__"), space.get("__file__")
            key = -id(space) if alone else id(space)
            found = self._spaces.setdefault(key, Space(*args))
        return found

    def need(self, wanted: Iterable[str]) -> tuple[Any, ...]:
        """Return what has globals bound at once."""
        return ()

    def identity(self, obj: Any) -> tuple[str, int] | None:
        """Return by what an earlier one is found."""
        return None

    def met_function(self, func: FunctionType, wanted: Iterable[str]) -> dict[str, Any]:
        """Note a function, and return the globals that go along with it."""
        return self.reach(func.__globals__, wanted)

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if issubclass(kind, _ACCESSORS) and kind not in _ACCESSORS:
            reduced = reduce_accessor(obj)
            return super().reducer_override(obj) if reduced is None else reduced
        if is_lru_cache(obj):
            return self._lru_cache_reduce(obj)
        if is_dispatcher(obj) and not cloudpickle_inside.goes_by_name(obj):
            return self._dispatcher_reduce(obj)
        if kind.__module__ == "ctypes" and kind.__name__ in ("CDLL", "PyDLL"):
            return reduce_library(obj)
        validated = reduce_validated(obj) if kind is FunctionType else None
        if validated is not None:
            return validated
        by_dispatch = reduce_method_by_dispatch(obj)
        if by_dispatch is not None:
            return by_dispatch
        reason = is_future(obj)
        if reason:
            raise TypeError(reason)
        return super().reducer_override(obj)

    def reduce(self, obj: Any) -> Any:
        """Return how an object is made, for another pickler that has met it."""
        reduced = self.reducer_override(obj)
        if reduced is NotImplemented:
            way = self.dispatch_table.get(type(obj))
            if way is not None:
                return way(obj)
        return reduced

    def _lru_cache_reduce(self, obj: Any) -> Any:
        home = main_name(obj)
        if home is None:
            module = sys.modules.get(obj.__module__)
            if getattr(module, obj.__qualname__, None) is obj:
                return NotImplemented  # it goes by name
        limits = obj.cache_parameters()
        args = obj.__wrapped__, limits["maxsize"], limits["typed"], home
        own = {name: value for name, value in vars(obj).items() if name not in OF_CACHES}
        return mains.rebuild_lru_cache, args, own

    def _dispatcher_reduce(self, obj: Any) -> tuple[Any, ...]:
        own = {name: value for name, value in vars(obj).items() if name not in OF_DISPATCHERS}
        state = list(obj.registry.items()), own, main_name(obj)
        return mains.make_dispatcher, (obj.__name__,), state, None, None, mains.fill_dispatcher


class WorkerPickler(_Pickler):
    """
    Pickles what a worker is to load.

    What a name of ``__main__`` binds is a persistent id, the name: see
    :mod:`remote_executor.payload.code.namespace`.

    Args:
        file: Where to.
        keep: Takes large buffers.
        visit: Takes what is met.
        own: Names whose objects are to be pickled here and now.

    Attributes:
        data: Whether data is referred to by name, too. What is copied, such as arguments, refers
            to code only.
        inner: Ids of what was pickled as an attribute of an object that has a name.
    """

    data = True
    fill_part: ClassVar[Any] = staticmethod(namespace.fill_part)

    def __init__(
        self,
        file: io.BytesIO,
        keep: Callable[[pickle.PickleBuffer], bool],
        visit: Visit,
        own: Sequence[str] = (),
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=keep)
        self.visit = visit
        self.main = sys.modules["__main__"].__dict__
        self.own = own
        self.inner: set[int] = set()
        self._own_ids = {id(self.main[name]): name for name in own}
        self._spaces = {}

    # ------------------------------------------------------------------------ names

    def persistent_id(self, obj: Any) -> Any:
        """Return the name of ``__main__`` that binds an object. The pickler calls this."""
        # For each object that there is, so nothing is called for those that have no name.
        kind = type(obj)
        if id(obj) in names.by_id:
            name = names.name_of(obj)
        elif kind is Need:
            name = obj.name
        elif id(obj) in names.atoms.by_id and self.data:
            self.visit.atoms += 1
            return names.atoms.pid_of(obj)
        else:
            return None
        if name is None or name in self.own:
            return None
        if not self.data and kind is not Need:
            if not (kind in _BY_NAME or issubclass(kind, type)):
                return None
            if kind is FunctionType and main_name(obj) is None and keeps_data(obj):
                return None  # what it has captured is copied with it
        self.visit.references[name] = None
        return name

    def need(self, wanted: Iterable[str]) -> tuple[Any, ...]:
        """
        Return what, in the arguments of a maker, has globals bound before it runs.

        Args:
            wanted: Names of ``__main__``; those that it does not have are left out.
        """
        found = (name for name in wanted if name in self.main and name not in SKIPPED)
        return tuple(
            Bound(name, self.main[name]) if name in self.own else Need(name) for name in found
        )

    def identity(self, obj: Any) -> tuple[str, int] | None:
        """
        Tell by what a worker finds what it has of a function or class, to fill it again.

        Args:
            obj: The function or class.

        Returns:
            Its name and its serial; None if no name of ``__main__`` binds it.
        """
        name = self._own_ids.get(id(obj))
        return None if name is None else (name, serial(obj))

    def reach(self, space: dict[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
        """
        Note what code needs of its globals.

        Args:
            space: The globals.
            wanted: The names that the code has.

        Returns:
            What is to go along with the code, by name: nothing of ``__main__``, whose names come
            apart, nor of a module that is imported there.
        """
        if space is self.main:
            self.visit.names.update(dict.fromkeys(wanted))
            if self.main.get("__package__"):  # python -m: relative imports start from it
                self.visit.names["__package__"] = None
            return {}
        found = _named(space, wanted)
        return {} if self._is_imported(space, found, wanted) else found

    def _is_imported(
        self, space: dict[str, Any], found: dict[str, Any], wanted: Iterable[str]
    ) -> bool:
        """
        Whether a function's globals are to be a module's own there.

        They are if the module has data that the function names, or may get some: what an
        initializer or another task has set there counts then, as for the module's own functions.
        """
        module = module_of_globals(space)
        if module is None:
            return False
        if is_by_hand(module):
            return True
        if not cloudpickle_inside.goes_by_name(module):
            return False
        if not all(map(is_fixed, found.values())):
            return True
        data = any(not is_code(value) for value in found.values())
        later = any(name not in space and not hasattr(builtins, name) for name in wanted)
        # Where the module is not to be had, what the function names must be copied.
        return (data or later) and plain_copies(found) is not None

    def space(self, space: dict[str, Any], wanted: Iterable[str] = ()) -> Any:
        """
        Return what unpickles to the globals of a function.

        Args:
            space: The globals here.
            wanted: Names that the function's code has.
        """
        if space is self.main:
            return Space(space, mains.namespace)
        found = _named(space, wanted)
        if not self._is_imported(space, found, wanted):
            return None
        made = self._spaces.get(id(space))
        if made is None:
            module = sys.modules[space["__name__"]]
            if is_by_hand(module):
                return self._spaces.setdefault(id(space), Space(space, vars, module))
            copies = plain_copies(found)
            made = Space(space, namespace.module_space, space["__name__"], copies)
            self._spaces[id(space)] = made
        return made

    # ------------------------------------------------------------------- definitions

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is FunctionType and obj.__module__ in _MAKERS:
            return NotImplemented  # it goes by name, as each pickle has some of these
        if kind is ModuleType:
            if is_by_hand(obj):
                self.visit.modules.append(obj)
                listed = sys.modules.get(obj.__name__) is obj
                inside = {k: v for k, v in vars(obj).items() if k not in OF_THE_MODULE}
                return namespace.make_module, (obj.__name__, listed), inside
            loaded = loaded_inside(obj)
            if loaded:
                return namespace.import_package, (obj.__name__, loaded)
        elif is_environment(obj):
            return namespace.import_attribute, ("os", _name_of_environment(obj))
        elif kind is BuiltinFunctionType:
            origin = origin_of_method(obj)
            if origin is not None:
                return namespace.import_attribute, origin
        elif kind is FunctionType or issubclass(kind, type):
            inner = self._inner(obj)
            if inner is not None:
                self.inner.add(id(obj))
                return inner
            by_hand = is_by_hand(sys.modules.get(obj.__module__))
            if (kind is FunctionType and by_hand) or goes_alone(obj):
                return self._dynamic_function_reduce(obj)
            if kind is not FunctionType and (by_hand or not goes_by_reference(obj)):
                return self.reduce_class(obj)
        elif self.data and is_array(kind):
            view = reduce_view(obj)
            if view is not NotImplemented:
                return view
        elif kind.__module__ in _TYPING:
            alias = reduce_alias(obj)
            if alias is not None:
                return alias
        elif kind is CellType and self.own and id(obj) not in self._cells:
            # A name has it, or what a name has: there it is a variable of its own, or that of the
            # function that comes with it.
            return cloudpickle_inside.make_cell, (), _contents(obj), None, None, rebuild.fill_cell
        elif id(obj) in self._own_ids:
            reduced = super().reducer_override(obj)
            if reduced is NotImplemented and kind not in self.dispatch_table:
                return with_attributes(obj, _reduce_own(obj))
            return reduced
        elif self.data and kind.__module__ == "__main__" and loses_attributes(kind):
            reduced = super().reducer_override(obj)
            if reduced is NotImplemented and kind not in self.dispatch_table:
                return with_attributes(obj, obj.__reduce_ex__(5))
            return reduced
        return super().reducer_override(obj)

    def _inner(self, obj: Any) -> tuple[Any, ...] | None:
        """Return how to get a class or function that is an attribute of a class of ``__main__``."""
        home = main_name(obj)
        if home is None or "." not in home:
            return None
        first, *path = home.split(".")
        if first in self.own:
            return None
        outer = self.main[first]
        for name in path[:-1]:
            outer = getattr(outer, name)
        return getattr, (outer, path[-1])

    def met_function(self, func: FunctionType, wanted: Iterable[str]) -> dict[str, Any]:
        """
        Note a function that travels by its definition.

        Args:
            func: The function.
            wanted: The globals that its code has.

        Returns:
            What of them is to go along: see :meth:`reach`.
        """
        space = func.__globals__
        files[func.__code__.co_filename] = None
        named = _named(space, wanted) if goes_alone(func) else self.reach(space, wanted)
        known = facts(func.__code__)
        for name in known.imports:
            if is_by_hand(sys.modules.get(name)):
                self.visit.names[f"sys.modules.{name}"] = None
        if space is self.main:
            self.visit.all |= known.looks_at_all
            self.visit.subclasses |= known.looks_at_subclasses
            self._note_annotations(func)
        self.visit.functions.append((func, named))
        return named

    def met_class(self, cls: type) -> None:
        """Note a class that travels by its definition."""
        self.visit.classes.append(cls)
        if cls.__module__ == "__main__":
            self._note_annotations(cls)

    def _note_annotations(self, obj: Any) -> None:
        """Note the names in annotations that are text, for ``typing.get_type_hints``."""
        for value in annotations_of(obj).values():
            if not isinstance(value, type):
                for name in _IDENTIFIER.findall(value if isinstance(value, str) else repr(value)):
                    if name in self.main:
                        self.visit.names[name] = None

    def reduce_class(self, cls: Any) -> Any:
        """Tell how to make a class that no module has."""
        self.met_class(cls)
        maker, args, state, *_, fill = super().reduce_class(cls)
        args = maker, args, tracker_of(cls), main_name(cls), virtual_bases(cls)
        if state is not None:
            state = fill, state
        return mains.rebuild_class, args, state, None, None, namespace.fill_class

    def dump_apart(self, value: object) -> object:
        """See whether a value can be pickled."""
        pickler = WorkerPickler(io.BytesIO(), keeper([]), Visit(), self.own)
        return pickler.dump(value)

    def _dispatcher_reduce(self, obj: Any) -> tuple[Any, ...]:
        self.visit.dispatchers.append(obj)
        return super()._dispatcher_reduce(obj)

    def _dynamic_function_reduce(self, func: FunctionType) -> Any:
        reduced = super()._dynamic_function_reduce(func)
        maker, args, state = reduced[:3]
        # cloudpickle overlooks what the body of a class in the function names.
        wanted = dict.fromkeys((*state[1]["__globals__"], *facts(func.__code__).names))
        state[1]["__globals__"] = self.met_function(func, wanted)
        space = None if goes_alone(func) else self.space(func.__globals__, wanted)
        args = args[0], space if space is not None else args[1], *args[2:]
        args = self.identity(func), maker, args
        state[1]["__closure__"] = ()
        contents = [(cell, _contents(cell)) for cell in func.__closure__ or ()]
        state = state, main_name(func), contents
        return namespace.make_function, args, state, None, None, mains.fill_function


def _named(space: dict[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
    return {name: space[name] for name in wanted if name in space and name not in SKIPPED}


_MAKERS = frozenset(
    {
        "cloudpickle.cloudpickle",
        cloudpickle_inside.__name__,
        mains.__name__,
        namespace.__name__,
        rebuild.__name__,
        source.__name__,
    }
)
"""Modules of what is called to make things of pickles."""

_SINGLE = frozenset({type(None), type(...), type(NotImplemented)})


def goes_by_reference(cls: type) -> bool:
    """Tell a class that any process finds by its module and name."""
    if cls.__module__ == "builtins" or cls in _SINGLE:
        return True
    return bool(cloudpickle_inside.goes_by_name(cls))


def plain_copies(found: dict[str, Any]) -> dict[str, bytes] | None:
    """Return pickles of globals of a module, if all of them are data or go by name."""
    copies = {}
    for name, value in found.items():
        plain = plainly(Imported(value) if type(value) is ModuleType else value)
        if plain is None or plain[1]:
            return None
        copies[name] = plain[0]
    return copies


_TYPING = ("typing", "typing_extensions")
_IDENTIFIER = re.compile(r"[^\W\d]\w*")


def reduce_alias(obj: Any) -> tuple[Any, ...] | None:
    """Return how to make what ``typing`` pickles by its name alone; None for all else."""
    kind = type(obj).__name__
    if getattr(obj, "__module__", None) not in ("__main__", "__mp_main__"):
        return None
    if kind != "NewType":
        return None
    return namespace.make_alias, (type(obj).__module__, kind, (obj.__name__, obj.__supertype__))


def _reduce_own(obj: Any) -> Any:
    """Return how to make an object, also if its own way is to name itself."""
    kind = type(obj)
    if kind.__name__ == "curry" and kind.__module__.partition(".")[0] in ("toolz", "cytoolz"):
        return namespace.make_curry, (kind, obj.func, obj.args, obj.keywords)
    reduced = obj.__reduce_ex__(5)
    homes = kind.__module__, getattr(obj, "__module__", None)
    if type(reduced) is str and not {"__main__", "__mp_main__"}.isdisjoint(homes):
        return reduce_by_state(obj)
    return reduced


def with_attributes(obj: Any, reduced: Any) -> Any:
    """
    Add the attributes of an instance to how it is made, where that leaves them out.

    What a fork has it has; ``date``, ``Decimal`` and ``numpy.ndarray`` pickle only themselves, also
    for classes derived from them.

    Args:
        obj: The instance.
        reduced: What its own way to be pickled gave.
    """
    attributes = getattr(obj, "__dict__", None)
    if not attributes or type(reduced) is not tuple or not loses_attributes(type(obj)):
        return reduced
    make, args, state, *rest = (*reduced, None)[:3] + reduced[3:]
    parts = state if type(state) is tuple else (state,)
    if len(rest) > 2 or any(
        part is attributes or part == attributes for part in parts if type(part) is dict
    ):
        return reduced
    items = [*rest, None, None][:2]
    return make, args, (state, dict(attributes)), *items, rebuild.fill_attributes


def _name_of_environment(obj: object) -> str:
    return "environ" if obj is os.environ else "environb"


class ClientPickler(_Pickler):
    """Pickles in a worker what the client is to load."""

    fill_part: ClassVar[Any] = staticmethod(mains.fill_new_part)

    def __init__(self, file: io.BytesIO, protocol: int = 5, buffer_callback: Any = None) -> None:
        super().__init__(file, protocol, buffer_callback)
        self.visit = Visit()
        self.main = {}  # globals go with each function or class, to be its own there
        self._spaces = {}

    def dump_apart(self, value: object) -> object:
        """See whether a value can be pickled."""
        return dump_for_client(value)

    def reducer_override(self, obj: Any) -> Any:
        is_class = isinstance(obj, type)
        if is_class or isinstance(obj, (FunctionType, LRU_CACHE)):
            home = mains.arrived.get(obj)
            if home is not None:
                return mains.known, (tracker_of(obj) if is_class else None, home)
        return super().reducer_override(obj)

    def reduce_class(self, cls: Any) -> Any:
        """Tell how to make a class that no module has, unless the client has it."""
        maker, args, state, *_, fill = super().reduce_class(cls)
        args = maker, args, tracker_of(cls), virtual_bases(cls)
        return mains.known_class_or_new, args, (fill, state), None, None, mains.fill_new_class


def serial(code: Any) -> int:
    """Name a function or class by its identity, not by its content: another number for another."""
    found = _serials.get(code)
    if found is None:
        found = _serials[code] = _next_serial()
    return found


def is_defined(value: object) -> bool:
    """Tell what travels by its definition, and is filled again when that changes."""
    kind = type(value)
    return (kind in _BY_NAME or issubclass(kind, type)) and not found_by_name(value)
