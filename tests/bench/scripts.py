"""
The measurements of what a script's own functions, classes and values cost.

What is measured stands in ``__main__``, as it does in a script. Processor time is taken where only
one thread of the client counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.bench import tasks
from tests.bench.bars import Bar, Measure
from tests.bench.tasks import warm

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.bars import Factory

__all__ = ["SCRIPTS"]

TURNS = 7
ROOT = Path(__file__).parents[2]

SCRIPT = """
STEP = 1
TABLE = {"a": 0}
SMALL = {"a": 0}
LARGE = dict.fromkeys(range(LARGE_SIZE))

def helper(number): return number + STEP
def no_name(number): return number + 1
def three_names(number): return helper(number) + TABLE["a"]
one_name = lambda number: number + STEP
def of_small(number): return number + len(SMALL)
def of_large(number): return number + len(LARGE)

def loop(count):
    import time
    start = time.process_time()
    total = 0
    for _ in range(count):
        total += STEP
    return time.process_time() - start

class Point:
    def __init__(self, x):
        self.x = x
        self.name = "a point"

def x_of(point): return point.x
"""


def script(large: int = 0) -> Any:
    """Run the script as this process's ``__main__``, and return that."""
    main = sys.modules["__main__"]
    exec(SCRIPT.replace("LARGE_SIZE", str(large)), main.__dict__)
    return main


def definitions(count: int, reached: int) -> str:
    """Return a script of so many functions, classes and values, and a task that names some."""
    kinds = (
        "def n{0}(x, y=1):\n    return x + y + {0}",
        "class n{0}:\n    a = 1\n    def f(self):\n        return {0}",
        "n{0} = [{0}, {0}]",
        "n{0} = {{'x': {0}}}",
        "n{0} = {0}.5",
    )
    lines = [kinds[number % len(kinds)].format(number) for number in range(count)]
    named = ", ".join(f"n{number}" for number in range(reached))
    return "\n".join([*lines, f"def task():\n    return len(({named},))"])


def script_submit(factory: Factory, size: int) -> dict[str, float]:
    """Submit an importable function and a script's own in turn."""
    main = script()
    functions: dict[str, Callable[[int], int]] = {
        "importable": tasks.add_one,
        "none": main.no_name,
        "one": main.one_name,
        "three": main.three_names,
    }
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    with factory() as executor:
        warm(executor)
        for turn in range(TURNS + 1):
            for name, function in functions.items():
                start = time.perf_counter()
                futures = [executor.submit(function, number) for number in range(size)]
                taken = time.perf_counter() - start
                for future in futures:
                    future.result()
                if turn:
                    seconds[name].append(taken)
    base = median(seconds.pop("importable"))
    return {name: base / median(each) for name, each in seconds.items()}


def large_global(factory: Factory, size: int) -> dict[str, float]:
    """Submit a function that names a large dict, and one that names a small one, in turn."""
    main = script(size)
    seconds: dict[Any, list[float]] = {main.of_small: [], main.of_large: []}
    count = 200
    with factory() as executor:
        for function in seconds:
            executor.submit(function, 1).result()
        for _ in range(TURNS):
            for function, taken in seconds.items():
                start = time.thread_time()
                futures = [executor.submit(function, number) for number in range(count)]
                taken.append(time.thread_time() - start)
                for future in futures:
                    future.result()
    small, large = (median(taken) / count * 1e6 for taken in seconds.values())
    return {"above": large - small}


def global_loop(factory: Factory, size: int) -> dict[str, float]:
    """Run a loop over a global at home and in a task, in turn."""
    main = script()
    home, there = [], []
    with factory() as executor:
        for turn in range(TURNS + 1):
            here, away = main.loop(size), executor.submit(main.loop, size).result()
            if turn:
                home.append(here)
                there.append(away)
    return {"times": min(there) / min(home)}


def instances(factory: Factory, size: int) -> dict[str, float]:
    """Submit tasks whose argument is an instance of a script's class; wait for all."""
    main = script()
    rates = []
    points = [main.Point(number) for number in range(size)]
    with factory() as executor:
        for turn in range(TURNS + 1):
            start = time.perf_counter()
            futures = [executor.submit(main.x_of, point) for point in points]
            assert [future.result() for future in futures] == list(range(size))
            if turn:
                rates.append(size / (time.perf_counter() - start))
    return {"rate": median(rates)}


FIRST = """
import time
from remote_executor import FarmExecutor

{definitions}

if __name__ == "__main__":
    start = time.perf_counter()
    with FarmExecutor(max_workers=1) as executor:
        assert executor.submit(task).result() == {reached}
        print(time.perf_counter() - start)
"""


def first_task(factory: Factory, size: int) -> dict[str, float]:
    """Run scripts that differ in how much they define and reach, from the executor to a result."""
    seconds: dict[tuple[int, int], list[float]] = {(2, 2): [], (size, 2): [], (size, size): []}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(TURNS + 1):
            for (count, reached), taken in seconds.items():
                file = Path(folder, f"script_{count}_{reached}.py")
                text = definitions(count, reached)
                file.write_text(FIRST.format(definitions=text, reached=reached))
                done = subprocess.run(
                    [sys.executable, str(file)],
                    env=environment,
                    stdout=subprocess.PIPE,
                    check=True,
                    timeout=100,
                )
                if turn:
                    taken.append(float(done.stdout))
    base, few, every = map(median, seconds.values())
    return {"few": few / base, "all": every / base}


def look(factory: Factory, size: int) -> dict[str, float]:
    """Look whether anything that a task reaches has changed since it was pickled."""
    from remote_executor.payload.functions import FunctionCache

    main = sys.modules["__main__"]
    cache = FunctionCache()
    micros = {}
    for count in (200, size):
        exec(definitions(count, count), main.__dict__)
        task = main.task  # type: ignore[attr-defined]
        encoded = cache.encode(task)
        taken = []
        for _ in range(5 * TURNS):
            start = time.thread_time()
            for _ in range(20):
                assert cache.encode(task) is encoded
            taken.append((time.thread_time() - start) / 20 * 1e6)
        micros[count] = median(taken)
    return {"first": micros[200], "each": (micros[size] - micros[200]) / (size - 200)}


def pickling(factory: Factory, size: int) -> dict[str, float]:
    """Pickle all that a task reaches for the first time, as cloudpickle does and as we do."""
    import cloudpickle

    from remote_executor.payload.functions import FunctionCache

    main = sys.modules["__main__"]
    exec(definitions(size, size) + "\ndef other():\n    return 1", main.__dict__)
    FunctionCache().encode(main.other)  # type: ignore[attr-defined]
    cloudpickle.dumps(main.other)  # type: ignore[attr-defined]
    start = time.thread_time()
    FunctionCache().encode(main.task)  # type: ignore[attr-defined]
    ours = time.thread_time() - start
    theirs = []
    for _ in range(TURNS):
        exec(definitions(size, size), main.__dict__)
        start = time.thread_time()
        cloudpickle.dumps(main.task)  # type: ignore[attr-defined]
        theirs.append(time.thread_time() - start)
    return {"times": ours / median(theirs), "each": ours / size * 1e6}


def _bar(number: str, what: str, unit: str, limit: float, least: bool = False) -> Bar:
    return Bar(number, what, unit, "plain", limit, least, ())


_FARM = ("farm",)

SCRIPTS: dict[str, Measure] = {
    "script-submit": Measure(
        script_submit,
        _FARM,
        3_000,
        500,
        3,
        tuple(
            _bar(
                name,
                f"`submit` of a script's function that reaches {words}, against an importable one",
                "of the rate",
                0.8,
                True,
            )
            for name, words in (
                ("none", "no other name"),
                ("one", "one (a lambda)"),
                ("three", "three names, a helper and a dict among them"),
            )
        ),
    ),
    "large-global": Measure(
        large_global,
        _FARM,
        1_000_000,
        100_000,
        3,
        (
            _bar(
                "above", "`submit` that names a dict of 1,000,000 entries, above another", "µs", 50
            ),
        ),
    ),
    "global-loop": Measure(
        global_loop,
        _FARM,
        1_000_000,
        100_000,
        3,
        (_bar("times", "a loop over a global in a task, against one at home", "times", 1.1),),
    ),
    "instances": Measure(
        instances,
        ("farm", "fork"),
        2_000,
        200,
        3,
        (
            Bar(
                "rate",
                "tasks with an instance of a script's class",
                "tasks/s",
                "ratio",
                1.0,
                True,
            ),
        ),
    ),
    "first-task": Measure(
        first_task,
        _FARM,
        200,
        200,
        3,
        (
            _bar("few", "first task of a script of 200 definitions that reaches 2", "times", 1.1),
            _bar("all", "the same, if it reaches all", "times", 1.5),
        ),
    ),
    "look": Measure(
        look,
        _FARM,
        1_000,
        400,
        3,
        (
            _bar("first", "to see that 200 definitions and values have not changed", "µs", 50),
            _bar("each", "the same, for each more of 1,000", "µs", 0.25),
        ),
    ),
    "pickling": Measure(
        pickling,
        _FARM,
        200,
        200,
        3,
        (_bar("times", "to pickle 200 definitions, against cloudpickle", "times", 3.0),),
    ),
}
