"""
How much memory workers take, and what follows when that is too much.

A limit of the server's is one that no task may pass: its worker is killed, before the system kills
somebody else's process. A limit of a client's says when a worker has grown too large to be used
again: it is replaced once its task is done. What counts is what a worker has for itself: pages that
it shares with the process it was forked from, and arrays in shared memory, do not.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from remote_executor.core.pool import WorkerState

if TYPE_CHECKING:
    from remote_executor.server.context import Context
    from remote_executor.server.processes import Processes
    from remote_executor.server.workers import WorkerProcess

__all__ = ["KilledForMemory", "MemoryWatch", "own_memory", "size_words"]

PERIOD = 0.25
"""Seconds between two looks. At 4 GB a second of fresh memory that is 1 GB above the limit."""

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def own_memory(pid: int) -> int:
    """Return the bytes that a process has for itself; 0 where that cannot be told."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = map(int, file.read().split())
    except (OSError, ValueError):  # no /proc, or it has just ended
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def size_words(size: float) -> str:
    """Return a number of bytes as people write it."""
    unit = 0
    while size >= 1024 and unit < len(UNITS) - 1:
        size /= 1024
        unit += 1
    return f"{size:.3g} {UNITS[unit]}" if unit else f"{size:.0f} bytes"


class KilledForMemory:
    """
    Tells whether the system has killed something here for want of memory.

    Args:
        group: The folder of this process's control group, as far as it can be seen.
    """

    __slots__ = ("_path", "_seen")

    def __init__(self, group: str = "") -> None:
        paths = [f"{group}/memory.events"] if group else _paths()
        self._path = next(filter(os.path.exists, paths), "")
        self._seen = self._count()

    def _count(self) -> int:
        try:
            with open(self._path, encoding="ascii") as file:
                for line in file:
                    name, _, number = line.partition(" ")
                    if name == "oom_kill":
                        return int(number)
        except (OSError, ValueError):
            pass
        return 0

    def look(self) -> bool:
        """Return whether it has since the last time."""
        seen, self._seen = self._seen, self._count()
        return self._seen > seen


def _paths() -> list[str]:
    """Return where the number of killed processes may stand: of our control group, or of all."""
    found = []
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            for line in file:
                number, _, path = line.rstrip("\n").split(":", 2)
                if number == "0":
                    found.append(f"/sys/fs/cgroup{path}/memory.events")
    except (OSError, ValueError):
        pass
    return [*found, "/sys/fs/cgroup/memory.events", "/proc/vmstat"]


class MemoryWatch:
    """
    Looks at workers while there are any, if there is a limit.

    Args:
        context: The server's.
        processes: The workers.
        limit: Bytes that a worker may have for itself; None for as many as it gets.
    """

    __slots__ = ("_context", "_killed", "_limit", "_processes", "_timer")

    def __init__(self, context: Context, processes: Processes, limit: int | None) -> None:
        self._context = context
        self._processes = processes
        self._limit = limit
        self._killed = KilledForMemory()
        self._timer = context.loop.timer(self._look)

    def attached(self) -> None:
        """A client has come: its workers are watched, if there is a limit for them."""
        if self._timer.when is None and self._is_wanted():
            self._timer.at(self._context.loop.now + PERIOD)

    def _is_wanted(self) -> bool:
        sessions = self._context.sessions.values()
        return any(self._limit or client.memory_per_worker for client in sessions)

    def _look(self, now: float) -> None:
        for process in list(self._processes.by_pid.values()):
            client = self._context.clients[process.pool.session]
            used = own_memory(process.pid)
            if self._limit is not None and used > self._limit:
                process.why = (
                    f"it had {size_words(used)} of memory, and a worker of this server may have "
                    f"{size_words(self._limit)}"
                )
                self._context.log.write("warning", f"! worker {process.pid}: {process.why}")
                self._processes.kill(process)
            elif (
                client.memory_per_worker is not None
                and used > client.memory_per_worker
                and process.pool.state in (WorkerState.BUSY, WorkerState.IDLE)
                and self._context.pool.replace(process.pool)
            ):
                self._processes.stop(process.pool)
        if self._is_wanted():
            self._timer.at(now + PERIOD)

    def why_it_died(self, process: WorkerProcess, status: int | None) -> str:
        """Return what is known of why a worker has ended, beyond its exit code; "" if nothing."""
        killed = self._killed.look()
        if not process.why and killed and status == -9 and not process.killed:
            return "the system has killed a process for want of memory at that moment"
        return process.why
