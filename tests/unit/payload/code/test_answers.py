"""What a worker gets that asks for a name."""

from __future__ import annotations

import pickle
import sys
import threading
import types

import pytest

from remote_executor.payload import mains
from remote_executor.payload.code.answers import answer
from remote_executor.payload.code.names import names


@pytest.fixture
def main(monkeypatch):
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    yield module
    mains.applied.clear()


def opened(fields, contents):
    body, *buffers = (contents[each] for each in fields["bundle"])
    return pickle.loads(body, buffers=buffers)


def test_a_name_is_answered_and_goes_along_from_then_on(main):
    exec("class P: x = 1", vars(main))
    generation = names.look()

    assert opened(*answer("P", generation, None)).x == 1
    assert list(names.asked) == ["P"]


@pytest.mark.parametrize("name", ["nothing", "__file__", "__path__", 3, None])
def test_there_is_no_such_name(main, name):
    assert answer(name, None, None) == ({"bundle": None, "refused": None}, {})


def test_what_was_bound_anew_since_is_refused(main):
    main.x, main.y = [1], [2]
    generation = names.look()
    main.x = [3]
    del main.y

    for name in ("x", "y"):
        fields, _ = answer(name, generation, None)
        assert fields["bundle"] is None
        assert "bound anew" in fields["refused"]
    assert opened(*answer("x", names.look(), None)) == [3]


def test_what_cannot_be_pickled_is_refused(main):
    main.lock = threading.Lock()

    assert "_thread.lock" in answer("lock", names.look(), None)[0]["refused"]
    assert list(names.asked) == []
