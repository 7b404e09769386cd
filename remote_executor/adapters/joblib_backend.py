"""
joblib, and with it scikit-learn, on a farm: ``as_joblib()`` and ``register_joblib_backend()``.

::

    with FarmExecutor(addresses=["node1:11111"]) as executor, executor.as_joblib():
        GridSearchCV(model, parameters).fit(X, y)

joblib cuts what it is given into batches by the time that they take, hands each to the backend, and
from the callback of each it dispatches the next. ::

    Parallel(...)  --submit(batch)-->  large arrays become shares  -->  the farm
         ^                                                                |
         +--- dispatches the next batch --- callback, in the I/O thread --+

joblib's own: batches, callbacks, generators, timeouts, and that parallel calls within a call are
made by threads, and those within these one after the other. Ours: where a batch runs, how arrays
travel (once to each server, and never by files), how many run at a time, what an abort stops.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from typing import TYPE_CHECKING, Any

from remote_executor.client.current import current
from remote_executor.client.executor import FarmExecutor, FarmView
from remote_executor.lineage import depth

try:
    import joblib
    from joblib.disk import memstr_to_bytes
    from joblib.parallel import (
        BACKENDS,
        AutoBatchingMixin,
        FallbackToBackend,
        ParallelBackendBase,
        SequentialBackend,
        ThreadingBackend,
    )
except ImportError as exc:
    raise ImportError(f"joblib 1.3 or later is needed (pip install 'joblib>=1.3'): {exc}") from exc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

__all__ = ["FarmBackend", "as_joblib", "register_joblib_backend"]

NAME = "remote_executor"

SHARED_BYTES = 64 * 1024
"""Arrays from this size travel once to each server, and not with each batch."""

JOBLIBS_OWN = ("1M", 1024 * 1024)
"""What ``Parallel(max_nbytes=)`` is if nobody says anything."""

DEEPEST = 3
"""Containers within containers in which arrays are looked for."""

LONGEST = 1000
"""Items of a container beyond which no arrays are looked for in it."""

_default: FarmExecutor | None = None
"""For whoever has no executor: with a server of its own, kept for the life of the process."""


def register_joblib_backend() -> None:
    """
    Make ``joblib.parallel_config(backend="remote_executor")`` possible, and ``parallel_backend``.

    It uses the executor of the ``as_kernel()`` block around, or the current kernel's; without that,
    one that is made for the arguments of ``parallel_config``, as for :class:`FarmExecutor`
    (``addresses=``, ``initializer=``), or one for the whole process.
    """
    joblib.register_parallel_backend(NAME, FarmBackend)


def as_joblib(executor: FarmExecutor | FarmView, config: dict[str, Any]) -> Any:
    """Return the block of :meth:`FarmExecutor.as_joblib`."""
    threads = config.pop("inner_max_num_threads", None)
    backend = FarmBackend(executor=executor, inner_max_num_threads=threads)
    return joblib.parallel_config(backend=backend, **config)


class FarmBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """
    Runs joblib's batches on a farm.

    Args:
        executor: Which one; see :func:`register_joblib_backend` for what None means.
        nesting_level: How deep in other parallel calls it is.
        inner_max_num_threads: Threads that numerical libraries may start in a worker.
        options: For an executor of its own.
    """

    supports_inner_max_num_threads = True
    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(
        self,
        executor: FarmExecutor | FarmView | None = None,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._executor = executor
        if executor is None and options:
            self._executor = FarmExecutor(**options)
        self._used: FarmExecutor | FarmView | None = None
        """The one that runs the parallel call: its callbacks come in another thread's context."""
        self._calls = _Calls()
        self._shares: _Shares | None = None
        self.parallel: Any = None

    def executor(self) -> FarmExecutor | FarmView:
        """Return the executor that runs the batches."""
        global _default
        if self._executor is not None:
            return self._executor
        found = current()
        if found is not None and isinstance(found.executor, (FarmExecutor, FarmView)):
            return found.executor
        if _default is None or _default._closed or _default._driver.forked() is not None:
            _default = FarmExecutor()
        return _default

    # ------------------------------------------------------------ what joblib calls

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """
        Return how many batches run at a time.

        Args:
            n_jobs: What the user has said: -1 for all workers of the farm, -2 for all but one.

        Raises:
            ValueError: If it is 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            n_jobs = self.default_n_jobs
        if n_jobs > 0:
            return n_jobs
        executor = self.executor()
        found = max(1, executor.count_workers() + 1 + n_jobs)
        # joblib does itself what is for one alone, but a server elsewhere was not named in vain.
        return found if executor._driver.is_embedded() else max(2, found)

    def configure(
        self,
        n_jobs: int | None = 1,
        parallel: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        max_nbytes: Any = "1M",
        **_: Any,
    ) -> int:
        """
        Get ready for a parallel call.

        Args:
            n_jobs: As for :meth:`effective_n_jobs`.
            parallel: joblib's ``Parallel``.
            initializer: Called once in each worker, of an executor that is made for it.
            initargs: Its arguments.
            max_nbytes: Bytes from which arrays are shared; None for never.
            _: What is for backends that write arrays to files.

        Returns:
            How many batches run at a time.

        Raises:
            FallbackToBackend: If it is one: joblib calls the functions itself. And in a worker of a
                farm, where threads make the calls.
            ValueError: If there is an initializer, and the executor was there before.
        """
        if initializer is not None:
            if self._executor is not None:
                raise ValueError("give the initializer to the executor itself: it has begun before")
            self._executor = FarmExecutor(initializer=initializer, initargs=tuple(initargs))
        count = self.effective_n_jobs(n_jobs)
        if count == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        if depth() and self._executor is None:
            raise FallbackToBackend(ThreadingBackend(nesting_level=self.nesting_level))
        executor = self._used = self.executor()
        self.parallel = parallel
        limit = SHARED_BYTES if max_nbytes in JOBLIBS_OWN else max_nbytes
        if isinstance(limit, str):
            limit = memstr_to_bytes(limit)
        self._shares = None if limit is None else _Shares(executor, limit)
        self._calls = _Calls(None if n_jobs is None or n_jobs < 0 else n_jobs)
        return count

    def submit(self, func: Any, callback: Callable[[Any], object] | None = None) -> None:
        """
        Have a batch run; joblib is told by the callback alone.

        Args:
            func: joblib's batch.
            callback: Called with the future when it is done.
        """
        if self._shares is not None:
            self._shares.replace(func)
        self._calls.submit(
            self._used or self.executor(), func, self.inner_max_num_threads, callback
        )

    apply_async = submit  # as joblib named it before 1.5

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return the results of a batch that is done, or raise its error."""
        return out.result()

    def terminate(self) -> None:
        """End a parallel call. The executor goes on."""
        self._shares = None
        self.reset_batch_stats()

    def stop_call(self) -> None:
        """Let go of what was shared for a parallel call."""
        if self._shares is not None:
            self._shares.forget()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """
        Stop all batches of this call, those that run too, and nothing else on the farm.

        Args:
            ensure_ready: Whether others will follow; it is ready in any case.
        """
        self._calls.stop(self._used or self.executor())
        self._calls = _Calls(self._calls.limit)

    def __reduce__(self) -> Any:
        # Where it is sent to there is no executor: a farm of a task's own is made there.
        return FarmBackend, (None, self.nesting_level, self.inner_max_num_threads)


class _Calls:
    """
    The batches of a parallel call that are not done.

    Args:
        limit: How many of them may be given to the farm at a time; None for any number.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self._futures: dict[Future[Any], None] = {}
        self._waiting: deque[Callable[[], Any]] = deque()
        self._free: list[None] = [None] * (limit or 0)
        """An entry for each that may be given: whoever takes one out gives one."""
        self._stopped = False

    def submit(
        self,
        executor: FarmExecutor | FarmView,
        batch: Any,
        threads: int | None,
        callback: Callable[[Any], object] | None,
    ) -> None:
        """Give a batch to the farm, as soon as that may be."""
        if self.limit is None or self.limit >= executor._max_workers:
            self._add(executor.submit(run_batch, batch, threads), callback)
            return

        def give() -> None:
            future = executor.submit(run_batch, batch, threads)
            future.add_done_callback(lambda _: self._give_back())
            self._add(future, callback)

        self._waiting.append(give)
        self._give()

    def _add(self, future: Future[Any], callback: Callable[[Any], object] | None) -> None:
        self._futures[future] = None
        future.add_done_callback(self._remove)
        if callback is not None:
            future.add_done_callback(callback)

    def _remove(self, future: Future[Any]) -> None:
        self._futures.pop(future, None)

    def _give_back(self) -> None:
        self._free.append(None)
        self._give()

    def _give(self) -> None:
        """Give to the farm what may be given. Any thread may do this, and several at once."""
        while self._waiting and not self._stopped:
            try:
                self._free.pop()
            except IndexError:
                return
            try:
                give = self._waiting.popleft()
            except IndexError:
                self._free.append(None)  # another thread was faster
                continue
            give()

    def stop(self, executor: FarmExecutor | FarmView) -> None:
        """Stop all of them."""
        self._stopped = True
        self._waiting.clear()
        tasks = [executor._task_of(future) for future in list(self._futures)]
        executor._driver.kill_soon([task for task in tasks if task is not None])


class _Shares:
    """
    The large arrays of a parallel call, each of which travels once to each server.

    Args:
        executor: Shares them.
        limit: Bytes from which an array is large.
    """

    def __init__(self, executor: FarmExecutor | FarmView, limit: int) -> None:
        self._executor = executor
        self._limit = limit
        self._made: dict[int, tuple[Any, Any]] = {}
        """By the identity of an object: that object, kept so that it stays its own, and a share."""

    def forget(self) -> None:
        """Let go of all of them."""
        self._made.clear()

    def replace(self, batch: Any) -> None:
        """Put shares in the place of the large arrays among a batch's arguments."""
        items = getattr(batch, "items", None)
        if items is None:
            return
        batch.items = [
            (function, self._in(args, 0), self._in(kwargs, 0)) for function, args, kwargs in items
        ]

    def _in(self, value: Any, depth: int) -> Any:
        """Return what is to be sent for a value: itself, if there is nothing large in it."""
        kind = type(value)
        if kind in (tuple, list):
            if depth > DEEPEST or len(value) > LONGEST:
                return value
            found = [self._in(each, depth + 1) for each in value]
            same = all(new is old for new, old in zip(found, value))  # noqa: B905
            return value if same else kind(found)
        if kind is dict:
            if depth > DEEPEST or len(value) > LONGEST:
                return value
            named = {name: self._in(each, depth + 1) for name, each in value.items()}
            return value if all(named[name] is value[name] for name in named) else named
        if _bytes(value) < self._limit:
            return value
        made = self._made.get(id(value))
        if made is None:
            made = self._made[id(value)] = value, self._executor.share(value)
        return made[1]


def _bytes(value: Any) -> int:
    """Return how large an array, a sparse matrix or a data frame is; 0 for all else."""
    home = type(value).__module__.partition(".")[0]
    if home not in ("numpy", "scipy", "pandas"):
        return 0
    with contextlib.suppress(Exception):  # whatever it is, it travels as anything else does
        if home == "pandas":
            return int(value.memory_usage(deep=False).sum())
        if hasattr(value, "nbytes"):
            return 0 if getattr(value, "ndim", 0) == 0 or value.dtype.hasobject else value.nbytes
        return int(value.data.nbytes)
    return 0


# ---------------------------------------------------------------------- in a worker


def run_batch(batch: Callable[[], Any], threads: int | None) -> Any:
    """
    Run a batch of joblib's.

    Args:
        batch: What to call.
        threads: How many threads numerical libraries may start; None for what the worker has set.
    """
    if NAME not in BACKENDS:
        register_joblib_backend()  # a call within this one may name it; see configure()
    if threads is None:
        return batch()
    with _limited(threads):
        return batch()


@contextlib.contextmanager
def _limited(threads: int) -> Iterator[None]:
    """Limit the threads of numerical libraries, of those that will be loaded too."""
    names = ParallelBackendBase.MAX_NUM_THREADS_VARS
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        try:
            from threadpoolctl import threadpool_limits
        except ImportError:
            yield
        else:
            with threadpool_limits(limits=threads):
                yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
