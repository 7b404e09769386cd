"""
What the annotations of functions and classes are.

From Python 3.14 on they are made when somebody asks, by a function that may name what is not there,
as under ``TYPE_CHECKING``. That function is not sent: it holds all that the class holds, and what
another Python makes of it is another thing. What it gives is, as before; and as text, as with
``from __future__ import annotations``, where a name in it means nothing here.
"""

from __future__ import annotations

import importlib
import sys
from types import FunctionType
from typing import Any, cast

__all__ = ["MADE_LATE", "OF_A_CLASS_BODY", "annotations_of", "with_plain_annotations"]

MADE_LATE = frozenset({"__annotate__", "__annotate_func__", "__annotations_cache__"})
"""Attributes of a class in which Python 3.14 and later keep what makes its annotations."""

OF_A_CLASS_BODY = frozenset({"__class__", "__classdict__", "__conditional_annotations__"})
"""Captured variables that a class statement makes itself."""

_ARE_MADE_LATE: bool = sys.version_info >= (3, 14)
_AS_VALUES = 1
"""What ``annotationlib.Format.VALUE`` is."""


def annotations_of(obj: Any) -> dict[str, Any]:
    """
    Return the annotations of a function, or those that a class has itself.

    The class stays as it is. To ask it for ``__annotations__`` would leave them in it, and it would
    count as changed.

    Args:
        obj: The function or class.
    """
    try:
        if not isinstance(obj, type):
            return obj.__annotations__ or {}
        own = obj.__dict__
        for name in ("__annotations__", "__annotations_cache__"):
            if isinstance(own.get(name), dict):
                return cast("dict[str, Any]", own[name])
        make: Any = own.get("__annotate_func__")
        return {} if make is None else cast("dict[str, Any]", make(_AS_VALUES))
    except Exception:  # it is made by code of the program, which may name what is not there
        library = importlib.import_module("annotationlib")
        return dict(library.get_annotations(obj, format=library.Format.STRING))


def with_plain_annotations(function: FunctionType) -> FunctionType:
    """
    Return a function whose annotations can be asked for: itself, or one like it.

    Args:
        function: The function.
    """
    if not _ARE_MADE_LATE:
        return function
    try:
        _ = function.__annotations__
    except Exception:  # as above
        twin = FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            function.__defaults__,
            function.__closure__,
        )
        for name in ("__doc__", "__kwdefaults__", "__module__", "__qualname__", "__type_params__"):
            setattr(twin, name, getattr(function, name))
        twin.__dict__.update(function.__dict__)
        twin.__annotations__ = annotations_of(function)
        return twin
    return function
