"""Tasks that are tried again: what the next try knows, and the time that they wait."""

from __future__ import annotations

import pytest

from remote_executor.client.retry import MAX_LINES, Delays, Retrying
from remote_executor.core.scheduler import Scheduler
from remote_executor.core.tasks import Task, TaskState
from remote_executor.errors import PayloadError
from remote_executor.retry import Retry
from remote_executor.task_errors import NoServerError, TaskKilled


def failed_task(retrying):
    task = Task(1, None, None, b"")
    task.retrying = retrying
    return task


def run_out(retry, error):
    """Fail until there is no other try; return the last error and how many tries there were."""
    retrying = Retrying(retry)
    while True:
        task = failed_task(retrying)
        last = error()
        following = retrying.failed(task, last, 7, "node1")
        if following is None:
            return last, retrying.tries + 1
        _, retrying = following


def test_the_last_error_has_the_earlier_ones_as_notes():
    numbers = iter(range(1, 9))
    last, tries = run_out(Retry(2, wait=0), lambda: OSError(f"no. {next(numbers)}"))

    assert tries == 3
    assert str(last) == "no. 3"
    assert last.__notes__ == [
        "attempt 1 in worker 7 on node1 failed: OSError: no. 1",
        "attempt 2 in worker 7 on node1 failed: OSError: no. 2",
    ]


def test_of_many_tries_the_last_ones_are_told():
    numbers = iter(range(1, 99))
    last, _ = run_out(Retry(50, wait=0), lambda: OSError(f"no. {next(numbers)}"))

    assert len(last.__notes__) == MAX_LINES
    assert "no. 50" in last.__notes__[-1]


@pytest.mark.parametrize(
    "error",
    [TaskKilled("t"), NoServerError(["a"], "gone"), PayloadError("x", "y")],
    ids=lambda error: type(error).__name__,
)
def test_what_another_try_would_not_change_is_final(error):
    retrying = Retrying(Retry(9, BaseException, 0))

    assert retrying.failed(failed_task(retrying), error, 7, "node1") is None


def test_a_condition_that_raises_ends_it_and_is_told():
    retrying = Retrying(Retry(9, lambda error: error.absent, 0))
    error = ValueError("x")

    assert retrying.failed(failed_task(retrying), error, 7, "node1") is None
    assert "has raised AttributeError" in error.__notes__[0]


def test_an_error_whose_text_raises_is_told_without_it():
    class Mute(Exception):
        def __str__(self):
            raise KeyError

    last, _ = run_out(Retry(1, wait=0), Mute)

    assert "Mute: <str() of it raises KeyError>" in last.__notes__[0]


def test_a_batch_knows_of_each_of_its_items():
    one, two = Retrying(Retry()), Retrying(Retry())
    batch = Retrying.of_batch([one, two])

    assert batch.at(1) is two
    assert one.at(5) is one


class Loop:
    """A clock and one timer."""

    def timer(self, callback):
        self.callback, self.when = callback, None
        return self

    def at(self, when):
        self.when = when


@pytest.fixture
def scheduler():
    made = Scheduler()
    made.server_up(made.add_server("a", "a"), 1)
    return made


def test_a_task_waits_outside_of_the_queue(scheduler):
    loop = Loop()
    delays = Delays(loop, scheduler)
    late, soon = (Task(scheduler.next_id(), None, None, b"") for _ in range(2))
    delays.park(late, 100.0)
    delays.park(soon, 10.0)
    scheduler.check()
    assert scheduler.unsettled == 2
    assert not scheduler.fill(0.0)

    loop.callback(loop.when)

    assert scheduler.fill(0.0)[0][1] == [soon]
    scheduler.check()
    assert len(delays) == 1
    loop.callback(loop.when)
    assert not scheduler.parked


def test_no_wait_is_no_wait(scheduler):
    task = Task(scheduler.next_id(), None, None, b"")
    Delays(Loop(), scheduler).park(task, 0)

    assert scheduler.fill(0.0)[0][1] == [task]


def test_what_was_cancelled_meanwhile_stays_so(scheduler):
    loop = Loop()
    task = Task(scheduler.next_id(), None, None, b"")
    Delays(loop, scheduler).park(task, 10.0)
    assert scheduler.drop(task)
    scheduler.check()

    loop.callback(loop.when)

    assert task.state is TaskState.SETTLED
    assert not scheduler.fill(0.0)
    scheduler.check()
