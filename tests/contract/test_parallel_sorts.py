"""Sorting, on every engine."""

from __future__ import annotations

import functools
import operator
import random

import pytest

from remote_executor.parallel import psort
from tests.support import parallel_tasks as tasks

pytestmark = pytest.mark.usefixtures("kernel")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 10, 101, 10_000])
def test_it_equals_sorted(size, reverse):
    """C38: sizes 1 to 10000, keys, granularity, equal items."""
    chance = random.Random(size)
    for most in (3, 1_000_000):
        items = [chance.randrange(most) for _ in range(size)]
        for parts in (None, 1, 7):
            assert psort(items, reverse=reverse, parts=parts) == sorted(items, reverse=reverse)
            found = psort(items, key=operator.neg, reverse=reverse, parts=parts)
            assert found == sorted(items, key=operator.neg, reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("parts", [None, 1, 2, 5, 50])
def test_it_is_stable_and_gives_the_callers_own_objects(reverse, parts):
    items = [[i % 3, i] for i in range(30)]
    first = operator.itemgetter(0)

    found = psort(items, key=first, reverse=reverse, parts=parts)

    expected = sorted(items, key=first, reverse=reverse)
    assert list(map(id, found)) == list(map(id, expected))
    assert list(map(id, psort(items, reverse=reverse, parts=parts))) == list(
        map(id, sorted(items, reverse=reverse))
    )


def test_inputs_of_any_kind():
    assert psort("hello") == sorted("hello")
    assert psort(iter([3, 1, 2])) == [1, 2, 3]
    assert psort({"b": 1, "a": 2}) == ["a", "b"]
    assert psort((2, 1)) == [1, 2]


def test_the_input_stays_as_it_was():
    items = [3, 1, 2]
    assert psort(items) == [1, 2, 3]
    assert items == [3, 1, 2]


def test_numpy(require_module):
    numpy = require_module("numpy")
    items = numpy.random.default_rng(1).random(1000)

    assert (psort(items) == numpy.sort(items)).all()
    assert (psort(items, reverse=True) == numpy.sort(items)[::-1]).all()
    assert psort(numpy.array([])).tolist() == []
    assert psort(numpy.array([3, 1]), key=operator.neg).tolist() == [3, 1]


def test_errors():
    with pytest.raises(TypeError):
        psort([1, "a", 2], parts=1)
    with pytest.raises(TypeError):
        psort([1, "a"], parts=2)
    with pytest.raises(ValueError, match="failed with 1"):
        psort([1], key=tasks.fail)
    with pytest.raises(TypeError, match="key must be callable"):
        psort([], key=42)
    with pytest.raises(ValueError, match="parts"):
        psort([1], parts=0)


def by_last_digit(one, other):
    return one % 10 - other % 10


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("parts", [None, 1, 3, 50])
def test_what_compares_two_items_will_do(reverse, parts):
    """As cmp=, and as what functools.cmp_to_key makes of it: stable, too."""
    chance = random.Random(parts)
    items = [chance.randrange(1000) for _ in range(60)]
    key = functools.cmp_to_key(by_last_digit)
    expected = sorted(items, key=key, reverse=reverse)

    assert psort(items, key=key, reverse=reverse, parts=parts) == expected
    assert psort(items, cmp=by_last_digit, reverse=reverse, parts=parts) == expected
    assert psort(iter(items), key=key, reverse=reverse, parts=parts) == expected
    found = psort(list(map(str, items)), key=int, cmp=by_last_digit, reverse=reverse, parts=parts)
    assert found == list(map(str, expected))


def test_what_compares_may_be_a_closure():
    wanted = [3, 1, 2]
    key = functools.cmp_to_key(lambda one, other: wanted.index(one) - wanted.index(other))

    assert psort([1, 2, 3], key=key, parts=2) == wanted


def test_a_numpy_array_is_sorted_by_what_compares_two_items():
    numpy = pytest.importorskip("numpy")
    items = numpy.array([31, 22, 13, 42])

    assert psort(items, cmp=by_last_digit, parts=2).tolist() == [31, 22, 42, 13]


def test_how_long_parts_are_can_be_said_instead_of_how_many():
    assert psort([3, 1, 2], chunksize=2) == psort([3, 1, 2], chunksize=9) == [1, 2, 3]
    with pytest.raises(TypeError, match="exclude each other"):
        psort([3, 1, 2], parts=2, chunksize=2)


def test_wrong_ways_to_compare():
    with pytest.raises(TypeError, match="cmp must be callable"):
        psort([2, 1], cmp=42)
    with pytest.raises(TypeError, match="exclude each other"):
        psort([2, 1], key=functools.cmp_to_key(by_last_digit), cmp=by_last_digit)
