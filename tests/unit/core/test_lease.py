"""How long a launched server lives."""

from __future__ import annotations

import pytest

from remote_executor.core.lease import FIRST_SECONDS, LINGER_SECONDS, QUIET_SECONDS, Lease


@pytest.fixture
def lease():
    return Lease(0.0, 60.0)


@pytest.mark.parametrize(("grace", "until"), [(5.0, FIRST_SECONDS), (600.0, 600.0)])
def test_a_client_that_never_comes_is_not_waited_for_without_end(grace, until):
    assert Lease(0.0, grace).deadline() == until


def test_a_client_that_dies_before_it_came_is_not_waited_for(lease):
    lease.hung_up(1.0)

    assert lease.deadline() == 1.0 + LINGER_SECONDS


def test_there_is_no_deadline_while_the_client_is_there(lease):
    lease.attached()
    lease.hung_up(1.0)

    assert lease.deadline() is None


def test_a_dead_client_closes_link_and_channel(lease):
    lease.attached()
    lease.cut(100.0, 99.0, True)
    lease.hung_up(100.1)

    assert lease.deadline() == 100.1 + LINGER_SECONDS


def test_the_order_of_the_two_does_not_matter(lease):
    lease.attached()
    lease.hung_up(100.0)
    lease.cut(100.1, 99.0, True)

    assert lease.deadline() == 100.1 + LINGER_SECONDS


def test_a_closed_link_alone_leaves_the_grace(lease):
    lease.attached()
    lease.cut(100.0, 99.0, True)

    assert lease.deadline() == 99.0 + 60.0


def test_a_silent_link_is_a_cut_network_and_leaves_the_grace_since_it_was_heard(lease):
    lease.attached()
    lease.cut(115.0, 100.0, False)
    lease.hung_up(120.0)

    assert lease.deadline() == 100.0 + 60.0


def test_an_ssh_server_that_gives_up_a_cut_network_closes_what_was_silent_before(lease):
    lease.attached()
    lease.cut(100.0 + QUIET_SECONDS, 100.0, True)
    lease.hung_up(100.0 + QUIET_SECONDS)

    assert lease.deadline() == 100.0 + 60.0


def test_a_short_grace_is_over_before_the_pause():
    lease = Lease(0.0, 1.0)
    lease.attached()
    lease.hung_up(9.0)
    lease.cut(10.0, 9.5, True)

    assert lease.deadline() == 10.5


def test_a_client_that_is_back_is_as_good_as_ever(lease):
    lease.attached()
    lease.cut(115.0, 100.0, False)
    lease.attached()

    assert lease.deadline() is None
