"""
Run a command for which the kernel refuses some calls, as sandboxes of containers do.

``python tests/support/sandbox.py EPERM waitid,sched_getaffinity COMMAND...``
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

__all__ = ["NUMBERS", "refuse"]

NUMBERS = {
    "x86_64": (0xC000003E, {"waitid": 247, "sched_getaffinity": 204, "memfd_create": 319}),
    "aarch64": (0xC00000B7, {"waitid": 95, "sched_getaffinity": 123, "memfd_create": 279}),
}
"""By machine: what the kernel calls it, and the numbers of its calls."""

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ERRNO = 0x00050000
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
NUMBER_AT, ARCHITECTURE_AT = 0, 4


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse(calls: list[str], number: int) -> None:
    """
    Have the kernel refuse calls of this process and of all that it starts, for good.

    Args:
        calls: Their names.
        number: The error that they end with.

    Raises:
        OSError: If the kernel does not let us.
        KeyError: If the numbers of this machine's calls are not known here.
    """
    architecture, numbers = NUMBERS[platform.machine()]
    steps = [(LOAD_WORD, 0, 0, ARCHITECTURE_AT), (JUMP_IF_EQUAL, 1, 0, architecture)]
    steps += [(RETURN, 0, 0, SECCOMP_RET_ALLOW), (LOAD_WORD, 0, 0, NUMBER_AT)]
    for call in calls:
        steps += [(JUMP_IF_EQUAL, 0, 1, numbers[call])]
        steps += [(RETURN, 0, 0, SECCOMP_RET_ERRNO | number)]
    steps += [(RETURN, 0, 0, SECCOMP_RET_ALLOW)]
    raw = b"".join(struct.pack("HBBI", *step) for step in steps)
    libc = ctypes.CDLL(None, use_errno=True)
    for words in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(_Program(len(steps), raw)), 0, 0),
    ):
        if libc.prctl(*words):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


if __name__ == "__main__":
    refuse(sys.argv[2].split(","), getattr(errno, sys.argv[1]))
    os.execvp(sys.argv[3], sys.argv[3:])
