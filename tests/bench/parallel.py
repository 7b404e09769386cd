"""
The measurements of ``remote_executor.parallel``: against a Pool, and against calls by hand.

Where one of our ways is compared with another of ours, both run in one interpreter, in turn.
"""

from __future__ import annotations

import functools
import operator
import statistics
import time
from typing import TYPE_CHECKING

from tests.bench import memory, tasks
from tests.bench.bars import Bar, Measure
from tests.bench.nested import NESTED
from tests.bench.peers import POOLS, WORKERS
from tests.bench.tasks import warm

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.bars import Factory

__all__ = ["PARALLEL"]

INTEGER = 32
"""Bytes that the allocator takes for a small integer."""


def in_turn(rounds: int, ours: Callable[[], object], theirs: Callable[[], object]) -> float:
    """Return the median of what one takes in units of the other, each beside its neighbour."""
    ours()
    theirs()
    ratios = []
    for number in range(rounds):
        seconds = {}
        for call in (ours, theirs) if number % 2 else (theirs, ours):
            begin = time.perf_counter()
            call()
            seconds[call] = time.perf_counter() - begin
        ratios.append(seconds[ours] / seconds[theirs])
    return statistics.median(ratios)


def pmap_abs(factory: Factory, size: int) -> dict[str, float]:
    """Map ``abs`` over small integers."""
    from remote_executor.parallel import pmap

    with factory() as executor:
        warm(executor)
        ours = hasattr(executor, "as_kernel")
        begin = time.perf_counter()
        if ours:
            total = sum(pmap(abs, range(size), executor=executor))
        else:
            total = sum(executor.map(abs, range(size)))
        wall = time.perf_counter() - begin
    assert total == size * (size - 1) // 2
    return {"rate": size / wall}


def preduce_array(factory: Factory, size: int) -> dict[str, float]:
    """Add up an array of floats, in units of the time that it takes to send it."""
    import numpy

    from remote_executor.parallel import preduce

    array = numpy.arange(float(size))
    expected = float(size * (size - 1) // 2)
    with factory() as executor:
        warm(executor)

        def reduce() -> None:
            assert preduce(operator.add, array, executor=executor) == expected

        def ship() -> None:
            assert executor.submit(len, array).result() == size

        for _ in range(3):
            reduce()
            ship()
        return {"of_shipping": in_turn(21, reduce, ship)}


def channel(factory: Factory, size: int) -> dict[str, float]:
    """Send a task through a channel and receive it, in units of a bare submit and result."""
    from remote_executor.parallel import Channel

    with factory() as executor:
        warm(executor)
        through = Channel(executor)

        def round_trip() -> None:
            through.submit(tasks.nothing)
            through.receive()

        def bare() -> None:
            executor.submit(tasks.nothing).result()

        return {"of_bare": in_turn(size, round_trip, bare)}


def futures(factory: Factory, size: int) -> dict[str, float]:
    """Make futures and wait for all of them, in units of the executor's own submit."""
    from remote_executor.parallel import future

    with factory() as executor, executor.as_kernel():
        warm(executor)

        def ours() -> None:
            for each in [future(tasks.nothing) for _ in range(size)]:
                each.result()

        def by_hand() -> None:
            for each in [executor.submit(tasks.nothing) for _ in range(size)]:
                each.result()

        return {"future": in_turn(61, ours, by_hand)}


def layer(factory: Factory, size: int) -> dict[str, float]:
    """Do with the layer what can be written by hand on the executor, in units of that."""
    from remote_executor.parallel import pmap, pmap_into, preduce

    numbers = list(range(size))
    half = size // 2
    with factory() as executor, executor.as_kernel():
        warm(executor)

        def reduce_by_hand() -> None:
            parts = (numbers[:half], numbers[half:])
            both = [executor.submit(functools.reduce, operator.add, part) for part in parts]
            assert sum(each.result() for each in both) == size * (size - 1) // 2

        target = [0] * size

        def fill_by_hand() -> None:
            target[:] = list(executor.map(abs, numbers))

        return {
            "pmap": in_turn(
                11, lambda: pmap(abs, numbers), lambda: list(executor.map(abs, numbers))
            ),
            "pmap_into": in_turn(11, lambda: pmap_into(target, abs, numbers), fill_by_hand),
            "preduce": in_turn(11, lambda: preduce(operator.add, numbers), reduce_by_hand),
        }


def large_list(factory: Factory, size: int) -> dict[str, float]:
    """Map over a list of integers; how far this process grew beyond input and result."""
    from remote_executor.parallel import pmap

    with factory() as executor:
        warm(executor)
        items = list(range(1000, size + 1000))
        memory.reset_peak()
        before, begin = memory.rss(), time.perf_counter()
        results = pmap(tasks.add_one, items, executor=executor)
        wall = time.perf_counter() - begin
        extra = memory.peak_rss() - before - size * (8 + INTEGER)
        assert len(results) == size
        assert results[-1] == items[-1] + 1
    return {"extra": extra / 1e6, "seconds": wall}


def large_array(factory: Factory, size: int) -> dict[str, float]:
    """Map over the rows of an array of so many MB."""
    import numpy

    from remote_executor.parallel import pmap

    with factory() as executor:
        warm(executor)
        rows = numpy.ones((size, 125_000))
        memory.reset_peak()
        before, begin = memory.rss(), time.perf_counter()
        sums = pmap(tasks.touch_array, rows, executor=executor)
        wall = time.perf_counter() - begin
        extra = memory.peak_rss() - before
    assert sums == [len(rows[0, ::512])] * size
    return {"extra": extra / 1e6, "seconds": wall}


def _layer_bar(number: str, what: str) -> Bar:
    return Bar(number, what, "of by hand", "plain", 1.05, False, ())


PARALLEL: dict[str, Measure] = {
    "pmap": Measure(
        pmap_abs,
        ("farm", *POOLS),
        1_000_000,
        200_000,
        5,
        (
            Bar(
                "rate",
                "`pmap(abs, range(1_000_000))`, against Pool's best chunksize",
                "items/s",
                "ratio",
                1.0,
                True,
                POOLS,
            ),
        ),
    ),
    "preduce": Measure(
        preduce_array,
        ("farm",),
        10_000_000,
        1_000_000,
        3,
        (
            Bar(
                "of_shipping",
                "`preduce(operator.add, array)` of 10 million float64",
                "of sending it once",
                "plain",
                1.5,
                False,
                (),
            ),
        ),
        touches=1_000_000_000,
    ),
    "channel": Measure(
        channel,
        ("farm",),
        2_000,
        400,
        3,
        (
            Bar(
                "of_bare",
                "round trip through a channel",
                "of submit and result",
                "plain",
                1.2,
                False,
                (),
            ),
        ),
    ),
    "future": Measure(
        futures,
        ("farm",),
        4_000,
        1_000,
        7,
        (_layer_bar("future", "`future(fn)`, against `executor.submit(fn)`"),),
    ),
    "layer": Measure(
        layer,
        ("farm",),
        200_000,
        50_000,
        3,
        (
            _layer_bar("pmap", "`pmap` over a list, against `list(executor.map(...))`"),
            _layer_bar("pmap_into", "`pmap_into` a list, against the same"),
            _layer_bar("preduce", "`preduce` of a list, against two parts by hand"),
        ),
    ),
    "large-list": Measure(
        large_list,
        ("farm",),
        10_000_000,
        1_000_000,
        1,
        (
            Bar(
                "extra",
                "client memory above input and result, `pmap` over 10 million integers",
                "MB",
                "plain",
                200.0,
                False,
                (),
            ),
        ),
        touches=2_000_000_000,
    ),
    "large-array": Measure(
        large_array,
        ("farm",),
        2_000,
        200,
        1,
        (
            Bar(
                "extra",
                "client memory above input and result, `pmap` over an array of 2 GB",
                "MB",
                "plain",
                200.0,
                False,
                (),
            ),
        ),
        touches=4_000_000_000,
    ),
    **NESTED,
}
assert WORKERS == 2, "the parts by hand are two"
