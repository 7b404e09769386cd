"""
``RayExecutor``: a ``concurrent.futures.Executor`` on a Ray cluster.

::

    import ray
    from remote_executor.adapters.ray import RayExecutor

    ray.init()
    with RayExecutor() as executor:
        print(executor.submit(pow, 2, 100).result())

Ray does not tell whether a task has begun, and to cancel one that has would interrupt it. So no
more tasks are given to Ray at a time than it runs, and a few: those count as running, all others
can be cancelled. One thread gives tasks to Ray and settles futures; Ray's own thread only wakes it,
since what it runs must never wait for Ray.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from remote_executor.net.interruptible import Event
from remote_executor.payload.failures import decode_failure, encode_failure

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RayExecutor"]

P = ParamSpec("P")
T = TypeVar("T")

AHEAD = 1
"""Tasks that Ray has beyond those that it can run: a worker finds its next one there."""


class RayExecutor(Executor):
    """
    An Executor that runs tasks on the Ray cluster that this program is connected to.

    It neither starts nor ends Ray. This package must be installed on Ray's nodes. A worker that
    dies fails the tasks that Ray had given to it, with Ray's error; none is tried again, unless
    ``max_retries`` says so. Arrays come back read-only if Ray shares their memory.

    A task may make one of its own. Its CPU stays taken while it waits for the results, so give that
    executor ``num_cpus=0``, or there may be none left.

    Shut it down before Ray: until then its futures need Ray to be done. At the interpreter's exit
    tasks that are not done are dropped.

    Args:
        max_workers: How many tasks run at a time; by default as many as the cluster has CPUs now.
            Give a number if the cluster grows by demand.
        options: Ray's options for the tasks, such as ``num_cpus``, ``num_gpus``, ``resources``,
            ``runtime_env``, ``max_retries``.

    Raises:
        ImportError: If Ray is not installed.
        RuntimeError: If Ray is not running: call ``ray.init`` first.
        ValueError: If the number is below 1, or an option is not one of Ray's.
    """

    def __init__(self, max_workers: int | None = None, **options: Any) -> None:
        import ray

        if not ray.is_initialized():
            raise RuntimeError("Ray is not initialized: call ray.init() first")
        if max_workers is None:
            max_workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._max_workers = max_workers
        self._closed = False
        self._over = Event()
        """Set when the thread takes nothing more out of the inbox."""
        self._inbox: SimpleQueue[_Event] = SimpleQueue()
        remote = ray.remote(**{"max_retries": 0, **options})(_call)
        self._thread = threading.Thread(
            target=_manage,
            args=(self._inbox, remote, max_workers + AHEAD, self._over),
            name="RayExecutor",
            daemon=True,
        )
        self._thread.start()
        # A dropped executor ends its thread, once its tasks are done.
        weakref.finalize(self, self._inbox.put, _End(cancel=False)).atexit = False

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<RayExecutor max_workers={self._max_workers}{state}>"

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """
        Run ``fn(*args, **kwargs)`` on the cluster.

        What is given is pickled when the task is given to Ray, as ProcessPoolExecutor does. Ray's
        object references among the arguments travel as they are.

        Args:
            fn: Any callable; one that Ray's workers cannot import travels by value.
            args: Its positional arguments.
            kwargs: Its keyword arguments; all of them are the task's.

        Returns:
            A future. If something cannot be pickled, it holds the error.

        Raises:
            RuntimeError: After a shutdown.
            TypeError: If ``fn`` is not callable.
        """
        if not callable(fn):
            raise TypeError(f"a task must be callable, not {fn!r}")
        future: Future[T] = Future()
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        # No lock: a __del__ may submit in the middle of this.
        self._inbox.put(_Task(future, fn, args, kwargs))
        if self._over.is_set():
            _refuse(self._inbox)  # it was shut down meanwhile, and nobody looks in there any more
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """
        Take no more tasks; Ray goes on.

        Args:
            wait: Whether to return only when all tasks are done.
            cancel_futures: Whether to cancel those that were not given to Ray yet.
        """
        self._closed = True
        self._inbox.put(_End(cancel_futures))
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()


# --------------------------------------------------------------------- the thread's events


class _Task(NamedTuple):
    """Somebody submitted a call."""

    future: Future[Any]
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Done(NamedTuple):
    """Ray is done with a task: what came of it, and whose it is."""

    outcome: Future[Any]
    future: Future[Any]


class _End(NamedTuple):
    """Nothing more will be submitted."""

    cancel: bool


_Event = _Task | _Done | _End


def _manage(inbox: SimpleQueue[_Event], remote: Any, limit: int, over: Event) -> None:
    """Give tasks to Ray, at most ``limit`` at a time, and settle their futures, until the end."""
    waiting: deque[_Task] = deque()
    given: dict[Future[Any], Any] = {}  # with the references that keep the results alive
    ending = False
    while not (ending and not waiting and not given):
        event = inbox.get()
        if isinstance(event, _Task):
            waiting.append(event)
        elif isinstance(event, _Done):
            del given[event.future]
            _settle(event.future, event.outcome)
        else:
            ending = True
            while event.cancel and waiting:
                _cancel(waiting.popleft().future)
        del event
        while waiting and len(given) < limit:
            _give(waiting.popleft(), given, inbox, remote)
    over.set()
    _refuse(inbox)


def _refuse(inbox: SimpleQueue[_Event]) -> None:
    """Cancel what came when it was too late."""
    while True:
        try:
            event = inbox.get_nowait()
        except Empty:
            return
        if isinstance(event, _Task):
            _cancel(event.future)


def _give(
    task: _Task, given: dict[Future[Any], Any], inbox: SimpleQueue[_Event], remote: Any
) -> None:
    future = task.future
    if not future.set_running_or_notify_cancel():
        return
    try:
        reference = remote.remote(task.fn, task.args, task.kwargs)
    except Exception as exc:  # it cannot be pickled
        future.set_exception(exc)
        return
    given[future] = reference
    reference.future().add_done_callback(lambda outcome: inbox.put(_Done(outcome, future)))


def _settle(future: Future[Any], outcome: Future[Any]) -> None:
    from ray.exceptions import RayTaskError

    error = outcome.exception()
    if error is None:
        good, value = outcome.result()
        if good:
            future.set_result(value)
            return
        error = decode_failure(*value)
    elif isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause  # the arguments or the result did not travel
    future.set_exception(error)


def _cancel(future: Future[Any]) -> None:
    future.cancel()
    future.set_running_or_notify_cancel()


def _call(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[bool, Any]:
    """Run a task, in a worker of Ray: its result, or its error as bytes, and which it is."""
    try:
        return True, fn(*args, **kwargs)
    except BaseException as exc:  # an exit is the task's, not the worker's
        return False, encode_failure(exc, skip=1)
