"""What a worker gets that asks for a name."""

from __future__ import annotations

import pickle
import sys
import threading
import types

import pytest

from remote_executor.payload import mains
from remote_executor.payload.code import lines, namespace
from remote_executor.payload.code.answers import answer, lines_of
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


@pytest.fixture
def there(monkeypatch):
    """Return a worker's namespace."""
    module = types.ModuleType("__main__")
    monkeypatch.setattr(mains, "_main", module)
    monkeypatch.setattr(names, "watched", False)
    return vars(module)


def test_all_names_are_answered_as_they_were_at_the_submit(main, there):
    exec("def f(): return x\nx = [1]\ny = [2]", vars(main))
    generation = names.look()
    main.y = [3]
    main.later = 4

    opened(*answer(namespace.WHOLE, generation, None))

    assert {"f", "x", "y"} <= set(there)
    assert "later" not in there
    assert there["f"]() == [1]
    with pytest.raises(Exception, match=r"global 'y' of the program.*bound anew"):
        len(there["y"])
    assert names.watched


def test_all_names_as_they_are_if_nobody_knows_since_when_they_are_asked_for(main, there):
    main.x = [1]
    names.look()
    main.x, main.lock = [2], threading.Lock()

    opened(*answer(namespace.WHOLE, None, None))

    assert there["x"] == [2]
    with pytest.raises(Exception, match="global 'lock' cannot be pickled"):
        there["lock"].acquire()


def test_all_names_for_another_python(main, there):
    main.x = [1]
    opened(*answer(namespace.WHOLE, None, (("cpython", (3, 12)),)))
    assert there["x"] == [1]


def test_lines_only_of_files_that_code_is_from_which_has_travelled(main, monkeypatch):
    monkeypatch.setattr(lines, "files", {})
    monkeypatch.setattr("remote_executor.payload.code.answers.files", lines.files)
    assert lines_of(__file__) == []
    assert lines_of(3) == []
    lines.files[__file__] = None
    assert lines_of(__file__)[0].startswith('"""What a worker gets')
