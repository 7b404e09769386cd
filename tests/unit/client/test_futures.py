"""A FarmFuture is a Future: whatever it saves, nobody can tell."""

from __future__ import annotations

import asyncio
import pickle
import threading
from concurrent import futures

import pytest

from remote_executor.client.futures import FarmFuture
from tests.support.scale import scaled

LIMIT = scaled(10)


def later(action, *args):
    """Act once the caller waits."""
    timer = threading.Timer(0.05, action, args)
    timer.start()
    return timer


def test_it_is_a_standard_future():
    assert isinstance(FarmFuture(), futures.Future)


def test_a_new_one_is_pending():
    future = FarmFuture()

    assert not future.done()
    assert not future.running()
    assert not future.cancelled()
    with pytest.raises(futures.TimeoutError):
        future.result(0)
    with pytest.raises(futures.TimeoutError):
        future.exception(0)


def test_a_result_stays():
    """P7: the same object, however often it is asked for."""
    future, value = FarmFuture(), object()
    future.set_result(value)

    assert future.done()
    assert future.result() is value
    assert future.result(0) is value
    assert future.exception() is None


def test_an_exception_is_raised_each_time():
    """P10"""
    future = FarmFuture()
    future.set_exception(ValueError("no"))

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            future.result()
    assert isinstance(future.exception(), ValueError)


def test_who_waits_is_woken():
    future = FarmFuture()
    timer = later(future.set_result, 5)

    assert future.result(LIMIT) == 5
    timer.join()


def test_several_wait_for_one():
    future, got = FarmFuture(), []
    threads = [threading.Thread(target=lambda: got.append(future.result(LIMIT))) for _ in range(5)]
    for thread in threads:
        thread.start()
    future.set_result(1)
    for thread in threads:
        thread.join()

    assert got == [1] * 5


def test_it_can_be_set_once():
    future = FarmFuture()
    future.set_result(1)

    with pytest.raises(futures.InvalidStateError):
        future.set_result(2)
    with pytest.raises(futures.InvalidStateError):
        future.set_exception(ValueError())
    assert future.result() == 1


def test_wait_and_as_completed_find_what_they_use():
    done, pending = FarmFuture(), FarmFuture()
    done.set_result(1)

    assert futures.wait([done, pending], 0) == ({done}, {pending})
    timer = later(pending.set_result, 2)
    assert [f.result() for f in futures.as_completed([done, pending], LIMIT)] == [1, 2]
    timer.join()


def test_wait_for_the_first_exception():
    first, second = FarmFuture(), FarmFuture()
    timer = later(second.set_exception, ValueError())

    finished, _ = futures.wait([first, second], LIMIT, futures.FIRST_EXCEPTION)

    timer.join()
    assert finished == {second}


def test_callbacks_are_called_in_order_and_at_once_when_done():
    future, called = FarmFuture(), []
    future.add_done_callback(lambda f: called.append(("first", f.result())))
    future.add_done_callback(lambda f: called.append(("second", f.result())))
    future.set_result(3)
    future.add_done_callback(lambda f: called.append(("late", f.result())))

    assert called == [("first", 3), ("second", 3), ("late", 3)]


def test_a_callback_may_use_its_future():
    """The lock is not held, or may be taken again."""
    future, got = FarmFuture(), []
    future.add_done_callback(lambda f: got.append((f.done(), f.result(), f.cancel())))
    future.set_result(1)

    assert got == [(True, 1, False)]


def test_cancel_without_a_task_is_the_standard_one():
    future = FarmFuture()

    assert future.cancel()
    assert future.cancelled()
    with pytest.raises(futures.CancelledError):
        future.result()


def test_a_cancelled_one_tells_who_waits():
    future = FarmFuture()
    timer = later(future.finish_cancelled)

    done, _ = futures.wait([future], LIMIT)

    timer.join()
    assert done == {future}
    assert future.cancelled()


def test_to_finish_as_cancelled_twice_changes_nothing():
    future, called = FarmFuture(), []
    future.add_done_callback(called.append)

    future.finish_cancelled()
    future.finish_cancelled()

    assert called == [future]


def test_running_then_done():
    future = FarmFuture()

    assert future.set_running_or_notify_cancel()
    assert future.running()
    assert not future.cancel()
    future.set_result(1)
    assert not future.running()


def test_asyncio_can_wait_for_it():
    async def main():
        future = FarmFuture()
        timer = later(future.set_result, 7)
        value = await asyncio.wait_for(asyncio.wrap_future(future), LIMIT)
        timer.join()
        return value

    assert asyncio.run(main()) == 7


def test_it_cannot_be_sent():
    """P9: in a sentence, not as a lock that cannot be pickled."""
    with pytest.raises(TypeError, match=r"result\(\)"):
        pickle.dumps(FarmFuture())


def test_repr_as_the_standard_one():
    future = FarmFuture()
    assert "state=pending" in repr(future)
    future.set_result(1)
    assert "state=finished returned int" in repr(future)


def test_several_wait_and_all_are_told():
    future, got = FarmFuture(), []
    threads = [threading.Thread(target=lambda: got.append(future.result(LIMIT))) for _ in range(3)]
    threads.append(threading.Thread(target=lambda: got.append(future.exception(LIMIT))))
    for thread in threads:
        thread.start()
    later(future.set_result, 7)
    for thread in threads:
        thread.join(LIMIT)

    assert sorted(map(str, got)) == ["7", "7", "7", "None"]


def test_who_waits_is_told_of_a_cancellation_by_whoever():
    for cancel in (FarmFuture.cancel, FarmFuture.finish_cancelled):
        future = FarmFuture()
        later(cancel, future)
        with pytest.raises(futures.CancelledError):
            future.result(LIMIT)
        with pytest.raises(futures.CancelledError):
            future.exception(LIMIT)


def test_waiting_in_vain_leaves_nothing_behind():
    future = FarmFuture()
    for _ in range(3):
        with pytest.raises(futures.TimeoutError):
            future.result(0.001)
    with pytest.raises(futures.TimeoutError):
        future.exception(-1)

    assert not future.watchers().gates
    future.set_exception(ValueError("no"))
    assert isinstance(future.exception(0), ValueError)
