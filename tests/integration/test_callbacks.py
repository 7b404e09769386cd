"""Done-callbacks run in the thread that brings results: what cannot wait there says so at once."""

from __future__ import annotations

import queue
import time
from concurrent import futures

import pytest

from remote_executor import FarmExecutor
from remote_executor.parallel import Channel, delay, force, pmap, promise, ptree
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)


@pytest.fixture
def ex():
    with FarmExecutor(2) as executor:
        executor.wait_for_workers(2, LIMIT)
        yield executor


def in_callback(ex, call):
    """Return what came of a call in a done-callback, and the seconds that it took."""
    came = queue.SimpleQueue()

    def callback(_):
        begun = time.monotonic()
        try:
            outcome = call()
        except BaseException as exc:
            outcome = exc
        came.put((outcome, time.monotonic() - begun))

    ex.submit(tasks.nap, 0.1).add_done_callback(callback)
    return came.get(timeout=LIMIT)


WAITS = {
    "result": lambda ex: ex.submit(tasks.nap, 0.1).result(),
    "result in time": lambda ex: ex.submit(tasks.nap, 0.1).result(LIMIT),
    "exception": lambda ex: ex.submit(tasks.nap, 0.1).exception(),
    "wait": lambda ex: futures.wait([ex.submit(tasks.nap, 0.1)]),
    "as_completed": lambda ex: list(futures.as_completed([ex.submit(tasks.nap, 0.1)])),
    "map": lambda ex: list(ex.map(abs, range(3))),
    "map with a buffer": lambda ex: list(ex.map(abs, range(3), buffersize=1)),
    "broadcast": lambda ex: ex.broadcast(abs, 1),
    "broadcast of a view": lambda ex: ex.options(name="all").broadcast(abs, 1),
    "more workers": lambda ex: ex.wait_for_workers(1000),
    "pmap": lambda ex: pmap(abs, [1], executor=ex),
    "a channel": lambda ex: Channel(ex).receive(),
    "a promise": lambda ex: force(promise()),
    "a promise's result": lambda ex: promise().result(),
    "a promise's exception": lambda ex: promise().exception(),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_would_wait_for_its_own_thread_says_so_at_once(ex, name):
    error, took = in_callback(ex, lambda: WAITS[name](ex))

    assert isinstance(error, RuntimeError), error
    assert "callback" in str(error)
    assert took < scaled(1)
    assert ex.submit(abs, -2).result(LIMIT) == 2


def test_a_view_is_ended_all_the_same(ex, tmp_path):
    view = ex.options(priority="high")
    running = view.submit(tasks.hold, tmp_path / "started", tmp_path / "release")

    error, took = in_callback(ex, lambda: view.shutdown(wait=True))

    (tmp_path / "release").touch()
    assert isinstance(error, RuntimeError)
    assert "callback" in str(error)
    assert took < scaled(1)
    running.result(LIMIT)
    with pytest.raises(RuntimeError, match="shutdown"):
        view.submit(abs, 1)


def test_a_server_is_not_drained_in_a_callback(addresses, tmp_path):
    with FarmExecutor(addresses=addresses) as ex:
        running = ex.submit(tasks.hold, tmp_path / "started", tmp_path / "release")
        wait_until(running.running, 20)
        busy = next(server.address for server in ex.status().servers if server.running)

        error, took = in_callback(ex, lambda: ex.remove_server(busy))

        (tmp_path / "release").touch()
        assert isinstance(error, RuntimeError)
        assert "callback" in str(error)
        assert took < scaled(1)
        assert running.exception(LIMIT) is None
        assert len(ex.status().servers) == len(addresses), "nothing of it has happened"


WORKS = {
    "submit": lambda ex: ex.submit(abs, -1).add_done_callback(lambda _: None),
    "a poll": lambda ex: _polled(ex.submit(tasks.nap, 0.1)),
    "states": lambda ex: _states(ex.submit(tasks.nap, 0.1)),
    "cancel": lambda ex: [ex.submit(tasks.nap, 0.1) for _ in range(4)][-1].cancel(),
    "kill": lambda ex: ex.kill([ex.submit(tasks.nap, 0.1) for _ in range(4)][-1]),
    "map": lambda ex: ex.map(abs, range(3)),
    "share": lambda ex: ex.submit(len, ex.share([1])),
    "status": lambda ex: ex.status(),
    "enough workers": lambda ex: ex.wait_for_workers(2),
    "a finished view": lambda ex: ex.options(name="none").shutdown(),
    "shutdown without a wait": lambda ex: ex.options(name="none").shutdown(wait=False),
    "a promise": lambda ex: promise().set_result(1),
    "a delay": lambda ex: force(delay(abs, -1)),
    "a tree": lambda ex: ptree().define("name", [], int),
    "a channel": lambda ex: Channel(ex).submit(abs, -1),
    "a timer": lambda ex: Channel(ex).submit_timeout(0.01),
}


def _polled(future):
    with pytest.raises(futures.TimeoutError):
        future.result(0)


def _states(future):
    return future.done(), future.running(), future.cancelled()


@pytest.mark.parametrize("name", WORKS)
def test_what_need_not_wait_works_there(ex, name):
    outcome, _ = in_callback(ex, lambda: WORKS[name](ex))

    assert not isinstance(outcome, BaseException), outcome
    assert ex.submit(abs, -2).result(LIMIT) == 2


def test_another_executor_can_be_waited_for(ex):
    with FarmExecutor(1) as other:
        assert in_callback(ex, lambda: other.submit(abs, -3).result(LIMIT))[0] == 3
