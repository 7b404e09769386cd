"""Texts and numbers that names bind are one object there as here."""

from __future__ import annotations

import math
import pickle
import sys

import pytest

from remote_executor.payload.code import atoms
from remote_executor.payload.code.atoms import Atoms, Constant, has_identity, restore


@pytest.fixture(autouse=True)
def nothing_restored(monkeypatch):
    monkeypatch.setattr(atoms, "restored", {})


def fresh(text):
    return "".join(list(text))


@pytest.mark.parametrize(
    "value", ["some text", "ab", 257, -6, 1.5, math.nan, 1j, b"ab", range(3), (1,), frozenset({1})]
)
def test_of_these_equal_ones_may_be_two_objects(value):
    assert has_identity(value)


@pytest.mark.parametrize("value", ["", "a", 0, 256, -5, True, None, ..., b"", b"a", ()])
def test_of_these_a_python_has_one_object(value):
    assert not has_identity(value)


@pytest.mark.parametrize("value", ["x" * 201, b"x" * 201, 1 << 1024, tuple(range(17))])
def test_large_ones_are_contents(value):
    assert not has_identity(value)


@pytest.mark.parametrize("value", [fresh("two words"), 1.5, math.nan, 1000, b"raw", range(7), 2j])
def test_what_stands_for_one_object_gives_one_object(value):
    here = Atoms()
    here.note({"name": value})
    pid = here.pid_of(value)

    one, other = restore(*pid), restore(*pid)

    assert one is other
    assert type(one) is type(value)
    assert repr(one) == repr(value)
    assert pickle.loads(pickle.dumps(Constant(pid))) is one


def test_equal_ones_that_are_two_objects_stay_two():
    one, other = fresh("two words"), fresh("two words")
    here = Atoms()
    here.note({"one": one, "other": other})

    assert restore(*here.pid_of(one)) is not restore(*here.pid_of(other))


def test_a_text_that_is_interned_is_that_of_code_there():
    text = sys.intern(fresh("interned_text"))
    here = Atoms()
    here.note({"name": text})

    assert restore(*here.pid_of(text)) is text


def test_items_of_a_tuple_come_as_they_are():
    pair = (1, fresh("two words"))
    here = Atoms()
    here.note({"pair": pair})

    key, items, how = here.pid_of(pair)

    assert items[1] is pair[1]
    assert restore(key, items, how) == pair
    assert restore(key, items, how) is restore(key, items, how)


def test_no_name_binds_it():
    here = Atoms()
    here.note({"name": fresh("two words")})

    assert here.pid_of(fresh("two words")) is None


def test_an_equal_value_has_the_same_number():
    here = Atoms()
    one, other = fresh("two words"), fresh("two words")
    here.note({"name": one})
    before = here.pid_of(one)
    here.note({"name": other})

    assert here.pid_of(other) == before
    assert here.pid_of(one) is None


def test_an_equal_value_has_another_number_while_a_name_has_the_first():
    here = Atoms()
    one, other = fresh("two words"), fresh("two words")
    here.note({"name": one, "alias": one})
    before = here.pid_of(one)
    here.note({"name": other, "alias": one})

    assert here.pid_of(one) == before
    assert here.pid_of(other)[0] != before[0]


@pytest.mark.parametrize(("one", "other"), [(0.0, -0.0), ((1,), (True,)), ((1,), (1.0,))])
def test_what_is_equal_and_not_alike_has_another_number(one, other):
    here = Atoms()
    here.note({"name": one})
    before = here.pid_of(one)
    here.note({"name": other})

    assert here.pid_of(other)[0] != before[0]


def test_a_number_that_came_with_another_value_gives_the_new_one():
    restore(7, pickle.dumps(-0.0), 0)

    assert str(restore(7, pickle.dumps(0.0), 0)) == "0.0"


def test_a_worker_remembers_so_many(monkeypatch):
    monkeypatch.setattr(atoms, "_MAX_RESTORED", 3)
    for key in range(10):
        restore(key, pickle.dumps(key + 0.5), 0)

    assert list(atoms.restored) == [7, 8, 9]
