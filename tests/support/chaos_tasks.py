"""What runs on the servers of :mod:`tests.support.chaos`: each execution leaves a line in a log."""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any

__all__ = ["SERVER", "answer", "digest_of", "note", "work", "work_on_shared", "worker"]

SERVER = "CHAOS_SERVER"
"""The variable that tells a worker the number of its server."""


def note(path: str, key: int) -> None:
    """Append one line: the task's key, server, process and time. One write is never torn."""
    line = f"{key} {os.environ.get(SERVER, '-')} {os.getpid()} {time.monotonic()}\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def digest_of(data: bytes) -> str:
    """Name bytes by their content, so that one wrong bit shows."""
    return hashlib.sha256(data).hexdigest()


def answer(key: int, data: bytes) -> tuple[int, str]:
    """Tell what :func:`work` must return."""
    return key, digest_of(data)


def work(path: str, key: int, seconds: float, data: bytes = b"") -> tuple[int, str]:
    """Note that it runs, nap, and return what shows that the arguments came whole."""
    note(path, key)
    time.sleep(seconds)
    return answer(key, data)


def work_on_shared(path: str, shared: bytes, item: tuple[int, float]) -> tuple[int, str]:
    """Do the same for an item of a map, with a shared object."""
    key, seconds = item
    return work(path, key, seconds, shared)


def worker() -> tuple[Any, int]:
    """Tell which worker this is: its server's number and its process."""
    return os.environ.get(SERVER), os.getpid()
