"""
Picklers for what cannot go by name: functions and classes of ``__main__``, lambdas and their kin.

They are cloudpickle's, with four changes: functions of ``__main__`` share one namespace at the
worker (see :mod:`remote_executor.payload.mains`); what came from the client goes back to it by
name; functions under ``lru_cache`` travel too; a Future or an Executor is refused in clear words.

It imports cloudpickle, and so it is imported when the first object needs it.
"""

from __future__ import annotations

import io
import itertools
import pickle
import sys
import weakref
from collections import ChainMap
from collections.abc import Callable, Container, Sequence
from types import FunctionType, ModuleType
from typing import Any, ClassVar

from remote_executor.payload import mains, source
from remote_executor.payload.captures import (
    LRU_CACHE,
    facts,
    is_code,
    is_dispatcher,
    is_fixed,
    is_lru_cache,
    method_by_dispatch,
    same_bytes,
)
from remote_executor.payload.code import cloudpickle_inside, rebuild
from remote_executor.payload.code.cloudpickle_inside import goes_by_name, tracker_of
from remote_executor.payload.code.definitions import (
    REDUCERS,
    reduce_accessor,
    reduce_class,
    reduce_validated,
)
from remote_executor.payload.code.statements import needs_statement, reduce_by_statement
from remote_executor.payload.pickles import keeper, plainly

__all__ = [
    "Visit",
    "code_token",
    "digest",
    "dump_for_client",
    "dump_for_worker",
    "frozen",
    "key_of",
]

#: Globals that belong to the module itself and not to the program.
SKIPPED = frozenset({"__builtins__", "__loader__", "__name__", "__spec__"})

#: Attributes that ``functools.singledispatch`` makes itself.
OF_DISPATCHERS = frozenset({"__wrapped__", "_clear_cache", "dispatch", "register", "registry"})

#: Attributes that ``functools.lru_cache`` makes itself.
OF_CACHES = frozenset({"__wrapped__", "cache_clear", "cache_info", "cache_parameters"})

_ACCESSORS = (property, classmethod, staticmethod)

_serials: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_next_serial = itertools.count(1).__next__

_registered: weakref.WeakKeyDictionary[Any, tuple[list[object], int]] = weakref.WeakKeyDictionary()
"""What was last registered with dispatchers, and their serials since then."""


class Visit:
    """
    What one pickling met, for the nested picklers and for who wants to know when it is outdated.

    Attributes:
        functions: Each function that travels by value, with the globals that it named.
        classes: Each class that travels by value.
        dispatchers: Each function of ``functools.singledispatch`` that travels by value.
        data: Globals of ``__main__`` that are data, pickled.
        open: Names of such globals that are being pickled.
        unsent: Names of those that cannot be pickled.
    """

    __slots__ = ("classes", "data", "dispatchers", "functions", "open", "unsent")

    def __init__(self) -> None:
        self.functions: list[tuple[FunctionType, dict[str, Any]]] = []
        self.classes: list[type] = []
        self.dispatchers: list[Any] = []
        self.data: dict[str, tuple[Any, ...]] = {}
        self.open: set[str] = set()
        self.unsent: set[str] = set()


class Frozen(bytearray):
    """A copy of a buffer that nobody writes to, and the name of its content once it was wanted."""

    __slots__ = ("__weakref__", "key")

    key: bytes


_frozen: weakref.WeakValueDictionary[int, Frozen] = weakref.WeakValueDictionary()
"""All there are, by id."""


class _MainNamespace:
    """Unpickles to the globals of the worker's ``__main__``."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return mains.namespace, ()


MAIN_NAMESPACE = _MainNamespace()


class _Unsent:
    """Unpickles to a stand-in that says what is wrong when it is used."""

    __slots__ = ("args",)

    def __init__(self, what: str, reason: str) -> None:
        self.args = what, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return mains.Unsent, self.args


def dump_for_worker(obj: object, visit: Visit | None = None) -> tuple[bytes, list[memoryview]]:
    """
    Pickle an object that a worker is to load.

    Args:
        obj: Anything.
        visit: Takes what was met on the way.

    Returns:
        The pickle and its large buffers.

    Raises:
        Exception: Whatever the pickler or a part of the object raises.
    """
    file = io.BytesIO()
    buffers: list[memoryview] = []
    WorkerPickler(file, keeper(buffers), visit or Visit()).dump(obj)
    return file.getvalue(), buffers


def dump_for_client(obj: object) -> tuple[bytes, list[memoryview]]:
    """Pickle an object in a worker that the client is to load. See :func:`dump_for_worker`."""
    file = io.BytesIO()
    buffers: list[memoryview] = []
    ClientPickler(file, 5, keeper(buffers)).dump(obj)
    return file.getvalue(), buffers


def digest(body: bytes, buffers: Sequence[Any] = (), short: int = 0) -> bytes:
    """
    Name a pickle by its content.

    Args:
        body: The pickle.
        buffers: Its large buffers.
        short: A pickle of at most so many bytes, without buffers, is its own name.
    """
    if not buffers and len(body) <= short:
        return body
    from hashlib import sha256

    # The lengths are in it, so that bytes cannot move from one part to the next unseen.
    content = sha256(repr([len(body), *map(len, buffers)]).encode())
    content.update(body)
    for buffer in buffers:
        content.update(buffer)
    return content.digest()


def frozen(views: Sequence[memoryview], pool: Sequence[memoryview] = ()) -> list[memoryview]:
    """
    Make snapshots of buffers, so that later writes do not show.

    Args:
        views: Flat views of live objects.
        pool: Earlier snapshots to look at first. One that has the same content is used again.

    Returns:
        Views, each of the whole of a bytes or a Frozen.
    """
    snapshots = []
    for view in views:
        owner: Any = view.obj
        if type(owner) in (bytes, Frozen) and len(owner) == len(view):
            snapshots.append(view)
            continue
        for earlier in pool:
            if same_bytes(earlier, view):
                snapshots.append(earlier)
                break
        else:
            snapshots.append(memoryview(_earlier(view) or _freeze(view)))
    return snapshots


def _earlier(view: memoryview) -> Frozen | None:
    """Find a snapshot with that content: a closure that is made anew captures the same array."""
    for owner in list(_frozen.values()):
        if len(owner) == len(view) and same_bytes(memoryview(owner), view):
            return owner
    return None


def _freeze(view: memoryview) -> Frozen:
    owner = Frozen(view)
    _frozen[id(owner)] = owner
    return owner


def key_of(snapshot: memoryview) -> bytes:
    """Name a snapshot by its content; what was frozen here is looked at once."""
    owner: Any = snapshot.obj
    if type(owner) is not Frozen:
        return digest(b"", [snapshot])
    key: bytes | None = getattr(owner, "key", None)
    if key is None:
        key = owner.key = digest(b"", [snapshot])
    return key


class _Space:
    """Unpickles to new globals for functions of a module that travels with them."""

    __slots__ = ("args", "globals")

    def __init__(self, space: dict[str, Any]) -> None:
        self.globals = space  # so that its id stays its own
        self.args = space.get("__name__"), space.get("__file__")

    def __reduce__(self) -> tuple[Any, ...]:
        return source.new_space, self.args


class _Pickler(cloudpickle_inside.Pickler):
    visit: Visit
    main: dict[str, Any]
    _spaces: dict[int, _Space]
    dispatch_table: ClassVar[Any] = ChainMap(REDUCERS, cloudpickle_inside.Pickler.dispatch_table)
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
        named = self._globals(space, wanted)
        now = {name: value for name, value in named.items() if name in at_once}
        return self._space(space), self._named(space, now, cls), self._named(space, named, cls)

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
            self._data(name, value, user)
            for name, value in named.items()
            if not is_code(value) and name not in self.visit.open
        ]
        return code, data, {}

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if issubclass(kind, _ACCESSORS) and kind not in _ACCESSORS:
            reduced = reduce_accessor(obj)
            return super().reducer_override(obj) if reduced is None else reduced
        if is_lru_cache(obj):
            return self._lru_cache_reduce(obj)
        if is_dispatcher(obj) and not goes_by_name(obj):
            return self._dispatcher_reduce(obj)
        validated = reduce_validated(obj) if kind is FunctionType else None
        if validated is not None:
            return validated
        attribute = method_by_dispatch(obj)
        if attribute is not None:
            return getattr, attribute
        futures = sys.modules.get("concurrent.futures._base")
        reduce: object = type(obj).__reduce__
        if futures is not None and reduce is object.__reduce__:  # else it says itself why not
            if isinstance(obj, futures.Future):
                raise TypeError("a Future cannot be sent, send its result()")
            if isinstance(obj, futures.Executor):
                raise TypeError("an Executor cannot be sent, it belongs to its process")
        return super().reducer_override(obj)

    def _lru_cache_reduce(self, obj: Any) -> Any:
        home = mains.main_name(obj)
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
        state = list(obj.registry.items()), own, mains.main_name(obj)
        return mains.make_dispatcher, (obj.__name__,), state, None, None, mains.fill_dispatcher


class WorkerPickler(_Pickler):
    """Pickles what a worker is to load."""

    def __init__(
        self, file: io.BytesIO, keep: Callable[[pickle.PickleBuffer], bool], visit: Visit
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=keep)
        self.visit = visit
        self.main = sys.modules["__main__"].__dict__
        self._spaces = {}

    def reduce_class(self, cls: Any) -> Any:
        """Tell how to make a class that no module has."""
        self.visit.classes.append(cls)
        maker, args, state, *_, fill = super().reduce_class(cls)
        args = maker, args, tracker_of(cls), mains.main_name(cls), code_token(cls)
        return mains.rebuild_class, args, state, None, None, fill

    def _dispatcher_reduce(self, obj: Any) -> tuple[Any, ...]:
        self.visit.dispatchers.append(obj)
        return super()._dispatcher_reduce(obj)

    def _dynamic_function_reduce(self, func: FunctionType) -> Any:
        reduced = super()._dynamic_function_reduce(func)
        maker, args, state = reduced[:3]
        named = state[1]["__globals__"]
        for name in facts(func.__code__).names:
            # cloudpickle overlooks what the body of a class in the function names.
            if name in func.__globals__:
                named.setdefault(name, func.__globals__[name])
        self.visit.functions.append((func, dict(named)))
        if func.__globals__ is not self.main:
            return reduced
        state[1]["__globals__"] = {}
        code = []
        data = []
        for name, value in named.items():
            if is_code(value):
                code.append((name, code_token(value), value))
            elif name not in SKIPPED and name not in self.visit.open:
                data.append(self._data(name, value, func))
        package = self.main.get("__package__")
        if package:  # python -m: relative imports in the function start from it
            data.append(self._data("__package__", package, func))
        state = (state, mains.main_name(func), code, data)
        args = (args[0], MAIN_NAMESPACE, *args[2:])
        return maker, args, state, None, None, mains.fill_function

    def dump_apart(self, value: object) -> tuple[bytes, list[memoryview]]:
        """Pickle a global into a pickle of its own."""
        return dump_for_worker(value, self.visit)

    def _data(self, name: str, value: object, user: FunctionType) -> tuple[Any, ...]:
        visit = self.visit
        entry = visit.data.get(name)
        if entry is None:
            # A value that leads back to itself, through a function that names it, stops there.
            visit.open.add(name)
            try:
                body, views = plainly(value) or self.dump_apart(value)
            except Exception as error:
                # Perhaps the function is never called, or an initializer sets the global.
                visit.unsent.add(name)
                what = f"global {name!r}, which {user.__qualname__}() uses,"
                body = pickle.dumps(_Unsent(what, str(error) or type(error).__name__), 5)
                entry = name, b"unsent", body, []
            else:
                token, views = _freeze_global(name, body, list(views))
                entry = name, token, body, [pickle.PickleBuffer(view.obj) for view in views]
            finally:
                visit.open.discard(name)
            visit.data[name] = entry
        return entry


class ClientPickler(_Pickler):
    """Pickles in a worker what the client is to load."""

    fill_part: ClassVar[Any] = staticmethod(mains.fill_new_part)

    def __init__(self, file: io.BytesIO, protocol: int = 5, buffer_callback: Any = None) -> None:
        super().__init__(file, protocol, buffer_callback)
        self.visit = Visit()
        self.main = {}  # globals go with each function or class, to be its own there
        self._spaces = {}

    def dump_apart(self, value: object) -> tuple[bytes, list[memoryview]]:
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
        args = maker, args, tracker_of(cls)
        return mains.known_class_or_new, args, (fill, state), None, None, mains.fill_new_class


def code_token(code: Any) -> mains.Token:
    """Name a function, class or module by its identity, not by its content."""
    if isinstance(code, ModuleType):
        return b"module " + code.__name__.encode()
    if is_dispatcher(code):
        # It is the same object when more is registered with it.
        registered = list(code.registry.values())
        known = _registered.get(code)
        if known is None or not _same(known[0], registered) or not all(map(is_fixed, registered)):
            known = _registered[code] = registered, _next_serial()
        return b"code %d" % known[1]
    serial = _serials.get(code)
    if serial is None:
        serial = _serials[code] = _next_serial()
    return b"code %d" % serial


#: The last snapshot of each global of ``__main__`` that has large buffers. To compare with it is
#: many times faster than to digest again.
_globals: dict[str, tuple[bytes, list[memoryview], bytes]] = {}


def _freeze_global(
    name: str, body: bytes, views: list[memoryview]
) -> tuple[bytes, list[memoryview]]:
    if not views:
        _globals.pop(name, None)
        return digest(body, short=32), views
    before = _globals.get(name)
    pool = before[1] if before is not None else ()
    views = frozen(views, pool)
    if before is not None and before[0] == body and _same(before[1], views):
        return before[2], views
    token = digest(body, views)
    _globals[name] = body, views, token
    return token, views


def _same(some: Sequence[object], others: Sequence[object]) -> bool:
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))
