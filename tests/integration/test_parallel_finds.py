"""Searches on a farm: what nobody needs any more is stopped there, too."""

from __future__ import annotations

import itertools
import operator
import time
from concurrent.futures import TimeoutError

import pytest

from remote_executor.parallel import (
    pcount_if,
    pevery,
    pfind,
    pfind_if,
    pnotany,
    pnotevery,
    premove,
    premove_if,
    psome,
    psort,
)
from tests.support import tasks
from tests.support.faults import wait_gone
from tests.support.scale import scaled

pytestmark = pytest.mark.slow

LIMIT = scaled(20)


def seeker(folder):
    """Return a predicate: "long" takes for ever, and "found" waits until that has begun."""
    told, never = folder / "told", folder / "never"

    def seek(item):
        if item == "long":
            tasks.tell_and_hold(told, never)
        if item == "found":
            tasks.wait_for(told)
        return item == "found"

    return seek, told


ANSWERS = [
    (psome, ["found", "long"], True),
    (psome, ["long", "found"], True),
    (pnotany, ["long", "found"], False),
    (pfind_if, ["found", "long"], "found"),
]


@pytest.mark.parametrize(("search", "items", "answer"), ANSWERS)
def test_an_answer_stops_what_runs(own, tmp_path, search, items, answer):
    """C34, C41: its worker is ended, and another one takes its place."""
    seek, told = seeker(tmp_path)

    assert search(seek, items, parts=2, timeout=LIMIT, executor=own) == answer

    wait_gone([int(told.read_text())], LIMIT)
    assert pcount_if(bool, range(100), executor=own) == 99


@pytest.mark.parametrize(("search", "answer"), [(pevery, False), (pnotevery, True)])
def test_a_part_that_says_no_stops_what_runs(own, tmp_path, search, answer):
    """C34."""
    seek, told = seeker(tmp_path)

    found = search(
        lambda item: not seek(item), ["long", "found"], parts=2, timeout=LIMIT, executor=own
    )

    assert found is answer
    wait_gone([int(told.read_text())], LIMIT)


def test_a_timeout_stops_what_runs(own, tmp_path):
    told, never = tmp_path / "told", tmp_path / "never"

    def hold(item):
        return tasks.tell_and_hold(told, never) if item else 0

    own.broadcast(hold, 0)  # the time is for the work, not for workers that start and import
    with pytest.raises(TimeoutError, match="1 of 2 parts"):
        # Long enough for a worker to begin; what it began does not end by itself.
        pcount_if(hold, [1, 0], parts=2, timeout=scaled(0.5), executor=own)

    wait_gone([int(told.read_text())], LIMIT)


def test_what_is_not_begun_never_begins(own, tmp_path):
    """C41: of many parts an early match leaves most undone."""
    log = tmp_path / "log"

    def look(item):
        tasks.append(log, str(item))
        time.sleep(0.02)
        return item == 0

    assert pfind_if(look, range(200), parts=200, executor=own) == 0
    assert len(log.read_text().split()) < 100


def test_closures_and_objects_of_the_callers_own(farm):
    """C19, C39, C41: a class that only the client knows, compared by identity alone."""

    class Thing:
        def __init__(self, number):
            self.number = number

    things = [Thing(i % 3) for i in range(30)]
    limit = 1

    assert pfind(things[7], things, executor=farm) is things[7]
    assert premove(things[7], things, executor=farm) == things[:7] + things[8:]
    assert pfind_if(lambda t: t.number > limit, things, from_end=True, executor=farm) is things[29]
    assert premove_if(lambda t: t.number < limit, things, executor=farm) == [
        thing for thing in things if thing.number
    ]
    found = psort(things, key=lambda thing: -thing.number, executor=farm)
    assert found == sorted(things, key=lambda thing: -thing.number)


def test_the_value_that_was_captured_is_that_of_the_call(farm):
    """L12, L13: and what a part does to it is not seen by another."""
    seen = []

    def look(item):
        seen.append(item)
        return len(seen) > 1

    for _ in range(2):
        assert pcount_if(look, range(6), parts=3, executor=farm) == 3
    assert seen == []


def test_endless_workers_are_left_alone_by_an_error(embedded, tmp_path):
    """C44: a part that fails cancels the rest, and leaves to themselves those that run."""
    told, release = tmp_path / "told", tmp_path / "release"

    def look(item):
        if item:
            return tasks.tell_and_hold(told, release)
        tasks.wait_for(told)
        raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        pfind_if(look, [0, 1], parts=2, timeout=LIMIT, executor=embedded)

    release.touch()
    pids = {embedded.submit(tasks.pid).result(LIMIT) for _ in range(50)}
    assert int(told.read_text()) in pids or len(pids) == 1


def test_large_arrays(own, require_module):
    numpy = require_module("numpy")
    items = numpy.arange(400_000)[::-1].copy()

    assert (psort(items, executor=own) == items[::-1]).all()
    assert (psort(items, key=operator.neg, executor=own) == items).all()
    assert (premove(0, items, executor=own) == items[:-1]).all()
    assert pfind(5, items, executor=own) == 5
    assert pevery(operator.ge, items, itertools.repeat(0), executor=own)
