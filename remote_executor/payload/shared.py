"""
Shared objects: pickled once, sent once to each server, named by a token wherever a pickle has them.

::

    client                                    worker
    ------                                    ------
    share(obj): pickle, snapshot, token       SharedTable: token -> pickle, buffers to be copied
    Shared pickles to  fetch(token)   ---->   fetch(token) builds the object, once a task
    find(pickle): which blobs go first

A handle pickles to a call of :func:`fetch` with its token. Tokens are found in a finished pickle by
their first bytes, in whatever it is that holds the handle: so nothing has to be noted while it is
made, and the pickles of libraries within ours are no exception.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from remote_executor.errors import PayloadError
from remote_executor.payload.pickles import load

if TYPE_CHECKING:
    from remote_executor.payload.copies import PrivateCopies

__all__ = ["TOKEN_SIZE", "Shared", "SharedTable", "blobs", "fetch", "find", "make_token", "use"]

_MAGIC = b"\x93shared\x1a"

TOKEN_SIZE = 24

blobs: weakref.WeakValueDictionary[bytes, Any] = weakref.WeakValueDictionary()
"""What this process has shared, by token."""

_table: SharedTable | None = None


class Shared:
    """
    Stands for an object that servers have already: made by :meth:`FarmExecutor.share`.

    It may be anywhere in what a task is made of: an argument, an item of a map, within containers,
    captured by a function. The task finds the object itself there, its own to write to.

    Args:
        blob: What was pickled; ``share`` makes it.
    """

    __slots__ = ("__weakref__", "_blob")

    def __init__(self, blob: Any) -> None:
        self._blob = blob

    def __reduce__(self) -> tuple[Any, ...]:
        return fetch, (self._blob.token,)

    def __repr__(self) -> str:
        return f"<Shared {self._blob.what}, {self._blob.size} bytes>"


def make_token(owner: bytes, number: int) -> bytes:
    """
    Name a shared object.

    Args:
        owner: 8 bytes that no other executor has.
        number: The blob's.
    """
    return _MAGIC + owner + number.to_bytes(8, "little")


def find(body: bytes | bytearray | memoryview) -> list[bytes]:
    """Return the tokens in a pickle, each once."""
    data = body if isinstance(body, (bytes, bytearray)) else bytes(body)
    found: dict[bytes, None] = {}
    at = data.find(_MAGIC)
    while at >= 0:
        end = at + TOKEN_SIZE
        found[bytes(data[at:end])] = None
        at = data.find(_MAGIC, end)
    return list(found)


def fetch(token: bytes) -> Any:
    """
    Return what a handle stands for: in a worker the object, where it was shared the handle.

    Raises:
        PayloadError: If it is not here.
    """
    blob = blobs.get(token)
    if blob is not None:
        return Shared(blob)
    if _table is None:
        raise _unknown()
    return _table.open(token)


def use(table: SharedTable | None) -> None:
    """Let :func:`fetch` look there. For a worker, before it loads anything."""
    global _table
    _table = table


def _unknown() -> PayloadError:
    return PayloadError(
        "shared object",
        "it is not known here: a handle is for tasks of the executor that shared the object (and "
        "of its views); share the object again with the one that runs this task",
    )


class _Entry:
    __slots__ = ("copies", "pure", "there", "token", "value")

    def __init__(self, token: bytes, copies: PrivateCopies, pure: bool) -> None:
        self.token = token
        self.copies = copies
        self.pure = pure
        self.there = False
        self.value: Any = None


class SharedTable:
    """The shared objects that a worker knows. For the worker's main thread only."""

    __slots__ = ("_by_token", "_numbers", "_opened")

    def __init__(self) -> None:
        self._by_token: dict[bytes, _Entry] = {}
        self._numbers: dict[int, bytes] = {}
        self._opened: list[_Entry] = []

    def define(self, number: int, token: bytes, pure: bool, copies: PrivateCopies) -> None:
        """
        Take an object. It is not unpickled before a task wants it.

        Args:
            number: What it will be forgotten by.
            token: What it will be asked for by.
            pure: Whether it cannot change, so that one is enough for all tasks.
            copies: Makes the pickle and its buffers, anew for each task.
        """
        self._numbers[number] = token
        self._by_token[token] = _Entry(token, copies, pure)

    def forget(self, number: int) -> None:
        """Drop an object. One that is not there is fine."""
        token = self._numbers.pop(number, None)
        if token is not None:
            del self._by_token[token]

    def open(self, token: bytes) -> Any:
        """
        Return the object: the same one within a task, a fresh one in the next.

        Raises:
            PayloadError: If there is none of that token.
            Exception: Whatever its unpickling raises, such as ModuleNotFoundError.
        """
        entry = self._by_token.get(token)
        if entry is None:
            raise _unknown()
        if not entry.there:
            body, *buffers = entry.copies.fresh()
            entry.value = load(body, buffers)
            entry.there = True
            if not entry.pure:
                self._opened.append(entry)
        return entry.value

    def end_task(self) -> None:
        """Let go of what a task had: what it wrote must not show in the next."""
        for entry in self._opened:
            entry.there = False
            entry.value = None
        for entry in self._opened:  # now that none of them refers to another
            entry.copies.rest()
        self._opened.clear()

    def __len__(self) -> int:
        return len(self._by_token)

    def __repr__(self) -> str:
        return f"<SharedTable {len(self._by_token)} objects>"
