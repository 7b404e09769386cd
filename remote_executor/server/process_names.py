"""What ``ps`` and ``top`` call the processes of a server."""

from __future__ import annotations

import sys

__all__ = ["set_process_name"]

MAX_CHARACTERS = 15
"""So many Linux keeps of a name."""


def set_process_name(name: str) -> None:
    """
    Have ``ps``, ``top`` and ``pstree`` show what this process is.

    With the library ``setproctitle``, if that is loaded already, all of the command line; else the
    short name that Linux keeps. Where neither can be done, nothing is.

    Args:
        name: "farm-server", "farm-zygote", "farm-worker-3".
    """
    library = sys.modules.get("setproctitle")
    if library is not None:
        library.setproctitle(f"remote_executor: {name}")
    try:
        with open("/proc/self/comm", "wb", buffering=0) as file:
            file.write(name.encode()[:MAX_CHARACTERS])
    except OSError:
        pass  # no /proc, or no right to: it is a courtesy
