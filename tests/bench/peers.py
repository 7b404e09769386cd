"""
The executors that are measured, each made by one function.

To add a peer, write a context manager that yields an object with ``submit(fn, *args)`` (which
returns something with ``result()``) and ``map(fn, iterable)`` (which returns an iterable), and
enter it in :data:`PEERS`.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.bench.ssh_peers import SSH_PEERS
from tests.bench.ways_peers import WAYS_PEERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from multiprocessing.pool import Pool

__all__ = ["PEERS", "POOLS", "WORKERS"]

WORKERS = 2
POOLS = ("pool", "pool-1000", "pool-10000", "pool-125000")


@contextmanager
def farm() -> Iterator[Any]:
    """FarmExecutor with its embedded server."""
    from remote_executor import FarmExecutor

    with FarmExecutor(WORKERS) as executor:
        yield executor


@contextmanager
def farm_tcp() -> Iterator[Any]:
    """FarmExecutor with one server, over loopback TCP."""
    from remote_executor import FarmExecutor, start_server

    with (
        start_server("127.0.0.1", 0, workers=WORKERS) as server,
        FarmExecutor(addresses=[server.address]) as executor,
    ):
        yield executor


@contextmanager
def farm_tls() -> Iterator[Any]:
    """As :func:`farm_tcp`, over TLS with a certificate that the server makes."""
    from remote_executor import FarmExecutor, start_server

    with (
        start_server("127.0.0.1", 0, workers=WORKERS, tls=True) as server,
        FarmExecutor(addresses=[server.address], tls=True) as executor,
    ):
        yield executor


@contextmanager
def process_pool(method: str) -> Iterator[Any]:
    """ProcessPoolExecutor, with one of multiprocessing's start methods."""
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(WORKERS, mp_context=context) as executor:
        yield executor


class PoolPeer:
    """multiprocessing.Pool with the two methods that the measurements call."""

    def __init__(self, pool: Pool, chunksize: int | None = None) -> None:
        self.pool = pool
        self.chunksize = chunksize

    def submit(self, fn: Callable[..., Any], *args: Any) -> PoolResult:
        """Call ``apply_async``."""
        return PoolResult(self.pool.apply_async(fn, args))

    def map(self, fn: Callable[..., Any], items: Iterable[Any]) -> Any:
        """Call ``map`` with the chunksize of this peer."""
        return self.pool.map(fn, items, self.chunksize)


class PoolResult:
    """An AsyncResult that answers to ``result``."""

    __slots__ = ("result",)

    def __init__(self, inner: Any) -> None:
        self.result = inner.get


@contextmanager
def pool(chunksize: int | None = None) -> Iterator[Any]:
    """multiprocessing.Pool, forked."""
    with multiprocessing.get_context("fork").Pool(WORKERS) as inner:
        yield PoolPeer(inner, chunksize)
        inner.close()
        inner.join()


class ChunkedPeer:
    """An executor whose ``map`` always gets a chunksize."""

    def __init__(self, executor: Any, chunksize: int) -> None:
        self.submit = executor.submit
        self._map = executor.map
        self.chunksize = chunksize

    def map(self, fn: Callable[..., Any], items: Iterable[Any]) -> Any:
        """Call ``map`` with the chunksize of this peer."""
        return self._map(fn, items, chunksize=self.chunksize)


@contextmanager
def fork_chunked(chunksize: int) -> Iterator[Any]:
    """ProcessPoolExecutor, forked, with a chunksize."""
    with process_pool("fork") as executor:
        yield ChunkedPeer(executor, chunksize)


PEERS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "farm": farm,
    "farm-tcp": farm_tcp,
    "farm-tls": farm_tls,
    "fork": lambda: process_pool("fork"),
    "spawn": lambda: process_pool("spawn"),
    "pool": pool,
    # The best chunksize differs from machine to machine: the best of these counts.
    "pool-1000": lambda: pool(1_000),
    "pool-10000": lambda: pool(10_000),
    "pool-125000": lambda: pool(125_000),
    "fork-10000": lambda: fork_chunked(10_000),
    **SSH_PEERS,
    **WAYS_PEERS,
}
