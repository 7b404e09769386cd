"""
A whole farm under a seeded simulation: see tests/support/sim.py and sim_histories.py.

``REMOTE_EXECUTOR_SIM_SEEDS=20000`` runs so many seeds instead of the usual number, and
``REMOTE_EXECUTOR_SIM_SEEDS=4711-4720`` runs those.
"""

from __future__ import annotations

import os

import pytest

from tests.support.scale import tries
from tests.support.sim import Client, Line, Server, Spec, World
from tests.support.sim_histories import Broken, Farm, run_farm

USUAL = str(tries(120))


def seeds():
    first, _, last = (os.environ.get("REMOTE_EXECUTOR_SIM_SEEDS") or USUAL).rpartition("-")
    return range(int(first), int(last) + 1) if first else range(int(last))


def blocks(number):
    """Return the seeds in up to so many blocks."""
    every = seeds()
    step = max(1, -(-len(every) // number))
    return [
        pytest.param(every[start : start + step], id=f"{every[start]} and on")
        for start in range(0, len(every), step)
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("block", blocks(12))
def test_every_call_ends_once_and_as_it_should_whatever_befalls_the_farm(block):
    """K58, K59, K63, K88: crashes, restarts, dead workers, cancels and kills, in any order."""
    for seed in block:
        run_farm(Farm(seed))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("block", blocks(4))
def test_cut_and_stalled_streams_change_nothing(block):
    """K28, K58: while the server lives, nothing is lost and nothing runs twice."""
    for seed in block[::4]:
        farm = Farm(seed, blips_only=True)
        run_farm(farm)

        for client in farm.world.clients:
            assert set(client.ends.values()) <= {"result", "taken back"}
            assert set(client.outcomes.values()) <= {"result"}
            assert not any(task.lost_with for task in client.attempts.values())
        labels = [label for run in farm.world.runs.values() for label in run.labels]
        assert len(labels) == len(set(labels)), "something ran twice"


def test_a_seed_decides_all():
    stories = []
    for _ in range(2):
        farm = Farm(77)
        run_farm(farm)
        stories.append(farm.world.story())

    assert stories[0] == stories[1]
    assert "attached" in stories[0]


def test_a_history_that_goes_wrong_tells_its_seed_and_what_happened():
    farm = Farm(12)
    farm.plan = lambda: farm.world.later(0.01, lambda: farm.world.log("the sky fell") or 1 / 0)

    with pytest.raises(Broken, match=r"seed 12: ZeroDivisionError") as caught:
        run_farm(farm)

    assert "1000.010000  the sky fell" in str(caught.value)
    assert "python -m tests.support.sim_histories 12" in str(caught.value)


# ------------------------------------------------------------------------ no time is wasted


def quiet_farm(*slots, delay=0.0, clients=1):
    """Return a farm without faults, its workers started and its tasks' time measured."""
    world = World(1)
    world.delay = delay
    world.servers = [Server(world, f"s{n}", count) for n, count in enumerate(slots)]
    world.clients = [Client(world, f"c{n}") for n in range(clients)]
    for client in world.clients:
        client.lines = [Line(client, server) for server in world.servers]
        for line in client.lines:
            line.connect()
    world.run(lambda: all(c.scheduler.slots() == sum(slots) for c in world.clients), 10)
    for client in world.clients:
        submit(client, [0.03] * 4 * sum(slots))
        world.run(client.idle, 100)
    return world


def submit(client, durations, **options):
    """Submit calls that take so long; return their labels."""
    labels = specs(client.world, durations)
    for label in labels:
        task = client.submit(label, 0)
        task.priority, task.lane = options.get("priority", 0), options.get("lane")
    return labels


def specs(world, durations):
    start = len(world.specs)
    world.specs += [Spec(seconds, "return") for seconds in durations]
    return list(range(start, len(world.specs)))


def seconds_until(client, labels):
    """Return how long it takes until those calls are done."""
    world = client.world
    start = world.now
    world.run(lambda: all(label in client.outcomes for label in labels), 1000)
    return world.now - start


UNEVEN = {
    "every 20th takes 1 s": [1.0 if n % 20 == 0 else 0.05 for n in range(40)],
    "the first 4 take 1 s": [1.0] * 4 + [0.01] * 36,
    "naps of 10 ms": [0.01] * 200,
    "one long and many short": [2.0] + [0.0001] * 500,
    "all long": [5.0] * 8,
}


@pytest.mark.parametrize("slots", [(2,), (1, 1)], ids=["one server", "two servers"])
@pytest.mark.parametrize("by", ["submit", "map"])
@pytest.mark.parametrize("durations", UNEVEN.values(), ids=UNEVEN)
def test_slots_are_kept_busy_to_the_end(durations, by, slots):
    (client,) = quiet_farm(*slots).clients
    ideal = max(sum(durations) / 2, *durations)

    if by == "map":
        labels = specs(client.world, durations)
        client.map(labels, 0, None)
    else:
        labels = submit(client, durations)

    assert seconds_until(client, labels) < ideal * 1.01


@pytest.mark.parametrize("slots", [(2,), (1, 1)], ids=["one server", "two servers"])
@pytest.mark.parametrize("durations", UNEVEN.values(), ids=UNEVEN)
def test_slots_of_servers_far_away_are_kept_busy_too(durations, slots):
    (client,) = quiet_farm(*slots, delay=0.02).clients
    ideal = max(sum(durations) / 2, *durations)

    # Besides the way there and back: work is asked back and comes, when all has been sent.
    assert seconds_until(client, submit(client, durations)) < 1.05 * ideal + 8 * 0.02


def test_a_map_of_a_million_tiny_items_takes_few_messages():
    (client,) = quiet_farm(2).clients
    client.world.specs = [Spec(1e-7, "return")] * 1_000_000
    sent = len(client.attempts)

    client.outcomes.clear()
    client.map(range(1_000_000), 0, None)
    client.world.run(client.idle, 10)

    assert len(client.outcomes) == 1_000_000
    assert len(client.attempts) - sent < 120


def test_what_is_urgent_waits_for_what_was_sent_ahead_and_no_longer():
    (client,) = quiet_farm(2).clients
    submit(client, [0.005] * 1000)
    client.world.run(lambda: len(client.outcomes) > 100, 10)

    assert seconds_until(client, submit(client, [0.005], priority=1)) < 0.06


def test_a_view_that_comes_late_has_its_turn_at_once():
    (client,) = quiet_farm(2).clients
    submit(client, [0.005] * 1000)
    client.world.run(lambda: len(client.outcomes) > 100, 10)

    assert seconds_until(client, submit(client, [0.005] * 10, lane="late")) < 0.12


def test_clients_share_the_slots_of_a_server():
    """K62: a client that comes late has its share at once."""
    first, second = quiet_farm(2, clients=2).clients
    submit(first, [0.05] * 400)
    first.world.run(lambda: len(first.outcomes) > 20, 10)

    assert seconds_until(second, submit(second, [0.05] * 10)) < 0.05 * 10 + 0.2
