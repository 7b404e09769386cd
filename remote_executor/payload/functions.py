"""
Functions are pickled once, sent once and rebuilt once, unless what they captured says otherwise.

:class:`FunctionCache` is the client's half, :class:`FunctionTable` the worker's. A function that
goes by name, or that captured only what cannot change, is *pure*: one rebuilt copy serves all its
calls. Any other is rebuilt for each call, so that what a call wrote to a captured list does not
show in the next (PARITY L13).
"""

from __future__ import annotations

import gc
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from remote_executor.errors import PayloadError
from remote_executor.payload import mains
from remote_executor.payload.code import registrations
from remote_executor.payload.code.alone import goes_alone
from remote_executor.payload.code.families import derived
from remote_executor.payload.code.names import ATOMS, names
from remote_executor.payload.copies import PrivateCopies
from remote_executor.payload.pickles import (
    OUT_OF_BAND,
    dump,
    dump_copied,
    guarded,
    holds_code,
    load,
    plainly,
)

if TYPE_CHECKING:
    from remote_executor.payload.by_source import Pythons
    from remote_executor.payload.by_value import Visit
    from remote_executor.payload.captures import Captures

    Names = tuple[str, ...]
    Key = int | tuple[int, Names]

__all__ = ["CODE", "PURE", "Encoded", "FunctionCache", "FunctionTable", "in_one_piece"]

#: The flag of a function that may be rebuilt once.
PURE = 1

#: A pickle of at most so many bytes is its own key.
_SHORT = 256

#: Buffers of so many bytes together travel apart from the function, each by its own digest.
_APART = 256 * 1024

#: How a pickle ends when the object itself is a module's attribute: STACK_GLOBAL, STOP.
_BY_NAME = (b"\x93\x94.", b"\x93.")


def call_whole(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call what has come in one piece with its arguments."""
    return function(*args, **kwargs)


CODE = frozenset({BuiltinFunctionType, FunctionType, type, type(lru_cache(abs))})
"""Types of functions that have no parts in common with their arguments."""

_MOST_PARTS = 300
"""So many parts of a callable and of its arguments are compared, which takes some 50 µs."""


def in_one_piece(function: Any, call: Any) -> tuple[Any, Any]:
    """
    Have a callable travel with its arguments if they have parts in common.

    So ``submit(obj.method, obj)`` gives the method its own object, as in one pickle.

    Args:
        function: What is called: an object, a bound method, a partial.
        call: Its positional and its keyword arguments.

    Returns:
        What to call, and with what.
    """
    if type(function) is FunctionType and not function.__closure__:
        return function, call
    args, kwargs = call
    theirs = dict(_parts([args, kwargs]))
    if theirs:
        theirs.pop(id(args), None)
        theirs.pop(id(kwargs), None)
        for key, _ in _parts([function]):
            if key in theirs:
                return call_whole, ((function, *args), kwargs)
    return function, call


def _parts(todo: list[Any]) -> Iterator[tuple[int, object]]:
    """Yield objects that have an identity, and what is in them, up to a number."""
    seen: set[int] = set()
    left = _MOST_PARTS
    while todo and left:
        obj = todo.pop()
        kind = type(obj)
        if kind in ATOMS or id(obj) in seen:
            continue
        left -= 1
        seen.add(id(obj))
        if kind is tuple or kind is frozenset:
            todo += obj
            continue
        if kind is FunctionType:
            todo += (each for cell in obj.__closure__ or () for each in gc.get_referents(cell))
        if kind in CODE or isinstance(obj, (type, ModuleType)):
            continue
        yield id(obj), obj
        if kind is dict:
            todo += obj.copy().values()
        elif kind in (list, set, deque):
            todo += obj.copy()
        elif kind is MethodType:
            todo.append(obj.__self__)
        elif kind is partial:
            todo += (obj.func, *obj.args, *obj.keywords.values())
        else:
            todo += getattr(obj, "__dict__", {}).copy().values()


class Part:
    """A large captured buffer: sent once to a server, whatever functions have it."""

    __slots__ = ("body", "buffers", "key", "parts", "pure")

    def __init__(self, buffer: memoryview) -> None:
        from remote_executor.payload.code.digests import key_of

        self.key = key_of(buffer)
        self.body = b""
        self.buffers = (buffer,)
        self.parts = ()
        self.pure = False


class Encoded:
    """
    A pickled function.

    Attributes:
        body: The pickle.
        buffers: Its large buffers, snapshots that nobody writes to.
        parts: The same where they are so large that they travel apart, otherwise nothing.
        key: The same for the same content, another for other content. The function needs to be
            sent only to who does not know the key.
        pure: Whether it may be rebuilt once and called again and again.
        extra: Names of ``__main__`` that are in it for the arguments' sake.
        size: Bytes in all.
        tokens: Those of the shared objects that it refers to, once somebody has looked.
        abroad: Other Pythons, and what goes to them or why nothing can; None as long as nobody has
            asked. See :meth:`FunctionCache.encode_abroad`.
    """

    __slots__ = (
        "_origin",
        "abroad",
        "body",
        "buffers",
        "extra",
        "key",
        "parts",
        "pure",
        "size",
        "tokens",
    )

    def __init__(
        self, body: bytes, buffers: Sequence[memoryview], pure: bool, extra: Names = ()
    ) -> None:
        self.extra = extra
        self.body = body
        self.buffers = buffers
        self.pure = pure
        self.abroad: tuple[Pythons, Encoded | PayloadError] | None = None
        self._origin: tuple[Callable[[], Any], Captures | None] | None = None
        self.size = len(body) + sum(map(len, buffers))
        self.tokens: list[bytes] | None = None
        self.parts: tuple[Part, ...] = ()
        if not buffers and len(body) <= _SHORT:
            self.key = body
        else:
            from remote_executor.payload.code.digests import digest

            if self.size - len(body) >= _APART:
                self.parts = tuple(map(Part, buffers))
                self.key = digest(body, [part.key for part in self.parts])
            else:
                self.key = digest(body, buffers)

    def came_from(self, reference: Callable[[], Any], captures: Captures | None) -> None:
        """Take note of the function, which is not kept alive, and of what it captured."""
        self._origin = reference, captures

    def is_like(self, other: Encoded) -> bool:
        """Tell whether another is the same again."""
        return self.key == other.key and self.pure == other.pure and self.extra == other.extra

    def made_late(self, pythons: Pythons) -> Encoded | PayloadError | None:
        """
        Pickle the function for other versions of Python, some time after :meth:`encode` did.

        Args:
            pythons: The other Pythons, as far as they are known.

        Returns:
            What goes to them, or why nothing can; None if it captured other values by now, or
            nobody has it any more.
        """
        if self.abroad is None and self._origin is not None:
            reference, captures = self._origin
            function = reference()
            if function is not None and captures is not None and captures.hold(function):
                self.abroad = pythons, _encode_by_source(function, self, pythons)
        return self.abroad[1] if self.abroad is not None else None

    def __repr__(self) -> str:
        return f"<Encoded {self.size} bytes{', pure' if self.pure else ''}>"


class _Entry:
    __slots__ = ("captures", "encoded", "holds", "reference", "refreshed", "used")

    def __init__(self, encoded: Encoded, captures: Captures | None) -> None:
        self.encoded = encoded
        self.captures = captures
        # Of most functions one look says all; each call less counts here.
        self.holds = None if captures is None else captures.at_one_look()
        self.reference: Any = None
        self.refreshed = names.refreshed
        self.used = False


class FunctionCache:
    """
    Pickled functions at the client, by identity. Any thread may use it.

    Functions are not kept alive. When the cache is full, the oldest that was not asked for since
    the last look goes first.
    """

    __slots__ = ("_entries", "_max_bytes", "_max_count")

    def __init__(self, max_count: int = 512, max_bytes: int = 256 * 1024 * 1024) -> None:
        """
        Make an empty cache.

        Args:
            max_count: How many functions it holds.
            max_bytes: How many bytes they may have together.
        """
        self._entries: dict[Key, _Entry] = {}
        self._max_count = max_count
        self._max_bytes = max_bytes

    def encode(self, function: Callable[..., Any], needs: Visit | None = None) -> Encoded:
        """
        Pickle a function, or find the pickle that is still right.

        Args:
            function: Any callable.
            needs: What its arguments need of ``__main__``.

        Returns:
            The function with its captured values as they are now. The same object as before if
            none has changed.

        Raises:
            PayloadError: If the function or something that it captured cannot be pickled.
        """
        extra = () if needs is None else needed(needs)
        registrations.look()
        if names.asked or names.watched:
            names.look()
            extra = tuple(dict.fromkeys((*extra, *names.asked)))
        of_modules = derived()
        if of_modules:
            extra = tuple(dict.fromkeys((*extra, *of_modules)))
        key = (id(function), extra) if extra else id(function)
        entry = self._entries.get(key)
        if entry is not None and entry.reference() is function:
            captures, holds = entry.captures, entry.holds
            if captures is None or (
                entry.refreshed == names.refreshed
                and (holds() if holds is not None else captures.hold(function))
            ):
                entry.used = True
                return entry.encoded
        return self._encode(function, extra, key, entry)

    def pack(
        self, function: Callable[..., Any], call: Any
    ) -> tuple[Encoded, bytes, Sequence[memoryview]]:
        """
        Pickle a call.

        Args:
            function: Any callable.
            call: Its positional and its keyword arguments.

        Returns:
            The function, with all that the arguments need of ``__main__``, the pickle of the
            arguments and their large buffers.

        Raises:
            PayloadError: If something cannot be pickled.
        """
        body, buffers, needs = dump_copied(call, "call")
        return self.encode(function, needs), body, buffers

    def encode_abroad(
        self, function: Callable[..., Any], encoded: Encoded, pythons: Pythons
    ) -> Encoded:
        """
        Pickle a function for other versions of Python, with source in place of bytecode.

        Args:
            function: Any callable.
            encoded: What :meth:`encode` has just returned for it.
            pythons: The other Pythons, as far as they are known.

        Returns:
            The same again if there is no code in it. What is made is remembered with ``encoded``.

        Raises:
            CannotShip: If its code cannot be sent.
            PayloadError: If something else about it cannot be pickled.
        """
        made = encoded.abroad
        if made is None or made[0] != pythons:
            made = encoded.abroad = pythons, _encode_by_source(function, encoded, pythons)
        found = made[1]
        if isinstance(found, PayloadError):
            raise found.with_traceback(None)
        return found

    def _encode(
        self, function: Callable[..., Any], extra: Names, key: Key, before: _Entry | None
    ) -> Encoded:
        captures: Captures | None = None
        plain = plainly(function) if not extra and not goes_alone(function) else None
        if plain is not None and plain[0].endswith(_BY_NAME):
            encoded = Encoded(*plain, pure=True)
        else:
            pool = before.encoded.buffers if before is not None else ()
            encoded, captures = _encode_by_value(function, extra, pool)
            if captures is None:
                return encoded
            if before is not None and before.encoded.is_like(encoded):
                encoded = before.encoded
        self._keep(function, key, _Entry(encoded, captures))
        return encoded

    def _keep(self, function: Callable[..., Any], key: Key, entry: _Entry) -> None:
        entries = self._entries

        def forget(_: object) -> None:
            # Runs when the function is freed, before its id can be another's.
            entries.pop(key, None)

        try:
            entry.reference = weakref.ref(function, forget)
        except TypeError:  # it cannot be watched, so its id may become another's
            return
        entry.encoded.came_from(entry.reference, entry.captures)
        entries.pop(key, None)
        if entry.encoded.size > self._max_bytes:
            return
        entries[key] = entry
        if len(entries) > self._max_count or entry.encoded.size > OUT_OF_BAND:
            self._make_room()

    def _make_room(self) -> None:
        # list() of a dict is one step, so that other threads do not matter.
        *older, newest = list(self._entries.items())
        count = len(older) + 1
        size = sum(entry.encoded.size for _, entry in older) + newest[1].encoded.size
        # Twice round: those that were asked for lose their mark first, and then go.
        for key, entry in older + older:
            if count <= self._max_count and size <= self._max_bytes:
                break
            if entry.used:
                entry.used = False
                # To the end, as if it were new.
                self._entries.pop(key, None)
                self._entries[key] = entry
            elif self._entries.pop(key, None) is not None:
                count -= 1
                size -= entry.encoded.size

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<FunctionCache {len(self._entries)} functions>"


def needed(needs: Visit) -> Names:
    """Return the names that something needs, as a part of a key."""
    if needs.all:
        from remote_executor.payload.code.names import main_globals

        return tuple(name for name in list(main_globals()) if name[:2] != "__")
    return tuple(needs.names)


def _encode_by_value(
    function: Callable[..., Any], extra: Names, pool: Sequence[memoryview]
) -> tuple[Encoded, Captures | None]:
    from remote_executor.payload.captures import is_code
    from remote_executor.payload.code.digests import frozen

    if not is_code(function) and not extra:
        # A bound method, a partial, an object with __call__: it may change in ways that nobody
        # can see, and mostly pickles fast.
        body, views = dump(function, "function")
        return Encoded(body, frozen(views, pool), pure=False), None
    from remote_executor.payload.code.bundles import function_bundle

    def way(part: Any) -> tuple[bytes, list[memoryview], Captures]:
        return function_bundle(part, extra, pool)

    body, snapshots, captures = guarded(way, function, "function")
    return Encoded(body, snapshots, captures.pure, extra), captures


def _encode_by_source(
    function: Callable[..., Any], encoded: Encoded, pythons: Pythons
) -> Encoded | PayloadError:
    if not holds_code(encoded.body):
        return encoded
    from remote_executor.payload.by_source import dump_abroad
    from remote_executor.payload.code.digests import frozen

    try:
        body, views = dump_abroad(function, "function", pythons, encoded.extra)
    except PayloadError as error:
        return error
    return Encoded(body, frozen(views, encoded.buffers), encoded.pure, encoded.extra)


class _Definition:
    __slots__ = ("body", "copies", "function", "parts", "pure", "tokens")

    def __init__(
        self, pure: bool, body: bytes, copies: PrivateCopies | None, parts: Sequence[int]
    ) -> None:
        self.pure = pure
        self.parts = parts
        self.body = body
        self.copies = copies
        self.function: Callable[..., Any] | None = None
        self.tokens: dict[str, mains.Token] = {}


class FunctionTable:
    """The functions that a worker knows, by number. For the worker's main thread only."""

    __slots__ = ("_definitions", "_parts", "_used")

    def __init__(self) -> None:
        self._definitions: dict[int, _Definition] = {}
        self._parts: dict[int, PrivateCopies] = {}
        self._used: list[PrivateCopies] = []

    def define(
        self,
        number: int,
        flags: int,
        body: bytes | bytearray | memoryview,
        buffers: Sequence[Any] = (),
        parts: Sequence[int] = (),
    ) -> None:
        """
        Take a function. It is not unpickled before :meth:`get`.

        Args:
            number: What it will be asked for by. An earlier one of that number is replaced.
            flags: :data:`PURE` or 0.
            body: Its pickle.
            buffers: The large buffers, which become the table's own.
            parts: The numbers of the large buffers instead, where they come apart.
        """
        copies = PrivateCopies(buffers) if buffers else None
        self._definitions[number] = _Definition(bool(flags & PURE), bytes(body), copies, parts)

    def define_part(self, number: int, copies: PrivateCopies) -> None:
        """
        Take a large buffer that functions have.

        Args:
            number: What functions call it.
            copies: Makes it anew for each call.
        """
        self._parts[number] = copies

    def forget(self, number: int) -> None:
        """Drop a function, or a part of some. One that is not there is fine."""
        self._definitions.pop(number, None)
        self._parts.pop(number, None)

    def end_task(self) -> None:
        """Let go of what a task wrote to captured arrays, once nobody has its function any more."""
        for part in self._used:
            part.rest()
        self._used.clear()

    def look_up_again(self) -> None:
        """Take what goes by name from its module anew, since modules were reloaded."""
        for definition in self._definitions.values():
            if definition.body:
                definition.function = None

    def get(self, number: int) -> Any:
        """
        Return a function that is as good as new.

        Args:
            number: As given to :meth:`define`.

        Raises:
            LookupError: If no such function was defined.
            Exception: Whatever its unpickling raises, such as ModuleNotFoundError.
        """
        definition = self._definitions[number]
        function = definition.function
        if function is not None:
            tokens = definition.tokens
            if not tokens:
                return function
            applied = mains.applied
            for name, token in tokens.items():
                if applied.get(name) != token:
                    break
            else:
                return function
        return self._rebuild(definition)

    def _rebuild(self, definition: _Definition) -> Any:
        tokens: dict[str, mains.Token] = {}
        before = mains.record_into(tokens)
        try:
            buffers: list[memoryview] = []
            if definition.copies is not None:
                buffers = definition.copies.fresh()
            for number in definition.parts:
                part = self._parts[number]
                self._used.append(part)
                buffers += part.fresh()
            function = load(definition.body, buffers)
        finally:
            mains.record_into(before)
        if definition.pure:
            definition.function = function
            definition.tokens = tokens
            if not tokens and not definition.body.endswith(_BY_NAME):
                definition.body = b""
                definition.copies = None
                definition.parts = ()
        return function

    def __len__(self) -> int:
        return len(self._definitions)

    def __repr__(self) -> str:
        return f"<FunctionTable {len(self._definitions)} functions>"
