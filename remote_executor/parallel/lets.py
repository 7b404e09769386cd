"""Several computations at once: their values, or the first that decides."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from remote_executor.parallel.kernel import Kernel, kernel_of
from remote_executor.parallel.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

__all__ = ["pand", "pfuncall", "plet", "por"]

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")


def _check(thunks: tuple[Any, ...]) -> None:
    for thunk in thunks:
        if not callable(thunk):
            raise TypeError(f"each computation must be callable with no argument, not {thunk!r}")


def _values(
    thunks: tuple[Callable[[], Any], ...],
    timeout: float | None,
    executor: Executor | Kernel | None,
) -> list[Any]:
    _check(thunks)
    kernel = kernel_of(executor)
    if not thunks:
        return []
    with Work(kernel, timeout) as work:
        for thunk in thunks:
            work.submit(thunk)
        return list(work.in_order())


@overload
def plet(
    t1: Callable[[], T1],
    /,
    *,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> tuple[T1]: ...
@overload
def plet(
    t1: Callable[[], T1],
    t2: Callable[[], T2],
    /,
    *,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> tuple[T1, T2]: ...
@overload
def plet(
    t1: Callable[[], T1],
    t2: Callable[[], T2],
    t3: Callable[[], T3],
    /,
    *,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> tuple[T1, T2, T3]: ...
@overload
def plet(
    t1: Callable[[], T1],
    t2: Callable[[], T2],
    t3: Callable[[], T3],
    t4: Callable[[], T4],
    /,
    *,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> tuple[T1, T2, T3, T4]: ...
@overload
def plet(
    t1: Callable[[], T1],
    t2: Callable[[], T2],
    t3: Callable[[], T3],
    t4: Callable[[], T4],
    t5: Callable[[], T5],
    /,
    *,
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> tuple[T1, T2, T3, T4, T5]: ...
@overload
def plet(
    *thunks: Callable[[], T],
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> tuple[T, ...]: ...
@overload
def plet(
    *, timeout: Any = None, executor: Any = None, **named: Callable[[], Any]
) -> SimpleNamespace: ...
def plet(
    *thunks: Callable[[], Any],
    timeout: Any = None,
    executor: Any = None,
    **named: Callable[[], Any],
) -> Any:
    """
    Compute several values in parallel. Comes from lparallel's and lfarm's plet.

    ::

        import remote_executor.parallel as p

        numbers = [3, 1, 2]
        with p.make_kernel(2):
            low, high = p.plet(lambda: min(numbers), lambda: max(numbers))
            found = p.plet(low=lambda: min(numbers), high=lambda: max(numbers))
            found.high  # 3

    Names are free: a computation may be called ``timeout`` or ``executor``, too. What can be called
    is a computation, and neither seconds nor an executor are. To say both, take the executor's
    block (``as_kernel()``), or pass the computations to :func:`pfuncall`.

    Args:
        thunks: Functions of no argument.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.
        named: Functions of no argument, in place of the others.

    Returns:
        A tuple of the values in the order of the thunks; with names, a ``types.SimpleNamespace``.

    Raises:
        TypeError: If there are thunks of both kinds, or one is not callable.
        TimeoutError: It took too long.
        Exception: What the first thunk that failed raised, first in their order.
    """
    if callable(executor) and not _is_executor(executor):
        named = {"executor": executor, **named}
        executor = None
    if callable(timeout):
        named = {"timeout": timeout, **named}
        timeout = None
    if thunks and named:
        raise TypeError("give all computations names, or none of them")
    values = _values((*thunks, *named.values()), timeout, executor)
    return SimpleNamespace(**dict(zip(named, values, strict=True))) if named else tuple(values)


def _is_executor(thing: Any) -> bool:
    """Return whether it can be submitted to. A class of executors can be called, and no more."""
    return isinstance(thing, Kernel) or (
        not isinstance(thing, type) and callable(getattr(thing, "submit", None))
    )


def pfuncall(
    fn: Callable[..., T],
    /,
    *thunks: Callable[[], Any],
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> T:
    """
    Compute the arguments of a call in parallel, then call here. Comes from lparallel's pfuncall.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pfuncall(pow, lambda: 1 + 1, lambda: 2 + 3)  # 32

    Args:
        fn: Called in this thread with the values.
        thunks: Functions of no argument, one for each argument.
        timeout: Seconds for the arguments.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        TypeError: If something is not callable.
        TimeoutError: It took too long.
        Exception: What the first thunk that failed raised, or ``fn``.
    """
    _check((fn,))
    return fn(*_values(thunks, timeout, executor))


def pand(
    *thunks: Callable[[], T],
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> T | Literal[True]:
    """
    Return the first false value, or the last one to come if all are true; of nothing True.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pand(lambda: "yes", lambda: 0)  # 0

    In order of completion, as lparallel's pand. What is not needed is cancelled, and on a farm
    stopped.

    Args:
        thunks: Functions of no argument.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        TypeError: If a thunk is not callable.
        TimeoutError: It took too long.
        Exception: What a thunk raised before the answer was there.
    """
    value: T | Literal[True] = _decide(thunks, False, True, timeout, executor)
    return value


def por(
    *thunks: Callable[[], T],
    timeout: float | None = None,
    executor: Executor | Kernel | None = None,
) -> T | None:
    """
    Return the first true value, or the last one to come if all are false; of nothing None.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.por(lambda: 0, lambda: "here")  # 'here'

    In order of completion, as lparallel's por. What is not needed is cancelled, and on a farm
    stopped.

    Args:
        thunks: Functions of no argument.
        timeout: Seconds for all of it.
        executor: An Executor or a Kernel; None for the current kernel.

    Raises:
        TypeError: If a thunk is not callable.
        TimeoutError: It took too long.
        Exception: What a thunk raised before the answer was there.
    """
    value: T | None = _decide(thunks, True, None, timeout, executor)
    return value


def _decide(
    thunks: tuple[Callable[[], Any], ...],
    decisive: bool,
    value: Any,
    timeout: float | None,
    executor: Executor | Kernel | None,
) -> Any:
    _check(thunks)
    kernel = kernel_of(executor)
    if not thunks:
        return value
    with Work(kernel, timeout) as work:
        for thunk in thunks:
            work.submit(thunk)
        for _, value in work.as_completed():
            if bool(value) is decisive:
                break
    return value
