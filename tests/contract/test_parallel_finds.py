"""Quantifiers, find, count and remove, on every engine."""

from __future__ import annotations

import functools
import operator
from array import array

import pytest

from remote_executor.parallel import (
    pcount,
    pcount_if,
    pcount_if_not,
    pevery,
    pfind,
    pfind_if,
    pfind_if_not,
    pnotany,
    pnotevery,
    premove,
    premove_if,
    premove_if_not,
    psome,
)
from tests.support import parallel_tasks as tasks

pytestmark = pytest.mark.usefixtures("kernel")

PARTS = [None, 1, 2, 3, 8]
is_even = functools.partial(operator.and_, 1)  # of which the opposite is true


@pytest.mark.parametrize("parts", PARTS)
def test_quantifiers_of_one_sequence(parts):
    """C34."""
    for items in ([], [0], [1], [0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 0, 1]):
        assert pevery(bool, items, parts=parts) is all(items)
        assert pnotevery(bool, items, parts=parts) is not all(items)
        assert pnotany(bool, items, parts=parts) is not any(items)
        assert bool(psome(bool, items, parts=parts)) is any(items)


@pytest.mark.parametrize("parts", PARTS)
def test_quantifiers_of_two_sequences(parts):
    """C34: the shortest ends it."""
    assert pevery(operator.lt, [1, 2, 3], (2, 3, 4, 0), parts=parts)
    assert not pevery(operator.lt, [1, 2, 3, 4], (2, 3, 4, 0), parts=parts)
    assert psome(operator.eq, "abc", "xbz", parts=parts)
    assert psome(operator.eq, "abc", "xyz", parts=parts) is None
    assert pnotany(operator.eq, "abc", "xyz", parts=parts)
    assert pnotevery(operator.eq, "abc", "abd", parts=parts)


def test_some_returns_the_true_value():
    assert psome(tasks.square, [0, 0, 3, 0]) == 9
    assert psome(tasks.square, []) is None


def test_an_error_of_the_predicate():
    with pytest.raises(ValueError, match="failed with 1"):
        pevery(tasks.fail, [1])


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("from_end", [False, True])
def test_find(parts, from_end):
    """C41: the first, or last, in order, and the caller's own object."""
    items = [(1, "a"), (2, "b"), (1, "c"), (3, "d"), (1, "e")]
    first = operator.itemgetter(0)

    found = pfind(1, items, key=first, from_end=from_end, parts=parts)
    assert found is items[4 if from_end else 0]
    assert pfind(1, items, key=first, start=1, end=4, from_end=from_end, parts=parts) is items[2]
    assert pfind(9, items, key=first, parts=parts) is None
    assert pfind(9, items, key=first, default="none", parts=parts) == "none"
    assert pfind_if(is_even, [2, 3, 5, 6], from_end=from_end, parts=parts) == (5 if from_end else 3)
    assert pfind_if_not(is_even, [1, 2, 4, 5], from_end=from_end, parts=parts) == (
        4 if from_end else 2
    )


def test_find_with_tests():
    assert pfind(3, [1, 2, 4, 5], test=operator.lt) == 4
    assert pfind(3, [1, 2, 4, 5], test_not=operator.gt) == 4
    for use in (pfind, pcount, premove):
        with pytest.raises(ValueError, match="exclude each other"):
            use(3, [1], test=operator.lt, test_not=operator.lt)


def test_what_is_not_callable_also_for_nothing():
    """C41."""
    for use in (pfind_if, pcount_if, premove_if, pfind_if_not, pcount_if_not, premove_if_not):
        with pytest.raises(TypeError, match="callable"):
            use(42, [])
        with pytest.raises(TypeError, match="key must be callable"):
            use(bool, [], key=42)
    for use in (pevery, psome, pnotany, pnotevery):
        with pytest.raises(TypeError, match="callable"):
            use(42, [])
        with pytest.raises(TypeError, match="input"):
            use(bool)
    with pytest.raises(TypeError, match="test must be callable"):
        pfind(1, [], test=42)


@pytest.mark.parametrize("parts", PARTS)
def test_count(parts):
    """C40."""
    items = [3, 1, 3, 4, 3]

    assert pcount(3, items, parts=parts) == 3
    assert pcount(3, items, start=1, end=3, parts=parts) == 1
    assert pcount(9, items, key=tasks.square, parts=parts) == 3
    assert pcount_if(is_even, items, parts=parts) == 4
    assert pcount_if_not(is_even, items, parts=parts) == 1
    assert pcount(3, items, test=operator.gt, parts=parts) == 1


def test_of_nothing_the_function_is_not_touched():
    """C40."""
    assert pcount_if(tasks.fail, []) == 0
    assert pfind_if(tasks.fail, []) is None
    assert premove_if(tasks.fail, []) == []
    assert pevery(tasks.fail, [])


@pytest.mark.parametrize("bounds", [(0, 3), (3, None), (2, 1), (-1, None)])
def test_bounds_are_not_clipped(bounds):
    """C40, C24."""
    start, end = bounds
    for use in (pfind, pcount, premove):
        with pytest.raises(ValueError, match=r"do not fit|at least"):
            use(1, [1, 2], start=start, end=end)


@pytest.mark.parametrize("parts", PARTS)
def test_remove(parts):
    """C39: the order is kept, and what is outside the bounds stays."""
    items = [3, 1, 3, 4, 3]

    assert premove(3, items, parts=parts) == [1, 4]
    assert premove(3, items, start=1, end=4, parts=parts) == [3, 1, 4, 3]
    assert premove_if(is_even, items, parts=parts) == [4]
    assert premove_if_not(is_even, items, parts=parts) == [3, 1, 3, 3]
    assert premove(9, items, key=tasks.square, parts=parts) == [1, 4]
    assert premove(3, items, test_not=operator.eq, parts=parts) == [3, 3, 3]
    assert items == [3, 1, 3, 4, 3]


@pytest.mark.parametrize("items", [(1, 2, 1), "121", b"\1\2\1", array("i", [1, 2, 1])])
def test_remove_keeps_the_kind(items):
    left = premove(items[0], items)

    assert type(left) is type(items)
    assert left == items[1:2]
    assert premove_if(bool, iter([1, 0])) == [0]


def test_numpy(require_module):
    numpy = require_module("numpy")
    items = numpy.array([3, 1, 3])

    assert premove(3, items).tolist() == [1]
    assert pfind_if(is_even, items, from_end=True) == 3
    assert pcount(3, items) == 2


def test_remove_gives_the_callers_own_objects():
    items = [["a"], ["b"]]

    assert premove(["a"], items)[0] is items[1]
