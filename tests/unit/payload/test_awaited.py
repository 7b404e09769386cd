"""Calls whose arguments are results of other tasks, put together before they are sent."""

from __future__ import annotations

import pickle

import pytest

from remote_executor.payload import awaited
from remote_executor.payload.pickles import dump


class Slot:
    """Stands for a value that is not there yet."""

    def __init__(self, key):
        self.key = key

    def __reduce__(self):
        return awaited.value_of, (self.key,)


def filled(call, **values):
    made = [(key, *dump(value)) for key, value in values.items()]
    body, buffers = awaited.filled(pickle.dumps(call, 5), (), made)
    return pickle.loads(body, buffers=buffers)


def test_values_take_their_places():
    call = ((1, [Slot("a"), {"b": Slot("b")}]), {})

    assert filled(call, a="x", b=(2,)) == ((1, ["x", {"b": (2,)}]), {})


def test_one_value_in_two_places_is_one_object():
    slot = Slot("a")
    (one, two), _ = filled(((slot, slot), {}), a=[1])

    assert one is two


def test_large_buffers_of_both_travel_apart():
    numpy = pytest.importorskip("numpy")
    large = numpy.arange(100_000)
    body, buffers = dump(((large, 1), {}), "call")
    whole, apart = awaited.filled(body, buffers, [("a", *dump(large + 1))])

    assert len(apart) == 2
    assert len(whole) < 1000
    (found, _), _ = pickle.loads(whole, buffers=apart)
    assert (found == large).all()


def test_a_value_may_be_a_call_that_has_waited_itself():
    inner, _ = awaited.filled(pickle.dumps(Slot("a"), 5), (), [("a", *dump(1))])
    whole, _ = awaited.filled(pickle.dumps([Slot("b"), Slot("b")], 5), (), [("b", inner, ())])

    assert pickle.loads(whole) == [1, 1]


def test_after_a_call_nothing_is_kept():
    assert filled([Slot("a")], a=1) == [1]
    with pytest.raises(KeyError):
        awaited.value_of("a")
