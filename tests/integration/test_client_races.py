"""Unlucky moments at the client: every future settles, and nothing is kept or lost."""

from __future__ import annotations

import gc
import operator
import os
import signal
import sys
import threading
import time
import weakref
from concurrent import futures

import pytest

from remote_executor import FarmExecutor
from remote_executor.client.futures import FarmFuture
from remote_executor.task_errors import NoServerError, TaskKilled
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)


class SlowToLoad:
    def __reduce__(self):
        return time.sleep, (0.5,)


class Thing:
    pass


def slow_to_load():
    return SlowToLoad()


@pytest.fixture
def ex():
    with FarmExecutor(1) as executor:
        executor.submit(abs, 1).result(LIMIT)
        yield executor


def test_cancel_while_the_result_is_unpickled_comes_too_late(ex):
    future = ex.submit(slow_to_load)
    time.sleep(0.2)
    got = future.cancel()
    done, _ = futures.wait([future], LIMIT)

    assert future in done
    assert got == future.cancelled()


def test_a_future_that_ran_on_a_lost_server_can_be_cancelled():
    """It was running, and waits once more."""
    future, told = FarmFuture(), []
    future.add_done_callback(told.append)
    future.set_begun()
    future.finish_cancelled()

    assert future.cancelled()
    assert told == [future]
    assert futures.wait([future], 0).done == {future}


def test_single_tasks_that_are_cancelled_or_killed_as_they_begin():
    """A lone task is with the supervisor or with the worker, at any moment in between."""
    with FarmExecutor(2) as executor:
        futures.wait([executor.submit(tasks.nap, 0.02) for _ in range(4)], LIMIT)
        for number in range(400):
            future = executor.submit(operator.neg, number)
            until = time.perf_counter() + number % 20 * 1e-5
            while time.perf_counter() < until:
                pass
            ended = False
            if number % 3 == 0:
                assert executor.submit(operator.neg, 1).result(LIMIT) == -1
            else:
                ended = future.cancel() if number % 3 == 1 else executor.kill(future)
            try:
                assert future.result(LIMIT) == -number
                assert not ended or number % 3 == 2  # to be killed may come too late
            except (futures.CancelledError, TaskKilled):
                assert ended


def test_a_callback_that_exits_does_not_end_the_executor(ex):
    def leave(_):
        raise SystemExit(3)

    future = ex.submit(tasks.nap, 0.1)
    future.add_done_callback(leave)
    start = time.monotonic()
    future.result(LIMIT)
    assert time.monotonic() - start < LIMIT / 2

    assert ex.submit(abs, -2).result(LIMIT) == 2


def test_cancel_while_the_io_thread_is_in_a_callback_loses_nothing(ex):
    held, go = threading.Event(), threading.Event()

    def hold(_):
        held.set()
        go.wait(LIMIT)

    ex.submit(tasks.nap, 0.1).add_done_callback(hold)
    assert held.wait(LIMIT)
    late = [ex.submit(abs, number) for number in range(3)]
    late[1].cancel()
    go.set()

    assert not futures.wait(late, LIMIT).not_done


def test_broadcast_waits_for_an_io_thread_in_a_callback(ex):
    held = threading.Event()

    def hold(_):
        held.set()
        time.sleep(2.5)

    ex.submit(tasks.nap, 0.1).add_done_callback(hold)
    assert held.wait(LIMIT)

    assert len(ex.broadcast(tasks.pid)) == 1


def test_a_silent_server_holds_up_one_cancel_not_each(serve):
    server = serve(workers=1)
    with FarmExecutor(addresses=[server.address]) as ex:
        ex.submit(abs, 1).result(LIMIT)
        late = [ex.submit(tasks.nap, 0.02) for _ in range(6)]
        os.kill(server.pid, signal.SIGSTOP)
        try:
            start = time.monotonic()
            for future in late:
                future.cancel()
            assert time.monotonic() - start < 5
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert not futures.wait(late, LIMIT).not_done

        again = [ex.submit(tasks.nap, 0.3) for _ in range(3)]
        assert again[-1].cancel()


def test_an_embedded_server_that_ends_again_and_again_is_given_up(tmp_path, monkeypatch):
    (tmp_path / "ends_at_import.py").write_text("import os; os._exit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with FarmExecutor(1, preload=["ends_at_import"]) as ex:
        with pytest.raises(futures.BrokenExecutor):
            ex.submit(abs, 1).result(LIMIT)
        wait_until(lambda: ex.status().servers[0].state == "refused", LIMIT)
        with pytest.raises(NoServerError, match="before it had done anything"):
            ex.submit(abs, 1)


def test_an_embedded_server_that_works_is_started_again_each_time(ex):
    for number in range(8):
        os.kill(ex.status().servers[0].pid, signal.SIGKILL)
        assert ex.submit(abs, -number).result(LIMIT) == number


def test_a_server_can_be_removed_before_anything_is_started():
    ex = FarmExecutor(addresses=["127.0.0.1:1", "127.0.0.1:2"])
    ex.remove_server("127.0.0.1:1")

    assert [server.address for server in ex.status().servers] == ["127.0.0.1:2"]
    ex.shutdown()


def test_a_map_reads_on_when_the_executor_is_let_go_of():
    results = FarmExecutor(1).map(abs, iter(range(12)), buffersize=2)
    got = []
    for value in results:
        got.append(value)
        time.sleep(0.02)  # long enough for an executor that nobody holds to end

    assert got == list(range(12))


def test_a_map_keeps_no_items_when_it_is_over(ex):
    gc.collect()
    gc.disable()
    try:
        things = [Thing() for _ in range(3)]
        refs = [weakref.ref(thing) for thing in things]
        results = ex.map(id, things)
        del things
        list(results)
        wait_until(lambda: not any(ref() for ref in refs), LIMIT, "items that are let go of")
    finally:
        gc.enable()


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 12),
    reason="3.12 links a closed generator's frame to its caller: the garbage collector has to help",
)
def test_an_exception_is_kept_by_nobody_else(ex):
    """No cycle: its traceback's frames lead to no frame that holds it."""
    gc.collect()
    gc.disable()
    try:
        ref = weakref.ref(ex.submit(tasks.raise_new, tasks.PlainError, "x").exception(LIMIT))
        wait_until(lambda: ref() is None, LIMIT, "an exception that is let go of")
    finally:
        gc.enable()


def test_submit_and_shutdown_at_once_leave_no_future_open():
    for cancel in (False, True):
        ex = FarmExecutor(1)
        ex.submit(abs, 1).result(LIMIT)
        made = []

        def fill(ex=ex, made=made):
            try:
                while True:
                    made.append(ex.submit(abs, 1))
            except RuntimeError:
                pass

        threads = [threading.Thread(target=fill) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.02)
        ex.shutdown(cancel_futures=cancel)
        for thread in threads:
            thread.join()

        assert not futures.wait(made, LIMIT).not_done


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_future_leaves_futures_usable_in_the_child():
    future, go = FarmFuture(), threading.Event()
    future.set_running_or_notify_cancel()

    def hold():
        with future._condition:
            held.set()
            go.wait(LIMIT)

    held = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(LIMIT)
    pid = os.fork()
    if not pid:
        signal.alarm(5)
        future.set_result(1)
        os._exit(future.result(1) != 1)
    status = os.waitpid(pid, 0)[1]
    go.set()
    thread.join()

    assert status == 0
