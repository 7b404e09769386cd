"""Calls that are made later, by one thread that comes and goes."""

from __future__ import annotations

import queue
import threading

import pytest

from remote_executor.parallel import timers
from remote_executor.parallel.timers import after
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)


def timer_threads():
    return [each for each in threading.enumerate() if each.name == "remote_executor timers"]


def test_calls_are_made_in_order_of_time():
    made = queue.SimpleQueue()

    after(0.05, made.put, "later")
    after(0.0, made.put, "now")
    after(0.02, made.put, "soon")

    assert [made.get(timeout=LIMIT) for _ in range(3)] == ["now", "soon", "later"]


def test_one_thread_makes_all_calls_and_ends():
    made = queue.SimpleQueue()
    for _ in range(100):
        after(0.01, lambda: made.put(threading.current_thread()))

    assert len({made.get(timeout=LIMIT) for _ in range(100)}) == 1
    wait_until(lambda: not timer_threads(), LIMIT)

    after(0, made.put, "again")
    assert made.get(timeout=LIMIT) == "again"


def test_a_timer_is_claimed_once():
    made = queue.SimpleQueue()
    timer = after(3600, made.put, "never")

    assert timer.claim()
    assert not timer.claim()
    timer.run()
    assert made.empty()


def test_a_timer_that_ran_cannot_be_claimed():
    made = queue.SimpleQueue()
    timer = after(0, made.put, "done")
    made.get(timeout=LIMIT)

    assert not timer.claim()


def test_an_error_does_not_end_the_others(caplog):
    made = queue.SimpleQueue()

    after(0, lambda: 1 / 0)
    after(0.01, made.put, "still here")

    assert made.get(timeout=LIMIT) == "still here"
    assert "a timer's call failed" in caplog.text


@pytest.fixture(autouse=True)
def _fresh_clock(monkeypatch):
    """Far timers of these tests do not keep the thread that others look for."""
    clock = timers._Clock()
    monkeypatch.setattr(timers, "_clock", clock)
    yield
    for timer in [entry[2] for entry in clock.waiting]:
        timer.claim()
    wait_until(lambda: clock.turns.holder() is None, LIMIT)
