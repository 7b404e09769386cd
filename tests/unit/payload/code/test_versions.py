"""Class attributes have other numbers once the client has changed them, and only then."""

from __future__ import annotations

import gc
import sys
import types
from textwrap import dedent
from typing import ClassVar

import pytest

from remote_executor.payload.code import versions
from remote_executor.payload.code.names import names
from remote_executor.payload.code.versions import versions_of
from tests.support.payload_tasks import run_main


@pytest.fixture
def cls():
    class Held:
        items: ClassVar = []
        table: ClassVar = {"k": [1]}
        number = 1

        def method(self):
            pass

        @property
        def shown(self):
            pass

    return Held


def of(cls):
    return versions_of(cls, dict(vars(cls)))


def test_only_what_may_change_in_place_has_a_number(cls):
    assert {"items", "table"} <= set(of(cls))
    assert {"number", "method", "shown"}.isdisjoint(of(cls))


def test_nothing_has_changed(cls):
    assert of(cls) == of(cls)


def test_an_equal_one_in_its_place_is_a_change(cls):
    before = of(cls)
    cls.items = []

    assert of(cls)["items"] != before["items"]
    assert of(cls)["table"] == before["table"]


@pytest.mark.parametrize("change", [lambda c: c.items.append(1), lambda c: c.table["k"].append(2)])
def test_a_change_in_place_is_one(cls, change):
    before = of(cls)
    change(cls)

    assert of(cls) != before
    assert of(cls) == of(cls)


def test_a_value_that_a_name_binds_again_is_that_of_the_name(cls, monkeypatch):
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    main.first = cls.items
    names.look()
    named = of(cls)
    main.first = []
    names.look()
    unnamed = of(cls)
    main.first = cls.items
    names.look()

    assert unnamed["items"] == named["items"]
    assert of(cls)["items"] != named["items"]


def test_a_class_that_is_gone_is_forgotten():
    class Gone:
        items: ClassVar = []

    of(Gone)
    key = id(Gone)
    assert key in versions._noted
    del Gone
    gc.collect()

    assert key not in versions._noted


PROGRAMS = {
    "an equal list in the place of one that a task has filled": """
        class A: items = []
        def task():
            A.items.append(1)
            return len(A.items)
        with {worker}() as worker:
            assert [worker.call(task), worker.call(task)] == [1, 2]
            A.items = []
            assert [worker.call(task), worker.call(task)] == [1, 2]
        """,
    "what a task has filled stays when another attribute changes": """
        class A:
            items, x = [], 1
        def task():
            A.items.append(1)
            return len(A.items), A.x
        with {worker}() as worker:
            assert [worker.call(task), worker.call(task)] == [(1, 1), (2, 1)]
            A.x = 2
            assert worker.call(task) == (3, 2)
            A.items.append(5)
            assert worker.call(task) == (2, 2)
        """,
    "the same of a class that is made by its statement": """
        import functools
        class A:
            items, x = [], 1
            @functools.cached_property
            def p(self): return 1
        def task():
            A.items.append(1)
            return len(A.items), A.x
        with {worker}() as worker:
            assert [worker.call(task), worker.call(task)] == [(1, 1), (2, 1)]
            A.x = 2
            assert worker.call(task) == (3, 2)
            A.items = []
            assert worker.call(task) == (1, 2)
        """,
    "a global that an equal one has taken the place of": """
        state, table = [], dict(inner=[])
        def task():
            state.append(1)
            table["inner"].append(1)
            return len(state), len(table["inner"])
        with {worker}() as worker:
            assert [worker.call(task), worker.call(task)] == [(1, 1), (2, 2)]
            state = []
            assert worker.call(task) == (1, 3)
            table["inner"] = []
            assert worker.call(task) == (2, 1)
        """,
    "a captured variable": """
        def make():
            log = []
            def add():
                log.append(1)
                return len(log)
            def reset():
                nonlocal log
                log = []
            return add, reset
        add, reset = make()
        def task(): return add()
        with {worker}() as worker:
            assert [worker.call(task), worker.call(task)] == [1, 2]
            reset()
            assert worker.call(task) == 1
        """,
    "a sentinel bound anew": """
        v = object()
        class A: value = v
        def task(): return A.value is v
        with {worker}() as worker:
            assert worker.call(task)
            v = object()
            assert not worker.call(task)
            A.value = v
            assert worker.call(task)
            old, v = v, object()
            assert not worker.call(task)
            v = old
            assert worker.call(task)
        """,
    "attributes that were deleted from a class that is made by its statement": """
        import functools
        class A:
            gone = 1
            @functools.cached_property
            def p(self): return 1
            def later(self): pass
        del A.gone
        def task(): return hasattr(A, "gone"), hasattr(A, "later"), A().p
        with {worker}() as worker:
            assert worker.call(task) == (False, True, 1)
            del A.later
            assert worker.call(task) == (False, False, 1)
        """,
    "a name that is deleted, for code that looks names up": """
        g = 5
        def task(): return "g" in globals(), eval("'g' in globals()")
        with {worker}() as worker:
            assert worker.call(task) == (True, True)
            del g
            assert worker.call(task) == (False, False)
            g = 5
            assert worker.call(task) == (True, True)
        """,
    "a text and a float in defaults, tables and classes": """
        TEXT, NAN, PAIR = "no value, please", float("nan"), (1, "two words")
        class A:
            text = TEXT
            def get(self, x=PAIR): return self.text is TEXT, x is PAIR
        table = [NAN, TEXT]
        def task(x=TEXT, *, y=NAN):
            return x is TEXT, y is NAN, NAN in table, table[1] is TEXT, *A().get()
        with {worker}() as worker:
            assert all(worker.call(task))
            TEXT = "another text of two words"
            assert worker.call(task) == (False, True, True, False, False, True)
        """,
    "a class attribute that is bound to an equal text, which a name has": """
        KEY = "the key of it"
        OTHER = "".join(["the key", " of it"])
        class A: key, x = KEY, 1
        def task(): return A.key is KEY, A.key is OTHER
        def write(): A.key = 5
        def read(): return A.key
        with {worker}() as worker:
            assert worker.call(task) == (True, False)
            A.key = OTHER
            assert worker.call(task) == (False, True)
            worker.call(write)
            A.x = 2
            assert worker.call(read) == 5
        """,
    "what is written to files in memory": """
        import io
        text, raw = io.StringIO("a"), io.BytesIO(b"a")
        def task(): return text.getvalue(), raw.getvalue()
        with {worker}() as worker:
            assert worker.call(task) == ("a", b"a")
            text.write("zz")
            assert worker.call(task) == ("zz", b"a")
            raw.write(b"yy")
            assert worker.call(task) == ("zz", b"yy")
        """,
}


@pytest.mark.parametrize("worker", ["Worker", "OtherWorker"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_in_two_processes(name, worker, tmp_path):
    run_main(dedent(PROGRAMS[name]).replace("{worker}", worker), tmp_path)
