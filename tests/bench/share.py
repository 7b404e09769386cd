"""The measurements of objects that travel once."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from tests.bench import memory, tasks
from tests.bench.bars import Bar, Measure
from tests.bench.peers import WORKERS

if TYPE_CHECKING:
    from tests.bench.bars import Factory

__all__ = ["SHARE"]

TASKS = 1000
TURNS = 10
"""Both ways take turns, so that what else the machine does meets them alike."""


def shared_array(factory: Factory, size: int) -> dict[str, float]:
    """
    Have 1,000 tasks add up an array of so many MB, in units of when it is there already.

    There already: each worker was sent it before (``of_there``), or has it in memory that numpy
    made (``of_heap``), whose pages are larger where the system is set so.
    """
    with factory() as executor:
        tasks.warm(executor)
        array = tasks.make_array(size, 1)
        expected = float(array.sum())
        executor.broadcast(tasks.keep, "there", array, False)
        executor.broadcast(tasks.keep, "heap", array, True)

        def run(function: Any, argument: object) -> float:
            begin = time.perf_counter()
            futures = [executor.submit(function, argument) for _ in range(TASKS // TURNS)]
            assert {future.result() for future in futures} == {expected}
            return time.perf_counter() - begin

        for name in ("there", "heap"):
            run(tasks.total_of_kept, name)
        begin = time.perf_counter()
        handle = executor.share(array)
        seconds = {"share": time.perf_counter() - begin, "there": 0.0, "heap": 0.0}
        for _ in range(TURNS):
            seconds["share"] += run(tasks.total, handle)
            for name in ("there", "heap"):
                seconds[name] += run(tasks.total_of_kept, name)
    return {
        "of_there": seconds["share"] / seconds["there"],
        "of_heap": seconds["share"] / seconds["heap"],
    }


def shared_memory(factory: Factory, size: int) -> dict[str, float]:
    """Share an array of so many MB with all workers; how the server's memory grew."""
    with factory() as executor:
        tasks.warm(executor)
        array = tasks.make_array(size, 1)
        executor.broadcast(tasks.total, array[:1000])
        ours = os.getpid()
        before = memory.marked_memory(without=ours)
        handle = executor.share(array)
        expected = float(array.sum())
        found = executor.broadcast(tasks.total, handle)
        grown = memory.marked_memory(without=ours) - before
        assert found == [expected] * WORKERS
    return {"grown": grown / (size * 1e6)}


SHARE: dict[str, Measure] = {
    "shared-array": Measure(
        shared_array,
        ("farm",),
        200,
        20,
        1,
        (
            Bar(
                "of_there",
                "1,000 tasks that add up a shared array of 200 MB",
                "of the array there already",
                "plain",
                1.3,
                False,
                (),
            ),
        ),
        touches=2_000_000_000,
    ),
    "shared-memory": Measure(
        shared_memory,
        ("farm", "farm-tcp"),
        1000,
        100,
        1,
        tuple(
            Bar(
                "grown",
                f"memory on the server for 1 GB that all workers have shared, {where}",
                "GB",
                "plain",
                1.1,
                False,
                (),
                peer,
            )
            for peer, where in (("farm", "embedded"), ("farm-tcp", "over TCP"))
        ),
        touches=4_000_000_000,
    ),
}
