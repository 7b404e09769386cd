"""The futures that FarmExecutor returns: the standard library's, and cancel reaches the server."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, InvalidStateError
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.client.driver import Driver
    from remote_executor.core.scheduler import Task

__all__ = ["FarmFuture"]

T = TypeVar("T")


GUARD = threading.RLock()
"""Guards the state of all our futures; each section that it guards is a few instructions long."""

if hasattr(os, "register_at_fork"):
    # Another thread may have it at that moment, and there is no such thread in the child.
    os.register_at_fork(after_in_child=GUARD._at_fork_reinit)  # type: ignore[attr-defined]

DONE = frozenset({CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED})


class FarmFuture(Future[T]):
    """
    A ``concurrent.futures.Future`` of a task on a farm.

    The standard library gives each future a condition with a lock of its own and two lists,
    which is most of what a future costs to make, to keep, and for the garbage collector to look at.
    Here these are made when somebody wants them, and all share one lock. Everything else is
    inherited; ``wait`` and ``as_completed`` find the attributes that they use.
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
        condition = self._lazy
        if condition is None:
            with GUARD:
                condition = self._lazy
                if condition is None:
                    condition = self._lazy = threading.Condition(GUARD)
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

    def done(self) -> bool:
        """Return whether the task is over: finished, failed or cancelled."""
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
        with GUARD:
            if self._state in DONE:
                raise InvalidStateError(f"{self._state}: {self!r}")
            self._result = result
            self._state = FINISHED
            self._task = None  # not before: cancel() asks the driver for as long as it is there
            for waiter in self._lazy_waiters or ():
                waiter.add_result(self)
            if self._lazy is not None:
                self._lazy.notify_all()
        if self._lazy_callbacks:
            self._invoke_callbacks()  # type: ignore[attr-defined]

    def set_exception(self, exception: BaseException | None) -> None:
        """Finish with an error; for the driver."""
        with GUARD:
            if self._state in DONE:
                raise InvalidStateError(f"{self._state}: {self!r}")
            self._exception = exception
            self._state = FINISHED
            self._task = None
            for waiter in self._lazy_waiters or ():
                waiter.add_exception(self)
            if self._lazy is not None:
                self._lazy.notify_all()
        if self._lazy_callbacks:
            self._invoke_callbacks()  # type: ignore[attr-defined]

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
            if self._state in DONE:
                return
            self._state = CANCELLED_AND_NOTIFIED
            self._task = None
            for waiter in self._lazy_waiters or ():
                waiter.add_cancelled(self)
            if self._lazy is not None:
                self._lazy.notify_all()
        if self._lazy_callbacks:
            self._invoke_callbacks()  # type: ignore[attr-defined]

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Future cannot be sent to a server: pass its result() instead, "
            "or submit the dependent task when it is done"
        )
