"""
Values that are not there yet when a call is pickled: the results of other tasks.

::

    client                                              worker
    ------                                              ------
    submit: a future pickles to  value_of(key)
    all are done:  the pickle of the call and of each   fill(...) loads the values, then the call,
                   value, in one pickle that calls ---> in which value_of(key) finds them
                   fill(...)

The call is pickled once, when it is submitted; so later changes of its other arguments do not show.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from remote_executor.payload.pickles import keeper, load

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["fill", "filled", "value_of"]

_values: dict[int, Any] = {}
"""Of the call that is loaded now. For the worker's main thread only."""


def value_of(key: int) -> Any:
    """
    Return a value that the call has waited for, while it is loaded.

    Args:
        key: What it was called when the call was pickled.
    """
    return _values[key]


def fill(
    body: bytes, buffers: Sequence[Any], values: Sequence[tuple[int, bytes, Sequence[Any]]]
) -> Any:
    """
    Load a call and the values that it has waited for.

    Args:
        body: The pickle of the call.
        buffers: Its buffers.
        values: Each value's key, pickle and buffers.

    Raises:
        Exception: Whatever unpickling raises.
    """
    global _values
    before = _values
    _values = {}
    try:
        for key, pickled, parts in values:
            _values[key] = load(pickled, parts)
        return load(body, buffers)
    finally:
        _values = before


class _Filled:
    """Pickles to a call of :func:`fill`."""

    __slots__ = ("_arguments",)

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return fill, self._arguments


def filled(
    body: bytes,
    buffers: Sequence[memoryview],
    values: Sequence[tuple[int, bytes, Sequence[memoryview]]],
) -> tuple[bytes, Sequence[memoryview]]:
    """
    Return the pickle of a call, complete, and its large buffers.

    Args:
        body: The pickle of the call, as of its submit.
        buffers: Its large buffers.
        values: The key, the pickle and the buffers of each value that it has waited for.
    """
    kept: list[memoryview] = []
    made = _Filled(
        bytes(body),
        list(map(pickle.PickleBuffer, buffers)),
        [(key, bytes(each), list(map(pickle.PickleBuffer, parts))) for key, each, parts in values],
    )
    return pickle.dumps(made, 5, buffer_callback=keeper(kept)), kept or ()
