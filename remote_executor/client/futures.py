"""The futures that FarmExecutor returns: the standard library's, and cancel reaches the server."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures._base import CANCELLED
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from remote_executor.client.driver import Driver
    from remote_executor.core.scheduler import Task

__all__ = ["FarmFuture"]

T = TypeVar("T")


class FarmFuture(Future[T]):
    """A ``concurrent.futures.Future`` of a task on a farm."""

    _driver: Driver | None = None
    _task: Task | None = None

    def cancel(self) -> bool:
        """
        Cancel the task if it has not begun on a worker.

        A task that waits at a server is taken back, which takes a round trip to that server.

        Returns:
            True if the task will never run; False if it runs, has run, or its server cannot be
            asked now. To stop a task that runs, see ``FarmExecutor.kill``.
        """
        driver, task = self._driver, self._task
        if driver is None or task is None:
            return super().cancel()
        return driver.cancel(self, task)

    def finish_cancelled(self) -> None:
        """Become cancelled, and tell who waits. Called once, by whoever settled the task."""
        self._task = None
        if super().cancel():
            with self._condition:
                fresh = self._state == CANCELLED
            if fresh:
                self.set_running_or_notify_cancel()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Future cannot be sent to a server: pass its result() instead, "
            "or submit the dependent task when it is done"
        )


def describe(fn: Any) -> str:
    """Return a short name of a callable for errors."""
    name = getattr(fn, "__qualname__", None) or getattr(type(fn), "__qualname__", "task")
    module = getattr(fn, "__module__", None)
    return f"{module}.{name}" if module and module != "builtins" else str(name)
