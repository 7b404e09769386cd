"""Strangers: one more is always let in; the one that goes is of those that there are most of."""

from __future__ import annotations

import pytest

from remote_executor.server.strangers import (
    MOST_EXPECTED,
    MOST_FROM_ONE,
    MOST_STRANGERS,
    Progress,
    Strangers,
    network_of,
)

SPEAKING, EXPECTED = Progress.SPEAKING, Progress.EXPECTED


@pytest.fixture
def strangers():
    found = Strangers()
    yield found
    found.check()


def test_a_network_takes_room_from_itself_alone(strangers):
    strangers.add("good", "192.0.2.1")

    victims = [strangers.add(number, "192.0.2.66") for number in range(5000)]

    assert victims[:MOST_FROM_ONE] == [None] * MOST_FROM_ONE
    assert victims[MOST_FROM_ONE:] == list(range(5000 - MOST_FROM_ONE))
    assert len(strangers) == MOST_FROM_ONE + 1


def test_many_networks_have_one_limit_together(strangers):
    for number in range(MOST_STRANGERS):
        assert strangers.add(number, f"192.0.2.{number // 4}") is None

    assert strangers.add("one more", "198.51.100.1") == 0
    assert strangers.add("and another", "198.51.100.2") == 4  # 0 to 3 have one less by now
    assert len(strangers) == MOST_STRANGERS


def test_unix_sockets_have_the_one_limit(strangers):
    victims = [strangers.add(number, "") for number in range(MOST_STRANGERS + 1)]

    assert victims == [None] * MOST_STRANGERS + [0]


def test_who_is_known_is_forgotten_here(strangers):
    strangers.add("one", "192.0.2.1")
    strangers.add("two", "192.0.2.1")
    strangers.advance("two", SPEAKING)

    for each in ("one", "two", "two"):
        strangers.remove(each)

    assert len(strangers) == 0
    assert strangers.advance("two", SPEAKING) is None
    assert len(strangers) == 0


@pytest.mark.parametrize("network", ["192.0.2.66", ""])
@pytest.mark.parametrize("spread", [False, True])
def test_one_that_makes_progress_is_kept_before_those_that_are_silent(strangers, network, spread):
    """Also where the flood comes from its own address, or from everywhere."""
    strangers.add("good", network)
    assert strangers.advance("good", SPEAKING) is None

    for number in range(5000):
        where = f"198.51.{number % 250}.{number % 7}" if spread else network
        assert strangers.add(number, where) != "good"


def test_a_silent_newcomer_has_time_to_say_something_while_others_flood(strangers):
    """As many silent ones may come after it as there are places for them."""
    for number in range(1000):
        strangers.add(number, "192.0.2.66")
    strangers.add("good", "192.0.2.66")

    victims = [strangers.add(-number, "192.0.2.66") for number in range(1, MOST_FROM_ONE // 2)]

    assert "good" not in victims


def test_a_flood_that_speaks_leaves_places_for_newcomers(strangers):
    for number in range(5000):
        victim = strangers.add(number, "192.0.2.66")
        assert victim != number
        strangers.advance(number, SPEAKING)
    strangers.add("good", "192.0.2.66")

    for number in range(MOST_FROM_ONE // 2 - 1):
        assert strangers.add(10_000 + number, "192.0.2.66") != "good"
        strangers.advance(10_000 + number, SPEAKING)


def test_one_that_is_expected_has_a_place_whoever_else_comes(strangers):
    strangers.add("back", "192.0.2.66")
    strangers.advance("back", EXPECTED)

    for number in range(5000):
        assert strangers.add(number, "192.0.2.66") != "back"
        assert strangers.advance(number, SPEAKING) != "back"


def test_even_those_that_are_expected_have_a_limit(strangers):
    for number in range(MOST_EXPECTED):
        strangers.add(number, "192.0.2.1")
        assert strangers.advance(number, EXPECTED) is None
    strangers.add("one more", "192.0.2.2")

    assert strangers.advance("one more", EXPECTED) == 0
    assert strangers.advance("one more", SPEAKING) is None


def test_a_smaller_table_for_who_has_few_descriptors():
    strangers = Strangers(16)
    for number in range(1000):
        strangers.add(number, "192.0.2.1")
        strangers.check()
    assert len(strangers) == 8


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("", ""),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1:2:3", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::1", "::/64"),
        ("odd:host", "odd:host"),
    ],
)
def test_an_ipv6_address_counts_as_its_network(host, network):
    assert network_of(host) == network


def test_two_to_the_64_addresses_of_one_network_are_one(strangers):
    strangers.add("good", network_of("2001:db8:1::1"))

    victims = [strangers.add(n, network_of(f"2001:db8:66::{n + 1:x}")) for n in range(2000)]

    assert "good" not in victims
    assert len(strangers) == MOST_FROM_ONE + 1
