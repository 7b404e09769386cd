"""The executor that has no workers: inside a task, what is submitted runs then and there."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from remote_executor.client.current import AsKernel

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SerialExecutor", "in_serial"]

P = ParamSpec("P")
T = TypeVar("T")


class SerialExecutor(Executor):
    """Runs each task in ``submit``, in the caller's thread, and returns a future that is done."""

    _max_workers = 1

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """
        Call ``fn`` and return a future of what came of it.

        Args:
            fn: What to call.
            args: With which positional arguments.
            kwargs: With which keyword arguments.

        Raises:
            TypeError: If ``fn`` is not callable.
        """
        if not callable(fn):
            raise TypeError(f"a task must be callable, not {fn!r}")
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        try:
            result = fn(*args, **kwargs)
        except Exception as exc:  # a ^C or an exit is the caller's
            future.set_exception(exc)
        else:
            future.set_result(result)
        return future

    def __reduce__(self) -> Any:
        return SerialExecutor, ()


_serial = SerialExecutor()


def in_serial() -> AsKernel[SerialExecutor]:
    """Return a block in which the current kernel is a serial one."""
    return AsKernel(_serial)
