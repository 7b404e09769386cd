"""What code that travels costs: ``python -m tests.bench code``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tests.bench import tasks
from tests.bench.bars import Bar, Measure
from tests.bench.tasks import warm

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.bars import Factory

__all__ = ["CODE"]

TURNS = 5


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


CODE = {
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
                0.5,
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
}
