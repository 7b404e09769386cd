"""Whether objects still hold the very same objects."""

from __future__ import annotations

import array
import collections
import copy
import datetime
import decimal
import functools
import gc
import random
import re
import sys
import types
import weakref

import numpy as np
import pytest

from remote_executor.payload.captures import is_fixed
from remote_executor.payload.code import watch
from remote_executor.payload.code.watch import Watch, holders_in
from remote_executor.payload.functions import FunctionCache
from tests.support.words import without_address

#: With few objects these are compared one by one, with many by their addresses.
FEW_AND_MANY = pytest.mark.parametrize("more", [0, 1, 2, 300])


class Never:
    """Equal to nothing, and to everything: nobody may ask."""

    def __eq__(self, other):
        raise AssertionError("code of the program was run")

    __hash__ = None


class Plain:
    def __init__(self):
        self.x = 1000


class Slotted(Plain):
    __slots__ = ("y",)

    def __init__(self):
        super().__init__()
        self.y = 1


class OwnTuple(tuple):  # noqa: SLOT001 - with attributes
    x = 1


class OwnPair(collections.namedtuple("OwnPair", "a b")):  # noqa: PYI024
    __slots__ = ()


class OwnList(list):
    pass


class OwnRandom(random.Random):
    pass


class OwnOrder(collections.OrderedDict):
    pass


class OwnDate(datetime.date):
    pass


@FEW_AND_MANY
@pytest.mark.parametrize(
    ("before", "after"),
    [(1, True), (1, 1.0), (1, 2), ([], []), ((1,), (True,)), (Never(), Never()), (np.ones(2), 1)],
    ids=without_address,
)
def test_a_name_that_is_bound_to_an_equal_object_is_bound_anew(more, before, after):
    space = {f"n{number}": object() for number in range(more)}
    space["name"] = before
    bound = Watch((), [(space, dict(space), ())])

    assert bound.holds()
    space["unrelated"] = 1
    assert bound.holds()
    space["name"] = after
    assert not bound.holds()
    space["name"] = before
    assert bound.holds()
    del space["name"]
    assert not bound.holds()


def test_a_name_that_was_absent_is_seen_once_it_is_there():
    space = {}
    bound = Watch((), [(space, {}, ["len"])])

    assert bound.holds()
    space["len"] = len
    assert not bound.holds()


def some_function():
    value = 1000

    def function(a=1, *, b=2):
        return value, a, b

    function.note = "n"
    return function


def other(a=1, *, b=2):
    return b, a


def a_cell(function):
    return function.__closure__[0]


FUNCTION_CHANGES = {
    "code": lambda f: setattr(f, "__code__", f.__code__.replace(co_name="else")),
    "defaults": lambda f: setattr(f, "__defaults__", (True,)),
    "other kwdefaults": lambda f: setattr(f, "__kwdefaults__", {"b": 2}),
    "kwdefaults": lambda f: f.__kwdefaults__.update(b=3),
    "no kwdefaults": lambda f: setattr(f, "__kwdefaults__", None),
    "attribute": lambda f: setattr(f, "note", "m"),
    "new attribute": lambda f: setattr(f, "mark", 1),
    "renamed attribute": lambda f: f.__dict__.update(mark=f.__dict__.pop("note")),
    "name": lambda f: setattr(f, "__name__", "g"),
    "docs": lambda f: setattr(f, "__doc__", "g"),
    "captured variable": lambda f: setattr(a_cell(f), "cell_contents", 1.0),
    "no captured variable": lambda f: delattr(a_cell(f), "cell_contents"),
}


@FEW_AND_MANY
@pytest.mark.parametrize("change", FUNCTION_CHANGES.values(), ids=list(FUNCTION_CHANGES))
def test_each_change_of_a_function_shows(change, more):
    function = some_function()
    padding = [{"x": number} for number in range(more)]
    held = function, function.__dict__, function.__kwdefaults__, a_cell(function)
    watched = Watch([*padding, *held])

    assert watched.holds()
    gc.collect()
    assert watched.holds()
    change(function)
    assert not watched.holds()


@pytest.mark.parametrize("change", FUNCTION_CHANGES.values(), ids=list(FUNCTION_CHANGES))
def test_each_change_of_what_is_submitted_shows_though_it_is_not_kept_alive(change):
    cache = FunctionCache()
    function = some_function()
    encoded = cache.encode(function)

    assert cache.encode(function) is encoded
    before = dict(cache._entries)
    change(function)
    cache.encode(function)
    assert dict(cache._entries) != before
    gone = weakref.ref(function)
    del function, before
    gc.collect()
    assert gone() is None


def some_class():
    class Base:
        pass

    class Other:
        pass

    class Made(Base):
        first = 1
        second = 2

        def method(self):
            return super().__init__

    Made.patched = 3
    return Made, Other


CLASS_CHANGES = {
    "set": lambda cls, _: setattr(cls, "first", True),
    "added": lambda cls, _: setattr(cls, "third", 3),
    "deleted": lambda cls, _: delattr(cls, "second"),
    "renamed": lambda cls, _: (setattr(cls, "third", cls.second), delattr(cls, "second")),
    "a patch renamed": lambda cls, _: (setattr(cls, "new", 3), delattr(cls, "patched")),
    "bases": lambda cls, other: setattr(cls, "__bases__", (other,)),
}


@FEW_AND_MANY
@pytest.mark.parametrize("change", CLASS_CHANGES.values(), ids=list(CLASS_CHANGES))
def test_each_change_of_a_class_shows(change, more):
    cls, another = some_class()
    padding = [{"x": number} for number in range(more)]
    watched = Watch([*padding, cls, gc.get_referents(cls.__dict__)[0]])

    assert watched.holds()
    cls().method()
    assert watched.holds()
    change(cls, another)
    assert not watched.holds()


VALUES = {
    "list": ([1, [2]], lambda v: v[1].append(3)),
    "the same item elsewhere": ([1, 2], lambda v: v.reverse()),
    "an equal item": ([1], lambda v: v.__setitem__(0, True)),
    "dict": ({"a": 1}, lambda v: v.update(a=2)),
    "another key": ({"a": 1}, lambda v: v.update(b=v.pop("a"))),
    "key that is no text": ({1: 1}, lambda v: v.update({True: 2})),
    "set": ({1, 2}, lambda v: v.add(3)),
    "deque": (collections.deque([1]), lambda v: v.rotate() or v.append(1)),
    "tuple": ((1, []), lambda v: v[1].append(1)),
    "defaultdict": (collections.defaultdict(list, a=[1]), lambda v: v["b"]),
    "Counter": (collections.Counter("ab"), lambda v: v.update("b")),
    "partial": (functools.partial(print, [1]), lambda v: v.args[0].append(2)),
    "SimpleNamespace": (types.SimpleNamespace(x=1), lambda v: setattr(v, "x", 2)),
    "instance": (Plain(), lambda v: setattr(v, "x", 1000.0)),
    "another attribute": (Plain(), lambda v: (setattr(v, "z", v.x), delattr(v, "x"))),
    "another dict": (Plain(), lambda v: setattr(v, "__dict__", {"x": v.x})),
    "slot": (Slotted(), lambda v: setattr(v, "y", 2)),
    "attribute beside a slot": (Slotted(), lambda v: setattr(v, "x", 2)),
    "items of a class of one's own": (OwnList([1]), lambda v: v.append(2)),
    "attributes of these": (OwnList([1]), lambda v: setattr(v, "x", 2)),
    "attributes of a tuple": (OwnTuple([[1], 2]), lambda v: setattr(v, "x", 2)),
    "what is in a tuple of one's own": (OwnTuple([[1], 2]), lambda v: v[0].append(2)),
    "what is in a named tuple of one's own": (OwnPair([1], 2), lambda v: v.a.append(2)),
    "method": (Plain().__init__, lambda v: setattr(v.__self__, "x", 2)),
}


@FEW_AND_MANY
@pytest.mark.parametrize("kind", VALUES)
def test_each_change_in_place_shows(kind, more):
    value, change = VALUES[kind]
    value = copy.deepcopy(value)
    holders = holders_in(value, is_fixed)
    watched = Watch([*holders, *({"x": number} for number in range(more))])

    assert watched.holds()
    change(value)
    assert not watched.holds()


@pytest.mark.parametrize(
    "value",
    [
        bytearray(1),
        array.array("d", [1]),
        np.zeros(2),
        memoryview(b"a"),
        random.Random(1),  # noqa: S311
        OwnRandom(1),
        collections.OrderedDict(a=1),
        OwnOrder(a=1),
        OwnDate(2020, 1, 1),
        iter([1]),
        re.finditer("a", "a"),
        [[bytearray(1)]],
        {"a": np.zeros(1)},
        list(range(30_000)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_keeps_data_out_of_sight_is_opaque(value):
    assert holders_in(value, is_fixed) is None


@pytest.mark.parametrize(
    "value",
    [1, "a", (1, 2), datetime.date(2020, 1, 1), decimal.Decimal(1), re.compile("a"), object(), len],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_change_holds_nothing(value):
    assert holders_in(value, is_fixed) == []


def test_no_code_of_the_program_runs():
    class Own:
        def __getattribute__(self, name):
            raise AssertionError(name)

        __eq__ = __hash__ = __len__ = __iter__ = None

    value = [Own(), Never()]
    watched = Watch(holders_in(value, is_fixed))

    assert watched.holds()
    value[0] = Own()
    assert not watched.holds()


def test_without_addresses_objects_are_compared_one_by_one(monkeypatch):
    monkeypatch.setattr(watch, "_addresses", [None])
    values = [[number] for number in range(500)]
    watched = Watch(values)

    assert watched.holds()
    values[400][0] = 400.0
    assert not watched.holds()


def test_where_the_collector_does_not_see_all_definitions_are_watched_all_the_same(monkeypatch):
    """As on PyPy."""
    monkeypatch.setattr(watch, "IS_CPYTHON", False)
    for change in FUNCTION_CHANGES.values():
        function = some_function()
        watched = Watch((function, function.__dict__, function.__kwdefaults__, a_cell(function)))
        assert watched.holds()
        change(function)
        assert not watched.holds()
    for change in CLASS_CHANGES.values():
        cls, another = some_class()
        watched = Watch((cls, cls.__dict__))
        assert watched.holds()
        change(cls, another)
        assert not watched.holds()
    assert holders_in([1], is_fixed) is None


def test_a_look_at_many_definitions_runs_no_python_for_each():
    """It is 0.25 µs for each that a submit may take, and so long takes one call in Python."""
    source = ["class Plain:\n    def __init__(self, x): self.x = x\n"]
    for number in range(0, 300, 6):
        source += [
            f"def n{number}(x=1): return x",
            f"class n{number + 1}:\n    a = [1]\n    def f(self): return 1",
            f"n{number + 2} = [{number}]",
            f"n{number + 3} = {{'x': {number}}}",
            f"n{number + 4} = Plain({number})",
            f"n{number + 5} = {number}",
        ]
    names = ", ".join(f"n{number}" for number in range(300))
    before = sys.modules["__main__"]
    sys.modules["__main__"] = module = types.ModuleType("__main__")
    try:
        space = module.__dict__
        exec("\n".join([*source, f"def task(): return {names}"]), space)
        cache = FunctionCache()
        encoded = cache.encode(space["task"])
        cache.encode(space["task"])  # looks at the modules that the first one has imported
        calls = []
        sys.setprofile(lambda frame, event, arg: calls.append(event))
        try:
            again = cache.encode(space["task"])
        finally:
            sys.setprofile(None)
        assert again is encoded
        assert len(calls) < 80
        space["n296"][0] = -1
        assert cache.encode(space["task"]) is not encoded
    finally:
        sys.modules["__main__"] = before
