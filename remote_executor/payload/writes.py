"""
Has anybody written to a private mapping?

A mapping that nobody wrote to, and nobody refers to any more, is as good as a new one, and its
pages are mapped already: for a large array that is most of what reading it costs. A write to a
private mapping of a file makes a page of the process's own, and the kernel can tell whether there
is one.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap

__all__ = ["faults", "unwritten"]

LINUX: bool = sys.platform == "linux"

#: ``ioctl(PAGEMAP_SCAN)`` of Linux 6.7 and later: _IOWR('f', 16, struct pm_scan_arg).
_SCAN = 0xC0606610
_ARGUMENT = struct.Struct("<12Q")
_FILE, _PRESENT, _SWAPPED = 4, 8, 16


def faults() -> int:
    """
    Return how many page faults this process has had.

    While that number is the same, nobody has written to a page that was not written to before.
    """
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


def unwritten(mapping: mmap.mmap) -> bool:
    """
    Tell whether all pages of a private mapping are still those of its file.

    Args:
        mapping: A whole private mapping that nobody else has a view of.

    Returns:
        False if a page was written to, and also if the system does not tell.
    """
    if not LINUX:
        return False
    import ctypes
    import fcntl

    region = (ctypes.c_uint64 * 3)()
    first = ctypes.c_char.from_buffer(mapping)
    start = ctypes.addressof(first)
    del first  # else the mapping counts as used
    # Stop at the first page that is there, in memory or in swap, and is not the file's.
    wanted = _FILE, _FILE, _PRESENT | _SWAPPED, _FILE
    room = ctypes.addressof(region), 1, 1
    argument = _ARGUMENT.pack(_ARGUMENT.size, 0, start, start + len(mapping), 0, *room, *wanted)
    try:
        # Not kept open: a task may close any descriptor, and "self" is another one after a fork.
        pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            found: int = fcntl.ioctl(pagemap, _SCAN, bytearray(argument))
        finally:
            os.close(pagemap)
    except OSError:  # an older kernel, or none of it is shown here
        return False
    return found == 0
