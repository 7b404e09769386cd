"""What runs at the other end."""

from __future__ import annotations

import functools
import operator
import pickle
import sys
import warnings
from functools import partial

import pytest

from remote_executor.parallel import calls
from remote_executor.parallel.calls import Call
from tests.support.parallel_tasks import keywords, square, stop


def test_a_call_travels_whole_and_equals_no_other():
    call = pickle.loads(pickle.dumps(Call(keywords, (), {"key": 1, "pure": 2, "fn": 3})))

    assert call() == {"key": 1, "pure": 2, "fn": 3}
    assert Call(abs, (1,), {}).__dask_tokenize__() != Call(abs, (1,), {}).__dask_tokenize__()
    assert repr(Call(square, (1,), {})) == "<Call of square>"


@pytest.mark.parametrize("run", [calls.map_part, calls.starmap_part])
def test_stop_iteration_is_an_error_and_not_the_end(run):
    with pytest.raises(RuntimeError, match="StopIteration"):
        run(stop, [(1,), (2,)])


@pytest.mark.parametrize("star", [True, False])
def test_predicates_of_one_and_of_several(star):
    items = [(1, 1), (2, 3)] if star else [1, 0]
    predicate = operator.eq if star else bool

    assert not calls.every_part(predicate, star, items)
    assert calls.every_part(predicate, star, items[:1])
    assert calls.some_part(predicate, star, items) == (True,)
    assert calls.some_part(predicate, star, items[1:]) == ()


def test_find_count_and_flag():
    is_even = partial(calls.negated, partial(operator.and_, 1))

    assert calls.find_part(is_even, None, False, [1, 2, 3, 4]) == 1
    assert calls.find_part(is_even, None, True, (1, 2, 3, 4)) == 3
    assert calls.find_part(is_even, abs, False, [1, 3]) == -1
    assert calls.count_part(is_even, abs, [1, -2, 4]) == 2
    assert calls.flag_part(is_even, abs, [1, -2, 4]) == b"\0\1\1"
    assert calls.truth(abs, 3) is True


def test_what_is_looked_for_travels_with_the_items():
    """An object that equals only itself does so at the other end."""
    mine = Plain()
    items, given = pickle.loads(pickle.dumps(([Plain(), mine], mine)))

    assert calls.find_part(calls.same, None, False, items, given) == 1
    assert calls.count_part(calls.same, None, items, given) == 1
    assert calls.flag_part(calls.same, None, items, given) == b"\0\1"
    assert calls.find_part(operator.lt, abs, True, [1, -5, 2], 3) == 1


class Plain:
    pass


BITS = [operator.or_, operator.and_, operator.xor]


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "int8", "uint16", "bool"])
@pytest.mark.parametrize("fn", [operator.add, operator.mul, max, min, *BITS])
def test_numpy_reduces_as_a_loop_does(require_module, dtype, fn):
    numpy = require_module("numpy")
    if dtype.startswith("float") and fn in BITS:
        with pytest.raises(TypeError):
            calls.reduce_part(fn, None, False, (), numpy.ones(3, dtype))
        return
    items = numpy.array([1, 0, 1, 1, 2, 3]).astype(dtype)

    found = calls.reduce_part(fn, None, False, (), items)

    value = items[0]
    for item in items[1:]:
        value = fn(value, item)
    assert found == value
    assert found.dtype == items.dtype


UFUNCS = ["add", "multiply", "minimum", "maximum", "bitwise_or", "gcd", "logaddexp", "hypot"]
DTYPES = ["float64", "float32", "int64", "int8", "uint16", "bool", "complex64", ">i4"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*UFUNCS, "subtract", "greater", "logical_and", "fmax"])
def test_ufuncs_reduce_as_a_loop_does(require_module, dtype, name):
    numpy = require_module("numpy")
    fn = getattr(numpy, name)
    items = numpy.array([3, 1, 0, 1, 1, 2]).astype(dtype)
    try:
        expected = functools.reduce(fn, items)
    except TypeError:
        with pytest.raises(TypeError):
            calls.reduce_part(fn, None, False, (), items)
        return

    found = calls.reduce_part(fn, None, False, (), items)

    assert numpy.allclose(found, expected, rtol=1e-6)
    assert found.dtype == expected.dtype


@pytest.mark.parametrize("initial", [0, 1, True, 2.5, 10**30, "numpy.int64", "numpy.float64"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fn", [operator.add, operator.mul, operator.or_, max])
def test_numpy_goes_on_with_the_type_of_the_first_step(require_module, dtype, fn, initial):
    """C21: int8 and an initial int64 are summed as int64, as the loop does."""
    numpy = require_module("numpy")
    if isinstance(initial, str):
        initial = getattr(numpy, initial.partition(".")[2])(1)
    items = numpy.array([100, 1, 1, 100, 1]).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # int8 overflows, in either way
        try:
            expected = functools.reduce(fn, items, initial)
        except (TypeError, OverflowError) as exc:
            with pytest.raises(type(exc)):
                calls.reduce_part(fn, None, False, (initial,), items)
            return

        found = calls.reduce_part(fn, None, False, (initial,), items)

    assert found == expected
    assert type(found) is type(expected)


def test_rows_of_an_array(require_module):
    numpy = require_module("numpy")
    rows = numpy.arange(12, dtype="int8").reshape(4, 3)

    for fn in (operator.add, numpy.maximum):
        found = calls.reduce_part(fn, None, False, (), rows)
        assert found.tolist() == functools.reduce(fn, rows).tolist()
        assert found.dtype == rows.dtype
    found = calls.reduce_part(operator.add, None, False, (numpy.ones((2, 1)),), rows)
    assert found.tolist() == functools.reduce(operator.add, rows, numpy.ones((2, 1))).tolist()
    with pytest.raises(ValueError, match="ambiguous"):
        calls.reduce_part(max, None, False, (), rows)


def test_numpy_does_the_work_itself(require_module):
    """Not an item at a time: that would take a hundred times as long."""
    numpy = require_module("numpy")

    items = numpy.ones(1000)
    seen = []

    def count(frame, event, arg):
        if event == "c_call" and arg is operator.add:
            seen.append(arg)

    def run(items):
        sys.setprofile(count)
        try:
            return calls.reduce_part(operator.add, None, False, (1.0,), items)
        finally:
            sys.setprofile(None)

    assert run(items) == 1001
    assert len(seen) <= 2
    assert type(run(items)) is numpy.float64


def test_numpy_leaves_what_it_would_do_otherwise(require_module):
    numpy = require_module("numpy")

    class Unhashable:
        __hash__ = None

        def __call__(self, a, b):
            return a - b

    assert calls.reduce_part(operator.sub, None, False, (), numpy.array([5, 2, 1])) == 2
    assert calls.reduce_part(Unhashable(), None, False, (), numpy.array([5, 2, 1])) == 2
    assert calls.reduce_part(operator.add, None, False, (10,), numpy.array([5, 2, 1])) == 18
    assert calls.reduce_part(operator.add, None, False, (), numpy.array(["a", "b"], object)) == "ab"
    assert str(calls.reduce_part(max, None, False, (), numpy.array([float("nan"), 1.0]))) == "nan"
