"""The words of ``options(retry=)``."""

from __future__ import annotations

import concurrent.futures

import pytest

from remote_executor.retry import Retry, RetryState, wait_exponential, wait_fixed, wait_random


def state(number, error=None):
    return RetryState(error or OSError("x"), number)


def test_so_many_more_times():
    retry = Retry(times=2, wait=1)

    assert [retry.seconds(state(n)) for n in (1, 2, 3)] == [1.0, 1.0, None]
    assert Retry(times=0, wait=1).seconds(state(1)) is None


@pytest.mark.parametrize(
    ("on", "error", "meant"),
    [
        (OSError, ConnectionError(), True),
        (OSError, ValueError(), False),
        ((OSError, ValueError), ValueError(), True),
        ((), ValueError(), False),
        (lambda error: "again" in str(error), ValueError("again"), True),
        (lambda error: "again" in str(error), ValueError("no"), False),
        (Exception, SystemExit(), False),
        (BaseException, SystemExit(), True),
        (concurrent.futures.TimeoutError, concurrent.futures.TimeoutError(), True),
    ],
)
def test_after_which_errors(on, error, meant):
    assert (Retry(on=on, wait=0).seconds(state(1, error)) is not None) is meant


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"times": -1}, ValueError),
        ({"times": 1.5}, TypeError),
        ({"on": 5}, TypeError),
        ({"on": (OSError, 5)}, TypeError),
        ({"on": int}, TypeError),
        ({"wait": -1}, ValueError),
        ({"wait": "1"}, TypeError),
        ({"wait": True}, TypeError),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(arguments, error):
    with pytest.raises(error):
        Retry(**arguments)


def test_waits_grow_and_have_a_top():
    wait = wait_exponential(0.5, max=3, min=0.7, jitter=0)

    assert [wait(state(n)) for n in (1, 2, 3, 4, 100_000)] == [0.7, 1.0, 2.0, 3.0, 3.0]


def test_jitter_leaves_a_part_out():
    waits = {wait_exponential(1, jitter=0.5)(state(3)) for _ in range(100)}

    assert len(waits) > 50
    assert all(2 <= each <= 4 for each in waits)
    with pytest.raises(ValueError, match="jitter must be from 0 to 1"):
        wait_exponential(jitter=2)


def test_other_waits():
    assert wait_fixed(2)(state(9)) == 2
    assert all(1 <= wait_random(1, 2)(state(1)) <= 2 for _ in range(100))
    assert Retry(wait=lambda state: state.attempt_number * 10).seconds(state(3)) == 30
    assert (
        Retry(wait=lambda state: state.outcome.exception().errno).seconds(state(1, OSError(7, "x")))
        == 7
    )


def test_a_wait_that_is_no_number_is_an_error():
    with pytest.raises(TypeError, match="wait must be a number of seconds"):
        Retry(wait=lambda state: None).seconds(state(1))


def test_conditions_and_waits_of_tenacity_are_given_the_state():
    class retry_if_message:  # noqa: N801 - as tenacity has it
        __module__ = "tenacity.retry"

        def __call__(self, state):
            return state.outcome.failed and "again" in str(state.outcome.exception())

    retry = Retry(on=retry_if_message(), wait=0)

    assert retry.seconds(state(1, ValueError("again"))) == 0
    assert retry.seconds(state(1, ValueError("no"))) is None
    with pytest.raises(ValueError, match="again"):
        state(1, ValueError("again")).outcome.result()


def test_they_show_what_they_are():
    assert repr(Retry(2, OSError, wait_exponential(1))) == (
        "Retry(times=2, on=<class 'OSError'>, wait=wait_exponential(1, max=3600, jitter=0.5))"
    )
    assert repr(wait_random(0, 1)) == "wait_random(0, 1)"
    assert "attempt=2" in repr(state(2))
