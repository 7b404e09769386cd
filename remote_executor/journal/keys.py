"""
What a result is called: the function as it is now, and the item.

::

    function   its code, its defaults, what it has captured, the values of the globals that it
               names, and the same of its own helpers and classes; of libraries the names alone
    item       a pickle without a memory, in which a set is the sorted pickles of its members

So equal items have equal keys in every process, whatever PYTHONHASHSEED, and a function that was
changed has another key. Dicts keep their order, which is meaning.
"""

from __future__ import annotations

import functools
import hashlib
import io
import pickle
import sys
import sysconfig
import weakref
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any

from remote_executor.errors import PayloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Identity", "encode", "identity", "key_of"]

_PLACES = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)

_SETS = (set, frozenset)

_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})

MAX_KNOWN = 256
"""Functions whose identity is remembered."""


class Identity:
    """
    What a function is.

    Attributes:
        name: How it is called.
        digest: Equal for equal functions.
        parts: A digest of each part, by what it is in words: to say what has changed.
    """

    __slots__ = ("digest", "name", "parts")

    def __init__(self, name: str, parts: dict[str, str]) -> None:
        self.name = name
        self.parts = parts
        words = "\n".join(f"{part} {digest}" for part, digest in sorted(parts.items()))
        self.digest = hashlib.sha256(f"{name}\n{words}".encode()).digest()

    def __repr__(self) -> str:
        return f"<Identity of {self.name}: {len(self.parts)} parts>"


def identity(function: Callable[..., Any]) -> Identity:
    """
    Find out what a function is.

    Args:
        function: Any callable.

    Raises:
        PayloadError: If it has captured something that cannot be pickled.
    """
    known = _known.get(id(function))
    if known is not None and known[0]() is function and known[1].holds():
        return known[2]
    walk = _Walk()
    walk.take(function, "the function")
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    found = Identity(f"{getattr(function, '__module__', None)}.{name}", walk.parts)
    if walk.is_fixed and type(function) is FunctionType:
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        _known[id(function)] = weakref.ref(function), walk, found
    return found


_known: dict[int, tuple[Any, _Walk, Identity]] = {}
"""Functions that are made of nothing that could change unseen."""


def key_of(prefix: bytes, value: object) -> bytes:
    """
    Return what the result for an item is called.

    Args:
        prefix: The digest of the function.
        value: The item.

    Raises:
        PayloadError: If it cannot be pickled.
    """
    return hashlib.sha256(prefix + encode(value)).digest()


def encode(value: object) -> bytes:
    """
    Return bytes that are equal for equal values, in every process.

    Args:
        value: Anything that can be pickled. Functions and classes count as what they are.

    Raises:
        PayloadError: If it cannot be pickled.
    """
    return _encode(value, None)


def _encode(value: object, walk: _Walk | None) -> bytes:
    kind = type(value)
    if kind in _ATOMS:
        return pickle.dumps(value, 5)
    if (kind is tuple or kind is list) and _ATOMS.issuperset(map(type, value)):  # type: ignore[call-overload]
        # As many items are; each pickle has its end in it. The pickler below costs more.
        parts = [pickle.dumps(each, 5) for each in value]  # type: ignore[attr-defined]
        return b"%s %d " % (kind.__name__.encode(), len(parts)) + b"".join(parts)
    for fast in (True, False):
        file = io.BytesIO()
        pickler = _Pickler(file, walk)
        pickler.fast = fast
        try:
            pickler.dump(value)
        except Exception as exc:
            if fast and isinstance(exc, (RecursionError, ValueError)):
                continue  # a ring, perhaps: with a memory, as pickle has it
            reason = f"{exc}: give Journal(key=...) a function that makes the key"
            raise PayloadError("the key of a result", reason) from exc
        else:
            return file.getvalue()
    raise AssertionError  # pragma: no cover


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, walk: _Walk | None) -> None:
        super().__init__(file, 5)
        self._walk = walk

    def persistent_id(self, obj: Any) -> Any:
        kind = type(obj)
        if kind in _SETS:
            return kind.__name__, sorted(_encode(each, self._walk) for each in obj)
        if kind is FunctionType or (isinstance(obj, type) and _is_own(obj)):
            if self._walk is not None:
                self._walk.take(obj, getattr(obj, "__qualname__", "a class"))
                return "code", obj.__module__, obj.__qualname__
            return "code", obj.__module__, obj.__qualname__, identity(obj).digest
        return None


def _is_own(obj: Any) -> bool:
    """Whether a function, a class or a module belongs to the program, and not to a library."""
    name = obj.__name__ if isinstance(obj, ModuleType) else getattr(obj, "__module__", None)
    if name == "__main__":
        return True
    if name in sys.builtin_module_names or name == "builtins":
        return False
    file = getattr(sys.modules.get(name or ""), "__file__", None)
    if not file:
        return name is not None and name not in sys.stdlib_module_names
    return not (file.startswith(_PLACES) or "site-packages" in file or "dist-packages" in file)


class _Walk:
    """Goes from a function to all that it is made of."""

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}
        self.is_fixed = True
        """Whether :meth:`holds` would see each change."""
        self._seen: dict[int, object] = {}
        self._globals: list[tuple[dict[str, Any], str, Any]] = []
        self._functions: list[tuple[FunctionType, Any, Any, Any, Any]] = []

    def holds(self) -> bool:
        """Tell whether all is as it was, if it is fixed."""
        return all(names.get(name, self) is value for names, name, value in self._globals) and all(
            function.__code__ is code
            and function.__defaults__ is defaults
            and function.__kwdefaults__ is kwdefaults
            and _cells(function) == cells
            for function, code, defaults, kwdefaults, cells in self._functions
        )

    def take(self, obj: Any, what: str) -> None:
        """Take a function, a class, a partial, a method or any other callable into account."""
        if id(obj) in self._seen:
            return
        self._seen[id(obj)] = obj
        if isinstance(obj, functools.partial):
            self.take(obj.func, what)
            self._value(f"what is bound to {what}", (obj.args, obj.keywords))
        elif isinstance(obj, MethodType):
            self.take(obj.__func__, what)
            self._value(f"the object of {what}", obj.__self__)
        elif isinstance(obj, FunctionType):
            self._function(obj, what)
        elif isinstance(obj, type):
            self._class(obj, what)
        elif isinstance(getattr(obj, "__wrapped__", None), FunctionType):  # lru_cache
            self.take(obj.__wrapped__, what)
        elif isinstance(obj, BuiltinFunctionType):
            self._value(what, (obj.__module__, obj.__qualname__))
        else:
            self._value(what, obj)
            self.take(type(obj), f"the class of {what}")

    def _value(self, what: str, value: object) -> None:
        self.parts[what] = hashlib.sha256(_encode(value, self)).hexdigest()[:24]

    def _function(self, function: FunctionType, what: str) -> None:
        if not _is_own(function):
            self._value(what, (function.__module__, function.__qualname__))
            return
        code = function.__code__
        kwdefaults = function.__kwdefaults__
        made = (function, code, function.__defaults__, kwdefaults, _cells(function))
        self._functions.append(made)
        self.is_fixed &= not kwdefaults and all(map(_is_fixed, function.__defaults__ or ()))
        self._value(f"the code of {what}", _facts(code))
        if function.__defaults__ or function.__kwdefaults__:
            defaults = function.__defaults__, function.__kwdefaults__
            self._value(f"the defaults of {what}", defaults)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
            try:
                content = cell.cell_contents
            except ValueError:
                continue  # it is empty
            self.is_fixed &= _is_fixed(content)
            self._found(f"{name!r}, captured by {what}", content)
        for name in sorted(set(_names(code))):
            if name in function.__globals__:
                found = function.__globals__[name]
                self._globals.append((function.__globals__, name, found))
                self.is_fixed &= _is_fixed(found)
                if isinstance(found, ModuleType):
                    self._module(found, set(_names(code)))
                else:
                    self._found(name, found)
        wrapped = getattr(function, "__wrapped__", None)
        if isinstance(wrapped, FunctionType):
            self.is_fixed = False
            self.take(wrapped, f"what {what} wraps")

    def _module(self, module: ModuleType, names: set[str]) -> None:
        """Take what a function may use of a module of the program."""
        if _is_own(module) and not module.__name__.startswith("remote_executor"):
            for name in sorted(names & set(vars(module))):
                found = vars(module)[name]
                self._globals.append((vars(module), name, found))
                self.is_fixed &= _is_fixed(found)
                if not isinstance(found, ModuleType):
                    self._found(f"{module.__name__}.{name}", found)

    def _found(self, what: str, value: Any) -> None:
        """Take a global, or what was captured."""
        if isinstance(value, (FunctionType, type, MethodType, functools.partial)):
            self.take(value, what)
        elif isinstance(value, ModuleType):
            self._value(what, value.__name__)
        else:
            try:
                self._value(what, value)
            except PayloadError:  # a lock, a connection: it is what its type is
                self._value(what, type(value).__qualname__)

    def _class(self, cls: type, what: str) -> None:
        self._value(what, (cls.__module__, cls.__qualname__))
        if not _is_own(cls):
            return
        for base in cls.__bases__:
            self.take(base, f"the base {base.__qualname__} of {what}")
        for name, value in sorted(vars(cls).items()):
            inner: Any = getattr(value, "__func__", value)
            if isinstance(inner, property):
                for each in (inner.fget, inner.fset, inner.fdel):
                    if each is not None:
                        self.take(each, f"{what}.{name}")
            elif isinstance(inner, FunctionType):
                self.take(inner, f"{what}.{name}")
            elif not name.startswith("__") and isinstance(
                value, (int, float, str, bytes, tuple, list, dict, set, frozenset, type(None))
            ):
                self._found(f"{what}.{name}", value)


def _cells(function: FunctionType) -> list[int]:
    """Return the identities of what a function has captured."""
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(id(cell.cell_contents))
        except ValueError:
            found.append(0)
    return found


def _is_fixed(value: object) -> bool:
    """Whether a value changes only if its name is bound anew, or :meth:`_Walk.holds` sees it."""
    kind = type(value)
    if kind is tuple or kind is frozenset:
        return all(map(_is_fixed, value))  # type: ignore[call-overload]
    if kind is type:
        return not _is_own(value)
    return kind in _ATOMS or kind in (FunctionType, BuiltinFunctionType, ModuleType)


def _facts(code: CodeType) -> tuple[Any, ...]:
    """Return what makes a code object what it does: neither lines nor files."""
    constants = tuple(
        _facts(each) if isinstance(each, CodeType) else (type(each).__name__, each)
        for each in code.co_consts
    )
    return (
        code.co_code,
        constants,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags,
    )


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that code uses, that of the functions in it as well."""
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names(each)
