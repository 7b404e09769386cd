"""Kernels, channels, promises and maps on a farm: what other engines cannot do."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import threading
import time
from array import array
from concurrent import futures

import pytest

from remote_executor import NoKernelError, TaskKilled, WorkerDied
from remote_executor.parallel import (
    Channel,
    broadcast_task,
    check_kernel,
    end_kernel,
    force,
    future,
    kernel_name,
    kernel_worker_count,
    kill_tasks,
    make_kernel,
    pand,
    pdotimes,
    plet,
    pmap,
    pmap_into,
    speculate,
    task_categories_running,
    task_category,
    task_priority,
)
from tests.support import parallel_tasks, tasks
from tests.support.faults import wait_gone
from tests.support.scale import scaled
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

LIMIT = scaled(20)


# ------------------------------------------------------------------------- kernels


def test_a_number_of_workers_of_its_own():
    with make_kernel(2, name="mine") as kernel:
        assert (kernel_name(), kernel_worker_count()) == ("mine", 2)
        assert kernel.executor._max_workers == 2
        assert pmap(abs, [-1, 2]) == [1, 2]
    with pytest.raises(NoKernelError):
        check_kernel()


def test_addresses_of_servers(addresses):
    make_kernel(addresses, name="two servers")
    try:
        check_kernel().executor.wait_for_workers(2, LIMIT)
        assert kernel_worker_count() == 2
        assert len(set(broadcast_task(tasks.pid))) == 2
    finally:
        end_kernel(wait=True)


def test_an_initializer_makes_the_context():
    """K80, K81: its values are in each worker; the client's are not touched."""
    with make_kernel(2, initializer=tasks.set_state, initargs=("context", 99)):
        assert broadcast_task(tasks.get_state, "context") == [99, 99]
        assert pmap(tasks.get_state, ["context"] * 10) == [99] * 10
    assert tasks.get_state("context") is None


def test_what_a_broadcast_sets_stays(embedded):
    """K98: it is seen by all later tasks, also with a thousand of them queued."""
    with embedded.as_kernel():
        channel = Channel()
        for n in range(1000):
            channel.submit(abs, -n)
        broadcast_task(tasks.set_state, "broadcast", 99)
        assert pmap(tasks.get_state, ["broadcast"] * 20, parts=20) == [99] * 20
        assert sorted(channel) == list(range(1000))
        assert broadcast_task(tasks.add, 2, 3) == [5, 5]


def test_many_kernels_leave_nothing():
    """The check for leaks looks at threads, processes and descriptors after the test."""
    for n in range(20):
        kernel = make_kernel(1)
        assert pmap(abs, [-n]) == [n]
        kernel.end(wait=True)


def test_the_block_has_its_executor(embedded):
    with embedded.as_kernel() as same:
        assert same is embedded
        assert check_kernel().executor is embedded
        view = embedded.options(priority="high")
        with view.as_kernel():
            assert check_kernel().executor is view
            assert pmap(abs, [-1]) == [1]
            assert kill_tasks("nobody") == 0
            with task_priority("low"), task_category("other"):
                assert future(abs, -2).result(LIMIT) == 2
        assert check_kernel().executor is embedded
        with make_kernel(futures.ThreadPoolExecutor(1)) as inner:
            assert check_kernel() is inner  # the last one counts, for the rest of the block
            inner.executor.shutdown()
    with pytest.raises(NoKernelError):
        check_kernel()


def test_a_block_is_nobody_elses(embedded):
    """Another thread and another asyncio task have their own; what runs in a task inherits."""

    def has_kernel():
        try:
            check_kernel()
        except NoKernelError:
            return False
        return True

    async def entered(event):
        with embedded.as_kernel():
            event.set()
            await asyncio.sleep(0)
            return await asyncio.wrap_future(future(abs, -3)), has_kernel()

    async def beside(event):
        await event.wait()
        return has_kernel()

    async def main():
        event = asyncio.Event()
        return await asyncio.gather(entered(event), beside(event))

    with embedded.as_kernel(), futures.ThreadPoolExecutor(1) as threads:
        assert not threads.submit(has_kernel).result(LIMIT)
    assert asyncio.run(main()) == [(3, True), False]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_no_kernel(embedded):
    """It could not use its parent's."""
    make_kernel(embedded)
    try:
        with embedded.as_kernel():
            child = os.fork()
            if child == 0:
                code = 1
                with contextlib.suppress(NoKernelError):
                    check_kernel()
                    code = 2
                os._exit(code + 10)
            _, status = os.waitpid(child, 0)
    finally:
        end_kernel()

    assert os.waitstatus_to_exitcode(status) == 11


# ---------------------------------------------------------------------- priorities


def test_a_speculation_waits_behind_later_futures(tmp_path):
    """P12, P16: and it is a future like others."""
    runs, release = tmp_path / "runs", tmp_path / "release"
    with make_kernel(1):
        future(tasks.hold, tmp_path / "started", release)
        wait_until((tmp_path / "started").exists)
        perhaps = speculate(tasks.record, runs, "speculation")
        surely = [future(tasks.record, runs, "future") for _ in range(3)]
        release.touch()
        futures.wait([perhaps, *surely], LIMIT)

        assert isinstance(perhaps, futures.Future)
        assert runs.read_text().split() == ["future"] * 3 + ["speculation"]


# ----------------------------------------------------------------- killed and dead


def test_a_future_whose_worker_dies(own):
    """P23: it raises at every force, and the farm goes on."""
    with own.as_kernel():
        found = future(tasks.kill_self)
        for _ in range(2):
            with pytest.raises(WorkerDied, match="SIGKILL"):
                force(found, LIMIT)
        assert force(future(abs, -1)) == 1


def test_killed_cancelled_and_dead_tasks_deliver(own, tmp_path):
    """A counted loop over a channel never hangs."""
    with own.as_kernel():
        channel = Channel()
        with task_category("etl"):
            for name in "ab":
                channel.submit(tasks.hold, tmp_path / name, tmp_path / "never")
        wait_until(lambda: task_categories_running() == ["etl", "etl"])
        waiting = channel.submit(abs, 1)
        assert waiting.cancel()
        assert kill_tasks("etl", dry_run=True) == 2
        assert kill_tasks("etl") == 2
        channel.submit(tasks.kill_self)
        channel.submit(abs, -5)
        errors = []
        for _ in range(5):
            try:
                assert channel.receive() == 5
            except (futures.CancelledError, TaskKilled, WorkerDied) as exc:
                errors.append(type(exc))

    assert sorted(errors, key=lambda kind: kind.__name__) == [
        futures.CancelledError,
        TaskKilled,
        TaskKilled,
        WorkerDied,
    ]


# ------------------------------------------------------------- stopped on the server


def holder(folder):
    """Return a function that tells the worker's pid and then takes for ever."""
    return functools.partial(_hold_one, folder / "told", folder / "never")


def _hold_one(told, never, item):
    return tasks.tell_and_hold(told, never) if item == 5 else item


@pytest.mark.parametrize(
    "use",
    [
        lambda fn, **options: pmap(fn, range(10), **options),
        lambda fn, **options: pmap(fn, range(10), parts=5, **options),
        lambda fn, **options: pmap(fn, iter(range(10)), buffersize=8, **options),
        lambda fn, **options: pmap(lambda x, y: fn(y), range(10), range(10), **options),
        lambda fn, **options: pdotimes(10, fn, **options),
        lambda fn, **options: pmap_into([0] * 10, fn, range(10), **options),
        lambda fn, **options: plet(int, functools.partial(fn, 5), **options),
        lambda fn, **options: pand(functools.partial(fn, 5), **options),
    ],
)
def test_a_timeout_stops_the_work(own, tmp_path, use):
    fn = holder(tmp_path)
    own.broadcast(fn, 0)  # the time is for the work, not for workers that start and import
    with pytest.raises(futures.TimeoutError):
        use(fn, timeout=scaled(0.5), executor=own)

    wait_gone([int((tmp_path / "told").read_text())], LIMIT)
    assert pmap(abs, range(3), executor=own) == [0, 1, 2]


INTERRUPTED = """
import sys
from remote_executor.parallel import make_kernel, pmap
from tests.support import tasks

if __name__ == "__main__":
    told, never, more = sys.argv[1] + "/told", sys.argv[1] + "/never", eval(sys.argv[2])
    with make_kernel(2):
        try:
            pmap(lambda item: tasks.tell_and_hold(told, never) if item == 5 else item, range(10),
                 **more)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print(pmap(abs, range(3)), flush=True)
"""


@pytest.mark.parametrize("more", ["{}", "dict(parts=5)", "dict(buffersize=8)"])
def test_an_interrupt_stops_the_work(start_script, tmp_path, more):
    """The worker is ended though its task would go on for ever; the kernel is as good as before."""
    script = start_script(INTERRUPTED, args=[tmp_path, more])
    wait_until((tmp_path / "told").exists, 20)
    os.killpg(script.process.pid, signal.SIGINT)
    wait_gone([int((tmp_path / "told").read_text())], LIMIT)

    assert script.finish() == (0, "interrupted\n[0, 1, 2]\n", "")


def test_nothing_is_written_if_a_worker_dies(own):
    target = array("d", range(4))
    with pytest.raises(WorkerDied):
        pmap_into(target, _die_at_the_last, range(4), executor=own)

    assert list(target) == [0, 1, 2, 3]


def _die_at_the_last(item):
    if item == 3:
        tasks.kill_self()
    return item + 1


# ---------------------------------------------------------------------- nested use


def test_a_worker_may_have_a_farm_of_its_own(own):
    """C49, P20: then that is the kernel there."""
    found = [own.submit(parallel_tasks.own_farm, 4) for _ in range(2)]
    for each in found:
        assert each.result(LIMIT) == ("my own", [0, 1, 4, 9])
    assert own.submit(parallel_tasks.own_executor, 3).result(LIMIT) == [0, 1, 4]
    assert own.submit(parallel_tasks.own_farm, 2).result(LIMIT)[1] == [0, 1]


def test_cognates_in_a_pools_only_worker():
    """C49, P20: submitted to the pool itself, not by a kernel."""
    with futures.ThreadPoolExecutor(1) as pool:
        make_kernel(pool)  # the process's: a thread of the pool is in no block of ours
        try:
            assert pool.submit(pmap, abs, [-1, 2]).result(LIMIT) == [1, 2]
        finally:
            end_kernel()
        with make_kernel(pool), pytest.raises(NoKernelError):
            pool.submit(pmap, abs, [-1, 2]).result(LIMIT)
        assert pool.submit(pmap, abs, [-1, 2], executor=pool).result(LIMIT) == [1, 2]
    with futures.ProcessPoolExecutor(1) as pool, make_kernel(pool):
        with pytest.raises(NoKernelError):
            pool.submit(pmap, abs, [-1, 2]).result(LIMIT)


def test_a_callback_does_not_wait_for_its_own_executor(embedded, tmp_path):
    """It raises at once where it would deadlock."""
    said = []

    def callback(_):
        for use in (
            lambda: pmap(abs, [1], executor=embedded),
            lambda: pmap(abs, [1], parts=1, executor=embedded),
            lambda: plet(int, executor=embedded),
            lambda: force(embedded.submit(abs, 1)),
        ):
            try:
                use()
            except RuntimeError as exc:
                said.append(str(exc))

    running = embedded.submit(tasks.hold, tmp_path / "started", tmp_path / "release")
    running.add_done_callback(callback)  # a finished future would call it here
    (tmp_path / "release").touch()
    wait_until(lambda: len(said) == 4)

    assert all("callback" in words for words in said)


# --------------------------------------------------------------------- large lists


def test_batches_follow_the_measured_time(embedded):
    """A hundred thousand items are not a hundred thousand messages."""
    started = time.perf_counter()
    assert pmap(abs, range(-100_000, 0), executor=embedded) == list(range(100_000, 0, -1))
    assert time.perf_counter() - started < scaled(10)


def test_other_threads_use_it_meanwhile(embedded):
    """Maps of several threads are mixed, and none is confused with another."""
    with futures.ThreadPoolExecutor(4) as threads:
        found = list(
            threads.map(lambda n: pmap(n.__add__, range(5_000), executor=embedded), range(8))
        )

    assert found == [list(range(n, 5_000 + n)) for n in range(8)]
    assert threading.active_count() < 20
