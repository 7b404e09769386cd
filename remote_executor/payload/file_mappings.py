"""
Mappings of memory files that hold no descriptor.

``mmap.mmap`` keeps a duplicate of the descriptor for as long as the mapping lives, before Python
3.13 always. Whoever keeps a few hundred large results then has no descriptor left to open a file
with. So the object is made without a file, and the file's pages are put in the place of its own.
"""

from __future__ import annotations

import mmap
import os
import sys
from typing import Any

__all__ = ["map_file"]

MAP_FIXED = 0x10
"""Linux has this value on all the processors that Python runs on."""

_untracked = sys.version_info >= (3, 13)

_c_mmap: Any = None
"""The system's call; False where it cannot be had."""


def map_file(fd: int, size: int) -> mmap.mmap:
    """
    Map the beginning of a file privately: to be read, and written to with nobody else seeing it.

    Args:
        fd: The file's descriptor, which is not needed afterwards.
        size: How many bytes; the file has as many.

    Raises:
        OSError: If the system refuses, for want of memory as a rule.
        ValueError: If the file is shorter.
    """
    if _untracked:
        options: dict[str, Any] = {"trackfd": False}
        return mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, **options)
    call = _system_call()
    if not call:
        return mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE)
    import ctypes

    if os.fstat(fd).st_size < size:
        raise ValueError("mmap length is greater than file size")
    mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # The object owns these addresses from now on, whatever pages are there.
    place = ctypes.c_char.from_buffer(mapping)
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    found = call(ctypes.addressof(place), size, protection, mmap.MAP_PRIVATE | MAP_FIXED, fd, 0)
    number = ctypes.get_errno()
    del place  # else the mapping could never be closed
    if found in (None, ctypes.c_void_p(-1).value):
        raise OSError(number, os.strerror(number))
    return mapping


def _system_call() -> Any:
    global _c_mmap
    if _c_mmap is None:
        _c_mmap = False
        if sys.platform == "linux" and sys.implementation.name == "cpython":
            try:
                import ctypes

                call = ctypes.CDLL(None, use_errno=True).mmap
            except (ImportError, OSError, AttributeError):
                return _c_mmap
            call.restype = ctypes.c_void_p
            call.argtypes = (
                ctypes.c_void_p,
                ctypes.c_size_t,
                ctypes.c_int,
                ctypes.c_int,
                ctypes.c_int,
                ctypes.c_long,
            )
            _c_mmap = call
    return _c_mmap
