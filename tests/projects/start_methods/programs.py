"""
The same small programs on four kinds of process pool: fork, spawn, loky, ours.

``python programs.py spawn`` prints a line of JSON: for each program what came out. Each runs on an
executor of its own, with one worker.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import multiprocessing
import sys
import threading
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

LIMIT = 60.0


def make(kind: str, **settings: Any) -> Executor:
    if kind == "ours":
        from remote_executor import FarmExecutor

        return FarmExecutor(1, **settings)
    if kind == "loky":
        from loky import ProcessPoolExecutor as Loky

        found: Executor = Loky(1, **settings)
        return found
    return ProcessPoolExecutor(1, multiprocessing.get_context(kind), **settings)


def double(x: int) -> int:
    return 2 * x


def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


SET_BEFORE = "as in the file"
CHANGED = "as in the file"
PREPARED: Any = None
COUNTS: dict[str, int] = {}
KEPT: list[Any] = []
WRITTEN = 0
LOCK = threading.Lock()


def read_set_before() -> str:
    return SET_BEFORE


def read_changed() -> str:
    return CHANGED


def prepare(value: str) -> None:
    global PREPARED
    PREPARED = value


def read_prepared() -> Any:
    return PREPARED


def count() -> int:
    COUNTS["calls"] = COUNTS.get("calls", 0) + 1
    return COUNTS["calls"]


def write() -> int:
    global WRITTEN
    WRITTEN += 1
    return WRITTEN


@functools.lru_cache
def cached(x: int) -> int:
    return x + len(KEPT)


def hits(x: int) -> int:
    cached(x)
    return cached.cache_info().hits


def with_lock() -> str:
    with LOCK:
        return "yes"


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def moved(self, by: int) -> Point:
        return Point(self.x + by)

    def __call__(self, by: int) -> int:
        return self.x + by


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass(frozen=True)
class Item:
    name: str
    price: int = 1


class Trouble(Exception):
    pass


def same(x: Any) -> Any:
    return x


def keep(x: Any) -> None:
    KEPT.append(x)


def is_of_kept_type(x: Any) -> bool:
    return type(x) is type(KEPT[0]) and isinstance(x, Point)


def is_red(x: Any) -> bool:
    return x is Colour.RED


def raise_trouble() -> None:
    raise Trouble("of main")


def append(box: list[int], x: int) -> int:
    box.append(x)
    return len(box)


def name() -> str:
    return __name__


# -- the programs: each gets the kind of the executor and returns what came out


def main_function(kind: str) -> Any:
    with make(kind) as executor:
        return executor.submit(double, 2).result(LIMIT) == 4 and [*executor.map(fib, [9])] == [34]


def a_lambda(kind: str) -> Any:
    with make(kind) as executor:
        return executor.submit(lambda x: x + 1, 1).result(LIMIT) == 2


def closure(kind: str) -> Any:
    step = 3

    def add(x: int) -> int:
        return x + step

    with make(kind) as executor:
        return executor.submit(add, 1).result(LIMIT) == 4


def method_and_partial(kind: str) -> Any:
    with make(kind) as executor:
        moved = executor.submit(Point(1).moved, 2).result(LIMIT)
        called = executor.submit(functools.partial(Point(1), by=4)).result(LIMIT)
        return (moved.x, called) == (3, 5)


def global_set_before(kind: str) -> Any:
    global SET_BEFORE
    SET_BEFORE = "set before"
    with make(kind) as executor:
        return executor.submit(read_set_before).result(LIMIT) == "set before"


def global_changed_between(kind: str) -> Any:
    global CHANGED
    with make(kind) as executor:
        executor.submit(read_changed).result(LIMIT)
        CHANGED = "changed"
        return executor.submit(read_changed).result(LIMIT) == "changed"


def initializer_sets_a_global(kind: str) -> Any:
    with make(kind, initializer=prepare, initargs=("ready",)) as executor:
        return executor.submit(read_prepared).result(LIMIT) == "ready"


def cache_in_a_global(kind: str) -> Any:
    with make(kind) as executor:
        return [executor.submit(count).result(LIMIT) for _ in range(3)] == [1, 2, 3]


def global_written_by_a_task(kind: str) -> Any:
    with make(kind) as executor:
        found = [executor.submit(write).result(LIMIT) for _ in range(2)]
        return found == [1, 2] and WRITTEN == 0


def function_under_lru_cache(kind: str) -> Any:
    with make(kind) as executor:
        return [executor.submit(hits, 1).result(LIMIT) for _ in range(2)] == [0, 1]


def result_is_of_our_class(kind: str) -> Any:
    with make(kind) as executor:
        return type(executor.submit(Point, 1).result(LIMIT)) is Point


def class_is_one_over_messages(kind: str) -> Any:
    with make(kind) as executor:
        executor.submit(keep, Point(1)).result(LIMIT)
        return executor.submit(is_of_kept_type, Point(2)).result(LIMIT)


def enum_members_are_themselves(kind: str) -> Any:
    with make(kind) as executor:
        there = executor.submit(is_red, Colour.RED).result(LIMIT)
        return there and executor.submit(same, Colour.RED).result(LIMIT) is Colour.RED


def dataclasses_are_equal(kind: str) -> Any:
    with make(kind) as executor:
        return executor.submit(same, Item("x")).result(LIMIT) == Item("x")


def exception_of_our_class(kind: str) -> Any:
    with make(kind) as executor:
        return type(executor.submit(raise_trouble).exception(LIMIT)) is Trouble


def lock_in_a_global(kind: str) -> Any:
    with make(kind) as executor:
        return executor.submit(with_lock).result(LIMIT) == "yes"


def captured_list_is_a_snapshot(kind: str) -> Any:
    box: list[int] = []
    task = functools.partial(append, box)
    with make(kind) as executor:
        found = [executor.submit(task, 1).result(LIMIT) for _ in range(2)]
        return found == [1, 1] and box == []


def function_defined_later(kind: str) -> Any:
    """As in the next cell of a notebook."""
    with make(kind) as executor:
        executor.submit(double, 1).result(LIMIT)
        exec("def later(x):\n    return x - 1\n", globals())
        return executor.submit(globals()["later"], 1).result(LIMIT) == 0


def function_defined_anew(kind: str) -> Any:
    """As when a cell of a notebook is run again after a change."""
    exec("def changing():\n    return 1\n", globals())
    with make(kind) as executor:
        executor.submit(globals()["changing"]).result(LIMIT)
        exec("def changing():\n    return 2\n", globals())
        return executor.submit(globals()["changing"]).result(LIMIT) == 2


def name_of_the_module(kind: str) -> Any:
    with make(kind) as executor:
        return executor.submit(name).result(LIMIT) == "__main__"


PROGRAMS = [
    main_function,
    a_lambda,
    closure,
    method_and_partial,
    global_set_before,
    global_changed_between,
    initializer_sets_a_global,
    cache_in_a_global,
    global_written_by_a_task,
    function_under_lru_cache,
    result_is_of_our_class,
    class_is_one_over_messages,
    enum_members_are_themselves,
    dataclasses_are_equal,
    exception_of_our_class,
    lock_in_a_global,
    captured_list_is_a_snapshot,
    function_defined_later,
    function_defined_anew,
    name_of_the_module,
]


def outcome(program: Any, kind: str) -> str:
    try:
        return "yes" if program(kind) else "no"
    except Exception as error:
        return type(error).__name__


if __name__ == "__main__":
    print(json.dumps({each.__name__: outcome(each, sys.argv[1]) for each in PROGRAMS}))
