"""Which name of ``__main__`` has an object, and when a name was bound anew."""

from __future__ import annotations

import collections
import functools
import math
import sys
import types

import pytest

from remote_executor.payload.code.names import Names, found_by_name, is_atom, is_by_hand


@pytest.fixture
def main(monkeypatch):
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def test_an_object_is_found_by_the_name_that_binds_it(main):
    names = Names()
    main.config = {"a": 1}
    main.M = object()
    main.number, main.text, main.pair, main.module = 1, "text", (1, "a"), math
    main.sqrt, main.Counter = math.sqrt, collections.Counter
    names.look()

    assert names.name_of(main.config) == "config"
    assert names.name_of(main.M) == "M"
    assert names.name_of({"a": 1}) is None
    for value in (main.number, main.text, main.pair, math, math.sqrt, collections.Counter):
        assert names.name_of(value) is None


def test_of_several_names_the_own_one_is_chosen(main):
    exec("g = None\ndef f(): pass\ng = f\nsame = other = []\ndel g\ng = f", vars(main))
    names = Names()
    names.look()

    assert names.name_of(main.f) == "f"
    assert names.name_of(main.same) == "same"


def test_an_outdated_entry_gives_no_wrong_name(main):
    names = Names()
    main.x = before = []
    names.look()
    main.x = []

    assert names.name_of(before) is None


def test_generations_tell_what_was_bound_anew(main):
    names = Names()
    main.x, main.y = [], []
    first = names.look()
    assert names.look() == first
    main.x = []
    second = names.look()
    del main.y
    names.look()

    assert second > first
    assert names.bound_since("x", first)
    assert not names.bound_since("x", second)
    assert names.bound_since("y", second)
    assert not names.bound_since("z", 0)


def test_another_main_begins_anew(main, monkeypatch):
    names = Names()
    main.x = []
    first = names.look()
    names.asked["x"] = None
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    names.look()

    assert names.asked == {}
    assert not names.bound_since("x", first)


def test_what_is_found_by_name_anywhere():
    def local():
        pass

    assert all(map(found_by_name, (len, math.sqrt, print, collections.Counter, int, is_atom)))
    assert not any(map(found_by_name, (local, lambda: 0, [].append, functools.partial(int), 1)))


def test_modules_made_by_hand():
    assert is_by_hand(types.ModuleType("own"))
    assert not is_by_hand(math)
    assert not is_by_hand(sys.modules["__main__"])
    assert not is_by_hand(1)


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "a", b"a", (1, ("a",)), frozenset({1}), ...])
def test_atoms_have_no_identity(value):
    assert is_atom(value)


@pytest.mark.parametrize("value", [[], {}, ([],), object(), int, bytearray()])
def test_all_else_has_one(value):
    assert not is_atom(value)
