"""How often something may be said."""

from __future__ import annotations

from remote_executor.core.rate import RateLimit


def test_a_few_are_said_and_the_rest_is_counted():
    limit = RateLimit(3, 60.0)

    assert [limit.admits(now / 10) for now in range(10)] == [True] * 3 + [False] * 7
    assert limit.deadline() == 60.0
    assert limit.take_left_out() == 7
    assert limit.take_left_out() == 0
    assert limit.deadline() is None


def test_after_a_period_a_few_more_are_said():
    limit = RateLimit(1, 60.0)

    assert limit.admits(0.0)
    assert not limit.admits(59.9)
    assert limit.admits(60.0)
    assert not limit.admits(119.9)
    assert limit.admits(1000.0)
    assert limit.take_left_out() == 2


def test_what_comes_slowly_is_all_said():
    limit = RateLimit(2, 60.0)

    assert all(limit.admits(now * 60.0) for now in range(100))
    assert limit.deadline() is None
