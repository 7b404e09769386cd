"""
One body, three executors: what the standard library's two do, FarmExecutor does.

``ours`` marks what only FarmExecutor has on this Python version.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import multiprocessing
import sys
import threading
import time
from concurrent import futures

import pytest

from remote_executor import FarmExecutor
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)
SPAWN = multiprocessing.get_context("spawn")
NEW_MAP = sys.version_info >= (3, 14)  # buffersize


def threads(*args, **kwargs):
    return futures.ThreadPoolExecutor(*args, **kwargs)


def processes(*args, **kwargs):
    return futures.ProcessPoolExecutor(*args, mp_context=SPAWN, **kwargs)


def farm(*args, **kwargs):
    return FarmExecutor(*args, **kwargs)


KINDS = [threads, processes, farm]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def make(request):
    """Return what makes executors of one kind."""
    return request.param


@pytest.fixture(scope="module")
def executor(make):
    """Return a running executor with two workers, which the tests share."""
    with make(2) as executor:
        # All of its threads and processes are there before the first test counts them.
        barrier = [executor.submit(tasks.nap, 0.1) for _ in range(4)]
        futures.wait(barrier, LIMIT)
        yield executor


@pytest.fixture
def busy(executor, tmp_path):
    """Return an executor whose two workers are held until the test ends, or calls it."""
    release = tmp_path / "release"
    marks = [tmp_path / "busy0", tmp_path / "busy1"]
    holding = [executor.submit(tasks.hold, mark, release) for mark in marks]
    wait_until(lambda: all(mark.exists() for mark in marks), 20)
    yield executor, release.touch
    release.touch()
    futures.wait(holding, LIMIT)


# -- submit


def test_is_an_executor_and_gives_futures(executor):
    future = executor.submit(tasks.nothing)

    assert isinstance(executor, futures.Executor)
    assert isinstance(future, futures.Future)
    assert future.result(LIMIT) is None


def test_submit(executor):
    assert executor.submit(pow, 2, 8).result(LIMIT) == 256
    assert executor.submit(tasks.add, 1, y=2).result(LIMIT) == 3


def test_every_keyword_belongs_to_the_task(executor):
    words = {"fn": 1, "self": 2, "timeout": 3, "priority": 4, "name": 5, "chunksize": 6}

    args, kwargs = executor.submit(tasks.echo, 0, **words).result(LIMIT)

    assert args == (0,)
    assert list(kwargs.items()) == list(words.items())


def test_submit_needs_a_function(executor):
    with pytest.raises(TypeError):
        executor.submit()
    with pytest.raises(TypeError):
        executor.submit(fn=tasks.nothing)


@pytest.mark.parametrize("thing", [None, 42, "abs"])
def test_what_cannot_be_called_is_a_type_error(executor, thing):
    # The two of the standard library say so on the future, ours may say so at once (K19).
    with pytest.raises(TypeError, match="callable"):
        executor.submit(thing).result(LIMIT)


def test_states_of_a_future(busy):
    executor, release = busy
    waiting = [executor.submit(tasks.same, i) for i in range(10)]

    assert not waiting[-1].done()
    assert not waiting[-1].running()
    release()
    assert [future.result(LIMIT) for future in waiting] == [*range(10)]
    assert all(future.done() and not future.running() for future in waiting)
    assert not any(future.cancelled() for future in waiting)


def test_running_is_told(executor, tmp_path):
    started, release = tmp_path / "started", tmp_path / "release"
    future = executor.submit(tasks.hold, started, release, 5)
    wait_until(started.exists, 20)

    wait_until(future.running)
    release.touch()
    assert future.result(LIMIT) == 5


def test_a_result_that_is_late_is_not_lost(executor, tmp_path):
    release = tmp_path / "release"
    future = executor.submit(tasks.hold, tmp_path / "started", release, 99)

    for _ in range(2):
        with pytest.raises(futures.TimeoutError):
            future.result(timeout=0.01)
        with pytest.raises(futures.TimeoutError):
            future.exception(timeout=0)
    release.touch()
    assert future.result(LIMIT) == 99
    assert future.result(LIMIT) == 99
    assert future.exception(LIMIT) is None


def test_submit_from_many_threads(executor):
    with futures.ThreadPoolExecutor(4) as callers:
        parts = callers.map(lambda k: [executor.submit(abs, -k) for _ in range(50)], range(4))
        found = [future.result(LIMIT) for part in parts for future in part]

    assert sorted(found) == sorted([*range(4)] * 50)


# -- exceptions


@pytest.mark.parametrize(
    "error",
    [
        ValueError("one", 2),
        KeyError("absent"),
        OSError(2, "No such file", "name"),
        StopIteration(3),
        tasks.PlainError("plain", 5),
        SystemExit(4),
        futures.CancelledError(),
        TimeoutError("late"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_come_back(executor, error):
    found = executor.submit(tasks.raise_it, error).exception(LIMIT)

    assert type(found) is type(error)
    assert found.args == error.args
    fields = {name: value for name, value in vars(found).items() if name != "__notes__"}
    assert fields == vars(error)
    assert str(found) == str(error)


def test_an_exception_is_raised_each_time(executor):
    future = executor.submit(tasks.fail, "again")

    for _ in range(3):
        with pytest.raises(RuntimeError, match="again"):
            future.result(LIMIT)


def test_a_failed_task_costs_nothing(executor):
    failing = [executor.submit(tasks.fail, str(i)) for i in range(10)]

    assert [str(future.exception(LIMIT)) for future in failing] == [str(i) for i in range(10)]
    assert executor.submit(pow, 2, 3).result(LIMIT) == 8


# -- cancel


def test_cancel_before_the_task_begins(busy, tmp_path):
    executor, release = busy
    path = tmp_path / "ran"
    waiting = [executor.submit(tasks.record, path, i) for i in range(20)]

    assert waiting[-1].cancel()
    assert waiting[-1].cancel()
    assert waiting[-1].cancelled()
    assert waiting[-1].done()
    with pytest.raises(futures.CancelledError):
        waiting[-1].result(LIMIT)
    release()
    assert [future.result(LIMIT) for future in waiting[:-1]] == [*range(19)]
    assert "19" not in path.read_text().split()


def test_cancel_is_refused_while_the_task_runs(executor, tmp_path):
    started, release = tmp_path / "started", tmp_path / "release"
    future = executor.submit(tasks.hold, started, release, 6)
    wait_until(started.exists, 20)
    wait_until(future.running)

    assert not future.cancel()
    release.touch()
    assert future.result(LIMIT) == 6
    assert not future.cancel()


def test_wait_sees_the_cancelled(busy):
    executor, release = busy
    waiting = [executor.submit(tasks.same, i) for i in range(10)]
    assert waiting[-1].cancel()
    release()

    done, not_done = futures.wait(waiting, LIMIT)

    assert done == set(waiting)
    assert not_done == set()


# -- callbacks


def test_callbacks_run_once_each_in_order(executor, tmp_path):
    release = tmp_path / "release"
    seen = []
    future = executor.submit(tasks.hold, tmp_path / "started", release)
    for i in range(3):
        future.add_done_callback(lambda done, i=i: seen.append((i, done)))
    release.touch()
    future.result(LIMIT)

    wait_until(lambda: len(seen) == 3)
    assert seen == [(0, future), (1, future), (2, future)]


def test_callback_of_a_done_future_runs_at_once(executor):
    future = executor.submit(tasks.nothing)
    future.result(LIMIT)
    seen = []

    future.add_done_callback(lambda done: seen.append(threading.current_thread()))

    assert seen == [threading.current_thread()]


def test_callback_that_raises_is_logged_and_harmless(executor, tmp_path, caplog):
    release = tmp_path / "release"
    called = threading.Event()
    future = executor.submit(tasks.hold, tmp_path / "started", release)
    future.add_done_callback(lambda done: 1 / 0)
    future.add_done_callback(lambda done: called.set())

    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        release.touch()
        assert called.wait(LIMIT)

    assert "exception calling callback" in caplog.text
    assert executor.submit(pow, 2, 3).result(LIMIT) == 8


def test_callback_may_submit(executor):
    second = threading.Event()
    first = executor.submit(tasks.same, 1)

    def more(done):
        executor.submit(tasks.same, done.result() + 1).add_done_callback(lambda _: second.set())

    first.add_done_callback(more)

    assert second.wait(LIMIT)


# -- as_completed, wait


def test_as_completed_gives_them_as_they_come(executor, tmp_path):
    release = tmp_path / "release"
    slow = executor.submit(tasks.hold, tmp_path / "started", release, "slow")
    fast = executor.submit(tasks.same, "fast")
    order = []
    for future in futures.as_completed([slow, fast], LIMIT):
        order.append(future.result())
        release.touch()

    assert order == ["fast", "slow"]


def test_as_completed_times_out(busy):
    executor, _ = busy
    waiting = [executor.submit(tasks.nothing) for _ in range(4)]

    with pytest.raises(futures.TimeoutError, match=r"4 \(of 4\) futures unfinished"):
        list(futures.as_completed(waiting, 0.01))


def test_wait_for_the_first_completed(executor, tmp_path):
    release = tmp_path / "release"
    slow = executor.submit(tasks.hold, tmp_path / "started", release)
    fast = executor.submit(tasks.nothing)

    done, not_done = futures.wait([slow, fast], LIMIT, futures.FIRST_COMPLETED)

    assert (done, not_done) == ({fast}, {slow})
    release.touch()
    slow.result(LIMIT)


def test_wait_for_the_first_exception(executor, tmp_path):
    release = tmp_path / "release"
    slow = executor.submit(tasks.hold, tmp_path / "started", release)
    bad = executor.submit(tasks.fail)

    done, not_done = futures.wait([slow, bad], LIMIT, futures.FIRST_EXCEPTION)

    assert (done, not_done) == ({bad}, {slow})
    release.touch()
    slow.result(LIMIT)


# -- map


def test_map_keeps_the_order(executor):
    assert list(executor.map(tasks.square, range(100))) == [i * i for i in range(100)]


def test_map_of_several_iterables_ends_with_the_shortest(executor):
    assert list(executor.map(pow, range(5), [2] * 3)) == [0, 1, 4]
    assert list(executor.map(tasks.add, itertools.count(), iter("ab"[:0]))) == []
    assert list(executor.map(pow, (i for i in range(4)), itertools.repeat(2))) == [0, 1, 4, 9]


def test_map_of_nothing(executor):
    assert list(executor.map(tasks.square, [])) == []
    assert list(executor.map(tasks.nothing)) == []


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map_with_chunks(executor, chunksize):
    found = executor.map(tasks.square, range(20), chunksize=chunksize)

    assert list(found) == [i * i for i in range(20)]


def test_map_raises_in_its_place_and_ends(executor):
    results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])

    assert next(results) == (0, 1)
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_map_times_out(executor, tmp_path):
    release = tmp_path / "release"
    marks = [tmp_path / "a", tmp_path / "b"]
    results = executor.map(tasks.hold, marks, [release] * 2, timeout=0.05)

    with pytest.raises(futures.TimeoutError):
        next(results)
    release.touch()


def test_map_that_times_out_cancels_the_rest(busy, tmp_path):
    executor, release = busy
    path = tmp_path / "ran"

    results = executor.map(tasks.record, [path] * 50, range(50), timeout=0.01, chunksize=1)
    with pytest.raises(futures.TimeoutError):
        next(results)
    release()
    # What comes after is served: the rest of the map does not stand before it.
    assert executor.submit(pow, 2, 3).result(LIMIT) == 8
    ran = path.read_text().split() if path.exists() else []
    assert len(ran) < 25


def test_map_collects_its_input_at_once(executor):
    taken = []

    def source():
        for i in range(10):
            taken.append(i)
            yield i

    results = executor.map(tasks.square, source())

    assert taken == [*range(10)]
    assert list(results) == [i * i for i in range(10)]


def test_map_runs_without_being_read(executor, tmp_path):
    path = tmp_path / "ran"
    results = executor.map(tasks.record, [path] * 6, range(6))

    wait_until(lambda: path.exists() and len(path.read_text().split()) == 6, 20)
    assert list(results) == [*range(6)]


def test_map_whose_input_raises(executor):
    def source():
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(executor.map(tasks.square, source()))
    assert executor.submit(pow, 2, 3).result(LIMIT) == 8


def test_map_that_is_closed_cancels_its_rest(executor, tmp_path):
    path, now, later = tmp_path / "ran", tmp_path / "now", tmp_path / "later"
    now.touch()
    releases = [now] + [later] * 49
    results = executor.map(tasks.record_and_wait, [path] * 50, range(50), releases, chunksize=1)
    try:
        assert next(results) == 0
        results.close()
    finally:
        later.touch()

    assert executor.submit(pow, 2, 3).result(LIMIT) == 8
    assert len(path.read_text().split()) < 25


def test_map_that_is_dropped_cancels_its_rest(executor, tmp_path):
    path, now, later = tmp_path / "ran", tmp_path / "now", tmp_path / "later"
    now.touch()
    releases = [now] + [later] * 49
    results = executor.map(tasks.record_and_wait, [path] * 50, range(50), releases, chunksize=1)
    try:
        assert next(results) == 0
        del results
        gc.collect()
    finally:
        later.touch()

    assert executor.submit(pow, 2, 3).result(LIMIT) == 8
    assert len(path.read_text().split()) < 25


def test_map_with_a_buffer_is_lazy(make, executor):
    if make is not farm and not NEW_MAP:
        with pytest.raises(TypeError, match="buffersize"):
            executor.map(abs, [1], buffersize=2)
        return
    taken = itertools.count()
    results = executor.map(tasks.square, taken, buffersize=4)

    assert list(itertools.islice(results, 10)) == [i * i for i in range(10)]
    assert 10 <= next(taken) <= 20


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError)])
def test_map_with_a_bad_buffer(make, executor, size, error):
    if make is not farm and not NEW_MAP:
        return
    with pytest.raises(error, match="buffersize"):
        executor.map(abs, [1], buffersize=size)


@pytest.mark.parametrize("size", [0, -1])
def test_map_with_a_bad_chunksize(make, executor, size):
    if make is threads:
        return  # it does not look at it
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(abs, [1], chunksize=size)


# -- asyncio


def test_asyncio(executor):
    async def main():
        loop = asyncio.get_running_loop()
        found = await asyncio.gather(
            *(loop.run_in_executor(executor, tasks.square, i) for i in range(10))
        )
        with pytest.raises(RuntimeError, match="foo"):
            await loop.run_in_executor(executor, tasks.fail)
        wrapped = await asyncio.wrap_future(executor.submit(pow, 2, 5))
        return found, wrapped

    assert asyncio.run(main()) == ([i * i for i in range(10)], 32)


def test_asyncio_cancels(busy):
    executor, release = busy

    async def main():
        loop = asyncio.get_running_loop()
        waiting = [loop.run_in_executor(executor, tasks.same, i) for i in range(10)]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(waiting[-1], 0.05)
        release()
        return await asyncio.gather(*waiting[:-1])

    assert asyncio.run(main()) == [*range(9)]


# -- construction, initializer, shutdown


@pytest.mark.parametrize("number", [0, -1])
def test_max_workers_must_be_positive(make, number):
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        make(number)


def test_initializer_must_be_callable(make):
    with pytest.raises(TypeError, match="initializer must be a callable"):
        make(1, initializer=5)


def test_max_workers_is_there(make):
    with make(3) as executor:
        assert executor._max_workers == 3


def test_initializer_runs_in_each_worker(make):
    with make(2, initializer=tasks.set_state, initargs=("colour", "red")) as executor:
        seen = set(executor.map(tasks.get_state, ["colour"] * 10))

    tasks.STATE.clear()
    assert seen == {"red"}


def test_failing_initializer_breaks_the_executor(make, caplog):
    with make(2, initializer=tasks.failing_initializer) as executor:
        with pytest.raises(futures.BrokenExecutor):
            executor.submit(abs, -1).result(LIMIT)
        with pytest.raises(futures.BrokenExecutor):
            executor.submit(abs, -1).result(LIMIT)


def test_submit_after_shutdown(make):
    executor = make(1)
    executor.shutdown()
    executor.shutdown()

    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(abs, -1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(abs, [-1])


def test_shutdown_of_an_idle_executor(make):
    make(1).shutdown()
    with make(2):
        pass


def test_shutdown_waits_for_what_was_submitted(make, tmp_path):
    path = tmp_path / "ran"
    with make(2) as executor:
        submitted = [executor.submit(tasks.record_and_nap, path, i, 0.01) for i in range(10)]

    assert all(future.done() for future in submitted)
    assert sorted(path.read_text().split()) == [str(i) for i in range(10)]


def test_shutdown_without_waiting(make, tmp_path):
    started, release = tmp_path / "started", tmp_path / "release"
    executor = make(1)
    running = executor.submit(tasks.hold, started, release, 1)
    waiting = executor.submit(tasks.same, 2)
    wait_until(started.exists, 20)

    begin = time.monotonic()
    executor.shutdown(wait=False)
    took = time.monotonic() - begin

    assert took < scaled(2)
    release.touch()
    assert (running.result(LIMIT), waiting.result(LIMIT)) == (1, 2)
    executor.shutdown(wait=True)


def test_shutdown_cancels(make, tmp_path):
    started, release = tmp_path / "started", tmp_path / "release"
    executor = make(1)
    running = executor.submit(tasks.hold, started, release, 1)
    wait_until(started.exists, 20)
    waiting = [executor.submit(tasks.same, i) for i in range(10)]

    ending = threading.Thread(target=executor.shutdown, kwargs={"cancel_futures": True})
    ending.start()
    wait_until(lambda: all(future.cancelled() for future in waiting[-5:]), 20)
    release.touch()
    ending.join(LIMIT)

    assert not ending.is_alive()
    assert running.result(LIMIT) == 1
    assert all(future.done() for future in waiting)


def test_with_statement_hands_exceptions_on(make):
    with pytest.raises(LookupError), make(1) as executor:
        raise LookupError(executor.submit(abs, -3).result(LIMIT))
