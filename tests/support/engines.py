"""
The executors on which the same tests run: ours, the standard library's, and those of other engines.

Each function gives a block with a running executor of two workers. The engines of others are used
where they are installed, and REMOTE_EXECUTOR_TEST_ENGINES=dask,mpi4py insists. They open
connections and start threads as they see fit, also in the middle of a test: ``PARAMS`` has them
with a mark that spares them the leak check.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from remote_executor import FarmExecutor
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.tools import missing, require, require_module

__all__ = [
    "ENGINES",
    "OTHERS",
    "PARAMS",
    "Engine",
    "dask",
    "farm",
    "mpi4py",
    "processes",
    "ray",
    "threads",
]

ROOT = str(Path(__file__).parents[2])
EXTRA = "pip install -e '.[dask,mpi]'"

Engine = Callable[[], AbstractContextManager[futures.Executor]]


@contextlib.contextmanager
def threads() -> Iterator[futures.Executor]:
    """Give a thread pool."""
    with futures.ThreadPoolExecutor(2) as executor:
        yield _warmed_up(executor)


@contextlib.contextmanager
def processes() -> Iterator[futures.Executor]:
    """Give a process pool."""
    spawn = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(2, mp_context=spawn) as executor:
        yield _warmed_up(executor)


@contextlib.contextmanager
def farm() -> Iterator[futures.Executor]:
    """Give an executor of ours with a server of its own."""
    with FarmExecutor(2) as executor:
        yield _warmed_up(executor)


@contextlib.contextmanager
def dask() -> Iterator[futures.Executor]:
    """
    Give the executor of a Dask client, with a scheduler in this process and two worker processes.

    Dask keeps threads of its own for the life of the process.
    """
    config = require_module("dask", EXTRA).config
    distributed = require_module("distributed", EXTRA)
    quiet = {
        # Nothing is slow enough here to be worth a line on a busy machine.
        "distributed.admin.tick.limit": "1h",
        "distributed.comm.timeouts.connect": f"{scaled(30):g}s",
    }
    with config.set(quiet):
        with distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # not its usual port: other tests run, too
            silence_logs=logging.CRITICAL,
        ) as cluster:
            with distributed.Client(cluster, set_as_default=False) as client:
                with client.get_executor() as executor:
                    yield _warmed_up(executor)


@contextlib.contextmanager
def mpi4py() -> Iterator[futures.Executor]:
    """
    Give an MPI pool, with two processes that this one starts; no ``mpiexec`` is needed.

    MPI can be started once in a process. Its ``orted`` lives, and its descriptors stay open, as
    long as this process.
    """
    require_module("mpi4py", EXTRA)
    require("orted", "apt-get install openmpi-bin")
    here = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",  # also on a machine of one core
        # This host only, and nothing but its loopback interface. Open MPI's shared memory does not
        # reach processes that were started later.
        "OMPI_MCA_plm": "isolated",
        "OMPI_MCA_btl": "self,tcp",
        "OMPI_MCA_btl_tcp_if_include": "lo",
        "OMPI_MCA_oob_tcp_if_include": "lo",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in here.items():
            patch.setenv(name, value)
        try:
            from mpi4py.futures import MPIPoolExecutor
        except RuntimeError as exc:  # a wheel finds no library of MPI
            missing("libmpi", f"apt-get install openmpi-bin: {exc}")
        with MPIPoolExecutor(2, main=False, path=[ROOT]) as executor:
            yield _warmed_up(executor)


@contextlib.contextmanager
def ray() -> Iterator[futures.Executor]:
    """
    Give an executor on a Ray cluster that is this machine.

    Ray is large, and nobody asks for it: not even REMOTE_EXECUTOR_REQUIRE_ALL=1.
    """
    library: Any = pytest.importorskip("ray", reason="Ray is not installed (pip install ray)")
    from remote_executor.adapters.ray import RayExecutor

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of the next release
        library.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            configure_logging=False,
            _node_ip_address="127.0.0.1",
        )
        try:
            with RayExecutor() as executor:
                yield _warmed_up(executor)
        finally:
            library.shutdown()


ENGINES: dict[str, Engine] = {
    "threads": threads,
    "processes": processes,
    "farm": farm,
    "dask": dask,
    "mpi4py": mpi4py,
    "ray": ray,
}

OTHERS = {"dask": "distributed", "mpi4py": "mpi4py", "ray": "ray"}
"""The engines of others, and which module each needs."""

WANTED = set(filter(None, os.environ.get("REMOTE_EXECUTOR_TEST_ENGINES", "").split(",")))
"""Those that must be there; the rest is used where it is installed."""

HERE = [
    name
    for name in ENGINES
    if name not in OTHERS or name in WANTED or importlib.util.find_spec(OTHERS[name]) is not None
]

PARAMS = [
    pytest.param(
        name,
        id=name,
        marks=()
        if name not in OTHERS
        else pytest.mark.no_leak_check(f"{name} opens connections as it sees fit"),
    )
    for name in HERE
]
"""The names of the engines that are here, for ``params=`` and ``parametrize``."""


def _warmed_up(executor: futures.Executor) -> futures.Executor:
    """Return it once both of its workers have run tasks, of a large argument and result too."""
    calls = [executor.submit(tasks.nap, 0.1 + n / 1000, bytes(3_000_000)) for n in range(4)]
    done = futures.wait(calls, scaled(30)).done
    assert len(done) == len(calls), f"{executor} does not run tasks"
    for each in done:
        each.result()
    return executor
