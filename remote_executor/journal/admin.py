"""What ``remote-executor journal`` does: list, show and remove results that are kept."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from remote_executor.errors import JournalError
from remote_executor.journal.store import Journal
from remote_executor.printable import printable

if TYPE_CHECKING:
    from remote_executor.journal.store import Entry

__all__ = ["run"]

SHOWN = 12
"""Digits of a key in a list."""


def run(action: str, path: str, keys: list[str], function: str | None) -> int:
    """
    Do what the command line says.

    Args:
        action: "ls", "show" or "rm".
        path: The journal.
        keys: The first digits of keys; empty for all.
        function: Only those of this function; None for all.

    Returns:
        The exit status.
    """
    if not os.path.exists(path):
        return _say(f"there is no file {printable(path)}")
    journal = Journal(path)
    try:
        found = [each for each in journal.entries() if _is_meant(each, keys, function)]
        if keys and not found:
            return _say("there is no such result")
        if action == "rm":
            if not keys and function is None:
                return _say("rm needs keys, or --function NAME; to remove all, remove the file")
            _write(f"{journal.remove(each.key for each in found)} results removed")
        elif action == "show":
            for each in found:
                _write(_line(each))
                _write(f"  {journal.load([(each.key, None)])[0]!r}")
        else:
            for each in found:
                _write(_line(each))
            size = sum(each.size for each in found)
            _write(f"{len(found)} results, {size} bytes")
    except JournalError as exc:
        return _say(str(exc))
    finally:
        journal.close()
    return 0


def _is_meant(entry: Entry, keys: list[str], function: str | None) -> bool:
    name = entry.function
    if function is not None and name != function and name.rpartition(".")[2] != function:
        return False
    return not keys or entry.key.hex().startswith(tuple(key.lower() for key in keys))


def _line(entry: Entry) -> str:
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.made))
    beside = "  in a file" if entry.file else ""
    name = printable(entry.function)
    return f"{entry.key.hex()[:SHOWN]}  {made}  {entry.size:>10}  {name}{beside}"


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")


def _say(words: str) -> int:
    sys.stderr.write(f"remote-executor: {words}\n")
    return 1
