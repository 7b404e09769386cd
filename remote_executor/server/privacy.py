"""
What the tasks of one user must not find out about another's: as far as one account allows it.

A server that several people use runs all their tasks under one account, so the system lets each of
their processes look into the others, through ``/proc`` and ``ptrace``: write to another's worker
and so run code at the other's client, or read the server's keys. A process that is not *dumpable*
is closed to all but root. It writes no core file either, and no debugger can attach.

Secrets stand in the environment, too, which tasks inherit. The process that makes workers is
therefore a fresh one, with neither the memory nor those variables of the server.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["environment_of_tasks", "is_closed", "set_closed"]

LINUX: bool = sys.platform == "linux"

PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4

KEYS = frozenset(("KRB5_KTNAME", "KRB5_CLIENT_KTNAME", "CREDENTIALS_DIRECTORY"))
"""Where a server's keys are; the last is what systemd calls the folder of a service's secrets."""

SETTINGS = tuple(
    f"REMOTE_EXECUTOR_{name}" for name in ("AUTH", "GSSAPI", "PASSWORD", "SECRET", "TLS", "TOKEN")
)
"""How variables begin that say how the server knows its clients, and how it is known."""


def set_closed(closed: bool) -> bool:
    """
    Close this process to others of its account, or open it again.

    Args:
        closed: Whether nobody may look into it. What it forks is as it is; what it executes is
            open again.

    Returns:
        Whether it was closed before. False where the system knows no such thing.
    """
    prctl = _prctl()
    if prctl is None:
        return False
    before: int = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)
    prctl(PR_SET_DUMPABLE, 0 if closed else 1, 0, 0, 0)
    return before == 0


def is_closed() -> bool:
    """Tell whether nobody may look into this process."""
    prctl = _prctl()
    return prctl is not None and prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0


def _prctl() -> Any:
    if not LINUX:
        return None
    try:
        import ctypes

        return ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None


def environment_of_tasks(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return a server's environment without what it knows its clients by.

    Args:
        environ: The server's.
    """
    return {
        name: value
        for name, value in environ.items()
        if name not in KEYS and not name.upper().startswith(SETTINGS)
    }
