"""What one user's task may try at a server that others use as well; workers import this module."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["environment_of", "finds", "look_into", "parent"]


def parent() -> int:
    """Return the process that has made this worker."""
    return os.getppid()


def look_into(pid: int) -> list[str]:
    """Return which ways into another process are open."""
    found = []
    for name, mode in (("mem", "r+b"), ("environ", "rb"), ("maps", "rb"), ("pagemap", "rb")):
        try:
            with open(f"/proc/{pid}/{name}", mode, buffering=0) as file:
                file.read(1) if name != "mem" else None
            found.append(name)
        except OSError:
            pass
    try:
        os.listdir(f"/proc/{pid}/fd")
        found.append("fd")
    except OSError:
        pass
    return found


def environment_of() -> tuple[dict[str, str], bytes]:
    """Return this process's variables, and those that it began with."""
    try:
        began = Path("/proc/self/environ").read_bytes()
    except OSError:
        began = b""
    return dict(os.environ), began


def finds(first: str, second: str) -> bool:
    """
    Look for a secret in all memory of this process.

    Args:
        first: Its first half. The whole never is in memory because of us.
        second: The rest.
    """
    before, after = first.encode(), second.encode()
    for line in Path("/proc/self/maps").read_text().splitlines():
        words = line.split()
        if "r" not in words[1] or words[-1] in ("[vvar]", "[vsyscall]", "[vdso]"):
            continue
        start, end = (int(part, 16) for part in words[0].split("-"))
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            memory.seek(start)
            try:
                data = memory.read(end - start)
            except OSError:
                continue
        at = data.find(before)
        while at >= 0:
            if data[at + len(before) : at + len(before) + len(after)] == after:
                return True
            at = data.find(before, at + 1)
    return False
