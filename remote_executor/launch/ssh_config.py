"""
``~/.ssh/config`` with its ``Include`` lines filled in.

paramiko reads everything else of it but leaves these out. An included file stands where the line
stood, so a block around the line goes on after it; and if that block is not for the host in
question, the file is none of its business (ssh_config(5)).
"""

from __future__ import annotations

import glob
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["DEEPEST", "expand", "include_paths", "read_file"]

DEEPEST = 16
"""As OpenSSH has it: a file that includes itself is an error."""

SETTING = re.compile(r"\s*([A-Za-z]+)(?:\s*=\s*|\s+)(.*?)\s*$")


def expand(
    text: str,
    applies: Callable[[str], bool],
    find: Callable[[str], list[str]],
    read: Callable[[str], str],
    depth: int = 0,
) -> str:
    """
    Fill in what is included.

    Args:
        text: A configuration.
        applies: Tells whether the block below a ``Host`` or ``Match`` line is for our host.
        find: Turns the words of an ``Include`` line into paths.
        read: Returns the text of a file.
        depth: How many files include this one.

    Raises:
        ValueError: If files include each other without end.
    """
    if depth > DEEPEST:
        raise ValueError(f"Include is nested more than {DEEPEST} deep")
    return "".join(f"{line}\n" for line in _lines(text, applies, find, read, depth))


def _lines(
    text: str,
    applies: Callable[[str], bool],
    find: Callable[[str], list[str]],
    read: Callable[[str], str],
    depth: int,
) -> Iterator[str]:
    block = "Host *"
    for line in text.splitlines():
        found = SETTING.match(line)
        key = found[1].lower() if found else ""
        if key in ("host", "match"):
            block = line.strip()
        if found is None or key != "include":
            yield line
        elif applies(block):
            for path in find(found[2]):
                yield from expand(read(path), applies, find, read, depth + 1).splitlines()
            yield block


def include_paths(words: str, folder: str) -> list[str]:
    """
    Return the files that an ``Include`` line means, in order; none if there are none.

    Args:
        words: Patterns, perhaps in quotes; "~" is the home.
        folder: Where relative ones are looked for.
    """
    paths = []
    for quoted, bare in re.findall(r'"([^"]*)"|(\S+)', words):
        pattern = os.path.join(folder, os.path.expanduser(quoted or bare))
        paths += sorted(filter(os.path.isfile, glob.glob(pattern)))
    return paths


def read_file(path: str) -> str:
    """Return the text of a file; what is no UTF-8 in it stays what it is."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
