"""
What lfarm's kernel tests assert, on an embedded server and on two servers over TCP.

The ids are those of the parity list. Kill, categories and broadcast are in ``test_options.py``,
dead workers in ``test_death.py``, exceptions in ``test_exceptions.py``.
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import operator
import sys
import threading
import time
import types
from concurrent import futures

import pytest

from remote_executor import FarmExecutor
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)


def ask(farm, fn, *args, **kwargs):
    return farm.submit(fn, *args, **kwargs).result(LIMIT)


def code(source, **names):
    """Return the namespace that `source` makes, as if a module that no server has."""
    namespace = {"__name__": "known_to_the_client_only", **names}
    exec(source, namespace)
    return namespace


# -- functions


def test_named_functions(farm):
    """K1: functions that the server has travel by reference."""
    assert ask(farm, operator.add, 3, 4) == 7
    assert ask(farm, operator.mul, 5, 6) == 30


@pytest.mark.parametrize(
    ("fn", "args", "expected"),
    [
        (max, (7, 8), 8),
        ("a-b".split, ("-",), ["a", "b"]),
        (functools.partial(pow, 2), (8,), 256),
        (tasks.Adder(3), (4,), 7),
        (tasks.Adder(3).plus, (5,), 8),
        (dict.fromkeys, ("ab",), {"a": None, "b": None}),
        (complex, (1, 2), 1 + 2j),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_function_objects(farm, fn, args, expected):
    """K2: whatever can be called and pickled."""
    assert ask(farm, fn, *args) == expected


def test_tuples_stay_whole(farm):
    """K3: a function has one value."""
    assert ask(farm, divmod, 7, 3) == (2, 1)


def test_no_value_is_none(farm):
    """K4: None is a result like any other."""
    future = farm.submit(tasks.nothing)

    assert future.result(LIMIT) is None
    assert future.done()
    assert list(farm.map(lambda _: None, range(3))) == [None] * 3


def test_function_in_a_variable(farm):
    """K5."""
    for fn in (operator.add, lambda x, y: x + y):
        assert ask(farm, fn, 1, 2) == 3


def test_lambdas_and_nested_functions(farm):
    """K6, L1: they travel by value, with what they capture."""
    base = 40

    def nested(x):
        def inner(y):
            return base + x + y

        return inner(1)

    assert ask(farm, lambda: 5) == 5
    assert ask(farm, lambda x, *, y=2: (x, y), 1, y=3) == (1, 3)
    assert ask(farm, nested, 1) == 42


def test_closures_over_a_loop_variable(farm):
    """K71: each has its own snapshot."""
    found = [farm.submit(lambda x=x: x * x) for x in range(4)]

    assert [future.result(LIMIT) for future in found] == [0, 1, 4, 9]


def test_captured_values_are_those_of_the_submit(farm):
    """L12, L13, L14: read at submit; what the task changes stays there and is gone after it."""
    box = [0]

    def bump():
        box[0] += 1
        return box[0]

    found = []
    for value in (10, 20, 30):
        box[0] = value
        found.append(farm.submit(bump))
    box[0] = 0

    assert [future.result(LIMIT) for future in found] == [11, 21, 31]
    assert [ask(farm, bump) for _ in range(4)] == [1] * 4
    assert box == [0]


def test_function_that_only_the_client_knows(farm):
    """K7, K10: it travels by value, calls itself by its global name, and its helpers."""
    names = code(
        """
def helper(n):
    return n - 1

def fact(n):
    return 1 if n < 2 else n * fact(helper(n))
"""
    )

    assert ask(farm, names["fact"], 10) == 3628800


def test_module_that_only_the_client_has(farm, tmp_path, monkeypatch):
    """K7: a module that came after the workers started, in a folder that they do not search."""
    name = f"late_module_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text("FACTOR = 3\ndef triple(x):\n    return FACTOR * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__(name)
    try:
        assert ask(farm, module.triple, 5) == 15
    finally:
        del sys.modules[name]


def test_modules_that_import_one_another(addresses, tmp_path, monkeypatch):
    """K7: a module that the server lacks needs others, which it lacks too; arguments as well."""
    names = [f"{part}_{tmp_path.name.replace('-', '_')}" for part in ("one", "two", "three")]
    one, two, three = names
    sources = {
        three: "def add(x):\n    return x + 3\n",
        two: f"from {three} import add\nclass Thing:\n    def get(self):\n        return add(1)\n",
        one: f"import {two}\ndef get(thing):\n    return thing.get() + {two}.Thing().get()\n",
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__(one)
    thing = sys.modules[two].Thing()
    try:
        with FarmExecutor(addresses=addresses) as executor:
            assert executor.submit(module.get, thing).result(LIMIT) == 8
            assert list(executor.map(module.get, [thing] * 3)) == [8] * 3
    finally:
        for name in names:
            del sys.modules[name]


def test_function_that_the_client_cannot_import(farm):
    """K8: its module need not be importable here either."""
    names = code("def where():\n    return __name__ and 'there'\n")
    assert "known_to_the_client_only" not in sys.modules

    assert ask(farm, names["where"]) == "there"


def test_code_as_text(farm):
    """K9: a quoted expression is a string and ``eval``."""
    assert ask(farm, eval, "p + q", {"p": 3, "q": 4}) == 7


def test_recursion(farm):
    """K10: an importable function and a local one that call themselves."""

    def local_fib(n):
        return n if n < 2 else local_fib(n - 1) + local_fib(n - 2)

    assert ask(farm, tasks.fib, 10) == 55
    assert ask(farm, local_fib, 10) == 55


def test_keyword_arguments(farm):
    """K11."""
    assert ask(farm, tasks.add, x=1, y=2) == 3
    assert ask(farm, lambda *, x, y: x - y, y=1, x=3) == 2


def test_keywords_keep_their_order_and_their_names(farm):
    """K12: nothing that the executor uses is taken away from the task."""
    names = ["z", "x", "y", "fn", "self", "timeout", "args", "kwargs", "task", "category"]
    words = {name: i for i, name in enumerate(names)}

    args, kwargs = farm.submit(tasks.echo, 0, **words).result(LIMIT)

    assert args == (0,)
    assert list(kwargs.items()) == list(words.items())


# -- errors: the rest is in test_exceptions.py


def test_wrong_keyword(farm):
    """K13: a TypeError from the worker, with its text."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'") as caught:
        ask(farm, tasks.add, 1, z=2)

    assert "TypeError: add() got an unexpected" in str(caught.value.__cause__)


def test_what_the_server_cannot_import(farm):
    """K14: an error of that one future, at the result; the worker lives."""
    with pytest.raises(ModuleNotFoundError, match="ghost_of_a_module"):
        ask(farm, tasks.same, tasks.ByName("ghost_of_a_module", "make"))
    with pytest.raises(AttributeError, match="no_such_name"):
        ask(farm, tasks.same, tasks.ByName("tests.support.tasks", "no_such_name"))

    assert ask(farm, abs, -1) == 1


def test_function_of_a_module_made_by_hand(farm, monkeypatch):
    """K7, K14: it runs, or its future says what the server lacks."""
    ghost = types.ModuleType("ghost_of_a_module")
    exec("def make():\n    return 1\n", vars(ghost))
    monkeypatch.setitem(sys.modules, ghost.__name__, ghost)

    future = farm.submit(ghost.make)
    error = future.exception(LIMIT)

    if error is None:
        assert future.result() == 1
    else:
        assert isinstance(error, ModuleNotFoundError)
        assert ghost.__name__ in str(error)
    assert ask(farm, abs, -1) == 1


def test_globals_of_an_importable_module_are_the_servers(farm):
    """K15: only functions that travel by value carry a snapshot of theirs."""
    tasks.STATE["of the client"] = 1
    try:
        names = code("def read():\n    return somevar\n", somevar=5)

        assert ask(farm, tasks.get_state, "of the client") is None
        assert ask(farm, names["read"]) == 5
    finally:
        tasks.STATE.clear()


def test_error_text(farm):
    """K16: the message and the remote traceback reach the client."""
    with pytest.raises(RuntimeError, match="foo") as caught:
        ask(farm, tasks.fail, "foo")

    assert "the line that a remote traceback shows" in str(caught.value.__cause__)


def test_calling_none(farm):
    """K17: inside a task it is an error like others; as a task it is refused (K19)."""
    with pytest.raises(TypeError, match="not callable"):
        ask(farm, lambda nothing: nothing(), None)
    with pytest.raises(TypeError, match="callable"):
        farm.submit(None).result(LIMIT)


def test_failures_cost_no_worker(farm):
    """K18: five failures in a row, and the same workers go on."""
    before = {ask(farm, tasks.pid) for _ in range(10)}
    for _ in range(5):
        with pytest.raises(RuntimeError):
            ask(farm, tasks.fail)

    assert {ask(farm, tasks.pid) for _ in range(10)} <= before | set(farm.broadcast(tasks.pid))
    assert len(farm.broadcast(tasks.pid)) == 2


@pytest.mark.parametrize("thing", [42, "abs", None, (9,), ...])
def test_what_can_never_be_a_task(farm, thing):
    """K19, K23: a TypeError, at once or from the future, and never a hang."""
    with pytest.raises(TypeError, match="callable"):
        farm.submit(thing).result(LIMIT)
    with pytest.raises(TypeError, match="callable"):
        list(farm.map(thing, [1]))
    with pytest.raises(TypeError, match="callable"):
        farm.broadcast(thing)


# -- data


def test_identity_of_singletons(farm):
    """K21, K22: enum members, classes, functions and modules' constants are the same objects."""
    things = [tasks.Colour.RED, tasks.Adder, len, None, NotImplemented, ..., True]

    assert all(ask(farm, tasks.same, thing) is thing for thing in things)
    assert ask(farm, lambda: things[0]) is tasks.Colour.RED


def test_big_data(farm):
    """K32: a hundred numbers; and megabytes both ways at a time, without a deadlock."""
    assert ask(farm, tasks.same, [*range(100)]) == [*range(100)]
    blocks = [bytes([i]) * (4 << 20) for i in range(8)]

    found = [farm.submit(tasks.same, block) for block in blocks]

    assert [future.result(LIMIT) for future in found] == blocks


@pytest.mark.parametrize("size", [0, 1, 4095, 65535, 65536, 65537, 1 << 20])
def test_sizes_about_the_limits_of_frames(farm, size):
    """K32: also as bytearrays, which travel out of band when they are large."""
    block = bytearray(itertools.islice(itertools.cycle(range(251)), size))

    found = ask(farm, tasks.same, block)

    assert found == block
    assert type(found) is bytearray


def test_number_of_workers(farm):
    """K33: the workers of all servers together."""
    assert farm._max_workers == 2


def test_circular_structure(farm):
    """K34: cyclic and shared structure survives, as argument and as result."""
    first, second = tasks.Node(1), tasks.Node(2)
    first.next, second.next = second, first
    ring = [1]
    ring.append(ring)
    shared = [0]

    assert ask(farm, tasks.ring_sum, first) == 3
    back = ask(farm, tasks.same, ring)
    assert back[1] is back
    one, two = ask(farm, lambda pair: pair, (shared, shared))
    assert one is two


# -- waiting


def test_done_tells_none_from_nothing(farm, tmp_path):
    """K46, K77, P5: done() becomes true by itself; taking the result changes nothing."""
    release = tmp_path / "release"
    future = farm.submit(tasks.hold, tmp_path / "started", release, None)

    assert not future.done()
    release.touch()
    wait_until(future.done)
    assert future.result(0) is None
    assert future.done()
    assert future.result(0) is None


def test_waiting_for_a_result_holds_nothing_up(farm, tmp_path):
    """K47, K77: other threads work meanwhile."""
    release = tmp_path / "release"
    future = farm.submit(tasks.hold, tmp_path / "started", release, 1)
    others = []

    def work():
        while not release.exists():
            others.append(ask(farm, abs, -1))

    thread = threading.Thread(target=work)
    thread.start()
    start = time.monotonic()
    with pytest.raises(futures.TimeoutError):
        future.result(timeout=0.2)
    took = time.monotonic() - start
    release.touch()
    thread.join(LIMIT)

    assert 0.2 <= took < scaled(1)
    assert others


def test_a_result_that_came_late_is_not_lost(farm, tmp_path):
    """K48, K77."""
    release = tmp_path / "release"
    future = farm.submit(tasks.hold, tmp_path / "started", release, 99)
    with pytest.raises(futures.TimeoutError):
        future.result(timeout=0.01)
    release.touch()

    assert future.result(LIMIT) == 99


def test_results_in_order_of_completion(farm, tmp_path):
    """K49."""
    release = tmp_path / "release"
    slow = farm.submit(tasks.hold, tmp_path / "started", release, "slow")
    fast = [farm.submit(tasks.same, "fast") for _ in range(2)]
    order = []
    for future in futures.as_completed([slow, *fast], LIMIT):
        order.append(future.result())
        if len(order) == 2:
            release.touch()

    assert order == ["fast", "fast", "slow"]


# -- many


@pytest.mark.parametrize("priority", [None, "low"])
def test_many_tasks(farm, priority):
    """K50, K51, K74: a thousand one by one, a thousand at a time; also with low priority."""
    view = farm if priority is None else farm.options(priority=priority)

    assert [view.submit(tasks.nothing).result(LIMIT) for _ in range(1000)] == [None] * 1000
    queued = [view.submit(tasks.same, i) for i in range(1000)]
    assert [future.result(LIMIT) for future in queued] == [*range(1000)]


def test_map_over_many_items(farm):
    """K50: with batches that grow by themselves."""
    assert sum(farm.map(tasks.same, range(20_000))) == sum(range(20_000))


def test_map_unordered_and_starmap(farm):
    """The two that concurrent.futures has not."""
    assert sorted(farm.map_unordered(tasks.square, range(50))) == [i * i for i in range(50)]
    assert list(farm.starmap(pow, [(2, 3), (3, 2)])) == [8, 9]


def test_map_with_a_closure(farm):
    """C10: the function travels once."""
    table = {i: -i for i in range(10)}

    assert list(farm.map(lambda i: table[i], range(10))) == [-i for i in range(10)]


# -- the error's class, and the context of a task


def test_the_error_itself_arrives(farm):
    """K78: its class is the client's; a task may raise another one from it."""
    with pytest.raises(tasks.PlainError) as caught:
        ask(farm, tasks.raise_it, tasks.PlainError("plain", 3))
    assert caught.value.code == 3

    with pytest.raises(tasks.PlainError) as caught:
        ask(farm, tasks.raise_from)
    assert isinstance(caught.value.__cause__, KeyError)


def test_tasks_run_in_the_main_thread(farm):
    """As in ProcessPoolExecutor: signals, event loops and user interfaces work in a task."""
    assert ask(farm, tasks.in_main_thread)


def test_a_task_may_use_a_pool_of_its_own():
    """P20: a worker is a process like others."""
    with FarmExecutor(1) as executor:  # what multiprocessing keeps running ends with its worker
        assert ask(executor, tasks.own_executor) == "7"


def test_repr_tells_the_state(farm):
    """K69, K91: counts in it, before and after."""
    assert "FarmExecutor" in repr(farm)
    assert "2" in repr(farm)
    with FarmExecutor(1) as other:
        assert "FarmExecutor" in repr(other)
    assert "FarmExecutor" in repr(other)


def test_objects_of_a_manager():
    """As under ProcessPoolExecutor, tasks may use the queues and locks of a Manager."""
    with multiprocessing.Manager() as manager, FarmExecutor(2) as executor:
        queue = manager.Queue()
        for future in [executor.submit(queue.put, i) for i in range(4)]:
            future.result(LIMIT)
        assert sorted(queue.get(timeout=LIMIT) for _ in range(4)) == [0, 1, 2, 3]
