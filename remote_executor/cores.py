"""
How many cores this process may use, counted in one place for all who ask.

The answer is the default for the number of workers everywhere, and decides how many threads the
numerical libraries of each worker start. The first of these that says something counts:

1. ``python -X cpu_count=N`` and ``PYTHON_CPU_COUNT=N``, as in Python 3.13, on every version;
2. the least of the affinity (``taskset``, ``cpuset``) and the quotas of the control groups that the
   process is in (``docker run --cpus``, Kubernetes' limits, systemd's ``CPUQuota=``);
3. the cores of the machine.

A quota of one and a half cores counts as two: the half is used as well.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["THREAD_VARIABLES", "quota", "thread_limits", "usable_cores"]

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
"""What numerical libraries read when they are loaded: so many threads, instead of one a core."""


def usable_cores() -> int:
    """Return how many cores this process may use, at least 1."""
    chosen = _chosen(sys._xoptions.get("cpu_count"))
    if chosen is None and not sys.flags.ignore_environment:
        chosen = _chosen(os.environ.get("PYTHON_CPU_COUNT"))
    if chosen is not None:
        return chosen
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    cores = 0
    try:
        if affinity is not None:  # macOS has none
            cores = len(affinity(0))
    except OSError:  # a sandbox refuses it
        pass
    cores = cores or os.cpu_count() or 1
    allowed = quota()
    return max(1, cores if allowed is None else min(cores, allowed))


def thread_limits(environ: Mapping[str, str], workers: int, cores: int) -> dict[str, str]:
    """
    Return the variables that keep the workers' threads from outnumbering the cores.

    A variable that is set already is left alone. ``OMP_NUM_THREADS``, where it is set, counts for
    the others too, since most libraries read it in their place.

    Args:
        environ: The environment that the workers inherit.
        workers: How many of them run tasks at a time.
        cores: How many cores they may use together.
    """
    limit = str(max(1, cores // max(1, workers)))
    # "4,2" is 4 threads, each of which may start 2 of its own.
    limit = environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip() or limit
    return {name: limit for name in THREAD_VARIABLES if not environ.get(name)}


def quota(root: str = "") -> int | None:
    """
    Return how many cores the quotas of this process's control groups come to, rounded up.

    Args:
        root: What stands before ``/proc`` and ``/sys``; for tests.

    Returns:
        None if there is no quota, or none can be read.
    """
    found = [
        cores
        for folder, top, version in _groups(root)
        for cores in _quotas(folder, top, version)
        if cores is not None
    ]
    return min(found, default=None)


def _chosen(text: object) -> int | None:
    """Return the number that the user has set, if it is one."""
    if not isinstance(text, str) or not text.strip().isdecimal():
        return None  # not set, or "default"
    return int(text) or None


def _groups(root: str) -> Iterator[tuple[str, str, int]]:
    """
    Find the folders of the control groups that may have a quota.

    Returns:
        Folder, the topmost one above it that can be seen, and the version of control groups.
    """
    paths: dict[str, str] = {}
    """The process's own group, by controller; "" for version 2, which has one for all."""
    for line in _lines(f"{root}/proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths.update(dict.fromkeys(controllers.split(","), path))
    mounted = False
    for line in _lines(f"{root}/proc/self/mountinfo"):
        # 35 25 0:30 /docker/1 /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kinds) < 3:
            continue
        top, place = _unescaped(fields[3]), f"{root}{_unescaped(fields[4])}"
        if kinds[0] == "cgroup2" and "" in paths:
            mounted = True
            yield _below(place, top, paths[""]), place, 2
        elif kinds[0] == "cgroup" and "cpu" in kinds[2].split(",") and "cpu" in paths:
            mounted = True
            yield _below(place, top, paths["cpu"]), place, 1
    if not mounted:
        # No /proc: these are the usual places, and what is on top there is ours in a container.
        place = f"{root}/sys/fs/cgroup"
        yield place, place, 2
        yield f"{place}/cpu", f"{place}/cpu", 1


def _below(place: str, top: str, path: str) -> str:
    """
    Return where a group's folder is.

    Args:
        place: Where the hierarchy is mounted.
        top: The group that is to be seen there; "/" is the topmost.
        path: The process's own group.
    """
    if top != "/":
        if path != top and not path.startswith(f"{top}/"):
            return place  # it is not below what we can see; containers mount their own group
        path = path[len(top) :]
    if "/.." in path:
        return place
    return f"{place}/{path.strip('/')}".rstrip("/")


def _quotas(folder: str, top: str, version: int) -> Iterator[int | None]:
    """Read the quota of a group and of each that it is in: the least of them counts."""
    while True:
        yield _quota_2(folder) if version == 2 else _quota_1(folder)
        if folder == top or not folder.startswith(top):
            return
        folder = os.path.dirname(folder)


def _quota_2(folder: str) -> int | None:
    words = _words(f"{folder}/cpu.max")  # "max 100000", or "150000 100000"
    return _cores(*words) if len(words) == 2 else None


def _quota_1(folder: str) -> int | None:
    words = _words(f"{folder}/cpu.cfs_quota_us")  # -1 is none
    return _cores(*words, *_words(f"{folder}/cpu.cfs_period_us")) if len(words) == 1 else None


def _cores(used: str = "", period: str = "") -> int | None:
    if not used.isdecimal() or not period.isdecimal() or not int(used) or not int(period):
        return None
    return -(-int(used) // int(period))


def _words(path: str) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: str) -> list[str]:
    """Return a file's lines, none if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _unescaped(field: str) -> str:
    """Return a path as mountinfo means it: blanks are written as octal numbers there."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field
