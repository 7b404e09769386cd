"""What follows when workers do not start."""

from __future__ import annotations

import errno
import signal

import pytest

from remote_executor.core.service import (
    FIRST_PAUSE,
    LAST_PAUSE,
    MAX_KILLED,
    MAX_TRIES,
    FailedStart,
    GiveUp,
    Pause,
    Starts,
    StartStage,
    StartState,
    errno_words,
)

NO_PROCESS = FailedStart(StartStage.MADE, "fork failed with EAGAIN", errno.EAGAIN)
DIED = FailedStart(StartStage.PREPARED, "it ended with exit code 1", status=1)
KILLED = FailedStart(StartStage.PREPARED, "it was killed", status=-signal.SIGKILL)
IN_INITIALIZER = FailedStart(StartStage.INITIALIZED, "it ended with exit code 5", status=5)


@pytest.fixture
def starts():
    return Starts()


def fail(starts, failure=NO_PROCESS, *, initializer=False, others=0, now=0.0):
    """Fail at the time ``now``, counted in pauses of the longest kind."""
    found = starts.failed(failure, initializer, others, now * LAST_PAUSE)
    starts.check()
    return found


def test_the_next_try_comes_after_a_pause_that_doubles_up_to_a_limit(starts):
    pauses = [fail(starts, others=1, now=now).until - now * LAST_PAUSE for now in range(2000)]

    assert pauses[:3] == pytest.approx([FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE])
    assert pauses[-1] == LAST_PAUSE
    assert starts.state is StartState.FAILING


def test_it_gives_up_after_the_last_try_and_says_what_failed_and_the_cure(starts):
    for now in range(MAX_TRIES - 1):
        assert type(fail(starts, now=now)) is Pause

    found = fail(starts, now=MAX_TRIES)

    assert found == GiveUp(
        f"fork failed with EAGAIN, {MAX_TRIES} times in {MAX_TRIES * LAST_PAUSE} s; raise the "
        "limit of processes there (ulimit -u, or pids.max of its cgroup)",
        initializer=False,
    )
    assert starts.state is StartState.GIVEN_UP


def test_all_tries_together_take_some_seconds(starts):
    now = 0.0
    while type(found := fail(starts, now=now / LAST_PAUSE)) is Pause:
        now = found.until
    assert 4 < now < 10


def test_many_that_fail_at_once_are_one_failure(starts):
    assert {fail(starts) for _ in range(100)} == {Pause(FIRST_PAUSE)}
    assert fail(starts, now=1) == Pause(LAST_PAUSE + 2 * FIRST_PAUSE)


def test_with_another_worker_there_is_no_last_try(starts):
    for now in range(10 * MAX_TRIES):
        assert type(fail(starts, others=1, now=now)) is Pause


def test_a_start_that_went_well_ends_the_count(starts):
    for first in range(0, 100, 10):
        for now in range(MAX_TRIES - 1):
            assert type(fail(starts, now=first + now)) is Pause
        starts.ready()
        starts.check()
    assert starts.state is StartState.GOING


def test_those_that_somebody_kills_get_more_tries(starts):
    for now in range(MAX_KILLED - 1):
        assert type(fail(starts, KILLED, now=now)) is Pause
    assert type(fail(starts, KILLED, now=MAX_KILLED)) is GiveUp


def test_an_initializer_that_ends_its_worker_is_to_blame_at_once(starts):
    assert fail(starts, IN_INITIALIZER, initializer=True, others=3) == GiveUp(
        "it ended with exit code 5", initializer=True
    )


@pytest.mark.parametrize("failure", [NO_PROCESS, DIED])
def test_an_initializer_is_not_to_blame_for_what_came_before_it(starts, failure):
    assert type(fail(starts, failure, initializer=True)) is Pause


def test_without_an_initializer_none_is_to_blame(starts):
    found = [fail(starts, IN_INITIALIZER, now=now) for now in range(MAX_TRIES)]
    assert type(found[0]) is Pause
    assert found[-1].initializer is False


def test_nothing_follows_once_it_was_given_up(starts):
    fail(starts, IN_INITIALIZER, initializer=True)

    assert fail(starts) is None
    starts.ready()

    assert starts.state is StartState.GIVEN_UP
    starts.check()


def test_words_for_what_the_system_says():
    assert errno_words(errno.EMFILE) == "EMFILE: Too many open files"
    assert errno_words(None) == "an unknown error"
    assert errno_words(99999).startswith("99999: ")
