"""Whether the content of a value has changed."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import functools
import threading

import numpy as np
import pytest

from remote_executor.payload.code.fingerprints import fingerprint, loses_attributes
from tests.support import payload_tasks as tasks


class Slotted:
    __slots__ = ("x",)

    def __init__(self):
        self.x = [1]


class Counting:
    """Tells how often it was pickled."""

    def __init__(self):
        self.count = 0
        self.inside = []

    def __reduce__(self):
        self.count += 1
        raise AssertionError("a fingerprint runs no code of the program")


class OwnList(list):
    def __reduce__(self):
        raise AssertionError("a fingerprint runs no code of the program")


def put(x):
    def change(value):
        value.x.append(x)

    return change


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ([1, [2]], lambda value: value[1].append(3)),
        ({"a": {1}}, lambda value: value["a"].add(2)),
        (collections.deque([1]), lambda value: value.append(2)),
        (array.array("i", [1]), lambda value: value.append(2)),
        (bytearray(b"a"), lambda value: value.append(2)),
        (np.zeros(10), lambda value: value.__setitem__(1, 1)),
        (np.zeros(100_000), lambda value: value.__setitem__(1, 1)),
        (tasks.Plain([1]), put(2)),
        (Slotted(), put(2)),
        (Counting(), lambda value: value.inside.append(1)),
        (OwnList([1]), lambda value: value.append(1)),
        (functools.partial(print, [1]), lambda value: value.args[0].append(1)),
        (([1],), lambda value: value[0].append(1)),
        ([tasks.Plain().plus], lambda value: setattr(value[0].__self__, "x", 7)),
        ([tasks.add], lambda value: value.append(tasks.add)),
        ([threading.Lock()], lambda value: value.append(1)),
    ],
    ids=range(16),
)
def test_a_change_in_place_is_seen(value, change):
    before = fingerprint([value])

    assert before.holds([value])
    assert before.holds([value])
    change(value)
    assert not before.holds([value])
    assert not isinstance(value, Counting) or value.count == 0


def test_what_cannot_be_told_counts_as_changed():
    value = (x for x in [1])

    assert not fingerprint([value]).holds([value])


def test_it_costs_what_is_in_it():
    assert fingerprint([1]).cost < 20
    assert fingerprint([list(range(1000))]).cost > 1000
    assert 3000 < fingerprint([np.zeros(100_000)]).cost < 4000


class _OfALibrary:
    """Leaves out what it wants left out, as pandas' indexes do."""

    def __reduce__(self):
        return type(self), ()


@pytest.mark.parametrize(
    ("base", "loses"),
    [
        (datetime.date, True),
        (decimal.Decimal, True),
        (np.ndarray, True),
        (_OfALibrary, False),
        (object, False),
        (dict, False),
    ],
)
def test_only_classes_of_the_program_lose_attributes_and_only_by_c(base, loses):
    made = type("Made", (base,), {"__module__": "__main__"})
    assert loses_attributes(made) is loses
    assert not loses_attributes(base)
