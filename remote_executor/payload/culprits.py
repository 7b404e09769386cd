"""Find which part of an object cannot be pickled, to name it in an error."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

from remote_executor.payload.code.dispatch import reduce_method_by_dispatch

__all__ = ["blame"]

#: How many parts are tried, and how deep. An error shall not take seconds to be worded.
_TRIES = 200
_DEPTH = 8

#: The parts of these would tell nobody anything.
_STOP = frozenset({"asyncio", "concurrent", "multiprocessing", "threading"})


def blame(obj: object, what: str, dump: Callable[[object], object]) -> str:
    """
    Name the innermost part that cannot be pickled.

    Args:
        obj: What could not be pickled.
        what: What it is; ``"call"`` for a pair of positional and keyword arguments.
        dump: Pickles an object, and raises if it cannot.

    Returns:
        Words such as ``argument 2, .lock (a _thread.lock)``.
    """
    path: list[str] = []
    tries = _TRIES
    seen: set[int] = set()
    where = obj
    if what == "call":
        parts = _arguments(obj)
    else:
        path.append(what)
        parts = _parts(obj)
    while len(path) < _DEPTH:
        for words, part in parts:
            tries -= 1
            if tries < 0 or id(part) in seen:
                continue
            seen.add(id(part))
            try:
                dump(part)
            except RecursionError:  # all the way down, so the outermost says most
                path.append(words)
                where, parts = part, iter(())
                break
            except Exception:
                path.append(words)
                where = part
                parts = _parts(part)
                break
        else:
            break
    kind = type(where)
    name = (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    return f"{', '.join(path) or what} (a {name})"


def _arguments(call: Any) -> Iterator[tuple[str, object]]:
    args, kwargs = call
    for number, value in enumerate(args, start=1):
        yield f"argument {number}", value
    for name, value in kwargs.items():
        yield f"argument {name!r}", value


def _parts(obj: object) -> Iterator[tuple[str, object]]:
    by_dispatch = reduce_method_by_dispatch(obj)
    if by_dispatch is not None:
        how, args = by_dispatch
        yield "the object it is bound to", args[0 if how is getattr else 1]
    elif isinstance(obj, dict):
        for key, value in obj.items():
            yield f"[{key!r:.40}]", value
    elif isinstance(obj, (list, tuple)):
        for index, value in enumerate(obj):
            yield f"[{index}]", value
    elif isinstance(obj, types.FunctionType):
        yield from _captures(obj)
    elif isinstance(obj, types.MethodType):
        yield "the object it is bound to", obj.__self__
    elif isinstance(obj, type) or type(obj).__module__.split(".")[0] in _STOP:
        return
    elif type(obj).__reduce__ is object.__reduce__:  # else it is not sent part by part
        for name, value in getattr(obj, "__dict__", {}).items():
            yield f".{name}", value


def _captures(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"captured variable {name!r}", cell.cell_contents
        except ValueError:  # not assigned yet
            pass
    for value in function.__defaults__ or ():
        yield "a default value", value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield f"the default of {name!r}", value
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f"global {name!r}", function.__globals__[name]
