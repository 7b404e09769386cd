"""Bundles for one Python or another: see :mod:`remote_executor.payload.code.units`."""

from __future__ import annotations

import io
import pickle
from collections.abc import Container, Sequence
from types import FunctionType
from typing import Any

from remote_executor.payload.by_value import Visit, WorkerPickler
from remote_executor.payload.captures import Captures, is_fixed
from remote_executor.payload.code import namespace, registrations
from remote_executor.payload.code.digests import frozen
from remote_executor.payload.code.names import LRU_CACHE, main_globals, main_name, names
from remote_executor.payload.code.units import Bundle, Make, Unit, Units
from remote_executor.payload.pickles import keeper

__all__ = ["bundle_of", "copied_bundle", "function_bundle", "units", "whole_bundle", "wrapped"]

units = Units()
"""Those of this process, for workers of the same Python."""


def wrapped(
    body: bytes, buffers: Sequence[memoryview], visit: Visit, what: str
) -> tuple[bytes, Sequence[memoryview]]:
    """
    Put what a pickle needs of ``__main__`` around it.

    Args:
        body: The pickle.
        buffers: Its large buffers.
        visit: What it needs.
        what: What it is, for errors.
    """
    registrations.look()
    names.look()
    found, absent = units.collect(visit, what)
    if not found:
        return body, buffers
    return _dump(Bundle(body, buffers, found, units.to_remove(absent)))


def copied_bundle(
    obj: object, what: str, extra: Sequence[str], of: Units, make: Make
) -> tuple[bytes, list[memoryview]]:
    """
    Pickle what is copied to a worker, with all that it needs of ``__main__``.

    Args:
        obj: Anything but a function: see :func:`function_bundle`.
        what: What it is, for errors.
        extra: Names that are needed, too.
        of: The units.
        make: Makes the pickler.
    """
    registrations.look()
    names.look()
    visit = Visit()
    visit.names.update(dict.fromkeys(extra))
    file = io.BytesIO()
    views: list[memoryview] = []
    pickler = make(file, keeper(views), visit, ())
    pickler.data = False
    pickler.dump(obj)
    found, absent = of.collect(visit, what)
    if not found:
        return file.getvalue(), views
    return _dump(Bundle(file.getvalue(), views, found, of.to_remove(absent)))


def bundle_of(
    body: bytes, buffers: Sequence[memoryview], visit: Visit, what: str, pure: bool
) -> tuple[bytes, list[memoryview]]:
    """
    Put what a function needs of ``__main__`` around its pickle, which a worker has made.

    Args:
        body: The pickle.
        buffers: Its large buffers.
        visit: What the worker has met.
        what: What it is, for errors.
        pure: Whether it may be called again and again.
    """
    registrations.look()
    names.look()
    found, absent = units.collect(visit, what)
    fresh = [] if pure else _fresh(visit, found, main_globals())
    if not found and not absent:
        return body, list(buffers)
    return _dump(Bundle(body, buffers, found, units.to_remove(absent), fresh))


def whole_bundle(
    without: Container[str], withheld: Sequence[str], of: Units
) -> tuple[bytes, list[memoryview]]:
    """
    Pickle all names of ``__main__``, for who looks at all of it.

    Args:
        without: Names that are to be left out, unless others need them.
        withheld: Those of them that the other is told of.
        of: The units.
    """
    registrations.look()
    names.look()
    visit = Visit()
    visit.all = True
    found, _ = of.collect(visit, "all of __main__", without)
    return _dump(_Rest(Bundle(pickle.dumps(None), [], found, of.gone()), list(withheld)))


class _Rest:
    """Unpickles as a bundle does, and then binds stand-ins."""

    __slots__ = ("args",)

    def __init__(self, bundle: Bundle, withheld: list[str]) -> None:
        self.args = bundle, withheld

    def __reduce__(self) -> tuple[Any, ...]:
        return namespace.bind_rest, self.args


def function_bundle(
    function: Any,
    extra: Sequence[str] = (),
    pool: Sequence[memoryview] = (),
    of: Units = units,
    make: Make = WorkerPickler,
) -> tuple[bytes, list[memoryview], Captures]:
    """
    Pickle a function or class, with all that it needs of ``__main__``.

    Args:
        function: The function or class.
        extra: Names that its arguments need.
        pool: Earlier snapshots of buffers.
        of: The units.
        make: Makes the pickler.

    Returns:
        The pickle, its buffers as snapshots, and what tells whether they are outdated.

    Raises:
        PayloadError: If something that it refers to cannot be pickled.
        Exception: Whatever the pickler raises.
    """
    registrations.look()
    names.look()
    main = main_globals()
    visit = Visit()
    visit.names.update(dict.fromkeys(each for each in extra if each not in names.asked))
    name = names.name_of(function)
    alone = name is not None and _is_snapshot(function, name, make)
    file = io.BytesIO()
    views: list[memoryview] = []
    pickler = make(file, keeper(views), visit, ())
    if alone:
        pickler.own = (name,)
    pickler.dump(function)
    captures = Captures(function, visit, main)
    if not captures.pure:
        # What it captured is looked at whatever its size, also where a name binds it.
        of.forget(name for name in visit.references if _is_mutable(main.get(name)))
    found, absent = of.collect(visit, getattr(function, "__qualname__", "the function"))
    for each in absent:
        captures.add_absent(each)
    fresh = [] if captures.pure else _fresh(visit, found, main)
    whole = captures.seal([unit.captures for unit in found])
    snapshots = frozen(views, pool)
    absent = of.to_remove(absent)
    if not found and not absent:
        return file.getvalue(), snapshots, whole
    body, buffers = _dump(Bundle(file.getvalue(), snapshots, found, absent, fresh))
    return body, frozen(buffers, pool), whole


def _is_snapshot(function: Any, name: str, make: Make) -> bool:
    """Whether each call is to have what the function captured as it was at submit (PARITY L13)."""
    if type(function) is not FunctionType or main_name(function) is not None:
        return False
    visit = Visit()
    pickler = make(io.BytesIO(), keeper([]), visit, ())
    pickler.own = (name,)
    pickler.dump(function)
    return not Captures(function, visit, main_globals()).pure or _refers_to_data(visit)


def _refers_to_data(visit: Visit) -> bool:
    main = main_globals()
    return any(_is_mutable(main.get(name)) for name in visit.references)


def _is_mutable(value: object) -> bool:
    return not (is_fixed(value) or type(value) is object or isinstance(value, LRU_CACHE))


def _fresh(visit: Visit, found: Sequence[Unit], main: dict[str, Any]) -> list[str]:
    """Return the names of what each call of a function has anew: what it captured."""
    made: set[str] = set()
    todo = list(visit.references)
    by_name = {name: unit for unit in found for name in unit.names}
    while todo:
        name = todo.pop()
        unit = by_name[name]
        if name not in made and _is_mutable(main.get(name)) and unit.own_token:
            made.update(unit.names)
            todo += unit.visit.references
    for unit in found:  # each comes after those that it refers to
        if any(name in made for name in unit.visit.references):
            made.update(unit.names)
    return [name for unit in found for name in unit.names if name in made]


def _dump(bundle: Bundle | _Rest) -> tuple[bytes, list[memoryview]]:
    buffers: list[memoryview] = []
    body = pickle.dumps(bundle, 5, buffer_callback=keeper(buffers))
    return body, buffers
