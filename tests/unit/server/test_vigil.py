"""Who waits awake, and for how long."""

from __future__ import annotations

import pytest

from remote_executor.server import vigil
from remote_executor.server.vigil import Vigil


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [100.0]
    monkeypatch.setattr(vigil, "perf_counter", lambda: now[0])
    return now


def brisk(clock):
    keeper = Vigil()
    keeper.keep(lambda: None)
    clock[0] += vigil.SECONDS / 2
    keeper.end()
    return keeper


def test_the_first_wait_is_not_kept_awake(clock):
    looks = []

    assert Vigil().keep(lambda: looks.append(1)) is None
    assert looks == []


def test_after_a_short_wait_it_stays_awake_until_something_comes(clock):
    answers = iter([[], [], ["it"]])

    assert brisk(clock).keep(lambda: next(answers)) == ["it"]


def test_it_goes_to_sleep_after_a_moment_and_then_at_once(clock):
    keeper, looks = brisk(clock), []

    def look():
        looks.append(1)
        clock[0] += vigil.SECONDS / 4

    assert keeper.keep(look) is None
    assert 3 <= len(looks) <= 5
    clock[0] += 1.0
    keeper.end()
    assert keeper.keep(look) is None
    assert len(looks) <= 5
