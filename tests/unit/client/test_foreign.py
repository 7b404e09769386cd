"""What goes to servers of another Python, and what is said of them."""

from __future__ import annotations

import threading

import pytest

from remote_executor.client.foreign import (
    Foreign,
    differences,
    in_their_words,
    of_other_libraries,
    survey,
)
from remote_executor.errors import CannotShip, PayloadError
from remote_executor.payload.functions import FunctionCache
from remote_executor.payload.pickles import dump, load
from remote_executor.payload.pythons import python_words

HERE = "cpython", (3, 12, 1)
SAME = "cpython", (3, 12, 9)
OLD = "cpython", (3, 10, 2)
PYPY = "pypy", (3, 12, 1)


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        ([], None),
        ([HERE, SAME], None),
        ([None], Foreign((), False)),
        ([HERE, None], Foreign((), False)),
        ([OLD], Foreign((OLD,), True)),
        ([OLD, PYPY, OLD], Foreign((OLD, PYPY), True)),
        ([OLD, HERE], Foreign((OLD,), False)),
        ([OLD, None], Foreign((OLD,), False)),
    ],
)
def test_a_farm_is_surveyed(servers, expected):
    """K68: by implementation and minor version."""
    assert survey(HERE, servers) == expected


def form(foreign, fn, *args):
    cache = FunctionCache()
    body, buffers = dump((args, {}), "call")
    encoded = cache.encode(fn)
    return encoded, body, foreign.form(cache, fn, encoded, "call", (args, {}), body, buffers)


def test_only_code_has_another_form():
    foreign = Foreign((OLD,), True)

    assert form(foreign, len, [1])[2] is None
    encoded, body, made = form(foreign, lambda x: x, 1)
    assert made[0] is encoded.abroad[1]
    assert made[1] is body
    encoded, body, made = form(foreign, len, [lambda x: x])
    assert made[0] is encoded
    assert made[1] != body
    # The items of a map come later.
    cache = FunctionCache()
    function = lambda x: x  # noqa: E731
    made = foreign.form(cache, function, cache.encode(function), "object", None, None, ())
    assert made[1:] == (b"", ())


def test_what_cannot_be_sent_names_both_pythons():
    """L17: an argument with bytecode, too."""
    space = {}
    exec("def f(x): return x", space)

    for fn, args in ((space["f"], ()), (len, ([space["f"]],))):
        error = form(Foreign((OLD, PYPY), True), fn, *args)[2]
        assert isinstance(error, CannotShip)
        assert (error.ours, error.theirs) == (python_words(), "CPython 3.10.2 or PyPy 3.12.1")
    assert form(Foreign((), False), space["f"])[2].theirs == "another Python"


def test_other_trouble_is_told_as_it_is(monkeypatch):
    from remote_executor.payload import by_source

    def fails(*_):
        raise PayloadError("something", "it cannot")

    monkeypatch.setattr(by_source, "dump_abroad", fails)
    error = form(Foreign((OLD,), True), len, [lambda x: x])[2]

    assert type(error) is PayloadError


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("Can't get attribute 'cbrt' on <module 'math'>"),
        ModuleNotFoundError("No module named 'asyncio.new'", name="asyncio.new"),
        SyntaxError("no"),
    ],
)
def test_what_is_absent_there_is_named(error):
    """K68."""
    named = in_their_words(error, "task", "CPython 3.10.2")

    assert isinstance(named, CannotShip)
    assert named.theirs == "CPython 3.10.2"
    assert str(error) in named.reason
    assert named.__cause__ is error


def test_what_has_another_reason_is_left_alone():
    for error in (ModuleNotFoundError("x", name="their_library"), ImportError("y"), KeyError(1)):
        assert in_their_words(error, "task", "CPython 3.10.2") is error
    named = in_their_words(CannotShip("f", "reason", theirs="PyPy 3.9"), "task", "CPython 3.10.2")
    assert (named.ours, named.theirs) == (python_words(), "PyPy 3.9")


def test_differences_that_matter_are_told():
    """K68: implementation, version, cloudpickle, this library."""
    ours = {"remote-executor": "1", "cloudpickle": "3.1"}

    assert differences(HERE, ours, SAME, dict(ours)) == ()
    assert differences(HERE, ours, PYPY, {"remote-executor": "1", "cloudpickle": "3.0"}) == (
        "PyPy 3.12.1 there, CPython 3.12.1 here: functions travel as source",
        "cloudpickle 3.0 there, 3.1 here",
    )
    assert differences(HERE, ours, HERE, {}) == ()


def test_a_library_of_another_version_is_named(monkeypatch):
    from remote_executor.client import foreign

    monkeypatch.setattr(foreign, "installed", lambda: {"cloudpickle": "3.1", "other": "1"})
    body, _ = dump(lambda: 1)
    servers = [("node1", {"cloudpickle": "3.0", "other": "2"}), ("node2", {"cloudpickle": "3.1"})]
    error = of_other_libraries(AttributeError("gone"), [b"", body], servers, "it cannot be loaded")

    assert str(error) == (
        "AttributeError: it cannot be loaded: gone (cloudpickle is 3.1 here and 3.0 on node1)"
    )
    assert of_other_libraries(KeyError(1), [body], servers[1:], "it") is None


def test_what_can_go_nowhere_is_an_error_of_the_task():
    class Local:
        def get(self):
            return 1

    foreign = Foreign((OLD,), True)
    encoded, body, buffers = foreign.only(Local.get, ((Local(),), {}))
    (one,), _ = load(body, buffers)

    assert load(encoded.body)(one) == 1
    space = {}
    exec("def f(x): return x", space)
    assert foreign.only(space["f"], ()).theirs == "CPython 3.10.2"
    assert type(foreign.only(len, ((threading.Lock(),), {}))) is PayloadError


def late(cache, function, *args, items=None):
    encoded = cache.encode(function)
    body, buffers = dump(items if items is not None else (args, {}), "call")
    return encoded, lambda: Foreign((OLD,), False).late(encoded, "task", items, body, buffers)


def test_a_task_from_before_is_made_ready_if_it_is_what_it_was():
    """L14: a server of another Python came after it was submitted."""
    cache = FunctionCache()
    captured = [1]
    fixed, loose = lambda x: x, lambda: captured

    encoded, make = late(cache, fixed, 1)
    assert make()[0] is make()[0] is encoded.abroad[1]
    _, make = late(cache, loose)
    captured.append(2)
    assert isinstance(make(), CannotShip)
    _, make = late(cache, len, [fixed])
    assert "submitted before" in str(make())
    encoded, make = late(cache, len, items=[([fixed],)])
    assert make()[0] is encoded
    assert make()[1] != b""
    encoded, make = late(cache, len, [1])
    assert make()[0] is encoded


def test_what_cannot_be_sent_late_says_so():
    cache = FunctionCache()
    space = {}
    exec("def f(x): return x", space)

    assert "f() cannot be sent" in str(late(cache, space["f"])[1]())
    assert "f() cannot be sent" in str(late(cache, len, items=[([space["f"]],)])[1]())
    _, make = late(cache, lambda: 1)
    assert "submitted before" in str(make())  # nobody has it any more
