"""Where tasks fail: notes, counts, and one warning."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from remote_executor.client.outcomes import LEAST_TASKS, Outcomes


def server(name):
    return SimpleNamespace(name=name, place=f"host of {name} ({name})", done=0, failed=0)


class Farm:
    """Servers of which one may fail."""

    def __init__(self, count=2):
        self.peers = {Key(server(f"s{number}")): None for number in range(count)}
        self.outcomes = Outcomes()

    def done(self, index, count):
        list(self.peers)[index].done += count
        if self.outcomes.suspects:
            self.outcomes.look(self.peers)

    def failed(self, index, count=1):
        self.outcomes.failed(self.peers, list(self.peers)[index], count)


class Key:
    """A server that can be a key, as a Peer is."""

    def __init__(self, fields):
        self.__dict__.update(vars(fields))


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_server_whose_tasks_fail_as_others_do_not_is_warned_of_once(warnings):
    farm = Farm()
    farm.done(0, 30)
    for _ in range(100):
        farm.failed(1)

    (text,) = warnings()
    assert text.startswith(
        "! 10 of 10 tasks have failed on host of s1 (s1), and 0 of 30 on the other"
    )


def test_it_is_found_out_too_if_the_others_are_slower(warnings):
    """A server where every task raises is done with all of them before others have done one."""
    farm = Farm(3)
    farm.failed(1, 177)
    assert warnings() == []
    farm.done(0, 5)
    assert warnings() == []
    farm.done(2, 5)

    assert len(warnings()) == 1
    assert not farm.outcomes.suspects


def test_tasks_that_fail_everywhere_are_no_servers_fault(warnings):
    farm = Farm()
    for _ in range(50):
        farm.failed(0)
        farm.failed(1)

    assert warnings() == []


def test_a_few_failures_are_no_reason_to_warn(warnings):
    farm = Farm()
    farm.done(0, 1000)
    farm.failed(1, LEAST_TASKS - 1)
    farm.done(1, 3)
    farm.failed(0, 1)

    assert warnings() == []


def test_a_server_most_of_whose_tasks_return_is_not_warned_of(warnings):
    farm = Farm()
    farm.done(0, 1000)
    farm.done(1, 1000)
    farm.failed(1, 100)

    assert warnings() == []


def test_a_server_that_is_alone_is_compared_with_nobody(warnings):
    farm = Farm(1)
    farm.failed(0, 500)

    assert warnings() == []
    assert not farm.outcomes.suspects


def test_a_server_that_was_removed_is_forgotten(warnings):
    farm = Farm()
    farm.failed(1, 50)
    assert farm.outcomes.suspects
    farm.peers.pop(list(farm.peers)[1])
    farm.done(0, 100)

    assert warnings() == []
    assert not farm.outcomes.suspects
