"""
What the program has registered with ``copyreg``, or with the pickler of ``multiprocessing``.

A forked process has these registrations, so a worker gets them, too: they go along with functions
as if a name of ``__main__`` were bound to them, :data:`REGISTERED`. What a module registers when it
is imported is not among them, unless it is a module of the program's own: a worker that imports the
module has it from there.
"""

from __future__ import annotations

import copyreg
import functools
import sys
from typing import Any

from remote_executor.errors import PayloadError
from remote_executor.payload.code.names import found_by_name, is_by_hand, names

__all__ = ["REGISTERED", "Elsewhere", "Registered", "look", "of_multiprocessing", "register"]

REGISTERED = "copyreg.dispatch_table"
"""Stands for them where names of ``__main__`` do. No such name can be bound."""

of_multiprocessing: dict[type, Any] = {}
"""All of ``copyreg`` and what the program registered with ``multiprocessing``, if it did."""

_table: dict[type, Any] = copyreg.dispatch_table
_extra: dict[type, Any] = {}
_seen: tuple[int, dict[type, Any]] = len(_table), {}
_own: dict[tuple[str, type], Any] = {}


def look() -> None:
    """Look whether the program has registered something, of which a name then stands."""
    # The lengths alone, as long as there is nothing of the program's: this is on a hot path.
    if not _extra and "multiprocessing.reduction" in sys.modules:
        _adopt()
    if len(_table) + len(_extra) == _seen[0]:
        if REGISTERED not in names.asked:
            if not _own:
                return
        elif _seen[1] == {**_table, **_extra}:
            return
    _look_closely()


def _adopt() -> None:
    global _extra
    reduction: Any = sys.modules["multiprocessing.reduction"]
    pickler = getattr(reduction, "ForkingPickler", None)  # it may be half imported
    _extra = getattr(pickler, "_extra_reducers", _extra)


def _look_closely() -> None:
    global _seen
    _seen = len(_table) + len(_extra), {**_table, **_extra}
    found = {
        (where, kind): reducer
        for where, table in (("copyreg", _table), ("multiprocessing", _extra))
        for kind, reducer in table.copy().items()
        if _is_own(kind, reducer)
    }
    if found != _own:
        _own.clear()
        _own.update(found)
        names.refresh([REGISTERED])
        of_multiprocessing.clear()
        added = {kind: how for (where, kind), how in found.items() if where != "copyreg"}
        if added:
            of_multiprocessing.update({**_table, **added})
    if found:
        names.look()  # which begins anew for a __main__ that it has not seen
        names.asked[REGISTERED] = None  # from now on, as a worker must hear also that there is none


def _is_program(module: str) -> bool:
    return module in ("__main__", "__mp_main__") or is_by_hand(sys.modules.get(module))


def _is_own(kind: type, reducer: Any) -> bool:
    """Whether it is the program that registers this, and no import of a library."""
    while isinstance(reducer, functools.partial):
        reducer = reducer.func
    home = str(getattr(reducer, "__module__", None))
    if _is_program(home) or _is_program(kind.__module__):
        return True
    top = home.partition(".")[0]
    if top in sys.stdlib_module_names or top == kind.__module__.partition(".")[0]:
        return False
    from remote_executor.payload.modules import users_own_file

    return users_own_file(sys.modules.get(home)) is not None


class Registered:
    """
    Unpickles to nothing: it registers what the program has registered.

    Args:
        try_out: Pickles something apart, and raises if it cannot be pickled.
    """

    __slots__ = ("_entries",)

    def __init__(self, try_out: Any) -> None:
        self._entries = []
        for (where, kind), reducer in _own.items():
            known: Any = reducer
            if found_by_name(reducer):
                known = Elsewhere(reducer.__module__, reducer.__qualname__)
            else:
                try:
                    try_out(reducer)
                except Exception as error:
                    what = f"the reducer of {kind.__qualname__}, which {where} knows,"
                    known = Elsewhere(what, str(error) or type(error).__name__, refused=True)
            of: Any = kind
            if found_by_name(kind):
                of = kind.__module__, kind.__qualname__
            self._entries.append((where, of, known))

    def __reduce__(self) -> tuple[Any, ...]:
        reduction: Any = sys.modules.get("multiprocessing.reduction")
        return register, (self._entries, _extra and reduction.ForkingPickler)


class Elsewhere:
    """
    A reducer that is looked up when it is used, in the module that has it.

    Args:
        module: The module's name; what is refused, if it is.
        name: The function's name; why it is refused.
        refused: Whether there is none, as it cannot be sent.
    """

    def __init__(self, module: str, name: str, *, refused: bool = False) -> None:
        self._module = module
        self._name = name
        self._refused = refused

    def __call__(self, obj: object) -> Any:
        """
        Tell how to make an object anew.

        Raises:
            PayloadError: If the reducer cannot be sent, or its module is not here.
        """
        if self._refused:
            raise PayloadError(self._module, self._name)
        from remote_executor.payload.code.namespace import import_attribute

        return import_attribute(self._module, self._name)(obj)


_registered: dict[tuple[str, type], Any] = {}
"""What this worker has been told to register."""


def register(entries: list[tuple[str, Any, Any]], forking: Any = None) -> None:
    """
    Register in a worker what the program has registered, and nothing else that it had before.

    Args:
        entries: Each the table's name, the type (or its module and name), and the reducer.
        forking: The pickler of ``multiprocessing``, if the program has loaded it.
    """
    if forking:
        _adopt()
    found: dict[tuple[str, type], Any] = {}
    for where, kind, reducer in entries:
        known = _type_of(*kind) if isinstance(kind, tuple) else kind
        if known is not None:
            found[where, known] = reducer
    for key in _registered.keys() - found:
        _table_of(key[0]).pop(key[1], None)
    for (where, kind), reducer in found.items():
        if _registered.get((where, kind)) is not reducer:
            _table_of(where)[kind] = reducer
    _registered.clear()
    _registered.update(found)
    added = {kind: how for (where, kind), how in found.items() if where != "copyreg"}
    of_multiprocessing.clear()
    if added:
        of_multiprocessing.update({**copyreg.dispatch_table, **added})


def _type_of(module: str, name: str) -> Any:
    """Return a type of a module; None if it is not here, and so no object of it."""
    from importlib import import_module

    try:
        found: Any = import_module(module)
        for each in name.split("."):
            found = getattr(found, each)
    except (ImportError, AttributeError):
        return None
    return found


def _table_of(where: str) -> dict[type, Any]:
    if where == "copyreg":
        return copyreg.dispatch_table
    return _extra
