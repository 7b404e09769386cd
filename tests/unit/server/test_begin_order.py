"""A task waits until those of a higher priority have begun, and not for ever."""

from __future__ import annotations

import pytest

from remote_executor.core.pool import Give, Pool
from remote_executor.server.begin_order import ORDER_SECONDS, BeginOrder
from tests.support.pipes import FakePipes


class Farm:
    """Two workers, whose tokens are read when the test says so."""

    def __init__(self):
        self.pipes = FakePipes()
        self.pool = Pool(2, self.pipes)
        self.session = self.pool.open("s", 2)
        self.now = 0.0
        self.slept = 0
        self.begin_at = None
        self.order = BeginOrder(self.pool, self.pipes.unread, lambda: self.now, self.sleep)
        self.pool.queue(self.session, [1, 2])
        for action in self.pool.assign(0.0):
            self.pool.ready(action.worker)
        self.give()
        for worker in list(self.session.busy):
            self.pipes.claim(worker)
            self.pool.done(worker, [self.pipes.claimed.pop(worker)], 10**6, 0.0)
        self.pool.assign(0.0)

    def sleep(self, seconds):
        self.now += seconds
        self.slept += 1
        if self.begin_at is not None and self.slept >= self.begin_at:
            for worker in list(self.session.busy):
                self.pipes.claim(worker)

    def give(self):
        """Give what the pool decides; return how often each had to sleep before it was given."""
        slept = {}
        for action in self.pool.assign(self.now):
            assert isinstance(action, Give)
            before = self.slept
            if self.session.priorities:
                self.order.wait_for_turn(action.worker, action.ids[0])
            slept[action.ids[0]] = self.slept - before
            self.pipes.give(action.worker, action.ids)
        return slept


@pytest.fixture
def farm():
    return Farm()


def test_the_less_urgent_one_waits_until_the_urgent_one_has_begun(farm):
    farm.begin_at = 5
    farm.pool.queue_prior(farm.session, 10, 0)
    farm.pool.queue_prior(farm.session, 11, 1)

    assert farm.give() == {11: 0, 10: 5}


def test_also_if_it_is_given_a_moment_later(farm):
    farm.begin_at = 3
    farm.pool.queue_prior(farm.session, 11, 1)
    assert farm.give() == {11: 0}
    farm.pool.queue(farm.session, [10])
    assert farm.give() == {10: 3}


def test_not_for_ever(farm):
    farm.pool.queue_prior(farm.session, 10, 0)
    farm.pool.queue_prior(farm.session, 11, 1)
    farm.give()

    assert farm.now == pytest.approx(ORDER_SECONDS, rel=0.1)


def test_equals_do_not_wait_for_each_other(farm):
    farm.pool.queue_prior(farm.session, 10, 1)
    farm.pool.queue_prior(farm.session, 11, 1)

    assert farm.give() == {10: 0, 11: 0}


def test_the_urgent_one_does_not_wait_for_the_others(farm):
    farm.pool.queue_prior(farm.session, 10, -1)
    assert farm.give() == {10: 0}
    for worker in list(farm.session.busy):
        farm.pipes.claim(worker)
    farm.pool.queue_prior(farm.session, 11, 1)
    assert farm.give() == {11: 0}


def test_one_that_was_given_and_has_not_begun_waits_for_the_urgent_one_that_comes(farm):
    farm.begin_at = 2
    farm.pool.queue_prior(farm.session, 10, -1)
    farm.give()
    farm.pool.queue_prior(farm.session, 11, 1)
    assert farm.give() == {11: 0, 10: 2}
