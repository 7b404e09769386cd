"""Which part of an object cannot be pickled, in words."""

from __future__ import annotations

import threading
import types

import pytest

from remote_executor.errors import PayloadError
from remote_executor.payload.pickles import dump
from tests.support import payload_tasks as tasks


def words(obj, what="call"):
    with pytest.raises(PayloadError) as caught:
        dump(obj, what)
    assert caught.value.__cause__ is not None
    return str(caught.value)


LOCK = "cannot pickle '_thread.lock' object"


class WithSlots:
    __slots__ = ("lock",)

    def __init__(self):
        self.lock = threading.Lock()


def capturing(value, later=False):
    def function(x=1, *, option=2):
        return value, unset

    if later:
        unset = 1
    return function


def with_default(x=threading.Lock()):  # noqa: B008
    return x


def with_keyword_default(*, x=threading.Lock()):  # noqa: B008
    return x


def by_value(function):
    """Copy a function so that its name does not lead to it any more."""
    copy = types.FunctionType(
        function.__code__, function.__globals__, "copy", function.__defaults__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__qualname__ = "copy"
    return copy


def elsewhere(function):
    """Copy a function into globals that are no module's."""
    space = {**function.__globals__, "__name__": "elsewhere"}
    return types.FunctionType(function.__code__, space)


A_LOCK = threading.Lock()


def uses_global_lock():
    return len((A_LOCK,))


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (((1, threading.Lock()), {}), "argument 2 (a _thread.lock)"),
        (((1,), {"key": threading.Lock()}), "argument 'key' (a _thread.lock)"),
        ((([0, {"k": threading.Lock()}],), {}), "argument 1, [1], ['k'] (a _thread.lock)"),
        (((tasks.Lockable(),), {}), "argument 1, .lock (a _thread.lock)"),
        (((WithSlots(),), {}), f"argument 1 (a {__name__}.WithSlots)"),
        (
            (([].append, tasks.Lockable().__init__), {}),
            "argument 2, the object it is bound to, .lo",
        ),
        (((capturing(threading.Lock()),), {}), "argument 1, captured variable 'value' (a _thr"),
        (((capturing(threading.Lock(), True),), {}), "captured variable 'value' (a _thr"),
        (((by_value(with_default),), {}), "argument 1, a default value (a _thread.lock)"),
        (((by_value(with_keyword_default),), {}), "argument 1, the default of 'x' (a _thread.loc"),
        (((elsewhere(uses_global_lock),), {}), "argument 1, global 'A_LOCK' (a _thread.lock)"),
        ((((x for x in "ab"),), {}), "argument 1 (a generator)"),
    ],
    ids=range(12),
)
def test_an_error_names_the_innermost_part_p9(call, where):
    assert where in words(call)


def test_an_error_names_what_it_was_told():
    assert words(threading.Lock(), "function") == (
        f"function (a _thread.lock) cannot be pickled: {LOCK}"
    )


def test_a_cycle_does_not_hold_the_search_up():
    cycle = [threading.Lock()]
    cycle.insert(0, cycle)

    assert "(a " in words(((cycle,), {}))


def test_a_wide_object_does_not_hold_the_search_up():
    wide = [*range(1000), threading.Lock()]

    assert "argument 1 (a list)" in words(((wide,), {}))


class FailsAtFirst:
    """Cannot be pickled at all, until somebody asks why."""

    def __init__(self):
        self.left = 1

    def __reduce__(self):
        self.left -= 1
        if self.left >= 0:
            raise ValueError("not yet")
        return FailsAtFirst, ()


class BadDict(dict):
    def __reduce_ex__(self, protocol):
        raise ValueError("bad dict")


def test_the_whole_is_named_where_no_part_is_to_blame():
    assert words(((FailsAtFirst(),), {"k": 1})) == "call (a tuple) cannot be pickled: not yet"
    assert f"argument 1 (a {__name__}.BadDict)" in words(((BadDict(k=1),), {}))


def test_the_whole_function_is_named_where_no_part_is_to_blame():
    def function():
        return FailsAtFirst

    function.later = FailsAtFirst()
    assert "function (a function) cannot be pickled: not yet" in words(function, "function")


def test_a_deep_object_does_not_hold_the_search_up():
    deep = threading.Lock()
    for _ in range(50):
        deep = [deep]

    assert words(((deep,), {})).count("[0]") == 7


def test_what_is_nested_too_deep_is_named_by_its_outermost_part():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    said = words(((1, {"a": deep}), {}))

    # Python's words, and those from 3.14 on.
    ends = "maximum recursion depth", "Stack overflow"
    assert said.startswith(tuple(f"argument 2 (a dict) cannot be pickled: {end}" for end in ends))
