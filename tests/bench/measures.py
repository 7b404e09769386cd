"""
The measurements. Each function takes a peer's factory and a size, and returns numbers by name.

A function runs in a fresh interpreter for each peer and each round (see run.py), so that no peer
inherits another one's memory, threads or warm caches.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING

from tests.bench import memory, tasks
from tests.bench.bars import Bar, Measure
from tests.bench.peers import POOLS, WORKERS
from tests.bench.tasks import warm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.bars import Factory

__all__ = ["EXECUTOR", "arrays_in", "arrays_out", "latency"]

ARRAY_MB = 50
CLOSURE_MB = 20


def noop(factory: Factory, size: int) -> dict[str, float]:
    """Submit no-ops one by one, then wait for all; also the processor time of this process."""
    with factory() as executor:
        warm(executor)
        cpu, start = time.process_time(), time.perf_counter()
        futures = [executor.submit(tasks.nothing) for _ in range(size)]
        for future in futures:
            future.result()
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {"rate": size / wall, "cpu": cpu / size * 1e6}


def latency(factory: Factory, size: int) -> dict[str, float]:
    """Submit a no-op, wait for it, submit the next."""
    times = []
    with factory() as executor:
        warm(executor)
        for _ in range(size):
            start = time.perf_counter()
            executor.submit(tasks.nothing).result()
            times.append(time.perf_counter() - start)
    return {"median": statistics.median(times) * 1e6}


def map_integers(factory: Factory, size: int) -> dict[str, float]:
    """Map over small integers, given as a range."""
    return _map(factory, range(size))


def map_list(factory: Factory, size: int) -> dict[str, float]:
    """Map over small integers, given as a list."""
    return _map(factory, list(range(size)))


def arrays_in(factory: Factory, size: int) -> dict[str, float]:
    """Send distinct large arrays; also how far this process grew beyond them."""
    with factory() as executor:
        warm(executor)
        arrays = [tasks.make_array(ARRAY_MB, seed) for seed in range(size)]
        for array in arrays[:WORKERS]:
            executor.submit(tasks.touch_array, array).result()
        memory.reset_peak()
        before, start = memory.rss(), time.perf_counter()
        futures = [executor.submit(tasks.touch_array, array) for array in arrays]
        sums = [future.result() for future in futures]
        wall = time.perf_counter() - start
        extra = memory.peak_rss() - before
    assert sums == [seed * len(array[::512]) for seed, array in enumerate(arrays)]
    return {"rate": size * ARRAY_MB / 1e3 / wall, "extra": extra / 1e6}


def arrays_out(factory: Factory, size: int) -> dict[str, float]:
    """Have distinct large arrays made and sent here, keep them all."""
    with factory() as executor:
        warm(executor)
        for seed in range(WORKERS):
            executor.submit(tasks.make_array, ARRAY_MB, seed).result()
        memory.reset_peak()
        before, start = memory.rss(), time.perf_counter()
        futures = [executor.submit(tasks.make_array, ARRAY_MB, seed) for seed in range(size)]
        arrays = [future.result() for future in futures]
        sums = [tasks.touch_array(array) for array in arrays]
        wall = time.perf_counter() - start
        extra = memory.peak_rss() - before - sum(array.nbytes for array in arrays)
    assert sums == [seed * len(array[::512]) for seed, array in enumerate(arrays)]
    return {"rate": size * ARRAY_MB / 1e3 / wall, "extra": extra / 1e6}


def closure(factory: Factory, size: int) -> dict[str, float]:
    """Map a closure over a large array; count how often its bytes crossed the loopback device."""
    with factory() as executor:
        warm(executor)
        array = tasks.make_array(CLOSURE_MB, 1)
        received, start = _loopback(), time.perf_counter()
        total = sum(executor.map(tasks.make_reader(array), range(size)))
        wall = time.perf_counter() - start
        crossed = _loopback() - received
    assert total == size
    return {"excess": wall, "crossings": crossed / array.nbytes}


def naps(factory: Factory, size: int) -> dict[str, float]:
    """Submit naps of 10 ms."""
    with factory() as executor:
        warm(executor)
        start = time.perf_counter()
        for future in [executor.submit(tasks.nap, 0.01) for _ in range(size)]:
            future.result()
        wall = time.perf_counter() - start
    return {"of_ideal": wall / _ideal([0.01] * size)}


def uneven_spread(factory: Factory, size: int) -> dict[str, float]:
    """Map naps of 10 ms, each 20th of which takes 1 s."""
    return _uneven(factory, [1.0 if index % 20 == 0 else 0.01 for index in range(size)])


def uneven_first(factory: Factory, size: int) -> dict[str, float]:
    """Map naps of 10 ms, the first four of which take 1 s."""
    return _uneven(factory, [1.0 if index < 4 else 0.01 for index in range(size)])


def start(factory: Factory, size: int) -> dict[str, float]:
    """Make the executor and wait for the first result; what a program imports is there already."""
    import concurrent.futures.process  # noqa: F401

    import remote_executor.client.executor  # noqa: F401

    begin = time.perf_counter()
    with factory() as executor:
        executor.submit(tasks.nothing).result()
        wall = time.perf_counter() - begin
    return {"seconds": wall}


def idle(factory: Factory, size: int) -> dict[str, float]:
    """Weigh all processes together when a few tasks have been run and nothing more happens."""
    with factory() as executor:
        warm(executor)
        for future in [executor.submit(tasks.nothing) for _ in range(size)]:
            future.result()
        time.sleep(0.5)
        total = memory.marked_pss()
    return {"pss": total / 1e6}


def _map(factory: Factory, items: Sequence[int]) -> dict[str, float]:
    with factory() as executor:
        warm(executor)
        start = time.perf_counter()
        total = sum(executor.map(tasks.add_one, items))
        wall = time.perf_counter() - start
    assert total == len(items) * (len(items) + 1) // 2
    return {"rate": len(items) / wall}


def _uneven(factory: Factory, seconds: list[float]) -> dict[str, float]:
    with factory() as executor:
        warm(executor)
        start = time.perf_counter()
        done = list(executor.map(tasks.nap, seconds))
        wall = time.perf_counter() - start
    assert done == seconds
    return {"of_ideal": wall / _ideal(seconds)}


def _ideal(seconds: list[float]) -> float:
    """Return the time of list scheduling without any cost: a free worker takes the next task."""
    free = [0.0] * WORKERS
    for each in seconds:
        free.sort()
        free[0] += each
    return max(free)


def _loopback() -> int:
    """Return the bytes that the loopback device has received."""
    path = "/proc/net/dev"
    if not os.path.exists(path):
        return 0
    with open(path) as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name.strip() == "lo":
                return int(rest.split()[0])
    return 0


EXECUTOR: dict[str, Measure] = {
    "noop": Measure(
        noop,
        ("farm", "fork", "pool"),
        20_000,
        4_000,
        5,
        (
            Bar("rate", "no-op tasks submitted one by one", "tasks/s", "ratio", 8.0, True),
            Bar("cpu", "processor time of the client per task", "µs", "ratio", 1 / 8, False),
        ),
    ),
    "latency": Measure(
        latency,
        ("farm", "fork", "pool"),
        2_000,
        400,
        5,
        (Bar("median", "round trip of one task, median", "µs", "ratio", 0.5, False),),
    ),
    "map": Measure(
        map_integers,
        ("farm", *POOLS, "fork-10000"),
        1_000_000,
        200_000,
        5,
        (
            Bar(
                "rate",
                "`map`, default arguments, a range, against Pool's best chunksize",
                "items/s",
                "ratio",
                1.0,
                True,
                POOLS,
            ),
        ),
    ),
    "map-list": Measure(
        map_list,
        ("farm", *POOLS, "fork-10000"),
        1_000_000,
        200_000,
        5,
        (
            Bar(
                "rate",
                "`map`, default arguments, a list of small integers, likewise",
                "items/s",
                "ratio",
                1.0,
                True,
                POOLS,
            ),
        ),
    ),
    "arrays-in": Measure(
        arrays_in,
        ("farm", "fork"),
        20,
        4,
        3,
        (
            Bar("rate", "arguments of 50 MB, embedded server", "GB/s", "ratio", 6.0, True),
            Bar("extra", "client memory above the data, 50 MB in", "MB", "plain", 100.0, False),
        ),
        touches=4_000_000_000,
    ),
    "arrays-out": Measure(
        arrays_out,
        ("farm", "fork"),
        20,
        4,
        3,
        (
            Bar("rate", "results of 50 MB, embedded server", "GB/s", "ratio", 5.0, True),
            Bar("extra", "client memory above the data, 50 MB out", "MB", "plain", 100.0, False),
        ),
        touches=4_000_000_000,
    ),
    "arrays-tcp": Measure(
        arrays_in,
        ("farm-tcp", "fork"),
        20,
        4,
        3,
        (
            Bar(
                "rate",
                "arguments of 50 MB, loopback TCP",
                "GB/s",
                "ratio",
                2.0,
                True,
                ours="farm-tcp",
            ),
        ),
        touches=4_000_000_000,
    ),
    "closure": Measure(
        closure,
        ("farm-tcp",),
        2_000,
        2_000,
        3,
        (
            Bar(
                "excess",
                "2,000 tasks with a closure over 20 MB, above the tasks' own time",
                "s",
                "plain",
                2.0,
                False,
                (),
                "farm-tcp",
            ),
            Bar(
                "crossings",
                "how often those 20 MB cross to one server",
                "times",
                "plain",
                1.5,
                False,
                (),
                "farm-tcp",
            ),
        ),
        touches=500_000_000,
    ),
    "uneven": Measure(
        uneven_spread,
        ("farm", "fork", "pool"),
        40,
        40,
        3,
        (
            Bar(
                "of_ideal",
                "`map` of 40 naps, every 20th of 1 s",
                "of the ideal",
                "plain",
                1.05,
                False,
            ),
        ),
    ),
    "uneven-first": Measure(
        uneven_first,
        ("farm", "fork", "pool"),
        40,
        40,
        3,
        (
            Bar(
                "of_ideal",
                "`map` of 40 naps, the first 4 of 1 s",
                "of the ideal",
                "plain",
                1.05,
                False,
            ),
        ),
    ),
    "naps": Measure(
        naps,
        ("farm", "fork", "pool"),
        200,
        200,
        5,
        (Bar("of_ideal", "200 naps of 10 ms", "of the ideal", "plain", 1.04, False),),
    ),
    "start": Measure(
        start,
        ("farm", "spawn", "fork"),
        1,
        1,
        7,
        (Bar("seconds", "start to first result", "s", "ratio", 1.0, False, ("spawn",)),),
    ),
    "idle": Measure(
        idle,
        ("farm", "spawn", "fork"),
        100,
        100,
        3,
        (
            Bar(
                "pss",
                "all processes together at idle (PSS), above ProcessPoolExecutor with spawn",
                "MB",
                "above",
                25.0,
                False,
                ("spawn",),
            ),
        ),
    ),
}
