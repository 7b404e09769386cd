"""Methods of ``functools.singledispatchmethod``: what they are of, and what leads to them."""

from __future__ import annotations

import functools
from types import CellType, FunctionType
from typing import Any, cast

__all__ = ["method_by_dispatch", "parts_by_dispatch", "reduce_method_by_dispatch"]

_GOT_BY_DISPATCH = getattr(functools, "_singledispatchmethod_get", None)
"""What an attribute of ``functools.singledispatchmethod`` gives, from Python 3.14 on."""


def method_by_dispatch(value: object) -> tuple[Any, str] | None:
    """
    Tell where a method of ``functools.singledispatchmethod`` was got from.

    Args:
        value: Perhaps what such an attribute gives: a function, or from Python 3.14 on an object.

    Returns:
        What :func:`getattr` gives it for again: the object or class, and the attribute's name. None
        if it is something else, or no name leads to it.
    """
    parts = parts_by_dispatch(value)
    if parts is None:
        return None
    obj, cls, wrapped = parts
    shadowed = set(getattr(obj, "__dict__", ()))
    for each in cast("type", cls if obj is None else type(obj)).__mro__:
        for name, attribute in vars(each).items():
            by_dispatch = isinstance(attribute, functools.singledispatchmethod)
            if by_dispatch and attribute.func is wrapped and name not in shadowed:
                return (cls if obj is None else obj), name
        shadowed.update(vars(each))  # what super() gives has no name that leads to it
    return None


def reduce_method_by_dispatch(value: Any) -> tuple[Any, ...] | None:
    """
    Return what pickle may reduce a method of ``functools.singledispatchmethod`` to.

    Args:
        value: Any object; None is returned for one that is something else.
    """
    parts = parts_by_dispatch(value)
    if parts is None:
        return None
    attribute = method_by_dispatch(value)
    if attribute is not None:
        return getattr, attribute
    descriptor = getattr(value.register, "__self__", None)
    if not isinstance(descriptor, functools.singledispatchmethod):
        return None
    return functools.singledispatchmethod.__get__, (descriptor, *parts[:2])


def parts_by_dispatch(value: Any) -> tuple[Any, Any, Any] | None:
    """
    Return the object, the class and the function that a method by dispatch is of.

    Args:
        value: Any object; None is returned for one that is something else.
    """
    if type(value) is _GOT_BY_DISPATCH:
        return value._obj, value._cls, value.__wrapped__
    if type(value) is not FunctionType or value.__code__.co_name != "_method":
        return None
    if value.__globals__ is not vars(functools) or not value.__closure__:
        return None
    cells = {
        name: _contents(cell)
        for name, cell in zip(value.__code__.co_freevars, value.__closure__, strict=True)
    }
    return cells.get("obj"), cells.get("cls"), vars(value).get("__wrapped__")


def _contents(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None
