"""Names of ``__main__``, each pickled once a version."""

from __future__ import annotations

import sys
import threading
import types

import pytest

from remote_executor.errors import PayloadError
from remote_executor.payload.by_value import Visit
from remote_executor.payload.code.names import names
from remote_executor.payload.code.units import Units


class Counting:
    made = 0

    def __reduce__(self):
        Counting.made += 1
        return Counting, ()


@pytest.fixture
def main(monkeypatch):
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def collect(units, *wanted, every=False):
    names.look()
    visit = Visit()
    visit.names.update(dict.fromkeys(wanted))
    visit.all = every
    found, absent = units.collect(visit, "the test")
    return {unit.names: unit for unit in found}, absent


def test_a_name_brings_what_it_needs(main):
    exec("a = {}\nb = [a]\ndef f(): return b, missing\ndef g(): pass", vars(main))
    found, absent = collect(Units(), "f")

    assert set(found) == {("f",), ("b",), ("a",)}
    assert list(found).index(("a",)) < list(found).index(("b",))
    assert absent == ["missing"]


def test_a_value_is_pickled_once_a_version(main):
    units = Units()
    main.own, main.other = Counting(), [1]
    Counting.made = 0
    for _ in range(3):
        collect(units, "own", "other")
    main.other.append(2)
    collect(units, "own", "other")

    assert Counting.made == 1
    main.own = Counting()
    collect(units, "own")
    assert Counting.made == 2


def test_a_token_changes_with_what_is_behind(main):
    units = Units()
    main.a = {"x": 1}
    main.b = [main.a]
    before, _ = collect(units, "b")
    main.a["x"] = 2
    after, _ = collect(units, "b")

    assert before["a",].token != after["a",].token
    assert before["b",].token != after["b",].token


def test_what_shares_an_object_is_one_unit(main):
    shared = []
    main.a, main.b, main.c = [shared], {"x": shared}, [1]
    found, _ = collect(Units(), "a", "b", "c")

    assert set(found) == {("a", "b"), ("c",)}


def test_a_circle_is_one_unit(main):
    main.a, main.b, main.c = [], [], []
    main.a.append(main.b)
    main.b.append(main.a)
    main.c.append(main.a)
    found, _ = collect(Units(), "c")

    assert set(found) == {("a", "b"), ("c",)}


def test_what_cannot_be_pickled_is_a_stand_in(main):
    main.lock = threading.Lock()
    main.holder = [main.lock]
    found, _ = collect(Units(), "holder")

    assert b"holder" in found["holder",].body
    assert found["holder",].token == b"unsent"


def test_code_that_cannot_be_pickled_is_refused(main):
    main.lock = threading.Lock()
    exec("def f(x=lock): pass\ndef g(): return globals()", vars(main))

    with pytest.raises(PayloadError, match=r"global 'f'.*cannot pickle '_thread.lock'"):
        collect(Units(), "f")
    found, _ = collect(Units(), "g")  # which may never look at f
    assert found["f",].token == b"unsent"


def test_all_names_go_to_code_that_may_look_at_them(main):
    exec("a = 1\nb = [2]\ndef f(n): return eval(n)", vars(main))
    found, _ = collect(Units(), "f")

    assert set(found) == {("a",), ("b",), ("f",)}


def test_names_that_were_asked_for_go_along(main):
    exec("a = 1\ndef f(): pass", vars(main))
    names.look()
    names.asked["a"] = None
    found, _ = collect(Units(), "f")

    assert set(found) == {("a",), ("f",)}


def test_a_large_value_is_looked_at_again_when_that_is_asked_for(main):
    units = Units()
    main.large = list(range(10_000))
    before, _ = collect(units, "large")
    main.large[7] = -1
    same, _ = collect(units, "large")
    names.refresh(["large"])
    after, _ = collect(units, "large")

    assert same["large",] is before["large",]
    assert after["large",].token != before["large",].token
    main.large.append(1)
    longer, _ = collect(units, "large")
    assert longer["large",] is not after["large",]


def test_an_attribute_of_a_name_is_not_pickled_again_with_it(main):
    exec(
        "class C:\n    def add(self): return counter\n"
        "class Outer:\n    class Inner: pass\n"
        "counter = C()\nADD = counter.add\nTABLE = {1: C.add, 2: Outer.Inner}",
        vars(main),
    )
    found, _ = collect(Units(), "ADD", "counter", "TABLE")
    assert set(found) == {("ADD",), ("C",), ("counter",), ("TABLE",), ("Outer",)}


def test_what_is_compared_by_its_id_stays_alive(main):
    class Own:
        def __reduce__(self):
            return list, (), {"a": [1]}

    main.one, main.other = [Own()], [Own()]
    units = Units()
    found, _ = collect(units, "one")
    assert found["one",].visit.shared
    assert all(key == id(obj) for key, obj in found["one",].visit.shared.items())
    assert set(collect(units, "one", "other")[0]) == {("one",), ("other",)}


def test_nothing_that_views_memory_is_kept(main):
    main.data = bytearray(10)

    class Own:
        def __reduce_ex__(self, protocol):
            import pickle

            return bytes, (pickle.PickleBuffer(main.data),)

    main.own = [Own()]
    collect(Units(), "own")
    main.data += b"1"


def test_a_name_that_is_bound_anew_is_no_more_what_others_refer_to(main):
    exec("v = object()\ndef f(a=v): return a\ntable = [v]\nkept = v", vars(main))
    units = Units()
    before, _ = collect(units, "f", "table", "v")
    main.v = [5]
    del main.kept
    after, _ = collect(units, "f", "table", "v")
    assert "v" in before[("f",)].visit.references
    for unit in after.values():
        assert "v" not in unit.visit.references


def test_an_object_keeps_the_name_that_workers_have_it_under(main):
    exec("a = object()\nb = [1]", vars(main))
    units = Units()
    _, before = collect(units, "a", "b"), names.name_of(main.b)
    main.a = main.b
    found, _ = collect(units, "a", "b")
    assert (before, names.name_of(main.a)) == ("b", "b")
    assert list(found[("a",)].visit.references) == ["b"]


def test_what_has_got_a_name_since_is_referred_to_by_it(main):
    exec("def f(a=[1]): return a", vars(main))
    units = Units()
    collect(units, "f")
    main.later = main.f.__defaults__[0]
    found, _ = collect(units, "f", "later")
    assert list(found[("f",)].visit.references) == ["later"]
