"""Blocks nest: a kernel of a ``with`` is for its block, thread and asyncio task."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from remote_executor import NoKernelError, TaskKilled
from remote_executor.client.current import AsKernel
from remote_executor.parallel import (
    check_kernel,
    end_kernel,
    future,
    kernel_name,
    kernel_worker_count,
    kill_tasks,
    make_kernel,
    pmap,
    task_categories_running,
    task_category,
)
from tests.support import tasks as farm_tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(30)


@pytest.fixture
def no_kernel():
    end_kernel()
    yield
    with pytest.raises(NoKernelError):
        check_kernel()


def in_a_thread(call):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(LIMIT)


def test_the_outer_kernel_is_current_again_after_the_inner_block(engine, no_kernel):
    with make_kernel(engine, name="outer"):
        with make_kernel(engine, name="inner"):
            assert kernel_name() == "inner"
        assert kernel_name() == "outer"
        assert pmap(abs, [-1, 2]) == [1, 2]


def test_three_blocks_and_an_error_between_them(engine, no_kernel):
    with make_kernel(engine, name="one"):
        with contextlib.suppress(ZeroDivisionError), make_kernel(engine, name="two"):
            with make_kernel(engine, name="three"):
                assert kernel_name() == "three"
            assert kernel_name() == "two"
            raise ZeroDivisionError
        assert kernel_name() == "one"


def test_a_block_leaves_the_kernel_of_the_process_alone(engine, no_kernel):
    make_kernel(engine, name="of the process")
    with make_kernel(engine, name="of the block"):
        assert kernel_name() == "of the block"
        assert in_a_thread(kernel_name) == "of the process"
    assert kernel_name() == "of the process"
    end_kernel()


def test_a_block_within_one_of_an_executor(engine, no_kernel):
    with AsKernel(engine):
        before = check_kernel()
        with make_kernel(engine, name="inner"):
            assert kernel_name() == "inner"
        assert check_kernel() is before


def test_a_bare_call_within_a_block_holds_until_its_end(engine, no_kernel):
    with make_kernel(engine, name="block"):
        make_kernel(engine, name="bare")
        assert kernel_name() == "bare"
        with pytest.raises(NoKernelError):
            in_a_thread(kernel_name)


def test_threads_in_blocks_of_their_own_do_not_meet(engine, no_kernel):
    both = threading.Barrier(2, timeout=LIMIT)
    seen = {}

    def use(name):
        for round in range(20):
            with make_kernel(engine, name=f"{name}{round}"):
                both.wait()
                seen.setdefault(name, []).append(kernel_name())
                both.wait()

    threads = [threading.Thread(target=use, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)

    assert seen == {name: [f"{name}{round}" for round in range(20)] for name in "ab"}


def test_asyncio_tasks_in_blocks_of_their_own_do_not_meet(engine, no_kernel):
    async def use(name):
        with make_kernel(engine, name=name):
            await asyncio.sleep(0)
            first = kernel_name()
            await asyncio.sleep(0)
            return first, kernel_name()

    async def all_of_them():
        return await asyncio.gather(*(use(name) for name in "abc"))

    assert asyncio.run(all_of_them()) == [(name, name) for name in "abc"]


def test_an_end_in_another_thread_does_not_end_the_kernel_of_a_block(engine, no_kernel):
    with make_kernel(engine, name="block"):
        in_a_thread(end_kernel)
        assert future(abs, -3).result(LIMIT) == 3


def test_a_kernel_that_was_used_may_begin_a_block_later(engine, no_kernel):
    kernel = make_kernel(engine, name="late")
    assert pmap(abs, [-1]) == [1]
    with kernel:
        assert kernel_name() == "late"
    with pytest.raises(NoKernelError):
        check_kernel()


def test_a_block_may_end_in_another_context_than_it_began_in(engine, no_kernel):
    kernel = make_kernel(engine)
    contextvars.copy_context().run(kernel.__enter__)

    kernel.__exit__(None, None, None)

    with pytest.raises(RuntimeError, match="was ended"):
        kernel.submit(abs, 1)
    end_kernel()


def test_a_replaced_kernel_is_not_kept_alive(engine):
    import gc
    import weakref

    first = weakref.ref(make_kernel(engine, name="first"))
    make_kernel(engine, name="second")
    assert kernel_name() == "second"
    gc.collect()

    assert first() is None
    end_kernel()


def test_while_a_kernel_finishes_others_ask_what_runs_and_kill_it(tmp_path, no_kernel):
    started, release = tmp_path / "started", tmp_path / "release"
    kernel = make_kernel(1)
    with task_category("etl"):
        task = future(farm_tasks.tell_and_hold, started, release)
    farm_tasks.wait_for(started)
    ending = threading.Thread(target=end_kernel, kwargs={"wait": True})
    ending.start()
    wait_until(lambda: kernel.finishing)

    assert wait_until(lambda: "etl" in task_categories_running())
    assert kernel_worker_count() == 1
    with pytest.raises(NoKernelError, match="was ended"):
        future(abs, 1)
    assert kill_tasks("etl") == 1

    ending.join(LIMIT)
    assert not ending.is_alive()
    with pytest.raises(TaskKilled):
        task.result(LIMIT)
