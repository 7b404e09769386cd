"""Tasks that are tried again: how often, where, and what they cost meanwhile."""

from __future__ import annotations

import os
import threading
import time

import pytest

from remote_executor import (
    FarmExecutor,
    PayloadError,
    Retry,
    TaskKilled,
    TaskTimeout,
    WorkerDied,
    wait_exponential,
)
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(25)


@pytest.fixture
def ex(embedded):
    """Return an executor that the module shares."""
    return embedded


def times(path):
    """Count one more time, in a file; return how many there are."""
    with open(path, "a", encoding="ascii") as file:
        file.write("x")
    return os.path.getsize(path)


def fail_times(path, count, how="raise"):
    number = times(path)
    if number <= count:
        if how == "die":
            os._exit(3)
        if how == "sleep":
            time.sleep(LIMIT)
        raise OSError(f"no. {number}")
    return number


def fail_once(folder, i):
    if times(f"{folder}/{i}") == 1:
        raise OSError(i)
    return i


def always(path):
    times(path)
    raise OSError("always")


def test_it_is_tried_until_it_goes_well(ex, tmp_path):
    view = ex.options(retry=Retry(times=3, on=OSError, wait=0))

    assert view.submit(fail_times, tmp_path / "n", 3).result(LIMIT) == 4


def test_the_last_error_is_raised_with_the_earlier_ones_as_notes(ex, tmp_path):
    view = ex.options(retry=Retry(times=2, wait=0.01))
    error = view.submit(fail_times, tmp_path / "n", 9).exception(LIMIT)

    assert str(error) == "no. 3"
    assert (tmp_path / "n").stat().st_size == 3
    assert [note.partition(" in ")[0] for note in error.__notes__] == [
        "attempt 1",
        "attempt 2",
        "task fail_times, attempt 3, ran",
    ]
    assert "OSError: no. 1" in error.__notes__[0]


@pytest.mark.parametrize(
    ("how", "options", "error"),
    [("die", {}, WorkerDied), ("sleep", {"timeout": scaled(3), "grace": 0}, TaskTimeout)],
)
def test_tasks_that_died_or_took_too_long(own, tmp_path, how, options, error):
    view = own.options(retry=Retry(times=1, on=error, wait=0), **options)
    own.broadcast(tasks.pid)  # the time that a worker takes to start counts, too
    assert view.submit(fail_times, tmp_path / "once", 1, how).result(LIMIT) == 2

    found = view.submit(fail_times, tmp_path / "twice", 2, how).exception(LIMIT)

    assert type(found) is error
    assert (tmp_path / "twice").stat().st_size == 2


def test_other_errors_are_not_tried_again(ex, tmp_path):
    view = ex.options(retry=Retry(times=3, on=ValueError, wait=0))

    assert isinstance(view.submit(always, tmp_path / "n").exception(LIMIT), OSError)
    assert (tmp_path / "n").stat().st_size == 1


def test_nor_is_what_cannot_travel_or_was_killed(own, tmp_path):
    view = own.options(retry=Retry(times=3, on=BaseException, wait=0))
    assert isinstance(view.submit(tasks.same, threading.Lock()).exception(LIMIT), PayloadError)

    future = view.submit(tasks.hold, tmp_path / "begun", tmp_path / "go")
    tasks.wait_for(tmp_path / "begun")
    assert view.kill(future, grace=0)

    assert isinstance(future.exception(LIMIT), TaskKilled)


def test_while_it_waits_it_takes_no_slot_and_shows(tmp_path):
    with FarmExecutor(1) as ex:
        future = ex.options(retry=Retry(times=1, wait=LIMIT)).submit(always, tmp_path / "n")
        wait_until(lambda: ex.status().waiting == 1)

        assert ex.submit(pow, 2, 3).result(LIMIT) == 8
        assert future.cancel()
        assert future.cancelled()
        assert ex.status().waiting == 0


def test_what_waits_for_another_try_can_be_killed_and_ends_with_its_executor(tmp_path):
    with FarmExecutor(1) as ex:
        view = ex.options(retry=Retry(times=1, wait=LIMIT))
        killed = view.submit(always, tmp_path / "a")
        wait_until(lambda: ex.status().waiting == 1)
        assert ex.kill(killed)
        assert isinstance(killed.exception(LIMIT), TaskKilled)
        left = view.submit(always, tmp_path / "b")
        wait_until(lambda: ex.status().waiting == 1)
        ex.shutdown(cancel_futures=True)

    assert left.cancelled()


def test_a_shutdown_waits_for_another_try(tmp_path):
    with FarmExecutor(1) as ex:
        future = ex.options(retry=Retry(wait=0.2)).submit(fail_times, tmp_path / "n", 1)

    assert future.result(0) == 2


def test_the_next_try_is_on_another_server(remote):
    view = remote.options(retry=Retry(times=1, wait=0))
    errors = [view.submit(tasks.fail, str(i)).exception(LIMIT) for i in range(10)]

    for error in errors:
        first, last = (note.rpartition("(")[2].split(")")[0] for note in error.__notes__)
        assert first != last


@pytest.mark.parametrize("buffersize", [None, 50])
def test_of_a_map_each_item_that_failed_is_run_exactly_once_more(ex, tmp_path, buffersize):
    count = 500
    rows = ((str(tmp_path), i) for i in range(count))
    found = ex.starmap(fail_once, rows, retry=Retry(3, OSError, 0), buffersize=buffersize)

    assert list(found) == list(range(count))
    assert [(tmp_path / str(i)).stat().st_size for i in range(count)] == [2] * count


def some_fail_once(folder, i):
    number = times(f"{folder}/{i}")
    if i % 3 == 1 and number == 1:
        raise OSError(i)
    return i


@pytest.mark.parametrize("unordered", [False, True])
def test_those_that_went_well_are_not_run_again(ex, tmp_path, unordered):
    folder, view = [str(tmp_path)] * 300, ex.options(retry=Retry(1, OSError, 0.01))
    found = (view.map_unordered if unordered else view.map)(some_fail_once, folder, range(300))

    assert (sorted(found) if unordered else list(found)) == list(range(300))
    assert [(tmp_path / str(i)).stat().st_size for i in range(300)] == [1, 2, 1] * 100


def test_an_item_that_fails_each_time_ends_the_map_at_its_turn(ex, tmp_path):
    def fourth(i):
        if i == 4:
            always(tmp_path / "n")
        return i

    results = ex.map(fourth, range(10), retry=Retry(2, wait=0))
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(OSError, match="always") as caught:
        next(results)

    assert (tmp_path / "n").stat().st_size == 3
    assert "item 4 of" in caught.value.__notes__[-1]
    assert "attempt 3" in caught.value.__notes__[-1]
    assert len(caught.value.__notes__) == 3


def test_with_errors_returned_it_is_tried_first(ex, tmp_path):
    rows = [(tmp_path / str(i), i) for i in range(4)]
    found = list(ex.starmap(fail_times, rows, retry=Retry(2, wait=0), errors="return"))

    assert found[:3] == [1, 2, 3]
    assert isinstance(found[3], OSError)


def test_a_batch_whose_worker_died_is_tried_item_by_item(own, tmp_path):
    def third(i):
        times(tmp_path / str(i))
        if i == 2:
            os._exit(3)
        return i

    found = list(own.map(third, range(4), chunksize=4, retry=Retry(1, wait=0), errors="return"))

    assert found[:2] + found[3:] == [0, 1, 3]
    assert isinstance(found[2], WorkerDied)


def test_a_map_that_nobody_wants_any_more_is_not_tried_again(ex, tmp_path):
    results = ex.map(always, [tmp_path / "n"], retry=Retry(1, wait=LIMIT))
    wait_until(lambda: ex.status().waiting == 1)
    results.kill()

    wait_until(lambda: ex.status().waiting == 0)
    assert (tmp_path / "n").stat().st_size == 1


def test_only_a_retry_is_one(ex):
    with pytest.raises(TypeError, match=r"retry must be a remote_executor\.Retry"):
        ex.options(retry=3)
    assert "wait_exponential" in repr(ex.options(retry=Retry(wait=wait_exponential())))
