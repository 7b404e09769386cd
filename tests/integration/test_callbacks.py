"""Done-callbacks run in the thread that brings results: what cannot wait there says so at once."""

from __future__ import annotations

import queue
import threading
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


# --------------------------------------------------------------- what takes long there


class Slow:
    """Waits when it is unpickled at the client."""

    go = threading.Event()
    begun = threading.Event()

    def __reduce__(self):
        return _wait_for_go, ()


def _wait_for_go():
    Slow.begun.set()
    return Slow.go.wait(3 * LIMIT)  # longer than anything waits for it


def make_slow():
    return Slow()


class SlowItem:
    """Waits when it is pickled at the client."""

    def __reduce__(self):
        return int, (_wait_for_go(),)


@pytest.fixture(params=["callback", "unpickling", "pickling"])
def held_up(request, ex):
    """Return a function that holds up the thread that brings results, and what ends that."""
    Slow.go.clear()
    Slow.begun.clear()
    maps = []

    def hold_up():
        if request.param == "callback":
            ex.submit(tasks.nap, 0.05).add_done_callback(lambda _: _wait_for_go())
        elif request.param == "pickling":
            maps.append(ex.map(int, [SlowItem()]))
        else:
            ex.submit(make_slow).add_done_callback(lambda _: None)
        assert Slow.begun.wait(LIMIT)

    yield hold_up
    Slow.go.set()
    assert [list(each) for each in maps] in ([], [[1]])


def test_while_one_is_held_up_all_else_goes_on(ex, held_up):
    held_up()
    told = queue.SimpleQueue()

    assert [ex.submit(abs, -number).result(LIMIT) for number in range(50)] == [*range(50)]
    assert list(ex.map(abs, range(50))) == [*range(50)]
    ex.submit(abs, -7).add_done_callback(told.put)
    ex.submit(abs, -7).add_done_callback(lambda future: told.put(future))
    assert [told.get(timeout=LIMIT).result() for _ in range(2)] == [7, 7]
    assert ex.broadcast(abs, -1) == [1, 1]
    assert not Slow.go.is_set()


def test_those_that_came_with_it_do_not_wait_for_it(ex):
    """Of results that arrived at the same moment one holds up the thread that brings them."""
    Slow.go.clear()
    made = [ex.submit(tasks.nap, 0.05, number) for number in range(30)]
    for future in made[::10]:
        future.add_done_callback(lambda _: _wait_for_go())

    assert [future.result(LIMIT) for future in made] == [*range(30)]
    Slow.go.set()


def test_calls_of_a_callback_whose_thread_is_on_duty_no_more(ex):
    came = queue.SimpleQueue()

    def callback(_):
        time.sleep(0.3)  # another thread has taken over
        queued = [ex.submit(tasks.nap, 0.05) for _ in range(6)]
        came.put(queued[-1].cancel())
        came.put(ex.kill(queued[-2]))
        with pytest.raises(RuntimeError, match="callback"):
            queued[0].result()
        came.put(ex.status().slots)

    ex.submit(tasks.nap, 0.05).add_done_callback(callback)

    assert [came.get(timeout=LIMIT) for _ in range(3)] == [True, True, 2]


def test_the_executor_ends_when_a_callback_does(ex):
    ended = []

    def callback(_):
        time.sleep(0.4)
        ended.append(threading.current_thread())

    future = ex.submit(tasks.nap, 0.05)
    future.add_done_callback(callback)
    future.result(LIMIT)
    ex.shutdown()

    assert len(ended) == 1
    assert not ended[0].is_alive()
    assert not [each for each in threading.enumerate() if each in ex._driver._duty.threads]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [20])
def test_a_link_survives_a_callback_that_takes_longer_than_its_patience(addresses, seconds, caplog):
    with FarmExecutor(addresses=addresses) as ex:
        ex.submit(abs, 1).result(LIMIT)
        pid = ex.broadcast(tasks.pid)
        ended = threading.Event()

        def callback(_):
            time.sleep(seconds)
            ended.set()

        ex.submit(tasks.nap, 0.1).add_done_callback(callback)
        longest = 0.0
        while not ended.is_set():
            begun = time.monotonic()
            assert ex.submit(abs, -1).result(LIMIT) == 1
            longest = max(longest, time.monotonic() - begun)
            time.sleep(0.01)

        assert longest < scaled(2)
        assert sorted(ex.broadcast(tasks.pid)) == sorted(pid), "the session is the same"
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
