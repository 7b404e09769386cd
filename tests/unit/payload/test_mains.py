"""The client's ``__main__`` and the worker's: in one process, and in two real ones."""

from __future__ import annotations

import concurrent.futures
import sys
import types
import weakref

import numpy as np
import pytest

from remote_executor.errors import PayloadError
from remote_executor.payload import mains
from remote_executor.payload.code.names import main_name
from remote_executor.payload.functions import PURE, FunctionCache, FunctionTable
from remote_executor.payload.pickles import dump, dump_result, load
from tests.support import payload_tasks as tasks
from tests.support.payload_tasks import run_main

SOURCE = """
import functools, math
limit = 1
items = []
array = None
def scaled(x): return x * limit
def total(x): return helper(x) + math.floor(2.5)
def helper(x): return x + limit
def grow(x):
    items.append(x)
    return list(items)
def first(): return float(array[0])
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
@functools.lru_cache(maxsize=None)
def cached_fib(n): return n if n < 2 else cached_fib(n - 1) + cached_fib(n - 2)
def lists_itself(): return len(registry)
registry = {"f": lists_itself}
class Point:
    def __init__(self, x): self.x = x
    class Inner: pass
"""


class Pair:
    """A client with a ``__main__`` of its own, and its worker, in this process."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch
        self.client = types.ModuleType("__main__")
        monkeypatch.setitem(sys.modules, "__main__", self.client)
        monkeypatch.setitem(sys.modules, "__mp_main__", self.client)
        exec(SOURCE, self.client.__dict__)
        self.worker = mains.prepare_main()
        self.as_client()
        self.cache = FunctionCache()
        self.table = FunctionTable()
        self.numbers = {}

    def as_client(self):
        sys.modules["__main__"] = self.client

    def as_worker(self):
        sys.modules["__main__"] = self.worker

    def call(self, function, *args):
        encoded, *call = self.cache.pack(function, (args, {}))
        if encoded.key not in self.numbers:
            number = self.numbers[encoded.key] = len(self.numbers)
            buffers = [bytearray(buffer) for buffer in encoded.buffers]
            self.table.define(number, PURE if encoded.pure else 0, encoded.body, buffers)
        self.as_worker()
        try:
            answer = dump_result(self.table.get(self.numbers[encoded.key])(*load(*call)[0]))
        finally:
            self.as_client()
        return load(*answer)


@pytest.fixture
def pair(monkeypatch):
    yield Pair(monkeypatch)
    mains.applied.clear()
    mains.arrived.clear()


def test_a_changed_global_is_sent_again(pair):
    main = pair.client

    assert pair.call(main.scaled, 3) == 3
    main.limit = 2
    assert pair.call(main.scaled, 3) == 6
    main.limit = 1
    assert pair.call(main.scaled, 3) == 3
    assert len(pair.numbers) == 2


def test_what_a_worker_changed_stays_until_the_client_changes_it(pair):
    main = pair.client

    assert pair.call(main.grow, 1) == [1]
    assert pair.call(main.grow, 2) == [1, 2]
    main.items.append("new")
    assert pair.call(main.grow, 3) == ["new", 3]
    assert main.items == ["new"]


def test_a_large_global_is_one_snapshot(pair):
    main = pair.client
    main.array = np.zeros(100_000)

    assert pair.call(main.first) == 0
    encoded = pair.cache.encode(main.first)
    assert encoded.pure
    pair.worker.array[0] = 3
    assert pair.call(main.first) == 3
    main.array[1] = 7
    assert pair.call(main.first) == 0
    # another function that names it carries the same snapshot and token
    other = eval("lambda: array[1]", main.__dict__)
    assert pair.cache.encode(other).buffers[0].obj is pair.cache.encode(main.first).buffers[0].obj
    main.array = [5]
    assert pair.call(main.first) == 5


def test_helpers_recursion_and_cycles_k10(pair):
    main = pair.client

    assert pair.call(main.total, 3) == 6
    assert pair.call(main.fib, 10) == 55
    assert pair.call(main.cached_fib, 60) == 1548008755920
    assert pair.call(main.lists_itself) == 1


def test_a_helper_defined_anew_is_sent_again(pair):
    main = pair.client
    old = main.helper
    assert pair.call(main.total, 3) == 6

    exec("def helper(x): return -x", main.__dict__)
    assert pair.call(main.total, 3) == -1
    main.helper = old
    assert pair.call(main.total, 3) == 6


def test_functions_and_classes_come_back_as_the_clients_own(pair):
    main = pair.client
    main.give = eval("lambda: (helper, cached_fib, Point, Point.Inner)", main.__dict__)

    functions = pair.call(main.give)

    assert functions == (main.helper, main.cached_fib, main.Point, main.Point.Inner)
    assert type(pair.call(main.Point, 1)) is main.Point


def test_a_class_that_lost_its_name_is_still_found(pair):
    main = pair.client
    old = main.Point
    assert type(pair.call(old, 1)) is old

    exec("class Point: pass", main.__dict__)
    assert type(pair.call(old, 1)) is old
    assert type(pair.call(main.Point)) is main.Point is not old


def test_what_the_clients_main_has_no_more_is_an_error(pair):
    main = pair.client
    main.give = eval("lambda: helper", main.__dict__)
    encoded = pair.cache.encode(main.give)
    pair.table.define(0, PURE, encoded.body)
    pair.as_worker()
    answer = dump_result(pair.table.get(0)())
    pair.as_client()
    del main.helper

    with pytest.raises(AttributeError, match="helper"):
        load(*answer)


def test_results_made_in_the_worker_travel_by_value(pair):
    cls, function, kind = pair.call(make_things)

    assert cls.limit == 3
    assert function() == 4
    assert kind.A.value == 1


def make_things():
    import enum

    class Made:
        limit = 3

    return Made, lambda: 4, enum.Enum("Kind", "A")


def test_a_class_of_the_client_is_not_filled_again_by_a_result():
    class Local:
        limit = 1

    answer = dump_result(Local)
    Local.limit = 2

    assert load(*answer) is Local
    assert Local.limit == 2


def test_a_new_class_is_made_once_and_filled_once(monkeypatch):
    import cloudpickle

    class Local:
        limit = 1

    answer = dump_result(Local)
    tracked = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID
    monkeypatch.delitem(tracked, cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS[Local])
    made = load(*answer)
    made.limit = 5

    assert made is not Local
    assert load(*answer) is made
    assert made.limit == 5


def test_a_class_is_rebuilt_where_it_is_not_known(pair, monkeypatch):
    import cloudpickle

    body = dump(pair.client.Point)
    tracked = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID
    tracker = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS[pair.client.Point]
    monkeypatch.delitem(tracked, tracker)
    pair.as_worker()
    made = load(*body)

    assert made is not pair.client.Point
    assert made is pair.worker.Point
    assert made(3).x == 3


class HOWS:
    @staticmethod
    def call_it(x):
        return x()

    @staticmethod
    def enter(x):
        with x:
            pass

    @staticmethod
    def attribute(x):
        return x.acquire


def test_a_global_that_cannot_be_pickled_is_named_where_it_is_used_p9(pair):
    main = pair.client
    main.lock = tasks.Lockable().lock
    main.use = eval("lambda how: lock if how is None else how(lock)", main.__dict__)
    main.holder = [main.use]
    main.outer = eval("lambda how: holder[0](how)", main.__dict__)

    for function in (main.use, main.outer):
        for how in (iter, len, next, bool, HOWS.call_it, HOWS.enter, HOWS.attribute):
            with pytest.raises(PayloadError, match=r"global 'lock', which <lambda>\(\) uses, can"):
                pair.call(function, how)
        assert pair.call(function, repr).startswith("<Unsent: global 'lock'")
        with pytest.raises(PayloadError, match="cannot pickle '_thread"):
            pair.call(function, None)
    assert len(pair.numbers) == 2
    main.lock = 3
    assert pair.call(main.use, None) == 3
    assert pair.call(main.outer, None) == 3


def test_a_future_in_a_global_is_refused_in_words_p9(pair):
    main = pair.client
    main.future = concurrent.futures.Future()
    main.use = eval("lambda: future.result()", main.__dict__)

    with pytest.raises(PayloadError, match=r"a Future cannot be sent, send its result\(\)"):
        pair.call(main.use)


def test_an_unsent_global_is_not_kept_alive(pair):
    main = pair.client
    main.holder = tasks.Lockable()
    main.use = eval("lambda: holder is None", main.__dict__)
    assert pair.call(main.use) is False
    gone = weakref.ref(main.holder)
    main.holder = None

    assert gone() is None
    assert pair.call(main.use) is True


def test_two_functions_that_name_one_global_carry_it_once(pair):
    main = pair.client
    main.items = [b"x" * 1000]
    both = eval("lambda: (items, inner())", main.__dict__)
    main.inner = eval("lambda: items", main.__dict__)

    assert pair.call(both) == (main.items, main.items)
    assert len(pair.cache.encode(both).body) < 2500


def test_a_silent_error_in_a_global_is_named(pair):
    main = pair.client
    main.moody = type("Moody", (), {"__reduce__": lambda self: next(iter(()))})()
    main.use = eval("lambda: moody", main.__dict__)

    with pytest.raises(PayloadError, match="StopIteration"):
        bool(pair.call(main.use))


def test_a_client_that_loads_its_own_pickle_keeps_its_globals(pair):
    """What a pickle brings along is not bound in the client's own ``__main__``."""
    main = pair.client
    body = dump(eval("lambda x: grow(x)", main.__dict__))

    load(*body)(5)
    assert main.items == []


def test_names_in_main(pair):
    main = pair.client
    stranger = types.SimpleNamespace(__module__="__main__", __qualname__=3)

    assert main_name(main.Point) == "Point"
    assert main_name(main.Point.Inner) == "Point.Inner"
    assert main_name(stranger) is None
    assert main_name(tasks.add) is None
    main.Point.__qualname__ = "other.Point"
    assert main_name(main.Point) is None


def test_a_cache_wrapper_of_main_without_a_name_travels(pair):
    main = pair.client
    main.unnamed = main.cached_fib
    main.cached_fib = 3
    main.use = eval("lambda: unnamed(1)", main.__dict__)

    assert pair.call(main.use) == 1


# --- two interpreters ----------------------------------------------------------------------------

TWO_PROCESSES = {
    "an initializer sets a global": """
        model = None
        limit = 1
        def initialize(v):
            global model
            model = {"v": v}
        def use(x): return model["v"] + x + limit
        with Worker() as worker:
            worker.call(initialize, 10)
            assert worker.call(use, 1) == 12
            limit = 5
            assert worker.call(use, 1) == 16
            limit = 1
            assert worker.call(use, 1) == 12
            assert model is None
        """,
    "a global that the worker changed stays": """
        items = []
        def grow(x):
            items.append(x)
            return list(items)
        with Worker() as worker:
            assert worker.call(grow, 1) == [1]
            assert worker.call(grow, 2) == [1, 2]
            items.append(7)
            assert worker.call(grow, 3) == [7, 3]
            assert items == [7]
        """,
    "an initializer replaces what cannot be sent": """
        import threading
        lock = threading.Lock()
        class App:
            def at_the_client(self): return executor.submit(self.task)
            def task(self): return 5
        import concurrent.futures
        executor = concurrent.futures.ThreadPoolExecutor(1)
        def initialize():
            global lock
            lock = threading.RLock()
        def use():
            with lock:
                return type(lock).__name__
        with Worker() as worker:
            try:
                worker.call(use)
            except Exception as error:
                assert "global 'lock', which use() uses, cannot be pickled" in str(error), error
            else:
                raise AssertionError
            worker.call(initialize)
            assert worker.call(use) == "RLock"
            assert worker.call(App().task) == 5
        """,
    "recursion and helpers": """
        import functools, math
        limit = 2
        def helper(x): return x * limit
        def use(x): return helper(x) + math.floor(2.5)
        def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
        @functools.lru_cache(maxsize=None)
        def cached(n): return n if n < 2 else cached(n - 1) + cached(n - 2)
        def even(n): return n == 0 or odd(n - 1)
        def odd(n): return n > 0 and even(n - 1)
        with Worker() as worker:
            assert worker.call(use, 3) == 8
            assert worker.call(fib, 12) == 144
            assert worker.call(cached, 60) == 1548008755920
            assert worker.call(even, 10) is True
        """,
    "functions by the type of their argument": """
        import functools
        @functools.singledispatch
        def size(x):
            "The size of anything."
            return 0
        @size.register
        def _(x: str): return len(x)
        @size.register(list)
        @size.register(tuple)
        def _(x): return sum(map(size, x))
        size.note = "kept"
        class Shape:
            unit = 1
            @functools.singledispatchmethod
            def area(self, by): return "any", by
            @area.register
            def _(self, by: int): return "int", by * self.unit
        class Flat(Shape):
            def area(self, by): return "flat", by
            def above(self): return super().area  # no name leads to what this gives
        shape = Shape()
        def through(x): return size(x), size.note, size.__doc__, size.__name__
        def itself(): return size
        @functools.singledispatch
        def add(x): raise TypeError("no " + type(x).__name__)
        def added(x): return add(x)
        with Worker() as worker:
            for _ in range(2):
                assert worker.call(size, ["ab", ("c", 3)]) == 3
                assert worker.call(through, "abc") == (3, "kept", "The size of anything.", "size")
                assert worker.call(itself) is size
                assert worker.call(Shape().area, 2) == ("int", 2)
                assert worker.call(Shape().area, "x") == ("any", "x")
                assert worker.call(Shape.area, shape, 2) == Shape.area(shape, 2)
                assert worker.call(Flat().above(), 2) == ("int", 2)
            assert worker.call(shape.area, 2) == ("int", 2)
            shape.unit = 3
            assert worker.call(shape.area, 2) == ("int", 6)
            # What is registered later counts, directly and by way of another function.
            size.register(int, lambda x: x)
            assert worker.call(size, [3, "ab"]) == 5
            assert worker.call(through, 4)[0] == 4
            for name, task in enumerate((add, added)):
                try:
                    worker.call(task, 1.5)
                except TypeError as error:
                    assert str(error) == "no float"
                else:
                    raise AssertionError
            add.register(float, lambda x: x + 1)
            assert worker.call(added, 1.5) == 2.5
            add.register(float, lambda x: x + 2)
            assert worker.call(added, 1.5) == 3.5
            assert worker.call(add, 1.5) == 3.5
            class Adder:
                amount = 1
                def __call__(self, x): return x + self.amount
                def __eq__(self, other): return True
            adder = Adder()
            add.register(str, str.upper)  # which no weak reference can be made to
            add.register(int, adder)  # nor can this be hashed
            assert worker.call(added, "a") == "A"
            assert worker.call(added, 1) == 2
            adder.amount = 5
            assert worker.call(added, 1) == 6
            assert worker.call(add, 1) == 6
            method = shape.area
            def of_method(x): return method(x)
            assert worker.call(of_method, 1) == ("int", 3)
            shape.unit = 4
            assert worker.call(of_method, 1) == ("int", 4)
            try:
                worker.call(add)
            except TypeError as error:
                assert "add requires at least 1 positional argument" in str(error), error
            else:
                raise AssertionError
        """,
    "classes keep their identity": """
        import dataclasses, enum
        class Point:
            made = 0
            def __init__(self, x): self.x = x
            def shifted(self, d): return Point(self.x + d)
        @dataclasses.dataclass
        class Data:
            x: int
            more: list = dataclasses.field(default_factory=list)
            def double(self): return Data(self.x * 2)
        class Special(Data):
            def double(self): return super().double()
        class Color(enum.Enum):
            RED = 1
        class Bad(Exception):
            def __init__(self, code, detail):
                super().__init__("bad")
                self.code = code
        def same(point): return type(point) is Point and isinstance(point, Point)
        def boom(): raise Bad(7, "detail")
        def helper(): pass
        def things(): return [Color.RED, helper, Point]
        def local(): return (lambda: Point(3)), {Color.RED: Data(1)}
        with Worker() as worker:
            for _ in range(2):
                assert worker.call(same, Point(1))
                assert worker.call(payload_tasks.describe, Point(1)) == "Point"
                assert type(worker.call(Point, 3)) is Point
                assert worker.call(Point.shifted, Point(1), 5).x == 6
                assert isinstance(worker.call(Point(1).shifted, 5), Point)
                assert worker.call(Data(3).double) == Data(6)
                assert worker.call(Special(3).double) == Data(6)
                things_ = worker.call(things)
                assert things_[0] is Color.RED and things_[1] is helper and things_[2] is Point
                function, data = worker.call(local)
                assert type(function()) is Point
                assert data == {Color.RED: Data(1)}
                try:
                    worker.call(boom)
                except Bad as error:
                    assert error.code == 7 and str(error) == "bad"
                    assert "in boom" in error.__cause__.tb
            assert Point.shifted.__globals__ is globals()
            old = Point
            class Point:
                pass
            assert type(worker.call(lambda p: p, old(1))) is old
            assert type(worker.call(Point)) is Point
        """,
    "what a task defined itself comes by value": """
        def define():
            global Fresh
            class Fresh:
                value = 3
            return Fresh()
        def again(x): return x
        with Worker() as worker:
            fresh = worker.call(define)
            assert fresh.value == 3 and type(fresh).__name__ == "Fresh"
            assert "Fresh" not in globals()
            assert type(worker.call(again, fresh)) is type(fresh)
        """,
    "captured values are snapshots l12 l13 l14": """
        import numpy
        def outer():
            a = 1
            values = []
            def task():
                nonlocal a
                a += 1
                values.append(a)
                return a, list(values)
            def change():
                nonlocal a
                a += 100
            return task, change, values
        def summing(array):
            def task(i):
                array[i] += 1
                return float(array.sum())
            return task
        task, change, values = outer()
        array = numpy.zeros(500_000)
        total = summing(array)
        with Worker() as worker:
            assert worker.call(task) == (2, [2])
            assert worker.call(task) == (2, [2])
            change()
            assert worker.call(task) == (102, [102])
            values.append(1)
            assert worker.call(task) == (102, [1, 102])
            assert values == [1]
            assert len(worker.cache.encode(total).buffers) == 1
            assert worker.call(total, 1) == 1
            assert worker.call(total, 1) == 1
            array[7] = 1
            assert worker.call(total, 1) == 2
            assert worker.defined == 5
        """,
    "large globals are sent when they change": """
        import numpy
        data = numpy.arange(100_000.0)
        def peek(i): return float(data[i])
        def poke(i):
            data[i] = -1
            return float(data[i])
        with Worker() as worker:
            assert worker.call(peek, 3) == 3
            assert worker.call(poke, 3) == -1
            assert worker.call(peek, 3) == -1
            assert worker.defined == 2
            data[4] = 9
            assert worker.call(peek, 3) == 3
            assert worker.call(peek, 4) == 9
            assert worker.defined == 3
        """,
    "an instance of a local class l10": """
        def outer():
            class Local:
                def __init__(self, x): self.x = x
                def more(self): return Local(self.x + 1)
            return Local
        Local = outer()
        value = Local(1)
        with Worker() as worker:
            again = worker.call(lambda: value.more())
            assert type(again) is Local and again.x == 2
            assert type(worker.call(lambda v: v, Local(3))) is Local
        """,
}


@pytest.mark.parametrize("name", TWO_PROCESSES)
def test_in_two_processes(name):
    from textwrap import dedent

    assert run_main(dedent(TWO_PROCESSES[name])) == ""


def test_a_dispatcher_that_was_not_filled_says_its_name():
    with pytest.raises(NotImplementedError, match="size"):
        mains.make_dispatcher("size")(1)


class Unloadable:
    def __reduce__(self):
        return pytest.fail, ("cannot be rebuilt",)


def test_a_global_that_does_not_load_is_not_taken_for_applied(pair):
    main = pair.client
    main.limit = Unloadable()

    for _ in range(2):
        with pytest.raises(pytest.fail.Exception, match="cannot be rebuilt"):
            pair.call(main.scaled, 1)
    main.limit = 2
    assert pair.call(main.scaled, 3) == 6
