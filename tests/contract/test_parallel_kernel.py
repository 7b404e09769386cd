"""The kernel, on every engine."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor, TimeoutError

import pytest

from remote_executor import NoKernelError, UnsupportedError
from remote_executor.parallel import (
    Channel,
    broadcast_task,
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
    task_priority,
)
from remote_executor.parallel.kernel import Farm
from tests.support import parallel_tasks as tasks
from tests.support.scale import scaled

LIMIT = scaled(30)


@pytest.fixture
def no_kernel():
    end_kernel()


def test_make_kernel_around_an_executor(kernel, engine):
    assert kernel_name() == "contract"
    assert kernel_worker_count() >= 1
    assert check_kernel() is kernel
    assert kernel.executor is engine
    assert "contract" in repr(kernel)
    assert future(tasks.square, 3).result(LIMIT) == 9


def test_an_executor_that_exists_takes_no_options(engine, no_kernel):
    with pytest.raises(TypeError, match="initializer"):
        make_kernel(engine, initializer=print)


def test_a_kernel_ends_twice_and_its_given_executor_goes_on(engine):
    """K56, K57: submitting after the end is an error, ending twice is none."""
    kernel = make_kernel(engine)
    channel = Channel()

    end_kernel(wait=True)
    end_kernel()
    kernel.end()

    with pytest.raises(RuntimeError, match="was ended"):
        kernel.submit(abs, 1)
    with pytest.raises(RuntimeError, match="was ended"):
        channel.submit(abs, 1)
    with pytest.raises(NoKernelError):
        future(abs, 1)
    assert make_kernel(engine).submit(abs, -1).result(LIMIT) == 1
    end_kernel()


@pytest.mark.parametrize(
    "use",
    [
        check_kernel,
        kernel_name,
        kernel_worker_count,
        Channel,
        task_categories_running,
        lambda: future(abs, 1),
        lambda: pmap(abs, [1]),
        lambda: kill_tasks("x"),
        lambda: broadcast_task(abs, 1),
    ],
)
def test_without_a_kernel_the_error_says_how_to_make_one(no_kernel, use):
    """K42, K72, K99."""
    with pytest.raises(NoKernelError, match=r"make_kernel\(4\)"):
        use()


def test_what_is_no_executor_is_refused(no_kernel):
    with pytest.raises(TypeError, match="executor must be"):
        Channel(executor=42)


def test_as_a_block(engine, no_kernel):
    with make_kernel(engine, name="block") as kernel:
        assert check_kernel() is kernel
    with pytest.raises(NoKernelError):
        check_kernel()


def test_threads_see_the_processs_kernel(kernel):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(check_kernel()))
    thread.start()
    thread.join(LIMIT)

    assert seen == [kernel]


def test_keywords_are_all_the_tasks(kernel):
    """Engines that take options of their own from the keywords do not see ours."""
    given = {"key": 1, "workers": 2, "retries": 3, "priority": 4, "pure": True, "fn": 6, "self": 7}

    assert kernel.submit(tasks.keywords, **given).result(LIMIT) == given


def test_equal_calls_are_not_one(kernel):
    futures = [kernel.submit(tasks.chance) for _ in range(10)]

    assert len({future.result(LIMIT) for future in futures}) == 10
    assert len(set(pmap(tasks.chance, [0] * 10))) == 10


def test_what_is_not_callable_is_refused_at_once(kernel):
    """K23, K99."""
    with pytest.raises(TypeError, match="callable"):
        kernel.submit(42)


def test_priorities_and_categories_are_accepted_and_nothing_is_lost(kernel):
    """K51, K83."""
    channel = Channel()
    with task_priority("low"), task_category("etl"):
        for number in range(100):
            channel.submit(abs, -number)
    with task_priority(5), task_category(("any", "hashable")):
        channel.submit(abs, -100)

    assert sorted(channel.receive_many(101)) == list(range(101))


@pytest.mark.parametrize("wrong", ["urgent", None, 1.5])
def test_wrong_priorities(kernel, wrong):
    with pytest.raises((ValueError, TypeError)), task_priority(wrong):
        pass


@pytest.mark.parametrize("wrong", [None, []])
def test_wrong_categories(kernel, wrong):
    with pytest.raises((ValueError, TypeError)), task_category(wrong):
        pass


def test_kill_and_broadcast_where_the_engine_can(kernel, engine):
    if isinstance(engine, Farm):
        assert kill_tasks("nobody") == 0
        assert len(task_categories_running()) == 2
        assert len(set(broadcast_task(os.getpid))) == 2
        with pytest.raises(ValueError, match="None"):
            kill_tasks(None)
        with pytest.raises(TypeError, match="callable"):
            broadcast_task(42)
        with pytest.raises(ValueError, match="failed with 5"):
            broadcast_task(tasks.fail, 5)
        return
    for use in (
        lambda: kill_tasks("nobody"),
        task_categories_running,
        lambda: broadcast_task(os.getpid),
    ):
        with pytest.raises(UnsupportedError, match="a FarmExecutor can"):
            use()


# ---------------------------------------------------------------------- nested use


def test_inside_a_task_the_kernel_is_serial(kernel):
    """C49, P20, K82: all of them at once fill the workers, and nobody waits for another."""
    futures = [kernel.submit(tasks.nested_everything, 6) for _ in range(8)]

    for each in futures:
        assert each.result(LIMIT) == (
            "serial",
            1,
            [0, 1, 4, 9, 16, 25],
            15,
            7,
            [1, 2, 3],
            [0, 1, 4],
            36,
            3,
        )


def test_futures_inside_futures(kernel):
    """P20."""
    assert future(tasks.fib, 10).result(LIMIT) == 55


def test_broadcast_inside_a_task_is_an_error(kernel):
    """K99."""
    with pytest.raises(UnsupportedError, match="a task cannot broadcast"):
        kernel.submit(tasks.nested_broadcast).result(LIMIT)


def test_cognates_inside_cognates(kernel):
    assert pmap(tasks.fib, [3, 4, 5]) == [2, 3, 5]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("4", r"what='4' is no address: .*make_kernel\(4\)"),
        (" 4 ", "is no address"),
        ("-1", "is no address"),
        (True, "what must be a number of workers .*, not True"),
        (2.0, "what must be a number of workers .*, not 2.0"),
        (0, "what must be at least 1 worker, not 0"),
        (-3, "what must be at least 1 worker, not -3"),
        (ThreadPoolExecutor, "what must be an executor, not the class ThreadPoolExecutor: call it"),
        ([], "address"),
        ([2], "address"),
    ],
)
def test_what_no_kernel_can_be_made_of(no_kernel, what, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make_kernel(what)
    with pytest.raises(NoKernelError):
        check_kernel()


def test_a_kernel_is_not_made_of_a_kernel(kernel):
    with pytest.raises(TypeError, match="what must be an executor, not <Kernel"):
        make_kernel(kernel)


def test_waiting_for_workers(kernel):
    assert kernel.wait() == kernel.wait(1) == kernel.wait(2, timeout=LIMIT) == 2
    for wrong in (0, -1, True, "2"):
        with pytest.raises((TypeError, ValueError), match="n must"):
            kernel.wait(wrong)
    expected = ValueError if kernel.farm is None else TimeoutError
    with pytest.raises(expected, match="99"):
        kernel.wait(99, timeout=0.1)
    kernel.end()
    with pytest.raises(NoKernelError, match="ended"):
        kernel.wait(1)
