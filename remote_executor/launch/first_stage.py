"""
What a host runs first: it sees to the zip of the library, then becomes the server.

Its text is sent to ``python3 -I -S`` there, whatever version from 3.10 on that is, and run with
``ask`` and ``stdin`` at hand; see :mod:`remote_executor.launch.bootstrap`. It imports nothing of
ours, since nothing of ours is there yet.

The zip is kept in the user's cache by its digest. It is used only if nobody else can have written
it, and if its digest is right. Where there is no home, or no room in it, a temporary folder serves.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["cache_folder", "main", "read_zip", "store_zip"]

MOST_CONFIG = 60000
"""Bytes that fit into a pipe before anybody reads."""


def main(ask: dict[str, Any], stdin: BinaryIO) -> NoReturn:
    """
    Do it all; never returns.

    Args:
        ask: ``mark`` (in pieces), ``digest``, ``boot``.
        stdin: The channel's standard input, binary.
    """
    mark = "".join(ask["mark"])

    def tell(fields: dict[str, Any]) -> None:
        os.write(1, f"\n{mark} {json.dumps(fields)}\n".encode())

    mask = os.umask(0o077)
    try:
        name = ask["digest"] + ".zip"
        path = os.path.join(cache_folder(os.environ), name)
        held = read_zip(path, ask["digest"])
        tell({"python": list(sys.version_info[:3]), "has_zip": held})
        line = stdin.readline()
        if not line:
            raise SystemExit(1)  # the client is gone
        config = json.loads(line)
        if not held:
            data = stdin.read(config["zip_size"])
            if digest_of(data) != ask["digest"]:
                raise ValueError("the library did not arrive whole")
            path, folder = store_zip(path, data)
            config["remove"] = [folder] if folder else []
        secret = json.dumps(config).encode()
        if len(secret) > MOST_CONFIG:
            raise ValueError(f"env is too large: {len(secret)} bytes")
        read, write = os.pipe()
        os.set_inheritable(read, True)
        os.write(write, secret)
        os.close(write)
    except (OSError, ValueError) as exc:
        tell({"error": f"{type(exc).__name__}: {exc}", "at": "boot"})
        raise SystemExit(1) from None
    os.umask(mask)
    os.environ.update(config["env"])
    tell({"at": "import"})
    os.execv(sys.executable, [sys.executable, "-c", ask["boot"], path, str(read)])


def cache_folder(environ: Mapping[str, str]) -> str:
    """Return the folder in which the user's caches are, ours among them."""
    cache = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        cache = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "remote_executor")


def digest_of(data: bytes) -> str:
    """Return what a zip is known by."""
    import hashlib

    return hashlib.sha256(data).hexdigest()


def read_zip(path: str, digest: str) -> bool:
    """Tell whether the zip is there, nobody else can have written it, and it is the right one."""
    try:
        for each in (os.path.dirname(path), path):
            status = os.lstat(each)
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return False
        if not stat.S_ISREG(status.st_mode):
            return False
        with open(path, "rb") as file:
            return digest_of(file.read()) == digest
    except OSError:
        return False


def store_zip(path: str, data: bytes) -> tuple[str, str]:
    """
    Keep the zip, in one step: whoever looks sees all of it or nothing.

    Args:
        path: Where it should be.
        data: The zip.

    Returns:
        Where it is, and a folder to be removed at the end ("" if it is where it should be).

    Raises:
        OSError: If there is room nowhere.
    """
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        status = os.lstat(folder)
        if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
            raise PermissionError(f"{folder} belongs to somebody else")
        if status.st_mode & 0o077:
            os.chmod(folder, 0o700)
        _write(path, data)
        return path, ""
    except OSError:
        # A home that is read-only or full, or none at all.
        import tempfile

        folder = tempfile.mkdtemp(prefix="remote_executor-")
        path = os.path.join(folder, os.path.basename(path))
        _write(path, data)
        return path, folder


def _write(path: str, data: bytes) -> None:
    draft = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.replace(draft, path)
    except OSError:
        os.unlink(draft)
        raise
