"""Python's own any, all and filter, on every engine."""

from __future__ import annotations

import itertools

import pytest

from remote_executor.parallel import pall, pany, pfilter
from tests.support import parallel_tasks as tasks

pytestmark = pytest.mark.usefixtures("kernel")

SIZES = [0, 1, 2, 9, 100]


def is_even(x):
    return x % 2 == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chunksize", [None, 1, 7])
def test_they_equal_the_builtins(size, chunksize):
    how = {"chunksize": chunksize}
    for items in (range(size), [0] * size, ["x"] * size, iter(range(size))):
        one, two, three, four = itertools.tee(items, 4)
        assert pany(None, one, **how) is any(list(two))
        assert pall(None, three, **how) is all(list(four))
    assert pfilter(is_even, range(size), **how) == list(filter(is_even, range(size)))
    assert pfilter(None, iter([0, 1, "", "a"] * size), **how) == [1, "a"] * size


def test_several_inputs():
    assert pany(int.__eq__, [1, 2, 3], [3, 2, 1, 0]) is True
    assert pall(int.__eq__, [1, 2, 3], [3, 2]) is False


def test_what_is_true_is_true_or_false():
    """What the predicate gives need not travel."""
    assert pany(tasks.unpicklable, [1, 2]) is True
    assert pall(tasks.unpicklable, [1, 2]) is True


def test_a_filter_gives_the_callers_own_objects_in_a_list():
    items = [[n] for n in range(20)]

    found = pfilter(any, items)

    assert list(map(id, found)) == list(map(id, items[1:]))
    assert pfilter(str.isdigit, "a1b2") == ["1", "2"]


@pytest.mark.parametrize("search", [pany, pall, pfilter])
def test_wrong_arguments(search):
    with pytest.raises(TypeError, match="predicate must be callable or None, not 42"):
        search(42, [1])
    with pytest.raises(TypeError, match="iterable"):
        search(None, 42)
    with pytest.raises(ValueError, match="endless"):
        search(None, itertools.count())
    with pytest.raises(ValueError, match="failed with"):
        search(tasks.fail, [1, 2])
    for wrong in (0, True):
        with pytest.raises((TypeError, ValueError), match="chunksize must"):
            search(None, [1], chunksize=wrong)


@pytest.mark.parametrize("search", [pany, pall])
def test_there_must_be_an_input(search):
    with pytest.raises(TypeError, match="at least one input"):
        search(None)
