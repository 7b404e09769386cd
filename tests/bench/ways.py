"""
The measurements of the ways in which a pool is called: callbacks, asyncio, Pool, joblib, threads.

``python -m tests.bench ways``. The peer is a forked ProcessPoolExecutor with two workers, for
``Pool.map`` multiprocessing's own pool, for joblib its backend loky.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any

from tests.bench import tasks
from tests.bench.bars import Bar, Measure
from tests.bench.tasks import warm

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.bars import Factory

__all__ = ["WAYS"]


def callback_chain(factory: Factory, size: int) -> dict[str, float]:
    """Submit each no-op in the done-callback of the one before: 1 and 4 chains at a time."""
    found = {}
    with factory() as executor:
        warm(executor)
        blocking = []
        for _ in range(size):
            begin = time.perf_counter()
            executor.submit(tasks.nothing).result()
            blocking.append(time.perf_counter() - begin)
        found["blocking"] = statistics.median(blocking) * 1e6
        for chains in (1, 4):
            left, done = [size], threading.Event()

            def again(_: Any, left: list[int] = left, done: threading.Event = done) -> None:
                left[0] -= 1
                if left[0] > 0:
                    executor.submit(tasks.nothing).add_done_callback(again)
                else:
                    done.set()

            begin = time.perf_counter()
            for _ in range(chains):
                executor.submit(tasks.nothing).add_done_callback(again)
            done.wait()
            found[f"chain{chains}"] = (time.perf_counter() - begin) / size * 1e6
        found["of_blocking"] = found["chain1"] / found["blocking"]
        time.sleep(0.1)  # the last of the four
    return found


def in_asyncio(factory: Factory, size: int) -> dict[str, float]:
    """Await no-ops one after the other, and 100 at a time; by run_in_executor, and our own."""

    async def measure(executor: Any) -> dict[str, float]:
        loop = asyncio.get_running_loop()
        ways: dict[str, Callable[[], Any]] = {
            "run": lambda: loop.run_in_executor(executor, tasks.nothing)
        }
        if hasattr(executor, "amap"):
            ways["await"] = lambda: executor.submit(tasks.nothing)
        found = {}
        for name, call in ways.items():
            begin = time.perf_counter()
            for _ in range(size):
                await call()
            found[name] = (time.perf_counter() - begin) / size * 1e6
            begin = time.perf_counter()
            for _ in range(size // 100):
                await asyncio.gather(*[call() for _ in range(100)])
            found[f"{name}100"] = size // 100 * 100 / (time.perf_counter() - begin)
        if "await" in found:
            found["await_of_run"] = found["await"] / found["run"]
        return found

    with factory() as executor:
        warm(executor)
        return asyncio.run(measure(executor))


def threads(factory: Factory, size: int) -> dict[str, float]:
    """Submit no-ops from 8 threads at once."""
    with factory() as executor:
        warm(executor)

        def submit() -> None:
            for each in [executor.submit(tasks.nothing) for _ in range(size // 8)]:
                each.result()

        those = [threading.Thread(target=submit) for _ in range(8)]
        begin = time.perf_counter()
        for thread in those:
            thread.start()
        for thread in those:
            thread.join()
        return {"rate": size / (time.perf_counter() - begin)}


def pool_map(factory: Factory, size: int) -> dict[str, float]:
    """``Pool.map`` over a million integers and over 20,000, with what is there by default."""
    with factory() as pool:
        pool.map(tasks.add_one, range(10_000))
        found = {}
        for name, count, times in (("million", size, 3), ("20000", 20_000, 30)):
            seconds = []
            for _ in range(times):
                begin = time.perf_counter()
                # list(): the farm's own map is lazy, and is one of those measured.
                assert len(list(pool.map(tasks.add_one, range(count)))) == count
                seconds.append(time.perf_counter() - begin)
            found[name] = count / statistics.median(seconds) / 1e6
    return found


def with_joblib(factory: Factory, size: int) -> dict[str, float]:
    """Tiny calls by joblib, with its batches and without."""
    from joblib import Parallel, delayed

    with factory():
        found = {}
        for name, count, more in (("batched", size, {}), ("single", size // 10, {"batch_size": 1})):
            parallel = Parallel(n_jobs=2, **more)
            parallel(delayed(abs)(n) for n in range(count))
            begin = time.perf_counter()
            parallel(delayed(abs)(n) for n in range(count))
            found[name] = count / (time.perf_counter() - begin)
    return found


def _bar(number: str, what: str, unit: str, limit: float, least: bool, **more: Any) -> Bar:
    return Bar(number, what, unit, more.pop("kind", "ratio"), limit, least, **more)


WAYS: dict[str, Measure] = {
    "callback-chain": Measure(
        callback_chain,
        ("farm", "fork"),
        3_000,
        300,
        5,
        (
            _bar("chain1", "a task from each done-callback, 1 in flight", "µs", 0.75, False),
            _bar("chain4", "the same, 4 in flight", "µs", 0.75, False),
            _bar(
                "of_blocking",
                "1 in flight, of a blocking round trip",
                "",
                1.25,
                False,
                kind="plain",
            ),
        ),
    ),
    "asyncio": Measure(
        in_asyncio,
        ("farm", "fork"),
        3_000,
        300,
        5,
        (
            _bar("run", "`run_in_executor`, one after the other", "µs", 0.6, False),
            _bar("run100", "`run_in_executor`, 100 at a time", "/s", 4.0, True),
        ),
    ),
    "await": Measure(
        in_asyncio,
        ("farm",),
        3_000,
        300,
        5,
        (
            Bar(
                "await_of_run",
                "`await` of our own future, of `run_in_executor`",
                "",
                "plain",
                1.0,
                False,
                (),
            ),
        ),
    ),
    "threads": Measure(
        threads,
        ("farm", "fork"),
        20_000,
        800,
        5,
        (_bar("rate", "no-ops submitted by 8 threads at once", "/s", 8.0, True),),
    ),
    "pool-map": Measure(
        pool_map,
        ("our-pool", "farm", "their-pool"),
        1_000_000,
        100_000,
        3,
        (
            _bar(
                "million",
                "`Pool.map` over a million integers",
                "million/s",
                1.0,
                True,
                against=("their-pool",),
                ours="our-pool",
            ),
            _bar(
                "20000",
                "`Pool.map` over 20,000 integers",
                "million/s",
                1.0,
                True,
                against=("their-pool",),
                ours="our-pool",
            ),
            _bar(
                "20000",
                "`map` over 20,000 integers, of Pool's",
                "million/s",
                0.8,
                True,
                against=("their-pool",),
            ),
        ),
    ),
    "joblib": Measure(
        with_joblib,
        ("joblib-farm", "joblib-loky"),
        20_000,
        2_000,
        3,
        (
            _bar(
                "batched",
                "joblib, tiny calls in its batches",
                "/s",
                1.0,
                True,
                against=("joblib-loky",),
                ours="joblib-farm",
            ),
            _bar(
                "single",
                "joblib, tiny calls without batches",
                "/s",
                2.0,
                True,
                against=("joblib-loky",),
                ours="joblib-farm",
            ),
        ),
    ),
}
