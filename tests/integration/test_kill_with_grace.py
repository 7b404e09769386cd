"""Tasks that are killed put things in order first; and what the end of a worker calls."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from remote_executor import FarmExecutor, TaskKilled, TaskTimeout
from remote_executor.parallel import kill_tasks, por
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)
LONG = 30.0


def mark(path, text="x"):
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


def nap(folder):
    """Sleep long, and say what was seen at the end."""
    mark(folder / "begun")
    try:
        time.sleep(LONG)
    except Exception:
        mark(folder / "taken for an error")
    except BaseException as exc:
        mark(folder / "seen", f"{type(exc).__name__} {isinstance(exc, Exception)}")
        raise
    finally:
        mark(folder / "finally")


def spin(folder):
    mark(folder / "begun")
    try:
        while True:
            pass
    finally:
        mark(folder / "finally")


def wait_for_lock(folder):
    lock = threading.Lock()
    lock.acquire()
    mark(folder / "begun")
    try:
        lock.acquire()
    finally:
        mark(folder / "finally")


def wait_for_child(folder):
    mark(folder / "begun")
    try:
        subprocess.run([sys.executable, "-c", f"import time; time.sleep({LONG})"], check=True)
    finally:
        mark(folder / "finally")


def wait_in_asyncio(folder):
    async def main():
        mark(folder / "begun")
        try:
            await asyncio.sleep(LONG)
        finally:
            mark(folder / "finally")

    asyncio.run(main())


def swallow(folder):
    mark(folder / "begun")
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        with contextlib.suppress(BaseException):
            time.sleep(LONG)


def swallow_and_return(folder):
    mark(folder / "begun")
    try:
        time.sleep(LONG)
    except BaseException:
        return "what I have"


def fail_at_the_end(folder):
    mark(folder / "begun")
    try:
        time.sleep(LONG)
    finally:
        raise ValueError("while it puts things in order")


def in_c(folder):
    """Sleep in C code that returns to Python only afterwards."""
    libc = ctypes.PyDLL(None)
    mark(folder / "begun")
    libc.sleep(int(LONG))
    libc.sleep(int(LONG))


def blocked(folder):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
    mark(folder / "begun")
    time.sleep(LONG)


def begun(folder):
    wait_until((folder / "begun").exists, 20)


@pytest.mark.parametrize("task", [nap, spin, wait_for_lock, wait_for_child, wait_in_asyncio])
def test_a_killed_task_puts_things_in_order(own, tmp_path, task):
    future = own.submit(task, tmp_path)
    begun(tmp_path)
    assert own.kill(future, grace=LIMIT)
    error = future.exception(LIMIT)

    assert isinstance(error, TaskKilled)
    assert task.__name__ in str(error)
    assert (tmp_path / "finally").exists()
    assert own.submit(pow, 2, 3).result(LIMIT) == 8


def test_what_the_task_sees_is_no_error(own, tmp_path):
    future = own.submit(nap, tmp_path)
    begun(tmp_path)
    own.kill(future)
    assert isinstance(future.exception(LIMIT), TaskKilled)
    assert (tmp_path / "seen").read_text() == "TaskKilled False"
    assert not (tmp_path / "taken for an error").exists()


def test_a_builtin_alone_is_stopped_as_well(own):
    future = own.submit(time.sleep, LONG)
    wait_until(future.running, 20)
    own.kill(future, grace=LIMIT)
    assert isinstance(future.exception(LIMIT), TaskKilled)


@pytest.mark.parametrize("task", [swallow, in_c, blocked])
def test_a_task_that_does_not_end_is_ended(own, tmp_path, task):
    future = own.submit(task, tmp_path)
    begun(tmp_path)
    own.kill(future, grace=0.2)
    assert isinstance(future.exception(LIMIT), TaskKilled)
    assert own.broadcast(abs, -1) == [1, 1]


def test_no_grace_ends_it_at_once(own, tmp_path):
    future = own.submit(nap, tmp_path)
    begun(tmp_path)
    own.kill(future, grace=0)
    assert isinstance(future.exception(LIMIT), TaskKilled)
    assert not (tmp_path / "finally").exists()


def test_a_second_kill_may_be_less_patient(own, tmp_path):
    future = own.submit(swallow, tmp_path)
    begun(tmp_path)
    own.kill(future, grace=LONG)
    assert not future.done()
    own.kill(future, grace=0)
    assert isinstance(future.exception(LIMIT), TaskKilled)


def test_a_result_that_comes_meanwhile_counts(own, tmp_path):
    future = own.submit(swallow_and_return, tmp_path)
    begun(tmp_path)
    own.kill(future, grace=LIMIT)
    assert future.result(LIMIT) == "what I have"
    assert own.broadcast(abs, -1) == [1, 1]


def test_an_error_of_the_cleaning_up_is_a_kill_all_the_same(own, tmp_path):
    future = own.submit(fail_at_the_end, tmp_path)
    begun(tmp_path)
    own.kill(future, grace=LIMIT)
    assert isinstance(future.exception(LIMIT), TaskKilled)


def test_only_that_task_sees_it(own, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    beside = own.submit(swallow_and_return, other)
    begun(other)
    future = own.submit(nap, tmp_path)
    begun(tmp_path)
    own.kill(future)
    assert isinstance(future.exception(LIMIT), TaskKilled)
    assert not beside.done()
    own.kill(beside, grace=0)


def test_a_timeout_has_a_grace(own, tmp_path):
    own.broadcast(mark, tmp_path / "this module is there")
    future = own.options(timeout=0.3, grace=LIMIT).submit(nap, tmp_path)
    assert isinstance(future.exception(LIMIT), TaskTimeout)
    assert (tmp_path / "finally").exists()


def test_a_timeout_without_a_grace(own, tmp_path):
    future = own.options(timeout=0.1, grace=0).submit(nap, tmp_path)
    assert isinstance(future.exception(LIMIT), TaskTimeout)
    assert not (tmp_path / "finally").exists()


def test_the_grace_of_a_view_counts_for_kills(own, tmp_path):
    future = own.options(grace=0).submit(nap, tmp_path)
    begun(tmp_path)
    own.kill(future)
    assert isinstance(future.exception(LIMIT), TaskKilled)
    assert not (tmp_path / "finally").exists()


def test_batches_of_a_map_are_stopped_with_a_grace(own, tmp_path):
    own.broadcast(mark, tmp_path / "this module is there")
    results = own.options(timeout=0.3, grace=LIMIT).map(nap, [tmp_path])
    with pytest.raises(TaskTimeout):
        next(results)
    assert (tmp_path / "finally").exists()


@pytest.mark.parametrize("grace", [-1, "1", True, float("nan")])
def test_a_grace_is_a_number_of_seconds(own, grace):
    future = own.submit(abs, -1)
    for call in (
        lambda: own.kill(future, grace=grace),
        lambda: own.kill_tasks("x", grace=grace),
        lambda: own.options(grace=grace),
    ):
        with pytest.raises((TypeError, ValueError), match="grace"):
            call()


def test_kills_just_as_tasks_end_lose_nothing(own):
    """Each future is over, with its result or as killed, and the workers live."""
    for pause in range(40):
        future = own.submit(time.sleep, 0.004)
        time.sleep(pause * 0.0002)
        own.kill(future)
        error = future.exception(LIMIT)
        assert error is None or isinstance(error, TaskKilled), error
    assert own.broadcast(abs, -1) == [1, 1]


def test_the_stops_of_cognates_let_the_losers_put_things_in_order(tmp_path):
    with FarmExecutor(2) as executor, executor.as_kernel():
        found = por(lambda: nap(tmp_path), lambda: begun(tmp_path) or "first")
        assert found == "first"
        wait_until((tmp_path / "finally").exists, 20)


def test_threads_of_the_task_see_nothing(own, tmp_path):
    future = own.submit(with_a_thread, tmp_path)
    begun(tmp_path)
    own.kill(future, grace=LIMIT)
    assert isinstance(future.exception(LIMIT), TaskKilled)
    assert (tmp_path / "thread").read_text() == "undisturbed"


def with_a_thread(folder):
    stop = threading.Event()

    def run():
        stop.wait(LONG)
        mark(folder / "thread", "undisturbed")

    thread = threading.Thread(target=run)
    thread.start()
    mark(folder / "begun")
    try:
        time.sleep(LONG)
    finally:
        stop.set()
        thread.join()


# -- kill_tasks however young they are


@pytest.mark.parametrize("grace", [0, None])
def test_kill_tasks_reaches_a_task_that_has_just_begun(own, grace):
    """Also if its worker is only being started, since the one before was killed."""
    own.broadcast(abs, 1)
    view = own.options(category="young")
    for _ in range(25):
        future = view.submit(time.sleep, LONG)
        time.sleep(0.005)
        assert own.task_categories_running().count("young") == 1
        assert own.kill_tasks("young", dry_run=True) == 1
        assert own.kill_tasks("young", grace=grace) == 1
        assert isinstance(future.exception(LIMIT), TaskKilled)


def test_kill_tasks_reaches_several_and_leaves_what_waits(own):
    own.broadcast(abs, 1)
    view = own.options(category="young")
    futures = [view.submit(time.sleep, 0.2 if i > 1 else LONG) for i in range(4)]
    wait_until(lambda: own.task_categories_running() == ["young"] * 2, 20)
    assert own.kill_tasks("young", grace=0) == 2
    assert sum(isinstance(each.exception(LIMIT), TaskKilled) for each in futures) == 2
    assert futures[3].result(LIMIT) is None


def test_kill_tasks_of_the_kernel_has_a_grace(tmp_path):
    with FarmExecutor(1) as executor, executor.as_kernel():
        executor.submit(abs, 1).result(LIMIT)
        future = executor.options(category="etl").submit(nap, tmp_path)
        begun(tmp_path)
        assert kill_tasks("etl", grace=LIMIT) == 1
        assert isinstance(future.exception(LIMIT), TaskKilled)
        assert (tmp_path / "finally").exists()


# -- finalizers


def test_the_finalizer_is_called_at_the_end_of_each_worker(tmp_path):
    with FarmExecutor(2, finalizer=mark, finalargs=(tmp_path / "end",)) as executor:
        executor.broadcast(abs, -1)
        assert not (tmp_path / "end").exists()
    assert (tmp_path / "end").read_text() == "xx"


def test_the_finalizer_comes_after_the_tasks_and_before_atexit(tmp_path):
    path = tmp_path / "order"
    with FarmExecutor(
        1, initializer=at_start, initargs=(path,), finalizer=mark, finalargs=(path, " final")
    ) as executor:
        executor.submit(mark, path, " task").result(LIMIT)
    assert path.read_text() == "init task final atexit"


def at_start(path):
    import atexit

    mark(path, "init")
    atexit.register(mark, path, " atexit")


def test_the_finalizer_of_a_worker_that_is_replaced(tmp_path):
    path = tmp_path / "end"
    with FarmExecutor(1, max_tasks_per_child=1, finalizer=mark, finalargs=(path,)) as executor:
        pids = {executor.submit(os.getpid).result(LIMIT) for _ in range(3)}
        wait_until(lambda: path.exists() and len(path.read_text()) == 3, 20)
    assert len(pids) == 3


def test_the_finalizer_of_a_worker_whose_task_was_killed(tmp_path):
    path = tmp_path / "end"
    with FarmExecutor(1, finalizer=mark, finalargs=(path,)) as executor:
        future = executor.submit(nap, tmp_path)
        begun(tmp_path)
        executor.kill(future, grace=LIMIT)
        future.exception(LIMIT)
        wait_until(path.exists, 20)


def test_a_finalizer_that_fails_changes_nothing():
    with FarmExecutor(1, max_tasks_per_child=1, finalizer=tasks.fail, finalargs=("oh",)) as ex:
        assert [ex.submit(abs, -n).result(LIMIT) for n in range(3)] == [0, 1, 2]


def test_a_finalizer_must_be_callable():
    with pytest.raises(TypeError, match="finalizer"):
        FarmExecutor(1, finalizer=5)
