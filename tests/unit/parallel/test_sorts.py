"""Sorting: stability, what travels, and arrays."""

from __future__ import annotations

import math
import operator
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from remote_executor.parallel import psort
from tests.support.held import Held
from tests.support.scale import scaled
from tests.support.waiting import wait_until


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("parts", range(1, 9))
def test_every_length_is_sorted_and_stable(threads, parts, reverse):
    """C38: the very objects, in the very order of sorted."""
    chance = random.Random(parts)
    first = operator.itemgetter(0)
    for length in range(12):
        items = [(chance.randrange(3), object()) for _ in range(length)]
        found = psort(items, key=first, reverse=reverse, parts=parts, executor=threads)
        assert list(map(id, found)) == list(map(id, sorted(items, key=first, reverse=reverse)))


class Weight:
    """Compared by ``<`` alone."""

    def __init__(self, grams):
        self.grams = grams

    def __lt__(self, other):
        return self.grams < other.grams


@pytest.mark.parametrize("reverse", [False, True])
def test_less_than_is_all_that_is_asked_of_items(threads, reverse):
    items = [Weight(i * 7 % 5) for i in range(20)]
    found = psort(items, reverse=reverse, parts=3, executor=threads)
    assert found == sorted(items, reverse=reverse)  # no __eq__: the same objects


def test_only_places_and_keys_come_back():
    """The items themselves travel one way."""
    held = Held()
    items = ["bb", "a", "dddd", "ccc"]
    with ThreadPoolExecutor(1) as thread:
        for key in (None, len):
            del held.calls[:], held.futures[:]
            found = thread.submit(psort, items, key=key, parts=2, executor=held)
            wait_until(lambda: len(held.futures) == 2)
            held.run(1, 0)
            assert found.result(scaled(20)) == ["a", "bb", "ccc", "dddd"]
            order, keys = held.futures[0].result()
            assert list(order) == [1, 0]
            assert keys == (None if key is None else [1, 2])


def test_a_key_that_raises_and_items_that_have_no_order(threads):
    """C38: the first error in order of the input; TypeError within a part and between parts."""
    with pytest.raises(ZeroDivisionError):
        psort([1, 0, "a"], key=lambda item: 1 / item, executor=threads)
    for parts in (1, 2):
        with pytest.raises(TypeError, match="'<' not supported between instances of"):
            psort([2, 1, "a", "b"], parts=parts, executor=threads)


def test_nothing_is_submitted_for_nothing():
    """C38, C40."""
    held = Held()
    assert psort([], executor=held) == []
    assert psort(iter(()), key=abs, executor=held) == []
    assert held.futures == []


def arrays(numpy):
    chance = numpy.random.default_rng(1)
    floats = chance.integers(-3, 3, 40).astype("f8")
    yield floats
    yield numpy.copysign(numpy.zeros(9), [1, -1, 1, -1, 1, 1, -1, -1, 1])
    yield floats.astype("i1")
    yield floats.astype(">i4")
    yield floats[::-3]
    yield floats + 1j * floats[::-1]
    yield numpy.array(["b", "a", "", "ab", "b"])
    yield numpy.array(["2020-01-02", "2020-01-01"], "M8[D]")
    tuples = numpy.empty(3, object)
    tuples[:] = [("x", 1), ("a", 2), ("a", 1)]
    yield tuples
    yield floats[:0]
    yield floats[:0].astype(object)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("key", [None, str])
@pytest.mark.parametrize("parts", [1, 3])
def test_arrays_stay_arrays(threads, require_module, reverse, key, parts):
    """C38, C4: and are sorted as sorted does it, the two zeros included."""
    numpy = require_module("numpy")
    for items in arrays(numpy):
        before = items.copy()

        found = psort(items, key=key, reverse=reverse, parts=parts, executor=threads)

        expected = sorted(items, key=key, reverse=reverse)
        assert type(found) is numpy.ndarray
        assert found.dtype == items.dtype
        assert list(map(repr, found)) == list(map(repr, expected))
        assert found.flags.c_contiguous
        assert found.flags.writeable
        assert not numpy.shares_memory(found, items)
        assert (items == before).all()


def test_rows_of_an_array_are_a_list(threads, require_module):
    numpy = require_module("numpy")
    items = numpy.array([[2, 0], [1, 5]])
    found = psort(items, key=numpy.sum, executor=threads)
    assert [row.tolist() for row in found] == [[2, 0], [1, 5]]
    found = psort(items, key=operator.itemgetter(0), parts=2, executor=threads)
    assert [row.tolist() for row in found] == [[1, 5], [2, 0]]


def test_numpy_puts_nan_last(threads, require_module):
    numpy = require_module("numpy")
    found = psort(numpy.array([1.0, math.nan, 0.0, 2.0]), parts=2, executor=threads)
    assert found.tolist()[:3] == [0, 1, 2]
    assert math.isnan(found[3])
