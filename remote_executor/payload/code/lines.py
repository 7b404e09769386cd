"""
The lines of files that code is from which has travelled, for tracebacks, ``inspect``, warnings.

Code that travels keeps the name of its file, which a server need not have, or of which it may have
another copy. So in a worker ``linecache`` asks the client for the lines, once a file, when somebody
wants to see them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

__all__ = ["Asked", "ask_by", "file_of_main", "files", "note", "take_over"]

files: dict[str, None] = {}
"""Those of code that has travelled: at the client what it has sent, in a worker what has come."""


class Asked:
    """
    Stands in ``linecache`` for the lines of a file.

    Args:
        file: Its name.
    """

    __slots__ = ("file",)

    def __init__(self, file: str) -> None:
        self.file = file

    def __call__(self) -> str:
        """Return its text; ``linecache`` calls this where a module's loader is to give it."""
        return "".join(_lines(self.file) or ())


_ask: Callable[[str], list[str] | None] | None = None
_fall_back: Callable[[str], None] | None = None
_asked: dict[str, list[str]] = {}


def note(file: str) -> bool:
    """
    Take note that code of a file has come.

    Args:
        file: Its name.

    Returns:
        Whether its lines are asked for when they are wanted.
    """
    files[file] = None
    if _ask is None:
        return False
    linecache: Any = sys.modules.get("linecache")
    if linecache is not None and hasattr(linecache, "cache"):
        linecache.cache.setdefault(file, (Asked(file),))
    return True


def ask_by(
    ask: Callable[[str], list[str] | None] | None, fall_back: Callable[[str], None] | None = None
) -> None:
    """
    Say how to ask the client for the lines of a file.

    Args:
        ask: Takes the file's name, and returns its lines; nothing if the client has none.
        fall_back: Puts into ``linecache`` what is known here of a file's lines.
    """
    global _ask, _fall_back
    _ask, _fall_back = ask, fall_back


def take_over() -> None:
    """Have ``linecache`` get lines of files that code has come from. Call it once in a worker."""
    linecache: Any = sys.modules["linecache"]
    usual = linecache.updatecache

    def updatecache(file: str, module_globals: Any = None) -> list[str]:
        lines = _lines(file)
        if lines:
            linecache.cache[file] = sum(map(len, lines)), None, lines, file
            return lines
        found: list[str] = usual(file, module_globals)
        if not found and file in files and _fall_back is not None:
            _fall_back(file)
            found = linecache.cache.get(file, (0, None, found))[2]
        return found

    linecache.updatecache = updatecache
    for file in files:
        linecache.cache.setdefault(file, (Asked(file),))


def _lines(file: str) -> list[str] | None:
    """Return the client's lines; None for what is not from there, or that it does not tell."""
    if file not in files or _ask is None:
        return None
    found = _asked.get(file)
    if found is None:
        found = _asked[file] = []  # who is asked may want lines himself, for an error
        found += _ask(file) or ()
    return found


def file_of_main() -> str | None:
    """Return the file of this process's program, whose lines its workers may ask for."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    if not isinstance(file, str):
        return None
    files[file] = None
    return file
