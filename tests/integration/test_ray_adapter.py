"""RayExecutor on a cluster that is this machine. Without Ray it is skipped."""

from __future__ import annotations

import gc
import threading
import time
import traceback
import weakref
from concurrent import futures

import pytest

from remote_executor import RemoteError
from tests.support import engines, tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

ray = pytest.importorskip("ray", reason="Ray is not installed (pip install ray)")

from remote_executor.adapters.ray import RayExecutor  # noqa: E402

LIMIT = scaled(20)

pytestmark = pytest.mark.no_leak_check("Ray opens connections as it sees fit")


@pytest.fixture(autouse=True)
def _no_thread_left():
    """Fail a test that leaves a thread of ours behind."""
    yield
    ours = [thread for thread in threading.enumerate() if thread.name == "RayExecutor"]
    # That of the engine is not used, and of no concern.
    wait_until(lambda: sum(thread.is_alive() for thread in ours) <= 1)


@pytest.fixture(scope="module")
def shared(_leak_baseline):
    """Return an executor with two workers, on Ray."""
    with engines.ray() as executor:
        yield executor


@pytest.fixture
def executor(shared):
    """Return one of this test's own."""
    with RayExecutor() as executor:
        yield executor


@pytest.fixture
def busy(executor, tmp_path):
    """Return the executor while Ray has all that it takes at a time, and what releases it."""
    release = tmp_path / "release"
    marks = [tmp_path / f"busy{n}" for n in range(3)]
    holding = [executor.submit(tasks.hold, mark, release) for mark in marks]
    wait_until(lambda: sum(mark.exists() for mark in marks) == 2, 20)
    wait_until(lambda: all(future.running() for future in holding))
    yield executor, release.touch
    release.touch()
    futures.wait(holding, LIMIT)


def test_has_a_worker_for_each_cpu(executor):
    assert executor._max_workers == 2
    assert "max_workers=2" in repr(executor)


def test_submit_and_map(executor):
    assert executor.submit(tasks.echo, 1, fn=2, self=3, args=4).result(LIMIT) == (
        (1,),
        {"fn": 2, "self": 3, "args": 4},
    )
    assert list(executor.map(tasks.add, range(20), range(20), timeout=LIMIT)) == [
        2 * n for n in range(20)
    ]


def test_lambdas_travel(executor):
    three = 3

    assert executor.submit(lambda x: x + three, 4).result(LIMIT) == 7


def test_references_arrive_as_they_are(executor):
    reference = ray.put(5)

    (arrived,), _ = executor.submit(tasks.echo, reference).result(LIMIT)

    assert isinstance(arrived, ray.ObjectRef)


def test_exceptions_are_the_tasks_own(executor):
    error = executor.submit(tasks.raise_from).exception(LIMIT)
    expected = _raised(tasks.raise_from)

    assert type(error) is type(expected)
    assert error.args == expected.args
    assert type(error.__cause__) is type(expected.__cause__)
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert "raise_from" in frames
    assert "_call" not in frames


def _raised(fn):
    try:
        fn()
    except Exception as exc:
        return exc
    raise AssertionError("it raises nothing")


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_is_the_tasks_own(executor, kind):
    future = executor.submit(tasks.raise_new, kind)

    assert type(future.exception(LIMIT)) is kind


def test_what_cannot_be_pickled_fails_alone(executor):
    lock = threading.Lock()

    assert type(executor.submit(tasks.same, lock).exception(LIMIT)) is TypeError
    assert type(executor.submit(lambda: threading.Lock()).exception(LIMIT)) is TypeError
    assert executor.submit(tasks.add, 1, 2).result(LIMIT) == 3


def test_an_error_that_cannot_be_rebuilt(executor):
    def fail():
        class Odd(Exception):
            def __reduce__(self):
                return int, ("x",)

        raise Odd("odd")

    assert type(executor.submit(fail).exception(LIMIT)) is RemoteError


def test_a_dead_worker_fails_its_task(executor, tmp_path):
    runs = tmp_path / "runs"

    def die(runs):
        import os

        tasks.append(runs, "x")
        os._exit(3)

    error = executor.submit(die, runs).exception(LIMIT)

    assert isinstance(error, ray.exceptions.RayError)
    assert runs.read_text().split() == ["x"]
    assert executor.submit(tasks.add, 1, 2).result(LIMIT) == 3


def test_cancel_of_what_waits_and_of_what_runs(busy, tmp_path):
    executor, release = busy
    running = executor.submit(tasks.touch, tmp_path / "no")  # behind three

    assert running.cancel()
    release()
    assert executor.submit(tasks.add, 1, 2).result(LIMIT) == 3
    assert futures.wait([running], LIMIT).done == {running}
    assert not (tmp_path / "no").exists()


def test_what_ray_has_is_not_cancelled(executor, tmp_path):
    future = executor.submit(tasks.hold, tmp_path / "mark", tmp_path / "release", 7)
    wait_until(lambda: (tmp_path / "mark").exists(), 20)

    assert not future.cancel()
    (tmp_path / "release").touch()
    assert future.result(LIMIT) == 7


def test_shutdown_waits(shared):
    executor = RayExecutor()
    calls = [executor.submit(tasks.nap, 0.05, n) for n in range(8)]

    executor.shutdown()
    executor.shutdown()

    assert [future.done() for future in calls] == [True] * 8
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(tasks.nothing)


def test_shutdown_cancels(busy, tmp_path):
    executor, release = busy
    waiting = [executor.submit(tasks.touch, tmp_path / "no") for _ in range(4)]

    executor.shutdown(wait=False, cancel_futures=True)

    assert futures.wait(waiting, LIMIT).done == set(waiting)
    assert all(future.cancelled() for future in waiting)
    release()
    executor.shutdown()
    assert not (tmp_path / "no").exists()


def test_a_callback_may_submit_and_shut_down(shared):
    executor = RayExecutor()
    more = []

    def called(future):
        more.append(executor.submit(tasks.add, future.result(), 1))
        executor.shutdown()

    executor.submit(tasks.add, 1, 1).add_done_callback(called)
    wait_until(lambda: more, 20)

    assert more[0].result(LIMIT) == 3


def test_a_dropped_executor_ends_its_thread(shared):
    executor = RayExecutor()
    thread = executor._thread
    gone = weakref.ref(executor)
    future = executor.submit(tasks.add, 1, 2)

    del executor
    gc.collect()

    assert gone() is None
    assert future.result(LIMIT) == 3
    thread.join(LIMIT)
    assert not thread.is_alive()


def test_results_are_not_kept(executor):
    future = executor.submit(set)
    kept = weakref.ref(future)
    assert future.result(LIMIT) == set()

    del future

    wait_until(lambda: kept() is None)


def test_a_task_may_use_an_executor_of_its_own(executor):
    def nested(n):
        with RayExecutor(1, num_cpus=0) as inner:  # the outer tasks have all CPUs
            return inner.submit(tasks.add, n, 1).result()

    assert list(executor.map(nested, range(4), timeout=scaled(40))) == [1, 2, 3, 4]


def test_options_are_rays(shared):
    with RayExecutor(3, num_cpus=0.5) as executor:
        start = time.monotonic()
        assert list(executor.map(tasks.nap, [0.1] * 3, range(3), timeout=LIMIT)) == [0, 1, 2]
        assert time.monotonic() - start < LIMIT


@pytest.mark.parametrize("workers", [0, -1])
def test_too_few_workers(shared, workers):
    with pytest.raises(ValueError, match="greater than 0"):
        RayExecutor(workers)


def test_not_callable(executor):
    with pytest.raises(TypeError, match="callable"):
        executor.submit(3)


def test_needs_ray_to_run(run_script):
    code, _, errors = run_script(
        """
        from remote_executor.adapters.ray import RayExecutor

        RayExecutor()
    """.replace("\n        ", "\n")
    )

    assert code == 1
    assert "call ray.init() first" in errors
