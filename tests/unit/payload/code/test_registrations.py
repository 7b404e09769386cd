"""What the program has registered with copyreg, in a worker: programs in two interpreters."""

from __future__ import annotations

import copyreg
import sys
from textwrap import dedent

import pytest

from remote_executor.errors import PayloadError
from remote_executor.payload.code import registrations
from remote_executor.payload.code.names import names
from tests.support.payload_tasks import run_main

HANDLES = """
    import copyreg, pickle, types
    class Handle:
        def __init__(self, n): self.n = n
    def rebuild(n): return Handle(n + 100)
    def reduce(h): return rebuild, (h.n,)
    def numbers(): yield from range(3)
    def again(): return pickle.loads(pickle.dumps(Handle(1))).n
"""

PROGRAMS = {
    "in a task": """
        copyreg.pickle(Handle, reduce)
        with {worker}() as worker: assert worker.call(again) == 101
        """,
    "after the first task, and another one later": """
        with {worker}() as worker:
            assert worker.call(again) == 1
            copyreg.pickle(Handle, reduce)
            assert worker.call(again) == 101
            copyreg.pickle(Handle, lambda h: (Handle, (h.n + 1,)))
            assert worker.call(again) == 2
            del copyreg.dispatch_table[Handle]
            assert worker.call(again) == 1
        """,
    "a result, of a function that goes by name, too": """
        import os
        copyreg.pickle(types.GeneratorType, lambda g: (list, (list(g),)))
        with {worker}() as worker:
            assert worker.call(numbers) == [0, 1, 2]
            assert type(worker.call(os.walk, "/nowhere")) is list
        """,
    "a reducer that has captured something": """
        def made(by):
            def reduce(h): return Handle, (h.n + by,)
            return reduce
        copyreg.pickle(Handle, made(5))
        with {worker}() as worker: assert worker.call(again) == 6
        """,
    "what the reducer names is set again": """
        by = 10
        def reduce(h): return Handle, (h.n + by,)
        copyreg.pickle(Handle, reduce)
        with {worker}() as worker:
            assert worker.call(again) == 11
            by = 20
            assert worker.call(again) == 21
        """,
    "one that cannot be sent refuses where it is used": """
        import threading
        def made(lock):
            def reduce(h): return Handle, (lock.locked(),)
            return reduce
        copyreg.pickle(Handle, made(threading.Lock()))
        def task(): return 5
        with {worker}() as worker:
            assert worker.call(task) == 5
            try: worker.call(again)
            except Exception as error: assert "the reducer of Handle" in str(error), error
            else: raise AssertionError
        """,
    "that of multiprocessing, for arguments and results": """
        from multiprocessing.reduction import ForkingPickler
        def five(): return 5
        ForkingPickler.register(Handle, reduce)
        def task(h): return h.n, Handle(h.n)
        with {worker}() as worker:
            n, handle = worker.call(task, Handle(1))
            assert (n, handle.n) == (101, 201), (n, handle.n)
            assert worker.call(again) == 1  # pickle itself does not look there
        """,
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("worker", ["Worker", "OtherWorker"])
def test_in_two_processes(name, worker, tmp_path):
    program = dedent(HANDLES) + dedent(PROGRAMS[name]).replace("{worker}", worker)
    assert run_main(program, tmp_path) == ""


class Kind:
    pass


def reduce_kind(kind):
    return Kind, ()


@pytest.fixture
def registered():
    names.asked.pop(registrations.REGISTERED, None)
    yield
    copyreg.dispatch_table.pop(Kind, None)
    registrations.look()
    names.asked.pop(registrations.REGISTERED, None)


def test_what_a_module_registers_when_it_is_imported_is_not_the_programs(registered, monkeypatch):
    copyreg.pickle(Kind, reduce_kind)
    registrations.look()
    assert registrations.REGISTERED not in names.asked

    del copyreg.dispatch_table[Kind]
    registrations.look()
    monkeypatch.setattr(Kind, "__module__", "__main__")
    copyreg.pickle(Kind, reduce_kind)
    registrations.look()
    assert registrations.REGISTERED in names.asked


def test_a_type_that_is_not_here_needs_no_reducer():
    registrations.register([("copyreg", ("no_such_module", "Kind"), reduce_kind)])
    registrations.register([("copyreg", (__name__, "Kind"), reduce_kind)])
    assert copyreg.dispatch_table.pop(Kind) is reduce_kind
    registrations.register([])
    assert Kind not in copyreg.dispatch_table


def test_a_reducer_of_a_module_is_looked_up_when_it_is_used():
    assert registrations.Elsewhere(__name__, "reduce_kind")(Kind()) == (Kind, ())
    assert "no_such_module" not in sys.modules
    with pytest.raises(PayloadError, match=r"'x' of module 'no_such_module'"):
        registrations.Elsewhere("no_such_module", "x")(1)
