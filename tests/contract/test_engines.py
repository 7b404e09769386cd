"""What every engine does as an executor, and what channels and cognates may count on."""

from __future__ import annotations

import sys
import threading
from concurrent import futures

import pytest

from remote_executor.parallel.calls import Call
from tests.support import tasks
from tests.support.engines import ENGINES, HERE
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)


def test_which_engines_are_here():
    """The others are those of "pip install -e '.[dask,mpi,ray]'"."""
    missing = sorted(set(ENGINES) - set(HERE))
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture
def executor(engine):
    return engine


@pytest.fixture
def name(request, engine):
    """Return the name of the engine."""
    return request.node.callspec.params["engine"]


@pytest.fixture
def busy(executor, tmp_path):
    """Return an executor whose two workers are held until the test ends, or calls it."""
    release = tmp_path / "release"
    # The others wait at the engine: some look a task ahead, and a process pool three.
    marks = [tmp_path / f"busy{n}" for n in range(6)]
    holding = [executor.submit(Call(tasks.hold, (mark, release), {})) for mark in marks]
    wait_until(lambda: sum(mark.exists() for mark in marks) >= 2, 20)
    yield executor, release.touch
    release.touch()
    futures.wait(holding, LIMIT)


def call(fn, /, *args, **kwargs):
    return Call(fn, args, kwargs)


def test_gives_real_futures(executor):
    future = executor.submit(call(tasks.add, 1, 2))

    assert isinstance(executor, futures.Executor)
    assert isinstance(future, futures.Future)
    assert future.result(LIMIT) == 3


def test_maps(executor):
    assert list(executor.map(tasks.add, range(5), range(5), timeout=LIMIT)) == [0, 2, 4, 6, 8]


def test_calls_that_are_equal_are_not_one(executor, tmp_path):
    runs = tmp_path / "runs"
    calls = [executor.submit(call(tasks.append, runs, "x")) for _ in range(4)]
    futures.wait(calls, LIMIT)

    assert len(runs.read_text().split()) == 4


def test_takes_no_keyword_for_its_own(executor):
    keywords = dict.fromkeys(
        ["fn", "func", "self", "key", "pure", "workers", "retries", "actor", "timeout"], 0
    )

    future = executor.submit(call(tasks.echo, **keywords))

    assert future.result(LIMIT) == ((), keywords)


def test_arguments_arrive_as_they_are(executor):
    values = ("x", ("x", 0), (tasks.add, 1, 2), [(tasks.add, 1)], {"a": {1, 2}}, slice(1, 2))

    assert executor.submit(call(tasks.echo, *values)).result(LIMIT) == (values, {})


def test_a_lambda_travels(executor):
    three = 3

    assert executor.submit(call(lambda x: x + three, 4)).result(LIMIT) == 7


def test_a_result_that_does_not_travel(executor, name):
    if name == "threads":
        return  # there it does
    with pytest.raises(Exception, match=r"cannot (be )?pickle"):
        executor.submit(call(threading.Lock)).result(LIMIT)
    assert executor.submit(call(tasks.add, 1, 2)).result(LIMIT) == 3


def test_an_exit_is_the_tasks(executor):
    """No worker is lost by it, and no future waits for ever."""
    error = executor.submit(call(sys.exit, "enough")).exception(LIMIT)

    assert "enough" in str(error)
    assert executor.submit(call(tasks.add, 1, 2)).result(LIMIT) == 3


def test_an_error_arrives(executor):
    future = executor.submit(call(tasks.raise_it, LookupError("so", "it is")))
    error = future.exception(LIMIT)

    assert type(error) is LookupError
    assert error.args == ("so", "it is")
    assert executor.submit(call(tasks.add, 1, 2)).result(LIMIT) == 3


def test_what_waits_can_be_cancelled(name, busy, tmp_path):
    executor, release = busy
    mark = tmp_path / "cancelled"
    called = []
    future = executor.submit(call(tasks.touch, mark))
    future.add_done_callback(called.append)

    assert future.cancel()
    assert called == [future]
    release()
    assert executor.submit(call(tasks.add, 1, 2)).result(LIMIT) == 3
    assert futures.wait([future], LIMIT).done == {future}
    if name != "dask":  # its scheduler is told, and a worker may be faster
        assert not mark.exists()


def test_callbacks_and_completion(executor):
    called = []
    calls = [executor.submit(call(tasks.add, 1, n)) for n in range(8)]
    for each in calls:
        each.add_done_callback(called.append)

    assert {each.result() for each in futures.as_completed(calls, LIMIT)} == set(range(1, 9))
    wait_until(lambda: len(called) == 8)
