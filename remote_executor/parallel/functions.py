"""
Functions that spread while workers are idle: lparallel's ``defpun``.

Whether a call becomes a task is decided when it is made. A worker sees in a page of memory how
many slots of its server nobody uses, so that to ask is to look at a number: while all are busy a
call is a call.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar

from remote_executor.net.in_task import here

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

__all__ = ["Fork", "ParallelFunction", "fork", "parallel_function"]

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

LATENCY = 0.001
"""Seconds in which a task that was made is seen to take a slot. Until then it counts as one that
will, so that one idle worker is not given ten tasks."""


class Fork(Protocol[T_co]):
    """What :func:`fork` returns: a future, or a value that is there."""

    def result(self) -> T_co:
        """Return what the function returned, or raise what it raised."""


class _Done(Generic[T]):
    """The outcome of a call that was made at once."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def result(self, timeout: float | None = None) -> T:
        """Return it."""
        return self._value


class _Failed:
    """The error of such a call."""

    __slots__ = ("_error",)

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def result(self, timeout: float | None = None) -> Any:
        """Raise it."""
        raise self._error


class ParallelFunction(Protocol[P, T_co]):
    """A function that :func:`parallel_function` was applied to."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """Call it, here."""

    def fork(self, *args: P.args, **kwargs: P.kwargs) -> Fork[T_co]:
        """Have it called by a worker that is idle, or here if none is."""


class _Recent:
    """The tasks that were made a moment ago, by this process."""

    __slots__ = ("count", "executor", "since", "task")

    def __init__(self) -> None:
        self.executor: Executor | None = None
        self.task: int | None = None
        self.since = 0.0
        self.count = 0


_recent = _Recent()


def fork(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Fork[T]:
    """
    Have a function called by a worker that is idle, or call it now if none is.

    ::

        import remote_executor.parallel as p
        from remote_executor import FarmExecutor

        def total(numbers):
            if len(numbers) < 1000:
                return sum(numbers)
            middle = len(numbers) // 2
            right = p.fork(total, numbers[middle:])
            return total(numbers[:middle]) + right.result()

        with FarmExecutor(2) as ex:
            ex.submit(total, range(100_000)).result()  # 4999950000

    It spreads inside of tasks of a farm, while a worker of their server is idle; any server of the
    farm may run what is forked. Everywhere else, and while all are busy, it is a call, whose error
    is kept for ``result()`` as a task's is. Fork the smaller part, and do the larger one yourself:
    so there is more to be spread when a worker comes free.

    Args:
        fn: Any callable.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Returns:
        Something with a ``result()``. One that has not begun elsewhere by then is called here.
    """
    idle = here.idle
    if (idle is None or idle[0]) and here.open is not None:
        found = _try(fn, args, kwargs)
        if found is not None:
            return found
    try:
        return _Done(fn(*args, **kwargs))
    except Exception as exc:
        return _Failed(exc)


def _try(fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Fork[T] | None:
    """Make a task if somebody is there to run it."""
    task = here.task()
    if task is None:
        return None
    recent = _recent
    now = perf_counter()
    if recent.task != task:
        from remote_executor.client.nested_executor import NestedExecutor

        recent.executor = recent.executor or NestedExecutor(lasts=True)
        recent.task, recent.count = task, 0
    if now - recent.since > LATENCY:
        recent.since, recent.count = now, 0
    idle = here.idle
    if idle is not None and idle[0] <= recent.count:
        return None
    if idle is None and recent.count:
        return None  # the first one opens the way by which we shall see
    recent.count += 1
    assert recent.executor is not None
    return recent.executor.submit(fn, *args, **kwargs)


def parallel_function(fn: Callable[P, T]) -> ParallelFunction[P, T]:
    """
    Give a function a ``fork``, which has it called elsewhere while workers are idle.

    ::

        import remote_executor.parallel as p
        from remote_executor import FarmExecutor

        @p.parallel_function
        def fib(n):
            if n < 2:
                return n
            smaller = fib.fork(n - 2)
            return fib(n - 1) + smaller.result()

        with FarmExecutor(2) as ex:
            ex.submit(fib, 16).result()  # 987

    Comes from lparallel's defpun. The function stays what it is, and a call of it is a plain call.
    ``fib.fork(...)`` is ``fork(fib, ...)``: see :func:`fork`. A recursion had better end by a plain
    function, or by ``fib(...)`` without a fork, where there is little to do: a fork that calls at
    once takes a few times as long as a call.

    Args:
        fn: A function.

    Returns:
        The function, with one attribute more.

    Raises:
        TypeError: If it is no function.
    """
    if not callable(fn):
        raise TypeError(f"parallel_function is for functions, not {fn!r}")
    from functools import partial

    fn.fork = partial(fork, fn)  # type: ignore[attr-defined]
    return fn  # type: ignore[return-value]
