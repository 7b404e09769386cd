"""The measurements of how code travels."""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.bars import Bar, Measure

if TYPE_CHECKING:
    from tests.bench.bars import Factory

__all__ = ["CODE"]

DELAY = 0.02
LEVELS = 5


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


CODE: dict[str, Measure] = {
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
