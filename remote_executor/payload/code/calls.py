"""
Picklers for arguments and results: the C pickler, and one look at code that is met.

What is plain data is pickled as by ``pickle.dumps``. Functions and classes of ``__main__`` go by
name, and the names are noted. Nothing is pickled twice, so a ``__getstate__`` that can run only
once may be in it. What must travel by its definition, such as a lambda, is the business of
:mod:`remote_executor.payload.by_value`, which is loaded when such a thing is met first.
"""

from __future__ import annotations

import functools
import gc
import io
import os
import pickle
import sys
import typing
import weakref
from collections import OrderedDict
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any

from remote_executor.payload.code import registrations
from remote_executor.payload.code.methods import reduce_method
from remote_executor.payload.code.names import LRU_CACHE, found_by_name, main_name, names
from remote_executor.payload.code.registrations import of_multiprocessing
from remote_executor.payload.own_imports import load_own

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.payload.by_value import Visit, WorkerPickler

__all__ = ["ArgumentPickler", "ResultPickler", "is_future", "keeps_data", "kinds"]

_SPECIAL = frozenset(
    {
        FunctionType,
        BuiltinFunctionType,
        LRU_CACHE,
        ModuleType,
        CodeType,
        CellType,
        GetSetDescriptorType,
        MappingProxyType,
        functools.cached_property,
        functools.partialmethod,
        functools.singledispatchmethod,
        getattr(functools, "_singledispatchmethod_get", functools.singledispatchmethod),
        typing.ForwardRef,
        *(
            getattr(typing, name)
            for name in ("ParamSpec", "TypeAliasType", "TypeVar", "TypeVarTuple")
            if hasattr(typing, name)
        ),
        weakref.WeakSet,
        type({}.keys()),
        type({}.values()),
        type({}.items()),
        type(OrderedDict().keys()),
        type(OrderedDict().values()),
        type(OrderedDict().items()),
        type(os.environ),
        io.TextIOWrapper,
    }
)
"""Types of which the plain pickler would make something else, or nothing."""


_BY_TYPE_NAME = frozenset(
    {
        "CDLL",
        "PyDLL",
        "_FIELD_BASE",
        "_HAS_DEFAULT_FACTORY_CLASS",
        "_KW_ONLY_TYPE",
        "_MISSING_TYPE",
    }
)
"""More of these, of ``ctypes`` and ``dataclasses``, which are not imported for that."""

_WITH_SUBCLASSES = (type, property, classmethod, staticmethod, functools.partialmethod)

_USUAL: Any = object.__reduce__

kinds: dict[type, Callable[[Any], tuple[Any, ...]]] = {}
"""Types of futures that a call waits for, and what each is pickled to: see payload/awaited.py."""


def _is_special(kind: type) -> bool:
    return kind in _SPECIAL or issubclass(kind, _WITH_SUBCLASSES) or kind.__name__ in _BY_TYPE_NAME


def is_future(obj: object) -> str:
    """Say why a Future or an Executor cannot be sent; nothing of all else."""
    futures: Any = sys.modules.get("concurrent.futures._base")
    if futures is not None and type(obj).__reduce__ is object.__reduce__:
        if isinstance(obj, futures.Future):
            return "a Future cannot be sent, send its result()"
        if isinstance(obj, futures.Executor):
            return "an Executor cannot be sent, it belongs to its process"
    return ""


def _by_value_modules() -> bool:
    """Whether the program has asked cloudpickle to send whole modules by value."""
    cloudpickle: Any = sys.modules.get("cloudpickle.cloudpickle")
    return bool(getattr(cloudpickle, "_PICKLE_BY_VALUE_MODULES", None))


def keeps_data(obj: Any) -> bool:
    """Whether a function has captured what may be an argument, too."""
    from remote_executor.payload.captures import is_fixed

    cells = getattr(obj, "__closure__", None) or ()
    return not all(is_fixed(each) for cell in cells for each in gc.get_referents(cell))


class ArgumentPickler(pickle.Pickler):
    """
    Pickles at the client what is copied to a worker.

    Attributes:
        names: Those of ``__main__`` that are in the pickle.
        visit: What was met that travels by its definition; None if nothing was.
        waits: Whether it is a call, which may wait for futures.
    """

    waits = False

    def __init__(self, file: io.BytesIO, keep: Callable[[pickle.PickleBuffer], bool]) -> None:
        super().__init__(file, 5, buffer_callback=keep)
        registrations.look()
        if of_multiprocessing:
            self.dispatch_table = of_multiprocessing
        self.names: dict[str, None] = {}
        self.visit: Visit | None = None
        self._keep = keep
        self._deep: WorkerPickler | None = None

    def reducer_override(self, obj: Any) -> Any:
        """Look at what may be code. The pickler calls this, but not for plain data."""
        kind = type(obj)
        if _is_special(kind):
            return self._special(obj, kind)
        if kind is MethodType:
            return reduce_method(obj)
        if kind.__reduce__ is _USUAL:
            reason = is_future(obj)
            if reason:
                raise TypeError(reason)
        elif self.waits and kind in kinds:
            return kinds[kind](obj)
        return NotImplemented

    def _special(self, obj: Any, kind: type) -> Any:
        if found_by_name(obj) and not _by_value_modules():
            return NotImplemented
        if kind in (FunctionType, LRU_CACHE) or issubclass(kind, type):
            home = main_name(obj)
            if home is not None:
                self.names[home.partition(".")[0]] = None
                return NotImplemented
            names.look()
            name = names.name_of(obj)
            if name is not None and not keeps_data(obj):
                from remote_executor.payload.code import namespace

                self.names[name] = None
                return namespace.named, (name,)
        elif kind is BuiltinFunctionType:
            return NotImplemented
        return self.deep().reduce(obj)

    def deep(self) -> WorkerPickler:
        """Return the pickler for what travels by its definition."""
        if self._deep is None:
            from remote_executor.payload.by_value import Visit, WorkerPickler

            self.visit = Visit()
            self._deep = WorkerPickler(io.BytesIO(), self._keep, self.visit)
        return self._deep


class ResultPickler(pickle.Pickler):
    """
    Pickles in a worker what the client is to load.

    Args:
        file: Where to.
        keep: Takes large buffers.
        foreign: Whether the client is of another Python.
    """

    def __init__(
        self,
        file: io.BytesIO,
        keep: Callable[[pickle.PickleBuffer], bool],
        foreign: bool = False,
    ) -> None:
        super().__init__(file, 5, buffer_callback=keep)
        if of_multiprocessing:
            self.dispatch_table = of_multiprocessing
        self._keep = keep
        self._foreign = foreign
        self._deep: Any = None

    def reducer_override(self, obj: Any) -> Any:
        """Look at what may be code. The pickler calls this, but not for plain data."""
        kind = type(obj)
        if _is_special(kind):
            if found_by_name(obj) and not _by_value_modules():
                return NotImplemented
            if self._deep is None:
                self._deep = self._make_deep()
            return self._deep.reduce(obj)
        if kind is MethodType:
            return reduce_method(obj)
        if kind.__reduce__ is _USUAL:
            reason = is_future(obj)
            if reason:
                raise TypeError(reason)
        return NotImplemented

    def _make_deep(self) -> Any:
        if self._foreign:
            load_own("remote_executor.payload.by_source")
            from remote_executor.payload.by_source import ForeignClientPickler

            return ForeignClientPickler(io.BytesIO(), 5, self._keep)
        load_own("remote_executor.payload.by_value")
        from remote_executor.payload.by_value import ClientPickler

        return ClientPickler(io.BytesIO(), 5, self._keep)
