"""Workers, and the threads in them, are as many as the cores that the program may use."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from remote_executor import server_status
from remote_executor.cores import THREAD_VARIABLES, usable_cores
from tests.integration.conftest import environment
from tests.support.waiting import wait_until

PROGRAM = """
import json, os, sys
from remote_executor import FarmExecutor, server_status, start_server

def threads():
    return {name: value for name, value in os.environ.items() if name.endswith("_THREADS")}

if __name__ == "__main__":
    with FarmExecutor(*map(int, sys.argv[1:])) as executor, start_server() as server:
        print(json.dumps({
            "workers": len(executor.broadcast(os.getpid)),
            "said": executor._max_workers,
            "threads": executor.submit(threads).result(),
            "server": server_status(server.address)["slots"],
        }))
"""

ALONE = {name: value for name, value in environment().items() if name not in THREAD_VARIABLES}
ALONE.pop("PYTHON_CPU_COUNT", None)


def count(*before, args=(), flags=(), **variables):
    """Run the program after these words, and return what it has found."""
    done = subprocess.run(
        [*before, sys.executable, *flags, "-c", PROGRAM, *args],
        env={**ALONE, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_cores(found, cores, threads=1):
    assert (found["workers"], found["said"], found["server"]) == (cores, cores, cores)
    assert found["threads"] == dict.fromkeys(
        [name for name in THREAD_VARIABLES if name.endswith("_THREADS")], str(threads)
    )


@pytest.mark.linux("processes have an affinity")
def test_affinity_counts_for_workers_servers_and_threads(require):
    require("taskset", "Debian's package util-linux")
    first = str(min(os.sched_getaffinity(0)))

    assert_cores(count("taskset", "-c", first), 1)


def test_python_cpu_count_counts_for_workers_servers_and_threads():
    assert_cores(count(PYTHON_CPU_COUNT="3"), 3)


def test_the_flag_cpu_count_reaches_the_servers_that_we_start():
    assert_cores(count(flags=["-X", "cpu_count=3"]), 3)


def test_fewer_workers_than_cores_share_them():
    found = count(args=["2"], PYTHON_CPU_COUNT="7")

    assert found["workers"] == 2
    assert set(found["threads"].values()) == {"3"}


def test_thread_limits_of_the_user_stay():
    found = count(PYTHON_CPU_COUNT="2", OMP_NUM_THREADS="5", MKL_NUM_THREADS="4")

    assert found["threads"].pop("MKL_NUM_THREADS") == "4"
    assert set(found["threads"].values()) == {"5"}


@contextlib.contextmanager
def group(percent):
    """Make a control group with a quota, and yield the words that run a command in it."""
    name = f"remote-executor-{os.getpid()}"
    one, two = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
    folder = (one if (one / "cpu.cfs_quota_us").exists() else two) / name
    try:
        folder.mkdir()
    except OSError as exc:
        # Nothing is missing, so this is no failure in any case: not every machine allows it.
        pytest.skip(f"no right to make control groups ({exc})")
    try:
        try:
            if folder.parent == one:
                (folder / "cpu.cfs_quota_us").write_text(str(percent * 1000))
            else:
                (folder / "cpu.max").write_text(f"{percent * 1000} 100000")
        except OSError as exc:
            pytest.skip(f"control groups have no quotas here ({exc})")
        yield "sh", "-c", f'echo $$ >{folder}/cgroup.procs && exec "$@"', "sh"
    finally:

        def is_removed():
            # Its last process may just be ending.
            with contextlib.suppress(OSError):
                folder.rmdir()
            return not folder.exists()

        wait_until(is_removed, 10, "an empty control group")


@pytest.mark.linux("control groups")
@pytest.mark.skipif(usable_cores() < 2, reason="a quota below the cores needs two of them")
def test_quota_of_a_control_group_counts_for_workers_servers_and_threads():
    with group(percent=100) as words:
        assert_cores(count(*words), 1)


def test_served_slots_are_the_cores(serve):
    server = serve(workers=None, env={**ALONE, "PYTHON_CPU_COUNT": "3"})

    assert server_status(server.address)["slots"] == 3
