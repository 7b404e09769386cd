"""The items of a pickled list before the first that does not load."""

from __future__ import annotations

import collections
import datetime
import fractions
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_executor.payload.pickles import dump_result, load
from remote_executor.payload.salvage import load_before
from tests.support import tasks

SHARED = ["shared"]
KINDS = [
    *(None, 1, 2**80, 1.5, "text", b"bytes", b"x" * 100_000, bytearray(b"y" * 70_000)),
    *(
        (),
        (1,),
        (1, 2),
        (1, 2, 3, 4),
        [],
        [1],
        [1, [2, [3]]],
        {},
        {"a": 1},
        {"a": [1], "b": (2, {})},
    ),
    *(set(), {1, 2}, frozenset({1, 2}), SHARED, len, int, Exception("e", 1)),
    *(fractions.Fraction(1, 3), datetime.date(2020, 1, 1), collections.OrderedDict(a=1)),
    *(collections.deque([1, 2]), collections.Counter("aab"), range(3)),
]


def in_tuple(value):
    return (1, 2, 3, value, 5)


def in_state(value):
    made = tasks.Node(1)
    made.children = {"deep": [value]}
    return made


PLACES = [
    lambda value: value,
    in_tuple,
    in_state,
    lambda value: [value],
    lambda value: {1: (value,)},
]


def words(values):
    return [repr(value) for value in values]


@given(st.lists(st.sampled_from(KINDS), max_size=20), st.sampled_from(PLACES), st.data())
def test_what_comes_before_is_kept(items, place, data):
    at = data.draw(st.integers(0, len(items)))
    broken = [*items[:at], place(tasks.ErrorAtUnpickle()), *items[at:]]
    body, buffers = dump_result(broken)
    with pytest.raises(ValueError, match="error at unpickle"):
        load(body, buffers)

    assert words(load_before(body, buffers)) == words(items[:at])


@pytest.mark.parametrize("count", [1, 2, 999, 1000, 1001, 1002, 2000, 2001])
def test_long_lists_which_are_pickled_in_runs(count):
    for at in {0, 1, 998, 999, 1000, 1001, 1999, 2000, count - 1}:
        if at < count:
            items = [*range(count)]
            items[at] = tasks.ErrorAtUnpickle()

            assert load_before(dump_result(items)[0]) == [*range(at)]


def test_the_first_of_several():
    items = [1, tasks.ErrorAtUnpickle(), 2, tasks.ErrorAtUnpickle()]

    assert load_before(dump_result(items)[0]) == [1]


def test_what_exits_is_as_broken():
    assert load_before(dump_result([1, tasks.ExitAtUnpickle()])[0]) == [1]


def test_a_class_that_is_not_here():
    body = dump_result([1, tasks.Node(1), 2])[0].replace(b"Node", b"Gone")

    assert load_before(body) == [1]


def test_shared_parts_stay_shared():
    values = load_before(dump_result([SHARED, SHARED, tasks.ErrorAtUnpickle()])[0])

    assert values == [SHARED, SHARED]
    assert values[0] is values[1]


def test_buffers_apart():
    arrays = [np.full(20_000, i) for i in range(4)]
    body, buffers = dump_result([*arrays[:3], tasks.ErrorAtUnpickle(), arrays[3]])
    assert len(buffers) == 4

    values = load_before(body, buffers)

    assert [value[0] for value in values] == [0, 1, 2]


def test_a_pickler_in_python():
    """PyPy has no other. It writes other instructions for the same."""
    items = [1, (2, 3, 4, 5), {6: 7}, {8}, tasks.ErrorAtUnpickle(), 9]

    assert load_before(pickle._dumps(items, 5)) == items[:4]


@pytest.mark.parametrize(
    "body",
    [b"", b"\x80", b"garbage", pickle.dumps((1, 2)), pickle.dumps({1: [2]}), pickle.dumps([])],
)
def test_what_is_no_list_has_no_items(body):
    assert load_before(body) == []


def test_an_interrupt_ends_it(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    body = dump_result([1, 2, tasks.ErrorAtUnpickle()])[0]
    monkeypatch.setattr("remote_executor.payload.salvage.load", interrupted)

    with pytest.raises(KeyboardInterrupt):
        load_before(body)
