"""
What something needs of ``__main__``, pickled: a unit for each name, and a bundle of them.

::

    root --|-> name ----> name        references in pickles, and globals that code names
           |-> name

Each name is pickled in a pickle of its own, at most once as long as its value is the same, and
refers to others by their names. Names whose pickles have an unnamed object in common (a variable
that two closures share, a list in two tables), or lead to each other in a circle, are pickled
together as one unit: so what is one object here is one object there. :mod:`.namespace` loads them.
"""

from __future__ import annotations

import builtins
import io
import pickle
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any

from remote_executor.errors import PayloadError
from remote_executor.payload import mains
from remote_executor.payload.by_value import (
    Global,
    Visit,
    WorkerPickler,
    is_defined,
    serial,
)
from remote_executor.payload.captures import Captures, is_fixed
from remote_executor.payload.code import namespace
from remote_executor.payload.code.atoms import SIZE, Constant
from remote_executor.payload.code.digests import digest, frozen
from remote_executor.payload.code.families import SUBCLASSES, Family, classes_of, family
from remote_executor.payload.code.names import (
    OF_THE_MODULE,
    found_by_name,
    is_atom,
    main_globals,
    names,
)
from remote_executor.payload.code.origins import find_origin, is_environment
from remote_executor.payload.code.registrations import REGISTERED, Registered
from remote_executor.payload.pickles import keeper, plainly

__all__ = ["Bundle", "Units"]

_NO_IDENTITY = (
    str,
    bytes,
    tuple,
    frozenset,
    type,
    ModuleType,
    CodeType,
    BuiltinFunctionType,
    Enum,
    memoryview,  # of these nothing is kept alive, for what they view could not be resized
    pickle.PickleBuffer,
)

_NEVER_IDENTITY = frozenset(_NO_IDENTITY)
_IDENTITY = frozenset({list, dict, set, bytearray, CellType})

MODULE = "sys.modules."
"""Before its name, stands for a module made by hand that code imports."""


def is_no_name(name: str) -> bool:
    """Tell what stands among the names of ``__main__`` and is none: it is loaded, and not bound."""
    return "." in name


_NEVER = OF_THE_MODULE - {"__package__"}

_sent: set[str] = set()
"""Names that some worker may have, in whatever form for whatever Python they went."""

_edits: dict[str, int] = {}
"""
How often the program was seen to have changed what a name stands for, for whatever Python.

It is a part of tokens, for what has changed may be equal to before: a new empty list, in the place
of one that a task has filled, is empty for workers, too.
"""

Make = Callable[[io.BytesIO, Any, Visit, Sequence[str]], Any]


class _Unsent:
    """Unpickles to a stand-in that says what is wrong when it is used."""

    __slots__ = ("args",)

    def __init__(self, what: str, reason: str, value: object) -> None:
        kind = type(value)
        self.args = what, reason, kind.__module__, kind.__qualname__

    def __reduce__(self) -> tuple[Any, ...]:
        return mains.make_unsent, self.args


class Unit:
    """
    Names of ``__main__``, pickled.

    Attributes:
        names: Most units have one.
        body: The pickle of the tuple of their values.
        buffers: Its large buffers, snapshots that nobody writes to.
        visit: What was met.
        captures: Tells whether it is outdated.
        error: Why it cannot be pickled, or None.
        serials: Those of functions and classes; 0 for data.
        token: What a worker compares. It changes with that of the data that is referred to.
    """

    __slots__ = (
        "body",
        "buffers",
        "captures",
        "data",
        "error",
        "made",
        "names",
        "own_token",
        "serials",
        "stale",
        "token",
        "visit",
    )

    def __init__(self, of: tuple[str, ...]) -> None:
        self.captures: Captures
        self.names = of
        self.body = b""
        self.buffers: list[memoryview] = []
        self.visit = Visit()
        self.error: Exception | None = None
        self.serials: tuple[int, ...] = ()
        self.data = True
        self.own_token = self.token = b""
        self.stale = False
        self.made = names.refreshed

    def cost(self) -> int:
        """Return what it takes to look whether it has changed: see captures.WATCHED."""
        own = max(1, len(self.body) - SIZE * self.visit.atoms)
        return own + sum(map(len, self.buffers)) // 256

    def entry(self) -> tuple[Any, ...]:
        """Return what :func:`namespace.open_bundle` takes."""
        body: Any = self.body
        if len(body) > 32 * 1024:  # apart, so that it travels once whatever bundles have it
            body = pickle.PickleBuffer(body)
        views = [pickle.PickleBuffer(view.obj) for view in self.buffers]
        return self.names, self.token, body, views, self.serials


class Units:
    """
    The units of a process's ``__main__``, each made when it is needed first.

    Args:
        make: Makes the pickler.
    """

    def __init__(self, make: Make = WorkerPickler) -> None:
        self._make = make
        self._units: dict[str, Unit] = {}
        self._generation = 0
        self._main: dict[str, Any] = {}

    def forget(self, which: Iterable[str]) -> None:
        """Have names pickled again when they are needed next."""
        for name in which:
            unit = self._units.get(name)
            if unit is not None:
                unit.stale = True

    # ------------------------------------------------------------------------- one unit

    def _unit(self, name: str, made: dict[str, Unit]) -> Unit:
        unit = made.get(name)
        if unit is not None:
            return unit
        unit = self._units.get(name)
        if (
            unit is None
            or unit.stale
            or unit.made < max(map(names.refreshed_at, unit.names))
            or not unit.captures.hold(None)
        ):
            unit = self._pickle((name,))
        made.update(dict.fromkeys(unit.names, unit))
        return unit

    def _value(self, name: str) -> Any:
        if name.startswith(MODULE):
            return sys.modules[name[len(MODULE) :]]
        if name == SUBCLASSES:
            return Family(family(self._main))
        if name == REGISTERED:
            return Registered(self._make(io.BytesIO(), keeper([]), Visit(), ()).dump_apart)
        return self._main[name]

    def _pickle(self, of: tuple[str, ...]) -> Unit:
        before = self._units.get(of[0])
        unit = Unit(of)
        values = tuple(map(self._value, of))
        for each in {id(each): each for each in map(self._units.get, of) if each}.values():
            if not (all(map(is_atom, values)) or each.error or each.captures.hold(None)):
                _edits.update((name, _edits.get(name, 0) + 1) for name in each.names)
        unit.serials = tuple(serial(value) if is_defined(value) else 0 for value in values)
        unit.data = not all(unit.serials)
        origin = find_origin(of[0], values[0], self._main) if len(of) == 1 else None
        if is_environment(values[0]):
            origin = "os", "environ"
        watched = False
        try:
            if origin is not None:
                unit.body = pickle.dumps((Global(*origin, _copy_of(values[0])),), 5)
            else:
                self._dump(unit, values, before)
                watched = True
        except Exception as error:
            # Without the frames, which would keep what it met alive.
            unit.error = error.with_traceback(None)
            unit.error.__context__ = None
            unit.visit = Visit()
        unit.captures = Captures(None, unit.visit, self._main)
        for name in unit.visit.references:  # bound anew, it is no more what the pickle means
            if not is_no_name(name):
                unit.captures.add_global(name, self._main.get(name), 0)
        for name, value in zip(of, values, strict=True):
            if name == SUBCLASSES:
                unit.captures.add_fetched(partial(family, self._main))
            if is_no_name(name):  # for the other names.refresh() says that it is outdated
                continue
            if unit.error is not None:
                unit.captures.add_unsent(name, value)
            else:
                loose = watched and unit.data and not (is_fixed(value) or is_atom(value))
                unit.captures.add_global(name, value, unit.cost() if loose else 0)
        unit.captures.seal()
        unit.own_token = digest(unit.body, unit.buffers, 32)
        edits = [_edits.get(name, 0) for name in of]
        if any(edits):
            unit.own_token = digest(unit.own_token, [b"%d" % number for number in edits])
        for name in of:
            self._units[name] = unit
        return unit

    def _dump(self, unit: Unit, values: tuple[Any, ...], before: Unit | None) -> None:
        if unit.data and len(values) == 1 and (is_atom(values[0]) or found_by_name(values[0])):
            atom = names.atoms.pid_of(values[0])
            if atom is not None and type(atom[1]) is bytes:
                unit.body = pickle.dumps((Constant(atom),), 5)
                return
            plain = plainly(values) if atom is None else None
            if plain is not None:
                unit.body = plain[0]
                return
        file = io.BytesIO()
        views: list[memoryview] = []
        own = [name for name in unit.names if not is_no_name(name)]
        pickler = self._make(file, keeper(views), unit.visit, own)
        pickler.dump(values)
        unit.body = file.getvalue()
        unit.buffers = frozen(views, before.buffers if before is not None else ())
        # What is an attribute of a name's object is pickled as such, and so is the one it has.
        named = pickler.inner.union(map(id, values))
        unit.visit.shared = {
            key: obj
            for key, (_, obj) in pickler.memo.copy().items()
            if key not in named and _has_identity(obj)
        }

    # ----------------------------------------------------------------- what is needed

    def collect(
        self, visit: Visit, user: str, without: Container[str] = ()
    ) -> tuple[list[Unit], list[str]]:
        """
        Find all units that something needs.

        Args:
            visit: What its own pickle has met.
            user: What it is, for errors.
            without: Names that are left out of all names, unless something needs them.

        Returns:
            The units, each after those that its pickle refers to, and the names that are needed
            and that ``__main__`` does not have.

        Raises:
            PayloadError: If it refers to what cannot be pickled.
        """
        main = main_globals()
        if main is not self._main:
            self._main = main
            self._units.clear()
        if names.generation != self._generation:
            self._generation = names.generation
            for unit in self._units.values():
                # What had no name when it was pickled, and has one now, is referred to by that.
                unit.stale = unit.stale or names.bind_any(unit.visit.shared.keys())
        # Each is looked at once, so that what joins two of them stays.
        made: dict[str, Unit] = {}
        while True:
            found, absent, optional = self._reached(visit, made, without)
            together = _to_join(found)
            if not together:
                break
            for of in together:
                made.update(dict.fromkeys(of, self._pickle(of)))
        self._spoil(found)
        for name, unit in found.items():
            if unit.error is None or name in optional:
                continue
            # A code object is for eval() and exec(), which would call a stand-in no code object.
            is_code = type(self._main.get(name)) is CodeType or name == SUBCLASSES
            if name in visit.references or any(unit.serials) or is_code:
                raise _named(name, user, unit.error)
        self._stand_in(found)
        ordered = _ordered(found)
        _give_tokens(ordered, found)
        _sent.update(found)
        return ordered, absent

    def to_remove(self, absent: Iterable[str]) -> list[str]:
        """Return which of the names that ``__main__`` does not have a worker may have from it."""
        return [name for name in absent if name in _sent or not hasattr(builtins, name)]

    def gone(self) -> list[str]:
        """Return the names that a worker may have and ``__main__`` has no more."""
        main = main_globals()
        return [name for name in list(_sent) if name not in main and not is_no_name(name)]

    def _reached(
        self, visit: Visit, made: dict[str, Unit], without: Container[str]
    ) -> tuple[dict[str, Unit], list[str], set[str]]:
        """Return units by name, names that are not there, and names that may never be used."""
        found: dict[str, Unit] = {}
        absent: dict[str, None] = {}
        todo = [*visit.references, *visit.names]
        every, subclasses = visit.all, visit.subclasses
        seen: set[str] = set()
        optional: set[str] = set()
        while True:
            if subclasses and not todo:
                subclasses = False
                todo = [*classes_of(self._main), SUBCLASSES]
            if not todo:
                rest = [*names.asked, *(self._all_names() if every else ())]
                todo = [name for name in rest if name not in seen and name not in without]
                optional.update(todo)
                if not todo:
                    if every:  # code that looks at all names must not find those
                        absent.update(dict.fromkeys(self.gone()))
                    return found, list(absent), optional
            name = todo.pop(0)
            if name in seen or name in _NEVER:
                seen.add(name)
                continue
            seen.add(name)
            if name not in self._main and not is_no_name(name):
                absent[name] = None
                continue
            unit = self._unit(name, made)
            found[name] = unit
            todo += [*unit.visit.references, *unit.visit.names, *unit.names]
            every = every or unit.visit.all
            subclasses = subclasses or (unit.visit.subclasses and SUBCLASSES not in seen)

    def _all_names(self) -> list[str]:
        return [name for name in list(self._main) if name[:2] != "__"]

    def _spoil(self, found: dict[str, Unit]) -> None:
        """What refers to what cannot be pickled cannot be, either."""
        changed = True
        while changed:
            changed = False
            for unit in found.values():
                if unit.error is None:
                    for name in unit.visit.references:
                        error = found[name].error
                        if error is not None:
                            unit.error = error
                            unit.stale = changed = True
                            break

    def _stand_in(self, found: dict[str, Unit]) -> None:
        for name, unit in found.items():
            if unit.error is not None:
                reason = str(unit.error) or type(unit.error).__name__
                user = _user_of(name, found)
                what = f"global {name!r}" + (f", which {user} uses," if user else "")
                unit.body = pickle.dumps(
                    tuple(_Unsent(what, reason, self._main.get(each)) for each in unit.names), 5
                )
                unit.buffers = []
                unit.serials = tuple(0 for _ in unit.names)
                # The same for all that use it: what a worker has put in its place stays.
                unit.own_token = b"unsent"


class Bundle:
    """Unpickles to something, once the names that it needs are bound."""

    __slots__ = ("args",)

    def __init__(
        self,
        body: bytes,
        buffers: Sequence[memoryview],
        units: Sequence[Unit],
        absent: Sequence[str] = (),
        fresh: Sequence[str] = (),
    ) -> None:
        views = [pickle.PickleBuffer(view.obj) for view in buffers]
        self.args = body, views, [unit.entry() for unit in units], absent, fresh

    def __reduce__(self) -> tuple[Any, ...]:
        return namespace.open_bundle, self.args


def _user_of(name: str, found: dict[str, Unit]) -> str:
    for unit in found.values():
        for function, _ in unit.visit.functions:
            if name in function.__code__.co_names:
                return f"{function.__qualname__}()"
    return ""


def _named(name: str, user: str, error: Exception) -> PayloadError:
    if isinstance(error, PayloadError):
        return error
    made = PayloadError(
        f"global {name!r}, which {user} refers to,", str(error) or type(error).__name__
    )
    made.__cause__ = error
    return made


def _copy_of(value: object) -> bytes | None:
    """Return the pickle of plain data, for where a module cannot be imported."""
    if is_environment(value):
        return None
    plain = plainly(value)
    if plain is None or plain[1]:
        return None
    import pickletools

    calls = any(
        op.name in ("STACK_GLOBAL", "REDUCE", "BUILD") for op, *_ in pickletools.genops(plain[0])
    )
    return None if calls else plain[0]


def _has_identity(obj: object) -> bool:
    kind = type(obj)
    if kind in _IDENTITY:
        return True
    if kind in _NEVER_IDENTITY or issubclass(kind, _NO_IDENTITY):
        return False
    if isinstance(obj, FunctionType):
        return not found_by_name(obj)
    return kind.__hash__ in (None, object.__hash__)


def _to_join(found: dict[str, Unit]) -> list[tuple[str, ...]]:
    """Find units that are to be one: they share an object, or refer to each other in a circle."""
    parent: dict[str, str] = {name: unit.names[0] for name, unit in found.items()}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    def join(one: str, other: str) -> bool:
        one, other = root(one), root(other)
        parent[other] = one
        return one != other

    joined = False
    owner: dict[int, str] = {}
    for unit in dict.fromkeys(found.values()):
        for key in unit.visit.shared:
            first = owner.setdefault(key, unit.names[0])
            if first != unit.names[0]:
                joined |= join(first, unit.names[0])
    for circle in _circles(found):
        for name in circle[1:]:
            joined |= join(circle[0], name)
    if not joined:
        return []
    groups: dict[str, list[str]] = {}
    for name in found:
        groups.setdefault(root(name), []).append(name)
    known = {unit.names for unit in found.values()}
    made = [tuple(sorted(group)) for group in groups.values()]
    return [group for group in made if len(group) > 1 and group not in known]


def _circles(found: dict[str, Unit]) -> list[list[str]]:
    """Return the strongly connected parts with more than one name (Tarjan's way)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []
    for start, unit in found.items():
        if start in index:
            continue
        work: list[tuple[str, list[str]]] = [(start, list(unit.visit.references))]
        index[start] = low[start] = len(index)
        stack.append(start)
        while work:
            name, todo = work[-1]
            if todo:
                other = todo.pop()
                if other not in found:
                    continue
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    work.append((other, list(found[other].visit.references)))
                elif other in stack:
                    low[name] = min(low[name], index[other])
                continue
            work.pop()
            if work:
                low[work[-1][0]] = min(low[work[-1][0]], low[name])
            if low[name] == index[name]:
                part = []
                while True:
                    part.append(stack.pop())
                    if part[-1] == name:
                        break
                if len(part) > 1:
                    circles.append(part)
    return circles


def _ordered(found: dict[str, Unit]) -> list[Unit]:
    """
    Return units so that each comes after those that it refers to, and code before data.

    To load data may call functions, which then find the globals that are code.
    """
    done: dict[Unit, None] = {}
    open_: set[Unit] = set()
    for start in sorted(found.values(), key=lambda unit: unit.data):
        work = [(start, [found[name] for name in start.visit.references if name in found])]
        open_.add(start)
        while work:
            unit, todo = work[-1]
            if todo:
                other = todo.pop()
                if other not in open_:
                    open_.add(other)
                    refs = [found[name] for name in other.visit.references if name in found]
                    work.append((other, refs))
                continue
            work.pop()
            done[unit] = None
    return list(done)


def _give_tokens(ordered: list[Unit], found: dict[str, Unit]) -> None:
    for unit in ordered:
        behind = []
        for name in unit.visit.references:
            other = found[name]
            if other is not unit:
                at = other.names.index(name)
                behind.append(b"%d" % other.serials[at] if other.serials[at] else other.token)
        behind += [b"%d" % number for number in unit.serials if number]
        unit.token = unit.own_token
        if behind and unit.error is None:
            unit.token = digest(unit.own_token, behind)
