"""
Our own meaning, where CPython's test of ProcessPoolExecutor has another one.

``adapter.DIFFERENCES`` says which case of CPython's each of these stands for.
"""

from __future__ import annotations

import functools
import gc
import itertools
import os
import signal
import threading
import time
import weakref
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool

import pytest

from remote_executor import FarmExecutor
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)


@pytest.fixture
def farm():
    with FarmExecutor(2) as executor:
        yield executor


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# -- a dead worker does not break the executor


def test_killed_worker_fails_its_own_task_only(farm, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    release = tmp_path / "release"
    victim = farm.submit(tasks.tell_and_hold, first, release)
    other = farm.submit(tasks.tell_and_hold, second, release)
    wait_until(lambda: first.exists() and second.exists(), 20)
    pid = int(first.read_text())

    os.kill(pid, signal.SIGKILL)

    with pytest.raises(BrokenProcessPool):
        victim.result(LIMIT)
    release.touch()
    assert other.result(LIMIT) != pid
    assert farm.submit(pow, 2, 8).result(LIMIT) == 256


def test_killed_workers_raise_an_error_of_their_own_each(farm):
    dying = [farm.submit(tasks.die, 3) for _ in range(3)]

    errors = [future.exception(LIMIT) for future in dying]

    assert all(isinstance(error, BrokenProcessPool) for error in errors)
    assert len({id(error) for error in errors}) == 3


def test_dead_worker_tells_its_exit_code(farm):
    error = farm.submit(os._exit, 99).exception(LIMIT)

    assert isinstance(error, BrokenProcessPool)
    assert error.exitcode == 99
    assert "99" in str(error)


def test_failing_initializer_tells_why():
    with FarmExecutor(2, initializer=tasks.failing_initializer) as executor:
        error = executor.submit(int).exception(LIMIT)

    assert isinstance(error, futures.BrokenExecutor)
    assert "error in initializer" in "".join(map(str, (error, error.__cause__)))


# -- pickles that cannot be read: K31 is the result's part


def test_argument_that_raises_at_unpickle(farm):
    with pytest.raises(Exception, match="error at unpickle"):
        farm.submit(id, tasks.ErrorAtUnpickle()).result(LIMIT)

    assert farm.submit(pow, 2, 8).result(LIMIT) == 256


def test_argument_that_exits_at_unpickle(farm):
    assert farm.submit(id, tasks.ExitAtUnpickle()).exception(LIMIT) is not None
    assert farm.submit(pow, 2, 8).result(LIMIT) == 256


def test_result_that_raises_at_unpickle(farm):
    with pytest.raises(Exception, match="error at unpickle"):
        farm.submit(tasks.make, tasks.ErrorAtUnpickle).result(LIMIT)

    assert farm.submit(pow, 2, 8).result(LIMIT) == 256


def test_result_that_exits_at_unpickle(farm):
    assert farm.submit(tasks.make, tasks.ExitAtUnpickle).exception(LIMIT) is not None
    assert farm.submit(pow, 2, 8).result(LIMIT) == 256


# -- timing


def test_cancel_futures_spares_what_has_begun(tmp_path):
    executor = FarmExecutor(2)
    release = tmp_path / "release"
    marks = [tmp_path / "a", tmp_path / "b"]
    begun = [executor.submit(tasks.hold, mark, release, 5) for mark in marks]
    wait_until(lambda: all(mark.exists() for mark in marks), 20)
    waiting = [executor.submit(time.sleep, 0.1) for _ in range(48)]

    ending = threading.Thread(target=executor.shutdown, kwargs={"cancel_futures": True})
    ending.start()
    wait_until(lambda: all(future.cancelled() for future in waiting), 20)
    release.touch()
    ending.join(LIMIT)

    assert not ending.is_alive()
    assert [future.result(0) for future in begun] == [5, 5]


# -- private attributes and threads


def test_shutdown_without_waiting_after_a_failed_pickle():
    before = set(threading.enumerate())
    executor = FarmExecutor(2)
    executor.submit(id, 42).result(LIMIT)

    failed = executor.submit(id, tasks.ErrorAtPickle())
    executor.shutdown(wait=False)

    with pytest.raises(Exception, match="pickle"):
        failed.result(LIMIT)
    wait_until(lambda: set(threading.enumerate()) <= before)


def test_thousands_of_submits_from_many_threads(farm):
    with futures.ThreadPoolExecutor(8) as threads:
        parts = threads.map(lambda k: [farm.submit(abs, -k) for _ in range(250)], range(8))
        submitted = list(itertools.chain.from_iterable(parts))

    assert sorted(future.result(LIMIT) for future in submitted) == sorted([*range(8)] * 250)


def test_saturation(farm, tmp_path):
    release = tmp_path / "release"
    waiting = [farm.submit(tasks.wait_for, release) for _ in range(15 * farm._max_workers)]
    release.touch()

    assert [future.result(LIMIT) for future in waiting] == [None] * 15 * 2
    assert farm._max_workers == 2


def test_idle_workers_are_used_again(farm):
    seen = {farm.submit(tasks.pid).result(LIMIT) for _ in range(20)}

    assert 1 <= len(seen) <= 2


def test_max_tasks_per_child():
    with FarmExecutor(1, max_tasks_per_child=3) as executor:
        seen = [executor.submit(os.getpid).result(LIMIT) for _ in range(7)]

    runs = [len(list(group)) for _, group in itertools.groupby(seen)]
    assert runs == [3, 3, 1]


def test_processes_terminate():
    with FarmExecutor(2) as executor:
        assert list(executor.map(abs, range(-5, 5))) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
        seen = {executor.submit(tasks.pid).result(LIMIT) for _ in range(10)}

    wait_until(lambda: all(map(gone, seen)))


def test_del_shutdown():
    before = set(threading.enumerate())
    executor = FarmExecutor(2)
    results = executor.map(abs, range(-5, 5))
    pid = executor.submit(tasks.pid)
    dead = weakref.ref(executor)

    del executor
    gc.collect()

    # The results are computed before the executor goes.
    assert list(results) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    wait_until(lambda: gone(pid.result(LIMIT)))
    wait_until(lambda: set(threading.enumerate()) <= before)
    gc.collect()
    assert dead() is None


@pytest.mark.parametrize("max_tasks_per_child", [None, 1])
def test_shutdown_no_wait(max_tasks_per_child, tmp_path):
    before = set(threading.enumerate())
    release = tmp_path / "release"
    executor = FarmExecutor(2, max_tasks_per_child=max_tasks_per_child)
    pids = [executor.submit(tasks.tell_and_hold, tmp_path / str(i), release) for i in range(6)]

    start = time.monotonic()
    executor.shutdown(wait=False)
    took = time.monotonic() - start

    assert took < scaled(2)
    release.touch()
    for pid in pids:
        wait_until(functools.partial(gone, pid.result(LIMIT)))
    wait_until(lambda: set(threading.enumerate()) <= before)


@pytest.mark.parametrize("ends", ["terminate_workers", "kill_workers"])
def test_terminate_and_kill_workers(ends, tmp_path):
    with FarmExecutor(1) as executor:
        getattr(FarmExecutor(1), ends)()  # before a worker has been asked for
        running = executor.submit(tasks.tell_and_hold, tmp_path / "started", tmp_path / "never")
        waiting = executor.submit(abs, -1)
        wait_until((tmp_path / "started").exists, 20)
        pid = int((tmp_path / "started").read_text())

        getattr(executor, ends)()

        for future in (running, waiting):
            try:
                error = future.exception(LIMIT)
            except futures.CancelledError:
                error = None
            assert isinstance(error, futures.BrokenExecutor) or future.cancelled()
        with pytest.raises(RuntimeError):
            executor.submit(abs, -1)
        wait_until(lambda: gone(pid))
