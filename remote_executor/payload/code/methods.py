"""
Bound methods that no name leads to.

pickle takes a method for ``getattr(obj, function.__name__)``. That gives another one, or none,
where the function is not what the class has under its own name: for ``super().run``, for
``types.MethodType(function, obj)``, for a method whose decorator gave it another name, for a
private one, and where the object itself has something of that name.
"""

from __future__ import annotations

from types import FunctionType, MethodType
from typing import Any

__all__ = ["reduce_method"]

_NOTHING = object()


def reduce_method(method: MethodType) -> Any:
    """
    Tell how to make a bound method.

    Args:
        method: The method.

    Returns:
        What makes it of its function and its object; NotImplemented if its name leads to it.
    """
    function: Any = method.__func__
    if type(function) is not FunctionType or _leads_to(method.__self__, function):
        return NotImplemented
    return MethodType, (function, method.__self__)


def _leads_to(obj: Any, function: FunctionType) -> bool:
    # Nothing is got from the object: a property, or its __getattr__, is code of the program.
    name = function.__name__
    if issubclass(type(obj), type):
        found = _in(obj, name)
        if found is not _NOTHING:
            return found.__func__ is function if type(found) is classmethod else _may(found)
    elif name in _own_attributes(obj):
        return False
    found = _in(type(obj), name)
    if type(found) is FunctionType:
        return found is function
    return found is not _NOTHING and _may(found)


def _may(found: object) -> bool:
    """Whether a descriptor may give the method: one of a library's may, as far as is known."""
    return type(found) not in (FunctionType, staticmethod, classmethod, property)


def _in(cls: type, name: str) -> Any:
    for base in cls.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return _NOTHING


def _own_attributes(obj: Any) -> Any:
    try:
        return object.__getattribute__(obj, "__dict__")
    except AttributeError:
        return ()
