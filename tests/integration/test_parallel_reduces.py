"""Reductions on a farm."""

from __future__ import annotations

import functools
import operator
from concurrent.futures import TimeoutError

import pytest

from remote_executor.parallel import (
    pmap_reduce,
    preduce,
    preduce_partial,
    task_category,
    task_priority,
)
from tests.support import tasks
from tests.support.faults import wait_gone
from tests.support.scale import scaled

LIMIT = scaled(20)


def test_a_closure_and_a_key_that_only_the_client_knows(farm):
    """C19, C26."""
    base = 7

    assert preduce(lambda a, b: (a + b) % base, range(100), executor=farm) == sum(range(100)) % base
    found = pmap_reduce(lambda item: item * base, operator.add, range(100), executor=farm)
    assert found == sum(range(100)) * base


def test_large_arrays_are_summed_on_the_workers(own, require_module):
    """C28."""
    numpy = require_module("numpy")
    items = numpy.random.default_rng(1).random(1_000_000)

    found = preduce(operator.add, items, executor=own)

    assert found == pytest.approx(functools.reduce(operator.add, items.tolist()))
    assert type(found) is numpy.float64
    assert preduce(numpy.maximum, items, parts=5, executor=own) == items.max()
    assert preduce_partial(operator.add, items, parts=4, executor=own) == pytest.approx(
        items.reshape(4, -1).sum(axis=1)
    )


def test_a_timeout_stops_what_runs(own, tmp_path):
    told, never = tmp_path / "told", tmp_path / "never"

    def hold(item):
        return tasks.tell_and_hold(told, never) if item else 0

    own.broadcast(hold, 0)  # the time is for the work, not for workers that start and import
    with pytest.raises(TimeoutError, match="1 of 2 parts"):
        preduce(operator.add, [1, 0], key=hold, parts=2, timeout=scaled(0.5), executor=own)

    wait_gone([int(told.read_text())], LIMIT)
    assert preduce(operator.add, range(10), executor=own) == 45


def test_the_blocks_priority_and_category(embedded):
    """K51: nothing is lost in a block with a priority."""
    with embedded.as_kernel(), task_priority("low"), task_category("sums"):
        assert preduce(operator.add, range(1000), parts=50) == 499_500


def test_a_result_that_does_not_pickle(farm):
    """A reducer that returns what cannot travel is an error, not a hang."""
    with pytest.raises(Exception, match="pickle"):
        preduce(lambda a, b: (x for x in ()), range(10), parts=2, timeout=LIMIT, executor=farm)
    assert preduce(operator.add, range(10), executor=farm) == 45
