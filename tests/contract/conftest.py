"""The executors on which the same tests run, and the kernel around each."""

from __future__ import annotations

from concurrent import futures

import pytest

from remote_executor.parallel.calls import Call
from remote_executor.parallel.kernel import end_kernel, make_kernel
from tests.support import tasks
from tests.support.engines import ENGINES, PARAMS
from tests.support.scale import scaled


def pytest_collection_modifyitems(items):
    """The engines are shared, and start threads and workers when they like: no test leaks those."""
    for item in items:
        if item.path.name.startswith(("test_parallel_", "test_engines")):
            item.add_marker(pytest.mark.no_leak_check("the engine is shared"))


@pytest.fixture(scope="package", params=PARAMS)
def engine(request):
    """Return a running executor with two workers, for all tests of this folder."""
    with ENGINES[request.param]() as executor:
        yield executor


@pytest.fixture
def kernel(engine, tmp_path_factory):
    """Return the current kernel, on each kind of executor, once nothing runs there any more."""
    folder = tmp_path_factory.mktemp("meeting")
    marks = [folder / "one", folder / "other"]
    # Most engines cannot stop what the last test left. Two tasks that meet need both workers.
    meeting = [
        engine.submit(Call(tasks.hold, pair, {})) for pair in (tuple(marks), tuple(marks[::-1]))
    ]
    assert len(futures.wait(meeting, scaled(30)).done) == 2, "the workers are still busy"
    yield make_kernel(engine, name="contract")
    end_kernel()
