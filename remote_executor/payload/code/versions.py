"""
Which value of a class attribute is the client's own change, and which a worker has already.

A class that has changed is sent again with all that it holds. Of that a worker takes only what the
client has changed: a list that a task has filled there stays as it is, until the client puts
another list in its place, an equal one as well, or changes its own. So each attribute that may
change in place goes with a number, which is another one after each of these.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Mapping
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

from remote_executor.payload.captures import is_fixed
from remote_executor.payload.code.fingerprints import Print, fingerprint
from remote_executor.payload.code.names import is_atom, names

__all__ = ["versions_of"]

_next_version = itertools.count(1).__next__

_WRAPPERS = (
    property,
    classmethod,
    staticmethod,
    functools.partialmethod,
    GetSetDescriptorType,
    MemberDescriptorType,
)


class _Noted:
    """
    What an attribute held when it was pickled last.

    The value itself may refer to the class, which would stay for ever then. Its id is its own as
    long as captures.Captures keep it alive, which is until the class is pickled again.
    """

    __slots__ = ("bound", "content", "id", "version")

    def __init__(self, value: Any, content: Print, bound: tuple[str, int] | None) -> None:
        self.id = id(value)
        self.content = content
        self.bound = bound
        self.version = _next_version()


_noted: dict[int, tuple[weakref.ref[Any], dict[str, _Noted]]] = {}
"""By the ids of classes: a metaclass may have ways of its own to compare them."""


def versions_of(cls: type, attributes: Mapping[str, Any]) -> dict[str, int]:
    """
    Number the values of a class's attributes, as far as they may change in place.

    Args:
        cls: The class.
        attributes: What of it is being pickled.

    Returns:
        By name, a number that is the same again only if the client has not changed the value.
    """
    found = {}
    before: dict[str, _Noted] | None = None
    for name, value in attributes.items():
        if is_fixed(value) or is_atom(value) or isinstance(value, _WRAPPERS):
            continue
        if before is None:
            before = _noted_of(cls)
        noted = before.get(name)
        bound = _binding_of(value)
        if (
            noted is None
            or noted.id != id(value)
            # What has lost its name is no other object; what has one now is that of the name.
            or (bound is not None and bound != noted.bound)
            or not noted.content.holds([value])
        ):
            noted = before[name] = _Noted(value, fingerprint([value]), bound)
        found[name] = noted.version
    return found


def _noted_of(cls: type) -> dict[str, _Noted]:
    entry = _noted.get(id(cls))
    if entry is None or entry[0]() is not cls:
        key = id(cls)

        def forget(_: object) -> None:
            _noted.pop(key, None)

        entry = _noted[key] = weakref.ref(cls, forget), {}
    return entry[1]


def _binding_of(value: object) -> tuple[str, int] | None:
    name = names.name_of(value)
    return None if name is None else (name, names.bound_at(name))
