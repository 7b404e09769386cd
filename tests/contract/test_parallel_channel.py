"""Channels, on every engine."""

from __future__ import annotations

import functools
import pickle
import threading
from concurrent.futures import CancelledError

import pytest

from remote_executor import FarmExecutor
from remote_executor.parallel import Channel
from tests.support import parallel_tasks as tasks
from tests.support import tasks as plain_tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(30)
SEVERAL = 200


@pytest.fixture
def channel(kernel):
    return Channel()


def test_results_come_in_order_of_completion(channel):
    """K49."""
    channel.submit(tasks.late, 0.3, "late")
    channel.submit(tasks.late, 0.0, "soon")

    assert [channel.receive(), channel.receive()] == ["soon", "late"]


def test_many_one_by_one_and_many_at_once(channel):
    """K50, K51, K74."""
    for number in range(SEVERAL):
        channel.submit(abs, -number)
        assert channel.receive() == number
    for number in range(SEVERAL):
        channel.submit(abs, -number)

    assert sorted(channel.receive_many(SEVERAL)) == list(range(SEVERAL))
    assert channel.outstanding == 0


def test_squares_of_a_loop_variable(channel):
    """K71: each submit has its own value."""
    for number in range(4):
        channel.submit(functools.partial(tasks.square, number))

    assert sorted(channel) == [0, 1, 4, 9]


def test_an_error_is_raised_once_and_the_channel_goes_on(channel):
    """K18."""
    for _ in range(5):
        channel.submit(tasks.fail, 1)
        with pytest.raises(ValueError, match="failed with 1"):
            channel.receive()
    assert channel.try_receive() == (None, False)

    channel.submit(abs, -3)
    assert channel.receive() == 3


def test_none_is_told_from_nothing(channel):
    """K46, K77."""
    assert channel.try_receive() == (None, False)

    channel.submit(tasks.late, 0, None)
    assert channel.try_receive(LIMIT) == (None, True)

    assert channel.try_receive() == (None, False)


def test_a_result_that_is_late_is_not_lost(channel):
    """K47, K48, K77."""
    future = channel.submit(tasks.late, 0.3, 99)

    assert channel.try_receive(0.05) == (None, False)

    future.result(LIMIT)
    assert channel.try_receive(LIMIT) == (99, True)


def test_a_cancelled_task_delivers(channel):
    """A loop that counts never hangs."""
    futures = [channel.submit(tasks.late, 0.1, number) for number in range(10)]
    cancelled = sum(future.cancel() for future in reversed(futures))

    outcomes = []
    for _ in range(10):
        try:
            outcomes.append(channel.receive())
        except CancelledError:
            outcomes.append("cancelled")

    assert outcomes.count("cancelled") == cancelled
    assert cancelled > 0


def test_iteration_stops_when_nothing_is_outstanding(channel):
    assert list(channel) == []
    for number in range(5):
        channel.submit(abs, -number)

    assert sorted(channel) == [0, 1, 2, 3, 4]
    assert list(channel) == []


def test_two_threads_iterate_and_both_end(channel):
    for number in range(50):
        channel.submit(abs, -number)
    seen = []
    threads = [threading.Thread(target=lambda: seen.extend(channel)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)

    assert sorted(seen) == list(range(50))


def test_a_channel_of_capacity_one_takes_three_results(kernel):
    """K76: the submitter is held back, and nothing is lost."""
    channel = Channel(maxsize=1)
    submitted = []

    def submit():
        for number in (1, 2, 3):
            channel.submit(abs, number)
            submitted.append(number)

    thread = threading.Thread(target=submit)
    thread.start()
    wait_until(lambda: submitted == [1], LIMIT)
    assert thread.is_alive()

    assert sorted(channel.receive_many(3)) == [1, 2, 3]
    thread.join(LIMIT)
    assert channel.try_receive() == (None, False)


def test_a_refused_task_takes_no_room(kernel):
    channel = Channel(maxsize=1)
    for _ in range(3):
        with pytest.raises(TypeError):
            channel.submit(42)

    channel.submit(abs, -1)
    assert channel.receive() == 1


@pytest.mark.parametrize("wrong", [-1, 1.5, "many"])
def test_wrong_sizes(kernel, wrong):
    with pytest.raises((TypeError, ValueError), match="maxsize"):
        Channel(maxsize=wrong)
    with pytest.raises((TypeError, ValueError), match="n must"):
        list(Channel().receive_many(wrong))


def test_a_timer_uses_no_worker_and_comes_in_its_time(channel):
    """K44, K90: a task's 3 comes first."""
    timer = channel.submit_timeout(0.2, "timeout")
    channel.submit(int, 3)

    assert [channel.receive(), channel.receive()] == [3, "timeout"]
    assert not channel.cancel_timeout(timer, "too late")
    assert channel.try_receive() == (None, False)


def test_a_cancelled_timer_delivers_at_once_and_once(channel):
    """K45, K90."""
    timer = channel.submit_timeout(999, "timeout")

    assert channel.cancel_timeout(timer, "cancelled")
    assert not channel.cancel_timeout(timer, "again")

    assert channel.try_receive() == ("cancelled", True)
    assert channel.try_receive() == (None, False)


def test_a_channel_does_not_travel(channel):
    with pytest.raises(TypeError, match="Channel cannot be sent"):
        pickle.dumps(channel)


def test_its_words(channel):
    channel.submit(abs, 1)
    assert repr(channel).startswith("<Channel outstanding=1 on <Kernel 'contract'")
    list(channel)


def test_waiting_in_a_done_callback_is_refused(tmp_path):
    """It runs in the thread that brings what it would wait for."""
    errors = []
    with FarmExecutor(1) as executor:
        channel = Channel(executor)

        def receive(_):
            try:
                channel.receive()
            except RuntimeError as exc:
                errors.append(str(exc))

        running = executor.submit(plain_tasks.hold, tmp_path / "started", tmp_path / "release")
        running.add_done_callback(receive)
        (tmp_path / "release").touch()

    assert "must not wait" in errors[0]
