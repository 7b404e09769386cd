"""
What is done once in each worker: ``broadcast(keep=True)``, and what is done at a worker's end.

A broadcast that is kept runs in the workers that there are as a task. Workers that come later do it
before their first task, as a setup. A worker may be told both ways, and does it once: each has a
number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["call_kept", "finish", "is_done", "set_up", "set_up_kept"]

_done: set[int] = set()
"""The numbers of the broadcasts that this worker has done."""

_finalizers: list[tuple[Callable[..., object], tuple[Any, ...]]] = []


def is_done(number: int) -> bool:
    """Return whether this process has done a broadcast, so that there is no need to load it."""
    return number in _done


def call_kept(
    number: int, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Do a broadcast as a task, and remember that it is done if it went well."""
    result = fn(*args, **kwargs)
    _done.add(number)
    return result


def set_up_kept(
    number: int, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Do a broadcast before the first task, unless it is done."""
    if number not in _done:
        call_kept(number, fn, args, kwargs)


def set_up(
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    finalizer: Callable[..., object],
    finalargs: tuple[Any, ...],
) -> None:
    """Call the initializer; if it went well, the finalizer is to be called at the worker's end."""
    if initializer is not None:
        initializer(*initargs)
    _finalizers.append((finalizer, finalargs))


def finish() -> None:
    """
    Call the finalizer, if there is one: the worker ends.

    Raises:
        BaseException: What it raises.
    """
    while _finalizers:
        finalizer, args = _finalizers.pop()
        finalizer(*args)
