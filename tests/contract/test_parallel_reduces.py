"""Reductions, on every engine."""

from __future__ import annotations

import functools
import operator
import random
from array import array
from concurrent.futures import TimeoutError

import pytest

from remote_executor.parallel import pmap_reduce, preduce, preduce_partial
from tests.support import parallel_tasks as tasks

pytestmark = pytest.mark.usefixtures("kernel")

NUMBERS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]


def matrices(count):
    chance = random.Random(count)
    return [tuple(tuple(chance.choices(range(5), k=2)) for _ in range(2)) for _ in range(count)]


@pytest.mark.parametrize("fn", [operator.add, operator.mul], ids=["add", "mul"])
@pytest.mark.parametrize("parts", [None, *range(1, 11)])
def test_it_equals_reduce(fn, parts):
    """C17, C33: with key, bounds, a neutral initial value and from the end."""
    neutral = 0 if fn is operator.add else 1
    for start, end in ((0, None), (0, 1), (2, 7), (9, 10)):
        for key in (None, tasks.square):
            for recurse in (False, True):
                items = list(map(key, NUMBERS)) if key else NUMBERS
                found = preduce(
                    fn,
                    NUMBERS,
                    key=key,
                    start=start,
                    end=end,
                    initial=neutral,
                    from_end=recurse,
                    parts=parts,
                    recurse=recurse,
                )
                assert found == functools.reduce(fn, items[start:end])


@pytest.mark.parametrize("parts", [None, 1, 2, 3, 4, 7, 20])
@pytest.mark.parametrize("recurse", [False, True])
def test_it_need_not_be_commutative(parts, recurse):
    """C18, C25: the order is kept, whatever order the parts come in."""
    items = matrices(17)

    found = preduce(tasks.matrix_product, items, parts=parts, recurse=recurse)

    assert found == functools.reduce(tasks.matrix_product, items)


def test_one_that_is_not_associative_shows_that_parts_are_reduced_apart():
    """C33: it equals the serial only for one part, or a part for each item."""
    items = [float(2**i) for i in range(8)]
    serial = functools.reduce(tasks.average, items)

    assert preduce(tasks.average, items, parts=1) == serial
    assert preduce(tasks.average, items, parts=8) == serial
    assert preduce(tasks.average, items, parts=2) != serial


def test_partial_results():
    """C16: in order of the parts, the first ones longer by one."""
    items = range(3, 11)

    assert preduce_partial(operator.add, items, parts=1) == [52]
    assert preduce_partial(operator.add, items, parts=2) == [18, 34]
    assert preduce_partial(operator.add, items, parts=3) == [12, 21, 19]
    assert preduce_partial(operator.add, items, parts=3, from_end=True) == [12, 21, 19]
    assert preduce_partial(operator.add, items, parts=99) == list(items)
    assert preduce_partial(operator.add, items, parts=2, initial=100) == [118, 134]


def test_partial_results_of_nothing():
    """C15: an error, with or without an initial value."""
    with pytest.raises(ValueError, match="empty"):
        preduce_partial(operator.add, [])
    with pytest.raises(ValueError, match="empty"):
        preduce_partial(operator.add, [1, 2], initial=0, start=1, end=1)


@pytest.mark.parametrize("parts", [None, 1, 2, 3, 9])
@pytest.mark.parametrize("recurse", [False, True])
def test_the_initial_value_stands_once_in_front(parts, recurse):
    """As functools.reduce has it, for any number of parts, and at the same place in the call."""
    how = {"parts": parts, "recurse": recurse}

    assert preduce(operator.add, [1, 2, 3, 4], 100, **how) == 110
    assert preduce(operator.add, ["b", "c", "d"], initial="a", **how) == "abcd"
    assert preduce(operator.add, list("abc"), "d", from_end=True, **how) == "abcd"
    assert preduce(operator.add, [1, 2, 3], 100, key=operator.neg, **how) == 94
    assert preduce(operator.add, range(20), 100, start=5, end=7, **how) == 111
    assert pmap_reduce(len, operator.add, ["a", "bc", "def"], 100, **how) == 106
    assert preduce(tasks.matrix_product, matrices(9), matrices(1)[0], **how) == functools.reduce(
        tasks.matrix_product, matrices(9), matrices(1)[0]
    )


def test_in_one_part_it_is_reduce_to_the_letter():
    items = [float(2**i) for i in range(8)]

    found = preduce(tasks.average, items, 7.0, parts=1)

    assert found == functools.reduce(tasks.average, items, 7.0)


def test_the_initial_value_counts_once_a_part_if_that_is_wanted():
    """C21: lparallel's meaning."""
    each = {"initial": 100, "initial_per_part": True}

    assert preduce(operator.add, [1, 2, 3, 4], parts=2, **each) == 210
    assert preduce(operator.add, [1, 2, 3, 4], parts=1, **each) == 110
    assert pmap_reduce(abs, operator.add, [1, 2, 3, 4], parts=4, **each) == 410
    assert preduce(operator.add, range(8), parts=8, recurse=True, **each) == 28 + 8 * 100 + 600


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_initial_value_says_of_which_type_numpys_sum_is(parts):
    """In each part, also in those where it does not count."""
    numpy = pytest.importorskip("numpy")
    items = numpy.full(9, 200, "uint8")

    assert preduce(operator.add, items, numpy.int64(5), parts=parts) == 1805
    assert preduce(operator.add, items, numpy.float64(0.5), parts=parts) == 1800.5


def test_how_long_parts_are_can_be_said_instead_of_how_many():
    assert preduce_partial(operator.add, range(10), chunksize=4) == [6, 15, 24]
    assert preduce(operator.add, range(10), chunksize=3) == 45
    assert pmap_reduce(abs, operator.add, range(10), chunksize=99, recurse=True) == 45
    with pytest.raises(TypeError, match="exclude each other"):
        preduce(operator.add, [1, 2], parts=2, chunksize=1)
    for wrong in (0, True, "2"):
        with pytest.raises((TypeError, ValueError), match="chunksize must"):
            preduce(operator.add, [1, 2], chunksize=wrong)


def test_from_the_end_is_from_the_end_of_each_part():
    """C22: f(x1, f(x2, initial))."""
    assert preduce(operator.sub, [1, 2, 3], from_end=True, parts=1) == 1 - (2 - 3)
    assert preduce(operator.sub, [1, 2, 3], from_end=True, parts=1, initial=10) == 1 - (
        2 - (3 - 10)
    )
    assert preduce(operator.sub, [9, 2, 5, 1], from_end=True, parts=2) == (9 - 2) - (5 - 1)


def test_nothing_at_all():
    """C23, C6: the initial value, or functools.reduce's TypeError; the function is not touched."""
    assert preduce(tasks.fail, [], initial=7) == 7
    assert preduce(tasks.fail, [1, 2], initial=7, start=2) == 7
    with pytest.raises(TypeError, match="empty sequence with no initial value"):
        preduce(operator.add, [])


def test_the_key_is_applied_once():
    """C20."""
    assert preduce(operator.add, range(10), key=tasks.square, parts=10, recurse=True) == 285


@pytest.mark.parametrize("bounds", [(0, 11), (11, None), (3, 2), (-1, None), (0, -1)])
def test_bounds_are_not_clipped(bounds):
    """C24."""
    start, end = bounds
    with pytest.raises(ValueError, match=r"do not fit|at least"):
        preduce(operator.add, NUMBERS, start=start, end=end)
    with pytest.raises(ValueError, match=r"do not fit|at least"):
        preduce_partial(operator.add, NUMBERS, start=start, end=end)


def test_map_and_reduce():
    """C26: preduce with a key."""
    assert pmap_reduce(len, operator.add, ["a", "bc", "def"]) == 6
    assert pmap_reduce(len, operator.add, [], initial=0) == 0
    assert pmap_reduce(tasks.square, operator.add, NUMBERS, start=1, end=4, parts=2) == 18


@pytest.mark.parametrize("kind", [list, tuple, iter, lambda items: array("i", items), bytes, set])
def test_inputs_of_any_kind(kind):
    """C28: each part is sent by itself."""
    assert preduce(operator.add, kind([1, 2, 3, 4]), parts=3) == 10


def test_numpy(require_module):
    numpy = require_module("numpy")

    assert preduce(operator.add, numpy.arange(1000.0)) == 499_500
    assert preduce(max, numpy.arange(10)) == 9
    assert preduce(operator.add, numpy.ones((5, 2)), parts=3).tolist() == [5, 5]


def test_wrong_arguments():
    for wrong in (
        lambda: preduce(42, []),
        lambda: preduce(operator.add, [1], key=42),
        lambda: pmap_reduce(42, operator.add, [1]),
        lambda: preduce(operator.add, 42),
        lambda: preduce(operator.add, [1], parts=1.5),
        lambda: preduce(operator.add, [1], start="a"),
    ):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(ValueError, match="parts"):
        preduce(operator.add, [1], parts=0)


def test_errors_of_the_function_and_the_key():
    with pytest.raises(ValueError, match="failed with 3"):
        preduce(operator.add, [3, 4], key=tasks.fail, parts=2)
    with pytest.raises(TypeError):
        preduce(operator.add, [1, "a"])


def test_a_timeout():
    with pytest.raises(TimeoutError):
        preduce(operator.add, [0.5, 0.5], key=functools.partial(tasks.late, 0.5), timeout=0.05)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pmap_reduce(operator.add, len, ["a"]), r"fn is called with one value, and add\(a"),
        (lambda: pmap_reduce(len, len, ["a"]), r"op is called with 2 values, and len\(obj"),
        (lambda: pmap_reduce(["a"], len, operator.add), r"fn must be callable, not \['a'\]"),
        (lambda: pmap_reduce(len, ["a"], operator.add), r"op must be callable, not \['a'\]"),
        (lambda: pmap_reduce(len, operator.add, len), r"must be iterable, not <built-in"),
        (lambda: preduce([1], operator.add), r"fn must be callable, not \[1\]"),
        (lambda: preduce(abs, [1, 2]), r"fn is called with 2 values, and abs\(x"),
        (lambda: preduce_partial(lambda: 1, [1, 2]), r"fn is called with 2 values, and .*lambda"),
    ],
)
def test_swapped_arguments_are_named(call, words):
    with pytest.raises(TypeError, match=words):
        call()


def test_functions_of_which_nothing_is_known_are_called():
    """Neither max nor a type says what it takes."""
    assert preduce(max, [1, 3, 2]) == 3
    assert pmap_reduce(dict.fromkeys, operator.or_, ["a", "b"]) == {"a": None, "b": None}
    assert pmap_reduce(int, min, ["3", "2"]) == 2
