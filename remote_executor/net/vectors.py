"""
Pipes read into buffers and written from several, without a copy where the system's Python can.

PyPy has neither ``os.readv`` nor ``os.writev``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from remote_executor.wire.frames import Buffer

__all__ = ["read_into", "write_some"]


def _read_into(fd: int, buffers: Sequence[memoryview]) -> int:
    (buffer,) = buffers
    data = os.read(fd, len(buffer))
    buffer[: len(data)] = data
    return len(data)


def _write_some(fd: int, chunk: Sequence[Buffer]) -> int:
    return os.write(fd, b"".join(chunk))


read_into: Callable[[int, Sequence[memoryview]], int] = getattr(os, "readv", _read_into)
"""Read what is there into the one buffer of a list; return the number of bytes, 0 at the end."""

write_some: Callable[[int, Sequence[Buffer]], int] = getattr(os, "writev", _write_some)
"""Write what can be written of some buffers; return the number of bytes."""
