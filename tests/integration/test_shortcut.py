"""
One task after the other: callers send and receive themselves, and nothing else may tell.

Each test first gets the executor into the state in which callers may use the shortcut.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from concurrent import futures

import pytest

from remote_executor import FarmExecutor, RemoteError, TaskKilled, WorkerDied, start_server
from tests.support import tasks
from tests.support.faults import Proxy
from tests.support.scale import scaled
from tests.support.tools import require_module
from tests.support.waiting import wait_until

LIMIT = scaled(25)


@pytest.fixture
def ex():
    with FarmExecutor(2) as executor:
        yield executor


@pytest.fixture(params=["embedded", "tcp", "tls"])
def farm(request, ex, addresses):
    """Executors whose streams differ."""
    if request.param == "embedded":
        yield ex
    elif request.param == "tcp":
        with FarmExecutor(addresses=addresses[:1]) as executor:
            yield executor
    else:
        require_module("cryptography", "the extra tls")
        with start_server(workers=2, tls=True) as server:
            with FarmExecutor(addresses=[server.address], tls=True) as executor:
                yield executor


def in_quick_succession(executor, *functions):
    """
    Have the functions known there, and the shortcut open now.

    It closes some milliseconds after it was used last, so a test that comes later goes the usual
    way, and must hold all the same.
    """
    for function in functions:
        with contextlib.suppress(Exception):
            executor.submit(function).result(LIMIT)

    def is_open():
        executor.submit(abs, 1).result(LIMIT)
        return executor._driver.shortcut.is_open()

    if executor._driver.loop.can_be_shared:
        wait_until(is_open, LIMIT)


def test_a_thousand_round_trips(farm):
    """K50: one by one, and the executor is at rest afterwards."""
    in_quick_succession(farm, tasks.same)
    for number in range(1000):
        assert farm.submit(tasks.same, number).result(LIMIT) == number

    wait_until(lambda: not farm._driver.scheduler.tasks, LIMIT)
    assert farm._driver.scheduler.unsettled == 0


def test_several_threads_one_task_each_at_a_time(farm):
    in_quick_succession(farm, tasks.same)
    got = {}

    def work(name):
        got[name] = [farm.submit(tasks.same, (name, i)).result(LIMIT) for i in range(200)]

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert got == {name: [(name, i) for i in range(200)] for name in range(4)}


def test_single_tasks_between_many(ex):
    in_quick_succession(ex, tasks.same)
    for number in range(30):
        assert ex.submit(tasks.same, number).result(LIMIT) == number
        many = [ex.submit(tasks.same, i) for i in range(number)]
        assert [future.result(LIMIT) for future in many] == [*range(number)]


def test_errors_come_as_they_do_otherwise(farm):
    in_quick_succession(farm, tasks.fail, tasks.make_only_here, tasks.make_lock)
    for _ in range(5):
        with pytest.raises(RuntimeError, match="foo"):
            farm.submit(tasks.fail).result(LIMIT)
        with pytest.raises(RemoteError, match="unpickled here"):
            farm.submit(tasks.make_only_here).result(LIMIT)
        with pytest.raises(TypeError):
            farm.submit(tasks.make_lock).result(LIMIT)
        assert farm.submit(abs, -1).result(LIMIT) == 1


def test_large_results_and_arguments(farm):
    in_quick_succession(farm, tasks.same)
    for size in (10, 10_000, 20_000, 300_000, 5_000_000):
        data = os.urandom(size)
        assert farm.submit(tasks.same, data).result(LIMIT) == data
        assert farm.submit(abs, -1).result(LIMIT) == 1
        assert farm.submit(bytes, size).result(LIMIT) == bytes(size)


def test_what_a_task_prints_comes_before_its_result(ex, capsys):
    in_quick_succession(ex, tasks.print_words)
    ex.submit(tasks.print_words, "out").result(LIMIT)

    assert "out" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_fails_its_task(ex, number):
    """K86, K87"""
    in_quick_succession(ex, tasks.kill_self)
    with pytest.raises(WorkerDied):
        ex.submit(tasks.kill_self, number).result(LIMIT)

    assert ex.submit(abs, -1).result(LIMIT) == 1


def test_callbacks_and_waiters_are_told(farm):
    in_quick_succession(farm, tasks.same)
    for number in range(50):
        told = threading.Event()
        farm.submit(tasks.same, number).add_done_callback(lambda _, told=told: told.set())
        assert told.wait(LIMIT)
        future = farm.submit(tasks.same, number)
        assert not futures.wait([future], LIMIT).not_done
        assert [each.result() for each in futures.as_completed([farm.submit(abs, -1)], LIMIT)] == [
            1
        ]


def test_a_future_that_nobody_looks_at_settles(ex):
    """P5: without force."""
    in_quick_succession(ex, tasks.same)
    future = ex.submit(tasks.same, 1)

    wait_until(future.is_settled, LIMIT)


def test_asyncio(ex):
    async def work():
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(ex, tasks.same, i) for i in range(50)]

    in_quick_succession(ex, tasks.same)

    assert asyncio.run(work()) == [*range(50)]


def test_a_long_task_is_seen_to_run_and_can_be_killed(ex, tmp_path):
    in_quick_succession(ex, tasks.hold)
    started, release = tmp_path / "started", tmp_path / "release"
    future = ex.submit(tasks.hold, started, release)
    wait_until(future.running, LIMIT)
    assert not future.cancel()
    assert ex.kill(future)

    with pytest.raises(TaskKilled):
        future.result(LIMIT)


def test_a_timeout_while_it_runs_loses_nothing(ex):
    """K47, K48"""
    in_quick_succession(ex, tasks.nap)
    future = ex.submit(tasks.nap, 0.3, "value")
    with pytest.raises(futures.TimeoutError):
        future.result(0.05)

    assert future.result(LIMIT) == "value"


def test_shutdown_while_somebody_waits(ex):
    in_quick_succession(ex, tasks.nap)
    got = []
    future = ex.submit(tasks.nap, 0.2, "value")
    waiter = threading.Thread(target=lambda: got.append(future.result(LIMIT)))
    waiter.start()
    ex.shutdown()
    waiter.join()

    assert got == ["value"]


def test_a_lost_embedded_server_is_started_anew(ex):
    in_quick_succession(ex, tasks.nap)
    pid = ex.status().servers[0].pid
    in_quick_succession(ex)
    future = ex.submit(tasks.nap, 0.2, "value")
    os.kill(pid, signal.SIGKILL)

    assert future.result(LIMIT) == "value"


def test_cuts_lose_nothing_and_repeat_nothing(addresses, tmp_path):
    """K28, K58"""
    path = tmp_path / "ran"
    with Proxy(addresses[0]) as proxy, FarmExecutor(addresses=[proxy.address]) as ex:
        in_quick_succession(ex, tasks.record)
        path.unlink(missing_ok=True)
        for number in range(100):
            if number % 10 == 5:
                proxy.cut_after(number)
            assert ex.submit(tasks.record, path, number).result(LIMIT) == number
        assert proxy.links > 5

    assert path.read_text().split() == [str(number) for number in range(100)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_leaves_it_to_the_parent(ex):
    in_quick_succession(ex, tasks.same)
    future = ex.submit(tasks.nap, 0.1, "value")
    pid = os.fork()
    if not pid:
        signal.alarm(10)
        with pytest.raises(RuntimeError):
            ex.submit(abs, 1)
        with pytest.raises(RuntimeError):
            future.result(5)
        os._exit(0)

    assert os.waitpid(pid, 0)[1] == 0
    assert future.result(LIMIT) == "value"
    assert ex.submit(abs, -1).result(LIMIT) == 1


LOADED = []


class CountsAndRaises:
    """Says in this process how often it was unpickled, which it never is."""

    def __reduce__(self):
        return count_and_raise, (os.getpid(),)


def count_and_raise(pickled_by):
    LOADED.append(pickled_by)
    raise LookupError("not here")


def test_a_result_whose_unpickling_raises_is_unpickled_once(own):
    own.submit(abs, 1).result(20)
    for _ in range(20):
        LOADED.clear()
        future = own.submit(CountsAndRaises)
        with pytest.raises(RemoteError, match="not here"):
            future.result(20)
        assert len(LOADED) == 1
