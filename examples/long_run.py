"""
A long run that may be interrupted at any moment, and goes on where it was.

Some of its tasks fail now and then, as downloads do, and are tried again. Each result is kept in a
file as it comes: end the program by ^C, or kill it, and start it again.

    .venv/bin/python examples/long_run.py [FILE]
"""

from __future__ import annotations

import random
import sys
import time

from remote_executor import FarmExecutor, Retry, wait_exponential

COUNT = 300


def estimate(seed: int) -> float:
    """Estimate pi with so many darts; now and then the machine has a bad moment."""
    if random.random() < 0.05:
        raise OSError("a bad moment")
    darts = random.Random(seed)
    count = 100_000
    hits = sum(darts.random() ** 2 + darts.random() ** 2 < 1 for _ in range(count))
    return 4 * hits / count


def main(path: str) -> None:
    """Run all estimates, those of an earlier run not among them."""
    begun = time.monotonic()
    total = 0.0
    with FarmExecutor() as executor:
        patient = executor.options(retry=Retry(times=5, on=OSError, wait=wait_exponential(0.1)))
        for number, value in enumerate(patient.map(estimate, range(COUNT), resume=path), 1):
            total += value
            if number % 50 == 0:
                seconds = time.monotonic() - begun
                print(
                    f"{number} of {COUNT} after {seconds:.1f} s: pi is about {total / number:.4f}"
                )
    print(f"All results are in {path}; run it again, and see how long it takes.")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "long_run.db")
