"""The measurements of tasks that make tasks."""

from __future__ import annotations

import statistics
import time
from concurrent import futures
from typing import TYPE_CHECKING, Any

from tests.bench import tasks
from tests.bench.bars import Bar, Measure
from tests.bench.tasks import warm

if TYPE_CHECKING:
    from tests.bench.bars import Factory

__all__ = ["NESTED"]

NAP = 0.05
CUTOFF = 14


def tree(depth: int) -> int:
    """Nap at the leaves of a tree of which one side is ever deeper: 2 * depth leaves."""
    from remote_executor.parallel import plet

    if depth == 0:
        tasks.nap(NAP)
        return 1
    deeper, leaves = plet(lambda: tree(depth - 1), pair)
    return int(deeper + leaves)


def pair() -> int:
    """Nap twice, side by side."""
    from remote_executor.parallel import plet

    return len(plet(lambda: tasks.nap(NAP), lambda: tasks.nap(NAP)))


def lopsided(_: Factory, size: int) -> dict[str, float]:
    """Nap in a lopsided tree by ``plet`` within ``plet``, in units of the ideal."""
    from remote_executor import FarmExecutor

    with FarmExecutor(2, nested="parallel") as executor:
        warm(executor)
        executor.submit(tree, size).result()  # those that take the place of others are there then
        begin = time.perf_counter()
        leaves = executor.submit(tree, size).result()
        wall = time.perf_counter() - begin
    assert leaves == 2 * size + 1
    return {"of_ideal": wall / (leaves * NAP / 2)}


def submit_many(count: int) -> tuple[float, int]:
    """Submit so many tasks; return the seconds, and how far this process has grown."""
    from remote_executor import current_executor
    from tests.bench import memory

    ex = current_executor()
    futures.wait([ex.submit(tasks.nothing) for _ in range(count)])
    before, begin = memory.rss(), time.perf_counter()
    made = [ex.submit(tasks.nothing) for _ in range(count)]
    futures.wait(made)
    seconds = time.perf_counter() - begin
    del made
    return seconds, memory.rss() - before


def nested_submits(factory: Factory, size: int) -> dict[str, float]:
    """Submit no-ops in a task, and wait for all."""
    with factory() as executor:
        warm(executor)
        executor.submit(submit_many, size // 10).result()
        seconds, grown = executor.submit(submit_many, size).result()
    return {"rate": size / seconds, "grown": grown / 1e6}


def chain(depth: int) -> int:
    """Wait for a task that waits for a task ..."""
    from remote_executor import current_executor

    return 1 + current_executor().submit(chain, depth - 1).result() if depth else 0


def depth(factory: Factory, size: int) -> dict[str, float]:
    """Nest tasks so deep."""
    with factory() as executor:
        warm(executor)
        begin = time.perf_counter()
        assert executor.submit(chain, size).result() == size
        return {"seconds": time.perf_counter() - begin}


def plain_fib(n: int) -> int:
    """Return the n-th Fibonacci number, the slow way."""
    return n if n < 2 else plain_fib(n - 1) + plain_fib(n - 2)


def fib(n: int) -> int:
    """The same, and have others help who are idle."""
    from remote_executor.parallel import fork

    if n < CUTOFF:
        return plain_fib(n)
    smaller = fork(fib, n - 2)
    return fib(n - 1) + smaller.result()


def of_plain(n: int, rounds: int) -> float:
    """Return the median of what ``fib`` takes in units of the plain one."""
    fib(n)
    time.sleep(0.2)  # a worker may be starting
    ratios = []
    for number in range(rounds):
        seconds: dict[Any, float] = {}
        for fn in (fib, plain_fib) if number % 2 else (plain_fib, fib):
            begin = time.perf_counter()
            fn(n)
            seconds[fn] = time.perf_counter() - begin
        ratios.append(seconds[fib] / seconds[plain_fib])
    return statistics.median(ratios)


def recursion(_: Factory, size: int) -> dict[str, float]:
    """Compute fib(22), in units of the plain function: with an idle worker, and with none."""
    from remote_executor import FarmExecutor

    found = {}
    for name, workers in (("idle", 2), ("busy", 1)):
        with FarmExecutor(workers) as executor:
            warm(executor)
            found[name] = executor.submit(of_plain, 22, size).result()
    return found


NESTED: dict[str, Measure] = {
    "nested-tree": Measure(
        lopsided,
        ("farm",),
        16,
        6,
        3,
        (
            Bar(
                "of_ideal",
                "lopsided tree of naps by `plet` in `plet`, 2 workers",
                "of the ideal",
                "plain",
                1.1,
                False,
                (),
            ),
        ),
    ),
    "nested-submit": Measure(
        nested_submits,
        ("farm",),
        20_000,
        4_000,
        3,
        (
            Bar("rate", "no-ops submitted in a task", "/s", "plain", 8_000, True, ()),
            Bar("grown", "growth of its worker by as many again", "MB", "plain", 8, False, ()),
        ),
    ),
    "nested-depth": Measure(
        depth,
        ("farm",),
        200,
        50,
        3,
        (Bar("seconds", "tasks nested 200 deep", "s", "plain", 10, False, ()),),
    ),
    "nested-fib": Measure(
        recursion,
        ("farm",),
        201,
        41,
        3,
        (
            Bar("idle", "fib(22) by `fork`, 2 workers", "of plain", "plain", 0.65, False, ()),
            Bar("busy", "the same, no worker idle", "of plain", "plain", 1.05, False, ()),
        ),
    ),
}
