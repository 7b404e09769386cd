"""An executor that runs each task when the test says so, in the order that the test wants."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Held"]


class Held(Executor):
    """
    Holds what is submitted until :meth:`run`. It can kill, as a farm can.

    Attributes:
        calls: Function and arguments of each task.
        futures: Their futures.
        killed: The futures that were to be killed.
    """

    _max_workers = 2

    def __init__(self) -> None:
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []
        self.futures: list[Future[Any]] = []
        self.killed: list[Future[Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Take a task in."""
        assert not kwargs
        self.calls.append((fn, args))
        future: Future[Any] = Future()
        self.futures.append(future)
        return future

    def begin(self, *indices: int) -> None:
        """Have tasks running: they can no longer be cancelled."""
        for index in indices:
            assert self.futures[index].set_running_or_notify_cancel()

    def run(self, *indices: int) -> None:
        """Run tasks from begin to end, in this order."""
        for index in indices:
            future = self.futures[index]
            if not future.running():
                assert future.set_running_or_notify_cancel()
            fn, args = self.calls[index]
            try:
                result = fn(*args)
            except Exception as exc:
                future.set_exception(exc)
            else:
                future.set_result(result)

    def options(self, **options: Any) -> Held:
        """Return itself: priorities mean nothing here."""
        return self

    def cancel_all(self, futures: Iterable[Future[Any]]) -> None:
        """Cancel what was not run."""
        for future in futures:
            future.cancel()

    def kill(self, future: Future[Any]) -> bool:
        """Remember who was to be killed."""
        self.killed.append(future)
        return True

    def kill_tasks(self, category: Any, dry_run: bool = False) -> int:
        """Do nothing."""
        return 0

    def task_categories_running(self) -> list[Any]:
        """Return nothing."""
        return []

    def broadcast(self, fn: Any, /, *args: Any, **kwargs: Any) -> list[Any]:
        """Do nothing."""
        return []
