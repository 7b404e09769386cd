"""Tasks that belong together, on an executor whose futures the test settles."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Executor, Future, TimeoutError

import pytest

from remote_executor.client.waits import IOThread
from remote_executor.parallel.kernel import Kernel
from remote_executor.parallel.work import Work
from tests.support.scale import scaled
from tests.support.waiting import wait_until


class ByHand(Executor):
    """An executor whose tasks are done when the test says so; it can kill, too."""

    _max_workers = 2

    def __init__(self):
        self.futures = []
        self.killed = []

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.futures.append(future)
        return future

    def options(self, **options):
        return self

    def cancel_all(self, futures):
        for future in futures:
            future.cancel()

    def kill(self, future):
        self.killed.append(future)
        return True

    def kill_tasks(self, category, dry_run=False):
        return 0

    def task_categories_running(self):
        return []

    def broadcast(self, fn, /, *args, **kwargs):
        return []


@pytest.fixture
def executor():
    return ByHand()


@pytest.fixture
def work(executor):
    work = Work(Kernel(executor), scaled(20))
    for _ in range(4):
        work.submit(abs, 0)
    return work


def test_results_come_in_order_whatever_the_completion(work, executor):
    for index in (2, 0, 3, 1):
        executor.futures[index].set_result(index)

    with work:
        assert list(work.in_order()) == [0, 1, 2, 3]


def test_results_come_as_they_are_done(work, executor):
    for index in (2, 0, 3, 1):
        executor.futures[index].set_result(f"r{index}")

    with work:
        assert list(work.as_completed()) == [(2, "r2"), (0, "r0"), (3, "r3"), (1, "r1")]


def test_the_first_error_in_order_wins_and_what_comes_after_is_cancelled(work, executor):
    """C44: part 2 fails first in time, part 1 first in order."""
    executor.futures[2].set_exception(ValueError("part 2"))
    executor.futures[0].set_result("fine")
    executor.futures[1].set_exception(KeyError("part 1"))

    with pytest.raises(KeyError, match="part 1"), work:
        list(work.in_order())

    assert executor.futures[3].cancelled()
    assert executor.killed == []


def test_a_result_can_make_those_after_it_superfluous(work, executor):
    executor.futures[2].set_result("ends")
    executor.futures[0].set_result("a")
    executor.futures[1].set_result("b")

    with work:
        assert list(work.in_order("ends".__eq__)) == ["a", "b", "ends"]

    assert executor.futures[3].cancelled()


def test_an_answer_before_a_failure_in_order_still_counts(work, executor):
    executor.futures[2].set_exception(KeyError("part 2"))
    executor.futures[0].set_result("a")
    executor.futures[1].set_exception(ValueError("part 1"))

    answers = work.answers()
    with work:
        assert next(answers) == (0, "a")
        with pytest.raises(ValueError, match="part 1"):
            next(answers)

    assert executor.futures[3].cancelled()


def test_an_answer_after_a_failure_in_order_counts_if_it_comes_first(work, executor):
    for index in (3, 1, 2, 0):
        if index == 1:
            executor.futures[index].set_exception(ValueError("part 1"))
        else:
            executor.futures[index].set_result(index)

    answers = work.answers()
    with work:
        assert next(answers) == (3, 3)
        assert next(answers) == (0, 0)  # part 2 counts no more
        with pytest.raises(ValueError, match="part 1"):
            next(answers)


def test_a_cancelled_part_is_an_error(work, executor):
    executor.futures[0].cancel()

    with pytest.raises(CancelledError), work:
        list(work.in_order())

    assert all(future.cancelled() for future in executor.futures)


def test_a_timeout_cancels_what_waits_and_kills_what_runs(executor):
    work = Work(Kernel(executor), 0.01)
    work.submit(abs, 0)
    work.submit(abs, 0)
    executor.futures[0].set_running_or_notify_cancel()

    with pytest.raises(TimeoutError, match="2 of 2 parts"), work:
        list(work.in_order())

    assert executor.futures[1].cancelled()
    wait_until(lambda: executor.killed == [executor.futures[0]], scaled(20))


def test_an_early_answer_kills_what_is_not_needed_unless_it_ends_soon(work, executor):
    for future in executor.futures[1:3]:
        future.set_running_or_notify_cancel()
    executor.futures[0].set_result("found")

    with work:
        assert next(work.as_completed()) == (0, "found")
    executor.futures[1].set_result("in time")

    assert executor.futures[3].cancelled()
    wait_until(lambda: executor.killed == [executor.futures[2]], scaled(20))


def test_an_error_of_a_part_kills_nobody(work, executor):
    executor.futures[1].set_running_or_notify_cancel()
    executor.futures[0].set_exception(ValueError("first"))

    with pytest.raises(ValueError, match="first"), work:
        next(work.as_completed())

    assert not executor.killed
    assert executor.futures[3].cancelled()


def test_more_can_be_submitted_after_some_came(executor):
    work = Work(Kernel(executor), scaled(20))
    work.submit(abs, 0)
    executor.futures[0].set_result("a")
    assert list(work.in_order()) == ["a"]

    work.submit(abs, 0)
    executor.futures[1].set_result("b")

    assert list(work.in_order()) == ["b"]


def test_a_done_callback_may_not_wait(executor):
    """Its thread is the one that brings what it would wait for."""
    errors = []

    def wait_here():
        try:
            Work(Kernel(executor))
        except RuntimeError as exc:
            errors.append(exc)

    thread = IOThread(target=wait_here)
    thread.start()
    thread.join(scaled(20))

    assert "must not wait" in str(errors[0])
    assert threading.current_thread() is not thread
