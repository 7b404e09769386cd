"""Importable tasks that make tasks, for the tests of nested work."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import queue
import signal
import threading
import time
from pathlib import Path
from typing import Any

import remote_executor.parallel as p
from remote_executor import FarmExecutor, current_executor, server_worker_index, worker_index


def add(x: int, y: int) -> int:
    return x + y


def total(n: int) -> int:
    """Add up by children, one for each number."""
    ex = current_executor()
    return sum(future.result() for future in [ex.submit(add, i, 0) for i in range(n)])


def grandchildren(n: int) -> int:
    return sum(current_executor().map(total, [n] * n))


def deep(depth: int, **options: Any) -> int:
    """Make a task that makes a task ... and count them."""
    if not depth:
        return 0
    ex = current_executor()
    executor: Any = ex.options(**options) if options else ex  # type: ignore[attr-defined]
    return 1 + executor.submit(deep, depth - 1, **options).result()


def endless(depth: int) -> int:
    return current_executor().submit(endless, depth + 1).result()


def fail(words: str) -> None:
    raise LookupError(words)


def caught(words: str) -> str:
    try:
        current_executor().submit(fail, words).result()
    except LookupError as exc:
        return f"caught {exc}"
    return "nothing was raised"


def not_caught(words: str) -> None:
    current_executor().submit(fail, words).result()


def pid_of_child() -> tuple[int, int]:
    return os.getpid(), current_executor().options(retries=1).submit(os.getpid).result()  # type: ignore[attr-defined]


def record(folder: Path, name: str) -> None:
    with (folder / name).open("a") as file:
        file.write(f"{os.getpid()}\n")


def nap(folder: Path, name: str, seconds: float) -> str:
    """Say that it has begun, sleep, and say that it has ended."""
    record(folder, f"{name} begun")
    time.sleep(seconds)
    record(folder, f"{name} ended")
    return name


def parent_of_naps(folder: Path, count: int, seconds: float) -> list[str]:
    record(folder, "parent begun")
    ex = current_executor()
    futures = [ex.submit(nap, folder, f"child {i}", seconds) for i in range(count)]
    # By wait() none is run here.
    concurrent.futures.wait(futures)
    return [future.result() for future in futures]


def parent_that_dies(folder: Path) -> None:
    ex = current_executor()
    future = ex.submit(nap, folder, "child 0", 30.0)
    begun = folder / "child 0 begun"
    while not (begun.exists() and begun.read_text()):
        time.sleep(0.01)
    assert not future.done()
    os.kill(os.getpid(), signal.SIGKILL)


def leave_child(folder: Path) -> str:
    """Return, and leave a child behind."""
    current_executor().submit(nap, folder, "child 0", 0.05)
    return "left"


def die() -> None:
    os._exit(3)


def wait_for_death() -> str:
    future = current_executor().options(retries=2).submit(die)  # type: ignore[attr-defined]
    concurrent.futures.wait([future])
    return type(future.exception()).__name__


def deep_in_asyncio(depth: int) -> int:
    """Wait in ways of which the library sees nothing."""
    if not depth:
        return 0

    async def main() -> int:
        ex = current_executor()
        loop = asyncio.get_running_loop()
        return 1 + await loop.run_in_executor(ex, deep_in_asyncio, depth - 1)

    return asyncio.run(main())


def deep_in_queues(depth: int) -> int:
    if not depth:
        return 0
    done: queue.Queue[int] = queue.Queue()
    future = current_executor().submit(deep_in_queues, depth - 1)
    future.add_done_callback(lambda each: done.put(each.result()))
    return 1 + done.get()


def in_threads(n: int) -> int:
    """Submit and wait in threads of the task's own."""
    ex = current_executor()
    results: list[int] = []

    def work(i: int) -> None:
        results.append(ex.submit(total, 3).result() + ex.submit(add, i, 0).result())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(results)


def own_farm() -> list[int]:
    with FarmExecutor(1) as ex:
        return list(ex.map(abs, [-1, -2]))


def cancelled() -> tuple[bool, bool]:
    """Cancel a child that waits, and one that runs."""
    ex = current_executor()
    gate = threading.Event()
    running = ex.submit(time.sleep, 0.5)
    while not running.running():
        gate.wait(0.01)
    blocked = [ex.submit(time.sleep, 0.2) for _ in range(4)]
    return blocked[-1].cancel(), running.cancel()


def killed() -> str:
    ex = current_executor()
    future = ex.submit(time.sleep, 30.0)
    while not future.running():
        time.sleep(0.01)
    assert ex.kill(future)  # type: ignore[attr-defined]
    concurrent.futures.wait([future])
    return type(future.exception()).__name__


def callbacks() -> list[int]:
    found: list[int] = []
    ex = current_executor()
    futures = [ex.submit(add, i, i) for i in range(5)]
    for future in futures:
        future.add_done_callback(lambda done: found.append(done.result()))
    concurrent.futures.wait(futures)
    while len(found) < 5:
        time.sleep(0.001)
    return sorted(found)


def completed() -> list[int]:
    ex = current_executor()
    futures = [ex.submit(add, i, i) for i in range(20)]
    return sorted(each.result() for each in concurrent.futures.as_completed(futures))


def timed_out() -> str:
    future = current_executor().submit(time.sleep, 5.0)
    try:
        future.result(timeout=0.2)
    except concurrent.futures.TimeoutError:
        return "in time"
    return "late"


def concurrently(folder: Path, seconds: float) -> None:
    """Note how many run at a time."""
    (folder / f"run {os.getpid()}").touch()
    running = len(list(folder.glob("run *")))
    record(folder, f"seen {running}")
    time.sleep(seconds)
    (folder / f"run {os.getpid()}").unlink()


def many_at_a_time(folder: Path, n: int) -> int:
    ex = current_executor()
    futures = [ex.submit(concurrently, folder, 0.02) for _ in range(n)]
    concurrent.futures.wait(futures)
    for future in futures:
        future.result()
    return n


def indices(depth: int, folder: Path) -> None:
    """Wait at each of some levels, and note by which worker."""
    name = f"{worker_index()} {server_worker_index()}"
    assert not (folder / name).exists()
    (folder / name).touch()
    if depth:
        concurrent.futures.wait([current_executor().submit(indices, depth - 1, folder)])
    (folder / name).rename(folder / f"seen {name}")


def array_of_child(array: Any) -> tuple[Any, bool]:
    """Have a child double a large array: it gets its own."""
    doubled = current_executor().submit(double, array).result()
    return doubled, bool((array == 1).all())


def double(array: Any) -> Any:
    array *= 2
    return array


@p.parallel_function
def fib(n: int) -> int:
    if n < 8:
        time.sleep(0.002)
        return n if n < 2 else fib(n - 1) + fib(n - 2)
    smaller = fib.fork(n - 2)
    return fib(n - 1) + smaller.result()


def forks(folder: Path, n: int) -> int:
    """Have each part note by whom it was done."""
    record(folder, f"worker {os.getpid()}")
    if not n:
        time.sleep(0.02)
        return 1
    forked = p.fork(forks, folder, n - 1)
    return forks(folder, n - 1) + forked.result()


def lambdas(n: int) -> int:
    """Submit a lambda of its own each time."""
    ex = current_executor()
    return sum(each.result() for each in [ex.submit(lambda i=i: i) for i in range(n)])


def cognates(n: int) -> tuple[str, int, list[int], int, bool, int]:
    squares = p.pmap(pow, range(n), [2] * n)
    answer = p.plet(lambda: p.preduce(add, range(n)), lambda: p.psort([3, 1, 2]))
    channel = p.Channel()
    for i in range(3):
        channel.submit(add, i, i)
    came = sum(channel.receive() for _ in range(3))
    found = p.pany(bool, [0, 0, 1])
    forced = p.force(p.future(add, 1, 2))
    assert answer[1] == [1, 2, 3]
    return p.kernel_name(), p.kernel_worker_count(), squares, answer[0] + came, found, forced


def failing_map(n: int) -> list[int]:
    return p.pmap(no_three, range(n))


def no_three(i: int) -> int:
    if i == 3:
        raise LookupError("three")
    return i


def categories(folder: Path) -> None:
    with p.task_category("inner"):
        future = current_executor().submit(nap, folder, "child 0", 30.0)
    concurrent.futures.wait([future])
    future.result()


def shut_down() -> int:
    with current_executor() as ex:
        future = ex.submit(add, 1, 2)
    assert future.done()
    try:
        ex.submit(add, 1, 2)
    except RuntimeError:
        return current_executor().submit(add, 1, 2).result()
    raise AssertionError("it takes tasks after its shutdown")
