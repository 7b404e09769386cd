"""
Classes rebuilt from what they are: what pickles made with :mod:`.definitions` call.

::

    make_class     the bare class: its real metaclass, bases, slots and order of names
    fill_part      what it holds: methods first, so that instances among its attributes can be made
    fill_class     the end: what it has no more goes, what is registered with it is registered

None of the script's code runs for it: no body of a class statement, no decorator, no metaclass, no
``__init_subclass__``, no ``__set_name__``. What that code did at the client is in the attributes
that come from there; to run it again would fill a registry twice, or find other globals than then.
"""

from __future__ import annotations

import abc
import functools
import sys
import weakref
from collections.abc import Iterable, Sequence
from types import CellType
from typing import Any

__all__ = [
    "describe",
    "fill_attributes",
    "fill_cell",
    "fill_class",
    "fill_enum",
    "fill_library",
    "fill_part",
    "fill_statement",
    "make_accessor",
    "make_bare",
    "make_class",
    "make_enum",
    "make_forward_reference",
    "make_layout",
    "make_library",
    "make_lock",
    "make_namedtuple",
    "make_partial_method",
    "make_type_parameter",
    "make_validated",
]

_QUIET = "__made_by_remote_executor__"
"""In a class as long as it is being made: it runs no ``__init_subclass__``."""

MACHINE_MADE = frozenset({"__classdictcell__", "__dict__", "__weakref__", "_abc_impl"})
"""What a class gets by itself, and nobody can give it."""


def fill_cell(cell: CellType, contents: tuple[object, ...]) -> None:
    """
    Assign a captured variable that came by itself.

    Args:
        cell: The variable.
        contents: What it holds; nothing if it was not assigned yet.
    """
    for value in contents:
        cell.cell_contents = value


def make_bare(kind: Any) -> Any:
    """
    Make an instance that has nothing yet.

    Args:
        kind: Its class.
    """
    return kind.__new__(kind)


def fill_attributes(obj: Any, state: tuple[Any, dict[str, Any]]) -> None:
    """
    Give an instance its state, and attributes that its state does not know.

    Args:
        obj: The instance.
        state: Both.
    """
    own, attributes = state
    if own is not None:
        if hasattr(obj, "__setstate__"):
            obj.__setstate__(own)
        else:
            obj.__dict__.update(own)
    obj.__dict__.update(attributes)


def make_class(
    meta: Any,
    bases: tuple[Any, ...],
    given: dict[str, Any],
    names: Sequence[str],
    hook: Any,
    tracker: str,
) -> Any:
    """
    Make a class, to be filled.

    Args:
        meta: Its metaclass.
        bases: Its bases.
        given: What it must have from the beginning, such as ``__slots__``, and its name.
        names: The other names that it is to have, in their order.
        hook: The base whose ``__init_subclass__`` would run; None if there is none of the script's.
        tracker: Its id, the same in all processes.
    """
    from remote_executor.payload.code.cloudpickle_inside import track

    name = given["__qualname__"].rpartition(".")[2]
    space = {**dict.fromkeys(names), **given}
    name = space.pop("__name__", name)
    make: Any = abc.ABCMeta.__new__ if issubclass(meta, abc.ABCMeta) else type.__new__
    with _Quietly(hook, space):
        made = make(meta, name, bases, space)
    if hook is not None:
        type.__delattr__(made, _QUIET)
    return track(tracker, made)


class Silence:
    """
    Keeps hooks of the script from running while a class statement runs again.

    What they did at the client is in what comes from there. A hook of a library that they hand on
    to does run, as it would if they were not there.

    Args:
        hooks: Bases of the script, and the names of their hooks, such as ``__init_subclass__``.
        name: The name of the class that is made.
    """

    def __init__(self, hooks: Sequence[tuple[Any, str]], name: str) -> None:
        self._hooks = hooks
        self._name = name
        self._own: list[Any] = []

    def __enter__(self) -> None:
        for base, hook in self._hooks:
            own = base.__dict__[hook]
            self._own.append(own)
            type.__setattr__(base, hook, self._silent(base, hook, own))

    def __exit__(self, *_: object) -> None:
        for (base, hook), own in zip(self._hooks, self._own, strict=False):
            type.__setattr__(base, hook, own)

    def _silent(self, base: Any, hook: str, own: Any) -> Any:
        def silent(cls: type, /, **options: Any) -> None:
            if cls.__name__ != self._name:  # another thread makes a class of its own
                own.__get__(None, cls)(**options)
                return
            following = getattr(super(base, cls), hook)
            try:
                following(**options)
            except TypeError:
                following()  # the options were the script's own

        return classmethod(silent)


class _Quietly:
    """Keeps a base's ``__init_subclass__`` from running for a class that is made meanwhile."""

    def __init__(self, hook: Any, space: dict[str, Any]) -> None:
        self._hook = hook
        self._own: Any = None
        if hook is not None:
            space[_QUIET] = True

    def __enter__(self) -> None:
        if self._hook is None:
            return
        self._own = own = self._hook.__dict__["__init_subclass__"]

        def quiet(cls: type, /, **options: Any) -> None:
            if _QUIET not in cls.__dict__:  # another thread makes a class of its own
                own.__get__(None, cls)(**options)

        type.__setattr__(self._hook, "__init_subclass__", classmethod(quiet))

    def __exit__(self, *_: object) -> None:
        if self._hook is not None:
            type.__setattr__(self._hook, "__init_subclass__", self._own)


def fill_part(cls: Any, attributes: dict[str, Any]) -> None:
    """
    Give a class some of its attributes.

    Args:
        cls: The class.
        attributes: By name. What it has already stays as it is.
    """
    held = cls.__dict__
    for name, value in attributes.items():
        if name == "_fields_" and name in held and type(cls).__module__ == "_ctypes":
            continue  # ctypes lets nobody change them
        if name not in held or held[name] is not value:
            _set(cls, name, value)


def _set(cls: Any, name: str, value: Any) -> None:
    try:
        # A metaclass may forbid it, or do something else with it.
        type.__setattr__(cls, name, value)
    except TypeError:  # a metaclass written in C, such as that of ctypes.Structure
        setattr(cls, name, value)


def fill_class(cls: Any, state: tuple[Any, ...]) -> None:
    """
    Finish a class, whose attributes it has by now.

    Args:
        cls: The class.
        state: Its parts, which were set when they were loaded; the names that it has at the
            client; whether it may have no others; the classes that are registered with it.
    """
    _, names, only, registered = state
    if only:
        for name in cls.__dict__.keys() - names - MACHINE_MADE:
            type.__delattr__(cls, name)
    for each in registered:
        abc.ABCMeta.register(cls, each)


def fill_statement(cls: Any, state: tuple[Any, ...]) -> None:
    """
    Give a class that its statement made what the client's has since.

    Args:
        cls: The class.
        state: Its globals and their names for :func:`source.bind`, what its captured variables
            hold, its attributes, what its methods hold, a description to compare it with, the
            names that it has at the client, and numbers of attributes: see :mod:`.versions`.

    Raises:
        CannotShip: If the statement makes another class here.
    """
    from remote_executor.payload import source

    space, named, contents, attributes, patches, description, names, versions = state
    # At first what the statement makes and the client has deleted; later what it had before.
    for name in (_had.get(cls) or set(cls.__dict__)) - names:
        if name[:1] != "_" and name in cls.__dict__:
            delattr(cls, name)
    _had[cls] = names
    source.bind(space, named)
    for cell, value in contents:
        cell.cell_contents = value
    before = _versions.get(cls, {})
    for name, value in attributes.items():
        known = before.get(name)
        if known is not None and name in versions:
            changed = known != versions[name]
        else:
            changed = not _is_same(cls.__dict__.get(name, _MISSING), value)
        if changed:
            setattr(cls, name, value)
    _versions[cls] = versions
    from remote_executor.payload.code.definitions import wrapped_functions

    for name, number, held in patches:
        functions = list(wrapped_functions(cls.__dict__.get(name)))
        if number < len(functions):
            function = functions[number]
            function.__defaults__, function.__kwdefaults__ = held[:2]
            function.__dict__.update(held[2])
    if description:
        here = describe(cls, attributes)
        for name in description.keys() | here.keys():
            one, other = description.get(name), here.get(name)
            if one != other and not (name == _PARAMETERS and _UNKNOWN in (one, other)):
                raise _differs(cls, name)


_had: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
"""The names that classes made by their statement had at the client when they came last."""

_versions: weakref.WeakKeyDictionary[Any, dict[str, int]] = weakref.WeakKeyDictionary()
"""Numbers of what such classes had there."""


def _differs(cls: type, name: str) -> Exception:
    from remote_executor.errors import CannotShip
    from remote_executor.payload.pythons import python_words

    return CannotShip(
        f"class {cls.__qualname__}",
        f"its class statement makes {name} something else now than when it was run: a global that "
        "it names has changed since, or it is in a branch that was not taken",
        python_words(),
        python_words(),
        "define it in a module of yours, or leave the globals that it names as they are",
    )


def _is_same(one: object, other: object) -> bool:
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # arrays have no truth: set it anew
        return False


_MISSING = object()

_PARAMETERS = "its parameters"
_UNKNOWN = (0, 0)


def describe(cls: Any, but: Iterable[str] = ()) -> dict[str, tuple[int, int]]:
    """
    Describe what a class statement evaluated, so that two runs of it can be compared.

    Args:
        cls: The class.
        but: Attributes that need no description.

    Returns:
        For each attribute the length and a sum of the words for it; sets have any order.
    """
    import inspect

    words = {}
    for name, value in cls.__dict__.items():
        if name in but or (name[0] == "_" and name not in _TELLING):
            continue
        words[name] = f"{type(value).__qualname__} {_words_of(value)}"
    # What pydantic makes of its fields depends on whether all that they name is known by then.
    if "__pydantic_fields__" not in cls.__dict__:
        try:
            parameters = inspect.signature(cls).parameters.values()
            words[_PARAMETERS] = " ".join(
                f"{each.name} {each.kind} {_words_of(each.default)}" for each in parameters
            )
        except Exception:  # msgspec's evaluates annotations, which may name what comes later
            words[_PARAMETERS] = ""
    return {name: (len(text), sum(text.encode())) for name, text in words.items()}


def _words_of(value: object) -> str:
    import re

    home = type(value).__module__.partition(".")[0]
    if hasattr(type(value), "__get__") or home not in _PLAIN:
        return ""  # what a library makes may have anything in it
    try:
        text = repr(value)
    except Exception:
        return ""
    if " at 0x" in text or "(0x" in text:
        return ""  # it names itself by its place in memory
    # What a name in an annotation means may be known at the one end only.
    text = re.sub(r"annotation=.*?, required=", "required=", text)
    return re.sub(r"\d{7,}", "", text)


_PLAIN = sys.stdlib_module_names | {"numpy", "pydantic", "sqlalchemy"}

_TELLING = frozenset({"__pydantic_fields__", "__struct_fields__", "__table__", "__tablename__"})
"""What tells of fields, where libraries keep them."""


def make_accessor(kind: Any, base: Any, args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    """
    Make a property, a class method or a static method, also of a class derived from these.

    Args:
        kind: Its class.
        base: The class among its bases that is Python's own.
        args: What that takes.
        state: Other attributes.
    """
    made = base.__new__(kind, *args)
    base.__init__(made, *args)
    if state:
        made.__dict__.update(state)
    return made


def make_partial_method(kind: Any, func: Any, args: tuple[Any, ...]) -> Any:
    """Make an object of ``functools.partialmethod``; its keywords come with its state."""
    made = object.__new__(kind)
    vars(made).update(vars(functools.partialmethod(func, *args)))
    return made


def make_type_parameter(
    kind: str, name: str, args: tuple[Any, ...], options: dict[str, Any], tracker: str
) -> Any:
    """
    Make a type variable or one of its kin that no module has.

    Args:
        kind: The name of its class in ``typing``.
        name: Its name.
        args: What else that takes ...
        options: ... and by keyword.
        tracker: Its id.
    """
    import typing

    from remote_executor.payload.code.cloudpickle_inside import track

    make = getattr(typing, kind)
    try:
        made = make(name, *args, **options)
    except TypeError:
        if kind != "TypeVarTuple":
            raise
        made = make(name)  # it has a variance from Python 3.15 on only
    return track(tracker, made)


def make_forward_reference(text: str, is_argument: bool, module: Any, is_class: bool) -> Any:
    """Make what ``typing`` makes of an annotation that is text."""
    import typing

    return typing.ForwardRef(text, is_argument=is_argument, module=module, is_class=is_class)


def make_lock(name: str) -> Any:
    """
    Make a lock that is an attribute of a class.

    Args:
        name: Of what makes it in ``threading``.
    """
    return getattr(sys.modules["threading"], name)()  # every process has loaded it


def make_library(kind: Any, name: str | None) -> Any:
    """
    Load a library for ctypes.

    Args:
        kind: Its class.
        name: Its name or path; None for what the process has loaded itself.
    """
    return kind(name)


def fill_library(library: Any, functions: dict[str, dict[str, Any]]) -> None:
    """
    Say what the functions of a library take and return.

    Args:
        library: The library.
        functions: By name, what was set on each.
    """
    for name, held in functions.items():
        for attribute, value in held.items():
            setattr(getattr(library, name), attribute, value)


def make_validated(function: Any, config: Any, validate_return: bool) -> Any:
    """Make what ``pydantic.validate_call`` makes of a function."""
    from importlib import import_module

    decorate = import_module("pydantic").validate_call
    return decorate(config=config, validate_return=validate_return)(function)


# ------------------------------------------------------------------------------- enums


class Member:
    """
    Stands for a member while its enum is made.

    Args:
        value: Its value.
        base: The type that is written in C which it is of, or object.
        args: What that takes to make it.
    """

    __slots__ = ("args", "base", "value")

    def __init__(self, value: Any, base: Any, args: tuple[Any, ...]) -> None:
        self.value = value
        self.base = base
        self.args = args

    def __reduce__(self) -> tuple[Any, ...]:
        return Member, (self.value, self.base, self.args)


def _new_member(cls: Any, given: Any) -> Any:
    member = given[0] if type(given) is tuple else given  # members that are tuples themselves
    made = member.base.__new__(cls, *member.args)
    made._value_ = member.value
    return made


def _init_member(self: Any, *_: Any) -> None:
    pass


def make_enum(
    meta: Any,
    bases: tuple[Any, ...],
    given: dict[str, Any],
    members: list[tuple[str, Any]],
    by_member: bool,
    boundary: str,
    hook: Any,
    tracker: str,
) -> Any:
    """
    Make an enum with its members, to be filled.

    Args:
        meta: Its metaclass.
        bases: Its bases.
        given: Its module and qualified name.
        members: Names and values, aliases among them; all or none of these are a :class:`Member`.
        by_member: Whether they are, since values alone do not say how to make members: code of the
            script does it at the client.
        boundary: What becomes of values of a flag that are out of its range, from Python 3.11 on.
        hook: See :func:`make_class`.
        tracker: Its id.
    """
    import enum

    from remote_executor.payload.code.cloudpickle_inside import track

    base: Any = enum.EnumMeta
    name = given["__qualname__"].rpartition(".")[2]
    space = base.__prepare__(name, bases)
    for key, value in given.items():
        space[key] = value
    if by_member:
        space["__new__"] = _new_member
        space["__init__"] = _init_member
    for key, value in members:
        if hasattr(value, "__get__") and sys.version_info >= (3, 11):  # pragma: no branch
            value = enum.member(value)  # some Pythons take a partial for a method
        space[key] = value
    options: dict[str, Any] = {}
    if boundary and sys.version_info >= (3, 11):  # pragma: no branch
        options["boundary"] = enum.FlagBoundary[boundary]
    # A quiet base's mark has the form of names that are no members.
    with _Quietly(hook, space):
        made = base.__new__(meta, name, bases, space, **options)
    if hook is not None:
        type.__delattr__(made, _QUIET)
    return track(tracker, made)


def fill_enum(cls: Any, state: tuple[Any, ...]) -> None:
    """
    Finish an enum.

    Args:
        cls: The enum.
        state: Its parts, which were set when they were loaded; the function that makes members, if
            it is the script's, and whether this very enum has it; what members hold, by name;
            values that lead to members, too; the names that the parts have.
    """
    _, maker, is_own, held, more, _ = state
    for name in ("__new__", "__init__"):
        if cls.__dict__.get(name) in (_new_member, _init_member):
            type.__delattr__(cls, name)
    for name in ("_new_member_", "__new_member__"):
        if _function_of(cls.__dict__.get(name)) is _new_member:
            if name == "__new_member__" and not is_own:
                type.__delattr__(cls, name)
            else:
                plain = cls._member_type_.__new__
                type.__setattr__(cls, name, maker if maker is not None else plain)
    if maker is None and "_use_args_" in cls.__dict__:
        type.__setattr__(cls, "_use_args_", cls._member_type_ is not object)
    for name, attributes in held.items():
        vars(cls._member_map_[name]).update(attributes)
    for value, name in more:
        cls._value2member_map_.setdefault(value, cls._member_map_[name])


def _function_of(value: Any) -> Any:
    return getattr(value, "__func__", value)


# ------------------------------------------------------------------- made by a call


def make_namedtuple(
    name: str,
    fields: Sequence[str],
    defaults: Sequence[Any],
    given: dict[str, Any],
    bases: tuple[Any, ...],
    tracker: str,
) -> Any:
    """
    Make a class of named tuples, to be filled with what else it has.

    Args:
        name: Its name.
        fields: Its fields.
        defaults: Of the last of them.
        given: Its module and qualified name.
        bases: Its bases.
        tracker: Its id.
    """
    import collections

    from remote_executor.payload.code.cloudpickle_inside import track

    make: Any = collections.namedtuple  # noqa: PYI024 - as the client made it
    made = make(name, fields, defaults=defaults, module=given["__module__"], rename=True)
    made.__qualname__ = given["__qualname__"]
    if bases != (tuple,):
        made.__bases__ = bases
    return track(tracker, made)


def make_layout(name: str, bases: tuple[Any, ...], given: dict[str, Any], tracker: str) -> Any:
    """
    Make a structure or union of ctypes, to be filled.

    Args:
        name: Its name.
        bases: Its bases.
        given: What its layout depends on, but for its fields.
        tracker: Its id.
    """
    from remote_executor.payload.code.cloudpickle_inside import track

    return track(tracker, type(bases[0])(name, bases, given))
