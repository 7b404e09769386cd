"""Arguments and results: pickled once, with classes by name."""

from __future__ import annotations

import concurrent.futures
import ctypes
import pickle
import subprocess
import sys
from textwrap import dedent

import pytest

from remote_executor.errors import PayloadError
from remote_executor.payload.functions import FunctionCache, call_whole, in_one_piece
from remote_executor.payload.pickles import dump, dump_copied, dump_result, load
from tests.support import payload_tasks as tasks
from tests.support.payload_tasks import run_main


class Once:
    """Its state can be taken once."""

    def __init__(self):
        self.taken = 0

    def __getstate__(self):
        self.taken += 1
        if self.taken > 1:
            raise ValueError("only once")
        return {"x": 3}


@pytest.mark.parametrize("beside", [1, [2], lambda: 3, Once])
def test_an_argument_is_pickled_once(beside):
    once = Once()
    _, body, _ = FunctionCache().pack(tasks.add, ((once, beside), {}))

    assert load(body)[0][0].x == 3
    assert once.taken == 1


@pytest.mark.parametrize("beside", [1, [2], lambda: 3, Once])
def test_a_result_is_pickled_once(beside):
    once = Once()

    assert load(*dump_result([once, beside]))[0].x == 3
    assert once.taken == 1


PROGRAMS = {
    "an instance of a class of the program is pickled once and names the class": """
        from remote_executor.payload.pickles import dump_copied
        class Point:
            def __init__(self, x): self.x = x
            def __getstate__(self):
                assert self.x
                state, self.x = self.x, None
                return {"x": state}
        def task(p):
            assert type(p) is Point
            return p
        body, _, needs = dump_copied((([Point(3)],), {}), "call")
        assert len(body) < 100, len(body)
        assert list(needs.names) == ["Point"]
        with Worker() as worker:
            for _ in range(3):
                found = worker.call(task, Point(3))
                assert type(found) is Point and found.x == 3
            assert worker.defined == 1
        """,
    "a changed class is known to tasks that name it by their argument only": """
        from tests.support.payload_tasks import describe
        import operator
        class Point: level = 1
        with Worker() as worker:
            assert worker.call(operator.attrgetter("level"), Point()) == 1
            Point.level = 2
            assert worker.call(operator.attrgetter("level"), Point()) == 2
            assert worker.call(describe, Point()) == "Point"
            class Point: level = 3
            assert worker.call(operator.attrgetter("level"), Point()) == 3
        """,
    "functions and classes among arguments are those of the worker": """
        class Point:
            class Inner: pass
            def get(self): return 1
        def helper(): return 1
        alias = helper
        def task(a, b, c, d): return a is helper, b is Point, c is Point.Inner, d is Point.get
        with Worker() as worker:
            assert worker.call(task, alias, Point, Point.Inner, Point.get) == (True,) * 4
        """,
    "a lambda among arguments brings what it names": """
        RATE = 3
        def twice(x): return 2 * x
        def task(f): return f(5)
        with Worker() as worker:
            assert worker.call(task, lambda x: twice(x) * RATE) == 30
            RATE = 4
            assert worker.call(task, lambda x: twice(x) * RATE) == 40
        """,
    "copyreg and reduce of the program": """
        import copyreg
        class Odd:
            def __init__(self, x): self.x = x
        def make(x): return Odd(x)
        copyreg.pickle(Odd, lambda odd: (make, (odd.x,)))
        def task(odd): return odd.x, odd
        with Worker() as worker:
            x, odd = worker.call(task, Odd(3))
            assert x == 3 and type(odd) is Odd
        """,
    "what a local class among arguments or results holds": """
        import dataclasses, functools, typing
        class Kept(property): mark = 7
        def make():
            @dataclasses.dataclass
            class Local:
                x: int
                @functools.cached_property
                def twice(self): return 2 * self.x
                @functools.singledispatchmethod
                def of(self, y): return "object"
                @of.register
                def _(self, y: int): return "int"
                @Kept
                def half(self): return self.x / 2
                parameter = typing.ParamSpec("P")
                later = typing.ForwardRef("int")
            return Local(6)
        def task(o):
            field, = dataclasses.fields(o)
            kept = type(o).__dict__["half"]
            assert field.default is field.default_factory is dataclasses.MISSING
            return o.twice, o.of(1), o.of("a"), o.half, kept.mark, o.parameter.__name__, o.later
        found = 12, "int", "object", 3.0, 7, "P", typing.ForwardRef("int")
        with Worker() as worker:
            assert worker.call(task, make()) == found
            assert task(worker.call(make)) == found
        """,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_in_two_processes(name):
    assert run_main(dedent(PROGRAMS[name])) == ""


@pytest.mark.parametrize("dump", [dump, dump_result])
def test_a_library_of_ctypes_is_loaded_and_not_copied(dump):
    library = ctypes.CDLL(None)
    library.abs.argtypes = [ctypes.c_int]

    found = load(*dump({"it": library}))["it"]

    assert found is not library
    assert found.abs(-3) == 3
    assert found.abs.argtypes == [ctypes.c_int]


def test_data_needs_nothing_else():
    for call in (((1, "a"), {}), (([1], {"a": (2,)}), {"b": None})):
        body, buffers, needs = dump_copied(call, "call")
        assert (body, tuple(buffers), needs) == (pickle.dumps(call, 5), (), None)


def test_plain_arguments_load_nothing_of_ours_and_no_cloudpickle():
    code = (
        "import sys\n"
        "from remote_executor.payload.pickles import dump, dump_result\n"
        "from collections import OrderedDict\n"
        "dump((([1], {'a': OrderedDict()}, len, OrderedDict), {}), 'call')\n"
        "dump_result([1, OrderedDict()])\n"
        "assert 'cloudpickle' not in sys.modules\n"
        "assert 'remote_executor.payload.by_value' not in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0


def test_futures_are_refused_in_results():
    with pytest.raises(PayloadError, match="send its result"):
        dump_result([concurrent.futures.Future()])


class Box:
    def __init__(self):
        self.items = [1]

    def same(self, other):
        return other is self


@pytest.mark.parametrize("plain", [(1,), ("a", b"b"), ([2],), (Box(),)])
def test_a_method_that_shares_nothing_with_its_arguments_travels_apart(plain):
    method = Box().same

    assert in_one_piece(method, (plain, {})) == (method, (plain, {}))


def test_a_method_travels_with_what_it_shares():
    box = Box()
    for call in (((box,), {}), ((box.items,), {}), (([box],), {}), ((), {"other": box})):
        assert in_one_piece(box.same, call)[0] is call_whole
    function, (args, kwargs) = load(*dump(in_one_piece(box.same, ((box,), {}))))
    assert function(*args, **kwargs) is True


class Changing(dict):
    """Another thread changes it all the time."""

    def __reduce_ex__(self, protocol):
        raise RuntimeError("dictionary changed size during iteration")


def test_a_container_that_another_thread_changes_is_refused_in_words():
    with pytest.raises(PayloadError, match="another thread changes it all the time"):
        dump(Changing())
