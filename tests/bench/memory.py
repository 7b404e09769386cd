"""How much memory processes take, as Linux tells it."""

from __future__ import annotations

import mmap
import os

__all__ = ["MARK", "marked_memory", "marked_pss", "peak_rss", "reset_peak", "rss", "touch"]

MARK = "REMOTE_EXECUTOR_BENCH_MARK"


def touch(size: int) -> None:
    """
    Write once to each page of so much memory, and give it back.

    On many virtual machines the first touch of a page since boot is far slower than the later
    ones; whoever came first would pay for all.

    Args:
        size: Bytes; at most 60 % of what is free is touched.
    """
    size = min(size, 6 * _field("/proc/meminfo", "MemAvailable") // 10)
    with mmap.mmap(-1, size) as memory:
        page = b"\1" * (1 << 20)
        for start in range(0, size - len(page) + 1, len(page)):
            memory[start : start + len(page)] = page


def marked_pss() -> int:
    """
    Return the proportional set size in bytes of this process and of all that it started.

    They are found by the mark in their environment, so those count whose parent is gone as well.
    """
    mark = f"{MARK}={os.environ[MARK]}".encode()
    total = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    ours = mark in file.read().split(b"\0")
                if ours:
                    total += _field(f"/proc/{name}/smaps_rollup", "Pss")
            except OSError:  # ended meanwhile, or somebody else's
                continue
    return total


def marked_memory(without: int) -> int:
    """
    Return the bytes that the processes we started take: their own, and all that is in memory files.

    A memory file counts once and whole, also if nobody has mapped it.

    Args:
        without: A process that does not count, but for files that it shares with others.
    """
    mark = f"{MARK}={os.environ[MARK]}".encode()
    total = 0
    files: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != without:
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    ours = mark in file.read().split(b"\0")
                if ours:
                    total += _field(f"/proc/{name}/smaps_rollup", "Pss_Anon")
                    files.update(_memory_files(name))
            except OSError:  # ended meanwhile, or somebody else's
                continue
    return total + sum(files.values())


def _memory_files(pid: str) -> dict[int, int]:
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        if os.readlink(path).startswith("/memfd:"):
            status = os.stat(path)
            found[status.st_ino] = status.st_blocks * 512
    return found


def rss() -> int:
    """Return this process' resident memory in bytes."""
    return _field("/proc/self/status", "VmRSS")


def reset_peak() -> None:
    """Let the peak begin anew."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def peak_rss() -> int:
    """Return the largest resident memory in bytes since :func:`reset_peak`."""
    return _field("/proc/self/status", "VmHWM")


def _field(path: str, name: str) -> int:
    with open(path) as file:
        for line in file:
            key, _, rest = line.partition(":")
            if key == name:
                return int(rest.split()[0]) * 1024
    raise LookupError(f"no {name} in {path}")
