"""
Programs of joblib on a farm: try a model's parameters, with the same data for each trial.

The data is an array that all trials use: it travels once to each server. With scikit-learn it looks
the same, as in ``with executor.as_joblib(): GridSearchCV(model, parameters).fit(X, y)``. ::

    pip install 'joblib>=1.3' numpy
    python examples/joblib_search.py                                # a local server of its own
    python examples/joblib_search.py --servers node1:11111,node2    # servers that run already
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from joblib import Parallel, delayed

from remote_executor import FarmExecutor


def error_of(degree: int, x: np.ndarray, y: np.ndarray, folds: int = 5) -> tuple[float, int]:
    """Fit polynomials to all but a part of the data, and return the mean error on that part."""
    errors = []
    for fold in range(folds):
        test = np.arange(len(x)) % folds == fold
        found = np.polynomial.Polynomial.fit(x[~test], y[~test], degree)
        errors.append(float(np.mean((found(x[test]) - y[test]) ** 2)))
    return sum(errors) / folds, degree


def main(servers: str | None, points: int) -> None:
    """Find the best degree on the farm, and compare with the same done here."""
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, points)
    y = np.sin(5 * x) + random.normal(0, 0.3, points)
    calls = [delayed(error_of)(degree, x, y) for degree in range(1, 25)]

    begun = time.perf_counter()
    here = min(Parallel(n_jobs=1)(calls))
    print(f"here: degree {here[1]}, error {here[0]:.4f}, {time.perf_counter() - begun:.2f} s")

    with FarmExecutor(addresses=servers) as executor, executor.as_joblib():
        Parallel()(calls[:2])  # the workers load numpy
        begun = time.perf_counter()
        there = min(Parallel()(calls))
        seconds = time.perf_counter() - begun
        print(f"on {executor.count_workers()} workers: degree {there[1]}, {seconds:.2f} s")
    assert there[1] == here[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--servers", help="addresses of servers, separated by commas")
    parser.add_argument("--points", type=int, default=20_000, help="how much data")
    arguments = parser.parse_args()
    main(arguments.servers, arguments.points)
