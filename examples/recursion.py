"""
Recursions that spread over the workers which are idle, and are plain calls while none is.

Each function forks the smaller part of its work and does the larger one itself. What was forked and
has not begun when its result is wanted is called there and then, so that nobody waits for nothing.
Where little is left to do a plain function goes on: a task is not worth it. ::

    python examples/recursion.py                                # a local server of its own
    python examples/recursion.py --servers node1:11111,node2    # servers that run already
    python examples/recursion.py --folder /usr/share
"""

from __future__ import annotations

import argparse
import os
import random
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import remote_executor.parallel as p
from remote_executor import FarmExecutor


def plain_fib(n: int) -> int:
    """Return the n-th Fibonacci number, the slow way."""
    return n if n < 2 else plain_fib(n - 1) + plain_fib(n - 2)


@p.parallel_function
def fib(n: int) -> int:
    """Return the n-th Fibonacci number, the slow way, by all who have nothing to do."""
    if n < 16:
        return plain_fib(n)
    smaller = fib.fork(n - 2)
    return fib(n - 1) + smaller.result()


@p.parallel_function
def quicksort(items: list[float]) -> list[float]:
    """Return the items sorted."""
    if len(items) < 20_000:
        return sorted(items)
    pivot = sorted(random.sample(items, 9))[4]
    low = [item for item in items if item < pivot]
    high = [item for item in items if item > pivot]
    middle = [pivot] * (len(items) - len(low) - len(high))
    if len(low) < len(high):
        sorted_low = quicksort.fork(low)
        sorted_high = quicksort(high)
        return sorted_low.result() + middle + sorted_high
    forked = quicksort.fork(high)
    return quicksort(low) + middle + forked.result()


@p.parallel_function
def queens(n: int, row: int = 0, columns: int = 0, left: int = 0, right: int = 0) -> int:
    """Return in how many ways n queens can stand on a board, none in reach of another."""
    if row == n:
        return 1
    free = ~(columns | left | right) & ((1 << n) - 1)
    counts, forks = 0, []
    while free:
        bit = free & -free
        free ^= bit
        rest = row + 1, columns | bit, (left | bit) << 1, (right | bit) >> 1
        if row < 2 and free:
            forks.append(queens.fork(n, *rest))
        else:
            counts += queens(n, *rest)
    return counts + sum(each.result() for each in forks)


@p.parallel_function
def walk(folder: str) -> tuple[int, int]:
    """Return how many files there are in a folder and all below, and how many bytes they have."""
    files = size = 0
    below = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.append(walk.fork(entry.path))
            elif entry.is_file(follow_symlinks=False):
                files += 1
                size += entry.stat(follow_symlinks=False).st_size
    for each in below:
        more, bytes_more = each.result()
        files, size = files + more, size + bytes_more
    return files, size


def show(ex: FarmExecutor, what: str, fn: Callable[..., Any], *args: Any) -> Any:
    """Run one of the functions on the farm, and print how long it takes."""
    begin = time.perf_counter()
    result = ex.submit(fn, *args).result()
    print(f"{what}: {time.perf_counter() - begin:.2f} s")
    return result


def main() -> None:
    """Run all four."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--servers", help="addresses, with commas between")
    parser.add_argument("--folder", type=Path, default=Path(sysconfig.get_path("stdlib")))
    given = parser.parse_args()
    servers = given.servers.split(",") if given.servers else None
    with FarmExecutor(addresses=servers) as ex:
        ex.wait_for_workers()
        print("  ", show(ex, "fib(27)", fib, 27))
        numbers = [random.random() for _ in range(300_000)]
        assert show(ex, "quicksort of 300,000 numbers", quicksort, numbers) == sorted(numbers)
        print("  ", show(ex, "8 queens", queens, 8))
        files, size = show(ex, f"walk of {given.folder}", walk, str(given.folder))
        print(f"   {files} files, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
