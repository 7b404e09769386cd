"""The futures that FarmExecutor returns: the standard library's, and cancel reaches the server."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.client.driver import Driver
    from remote_executor.core.scheduler import Task

__all__ = ["FarmFuture"]

T = TypeVar("T")


GUARD = threading.RLock()
"""
Decides for all our futures who comes first: a result, or somebody who makes the condition to wait.

Entered by ``with`` and nothing else, which no signal handler can come between. A Condition's own
``with`` is Python code, where a ^C may leave the lock held: that must cost one future at most.
"""

if hasattr(os, "register_at_fork"):
    # Another thread may have it at that moment, and there is no such thread in the child.
    os.register_at_fork(after_in_child=GUARD._at_fork_reinit)  # type: ignore[attr-defined]

DONE = frozenset({CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED})


class FarmFuture(Future[T]):
    """
    A ``concurrent.futures.Future`` of a task on a farm.

    The standard library gives each future a condition with a lock of its own and two lists,
    which is most of what a future costs to make, to keep, and for the garbage collector to look at.
    Here these are made when somebody wants them. Everything else is inherited; ``wait`` and
    ``as_completed`` find the attributes that they use.
    """

    _driver: Driver | None = None
    _task: Task | None = None
    _lazy: threading.Condition | None = None
    _lazy_waiters: list[Any] | None = None
    _lazy_callbacks: list[Callable[[Future[T]], object]] | None = None

    def __init__(self) -> None:
        self._state = PENDING
        self._result: T | None = None
        self._exception: BaseException | None = None

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        if self._state not in DONE:
            self._check_process()
        condition = self._lazy
        if condition is None:
            fresh = threading.Condition()
            with GUARD:
                condition = self._lazy
                if condition is None:
                    condition = self._lazy = fresh
        return condition

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        with GUARD:
            if self._lazy_waiters is None:
                self._lazy_waiters = []
            return self._lazy_waiters

    @property
    def _done_callbacks(self) -> list[Callable[[Future[T]], object]]:
        with GUARD:
            if self._lazy_callbacks is None:
                self._lazy_callbacks = []
            return self._lazy_callbacks

    def _check_process(self) -> None:
        """In a forked child fail at once: nobody is there who would bring a result."""
        error = None if self._driver is None else self._driver.forked()
        if error is not None:
            # Whoever held the lock or waited did so in the parent; its callbacks are not for us.
            self._lazy = self._lazy_waiters = self._lazy_callbacks = None
            self._exception = error
            self._state = FINISHED

    def done(self) -> bool:
        """Return whether the task is over: finished, failed or cancelled."""
        if self._state not in DONE:
            self._check_process()
        return self._state in DONE

    def result(self, timeout: float | None = None) -> T:
        """
        Return what the task returned, or raise what it raised.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Raises:
            TimeoutError: It is not done in time. The result is not lost: ask again.
            CancelledError: The future was cancelled.
            Exception: What the task raised, or a FarmError that says what became of it.
        """
        if self._state == FINISHED and self._exception is None:
            return cast("T", self._result)
        return super().result(timeout)

    def set_result(self, result: T) -> None:
        """Finish with a result; for the driver."""
        if not self._finish_alone(result, None):
            super().set_result(result)
        self._task = None  # not before: cancel() asks the driver for as long as it is there

    def set_exception(self, exception: BaseException | None) -> None:
        """Finish with an error; for the driver."""
        if not self._finish_alone(None, exception):
            super().set_exception(exception)
        self._task = None

    def _finish_alone(self, result: T | None, exception: BaseException | None) -> bool:
        """Finish if nobody waits and there is no callback: both would need the condition."""
        with GUARD:
            if self._lazy is not None or self._state in DONE:
                return False
            self._result = result
            self._exception = exception
            self._state = FINISHED
        return True

    def set_begun(self) -> None:
        """Say that a worker has begun with the task; for the driver."""
        with GUARD:
            if self._state == PENDING:
                self._state = RUNNING

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
        """
        Become cancelled, and tell who waits; for whoever settled the task. Done already is done.

        It may have been running: on a server that was lost, so that it waited once more.
        """
        with GUARD:
            alone = self._lazy is None and self._state not in DONE
            if alone:
                self._state = CANCELLED_AND_NOTIFIED
        if not alone:
            with self._condition:
                if self._state in DONE:
                    return
                self._state = CANCELLED_AND_NOTIFIED
                for waiter in self._waiters:
                    waiter.add_cancelled(self)
                self._condition.notify_all()
        self._task = None
        if self._lazy_callbacks:
            self._invoke_callbacks()  # type: ignore[attr-defined]

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Future cannot be sent to a server: pass its result() instead, "
            "or submit the dependent task when it is done"
        )
