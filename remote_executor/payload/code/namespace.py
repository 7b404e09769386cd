"""
The worker's ``__main__``: what the client's names mean here.

::

    bundle   root: a pickle that refers to names    units: the names that it reaches
                     |                                       |  loaded if the token is not the
                     v                                       v  one that was applied last
             the function, an initializer, ...      the dict of ``__main__``

Within the pickles a name of ``__main__`` is a persistent id. So whatever refers to a name gets the
one object that this process has for it. What a task or an initializer wrote to a global, to a class
or to an object stays there until the client's own has changed, and with it the token.

A name that is needed and was in no bundle is asked for: see :class:`MainModule`.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from types import FunctionType, MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from remote_executor.errors import PayloadError
from remote_executor.payload import mains
from remote_executor.payload.code import atoms, lines

__all__ = [
    "ABSENT",
    "HOOKS",
    "WHOLE",
    "MainModule",
    "ask_by",
    "bind_rest",
    "fill_class",
    "fill_part",
    "find",
    "forget_asked",
    "import_attribute",
    "module_space",
    "open_bundle",
]

ABSENT = b"absent"
"""The token of a name that the client's ``__main__`` does not have."""

Unit = tuple[tuple[str, ...], bytes, Any, Sequence[Any], Sequence[int]]
"""Names, token, pickle, its large buffers, the serials of the objects at home (0 for data)."""

objects: dict[str, Any] = {}
"""What a name stands for in references: the object as it came, whatever a task has put there."""

serials: dict[str, int] = {}
"""Which object of the client's a name had last."""

asked: dict[str, Any] = {}
"""Names that were asked for by the task that runs now."""

_ask: Callable[[str], tuple[Any, Sequence[Any]] | None] | None = None


_plain_dict: Any = vars(ModuleType)["__dict__"].__get__


class MainModule(ModuleType):
    """
    The worker's ``__main__``.

    An attribute that it lacks is asked for: by ``pickle`` for a class by name, by ``getattr``, by
    ``import __main__``. A global that code names has come before that code runs. Who looks at all
    of it, such as ``dir``, ``inspect.getmembers``, ``unittest`` or ``doctest``, has it whole first.
    """

    def __getattr__(self, name: str) -> Any:
        """Ask the client for a name of its ``__main__``."""
        if name in _opening:
            raise _looks_itself_up(name)
        if _ask is not None and not (name[:2] == name[-2:] == "__"):
            answer = _ask(name)
            if answer is not None:
                body, buffers = answer
                value = pickle.loads(body, buffers=buffers)
                asked[name] = value
                return value
            hook = _hook(_plain_dict(self), "__getattr__")
            if hook is not None:
                return hook(name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        """Return all names that the client's has, which come first."""
        _ask_whole()
        own = _hook(_plain_dict(self), "__dir__")
        return list(own() if own is not None else _plain_dict(self))

    if not TYPE_CHECKING:

        @property
        def __dict__(self) -> dict[str, Any]:
            """The globals: whole, if it is the program that looks at them, or a library."""
            caller = str(sys._getframe(1).f_globals.get("__name__")).partition(".")[0]
            if caller in _LOOKS or caller not in _OF_PYTHON:
                _ask_whole()
            return _plain_dict(self)


_LOOKS = frozenset({"doctest"})

_OF_PYTHON = sys.stdlib_module_names | {"remote_executor", "cloudpickle", "tblib"}
"""These look names up, and that is all: they are in code, or asked for."""

WHOLE = "*"
"""Asks for all names."""

HOOKS = ("__dir__", "__getattr__")
"""What a program may define for attributes of its module: asked for, and never sent along."""


def _hook(space: dict[str, Any], name: str) -> Any:
    """
    Return what a program has defined for attributes of its module (PEP 562), None if it has not.

    It never stays in the globals: there Python would call it before the client is asked for a name.
    """
    if name in space or name in asked or _ask is None or _opening:
        return space.get(name, asked.get(name))
    answer = _ask(name)
    found = None
    if answer is not None:
        body, buffers = answer
        found = pickle.loads(body, buffers=buffers)
        space.pop(name, None)
        mains.applied.pop(name, None)
    asked[name] = found
    return found


def _ask_whole() -> None:
    # A library that looks while a class statement runs would be given that very class once more.
    if _ask is None or WHOLE in asked or _opening:
        return
    asked[WHOLE] = _ask  # which no name is bound to
    space = mains.namespace()
    before = set(space)
    answer = _ask(WHOLE)
    if answer is not None:
        body, buffers = answer
        pickle.loads(body, buffers=buffers)
    asked.update((name, value) for name, value in space.items() if name not in before)


def bind_rest(_: object, withheld: Iterable[str]) -> None:
    """
    Bind stand-ins for what the client could not tell when it told all.

    Args:
        _: What brought the others.
        withheld: Names that the client has bound anew since the task was submitted.
    """
    space = mains.namespace()
    for name in withheld:
        if name not in space:
            reason = "it was bound anew after the task was submitted"
            space[name] = mains.Unsent(f"global {name!r} of the program", reason)


def ask_by(ask: Callable[[str], tuple[Any, Sequence[Any]] | None] | None) -> None:
    """
    Say how to ask the client for a name.

    Args:
        ask: Takes a name, returns the bundle of it and its buffers, or None if there is no such
            name; None if nobody is to be asked.
    """
    global _ask
    _ask = ask


def forget_asked() -> None:
    """
    Unbind what a task has asked for. Call it when the task is over.

    The answer was right for that task only. For later ones the client sends the name along.
    """
    space = mains.namespace()
    for name, value in asked.items():
        if name in space and space[name] is value:
            del space[name]
            mains.applied.pop(name, None)
    asked.clear()


def reset() -> None:
    """Forget all that was sent. For a new worker, before any pickle is loaded."""
    sent = _sent, _versions, _filled, _held, _copied, _by_hand
    for each in (objects, serials, asked, atoms.restored, *sent):
        each.clear()


def open_bundle(
    root: Any,
    buffers: Sequence[Any],
    units: Sequence[Unit],
    absent: Iterable[str] = (),
    fresh: Iterable[str] = (),
) -> Any:
    """
    Bind the names that something needs, and load it.

    Args:
        root: Its pickle.
        buffers: The large buffers of that.
        units: What it needs of ``__main__``.
        absent: Names that its code has and the client's ``__main__`` has not.
        fresh: Names of what it captured, to be made anew for each call.
    """
    opening = _Opening(units)
    for name in fresh:
        mains.applied.pop(name, None)
    for name in absent:
        _remove(name)
    for names, *_ in units:
        opening.resolve(names[0])
    return opening.load(root, buffers)


class _Unpickler(pickle.Unpickler):
    def __init__(
        self, file: io.BytesIO, buffers: Sequence[Any], resolve: Callable[[str], Any]
    ) -> None:
        super().__init__(file, buffers=buffers)
        self._resolve = resolve

    def persistent_load(self, name: Any) -> Any:
        """Return what a name stands for, or a text or number. The unpickler calls this."""
        return self._resolve(name) if type(name) is str else atoms.restore(*name)


_opening: set[str] = set()
"""Names whose pickles are being loaded."""


def _looks_itself_up(name: str) -> PayloadError:
    reason = "its pickle cannot be loaded, for it looks itself up in __main__ by this name"
    return PayloadError(f"global {name!r}", reason)


class _Opening:
    """Loads the pickles of one bundle."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = {name: unit for unit in units for name in unit[0]}
        self._open: set[str] = set()
        for name, unit in self._units.items():
            mains.note_token(name, unit[1])

    def load(self, body: Any, buffers: Sequence[Any]) -> Any:
        """Load a pickle in which names are persistent ids."""
        return _Unpickler(io.BytesIO(body), buffers, self.resolve).load()

    def resolve(self, name: str) -> Any:
        """Return what a name stands for, once it is as the client has it."""
        names, token, body, buffers, numbers = self._units[name]
        if mains.applied.get(name) == token:
            return objects[name]
        if name in self._open:
            raise _looks_itself_up(name)
        self._open.update(names)
        _opening.update(names)
        try:
            # Who fills a function or a class again finds it by its serial.
            for each, number in zip(names, numbers, strict=True):
                if serials.get(each) != number:
                    serials.pop(each, None)
            values = self.load(body, buffers)
        except BaseException:
            for each in names:
                mains.applied.pop(each, None)  # it is no older value's turn
            raise
        finally:
            self._open.difference_update(names)
            _opening.difference_update(names)
        space = mains.namespace()
        for each, number, value in zip(names, numbers, values, strict=True):
            objects[each] = value
            if "." not in each:  # the others are no names, but what is to be done here
                space[each] = value
            serials[each] = number
            mains.applied[each] = token
            if number:
                mains.arrived[value] = each
        return objects[name]


def _remove(name: str) -> None:
    """Take away a global that came from the client and is no more there."""
    mains.note_token(name, ABSENT)
    before = mains.applied.get(name)
    if before == ABSENT:
        return
    space = mains.namespace()
    if before is not None and name in objects and space.get(name) is objects[name]:
        del space[name]
    mains.applied[name] = ABSENT


def find(identity: tuple[str, int] | None) -> Any:
    """
    Return the function or class that came before for the same object at the client.

    Args:
        identity: Its name and its serial at the client; None for what has no name.

    Returns:
        None if there is none.
    """
    if identity is None:
        return None
    name, serial = identity
    return objects.get(name) if serials.get(name) == serial else None


def bind(name: str, value: Any) -> None:
    """Bind a global now, for what follows in the same pickle."""
    mains.namespace()[name] = value


def make_module(name: str, listed: bool) -> ModuleType:
    """
    Make a module that the client has made by hand, to be filled; or find it, to be filled again.

    Args:
        name: Its name.
        listed: Whether it is in ``sys.modules``.
    """
    found = _by_hand.get(name)
    if found is None:
        found = _by_hand[name] = ModuleType(name)
    if listed:
        sys.modules.setdefault(name, found)
    return found


_by_hand: dict[str, ModuleType] = {}


def make_function(
    identity: tuple[str, int] | None, make: Callable[..., FunctionType], args: tuple[Any, ...]
) -> FunctionType:
    """
    Make a function, to be filled; or find the one that came before, to be filled again.

    Args:
        identity: See :func:`find`.
        make: Makes it.
        args: What ``make`` takes.
    """
    made = make(*args)
    if made.__code__.co_filename not in lines.files:
        lines.note(made.__code__.co_filename)
    before = find(identity)
    if isinstance(before, FunctionType) and before.__globals__ is made.__globals__:
        try:
            before.__code__ = made.__code__
        except ValueError:  # it has more captured variables, or fewer
            return made
        before.__dict__.clear()
        return before
    return made


_sent: dict[type, dict[str, Any]] = {}
"""What classes of ``__main__`` had when they came last."""


_versions: dict[type, dict[str, int]] = {}
"""The client's numbers for what may change in place, as these came last."""


def fill_part(
    cls: type, attributes: dict[str, Any], versions: Mapping[str, int] = MappingProxyType({})
) -> None:
    """
    Give a class some of its attributes: those that the client has changed since they came last.

    Args:
        cls: The class.
        attributes: By name, as the client has them.
        versions: Numbers of those that a task may have changed here. See :mod:`.versions`.
    """
    from remote_executor.payload.code import rebuild

    before = _sent.get(cls)
    if before is None:
        rebuild.fill_part(cls, attributes)
        if cls in mains.arrived:
            _sent[cls] = dict(attributes)
            _versions[cls] = dict(versions)
        return
    known = _versions[cls]
    changed = {
        name: value
        for name, value in attributes.items()
        if name not in before
        or known.get(name) != versions.get(name)
        or not (name in versions or _is_same(before[name], value))
    }
    rebuild.fill_part(cls, changed)
    before.update(attributes)
    for name in attributes:
        known.pop(name, None)
    known.update(versions)


_filled: set[type] = set()


def fill_class(cls: type, state: tuple[Any, ...]) -> None:
    """
    Finish a class, whose attributes it has by now.

    Args:
        cls: The class, new or filled again.
        state: What finishes a new one, and what that takes.
    """
    from remote_executor.payload.code import rebuild

    fill, rest = state
    if fill is rebuild.fill_enum:
        _, _, _, held, _, names = rest
        _forget_gone(cls, names, held)
    if cls not in _filled or fill is not rebuild.fill_class:
        fill(cls, rest)
        if cls in mains.arrived:
            _filled.add(cls)
        return
    _, names, _, registered = rest
    _forget_gone(cls, names)
    fill(cls, (None, names, False, registered))


_held: dict[type, dict[str, dict[str, Any]]] = {}
"""What the members of enums held when they came last."""


def _forget_gone(cls: Any, names: Container[str], held: Any = None) -> None:
    """Delete what a class had when it came last, and has no more. What a task has added stays."""
    before = _sent.get(cls, {})
    for name in [name for name in before if name not in names]:
        del before[name]
        if name in cls.__dict__:
            type.__delattr__(cls, name)
    if held is None or cls not in mains.arrived:
        return
    for member, attributes in _held.get(cls, {}).items():
        for name in attributes.keys() - held.get(member, {}).keys():
            vars(cls._member_map_[member]).pop(name, None)
    _held[cls] = held


def _is_same(one: object, other: object) -> bool:
    if one is other:
        return True
    if type(one) is not type(other) or atoms.is_restored(other):
        return False
    try:
        return bool(pickle.dumps(one, 5) == pickle.dumps(other, 5))
    except Exception:  # a function, say: set it anew
        return False


def named(name: str) -> Any:
    """Return what a name of the client's ``__main__`` is bound to here."""
    return getattr(sys.modules["__main__"], name)


# ------------------------------------------------------------------------- imports


def import_attribute(module: str, name: str, copy: Any = None) -> Any:
    """
    Return what a module has, as its import made it here.

    Args:
        module: The module's name.
        name: The attribute, dotted if it is deeper.
        copy: The pickle of the client's, for data of a module that cannot be imported here.

    Raises:
        PayloadError: If the module, or the attribute, is not here.
    """
    from importlib import import_module

    try:
        found: Any = import_module(module)
        for each in name.split("."):
            found = getattr(found, each)
    except (ImportError, AttributeError) as error:
        if copy is not None:
            return pickle.loads(copy)
        raise PayloadError(
            f"{name!r} of module {module!r}",
            f"it belongs to that module and cannot be imported here: {error}",
        ) from error
    return found


class Package(ModuleType):
    """A package of the client's: what the client has loaded in it is loaded when it is wanted."""

    def __getattr__(self, name: str) -> Any:
        """Import a submodule that the client has loaded."""
        whole = f"{self.__name__}.{name}"
        if whole in _loaded_there:
            return import_package(whole, ())
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


_loaded_there: set[str] = set()


def import_package(name: str, inside: Iterable[str]) -> ModuleType:
    """
    Import a package of the client's own.

    Args:
        name: Its name.
        inside: The modules in it that the client has loaded. Who asks the package for one gets it,
            as at the client.
    """
    from importlib import import_module

    module = import_module(name)
    _loaded_there.update(inside)
    plain = type(module) is ModuleType and "__getattr__" not in vars(module)
    if plain and hasattr(module, "__path__"):
        module.__class__ = Package
    return module


def module_space(module: str, copies: dict[str, Any] | None) -> dict[str, Any]:
    """
    Return the globals of an importable module, for a function whose globals they are.

    Args:
        module: The module's name.
        copies: Pickles of the globals that the function names, for a module that cannot be
            imported here; None if they cannot be pickled.

    Raises:
        PayloadError: If it cannot be imported, and not all that is needed can be copied.
    """
    from importlib import import_module

    try:
        return import_module(module).__dict__
    except ImportError as error:
        if copies is None:
            raise PayloadError(
                f"module {module!r}",
                f"a function needs its globals, and it cannot be imported here: {error}",
            ) from error
    made = _copied.get(module)
    if made is None:
        made = _copied[module] = {"__builtins__": sys.modules["builtins"], "__name__": module}
    for name, body in copies.items():
        if name not in made:
            made[name] = pickle.loads(body)
    return made


_copied: dict[str, dict[str, Any]] = {}
"""Globals of modules that cannot be imported here."""


def make_alias(module: str, kind: str, args: tuple[Any, ...]) -> Any:
    """Make what a module for types made by a call, and pickles by its name alone."""
    from importlib import import_module

    make: Any = getattr(import_module(module), kind)
    made = make(*args)
    try:
        made.__module__ = "__main__"
    except AttributeError:  # it says where it was made, and that cannot be changed
        pass
    return made


def make_curry(kind: Any, function: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Make a function of ``toolz.curry``, whose own way to be pickled is to name itself."""
    return kind(function, *args, **(keywords or {}))
