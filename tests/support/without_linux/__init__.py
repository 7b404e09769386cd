"""
The tests on Linux without what only Linux has, as a stand-in for macOS.

``REMOTE_EXECUTOR_TEST_WITHOUT_LINUX=1 python -m pytest tests/integration tests/contract`` takes
away, from the tests and from every Python that they start: epoll, memfd_create and its seals,
waitid, sched_getaffinity, MSG_CMSG_CLOEXEC, TCP_KEEPIDLE, the subreaper, and /proc for the
package's own eyes. What it does not show is how macOS itself behaves: its sockets, its pipes, its
poll.

Tests of what cannot be without one of these carry the marker ``linux(reason)`` and are left out.
Whoever imports this has it done, if it is asked for.
"""

from __future__ import annotations

import builtins
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ASKED", "take_away"]

VARIABLE = "REMOTE_EXECUTOR_TEST_WITHOUT_LINUX"
ASKED = os.environ.get(VARIABLE, "") not in ("", "0")

FOLDER = str(Path(__file__).resolve().parent)
OURS = "remote_executor"

NAMES = {
    "os": (
        "CLD_",
        "MFD_",
        "P_ALL",
        "P_PID",
        "WNOWAIT",
        "eventfd",
        "memfd_create",
        "pidfd_open",
        "posix_fallocate",
        "process_cpu_count",
        "sched_getaffinity",
        "sched_setaffinity",
        "splice",
        "waitid",
    ),
    "select": ("EPOLL", "epoll"),
    "socket": ("MSG_CMSG_CLOEXEC", "SO_PEERCRED", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "TCP_KEEPIDLE"),
    "fcntl": ("F_ADD_SEALS", "F_GET_SEALS", "F_SEAL_"),
}
"""What macOS lacks (waitid until Python 3.13): names, or how they begin, by module."""

_done = False


def take_away() -> None:
    """Take it away from this process and from those that it starts, if that is asked for."""
    global _done
    if not ASKED or _done:
        return
    _done = True
    path = os.environ.get("PYTHONPATH", "")
    if FOLDER not in path.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [FOLDER, path]))
    # What the standard library does with epoll and its kin is not what is tried here.
    import asyncio  # noqa: F401
    import selectors
    import subprocess  # noqa: F401

    selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc]
    for module, names in NAMES.items():
        for name in list(vars(__import__(module))):
            if name.startswith(names):
                delattr(sys.modules[module], name)
    _hide_proc()
    _refuse_prctl()


def _hide_proc() -> None:
    """Have our package find nothing in /proc; others need it, the tests themselves for one."""
    for module, name in ((os, "listdir"), (os, "open"), (os.path, "isdir"), (builtins, "open")):
        setattr(module, name, _blind(getattr(module, name), raises=name != "isdir"))


def _blind(call: Callable[..., Any], raises: bool) -> Callable[..., Any]:
    def blind(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
        if isinstance(path, str) and path.startswith("/proc"):
            asks = sys._getframe(1).f_globals.get("__name__", "")
            if asks.partition(".")[0] == OURS:
                if raises:
                    raise FileNotFoundError(2, "taken away", path)
                return False
        return call(path, *args, **kwargs)

    return blind


def _refuse_prctl() -> None:
    import ctypes

    class CDLL(ctypes.CDLL):
        def prctl(self, *_: int) -> int:
            return -1

    ctypes.CDLL = CDLL  # type: ignore[misc]


take_away()
