"""What code names, and whether captured values are still the same."""

from __future__ import annotations

import abc
import collections
import dataclasses
import enum
import functools
import gc
import types
import weakref

import pytest

from remote_executor.payload import captures
from remote_executor.payload.captures import facts, same_bytes
from remote_executor.payload.code.dispatch import method_by_dispatch
from remote_executor.payload.functions import FunctionCache
from tests.support.words import without_address


def make(source, **names):
    """Define functions in a namespace of their own that is no importable module."""
    made = {"__name__": "made", **names}
    exec(source, made)
    return made


def test_facts_name_globals_wherever_they_hide_l3():
    made = make(
        "def outer(a, free=1):\n"
        "    inner_value = a\n"
        "    class Inner(BASE):\n"
        "        attribute = IN_CLASS\n"
        "        def method(self): return IN_METHOD\n"
        "    def inner():\n"
        "        nonlocal inner_value\n"
        "        inner_value = [IN_LIST for _ in range(3)]\n"
        "        return f'{IN_TEXT}', lambda: IN_LAMBDA\n"
        "    return inner, Inner\n",
        BASE=object,
        IN_CLASS=1,
    )
    found = facts(made["outer"].__code__)

    names = {"BASE", "IN_CLASS", "IN_METHOD", "IN_LIST", "IN_TEXT", "IN_LAMBDA", "range"}
    assert names <= set(found.names)
    assert not found.written_free
    assert not found.writes_globals
    assert facts(made["outer"](1)[0].__code__).written_free == {"inner_value"}
    assert facts(made["outer"].__code__) is found


def test_facts_see_writes_in_nested_code():
    def outer():
        value = 1

        def middle():
            def inner():
                nonlocal value
                del value

            return inner

        return middle

    made = make(
        "def f():\n    def g():\n        global counter\n        counter = 1\n    return g\n"
    )

    assert facts(outer().__code__).written_free == {"value"}
    assert not facts(outer.__code__).written_free
    assert facts(made["f"].__code__).writes_globals
    assert facts(make("def f():\n    global x\n    del x\n")["f"].__code__).writes_globals


def test_same_bytes():
    assert same_bytes(memoryview(bytearray(b"abc")), memoryview(b"abc"))
    assert same_bytes(memoryview(b"abc"), memoryview(b"abc"))
    assert not same_bytes(memoryview(b"abc"), memoryview(b"abd"))
    assert not same_bytes(memoryview(bytearray(b"abc")), memoryview(b"ab"))


class Color(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [None, 1, "x", (1, ("y", 2.5)), frozenset({1}), Color.RED, len, abc, int, range(3), facts],
    ids=without_address,
)
def test_a_function_that_captured_what_cannot_change_is_pure(value):
    cache = FunctionCache()

    def function():
        return value

    first = cache.encode(function)
    again = cache.encode(function)

    assert first is again
    assert first.pure


@pytest.mark.parametrize(
    "value", [[1], {}, set(), ([],), bytearray(1), object(), [].append], ids=without_address
)
def test_a_function_that_captured_what_can_change_is_not_pure(value):
    def function():
        return value

    assert not FunctionCache().encode(function).pure


def encode_twice(function, change):
    """Tell whether a change shows in the second pickle."""
    cache = FunctionCache()
    before = cache.encode(function)
    assert cache.encode(function) is before
    change()
    after = cache.encode(function)
    assert (after is before) == (after.key == before.key)
    return after is not before


def test_a_replaced_global_shows():
    made = make("def f():\n    return value, len\n", value=1)

    assert encode_twice(made["f"], lambda: made.update(value=2))
    assert encode_twice(made["f"], lambda: made.pop("value"))
    assert encode_twice(made["f"], lambda: made.update(len=max))
    assert not encode_twice(made["f"], lambda: made.update(other=2))


def test_a_global_of_a_helper_shows():
    made = make("def g():\n    return value\ndef f():\n    return g()\n", value=1)

    assert encode_twice(made["f"], lambda: made.update(value=2))
    assert encode_twice(made["f"], lambda: setattr(made["g"], "__defaults__", ()))


def test_changed_content_shows_l12():
    value = [1, 2]
    made = make("def f():\n    return value\n", value=value)

    assert encode_twice(made["f"], lambda: value.append(3))
    assert encode_twice(made["f"], lambda: made.update(value=[4]))
    assert not encode_twice(made["f"], lambda: made.update(value=[4]))


def test_captured_variables_show_l12():
    value = 1
    values = [1]

    def function():
        return value, values, unset

    def change():
        nonlocal value
        value += 1

    assert encode_twice(function, change)
    assert encode_twice(function, lambda: values.append(1))
    if value > 5:
        unset = 1


def test_a_function_changed_in_place_shows():
    def function(a=1, *, b=2):
        return a, b

    def other(a=1, *, b=2):
        return b, a

    function.note = "n"

    assert encode_twice(function, lambda: setattr(function, "__defaults__", (3,)))
    assert encode_twice(function, lambda: setattr(function, "__kwdefaults__", {"b": 4}))
    assert encode_twice(function, lambda: function.__kwdefaults__.update(b=5))
    assert encode_twice(function, lambda: setattr(function, "note", "m"))
    assert encode_twice(function, lambda: setattr(function, "mark", 1))
    assert encode_twice(function, lambda: setattr(function, "__code__", other.__code__))


def test_mutable_defaults_and_attributes_are_compared_by_content():
    def function(a=[], *, b={}):  # noqa: B006
        return a, b

    function.seen = []

    assert not FunctionCache().encode(function).pure
    assert encode_twice(function, lambda: function.__defaults__[0].append(1))
    assert encode_twice(function, lambda: function.__kwdefaults__["b"].update(x=1))
    assert encode_twice(function, lambda: function.seen.append(1))


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    global n\n    n += 1\n    return n\n",
        "def outer():\n  n = 0\n  def f():\n    nonlocal n\n    n += 1\n  return f\nf = outer()",
    ],
    ids=["global", "nonlocal"],
)
def test_a_function_that_writes_to_what_it_captured_is_not_pure_l13(source):
    assert not FunctionCache().encode(make(source, n=0)["f"]).pure


def local_classes():
    class Base:
        limit = 1

    @dataclasses.dataclass
    class Data(Base):
        x: int = 0
        many: list = dataclasses.field(default_factory=list)

        def read(self):
            return super().limit

    class Kind(enum.Enum):
        ONE = 1

    pair = collections.namedtuple("pair", "a b")  # noqa: PYI024
    return Base, Data, Kind, pair


def test_classes_are_compared_by_their_attributes():
    base, data, kind, pair = local_classes()

    def function():
        return base, data, kind, pair

    assert FunctionCache().encode(function).pure
    assert encode_twice(function, lambda: setattr(base, "limit", 2))
    assert encode_twice(function, lambda: setattr(base, "more", 2))
    base.many = []
    assert not FunctionCache().encode(function).pure
    assert encode_twice(function, lambda: base.many.append(1))


def test_a_class_is_a_callable_too():
    base, *_ = local_classes()

    assert encode_twice(base, lambda: setattr(base, "limit", 2))


def test_what_cannot_be_pickled_any_more_shows():
    values = [1]
    cache = FunctionCache()

    def function():
        return values

    cache.encode(function)
    values.append(x for x in "a")
    with pytest.raises(TypeError, match="captured variable 'values'"):
        cache.encode(function)


def test_a_function_that_captured_itself_is_not_kept_alive():
    def recursive(n):
        return n and recursive(n - 1)  # noqa: F821 - it is deleted below

    def with_default(a=[]):  # noqa: B006
        return a

    cache = FunctionCache()
    assert cache.encode(recursive) is cache.encode(recursive)
    cache.encode(with_default)
    assert len(cache) == 2
    gone = weakref.ref(recursive), weakref.ref(with_default)
    del recursive, with_default
    gc.collect()

    assert [reference() for reference in gone] == [None, None]
    assert len(cache) == 0


def test_a_helper_that_is_gone_shows():
    def make_helper():
        def helper(b=[]):  # noqa: B006
            return b

        return helper

    holder = [make_helper()]

    def function():
        return holder

    assert encode_twice(function, holder.clear)


def test_a_changed_helper_shows():
    made = make("def g(a=1):\n    return a\ndef f():\n    return g()\n")

    assert encode_twice(made["f"], lambda: setattr(made["g"], "__defaults__", (2,)))


def test_what_is_registered_with_a_dispatcher_shows():
    @functools.singledispatch
    def function(x):
        return "any"

    assert encode_twice(function, lambda: function.register(int, str))
    assert encode_twice(function, lambda: function.register(int, repr))
    assert not encode_twice(function, lambda: None)


class Shape:
    @functools.singledispatchmethod
    def area(self, by):
        return "any"


def test_a_method_by_dispatch_holds_an_object_that_may_change():
    method = Shape().area
    shape = method_by_dispatch(method)[0]

    def function():
        return method

    assert encode_twice(function, lambda: setattr(shape, "unit", 2))


class Adder:
    amount = 1

    def __call__(self, x):
        return x + self.amount

    def __eq__(self, other):
        return isinstance(other, Adder)


def test_what_is_registered_may_have_state():
    adder = Adder()

    @functools.singledispatch
    def function(x):
        return "any"

    function.register(int, adder)

    assert encode_twice(function, lambda: setattr(adder, "amount", 2))


def test_a_function_is_no_cache_where_caches_are_functions(monkeypatch):
    """As on PyPy, where ``lru_cache`` is written in Python."""
    monkeypatch.setattr(captures, "LRU_CACHE", types.FunctionType)

    def plain(x):
        return x

    def cache(x):
        return x

    cache.cache_parameters = lambda: {"maxsize": 1, "typed": False}

    assert not captures.is_lru_cache(plain)
    assert captures.is_lru_cache(cache)
