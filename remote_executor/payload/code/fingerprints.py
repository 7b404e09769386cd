"""
What is in a value, to be compared with what was in it.

A fingerprint is a pickle in which code stands for itself by its identity, and objects of the
program's classes are their attributes: no ``__reduce__`` or ``__getstate__`` of theirs is called,
so to look whether an object has changed leaves no trace in it.
"""

from __future__ import annotations

import io
import pickle
import sys
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any

from remote_executor.payload.code.digests import frozen, same_bytes
from remote_executor.payload.code.dispatch import reduce_method_by_dispatch
from remote_executor.payload.code.names import LRU_CACHE
from remote_executor.payload.code.watch import IN_MEMORY

__all__ = ["Print", "fingerprint", "loses_attributes"]

_BY_IDENTITY = (FunctionType, type, ModuleType, BuiltinFunctionType, property, LRU_CACHE)
_OWN_WAYS = ("__reduce__", "__reduce_ex__", "__getstate__", "__getnewargs__", "__getnewargs_ex__")
_HEAP = 1 << 9
_OUT_OF_BAND = 1024


def _one(*_: object) -> None:
    """Stand in a fingerprint for how an object is made."""


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if obj is _one:
            return NotImplemented
        if kind is FunctionType or kind.__module__ == "functools":
            by_dispatch = reduce_method_by_dispatch(obj)
            if by_dispatch is not None:
                return _one, by_dispatch[1]
        if isinstance(obj, _BY_IDENTITY) or kind.__module__ in ("_thread", "_io"):
            return NotImplemented if kind.__name__ in IN_MEMORY else (_one, (id(obj),))
        if kind is CellType:
            try:
                return _one, (id(obj), obj.cell_contents)
            except ValueError:  # not assigned yet
                return _one, (id(obj),)
        if kind is MethodType:
            return _one, (id(obj.__func__), obj.__self__)
        if kind.__flags__ & _HEAP and _is_of_a_program(kind):
            slots = [
                getattr(obj, name, None)
                for each in kind.__mro__
                for name in _slots(each)
                if name not in ("__dict__", "__weakref__")
            ]
            inside = None
            if isinstance(obj, (list, tuple, set, frozenset, dict, str, bytes, bytearray)):
                inside = _content(obj)
            return _one, (id(kind), getattr(obj, "__dict__", None), slots, inside)
        if kind.__flags__ & _HEAP and kind.__module__ == "__main__" and loses_attributes(kind):
            return _one, (id(kind), getattr(obj, "__dict__", None), obj.__reduce_ex__(5))
        return NotImplemented


def _content(obj: Any) -> Any:
    if isinstance(obj, dict):
        return dict.copy(obj)
    for kind in (list, tuple, set, frozenset, str, bytes, bytearray):
        if isinstance(obj, kind):
            make: Any = kind
            return make(obj)
    return None  # pragma: no cover


def loses_attributes(kind: Any) -> bool:
    """
    Whether a class of the program takes its way to be pickled from one that knows no attributes.

    Such a one is written in C. What a library says in Python of its instances is its own business:
    it leaves out what it wants left out.
    """
    if kind.__module__ not in ("__main__", "__mp_main__"):
        return False
    for each in kind.__mro__[:-1]:
        members = vars(each)
        way = members.get("__reduce_ex__") or members.get("__reduce__")
        if way is not None:
            return not isinstance(way, FunctionType)
    return False


def _is_of_a_program(kind: type) -> bool:
    """Whether a class has ways of its own to be pickled, written in Python."""
    return any(
        isinstance(vars(each).get(way), FunctionType)
        for each in kind.__mro__
        if each.__module__.partition(".")[0] not in sys.stdlib_module_names
        for way in _OWN_WAYS
    )


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


class Print:
    """
    What was in some values.

    Attributes:
        cost: How many bytes it takes to compare, where 256 bytes of arrays count as one.
    """

    __slots__ = ("_body", "_views", "cost")

    def __init__(self, values: list[object]) -> None:
        self._body: bytes | None = None
        try:
            self._body, views = _dump(values)
        except Exception:
            # It cannot be told whether it has changed, so it counts as if it had.
            self.cost = 1 << 12
            return
        self._views = frozen(views)
        self.cost = len(self._body) + sum(map(len, views)) // 256

    def holds(self, values: list[object]) -> bool:
        """Tell whether the same is in them."""
        if self._body is None:
            return False
        try:
            body, views = _dump(values)
        except Exception:  # to pickle it anew will say what is wrong
            return False
        return (
            body == self._body
            and len(views) == len(self._views)
            and all(map(same_bytes, self._views, views))
        )


def fingerprint(values: list[object]) -> Print:
    """Return what is in values now."""
    return Print(values)


def _dump(values: list[object]) -> tuple[bytes, list[memoryview]]:
    file = io.BytesIO()
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < _OUT_OF_BAND:
            return True
        buffers.append(view)
        return False

    _Pickler(file, 5, buffer_callback=keep).dump(values)
    return file.getvalue(), buffers
