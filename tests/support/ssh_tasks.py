"""Tasks of the tests over SSH. Hosts there have no pytest, so they stand apart from the tests."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

__all__ = ["append_and_nap", "stay_and_leave", "stay_the_first_time"]


def stay_and_leave(path: str) -> None:
    """Start a process that leaves its group, write its pid to `path`, and stay."""
    child = subprocess.Popen(["sleep", "100"], start_new_session=True)
    Path(path).write_text(str(child.pid))
    child.wait()


def append_and_nap(path: str, line: int, seconds: float) -> int:
    """Add a line to a file, wait, and return the line."""
    with open(path, "a") as file:
        file.write(f"{line}\n")
    time.sleep(seconds)
    return line


def stay_the_first_time(path: str) -> str:
    """Make a file and stay; if it is there already, return at once."""
    if os.path.exists(path):
        return "again"
    open(path, "w").close()
    time.sleep(30)
    return "done"
