"""Channels, on every engine."""

from __future__ import annotations

import functools
import pickle
import threading
from concurrent.futures import CancelledError, TimeoutError

import pytest

from remote_executor import FarmExecutor, TaskKilled, UnsupportedError
from remote_executor.parallel import Channel, readers
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


@pytest.mark.parametrize("wrong", [-1, 1.5, "many", True])
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


# ------------------------------------------------------------------------- room and time


@pytest.fixture
def hasty(monkeypatch):
    """Have a submit lose hope soon: in a process of tests there are threads of all sorts."""
    monkeypatch.setattr(readers, "DOUBTFUL_SECONDS", 0.3)


@pytest.mark.parametrize("maxsize", [1, 3])
def test_a_submit_that_could_never_go_on_raises(kernel, hasty, maxsize):
    channel = Channel(maxsize=maxsize)
    for number in range(maxsize):
        channel.submit(abs, -number)

    with pytest.raises(RuntimeError, match=rf"full: {maxsize} of {maxsize} .*for ever"):
        channel.submit(abs, 4)

    assert sorted(channel) == list(range(maxsize))
    channel.submit(abs, -5)
    assert channel.receive() == 5


def test_a_value_without_a_task_takes_room_until_it_is_received(kernel, hasty):
    channel = Channel(maxsize=1)
    timer = channel.submit_timeout(999)
    assert channel.cancel_timeout(timer, "came")

    with pytest.raises(RuntimeError, match="full: 1 of 1"):
        channel.submit(abs, -1)

    assert len(channel) == 1
    assert channel.receive() == "came"
    channel.submit(abs, -1)
    assert list(channel) == [1]


def test_a_submit_waits_for_a_thread_that_has_yet_to_receive(kernel, hasty):
    """However long that takes: it was started since there is the channel."""
    channel = Channel(maxsize=1)
    go, received = threading.Event(), []

    def receive():
        go.wait(LIMIT)
        received.extend(channel.receive_many(3))

    thread = threading.Thread(target=receive)
    thread.start()
    timer = threading.Timer(1.0, go.set)  # more than three times as long as the hasty wait
    timer.start()
    for number in range(3):
        channel.submit(abs, -number)
    thread.join(LIMIT)
    timer.join(LIMIT)

    assert received == [0, 1, 2]


def test_a_submit_waits_for_who_has_made_the_channel(kernel, hasty):
    channel = Channel(maxsize=1)
    errors = []

    def submit():
        try:
            for number in range(3):
                channel.submit(abs, -number)
        except RuntimeError as exc:
            errors.append(exc)

    thread = threading.Thread(target=submit)
    thread.start()
    thread.join(1.0)

    assert [channel.receive(LIMIT) for _ in range(3)] == [0, 1, 2]
    thread.join(LIMIT)
    assert errors == []


def test_a_submit_waits_no_longer_than_it_is_told(kernel):
    channel = Channel(maxsize=1)
    channel.submit(tasks.late, 0, "first", timeout=0.1)

    for seconds in (0, 0.1):
        with pytest.raises(TimeoutError, match="no room in time: 1 of 1"):
            channel.submit(abs, -1, timeout=seconds)

    assert list(channel) == ["first"]
    channel.submit(abs, -1, timeout=0)
    channel_without_limit = Channel()
    channel_without_limit.submit(abs, -2, timeout=0)
    assert list(channel) + list(channel_without_limit) == [1, 2]


def test_a_task_may_have_a_timeout_of_its_own(kernel):
    for channel in (Channel(), Channel(maxsize=9)):
        channel.submit(tasks.keywords, timeout=3, size=1)
        assert channel.receive() == {"timeout": 3, "size": 1}


def test_receive_waits_no_longer_than_it_is_told(channel):
    for seconds in (0, 0.1):
        with pytest.raises(TimeoutError, match="nothing came"):
            channel.receive(timeout=seconds)

    channel.submit(tasks.late, 0.2, "late")
    assert channel.receive(LIMIT) == "late"
    with pytest.raises(TypeError, match="timeout must be a number"):
        channel.receive("soon")


def test_a_task_that_timed_out_is_no_timeout_of_the_channel(channel):
    channel.submit(raise_timeout)
    with pytest.raises(TimeoutError, match="the task's own"):
        channel.try_receive(LIMIT)


def raise_timeout():
    raise TimeoutError("the task's own")


def test_to_try_without_a_limit_is_to_receive(channel):
    channel.submit(tasks.late, 0.2, "late")

    assert channel.try_receive(None) == ("late", True)


def test_its_length_is_how_many_are_still_to_be_received(channel):
    assert len(channel) == 0
    for number in range(5):
        channel.submit(abs, -number)
    assert len(channel) == channel.outstanding == 5
    channel.receive()
    assert len(channel) == 4
    list(channel)
    assert len(channel) == 0


def cancels_what_runs(kernel):
    """Whether its futures can be cancelled while their tasks run, as Dask's can."""
    return type(kernel.executor).__module__.startswith("distributed")


def test_what_is_outstanding_is_cancelled(channel, kernel, tmp_path):
    release = tmp_path / "release"
    for number in range(2):
        channel.submit(plain_tasks.hold, tmp_path / f"started {number}", release, "ran")
    for number in range(2):
        wait_until((tmp_path / f"started {number}").exists, LIMIT)
    for number in range(20):
        channel.submit(abs, -number)

    channel.cancel()
    release.touch()

    outcomes = [outcome(channel) for _ in range(22)]
    assert outcomes.count("ran") == (0 if cancels_what_runs(kernel) else 2)
    assert outcomes.count("cancelled") >= 15  # a process pool has some that wait at its workers
    assert len(channel) == 0


def outcome(channel):
    try:
        return channel.receive(LIMIT)
    except CancelledError:
        return "cancelled"
    except TaskKilled:
        return "killed"


def test_what_is_outstanding_is_killed_where_that_can_be(channel, kernel, tmp_path):
    release = tmp_path / "release"
    channel.submit(plain_tasks.hold, tmp_path / "started", release, "ran")
    wait_until((tmp_path / "started").exists, LIMIT)
    try:
        if cancels_what_runs(kernel):
            assert channel.kill() == 0
            assert outcome(channel) == "cancelled"
        elif kernel.farm is None:
            with pytest.raises(UnsupportedError, match="cannot kill tasks"):
                channel.kill()
        else:
            assert channel.kill() == 1
            assert outcome(channel) == "killed"
    finally:
        release.touch()
    ran = kernel.farm is None and not cancels_what_runs(kernel)
    assert list(channel) == (["ran"] if ran else [])
    assert channel.kill() == 0


def test_a_block_leaves_nothing_behind(kernel, tmp_path):
    release = tmp_path / "release"
    with Channel() as channel:
        for number in range(2):
            channel.submit(plain_tasks.hold, tmp_path / f"started {number}", release, "ran")
        for number in range(2):
            wait_until((tmp_path / f"started {number}").exists, LIMIT)
        queued = [channel.submit(abs, -number) for number in range(20)]
        channel.submit_timeout(0, "came")
        assert channel.receive(LIMIT) == "came"

    with pytest.raises(RuntimeError, match="block was left"):
        channel.submit(abs, 1)
    if kernel.farm is None:
        release.touch()
    outcomes = [outcome(channel) for _ in range(22)]
    if not cancels_what_runs(kernel):
        assert outcomes.count("ran" if kernel.farm is None else "killed") == 2
    assert sum(each.cancelled() for each in queued) >= 15


@pytest.mark.parametrize("wrong", [-1, 4, True])
def test_the_number_of_results_is_said_by_name(kernel, wrong):
    with pytest.raises(TypeError, match=r"executor must be .*maxsize="):
        Channel(wrong)
