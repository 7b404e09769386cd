"""Changes between submits to another Python, and what code names there: in two interpreters."""

from __future__ import annotations

from textwrap import dedent

import pytest

from tests.support.payload_tasks import run_main

CHANGES = {
    "a captured variable": """
        def make():
            level = 1
            def get(): return level
            def put(x):
                nonlocal level
                level = x
            return get, put
        get, put = make()
        def task(): return get()
        with OtherWorker() as worker:
            assert worker.call(task) == 1
            put(2)
            assert worker.call(task) == 2
        """,
    "a captured variable that two functions share": """
        def make():
            first = last = 1
            def get(): return last, first
            def put(x):
                nonlocal first, last
                first, last = x, last + x
            return get, put
        get, put = make()
        def task():
            put(5)
            return get()
        with OtherWorker() as worker:
            assert worker.call(task) == (6, 5)
            put(2)
            assert worker.call(get) == (3, 2)
            assert worker.call(task) == (8, 5)
        """,
    "a class attribute that is deleted": """
        class Config:
            level = 1
            def method(self): pass
        def task():
            here = hasattr(Config, "level"), hasattr(Config, "method"), hasattr(Config, "mine")
            Config.mine = 1
            return here
        with OtherWorker() as worker:
            assert worker.call(task) == (True, True, False)
            del Config.level
            assert worker.call(task) == (False, True, True)
            del Config.method
            assert worker.call(task) == (False, False, True)
            Config.level = 2
            assert worker.call(task) == (True, False, True)
        """,
    "an attribute of a named tuple that is deleted": """
        from typing import NamedTuple
        class Point(NamedTuple):
            x: int = 0
            def twice(self): return 2 * self.x
        def task(): return hasattr(Point, "twice"), Point(3)
        with OtherWorker() as worker:
            assert worker.call(task) == (True, (3,))
            del Point.twice
            assert worker.call(task) == (False, (3,))
        """,
    "a name that hid one of Python's, sent before more was known of the other Python": """
        def len(x): return "mine"
        def task(): return len([1, 2])
        with OtherWorker() as worker:
            worker.PYTHONS = ()
            assert worker.call(task) == "mine"
            worker.PYTHONS = OtherWorker.PYTHONS
            del len
            assert worker.call(task) == 2
        """,
    "a list that a function and an argument share": """
        def make():
            values = []
            def add(x): values.append(x)
            return add, values
        add, values = make()
        def task(add, values):
            add(1)
            return values
        with OtherWorker() as worker:
            assert worker.call(task, add, values) == [1]
            assert worker.call(task, add, values) == [1]
        """,
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_between_submits_to_another_python(name, tmp_path):
    run_main(dedent(CHANGES[name]), tmp_path)


@pytest.mark.parametrize(
    "use",
    [
        "def task(): return abroad_pack.part.VALUE",
        """
def make():
    pack = abroad_pack
    return lambda: pack.part.VALUE
task = make()
""",
        """
class Reader:
    def read(self): return abroad_pack.part.VALUE
def task(): return Reader().read()
""",
    ],
    ids=["a global", "a captured variable", "a method"],
)
def test_submodules_that_code_gets_at_by_their_package(use, tmp_path):
    (tmp_path / "abroad_pack").mkdir()  # a namespace package, which imports nothing itself
    (tmp_path / "abroad_pack" / "part.py").write_text("VALUE = 3\n", "utf-8")
    call = "with OtherWorker() as worker: assert worker.call(task) == 3\n"
    run_main(f"import abroad_pack.part\n{use}\n{call}", tmp_path)
