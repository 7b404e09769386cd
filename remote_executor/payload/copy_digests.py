"""Whether two machines have the same of a module: the very file, or all files alike."""

from __future__ import annotations

import os
from typing import Any

__all__ = ["copy_digest", "file_signature"]

MAX_FILES = 2000
"""Files of a package that are compared at most; a larger one counts as different."""

MAX_BYTES = 16 * 1024 * 1024
"""Bytes of a package that are compared at most."""


def file_signature(path: str) -> list[Any] | None:
    """Return what tells a file from all others, also from those of other machines."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [os.path.realpath(path), status.st_ino, status.st_mtime_ns, status.st_size]


def copy_digest(file: str | None, folder: str | None) -> str | None:
    """
    Return a digest of all sources of a top-level module.

    Args:
        file: Its file; not looked at for a package.
        folder: A package's folder.

    Returns:
        The digest; None if that cannot be read, or is too much.
    """
    from hashlib import sha256

    whole = sha256()
    size = 0
    try:
        for number, (name, path) in enumerate(_sources(file, folder)):
            with open(path, "rb") as stream:
                content = stream.read(MAX_BYTES)
            size += len(content)
            if number >= MAX_FILES or size >= MAX_BYTES:
                return None
            whole.update(f"{name}\0{len(content)}\0".encode())
            whole.update(content)
    except OSError:
        return None
    return whole.hexdigest()


def _sources(file: str | None, folder: str | None) -> list[tuple[str, str]]:
    if folder is None:
        return [("", file)] if file is not None else []
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith((".", "__pycache__"))]
        for each in files:
            if each.endswith(".py"):
                path = os.path.join(where, each)
                found.append((os.path.relpath(path, folder).replace(os.sep, "/"), path))
    return sorted(found)
