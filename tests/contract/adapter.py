"""
Run CPython's own tests of ``concurrent.futures`` on another executor.

CPython keeps them in ``test.test_concurrent_futures``: one module up to 3.11, a package of several
since 3.12. Their classes are mixins that read ``self.executor_type``; :func:`build` finds them in
either layout and joins them to an executor. What differs by design is in :data:`DIFFERENCES`, each
with its reason and, where our meaning is another one, with the name of our own test of it in
``test_differences.py``.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import importlib.util
import os
import sys
import tempfile
import unittest
import unittest.mock
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.support.scale import scaled
from tests.support.tools import REQUIRE_ALL, missing

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "test.test_concurrent_futures"
#: The modules of the package since 3.12; before, everything is in the package itself.
PARTS = (
    "executor",
    "util",
    "test_as_completed",
    "test_deadlock",
    "test_init",
    "test_process_pool",
    "test_shutdown",
    "test_wait",
)
#: The classes of tests that an executor of processes has to pass.
SUITES = (
    "AsCompletedTests",
    "ExecutorDeadlockTest",
    "FailingInitializerMixin",
    "InitializerMixin",
    "ProcessPoolExecutorTest",
    "ProcessPoolShutdownTest",
    "WaitTests",
)


@dataclass(frozen=True)
class Difference:
    """
    A case of CPython's that is left out.

    Attributes:
        reason: Why.
        ours: Our test of our own meaning, in ``test_differences.py``; empty if nothing is to test.
        since: The first version that is sure to have the case; None if patch releases differ.
        until: The first version that is sure not to have it any more.
    """

    reason: str
    ours: str = ""
    since: tuple[int, int] | None = (3, 10)
    until: tuple[int, int] | None = None

    def expected(self, version: tuple[int, int]) -> bool:
        """Tell whether the tests of this Python version must have the case."""
        if self.since is None or version < self.since:
            return False
        return self.until is None or version < self.until


_PROCESSES = "it counts ProcessPoolExecutor's private _processes"
_MANAGER = "it joins ProcessPoolExecutor's private _executor_manager_thread and _call_queue"
_ALONE = "what cannot be unpickled fails its own future and breaks nothing"
_MOCKS = "it replaces private parts of ProcessPoolExecutor"

DIFFERENCES: dict[str, Difference] = {
    # -- a dead worker does not break the executor
    "ProcessPoolExecutorTest.test_killed_child": Difference(
        "a dead worker fails its own task; the executor takes new ones (and " + _PROCESSES + ")",
        "test_killed_worker_fails_its_own_task_only",
    ),
    "ProcessPoolExecutorTest.test_broken_process_pool_traceback": Difference(
        "a dead worker fails its own task only (and " + _PROCESSES + ")",
        "test_killed_workers_raise_an_error_of_their_own_each",
        since=None,
    ),
    "ProcessPoolExecutorTest.test_traceback_when_child_process_terminates_abruptly": Difference(
        "WorkerDied tells the exit code in its fields and words, not in a cause",
        "test_dead_worker_tells_its_exit_code",
        since=None,
    ),
    # -- pickles that cannot be read
    "ExecutorDeadlockTest.test_error_at_task_unpickle": Difference(
        _ALONE, "test_argument_that_raises_at_unpickle"
    ),
    "ExecutorDeadlockTest.test_exit_at_task_unpickle": Difference(
        _ALONE, "test_argument_that_exits_at_unpickle"
    ),
    "ExecutorDeadlockTest.test_error_during_result_unpickle_in_result_handler": Difference(
        _ALONE, "test_result_that_raises_at_unpickle"
    ),
    "ExecutorDeadlockTest.test_exit_during_result_unpickle_in_result_handler": Difference(
        _ALONE, "test_result_that_exits_at_unpickle"
    ),
    # -- timing
    "ProcessPoolShutdownTest.test_cancel_futures": Difference(
        "it takes for granted that a task has begun as soon as submit returns: ours may cancel all",
        "test_cancel_futures_spares_what_has_begun",
    ),
    # -- private attributes and threads
    "ExecutorDeadlockTest.test_shutdown_deadlock_pickle": Difference(
        _MANAGER, "test_shutdown_without_waiting_after_a_failed_pickle"
    ),
    "ExecutorDeadlockTest.test_gh105829_should_not_deadlock_if_wakeup_pipe_full": Difference(
        _MOCKS, "test_thousands_of_submits_from_many_threads", since=(3, 13)
    ),
    "ProcessPoolExecutorTest.test_saturation": Difference(
        _PROCESSES + " and passes semaphores by inheritance", "test_saturation"
    ),
    "ProcessPoolExecutorTest.test_idle_process_reuse_one": Difference(
        _PROCESSES, "test_idle_workers_are_used_again"
    ),
    "ProcessPoolExecutorTest.test_idle_process_reuse_multiple": Difference(
        _PROCESSES, "test_idle_workers_are_used_again"
    ),
    "ProcessPoolExecutorTest.test_max_tasks_per_child": Difference(
        _PROCESSES, "test_max_tasks_per_child", since=(3, 11)
    ),
    "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": Difference(
        "it reads the private _mp_context; our workers never fork from the client",
        since=(3, 11),
    ),
    "ProcessPoolExecutorTest.test_python_finalization_error": Difference(
        "it makes the second thread of ProcessPoolExecutor fail to start", since=(3, 13)
    ),
    "ProcessPoolExecutorTest.test_max_workers_too_large": Difference(
        "a limit of ProcessPoolExecutor on Windows"
    ),
    "ProcessPoolShutdownTest.test_processes_terminate": Difference(
        _PROCESSES + " and passes semaphores by inheritance", "test_processes_terminate"
    ),
    "ProcessPoolShutdownTest.test_context_manager_shutdown": Difference(
        "it makes a ProcessPoolExecutor", "test_processes_terminate"
    ),
    "ProcessPoolShutdownTest.test_del_shutdown": Difference(
        "it makes a ProcessPoolExecutor", "test_del_shutdown"
    ),
    "ProcessPoolShutdownTest.test_shutdown_no_wait": Difference(
        "it makes a ProcessPoolExecutor", "test_shutdown_no_wait"
    ),
    "ProcessPoolShutdownTest.test_shutdown_gh_132969_case_1": Difference(
        "it makes a ProcessPoolExecutor", "test_shutdown_no_wait", since=None
    ),
    "ProcessPoolShutdownTest.test_shutdown_gh_132969_case_2": Difference(
        "it makes a ProcessPoolExecutor", "test_shutdown_no_wait", since=None
    ),
    # -- Python 3.14 and later
    "ProcessPoolExecutorTest.test_terminate_workers": Difference(
        _MOCKS, "test_terminate_and_kill_workers", since=(3, 14)
    ),
    "ProcessPoolExecutorTest.test_kill_workers": Difference(
        _MOCKS, "test_terminate_and_kill_workers", since=(3, 14)
    ),
    "ProcessPoolExecutorTest.test_force_shutdown_workers": Difference(
        _PROCESSES, "test_terminate_and_kill_workers", since=(3, 14)
    ),
    "ProcessPoolExecutorTest.test_force_shutdown_workers_invalid_op": Difference(
        _MOCKS, since=(3, 14)
    ),
    "ProcessPoolExecutorTest.test_force_shutdown_workers_not_started_yet": Difference(
        _MOCKS, "test_terminate_and_kill_workers", since=(3, 14)
    ),
    "ProcessPoolExecutorTest.test_force_shutdown_workers_stops_pool": Difference(
        _PROCESSES, "test_terminate_and_kill_workers", since=(3, 14)
    ),
    "ProcessPoolExecutorTest.test_sysconf_permission_error": Difference(
        "it makes a ProcessPoolExecutor", since=None
    ),
    "ProcessPoolExecutorTest.test_shutdown_no_wait_max_tasks_gh119592": Difference(
        _MANAGER, "test_shutdown_no_wait", since=None
    ),
    "ProcessPoolExecutorTest.test_gc_during_max_tasks_worker_exit_gh152967": Difference(
        _MANAGER, "test_del_shutdown", since=None
    ),
    "ProcessPoolExecutorTest.test_force_shutdown_during_max_tasks_worker_exit": Difference(
        _MOCKS, since=None
    ),
    "ProcessPoolExecutorTest.test_failed_worker_replacement_breaks_pool": Difference(
        _MOCKS, since=None
    ),
}


_SLEEPS = "slow, runs with REMOTE_EXECUTOR_REQUIRE_ALL=1; test_three_executors.py has it shorter"
#: Cases that sleep for seconds.
SLOW = {
    "ProcessPoolExecutorTest.test_map_timeout": _SLEEPS,
    "WaitTests.test_first_exception": _SLEEPS,
    "WaitTests.test_timeout": _SLEEPS,
}


def find() -> dict[str, ModuleType]:
    """
    Return the modules that hold CPython's test classes, by the class's name.

    An interpreter without them (Debian keeps them in a package of their own) gives an empty dict.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        return {}
    package = importlib.import_module(PACKAGE)
    modules = [package]
    if hasattr(package, "__path__"):
        modules = [importlib.import_module(f"{PACKAGE}.{part}") for part in PARTS]
    names = (*SUITES, "ExecutorMixin")
    return {
        name: module
        for module in modules
        for name, value in vars(module).items()
        if name in names and value.__module__ == module.__name__
    }


def require_tests() -> dict[str, ModuleType]:
    """Return what :func:`find` does, or skip the module, naming what is missing."""
    found = find()
    if not found:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        missing(f"{PACKAGE} of Python {version}", f"Debian: libpython{version}-testsuite")
    return found


def cases(found: dict[str, ModuleType]) -> set[str]:
    """Return the names of all cases in the suites, as ``Suite.test_name``."""
    return {
        f"{suite}.{name}"
        for suite in SUITES
        for name in dir(getattr(found[suite], suite))
        if name.startswith("test_")
    }


def build(
    found: dict[str, ModuleType],
    executor_type: type[Executor],
    home: str,
    module: str,
    differences: dict[str, Difference] = DIFFERENCES,
    context: str = "spawn",
) -> dict[str, type[unittest.TestCase]]:
    """
    Join CPython's test classes to an executor.

    Args:
        found: What :func:`find` returned.
        executor_type: The class to test; its positional parameters are ProcessPoolExecutor's.
        home: The module to import the executor from in a script, such as ``concurrent.futures``.
        module: The module whose namespace the classes are put into: tasks find them there.
        differences: The cases to skip.
        context: The start method of the ``mp_context`` that some cases pass on.

    Returns:
        The classes by name, to be put into the namespace of `module`.
    """
    classes: dict[str, type[unittest.TestCase]] = {}
    for suite in SUITES:
        tests = getattr(found[suite], suite)
        mixin = getattr(found["ExecutorMixin"], "ExecutorMixin")  # noqa: B009
        extras = _extras(found[suite], executor_type, home, context)
        own = (extras.get(suite, _Plain),)
        between = () if issubclass(tests, mixin) else (mixin,)
        body: dict[str, Any] = {
            "executor_type": executor_type,
            "get_context": extras["context"],
            "__module__": module,
        }
        if suite in ("ExecutorDeadlockTest", "ProcessPoolExecutorTest"):
            body["ctx"] = context
        for name in dir(tests):
            difference = differences.get(f"{suite}.{name}")
            if difference is not None:
                body[name] = unittest.skip(f"by design: {difference.reason}")(_nothing)
            elif f"{suite}.{name}" in SLOW and not REQUIRE_ALL:
                body[name] = unittest.skip(SLOW[f"{suite}.{name}"])(_nothing)
        name = f"Farm{suite}"
        # CPython's BaseTestCase only warns of threads and children that are left, and takes those
        # of pytest for some; the leak check of tests/conftest.py looks closer (K60).
        classes[name] = type(name, (*own, tests, *between, unittest.TestCase), body)
    return classes


def _nothing(self: unittest.TestCase) -> None:
    """Stand in for a case that is skipped."""


class _Plain:
    """Adds nothing."""


def _extras(
    module: ModuleType, executor_type: type[Executor], home: str, context: str
) -> dict[str, Any]:
    """Return what single suites need to run on an executor that CPython does not know."""

    def get_context(self: unittest.TestCase) -> Any:
        import multiprocessing

        return multiprocessing.get_context(context)

    class Deadlocks:
        TIMEOUT = scaled(20)

        def _fail_on_deadlock(self, executor: Any) -> None:
            # CPython's own ends _processes, which are private.
            with tempfile.TemporaryFile(mode="w+") as file:
                faulthandler.dump_traceback(file=file)
                file.seek(0)
                text = file.read()
            if hasattr(executor, "kill_workers"):
                executor.kill_workers()
            executor.shutdown(wait=False, cancel_futures=True)
            raise AssertionError(f"executor deadlock\n\n{text}")

    class Scripts:
        def setUp(self) -> None:
            super().setUp()  # type: ignore[misc]
            run = _script_runner(module, executor_type.__name__, home)
            patch = unittest.mock.patch.object(module, "assert_python_ok", run)
            patch.start()
            self.addCleanup(patch.stop)  # type: ignore[attr-defined]

    class Failing:
        # CPython's reads a log that workers write through an inherited queue, and a private flag.
        # What our workers have to tell is in the exception: test_differences.py looks there.
        def setUp(self) -> None:
            super().setUp()  # type: ignore[misc]
            self.executor: Any = _TellsBroken(self.executor)

        @contextlib.contextmanager
        def _assert_logged(self, words: str) -> Iterator[None]:
            yield

    return {
        "ExecutorDeadlockTest": Deadlocks,
        "ProcessPoolShutdownTest": Scripts,
        "FailingInitializerMixin": Failing,
        "context": get_context,
    }


class _TellsBroken:
    """An executor whose ``_broken`` is found out by public means."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    @property
    def _broken(self) -> bool:
        try:
            self._executor.submit(int).cancel()
        except BrokenExecutor:
            return True
        return False


def _script_runner(module: ModuleType, name: str, home: str) -> Callable[..., Any]:
    """Return an ``assert_python_ok`` whose scripts import the executor `name` from `home`."""
    original = vars(module)["assert_python_ok"]

    def run(*args: str, **environment: str) -> Any:
        old = f"from concurrent.futures import {name}"
        new = f"from {home} import {name}"
        if not any(old in arg for arg in args):
            raise AssertionError("CPython's scripts have changed: adapt this runner")
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment.setdefault("PYTHONPATH", path)
        return original(*(arg.replace(old, new) for arg in args), **environment)

    return run
