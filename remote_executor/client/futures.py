"""The futures that FarmExecutor returns: the standard library's, and cancel reaches the server."""

from __future__ import annotations

import os
import threading
from concurrent.futures import CancelledError, Future, InvalidStateError, TimeoutError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from remote_executor.client.shortcut import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.client.driver import Driver
    from remote_executor.client.shortcut import Shortcut
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
    Here these are made when somebody wants them: ``wait`` and ``as_completed`` find the attributes
    that they use. Who merely waits for the result waits at a *gate*, a lock that is released when
    it is there: that takes less time, and a ^C does it no harm.
    """

    _driver: Driver | None = None
    _task: Task | None = None
    _shortcut: Shortcut | None = None
    """The way that the task has gone, if nobody but :meth:`result` looks at this future."""
    _lazy: threading.Condition | None = None
    _gates: list[threading.Lock] | None = None
    _lazy_waiters: list[Any] | None = None
    _lazy_callbacks: list[Callable[[Future[T]], object]] | None = None

    def __init__(self) -> None:
        self._state = PENDING
        self._result: T | None = None
        self._exception: BaseException | None = None

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        if self._state not in DONE:
            self._look()
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

    def _look(self) -> None:
        """
        Somebody wants to know how it stands, or to be told.

        That ends the shortcut, by which only :meth:`result` hears of the end. In a forked child it
        fails now: nobody is there who would bring a result.
        """
        shortcut, self._shortcut = self._shortcut, None
        error = None if self._driver is None else self._driver.forked()
        if error is not None:
            # Whoever held the lock or waited did so in the parent; its callbacks are not for us.
            self._lazy = self._lazy_waiters = self._lazy_callbacks = None
            self._exception = error
            self._state = FINISHED
        elif shortcut is not None:
            shortcut.hand_over()

    def done(self) -> bool:
        """Return whether the task is over: finished, failed or cancelled."""
        if self._state not in DONE:
            self._look()
        return self.is_settled()

    def is_settled(self) -> bool:
        """Return the same, for the driver; nothing follows from that question."""
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
        shortcut, task = self._shortcut, self._task
        if shortcut is not None and task is not None and (timeout is None or timeout > PATIENCE):
            shortcut.fetch(task, self)
            self._shortcut = None
        if self._state != FINISHED:
            self._wait(timeout)
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]  # noqa: PLW0642 - the traceback holds us
        return cast("T", self._result)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """
        Return what the task raised, None if it returned.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Raises:
            TimeoutError: It is not done in time.
            CancelledError: The future was cancelled.
        """
        if self._state != FINISHED:
            self._wait(timeout)
        return self._exception

    def _wait(self, timeout: float | None) -> None:
        """Wait until it is finished, or raise what the standard library does."""
        self._look()
        gate = threading.Lock()
        gate.acquire()
        with GUARD:
            if self._state not in DONE:
                self._gates = [gate] if self._gates is None else [*self._gates, gate]
            else:
                gate.release()
        if not gate.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            with GUARD:
                self._gates = [each for each in self._gates or () if each is not gate]
            if self._state not in DONE:
                raise TimeoutError
        if self._state != FINISHED:
            raise CancelledError

    def _open_gates(self) -> None:
        with GUARD:
            gates, self._gates = self._gates, None
        for gate in gates or ():
            gate.release()

    def settle(self, result: T) -> None:
        """Finish with a result unless it is finished; for who waits for it by the shortcut."""
        try:
            self.set_result(result)
        except InvalidStateError:
            pass  # the I/O thread was faster

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
        if self._gates:
            self._open_gates()
        return True

    def _invoke_callbacks(self) -> None:
        """Let those go on who wait, then call the callbacks; called once it is done."""
        self._open_gates()
        super()._invoke_callbacks()  # type: ignore[misc]

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
            self._invoke_callbacks()
        else:
            self._open_gates()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Future cannot be sent to a server: pass its result() instead, "
            "or submit the dependent task when it is done"
        )
