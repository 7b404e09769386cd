"""
Maps and tasks whose results are kept in a journal, and those that are there already.

::

    map        keys of all items      those that are there: pieces that are loaded at their turn
               the others             the feed, in numbers of its own
               a batch comes back     written, in one transaction; then handed to whoever iterates
    submit     key of the call        there: a future that is done; else it is written before that
"""

from __future__ import annotations

import logging
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from remote_executor.client.refusals import anew
from remote_executor.errors import JournalError, PayloadError
from remote_executor.journal.keys import Identity, identity, key_of
from remote_executor.journal.store import Journal
from remote_executor.payload.pickles import load
from remote_executor.wire.messages import Kind

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["Keeper", "Keeping", "journal_of", "keep_finished", "keeper_of"]

log = logging.getLogger("remote_executor.client")

MAX_PIECE = 256
"""Results that are loaded at a time."""

_journals: weakref.WeakValueDictionary[str, Journal] = weakref.WeakValueDictionary()
"""By path, those that were given by their paths and are in use."""


def journal_of(given: Journal | str | os.PathLike[str]) -> Journal:
    """
    Return the journal that is meant.

    Args:
        given: A Journal, or the path of one.
    """
    if isinstance(given, Journal):
        return given
    fresh = Journal(given)
    return _journals.setdefault(fresh.path, fresh)


class Keeper:
    """
    What is needed to keep the result of one call.

    Args:
        journal: Where.
        function: What makes it.
        key: What it is called.
    """

    __slots__ = ("function", "journal", "key", "outcome")

    def __init__(self, journal: Journal, function: Identity, key: bytes) -> None:
        self.journal = journal
        self.function = function
        self.key = key
        self.outcome: tuple[Any, BaseException | None] | None = None
        """The result, once it was written; or why it could not be."""

    def find(self) -> list[Any]:
        """
        Return a list of the result, an empty one if it is not there.

        Raises:
            JournalError: If the file cannot be read.
        """
        found = self.journal.present([self.key])
        return self.journal.load(list(found.items())) if found else []


def keep_finished(finished: Iterable[tuple[Any, Any]]) -> None:
    """
    Write the results of single tasks that are to be kept, before their futures are settled.

    Args:
        finished: Tasks and their frames. What cannot be unpickled is left to whoever settles.
    """
    groups: dict[tuple[int, bytes], list[tuple[Keeper, Any]]] = {}
    for task, frame in list(finished):
        keeper = getattr(task.sink, "keeper", None)
        if keeper is None or keeper.outcome is not None or frame.kind != Kind.RESULT:
            continue
        try:
            value = load(frame.body, frame.buffers)
        except Exception:  # whoever settles it says so, in its words
            continue
        group = groups.setdefault((id(keeper.journal), keeper.function.digest), [])
        group.append((keeper, value))
    for group in groups.values():
        first = group[0][0]
        trouble: BaseException | None = None
        try:
            first.journal.put(first.function, [(keeper.key, value) for keeper, value in group])
        except (JournalError, PayloadError) as exc:
            trouble = exc
        for keeper, value in group:
            keeper.outcome = value, None if trouble is None else anew(trouble)


def keeper_of(
    given: Any, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Keeper:
    """
    Return what keeps the result of a call.

    Args:
        given: A Journal, or the path of one.
        fn: What is called.
        args: With which positional arguments.
        kwargs: With which keyword arguments.

    Raises:
        PayloadError: If no key can be made of it.
        JournalError: If the file cannot be read.
    """
    journal = journal_of(given)
    if journal.key is not None:
        key = key_of(b"", ("key", journal.key(*args, **kwargs)))
        return Keeper(journal, _named(fn), key)
    function = identity(fn)
    _say_changes(journal, function)
    # A future among the arguments has no value yet, and is refused by the pickler.
    if kwargs:
        key = key_of(function.digest + b"call", (args, kwargs))
    else:
        key = key_of(function.digest + b"args", args)
    return Keeper(journal, function, key)


def _named(fn: Callable[..., Any]) -> Identity:
    """Return an identity for results that go by a key of the user's."""
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return Identity(f"{getattr(fn, '__module__', None)}.{name}", {"key=": ""})


_said: set[tuple[str, bytes]] = set()


def _say_changes(journal: Journal, function: Identity) -> None:
    """Say once why nothing that is there is for this function."""
    if (journal.path, function.digest) in _said:
        return
    _said.add((journal.path, function.digest))
    changed = journal.changes(function)
    if changed is not None:
        words = "; ".join(changed[:5]) + ("; ..." if len(changed) > 5 else "")
        log.warning(
            "%s has results of %s as it was before: it is run again, for this has changed: %s",
            journal.path,
            function.name,
            words or "nothing that has a name",
        )


class Keeping:
    """
    The journal's part in one map.

    Args:
        given: A Journal, or the path of one.
        fn: The function.
        star: Whether each item is a tuple of arguments.

    Raises:
        PayloadError: If no key can be made of the function.
        JournalError: If the file cannot be read.
    """

    def __init__(self, given: Any, fn: Callable[..., Any], star: bool) -> None:
        self._journal = journal_of(given)
        self._star = star
        self.numbers: list[int] = []
        """The number of each item that is run, by its place in the feed."""
        self._keys: list[bytes] = []
        """Likewise what its result is called."""
        self._looked = 0
        if self._journal.key is not None:
            self._function = _named(fn)
        else:
            self._function = identity(fn)
            _say_changes(self._journal, self._function)

    def _key(self, item: Any) -> bytes:
        key = self._journal.key
        if key is None:
            return key_of(self._function.digest + b"item", item)
        return key_of(b"", ("key", key(*item) if self._star else key(item)))

    def look(
        self, items: Iterable[Any]
    ) -> tuple[list[Any], list[tuple[int, int, Callable[[], list[Any]]]]]:
        """
        Look which of the next items have results.

        Returns:
            Those that have none; and for the others pieces without gaps: the number of the first
            item, how many they are, and what loads their results.

        Raises:
            PayloadError: If no key can be made of an item.
            JournalError: If the file cannot be read.
        """
        items = list(items)
        keys = [self._key(item) for item in items]
        present = self._journal.present(keys)
        missing: list[Any] = []
        pieces: list[tuple[int, int, Callable[[], list[Any]]]] = []
        run: list[tuple[bytes, bytes | None]] = []

        def end(at: int) -> None:
            if run:
                load = partial(self._journal.load, run.copy())
                pieces.append((self._looked + at - len(run), len(run), load))
                run.clear()

        for index, (item, key) in enumerate(zip(items, keys, strict=True)):
            if key in present:
                run.append((key, present[key]))
                if len(run) == MAX_PIECE:
                    end(index + 1)
            else:
                end(index)
                missing.append(item)
                self.numbers.append(self._looked + index)
                self._keys.append(key)
        end(len(items))
        self._looked += len(items)
        return missing, pieces

    def keep(self, first: int, values: Sequence[tuple[int, Any]]) -> BaseException | None:
        """
        Write results.

        Args:
            first: The place in the feed of the first item of their batch.
            values: The place of each in its batch, and the value.

        Returns:
            Why they could not be written, if they could not.
        """
        keys = self._keys
        try:
            self._journal.put(
                self._function, [(keys[first + index], value) for index, value in values]
            )
        except (JournalError, PayloadError) as exc:
            return exc
        return None

    def runs(self, first: int, count: int) -> Iterator[tuple[int, int, int]]:
        """Yield pieces of a batch whose items are neighbours: place in it, number, how many."""
        start = 0
        while start < count:
            number = self.numbers[first + start]
            length = 1
            while (
                start + length < count and self.numbers[first + start + length] == number + length
            ):
                length += 1
            yield start, number, length
            start += length
