"""
The worker's ``__main__``: one namespace for all functions that come from the client's.

A function of the client's ``__main__`` travels by value, without its globals dict. It is rebuilt
upon the dict of the worker's own ``__main__`` (:func:`namespace`). The globals that it names
travel along, each with a *token* that changes when the client's value changes. A global is set
only if its token is not the one last applied. So

- an initializer that sets a global works, as with ProcessPoolExecutor;
- a global that changed at the client is set again;
- the package of ``python -m package.module`` is set as a global, too, for relative imports;
- what a worker changed itself stays until then;
- a global that cannot be pickled, such as a lock, is an :class:`Unsent` there until the
  initializer sets it, for the function that names it may never be called.

The functions here are what the pickles of :mod:`remote_executor.payload.by_value` call. They run
where a pickle is loaded: the first half in workers, the ``known_...`` half in clients too.
"""

from __future__ import annotations

import abc
import builtins
import functools
import sys
import weakref
from collections.abc import Callable, Sequence
from types import FunctionType, ModuleType
from typing import Any

from remote_executor.errors import PayloadError

__all__ = ["Unsent", "applied", "arrived", "namespace", "prepare_main", "record_into"]

Token = bytes

# It is apart from sys.modules until prepare_main(), so that a client that happens to load a pickle
# meant for workers does not touch its own globals.
_main = ModuleType("__main__")
_main.__dict__["__builtins__"] = builtins

#: The token last applied to each global of the namespace.
applied: dict[str, Token] = {}

#: Functions and classes that came from the client, and the name by which it finds its own.
arrived: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()

#: Where to note the tokens of what is being loaded, see record_into().
_record: dict[str, Token] | None = None

#: Classes that were made by known_class_or_new() and are not filled yet.
_unfilled: set[type] = set()


class Unsent:
    """
    Stands in a worker for a global that could not be pickled.

    Args:
        what: What it stands for.
        reason: Why that could not be pickled.
        kind: Module and qualified name of its type.

    Raises:
        PayloadError: If it is used in any way.
    """

    __slots__ = ("_args", "_kind")

    def __init__(self, what: str, reason: str, kind: tuple[str, str] | None = None) -> None:
        self._args = what, reason
        self._kind = kind

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """The type that it stands for, for ``isinstance``."""
        found: Any = None
        if self._kind is not None:
            home, name = self._kind
            found = sys.modules.get(home)
            for each in name.split("."):
                found = getattr(found, each, None)
        return found if isinstance(found, type) else type(self)

    def _refuse(self, *_: object) -> Any:
        raise PayloadError(*self._args)

    __getattr__ = __call__ = __iter__ = __next__ = __len__ = __bool__ = _refuse
    __getitem__ = __setitem__ = __delitem__ = __contains__ = _refuse
    __enter__ = __exit__ = __reduce_ex__ = _refuse
    __bytes__ = __index__ = __int__ = __float__ = __complex__ = __fspath__ = _refuse
    __str__ = __format__ = __hash__ = __reversed__ = __await__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = _refuse
    __rtruediv__ = __floordiv__ = __mod__ = __pow__ = __matmul__ = __neg__ = _refuse
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __invert__ = _refuse

    def __repr__(self) -> str:
        return f"<Unsent: {self._args[0]} cannot be pickled>"


def make_unsent(what: str, reason: str, home: str, name: str) -> Unsent:
    """
    Make a stand-in whose type is called as the one that it stands for.

    Args:
        what: What it stands for.
        reason: Why that could not be pickled.
        home: The module of its type ...
        name: ... and the qualified name of that.
    """
    space = {"__slots__": (), "__module__": home, "__qualname__": name}
    kind: Any = type(name.rpartition(".")[2], (Unsent,), space)
    made: Unsent = kind(what, reason, (home, name))
    return made


def prepare_main() -> ModuleType:
    """
    Give this process an empty ``__main__`` for the client's functions.

    Call it once in a new worker, before any pickle is loaded.

    Returns:
        The new module, which is ``sys.modules["__main__"]`` now.
    """
    global _main
    from remote_executor.payload.code import namespace as sent

    sent.reset()
    _main = sent.MainModule("__main__")
    _main.__dict__["__builtins__"] = builtins
    applied.clear()
    arrived.clear()
    sys.modules["__main__"] = _main
    # A client that is itself a child of multiprocessing calls it so.
    sys.modules["__mp_main__"] = _main
    return _main


def namespace() -> dict[str, Any]:
    """Return the globals of the worker's ``__main__``."""
    return _main.__dict__


def record_into(record: dict[str, Token] | None) -> dict[str, Token] | None:
    """
    Note the globals that come with the next pickles, and their tokens.

    Args:
        record: Takes names and tokens; None ends it.

    Returns:
        What was given before. Give it back when done.
    """
    global _record
    before, _record = _record, record
    return before


def note_token(name: str, token: Token) -> None:
    """Note that what is being loaded needs a global of this token."""
    if _record is not None:
        _record[name] = token


def fill_function(function: FunctionType, state: tuple[Any, ...]) -> None:
    """
    Finish a function.

    Args:
        function: The function, new or to be filled again.
        state: cloudpickle's state, the client's name for the function or None, and its captured
            variables with what each holds.
    """
    from remote_executor.payload.code import cloudpickle_inside

    plain, home, contents = state
    cloudpickle_inside.fill_function(function, plain)
    for own, (cell, content) in zip(function.__closure__ or (), contents, strict=False):
        for value in content:
            own.cell_contents = cell.cell_contents = value
    if home is not None:
        arrived[function] = home


def rebuild_class(
    maker: Callable[..., type],
    args: tuple[Any, ...],
    tracker: str,
    home: str | None,
    virtual: Sequence[Any],
) -> Any:
    """
    Find the class that came before under the same tracker, or make it.

    Args:
        maker: cloudpickle's way to make the bare class.
        args: Its arguments.
        tracker: cloudpickle's id for the class, the same in all processes.
        home: The name by which the client finds it in its ``__main__``, or None.
        virtual: Abstract classes of libraries that it is registered with.
    """
    cls: Any = _tracked(tracker)
    if cls is None:
        cls = maker(*args)
    elif maker.__name__ == "make_class" and cls.__bases__ != args[1]:
        cls.__bases__ = args[1]
    _register(cls, virtual)
    if home is not None:
        arrived[cls] = home
    return cls


def rebuild_lru_cache(
    wrapped: Callable[..., Any], maxsize: int | None, typed: bool, home: str | None
) -> Callable[..., Any]:
    """Make an ``lru_cache`` wrapper, with an empty cache."""
    wrapper = functools.lru_cache(maxsize, typed)(wrapped)
    if home is not None:
        arrived[wrapper] = home
    return wrapper


def make_dispatcher(name: str) -> Callable[..., Any]:
    """
    Make a function of ``functools.singledispatch``, to be filled, for what it calls may call it.

    Args:
        name: What its errors call it.
    """

    def unfilled(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(name)

    unfilled.__name__ = name
    return functools.singledispatch(unfilled)


def fill_dispatcher(function: Any, state: tuple[Any, ...]) -> None:
    """
    Register what a dispatcher calls.

    Args:
        function: The dispatcher.
        state: Pairs of a class and what is called for it, attributes, and the client's name for it
            or None.
    """
    registered, attributes, home = state
    for cls, implementation in registered:
        function.register(cls, implementation)
    functools.update_wrapper(function, function.dispatch(object))
    function.__dict__.update(attributes)
    if home is not None:
        arrived[function] = home


def known(tracker: str | None, home: str) -> Any:
    """
    Find what a worker sent back by name: the client's own function or class.

    Args:
        tracker: cloudpickle's id, for a class. It finds the class even if its name has since been
            given to another.
        home: Its dotted name in ``__main__``.

    Raises:
        AttributeError: If the client's ``__main__`` has it no more.
    """
    found = None if tracker is None else _tracked(tracker)
    if found is None:
        found = sys.modules["__main__"]
        for name in home.split("."):
            found = getattr(found, name)
    return found


def _register(cls: Any, virtual: Sequence[Any]) -> None:
    for each in virtual:
        abc.ABCMeta.register(each, cls)


def known_class_or_new(
    maker: Callable[..., type], args: tuple[Any, ...], tracker: str, virtual: Sequence[Any] = ()
) -> Any:
    """Find the class that has this tracker here, or make it, to be filled."""
    cls = _tracked(tracker)
    if cls is None:
        cls = maker(*args)
        _register(cls, virtual)
        _unfilled.add(cls)
    return cls


def fill_new_part(cls: type, attributes: dict[str, Any]) -> None:
    """Give a class just made some attributes. Those of one that was here before are its owner's."""
    from remote_executor.payload.code.rebuild import fill_part

    if cls in _unfilled:
        fill_part(cls, attributes)


def fill_new_class(cls: type, state: Any) -> None:
    """Finish a class just made."""
    fill, rest = state
    if cls in _unfilled:
        _unfilled.discard(cls)
        fill(cls, rest)


def _tracked(tracker: str) -> Any:
    from remote_executor.payload.code.cloudpickle_inside import tracked

    return tracked(tracker)
