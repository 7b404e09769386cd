"""``wait`` and ``as_completed`` over futures of ours, interrupted or not."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent import futures
from concurrent.futures import _base

import pytest

from remote_executor.client import stdlib_waits
from remote_executor.client.futures import FarmFuture, SafeFuture
from remote_executor.net.interruptible import Event
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(10)


@pytest.fixture(params=[SafeFuture, FarmFuture])
def future(request):
    return request.param()


def test_the_standard_library_has_what_is_replaced():
    """If this fails, its private parts have changed: see client/stdlib_waits.py."""
    assert hasattr(_base._Waiter(), "event")
    assert hasattr(_base._AsCompletedWaiter(), "lock")
    assert hasattr(_base._AllCompletedWaiter(1, stop_on_exception=False), "lock")
    assert {"_condition", "_waiters", "_state"} <= set(vars(futures.Future()))


def test_who_holds_the_condition_sees_the_state_as_it_was(future):
    with future._condition:
        future.set_result(1)
        assert future._state == "PENDING"
        assert future.done()
        thread = threading.Thread(target=lambda: seen.append(future._state))
        seen = []
        thread.start()
        thread.join(LIMIT)

    assert seen == ["FINISHED"]
    assert future._state == "FINISHED"


def test_a_condition_that_was_left_behind_keeps_nobody_out(future):
    future._condition.acquire()  # and a ^C
    told = []
    future.add_done_callback(told.append)
    thread = threading.Thread(target=future.set_result, args=(1,))
    thread.start()
    thread.join(LIMIT)

    assert told == [future]
    assert future.result(0) == 1
    assert futures.wait([future], LIMIT).done == {future}


def test_the_end_in_the_middle_of_wait_is_told(future):
    waiter = _base._AllCompletedWaiter(1, stop_on_exception=False)
    with future._condition:
        future.set_result(1)  # not seen
        future._waiters.append(waiter)

    assert waiter.event.wait(LIMIT)
    assert waiter.finished_futures == [future]
    future._waiters.remove(waiter)  # the standard library does, though it was told


def test_an_end_that_was_seen_is_not_told_again(future):
    future.set_result(1)
    waiter = _base._AsCompletedWaiter()
    with future._condition:
        future._waiters.append(waiter)

    assert not waiter.event.is_set()
    assert not len(future._waiters)


@pytest.mark.parametrize("end", ["set_result", "set_exception", "cancel"])
def test_each_kind_of_end_is_told(future, end):
    waiter = _base._FirstCompletedWaiter()
    future._waiters.append(waiter)
    assert list(future._waiters) == [waiter]

    getattr(future, end)(*{"set_result": [1], "set_exception": [ValueError()]}.get(end, []))

    assert isinstance(waiter.event, Event)
    assert waiter.event.is_set()
    assert waiter.finished_futures == [future]


def test_a_waiter_whose_owner_was_interrupted_holds_up_nobody_for_long(future):
    """On CPython 3.14 ``with waiter.lock`` may be left before its block is entered."""
    other, last = SafeFuture(), SafeFuture()
    waiter = _base._AsCompletedWaiter()
    for each in (future, other, last):
        each._waiters.append(waiter)
    owner = threading.Thread(target=waiter.lock.acquire)
    owner.start()
    owner.join(LIMIT)

    future.set_result(1)
    other.set_result(2)

    assert (future.result(0), other.result(0)) == (1, 2)
    gone = weakref.ref(waiter)
    last._waiters.remove(waiter)
    del waiter
    wait_until(lambda: gc.collect() is not None and gone() is None)


def test_a_waiter_whose_owner_was_only_slow_is_told(future):
    waiter = _base._AsCompletedWaiter()
    future._waiters.append(waiter)
    held, go = threading.Event(), threading.Event()

    def hold():
        with waiter.lock:
            held.set()
            go.wait(LIMIT)

    owner = threading.Thread(target=hold)
    owner.start()
    held.wait(LIMIT)
    future.set_result(1)
    assert not waiter.event.is_set()
    go.set()

    assert waiter.event.wait(LIMIT)
    assert waiter.finished_futures == [future]
    owner.join(LIMIT)


def test_a_mix_with_other_futures(future):
    with futures.ThreadPoolExecutor(1) as pool:
        other = pool.submit(int)
        timer = threading.Timer(0.02, future.set_result, (1,))
        timer.start()

        assert len(list(futures.as_completed([future, other], LIMIT))) == 2
        assert not futures.wait([future, other], LIMIT).not_done
    timer.join()


def test_the_condition_can_be_waited_for(future):
    with future._condition as condition:
        assert condition
        assert not future._condition.wait(0)
        future._condition.notify_all()
        future.set_result(1)
        assert future._condition.wait(LIMIT)
    future._condition.release()  # once too often
    assert stdlib_waits.PATIENCE < 1
