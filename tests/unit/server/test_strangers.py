"""Strangers: one more is always let in, and the one that goes is of the address that has most."""

from __future__ import annotations

from remote_executor.server.strangers import MOST_FROM_ONE, MOST_STRANGERS, Strangers


def test_an_address_takes_room_from_itself_alone():
    strangers = Strangers()
    strangers.add("good", "192.0.2.1")

    victims = [strangers.add(number, "192.0.2.66") for number in range(500)]

    assert victims[:MOST_FROM_ONE] == [None] * MOST_FROM_ONE
    assert victims[MOST_FROM_ONE:] == list(range(500 - MOST_FROM_ONE))
    assert len(strangers) == MOST_FROM_ONE + 1


def test_many_addresses_have_one_limit_together():
    strangers = Strangers()
    for number in range(MOST_STRANGERS):
        assert strangers.add(number, f"192.0.2.{number // 4}") is None

    assert strangers.add("one more", "198.51.100.1") == 0
    assert strangers.add("and another", "198.51.100.2") == 4  # 0 to 3 have one less by now
    assert len(strangers) == MOST_STRANGERS


def test_unix_sockets_have_the_one_limit():
    strangers = Strangers()

    victims = [strangers.add(number, "") for number in range(MOST_STRANGERS + 1)]

    assert victims == [None] * MOST_STRANGERS + [0]


def test_who_is_known_is_forgotten_here():
    strangers = Strangers()
    strangers.add("one", "192.0.2.1")

    strangers.remove("one")
    strangers.remove("one")

    assert len(strangers) == 0
    assert strangers._from == {}
