"""
The file of a journal: a SQLite database, and files beside it for large results.

Each call of :meth:`Journal.put` is one transaction, and returns when it is written: a program that
is killed later has lost nothing of it. Several programs may use one file; they wait for each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import struct
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from remote_executor.errors import JournalError
from remote_executor.payload.pickles import dump_result, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from remote_executor.journal.keys import Identity

__all__ = ["Entry", "Journal"]

BUSY_SECONDS = 60.0
"""How long another program may have the file before that is an error."""

MAX_INSIDE = 16 * 1024 * 1024
"""Bytes of a result that is kept in the database; larger ones are files beside it."""

SMALL = 4096
"""Bytes of a result that is read as soon as it is looked for."""

MAX_ASKED = 500
"""Keys in one question to the database."""

VERSION = 1

SCHEMA = f"""
    CREATE TABLE IF NOT EXISTS functions (
        id INTEGER PRIMARY KEY, digest BLOB UNIQUE NOT NULL, name TEXT NOT NULL,
        parts TEXT NOT NULL, made REAL NOT NULL);
    CREATE TABLE IF NOT EXISTS results (
        key BLOB PRIMARY KEY NOT NULL, function INTEGER NOT NULL, value BLOB, file TEXT,
        size INTEGER NOT NULL, made REAL NOT NULL);
    PRAGMA user_version={VERSION};
"""


class Entry(NamedTuple):
    """
    A result that is kept, as ``remote-executor journal`` shows it.

    Attributes:
        key: What it is called.
        function: The function's name.
        size: Its bytes.
        made: When it was written, in seconds since 1970.
        file: The file beside the database that has it; None for most.
    """

    key: bytes
    function: str
    size: int
    made: float
    file: str | None


class Journal:
    """
    Results that last: give it to ``options(journal=...)`` or to a map's ``resume=``.

    ::

        for score in ex.map(simulate, parameters, resume="run.db"):
            ...

    Each result is written before anybody sees it. When the program runs again, what is there is not
    computed once more. A result is found by what the function *is* (its code, what it captured, its
    helpers) and by the item's value; errors are not kept.

    Args:
        path: The file; made when it is first used. Large results are in a folder beside it.
        key: Called with the arguments of a call (of a map's item: with the item), in place of all
            that: equal keys mean the same result, whatever the function has become.

    Raises:
        TypeError: If the path is none, or the key is not callable.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, key: Callable[..., Any] | None = None
    ) -> None:
        if key is not None and not callable(key):
            raise TypeError(f"key must be callable, not {key!r}")
        self.path = os.path.abspath(os.fspath(path))
        self.key = key
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._pid = 0
        self._made = False
        self._ids: dict[bytes, int] = {}

    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:
        # At the interpreter's end the names of modules may be None already.
        db, self._db = getattr(self, "_db", None), None
        if db is not None and self._pid == getpid():
            db.close()

    def __repr__(self) -> str:
        return f"Journal({self.path!r})"

    @property
    def folder(self) -> str:
        """Where the large results are."""
        return f"{self.path}.files"

    # -------------------------------------------------------------------- inside

    def _open(self) -> sqlite3.Connection:
        """Return the connection of this process. With the lock."""
        if self._db is None or self._pid != os.getpid():
            self._ids.clear()
            self._made = False
            db = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                # What a killed program had written is there; a power cut may cost the last moment.
                with contextlib.suppress(sqlite3.OperationalError):  # a file that is read-only
                    db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=NORMAL")
                (version,) = db.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    with contextlib.suppress(sqlite3.OperationalError):
                        db.executescript(f"BEGIN IMMEDIATE;{SCHEMA}COMMIT;")
                elif version != VERSION:
                    raise JournalError(self.path, f"it is of another version ({version})")
            except BaseException:
                db.close()
                raise
            self._db, self._pid = db, os.getpid()
        return self._db

    def _is_made(self, db: sqlite3.Connection) -> bool:
        """Whether something was ever written to the file."""
        if not self._made:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            self._made = bool(version)
        return self._made

    def _do(self, call: Callable[[sqlite3.Connection], Any]) -> Any:
        with self._lock:
            try:
                return call(self._open())
            except (sqlite3.Error, OSError) as exc:
                raise JournalError(self.path, f"{type(exc).__name__}: {exc}") from exc

    # -------------------------------------------------------------------- public

    def close(self) -> None:
        """Close the file. It is opened again when it is needed."""
        with self._lock:
            db, self._db = self._db, None
            if db is not None and self._pid == os.getpid():
                db.close()

    def present(self, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """
        Look which results are there.

        Args:
            keys: What they are called.

        Returns:
            Those of the keys that have results: the pickle of a small one, None for others.

        Raises:
            JournalError: If the file cannot be read.
        """

        def look(db: sqlite3.Connection) -> dict[bytes, bytes | None]:
            found: dict[bytes, bytes | None] = {}
            if not self._is_made(db):
                return found
            for start in range(0, len(keys), MAX_ASKED):
                part = keys[start : start + MAX_ASKED]
                query = (
                    "SELECT key, CASE WHEN length(value) = size AND size <= ? THEN value END "
                    f"FROM results WHERE key IN ({','.join('?' * len(part))})"
                )
                found.update(db.execute(query, (SMALL, *part)))  # in C
            return found

        found: dict[bytes, bytes | None] = self._do(look)
        return found

    def load(self, found: Sequence[tuple[bytes, bytes | None]]) -> list[Any]:
        """
        Return results.

        Args:
            found: Of :meth:`present`: their keys, and the pickles of small ones.

        Raises:
            JournalError: If one is not there any more, or cannot be read.
        """
        large = [key for key, data in found if data is None]
        rows: dict[bytes, tuple[Any, ...]] = self._do(partial(_rows, large)) if large else {}
        return [
            _unpacked(data) if data is not None else self._value(rows.get(key), key)
            for key, data in found
        ]

    def _value(self, row: tuple[Any, ...] | None, key: bytes) -> Any:
        if row is None:
            raise JournalError(self.path, f"the result {key.hex()} was removed meanwhile")
        _, data, file, size = row
        if file is not None:
            try:
                with open(os.path.join(self.folder, file), "rb") as stream:
                    data = stream.read()
            except OSError as exc:
                raise JournalError(self.path, f"a large result cannot be read: {exc}") from exc
        if len(data) != size:
            raise JournalError(self.path, f"the result {key.hex()} is not whole")
        return _unpacked(data)

    def put(self, function: Identity, results: Iterable[tuple[bytes, Any]]) -> None:
        """
        Write results, all or none; when this returns they are there.

        Args:
            function: What has made them.
            results: The key and the value of each.

        Raises:
            JournalError: If they cannot be written.
            PayloadError: If a value cannot be pickled.
        """
        now = time.time()
        rows: list[tuple[bytes, bytes | None, str | None, int]] = []
        try:
            for key, value in results:
                data = _packed(value)
                size = sum(map(len, data))
                if size <= MAX_INSIDE:
                    rows.append((key, b"".join(data), None, size))
                else:
                    rows.append((key, None, self._write_file(key, data), size))
        except OSError as exc:
            raise JournalError(self.path, f"a large result cannot be written: {exc}") from exc

        def write(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            try:
                number = self._number(db, function, now)
                db.executemany(
                    "INSERT OR REPLACE INTO results (key, function, value, file, size, made) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    [(key, number, data, file, size, now) for key, data, file, size in rows],
                )
                db.execute("COMMIT")
            except BaseException:
                self._ids.clear()
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise

        self._do(write)

    def _number(self, db: sqlite3.Connection, function: Identity, now: float) -> int:
        number = self._ids.get(function.digest)
        if number is None:
            db.execute(
                "INSERT OR IGNORE INTO functions (digest, name, parts, made) VALUES (?, ?, ?, ?)",
                (function.digest, function.name, json.dumps(function.parts), now),
            )
            row = db.execute("SELECT id FROM functions WHERE digest=?", (function.digest,))
            number = self._ids[function.digest] = int(row.fetchone()[0])
        return number

    def _write_file(self, key: bytes, data: Sequence[bytes | memoryview]) -> str:
        """Write a large result to a file of its own; return its name."""
        os.makedirs(self.folder, exist_ok=True)
        name = f"{key.hex()[:32]}-{secrets.token_hex(4)}"
        path = os.path.join(self.folder, name)
        try:
            with open(path, "xb") as stream:
                for part in data:
                    stream.write(part)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        return name

    def changes(self, function: Identity) -> list[str] | None:
        """
        Say what has changed since a function of that name has made results.

        Args:
            function: As it is now.

        Returns:
            What differs, in words; None if there are results of this very function, or none of any
            function of that name.

        Raises:
            JournalError: If the file cannot be read.
        """

        def look(db: sqlite3.Connection) -> list[str] | None:
            if not self._is_made(db):
                return None
            rows = db.execute(
                "SELECT digest, parts FROM functions WHERE name=? ORDER BY made", (function.name,)
            ).fetchall()
            if not rows or any(digest == function.digest for digest, _ in rows):
                return None
            before = json.loads(rows[-1][1])
            names = sorted({*before, *function.parts})
            return [name for name in names if before.get(name) != function.parts.get(name)]

        found: list[str] | None = self._do(look)
        return found

    def entries(self) -> list[Entry]:
        """
        Return what is kept, oldest first.

        Raises:
            JournalError: If the file cannot be read.
        """

        def look(db: sqlite3.Connection) -> list[Entry]:
            if not self._is_made(db):
                return []
            rows = db.execute(
                "SELECT key, name, size, results.made, file FROM results "
                "JOIN functions ON function = id ORDER BY results.made, results.rowid"
            )
            return [Entry(*row) for row in rows]

        found: list[Entry] = self._do(look)
        return found

    def remove(self, keys: Iterable[bytes]) -> int:
        """
        Forget results.

        Args:
            keys: Those of :meth:`entries`.

        Returns:
            How many there were.

        Raises:
            JournalError: If the file cannot be written.
        """
        wanted = set(keys)
        files = [each.file for each in self.entries() if each.key in wanted and each.file]

        def remove(db: sqlite3.Connection) -> int:
            db.execute("BEGIN IMMEDIATE")
            try:
                found = db.executemany("DELETE FROM results WHERE key=?", [(k,) for k in wanted])
                count = found.rowcount
                db.execute("DELETE FROM functions WHERE id NOT IN (SELECT function FROM results)")
                db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise
            finally:
                self._ids.clear()
            return count

        count: int = self._do(remove)
        for file in files:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.folder, file))
        return count


def _rows(keys: Sequence[bytes], db: sqlite3.Connection) -> dict[bytes, tuple[Any, ...]]:
    found: dict[bytes, tuple[Any, ...]] = {}
    for start in range(0, len(keys), MAX_ASKED):
        part = keys[start : start + MAX_ASKED]
        marks = ",".join("?" * len(part))
        query = f"SELECT key, value, file, size FROM results WHERE key IN ({marks})"
        found.update((row[0], row) for row in db.execute(query, part))
    return found


_HEAD = struct.Struct("<4sI")
_MAGIC = b"\x00buf"


def _packed(value: object) -> list[bytes | memoryview]:
    """Pickle a value; its large buffers, if there are any, behind it."""
    body, buffers = dump_result(value)
    if not buffers:
        return [body]
    sizes = [len(body), *(len(each) for each in buffers)]
    head = _HEAD.pack(_MAGIC, len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes)
    return [head, body, *buffers]


def _unpacked(data: bytes) -> Any:
    if data[:4] != _MAGIC:
        return load(data)
    _, count = _HEAD.unpack_from(data)
    sizes = struct.unpack_from(f"<{count}Q", data, _HEAD.size)
    at = _HEAD.size + 8 * count
    view = memoryview(data)
    parts: list[Any] = []
    for size in sizes:
        parts.append(view[at : at + size])
        at += size
    # What is built upon them may be written to, as any result.
    return load(parts[0], [bytearray(part) for part in parts[1:]])
