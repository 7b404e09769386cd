"""Who is measured beside executors: pools as multiprocessing has them, and joblib's backends."""

from __future__ import annotations

import multiprocessing
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["WAYS_PEERS"]


@contextmanager
def pool_of_ours() -> Iterator[Any]:
    """``remote_executor.Pool``."""
    from remote_executor import Pool

    with Pool(2) as pool:
        yield pool
    pool.join()


@contextmanager
def pool_of_theirs() -> Iterator[Any]:
    """``multiprocessing.Pool``, forked."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        yield pool


@contextmanager
def joblib_of_ours() -> Iterator[Any]:
    """joblib on a farm."""
    from remote_executor import FarmExecutor

    with FarmExecutor(2) as executor, executor.as_joblib():
        yield executor


@contextmanager
def joblib_of_theirs() -> Iterator[Any]:
    """joblib with loky."""
    from joblib import parallel_config

    with parallel_config(backend="loky", n_jobs=2):
        yield None


WAYS_PEERS = {
    "our-pool": pool_of_ours,
    "their-pool": pool_of_theirs,
    "joblib-farm": joblib_of_ours,
    "joblib-loky": joblib_of_theirs,
}
