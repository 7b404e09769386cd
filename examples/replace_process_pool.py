"""
A script written for ``ProcessPoolExecutor``, with one import changed.

Before, its first import said ``from concurrent.futures import ProcessPoolExecutor``. Nothing else
had to change: ``initializer``, ``submit``, ``map``, ``as_completed`` and the ``with`` block mean
what they meant. To run it on servers elsewhere does not change it either: ``--servers a:1,b:2``
only sets REMOTE_EXECUTOR_ADDRESSES, as one would in the shell.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import as_completed

from remote_executor import FarmExecutor as ProcessPoolExecutor

small_primes: list[int] = []


def prepare(bound: int) -> None:
    """Fill each worker's table of small primes, once. Runs as the pool's initializer."""
    small_primes[:] = [n for n in range(2, bound) if all(n % d for d in range(2, int(n**0.5) + 1))]


def is_prime(number: int) -> bool:
    """Tell whether a number is prime, by division: the table first, then all odd numbers."""
    if number < 2:
        return False
    for prime in small_primes:
        if prime * prime > number:
            return True
        if number % prime == 0:
            return False
    divisor = (small_primes[-1] if small_primes else 1) + 2
    while divisor * divisor <= number:
        if number % divisor == 0:
            return False
        divisor += 2
    return True


def next_prime(number: int) -> int:
    """Return the first prime above a number."""
    number += 1
    while not is_prime(number):
        number += 1
    return number


def candidates(limit: int) -> list[int]:
    """Return numbers worth testing, the larger the further down the list."""
    return [10**12 + 7 * 10**9 * step + 1 for step in range(limit)]


def main() -> int:
    """Search primes serially and on the pool, and compare."""
    parser = argparse.ArgumentParser(description="Look for primes on a pool of workers.")
    parser.add_argument("--servers", metavar="HOST:PORT,...", help="default: one of its own")
    parser.add_argument("--workers", type=int, metavar="N", help="default: as many as there are")
    parser.add_argument("--limit", type=int, default=400, metavar="N", help="test N numbers")
    options = parser.parse_args()
    if options.servers:
        os.environ["REMOTE_EXECUTOR_ADDRESSES"] = options.servers
    numbers = candidates(options.limit)
    starts = numbers[:: max(1, len(numbers) // 8)]

    begin = time.perf_counter()
    prepare(1000)
    serial_flags = list(map(is_prime, numbers))
    serial_next = {start: next_prime(start) for start in starts}
    serial_time = time.perf_counter() - begin

    begin = time.perf_counter()
    with ProcessPoolExecutor(options.workers, initializer=prepare, initargs=(1000,)) as executor:
        futures = {executor.submit(next_prime, start): start for start in starts}
        pool_flags = list(executor.map(is_prime, numbers))
        pool_next = {futures[future]: future.result() for future in as_completed(futures)}
    pool_time = time.perf_counter() - begin

    if (pool_flags, pool_next) != (serial_flags, serial_next):
        print("the pool's answer differs from the serial one", file=sys.stderr)
        return 1
    print(f"{sum(pool_flags)} primes among {len(numbers)} numbers")
    for start, prime in sorted(pool_next.items()):
        print(f"  the first prime above {start} is {prime}")
    print(f"serial {serial_time:7.2f} s")
    print(f"pool   {pool_time:7.2f} s, start and end included")
    print("both gave the same answer")
    return 0


if __name__ == "__main__":
    sys.exit(main())
