"""The executors on which the same tests run, and the kernel around each."""

from __future__ import annotations

import collections
from concurrent import futures

import pytest

from remote_executor.parallel.calls import Call
from remote_executor.parallel.kernel import end_kernel, make_kernel
from tests.support import tasks
from tests.support.engines import ENGINES, OTHERS, PARAMS
from tests.support.scale import ALL_PARAMETERS, scaled


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """
    Spare the tests on shared engines the leak check: those start threads as they see fit.

    The engines of others are slow, and run each test with at most two of its sets of parameters,
    unless REMOTE_EXECUTOR_ALL_PARAMETERS=1 asks for all.
    """
    if not ALL_PARAMETERS:
        seen = collections.Counter()
        kept = []
        for item in items:
            engine = getattr(item, "callspec", None) and item.callspec.params.get("engine")
            if engine in OTHERS:
                seen[item.path, item.originalname, engine] += 1
            if engine not in OTHERS or seen[item.path, item.originalname, engine] <= 2:
                kept.append(item)
        items[:] = kept
    for item in items:
        if "engine" in getattr(item, "fixturenames", ()):
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
        engine.submit(Call(tasks.meet, pair, {})) for pair in (tuple(marks), tuple(marks[::-1]))
    ]
    assert len(futures.wait(meeting, scaled(30)).done) == 2, "the workers are still busy"
    yield make_kernel(engine, name="contract")
    end_kernel()
