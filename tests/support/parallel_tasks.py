"""Importable tasks for the tests of ``remote_executor.parallel``."""

from __future__ import annotations

import functools
import operator
import os
import random
import threading
import time
from typing import Any

from remote_executor import FarmExecutor
from remote_executor.parallel import (
    Channel,
    broadcast_task,
    chain,
    check_kernel,
    force,
    fulfill,
    future,
    kernel_name,
    kernel_worker_count,
    make_kernel,
    pmap,
    por,
    preduce,
    promise,
    psort,
    ptree,
    task_priority,
)


class Odd(Exception):
    """What :func:`no_odd` raises."""


def square(x: Any) -> Any:
    return x * x


def sixth(x: int) -> int:
    return 6 // x


def add3(x: Any, y: Any, z: Any) -> Any:
    return x + y + z


def no_odd(x: int) -> int:
    """Return an even number, and raise for an odd one."""
    if x % 2:
        raise Odd(x)
    return x


def stop(x: Any) -> Any:
    raise StopIteration(x)


def fail(x: Any = None) -> Any:
    raise ValueError(f"failed with {x}")


def nap_fail(seconds: float, x: Any) -> Any:
    """Fail after a while."""
    time.sleep(seconds)
    raise ValueError(x)


def late(seconds: float, value: Any) -> Any:
    """Return a value after a while."""
    time.sleep(seconds)
    return value


def both(x: Any, y: Any) -> list[Any]:
    return [x, y]


def chance(_: Any = None) -> float:
    """Return another number each time."""
    return random.random()


def keywords(**kwargs: Any) -> dict[str, Any]:
    return kwargs


def matrix_product(a: Any, b: Any) -> Any:
    """Multiply two 2x2 matrices: associative, and not commutative."""
    (p, q), (r, s) = a
    (t, u), (v, w) = b
    return (p * t + q * v, p * u + q * w), (r * t + s * v, r * u + s * w)


def average(a: float, b: float) -> float:
    """Return the mean: not associative."""
    return (a + b) / 2


def unpicklable(_: Any = None) -> Any:
    """Return what does not travel."""
    return threading.Lock()


def pid(_: Any = None) -> int:
    return os.getpid()


def touch(path: str, value: Any = None) -> Any:
    """Leave a mark that a task ran."""
    with open(path, "a") as file:
        file.write(f"{value}\n")
    return value


# ---------------------------------------------------------------- nested use


def fib(n: int) -> int:
    """Fibonacci by futures inside futures."""
    if n < 2:
        return n
    left = future(fib, n - 1)
    return fib(n - 2) + left.result()


def nested_everything(n: int) -> tuple[Any, ...]:
    """Use cognates, a channel and a promise inside a task."""
    channel = Channel(maxsize=1)
    for i in range(3):
        channel.submit(square, i)
    with task_priority("low"):
        total = preduce(operator.add, range(n))
    tree = ptree()
    tree.define("sum", ["one", "two"], operator.add)
    tree.define("one", [], functools.partial(int, 1))
    tree.define("two", [], functools.partial(int, 2))
    return (
        kernel_name(),
        kernel_worker_count(),
        pmap(square, range(n)),
        total,
        por(functools.partial(int, 0), functools.partial(int, 7)),
        psort([3, 1, 2]),
        sorted(channel),
        force(future(square, n)),
        tree["sum"],
    )


def nested_broadcast() -> Any:
    return broadcast_task(os.getpid)


def own_farm(n: int) -> tuple[str, list[int]]:
    """Make a farm of this worker's own."""
    with make_kernel(1, name="my own"):
        return kernel_name(), pmap(square, range(n))


def own_executor(n: int) -> list[int]:
    with FarmExecutor(1) as executor, executor.as_kernel():
        assert check_kernel().worker_count == 1
        return pmap(square, range(n))


def add_if(path: str, value: Any) -> Any:
    """Return the value plus one if a file is there, and raise otherwise."""
    os.stat(path)
    return value + 1


def chain_to_promise(value: Any) -> Any:
    """Return a chain to a promise that was fulfilled here."""
    box = promise()
    fulfill(box, value)
    return chain(box)
