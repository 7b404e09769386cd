"""
What a test left behind: threads, open descriptors, processes.

Processes are found twice: as descendants of this one, and by a mark in their environment, so that
a grandchild whose parent is gone (and that therefore belongs to init) is found as well.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import traceback
import uuid
from typing import TYPE_CHECKING, NamedTuple

from tests.support.scale import scaled
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import psutil

__all__ = [
    "MARK",
    "Snapshot",
    "describe",
    "leaked",
    "marked_processes",
    "set_mark",
    "snapshot",
    "warm_up",
]

MARK = "REMOTE_EXECUTOR_TEST_MARK"
SETTLE = 5.0


class Snapshot(NamedTuple):
    """What this process has: threads, descriptors and processes."""

    threads: dict[threading.Thread, str]
    descriptors: dict[tuple[int, str], str]
    processes: dict[tuple[int, float], psutil.Process]


def set_mark() -> None:
    """Mark all processes that this one starts from now on, and those that they start."""
    os.environ[MARK] = uuid.uuid4().hex


def warm_up() -> None:
    """
    Start what multiprocessing keeps for the life of a process.

    Its resource tracker and its fork server are nobody's leak.
    """
    if sys.platform == "linux":
        from multiprocessing import forkserver, resource_tracker

        resource_tracker.ensure_running()
        forkserver.ensure_running()


def marked_processes() -> set[int]:
    """Return the pids of all living processes that carry our mark, without this one."""
    if not os.path.isdir("/proc/self"):
        return set()
    mark = f"{MARK}={os.environ.get(MARK)}".encode()
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    environment = file.read()
            except OSError:  # gone, or another user's
                continue
            if mark in environment.split(b"\0"):
                found.add(int(name))
    return found


def snapshot() -> Snapshot:
    """Return what there is now."""
    threads = {thread: repr(thread) for thread in threading.enumerate()}
    return Snapshot(threads, _descriptors(), _processes())


def leaked(before: Snapshot, settle: float = SETTLE) -> list[str]:
    """
    Return a line for each thing that is here now, was not before, and does not go away.

    Args:
        before: What there was when the test began.
        settle: Seconds to wait for it to go, before scaling.
    """
    lines = _news(before)
    if lines:
        # A dropped executor may hang in a cycle: it is garbage, not a leak.
        gc.collect()
        try:
            wait_until(lambda: not _news(before), timeout=settle)
        except AssertionError:
            lines = _news(before, stacks=True)
        else:
            lines = []
    return lines


def _news(before: Snapshot, stacks: bool = False) -> list[str]:
    now = snapshot()
    lines = [
        f"thread {words}" + (_stack(thread) if stacks else "")
        for thread, words in now.threads.items()
        if thread not in before.threads
    ]
    lines += [
        f"descriptor {words}"
        for key, words in now.descriptors.items()
        if key not in before.descriptors
    ]
    lines += [
        f"process {_words(process)}"
        for key, process in now.processes.items()
        if key not in before.processes
    ]
    return lines


def _stack(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None:
        return ""
    return ", which stands at\n" + "".join(traceback.format_stack(frame)[-4:]).rstrip()


def _descriptors() -> dict[tuple[int, str], str]:
    found = {}
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return {}
    for name in names:
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the descriptor that read the folder
            continue
        found[int(name), target] = f"{name} -> {target}"
    return found


def _processes() -> dict[tuple[int, float], psutil.Process]:
    import psutil

    found = {}
    for pid in _descendants(os.getpid()) | marked_processes():
        try:
            process = psutil.Process(pid)
            found[pid, process.create_time()] = process
        except psutil.NoSuchProcess:
            continue
    return found


def _descendants(pid: int) -> set[int]:
    """Return the pids of a process's children and of theirs; dead ones have no mark any more."""
    import psutil

    found: set[int] = set()
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        for thread in threads:
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                found.update(map(int, file.read().split()))
    except OSError:
        if os.path.isdir("/proc/self/task"):
            return found  # it has just ended
        return {process.pid for process in psutil.Process(pid).children(recursive=True)}
    for child in list(found):
        found |= _descendants(child)
    return found


def _words(process: psutil.Process) -> str:
    import psutil

    try:
        with process.oneshot():
            age = time.time() - process.create_time()
            zombie = process.status() == psutil.STATUS_ZOMBIE
            command = process.name() if zombie else " ".join(process.cmdline()) or process.name()
            return (
                f"{process.pid} ({process.status()}, parent {process.ppid()}, {age:.1f} s old): "
                f"{command[:200]}"
            )
    except psutil.Error:
        return f"{process.pid} (just ended)"


def describe(lines: list[str]) -> str:
    """Return the words of a failure for what :func:`leaked` found."""
    waited = f"{scaled(SETTLE):g} s after its end"
    return f"{waited} the test had left behind:\n  " + "\n  ".join(lines)
