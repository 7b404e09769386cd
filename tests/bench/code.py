"""The measurements of how code travels."""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench import tasks
from tests.bench.bars import Bar, Measure
from tests.bench.tasks import warm

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.bars import Factory

__all__ = ["CODE"]

DELAY = 0.02
LEVELS = 5
TURNS = 5


def first_import(factory: Factory, size: int) -> dict[str, float]:
    """Import a package of the client's in a worker, over a link that takes 20 ms each way."""
    from remote_executor import FarmExecutor, start_server
    from tests.support.delay import DelayedLink
    from tests.support.packages import Questions, write_package

    with (
        tempfile.TemporaryDirectory() as folder,
        start_server("127.0.0.1", 0, workers=1) as server,
        DelayedLink(str(server.address), DELAY) as link,
        FarmExecutor(addresses=[link.address]) as executor,
    ):
        questions = Questions(executor)
        executor.submit(abs, -1).result()
        begin = time.perf_counter()
        executor.submit(abs, -1).result()
        usual = time.perf_counter() - begin
        write_package(Path(folder), "bench_own", LEVELS, size)
        sys.path.insert(0, folder)
        count = importlib.import_module("bench_own").count
        begin = time.perf_counter()
        assert executor.submit(count).result() == size
        seconds = time.perf_counter() - begin - usual
    return {"seconds": seconds, "questions": questions.count / LEVELS}


def same_lambda(factory: Factory, size: int) -> dict[str, float]:
    """Submit an importable function and a lambda again and again, in turn; wait for all."""
    with factory() as executor:
        warm(executor)
        step = 1
        functions = {"importable": tasks.add_one, "lambda": lambda number: number + step}
        submit = dict.fromkeys(functions, 0.0)
        whole = dict.fromkeys(functions, 0.0)
        for function in functions.values():
            _submit_all(executor, function, size // 10)
        for _ in range(TURNS):
            for name, function in functions.items():
                sending, all_of_it = _submit_all(executor, function, size // TURNS)
                submit[name] += sending
                whole[name] += all_of_it
    return {
        "submit": submit["importable"] / submit["lambda"],
        "whole": whole["importable"] / whole["lambda"],
        "rate": size / whole["lambda"],
    }


def _submit_all(executor: Any, function: Callable[[int], int], count: int) -> tuple[float, float]:
    """Return the seconds until all were submitted, and until all were done."""
    start = time.perf_counter()
    futures = [executor.submit(function, number) for number in range(count)]
    submitted = time.perf_counter() - start
    for number, future in enumerate(futures):
        assert future.result() == number + 1
    return submitted, time.perf_counter() - start


CODE: dict[str, Measure] = {
    "lambda": Measure(
        same_lambda,
        ("farm", "farm-tcp"),
        50_000,
        5_000,
        3,
        (
            Bar(
                "submit",
                "`submit` of the same lambda, against an importable function",
                "of the rate",
                "plain",
                0.8,
                True,
            ),
            Bar(
                "whole",
                "the same, until all are done",
                "of the rate",
                "plain",
                0.5,
                True,
            ),
            Bar(
                "whole",
                "the same over TCP, until all are done",
                "of the rate",
                "plain",
                0.5,
                True,
                (),
                "farm-tcp",
            ),
        ),
    ),
    "first-import": Measure(
        first_import,
        ("farm",),
        50,
        50,
        5,
        (
            Bar(
                "seconds",
                "first import of a 50-module package over a link with 20 ms delay",
                "s",
                "plain",
                2.0,
                False,
                (),
            ),
            Bar(
                "questions",
                "round trips for that, per package level",
                "round trips",
                "plain",
                3.0,
                False,
                (),
            ),
        ),
    ),
}
