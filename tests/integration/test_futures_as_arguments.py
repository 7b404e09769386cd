"""Futures among the arguments of ``submit``: waited for, without a thread."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import pytest

from remote_executor import FarmExecutor, PayloadError, Retry, TaskKilled
from remote_executor.parallel import Channel, force, future, make_kernel
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(25)


@pytest.fixture
def ex(farm):
    """Return an executor that the module shares, on servers of its own or elsewhere."""
    return farm


class Box:
    def __init__(self, content):
        self.content = content


def increment(x, *others, **named):
    return x + 1


def content(box):
    return box.content["k"][0]


def same_object(a, b):
    return a is b


@pytest.fixture
def held(ex, tmp_path):
    """Return a task that waits for a file, and what makes that."""
    go = tmp_path / "go"
    yield ex.submit(tasks.tell_and_hold, tmp_path / "begun", go), go.touch
    go.touch()


def test_a_task_gets_the_result_of_another(ex):
    first = ex.submit(increment, 1)

    assert ex.submit(increment, first).result(LIMIT) == 3
    assert first.result(LIMIT) == 2


@pytest.mark.parametrize("place", ["keyword", "list", "object", "partial", "twice"])
def test_wherever_the_pickler_meets_it(ex, place):
    one = ex.submit(tasks.same, 1)
    if place == "keyword":
        made = ex.submit(tasks.echo, a=one)
        assert made.result(LIMIT) == ((), {"a": 1})
    elif place == "list":
        assert ex.submit(sum, [one, 2, ex.submit(increment, one)]).result(LIMIT) == 5
    elif place == "object":
        assert ex.submit(content, Box({"k": [one]})).result(LIMIT) == 1
    elif place == "partial":
        assert ex.submit(partial(increment, one)).result(LIMIT) == 2
    else:
        both = ex.submit(tasks.same, [1])
        assert ex.submit(same_object, both, both).result(LIMIT)


def test_views_and_other_executors_may_have_made_it(ex, own):
    assert ex.submit(increment, ex.options(priority="high").submit(increment, 0)).result(LIMIT) == 2
    assert ex.submit(increment, own.submit(increment, 0)).result(LIMIT) == 2
    assert ex.options(name="x").submit(increment, ex.submit(increment, 0)).result(LIMIT) == 2


def test_other_arguments_are_as_they_were_at_the_submit(ex, held):
    waits, go = held
    changed = [1]
    made = ex.submit(tasks.echo, changed, waits)
    changed.append(2)
    go()

    (found, _), _ = made.result(LIMIT)
    assert found == [1]


def test_what_waits_takes_no_slot_shows_and_can_be_cancelled(ex, held):
    waits, go = held
    made = [ex.submit(increment, waits) for _ in range(20)]
    wait_until(lambda: ex.status().waiting == 20)
    assert ex.submit(pow, 2, 3).result(LIMIT) == 8
    assert threading.active_count() < 20

    assert made[0].cancel()
    assert ex.kill(made[1])
    assert isinstance(made[1].exception(LIMIT), TaskKilled)
    assert not made[2].running()
    go()

    assert all(each.result(LIMIT) > 1 for each in made[2:])
    assert ex.status().waiting == 0


def test_a_failure_passes_on_and_names_both(ex):
    first = ex.submit(tasks.raise_it, tasks.PlainError("plain", 5))
    second = ex.submit(increment, first)
    third = ex.options(name="third").submit(increment, [second])

    error = third.exception(LIMIT)

    assert type(error) is tasks.PlainError
    assert (error.args, error.code) == (("plain", 5), 5) or error.code == 5
    words = "\n".join(error.__notes__)
    assert "task raise_it, attempt 1, ran in worker" in words
    assert "task increment did not run: it takes the result of task raise_it, which failed" in words
    assert "task third did not run: it takes the result of task increment" in words
    assert len(first.exception(LIMIT).__notes__) == 1
    assert error is not first.exception(LIMIT)


def test_a_failure_that_was_there_before_passes_on(ex):
    first = ex.submit(tasks.fail)
    first.exception(LIMIT)

    assert isinstance(ex.submit(increment, first).exception(LIMIT), RuntimeError)


def test_a_failure_of_an_argument_is_not_tried_again(ex, tmp_path):
    view = ex.options(retry=Retry(3, wait=0))
    first = ex.submit(tasks.fail)

    error = view.submit(tasks.append, tmp_path / "ran", first).exception(LIMIT)

    assert isinstance(error, RuntimeError)
    assert not (tmp_path / "ran").exists()


def test_a_cancelled_one_cancels(ex, held):
    waits, go = held
    second = ex.submit(increment, waits)
    third = ex.submit(increment, second)

    assert second.cancel()

    with pytest.raises(CancelledError):
        third.result(LIMIT)
    go()


@pytest.mark.parametrize("how", ["results", "failures", "cancelled"])
def test_a_long_chain(ex, held, how):
    waits, go = held
    last = second = ex.submit(increment, waits)
    if how == "failures":
        last = ex.submit(tasks.raise_it, OSError("first"))
    for _ in range(1500):
        last = ex.submit(increment, last)
    if how == "cancelled":
        assert second.cancel()
        with pytest.raises(CancelledError):
            last.result(LIMIT)
    go()
    if how == "results":
        assert last.result(LIMIT) == waits.result() + 1501
    if how == "failures":
        assert isinstance(last.exception(LIMIT), OSError)


def test_a_tree_of_tasks(ex):
    level = [ex.submit(tasks.same, i) for i in range(64)]
    while len(level) > 1:
        level = [ex.submit(tasks.add, *level[i : i + 2]) for i in range(0, len(level), 2)]

    assert level[0].result(LIMIT) == sum(range(64))


def test_large_results_travel_on(own):
    numpy = pytest.importorskip("numpy")
    ones = own.submit(numpy.ones, 200_000)

    assert own.submit(numpy.sum, ones).result(LIMIT) == 200_000
    assert own.submit(double, ones, numpy.ones(200_000)).result(LIMIT).sum() == 400_000


def double(a, b):
    a += b
    return a


def test_a_shutdown_waits_for_what_waits(tmp_path):
    with FarmExecutor(1) as own:
        last = own.submit(tasks.nap, 0.1, 1)
        for _ in range(10):
            last = own.submit(increment, last)

    assert last.result(0) == 11


def test_a_shutdown_that_cancels_cancels_what_waits(tmp_path):
    with FarmExecutor(1) as own:
        first = own.submit(tasks.tell_and_hold, tmp_path / "begun", tmp_path / "go")
        tasks.wait_for(tmp_path / "begun")
        second = own.submit(increment, first)
        wait_until(lambda: own.status().waiting == 1)
        own.shutdown(wait=False, cancel_futures=True)
        (tmp_path / "go").touch()

    assert second.cancelled()


def test_a_view_that_is_shut_down_waits_for_what_waits(ex):
    view = ex.options()
    made = view.submit(increment, view.submit(tasks.nap, 0.1, 1))
    view.shutdown()

    assert made.done()


def test_where_nobody_waits_a_future_is_refused(ex):
    one = ex.submit(tasks.same, 1)
    with pytest.raises(PayloadError, match="give it to submit"):
        list(ex.map(tasks.same, [one]))
    with pytest.raises(TypeError, match="broadcast does not wait"):
        ex.broadcast(tasks.same, one)
    with pytest.raises(PayloadError, match="a Future cannot be sent"):
        ex.submit(tasks.same, Future()).result(LIMIT)
    with pytest.raises(PayloadError, match="give it to submit"):
        ex.share(one)
    assert ex.submit(tasks.same, 5).result(LIMIT) == 5


def test_an_argument_that_cannot_be_pickled_beside_a_future(ex):
    one = ex.submit(tasks.same, 1)

    assert isinstance(ex.submit(tasks.same, [one, threading.Lock()]).exception(LIMIT), PayloadError)
    assert ex.submit(increment, 5).result(LIMIT) == 6


def test_in_parallel_too(ex):
    with ex.as_kernel():
        assert force(future(increment, future(increment, 1))) == 3
        channel = Channel()
        channel.submit(increment, channel.submit(increment, 1))
        assert sorted(channel.receive(LIMIT) for _ in range(2)) == [2, 3]


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_on_other_executors(kind):
    with kind(2) as pool, make_kernel(pool):
        one = future(increment, 1)
        assert force(future(increment, one)) == 3
        assert force(future(sum, [one, future(increment, one)])) == 5
        assert force(future(tasks.echo, a=one)) == ((), {"a": 2})
        failed = future(increment, future(tasks.fail))
        with pytest.raises(RuntimeError) as caught:
            force(failed)
        assert "task increment did not run" in caught.value.__notes__[-1]


def test_on_other_executors_what_waits_can_be_cancelled():
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool, make_kernel(pool):
        first = future(gate.wait, LIMIT)
        second = future(increment, first)
        third = future(increment, second)
        assert second.cancel()
        assert third.cancelled()
        gate.set()
        assert first.result(LIMIT)
