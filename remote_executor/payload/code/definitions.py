"""
What a class is, taken from the class itself, so that it can be made anew in another process.

A class that no module has travels as what it is now: its metaclass, bases, slots, attributes. Not
as its statement, for since that was run names may have been bound to something else, a branch not
taken, methods patched, attributes set and deleted; and a registry would be filled twice. Nor with
an empty body to be filled by ``setattr`` as cloudpickle does it, for slots, members of enums,
layouts of ctypes and cached properties must be there when the class is made.

:mod:`remote_executor.payload.code.rebuild` makes it. Picklers call :func:`reduce_class`.
"""

from __future__ import annotations

import collections
import copyreg
import dataclasses
import functools
import operator
import sys
import typing
from collections.abc import Callable, Iterator
from enum import EnumMeta
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any

from remote_executor.payload.code import namespace, rebuild
from remote_executor.payload.code.annotations import MADE_LATE, annotations_of
from remote_executor.payload.code.cloudpickle_inside import goes_by_name, tracker_of
from remote_executor.payload.code.families import registered_with
from remote_executor.payload.code.versions import versions_of

__all__ = [
    "REDUCERS",
    "Part",
    "functions_in",
    "is_namedtuple",
    "library_base",
    "reduce_accessor",
    "reduce_by_state",
    "reduce_class",
    "reduce_library",
    "reduce_validated",
    "wrapped_functions",
]

Reduced = tuple[Callable[..., Any], tuple[Any, ...], Any, Callable[[Any, Any], None]]
"""What makes a class, from what; its state, and what takes that."""

_EARLY = (
    "__new__",
    "__init__",
    "__setstate__",
    "__reduce__",
    "__reduce_ex__",
    "__hash__",
    "__eq__",
)
"""Methods that unpickling may call, to make instances of the class among its attributes."""

#: Attributes of an enum that its metaclass makes.
_OF_ENUMS = frozenset(
    {
        "__new__",
        "__new_member__",
        "_all_bits_",
        "_boundary_",
        "_flag_mask_",
        "_generate_next_value_",
        "_hashable_values_",
        "_inverted_",
        "_iter_member_",
        "_iter_member_by_def_",
        "_iter_member_by_value_",
        "_member_map_",
        "_member_names_",
        "_member_type_",
        "_new_member_",
        "_order_",
        "_singles_mask_",
        "_unhashable_values_",
        "_unhashable_values_map_",
        "_use_args_",
        "_value2member_map_",
        "_value_repr_",
    }
)
#: Attributes that some Pythons make, and others would not know.
_OF_ONE_PYTHON = frozenset(
    {"__closed__", "__extra_items__", "__firstlineno__", "__static_attributes__"}
)

_OF_MEMBERS = frozenset({"__objclass__", "_inverted_", "_name_", "_sort_order_", "_value_"})

#: Attributes of a class that collections.namedtuple makes.
_OF_NAMEDTUPLES = frozenset(
    {
        "__getnewargs__",
        "__match_args__",
        "__new__",
        "__replace__",
        "__repr__",
        "__slots__",
        "_asdict",
        "_field_defaults",
        "_fields",
        "_make",
        "_replace",
    }
)

#: What the layout of a ctypes.Structure depends on, but for its fields.
_OF_LAYOUTS = ("_pack_", "_anonymous_", "_align_", "_layout_", "__slots__")


class Part:
    """Some attributes of a class, set as soon as they are loaded."""

    __slots__ = ("args", "fill")

    def __init__(self, fill: Callable[..., None], cls: type, *held: dict[str, Any]) -> None:
        self.fill = fill
        self.args = cls, *held

    def __reduce__(self) -> tuple[Any, ...]:
        return self.fill, self.args


_LOCKS = {"lock": "Lock", "RLock": "RLock"}


class Lock:
    """Stands for a lock that is an attribute of a class: a fork has one like it."""

    __slots__ = ("lock",)

    def __init__(self, lock: Any) -> None:
        self.lock = lock

    def __reduce__(self) -> tuple[Any, ...]:
        if self.lock.acquire(False):
            self.lock.release()
            return rebuild.make_lock, (_LOCKS[type(self.lock).__name__],)
        return (self.lock.__reduce_ex__(5),)  # which refuses


def reduce_class(
    cls: Any, fill_part: Callable[..., None] = rebuild.fill_part, portable: bool = False
) -> Reduced:
    """
    Tell how to make a class that no module has.

    Args:
        cls: The class.
        fill_part: What sets attributes in the other process.
        portable: Whether it goes to another Python.

    Returns:
        What makes the class and from what; what it is filled with and by what.

    Raises:
        TypeError: If it cannot be made there.
    """
    tracker = tracker_of(cls)
    args: tuple[Any, ...]
    given = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    if isinstance(cls, EnumMeta):
        return _reduce_enum(cls, given, tracker, fill_part, portable)
    attributes = _attributes(cls, portable)
    if "_ctypes" in sys.modules and _is_of_ctypes(cls):
        return _reduce_layout(cls, given, attributes, tracker, fill_part)
    if is_namedtuple(cls):
        defaults = tuple(cls._field_defaults.values())
        args = cls.__name__, cls._fields, defaults, given, cls.__bases__, tracker
        rest = {
            name: value
            for name, value in attributes.items()
            if not _is_of_namedtuple(cls, name, value)
        }
        return (
            rebuild.make_namedtuple,
            args,
            (_parts(cls, rest, fill_part), _names(cls), False, ()),
            _FILL,
        )
    names = [name for name in attributes if name not in ("__new__", *given)]
    for name in ("__orig_bases__", "__doc__"):
        if name in attributes:
            given[name] = attributes[name]
    if cls.__name__ != cls.__qualname__.rpartition(".")[2]:
        given["__name__"] = cls.__name__
    slots = _slots(cls)
    if slots is not None:
        given["__slots__"] = slots
    args = type(cls), cls.__bases__, given, names, _hook(cls), tracker
    state = (
        _parts(cls, attributes, fill_part),
        _names(cls),
        not portable,
        registered_with(cls),
    )
    return rebuild.make_class, args, state, _FILL


_FILL = rebuild.fill_class


def _attributes(cls: type, portable: bool = False) -> dict[str, Any]:
    """Return what a class holds, but for what every class makes itself."""
    found = {}
    for name, value in cls.__dict__.items():
        if name in rebuild.MACHINE_MADE or name == "__module__" or name in MADE_LATE:
            continue
        if portable and name in _OF_ONE_PYTHON:
            continue
        if not _is_slot(cls, name, value):
            found[name] = value
    if not MADE_LATE.isdisjoint(cls.__dict__):
        annotations = annotations_of(cls)
        if annotations:
            found["__annotations__"] = annotations
    return found


def _names(cls: type) -> tuple[str, ...]:
    """Return the names that a class may have in the other process."""
    if MADE_LATE.isdisjoint(cls.__dict__):
        return tuple(cls.__dict__)
    return *cls.__dict__, "__annotations__", *MADE_LATE


def _slots(cls: type) -> list[str] | None:
    """Return the slots that a class adds; None if it says nothing of slots."""
    if "__slots__" not in cls.__dict__:
        return None
    found = [name for name, value in cls.__dict__.items() if _is_slot(cls, name, value)]
    for name in ("__dict__", "__weakref__"):
        value = cls.__dict__.get(name)
        # From Python 3.15 on all classes have the same two, which are the object's.
        if type(value) is GetSetDescriptorType and value.__objclass__ in (cls, object):
            found.append(name)
    return found


def _is_slot(cls: type, name: str, value: object) -> bool:
    return (
        type(value) is MemberDescriptorType and value.__objclass__ is cls and value.__name__ == name
    )


def _hook(cls: type) -> Any:
    """Return the base whose ``__init_subclass__`` would run; None if that is Python's own."""
    for base in cls.__mro__[1:]:
        if "__init_subclass__" in base.__dict__:
            return None if base.__module__ in sys.stdlib_module_names else base
    return None


class _ByState:
    """Pickles an object by what it holds, whose own way is to ask its class for itself."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return reduce_by_state(self.value)


def _asks_for_itself(value: Any, cls: type) -> bool:
    """Whether an attribute of a class, such as a descriptor, is pickled as what that class has."""
    kind = type(value)
    if not (hasattr(kind, "__get__") and hasattr(kind, "__set_name__")) or isinstance(value, cls):
        return False
    if not isinstance(getattr(kind, "__reduce__", None), FunctionType):
        return False
    try:
        reduced = value.__reduce__()
        return type(reduced) is tuple and any(each is cls for each in reduced[1])
    except Exception:  # to pickle it will say what is wrong
        return False


def reduce_by_state(obj: Any) -> tuple[Any, ...]:
    """Tell how to make an object of what it holds, whatever its own way to be pickled is."""
    kind = type(obj)
    slots = {
        name: getattr(obj, name)
        for each in kind.__mro__
        for name in copyreg._slotnames(each)  # type: ignore[attr-defined]
        if hasattr(obj, name)
    }
    state = dict(getattr(obj, "__dict__", {})), slots
    return rebuild.make_bare, (kind,), state


def _parts(
    cls: type, attributes: dict[str, Any], fill_part: Callable[..., None]
) -> tuple[Part, ...]:
    """Cut attributes into parts: what unpickling calls, then all that is called, then the rest."""
    parts: tuple[dict[str, Any], ...] = {}, {}, {}
    numbered = fill_part is namespace.fill_part  # by a worker, which may have changed its own
    versions = versions_of(cls, attributes) if numbered else {}
    for name, value in attributes.items():
        called = isinstance(value, (FunctionType, property, classmethod, staticmethod))
        if type(value).__module__ == "_thread" and type(value).__name__ in _LOCKS:
            value = Lock(value)
        elif not called and _asks_for_itself(value, cls):
            value = _ByState(value)
        parts[0 if name in _EARLY else 1 if called else 2][name] = value
    made = []
    for part in parts:
        if part:
            mine = {name: number for name, number in versions.items() if name in part}
            made.append(Part(fill_part, cls, part, mine) if mine else Part(fill_part, cls, part))
    return tuple(made)


# ------------------------------------------------------------------------------- enums


def _reduce_enum(
    cls: Any,
    given: dict[str, Any],
    tracker: str,
    fill_part: Callable[..., None],
    portable: bool,
) -> Reduced:
    maker = _function(getattr(cls, "_new_member_", getattr(cls, "__new_member__", None)))
    own = maker if isinstance(maker, FunctionType) and maker.__module__ != "enum" else None
    by_member = own is not None or cls._member_type_ not in _PLAIN_MEMBERS
    by_member |= any(
        isinstance(base.__dict__.get("__init__"), FunctionType)
        for base in cls.__mro__
        if base.__module__ != "enum"
    )
    members = []
    held = {}
    for name, member in cls.__members__.items():
        value = member._value_
        members.append((name, rebuild.Member(value, *_base_of(member)) if by_member else value))
        more = {key: each for key, each in vars(member).items() if key not in _OF_MEMBERS}
        if more and name == member._name_:
            held[name] = more
    boundary = getattr(cls.__dict__.get("_boundary_"), "name", "")
    more_values = [
        (value, member._name_)
        for value, member in list(cls._value2member_map_.items())
        if member._name_ in cls.__members__ and value != member._value_
    ]
    args = type(cls), cls.__bases__, given, members, by_member, boundary, _hook(cls), tracker
    attributes = {
        name: value
        for name, value in _attributes(cls, portable).items()
        if name not in cls.__members__
        and not (portable and name[:2] == "__" and callable(value) and not _is_of_script(value))
        and not (name in _OF_ENUMS and not _is_of_script(value))
        and name not in ("__new__", "__new_member__", "_new_member_")
    }
    is_own = "__new_member__" in cls.__dict__
    names = frozenset(attributes)
    state = _parts(cls, attributes, fill_part), own, is_own, held, more_values, names
    return rebuild.make_enum, args, state, rebuild.fill_enum


def _function(value: Any) -> Any:
    return getattr(value, "__func__", value)


def _is_of_script(value: Any) -> bool:
    """Whether an attribute is a function that is not Python's own."""
    function = _function(value)
    if not isinstance(function, FunctionType):
        return False
    name = str(function.__globals__.get("__name__"))
    return name.partition(".")[0] not in sys.stdlib_module_names


def _base_of(member: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the type written in C that a member is of, and what makes another that is equal."""
    base: Any = next(each for each in type(member).__mro__ if not each.__flags__ & 1 << 9)
    if base is object:
        return base, ()
    if base in _PLAIN:
        return base, (_PLAIN[base](member),)
    reduced: Any = base.__reduce_ex__(member, 2)  # such as a date's
    args = reduced[1]
    return base, (args[1:] if args and args[0] is type(member) else args)


_PLAIN_MEMBERS = (object, int, str, float)

_PLAIN: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    complex: complex.__pos__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    tuple: lambda value: tuple.__getitem__(value, slice(None)),
}


# --------------------------------------------------------------------- made by a call


def library_base(cls: Any) -> Any:
    """Return the metaclass or base of a library that has a hand in how a class is made, or None."""
    for meta in type(cls).__mro__:
        if meta is not type and meta is not object and _is_of_library(meta):
            return meta
    hook = _hook(cls)
    while hook is not None and not _is_of_library(hook):
        hook = _hook(hook)
    return hook


def _is_of_library(cls: Any) -> bool:
    top = cls.__module__.partition(".")[0]
    return top not in _OF_PYTHON and goes_by_name(cls)


_OF_PYTHON = sys.stdlib_module_names | {"__mp_main__", "_ctypes", "typing_extensions"}


def functions_in(cls: type) -> Iterator[FunctionType]:
    """Yield the functions that a class holds, also those within what Python wraps around them."""
    for name, value in cls.__dict__.items():
        if name not in MADE_LATE:
            yield from wrapped_functions(value)


def wrapped_functions(value: Any) -> Iterator[FunctionType]:
    """Yield the functions that an attribute of a class is made of."""
    for each in (value, *(getattr(value, name, None) for name in _WRAPPED)):
        if type(each) is FunctionType:
            yield each


_WRAPPED = ("__func__", "fget", "fset", "fdel", "func")


def is_namedtuple(cls: Any) -> bool:
    """Tell what ``collections.namedtuple`` made, with what else there may be in it."""
    make = cls.__dict__.get("_make")
    return (
        cls.__bases__[:1] == (tuple,)
        and isinstance(cls.__dict__.get("_fields"), tuple)
        and isinstance(make, classmethod)
        and _function(make).__code__.co_filename == _NAMEDTUPLE.__code__.co_filename
    )


_NAMEDTUPLE: Any = collections.namedtuple  # noqa: PYI024


def _is_of_namedtuple(cls: Any, name: str, value: Any) -> bool:
    if name in cls._fields:
        return type(value).__name__ in ("_tuplegetter", "property")
    if name not in _OF_NAMEDTUPLES:
        return name == "__doc__" and value == f"{cls.__name__}({', '.join(cls._fields)})"
    function = _function(value)
    if not isinstance(function, FunctionType):
        return True
    file = function.__code__.co_filename
    return file == _NAMEDTUPLE.__code__.co_filename or (name == "__new__" and file[:1] == "<")


def _is_of_ctypes(cls: type) -> bool:
    return any(base.__module__ == "_ctypes" for base in cls.__mro__)


def _reduce_layout(
    cls: Any,
    given: dict[str, Any],
    attributes: dict[str, Any],
    tracker: str,
    fill_part: Callable[..., None],
) -> Reduced:
    """Tell how to make a type of ctypes."""
    import ctypes

    name = cls.__name__
    if issubclass(cls, ctypes._Pointer) and hasattr(cls, "_type_"):
        return ctypes.POINTER, (cls._type_,), None, _FILL
    if issubclass(cls, ctypes.Array) and name == f"{cls._type_.__name__}_Array_{cls._length_}":
        return operator.mul, (cls._type_, cls._length_), None, _FILL
    for order, opposite in (("__ctype_be__", "__ctype_le__"), ("__ctype_le__", "__ctype_be__")):
        other = getattr(cls, opposite, cls)
        if other is not cls and getattr(other, order) is cls:
            return getattr, (other, order), None, _FILL
    if not issubclass(cls, (ctypes.Structure, ctypes.Union)):
        if cls.__name__ == "CFunctionType" and cls._flags_ == vars(ctypes)["_FUNCFLAG_CDECL"]:
            return ctypes.CFUNCTYPE, (cls._restype_, *cls._argtypes_), None, _FILL
        raise TypeError(f"cannot pickle {cls.__qualname__!r}, a type of ctypes")
    for each in _OF_LAYOUTS:
        if each in attributes:
            given[each] = attributes.pop(each)
    fields = {"_fields_": attributes.pop("_fields_")} if "_fields_" in attributes else {}
    rest = {
        each: value
        for each, value in attributes.items()
        if type(value).__name__ != "CField" and each not in given
    }
    args = name, cls.__bases__, given, tracker
    return (
        rebuild.make_layout,
        args,
        (_parts(cls, {**fields, **rest}, fill_part), _names(cls), False, ()),
        _FILL,
    )


# ------------------------------------------------------------------ what classes hold


def reduce_accessor(obj: Any) -> tuple[Any, ...] | None:
    """
    Tell how to make a property, class method and the like of a class derived from these.

    Returns:
        That, or None if the class itself says how.
    """
    kind = type(obj)
    if issubclass(kind, functools.partialmethod):
        own = kind.__reduce_ex__, kind.__reduce__
        is_usual = own == (object.__reduce_ex__, object.__reduce__)
        return _reduce_partial_method(obj) if is_usual else None
    state = dict(getattr(obj, "__dict__", ()))
    if issubclass(kind, property):
        args = obj.fget, obj.fset, obj.fdel, obj.__doc__
        return rebuild.make_accessor, (kind, property, args, state)
    for base in (classmethod, staticmethod):
        if issubclass(kind, base):
            for name in (*functools.WRAPPER_ASSIGNMENTS, "__wrapped__"):
                state.pop(name, None)
            return rebuild.make_accessor, (kind, base, (obj.__func__,), state)
    return None


def reduce_library(library: Any) -> tuple[Any, ...]:
    """Tell how to load a library of ctypes, and what its functions take and return."""
    functions = {}
    for name, function in vars(library).items():
        if isinstance(function, library._FuncPtr):
            # None means that nothing was said, but for what it returns: there it means nothing.
            held = {key: getattr(function, key, None) for key in ("argtypes", "errcheck")}
            held = {key: value for key, value in held.items() if value is not None}
            functions[name] = {**held, "restype": function.restype}
    args = type(library), library._name
    return rebuild.make_library, args, functions, None, None, rebuild.fill_library


def reduce_validated(function: Any) -> tuple[Any, ...] | None:
    """Tell how to make what ``pydantic.validate_call`` made; None for any other function."""
    if function.__globals__.get("__name__") != "pydantic._internal._validate_call":
        return None
    raw = vars(function).get("raw_function")
    for cell in function.__closure__ or ():
        held = getattr(cell.cell_contents, "__self__", cell.cell_contents)  # or its method
        if raw is not None and getattr(held, "function", None) is raw:
            config = dict(held.config_wrapper.config_dict) or None
            return rebuild.make_validated, (raw, config, held.validate_return)
    return None


def _reduce_cached_property(obj: Any) -> tuple[Any, ...]:
    # Up to Python 3.11 there is a lock in it.
    state = {name: value for name, value in vars(obj).items() if name not in ("func", "lock")}
    return functools.cached_property, (obj.func,), state


def _reduce_method_dispatcher(obj: Any) -> tuple[Any, ...]:
    # Some Pythons have a cache in it.
    return functools.singledispatchmethod, (obj.func,), {"dispatcher": obj.dispatcher}


def _reduce_partial_method(obj: Any) -> tuple[Any, ...]:
    # From Python 3.14 on pickle makes one without what it needs, and fails when it loads it.
    made = ("func", "args", "_phcount", "_merger")
    state = {name: value for name, value in vars(obj).items() if name not in made}
    return rebuild.make_partial_method, (type(obj), obj.func, obj.args), state


def _reduce_sentinel(obj: Any) -> tuple[Any, ...]:
    return getattr, (dataclasses, _SENTINELS[type(obj)])


#: Objects of which there is one, and that pickle makes copies of.
_SENTINELS: dict[type, str] = {
    type(getattr(dataclasses, name)): name
    for name in ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY")
    # From Python 3.15 on some are of a type of Python's own, which pickles them by name.
    if type(getattr(dataclasses, name, None)).__module__ == "dataclasses"
}


def _reduce_type_parameter(obj: Any) -> Any:
    name = obj.__name__
    module = sys.modules.get(obj.__module__)
    if obj.__module__ != "__main__" and getattr(module, name, None) is obj:
        return name
    kind = type(obj).__name__
    args = getattr(obj, "__constraints__", ())
    options = {}
    for option in ("bound", "covariant", "contravariant", "infer_variance"):
        value = getattr(obj, f"__{option}__", None)
        if value:
            options[option] = value
    if kind == "TypeAliasType":
        args, options = (obj.__value__,), {"type_params": obj.__type_params__}
    elif getattr(obj, "has_default", bool)():  # from Python 3.13 on
        options["default"] = obj.__default__
    return rebuild.make_type_parameter, (kind, name, args, options, tracker_of(obj))


#: Those that a class or function has from its syntax, and no name leads to.
_TYPE_PARAMETERS = [
    getattr(typing, name)
    for name in ("ParamSpec", "TypeAliasType", "TypeVar", "TypeVarTuple")
    if hasattr(typing, name)
]


def _reduce_forward_reference(obj: Any) -> tuple[Any, ...]:
    # It has a code object in it, which is for one Python; and the globals, from Python 3.14 on.
    module = obj.__forward_module__
    if module is None:
        module = (getattr(obj, "__globals__", None) or {}).get("__name__")
    more = obj.__forward_arg__, obj.__forward_is_argument__, module, obj.__forward_is_class__
    held = ((name, getattr(obj, name, None)) for name in _HELD_BY_REFERENCES)
    state = {name: value for name, value in held if value is not None}
    return rebuild.make_forward_reference, more, ((None, state) if state else None)


_HELD_BY_REFERENCES = ("__owner__", "__cell__", "__extra_names__")
"""What tells a forward reference where to look, from Python 3.14 on."""

_FORWARD_REFERENCES = (
    [typing.ForwardRef]
    if {"__forward_code__", "__code__"} & set(getattr(typing.ForwardRef, "__slots__", ()))
    else []
)

REDUCERS: dict[type, Callable[[Any], Any]] = {
    functools.cached_property: _reduce_cached_property,
    functools.partialmethod: _reduce_partial_method,
    functools.singledispatchmethod: _reduce_method_dispatcher,
    **dict.fromkeys(_SENTINELS, _reduce_sentinel),
    **dict.fromkeys(_TYPE_PARAMETERS, _reduce_type_parameter),
    **dict.fromkeys(_FORWARD_REFERENCES, _reduce_forward_reference),
}
"""For the dispatch tables of picklers."""
