"""What the executors of other engines do in ways of their own, and how that is evened out."""

from __future__ import annotations

import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from remote_executor.cores import usable_cores
from remote_executor.payload.failures import decode_failure, encode_failure

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

__all__ = ["call_in_dask", "runs_here", "worker_count", "works_for"]


def worker_count(executor: Executor, *, wait: bool = True) -> int:
    """
    Return how many tasks an executor runs at a time, as far as it tells.

    Args:
        executor: Any executor.
        wait: Whether to wait for servers of a farm that have not answered yet.
    """
    count_workers = getattr(executor, "count_workers", None)
    if wait and callable(count_workers):
        return int(count_workers())
    for name in ("_max_workers", "num_workers"):
        count = getattr(executor, name, None)
        if isinstance(count, int) and count > 0:
            return count
    if type(executor).__module__ == "distributed.cfexecutor":
        threads = executor._client.nthreads()  # type: ignore[attr-defined]
        return sum(threads.values()) or 1  # workers may come later
    return usable_cores()


def runs_here(executor: Executor) -> bool:
    """Return whether the current thread is one of a thread pool's own."""
    return works_for(executor, threading.current_thread())


def works_for(executor: Executor, thread: threading.Thread) -> bool:
    """Return whether a thread is one of a thread pool's own."""
    if not isinstance(executor, ThreadPoolExecutor):
        return False
    # Not by executor._threads, which has a thread only a moment after it began to work.
    arguments: tuple[Any, ...] = getattr(thread, "_args", ())
    return any(each is executor._work_queue for each in arguments)


def call_in_dask(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """
    Call a function, in a task of Dask's if this is one.

    Its future would never be done if the result cannot be pickled, and an exit would end four
    workers, one after the other: both become errors of the task.

    Args:
        fn: What to call.
        args: With which positional arguments.
        kwargs: With which keyword arguments.

    Raises:
        Exception: What the function raised, or why its result does not travel.
    """
    state = sys.modules["distributed.worker"].thread_state
    if getattr(state, "execution_state", None) is None:
        return fn(*args, **kwargs)  # Dask is about, and something else runs this
    try:
        result = fn(*args, **kwargs)
    except Exception:
        raise
    except BaseException as exc:
        summary, _ = encode_failure(exc, skip=1)
        raise decode_failure(summary, b"") from None
    _check_travels(result)
    return result


def _check_travels(result: Any) -> None:
    try:
        pickle.dumps(result, 5, buffer_callback=lambda _: None)
    except Exception:
        from remote_executor.payload.pickles import dump_result

        dump_result(result)
