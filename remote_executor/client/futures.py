"""The futures that FarmExecutor returns: the standard library's, and cancel reaches the server."""

from __future__ import annotations

import logging
import sys
import time
from _thread import get_ident
from collections import deque
from concurrent.futures import CancelledError, Future, InvalidStateError, TimeoutError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from functools import partial
from itertools import filterfalse
from operator import methodcaller
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from remote_executor.client.shortcut import PATIENCE
from remote_executor.client.stdlib_waits import Views, Waiters, tell
from remote_executor.net.interruptible import Gates

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from remote_executor.client.driver import Driver
    from remote_executor.client.shortcut import Shortcut
    from remote_executor.core.tasks import Task

__all__ = ["FarmFuture", "SafeFuture"]

T = TypeVar("T")

log = logging.getLogger("concurrent.futures")
"""Where the standard library logs what a callback raises."""

DONE = frozenset({CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED})


class _Watchers:
    """Who is to be told that a future is done. Made when there is somebody."""

    __slots__ = ("callbacks", "gates", "views", "waiters")

    def __init__(self) -> None:
        self.gates = Gates()
        """Threads that wait for it."""
        self.waiters: list[Any] = []
        """The standard library's: see :mod:`remote_executor.client.stdlib_waits`."""
        self.callbacks: list[partial[object]] = []
        self.views: list[tuple[int, str]] = []
        """Threads that look at its state as it was, and what that was."""


class SafeFuture(Future[T]):
    """
    A ``concurrent.futures.Future`` without a lock: a ^C or a ``__del__`` leaves nothing taken.

    The standard library gives each future a condition with a lock of its own and two lists, which
    is most of what a future costs to make, to keep, and for the garbage collector to look at. Here
    those who are to be told are kept in lists that are made when there is somebody; each change of
    a list is one call into C. Whoever adds himself looks afterwards whether it is done, and whoever
    finishes it takes out what was added before. So each is told exactly once, with no lock.
    """

    now: str = PENDING
    """The state. ``_state`` is what the standard library's functions are to see of it."""
    _watched: _Watchers | None = None

    def __init__(self) -> None:
        self._result: T | None = None
        self._exception: BaseException | None = None
        self._open = [None]
        """Has one entry until it finishes: whoever takes it out may say how."""

    # ------------------------------------------------- what the standard library uses

    @property
    def _state(self) -> str:
        watched = self._watched
        if watched is not None and watched.views:
            me = get_ident()
            for thread, state in reversed(watched.views[:]):
                if thread == me:
                    return state
        return self.now

    @_state.setter
    def _state(self, state: str) -> None:
        self.now = state

    @property
    def _condition(self) -> Views:  # type: ignore[override]
        if self.now not in DONE:
            self._look()
        return Views(self)

    @property
    def _waiters(self) -> Waiters:  # type: ignore[override]
        return Waiters(self)

    # ---------------------------------------------------------------------- inside

    def watchers(self) -> _Watchers:
        """Return who is to be told; made by the first who asks."""
        watched = self._watched
        if watched is None:
            watched = cast("_Watchers", self.__dict__.setdefault("_watched", _Watchers()))
        return watched

    @staticmethod
    def is_over(state: str) -> bool:
        """Return whether a state is an end."""
        return state in DONE

    def _look(self) -> None:
        """Somebody wants to know how it stands, or to be told."""

    def check_may_wait(self) -> None:
        """
        Check that this thread may wait for it.

        Raises:
            RuntimeError: If it could wait for ever.
        """

    def is_settled(self) -> bool:
        """Return whether it is over, for the driver; nothing follows from that question."""
        return self.now in DONE

    def _finish(self, state: str, result: T | None, exception: BaseException | None) -> bool:
        """Finish it, unless it is finished, and tell all. In one call into C, but for the calls."""
        watched = self._watched
        steps = (
            partial(self._open.pop),
            partial(setattr, self, "_result", result),
            partial(setattr, self, "_exception", exception),
            partial(setattr, self, "now", state),
        )
        try:
            # Who has come since then finds that it is done.
            (Gates() if watched is None else watched.gates).open(*steps)
            self.tell()
        except IndexError:
            return False
        finally:
            # Only if a ^C has come between, or a callback has exited: the others are to be told.
            watched = self._watched
            if watched is not None and self.now in DONE and (watched.waiters or watched.callbacks):
                self.tell()
        return True

    def tell(self) -> None:
        """Tell all who want to know that it is done, once. May be called again and again."""
        watched = self._watched
        if watched is None:
            return
        watched.gates.open()
        while watched.waiters:
            try:
                waiter = watched.waiters.pop(0)
            except IndexError:
                break  # another thread was faster
            tell(waiter, self)
        call = methodcaller("__call__", self)
        while watched.callbacks:
            taken: list[Any] = []
            try:
                # To take one out and to call it is one call into C; append() returns None.
                first = filterfalse(taken.append, map(watched.callbacks.pop, (0,)))
                deque(map(call, first), maxlen=0)
            except Exception:
                if taken:  # else another thread was faster
                    log.exception("exception calling callback for %r", self)

    # ---------------------------------------------------------------------- public

    def done(self) -> bool:
        """Return whether the task is over: finished, failed or cancelled."""
        if self.now not in DONE:
            self._look()
        return self.now in DONE

    def running(self) -> bool:
        """Return whether the task runs now."""
        if self.now not in DONE:
            self._look()
        return self.now == RUNNING

    def cancelled(self) -> bool:
        """Return whether the task was cancelled."""
        if self.now not in DONE:
            self._look()
        return self.now in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def cancel(self) -> bool:
        """Cancel it if nobody works at it; return whether it is cancelled."""
        if self.now == PENDING:
            self._finish(CANCELLED_AND_NOTIFIED, None, None)
        return self.now in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """
        Have something called when it is done, at once if it is.

        Args:
            fn: Called with the future, in the thread that finishes it. It must not wait for the
                executor. What it raises is logged.
        """
        if self.now not in DONE:
            self._look()
        entry = partial(fn)
        callbacks = self.watchers().callbacks
        callbacks.append(entry)
        if self.now in DONE:
            self._tell_one(callbacks, entry)

    def _tell_one(self, callbacks: list[partial[object]], entry: partial[object]) -> None:
        """Make a call that came late, unless whoever has finished it does."""
        try:
            callbacks.remove(entry)
        except ValueError:
            return
        try:
            entry(self)
        except Exception:
            log.exception("exception calling callback for %r", self)

    def result(self, timeout: float | None = None) -> T:
        """
        Return what the task returned, or raise what it raised.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Raises:
            TimeoutError: It is not done in time. The result is not lost: ask again.
            CancelledError: The future was cancelled.
            RuntimeError: In a done-callback of this executor, if it is not done: what it would
                wait for is brought by the thread that runs the callback.
            Exception: What the task raised, or a FarmError that says what became of it.
        """
        if self.now != FINISHED:
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
            RuntimeError: As for :meth:`result`.
        """
        if self.now != FINISHED:
            self._wait(timeout)
        return self._exception

    def _wait(self, timeout: float | None) -> None:
        """Wait until it is finished, or raise what the standard library does."""
        self._look()
        if not self.wait_until_done(timeout):
            raise TimeoutError
        if self.now != FINISHED:
            raise CancelledError

    def wait_until_done(self, timeout: float | None) -> bool:
        """Wait until it is over; return whether it is. Raises RuntimeError as :meth:`result`."""
        if self.now in DONE:
            return True
        if timeout is not None and timeout <= 0:
            return False
        self.check_may_wait()
        until = None if timeout is None else time.monotonic() + timeout
        return self.watchers().gates.wait(self.is_settled, until)

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for it in a coroutine of asyncio; see :mod:`remote_executor.client.awaiting`."""
        from remote_executor.client.awaiting import wait_for

        return wait_for(self)

    def abandon(self) -> None:
        """Take note that a coroutine that has awaited it was cancelled. Waits for nobody."""

    def set_running_or_notify_cancel(self) -> bool:
        """
        Say that the work begins, for who made the future; False if it was cancelled.

        Raises:
            RuntimeError: If the work has begun before.
        """
        if self.now == PENDING:
            self.now = RUNNING
            return True
        if self.now in (CANCELLED, CANCELLED_AND_NOTIFIED):
            return False
        raise RuntimeError("Future in unexpected state")

    def set_result(self, result: T) -> None:
        """
        Finish with a result.

        Raises:
            InvalidStateError: If it is finished.
        """
        if not self._finish(FINISHED, result, None):
            raise InvalidStateError(f"{self.now}: {self!r}")

    def set_exception(self, exception: BaseException | None) -> None:
        """
        Finish with an error.

        Raises:
            InvalidStateError: If it is finished.
        """
        if not self._finish(FINISHED, None, exception):
            raise InvalidStateError(f"{self.now}: {self!r}")


class FarmFuture(SafeFuture[T]):
    """
    The future of a task on a farm.

    The executor's I/O thread finishes it, and alone, so that it needs not even :attr:`_open`; but
    for a caller that had the farm to itself, who finds the same answer in the same place. All who
    want to know are told by the I/O thread, which no ^C reaches.
    """

    _driver: Driver | None = None
    _task: Task | None = None
    name: str | None = None
    """That of its task, once that has failed: for those that take its result."""
    keeper: Any = None
    """What keeps the result in a journal, if that is wanted."""
    unloaded: BaseException | None = None
    """What unpickling the result has raised in :meth:`result`, for the driver to make an error."""
    kill_on_cancel = False
    """Whether the task is to be stopped, though it runs, when a coroutine that awaits it is."""
    _shortcut: Shortcut | None = None
    """The way that the task has gone, if nobody but :meth:`result` looks at this future."""

    def __init__(self) -> None:
        self._result: T | None = None
        self._exception: BaseException | None = None

    def _look(self) -> None:
        """
        Somebody wants to know how it stands, or to be told.

        That ends the shortcut, by which only :meth:`result` hears of the end. In a forked child it
        fails now: nobody is there who would bring a result.
        """
        shortcut, self._shortcut = self._shortcut, None
        error = None if self._driver is None else self._driver.forked()
        if error is not None:
            # Whoever waited did so in the parent; its callbacks are not ours.
            self.__dict__.pop("_watched", None)
            self._exception = error
            self.now = FINISHED
        elif shortcut is not None:
            shortcut.hand_over()

    def check_may_wait(self) -> None:
        """
        Check that this is no done-callback that the executor's I/O thread runs.

        Raises:
            RuntimeError: If it is: what it waits for could never come.
        """
        if self._driver is not None:
            self._driver.check_may_wait()

    def result(self, timeout: float | None = None) -> T:
        """Return what the task returned, or raise what it raised; see :class:`SafeFuture`."""
        shortcut, task = self._shortcut, self._task
        if shortcut is not None and task is not None and (timeout is None or timeout > PATIENCE):
            shortcut.fetch(task, self)
            self._shortcut = None
        if self.now != FINISHED:
            self._wait(timeout)
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]  # noqa: PLW0642 - the traceback holds us
        return cast("T", self._result)

    def settle(self, result: T) -> None:
        """
        Finish with a result unless it is finished; for who waits for it by the shortcut.

        If others are to be told, the I/O thread does it.
        """
        if self.now in DONE:
            return
        self._result = result
        self.now = FINISHED
        if self._watched is not None and self._driver is not None:
            self._driver.loop.wake()
        self._task = None

    def _finish(self, state: str, result: T | None, exception: BaseException | None) -> bool:
        """Finish it unless it is finished, and tell all."""
        if self.now in DONE:
            self.tell()  # for a caller who was interrupted before he could do so
            return False
        if exception is not None and self._task is not None:
            self.name = self._task.name
        self._result = result
        self._exception = exception
        self.now = state
        self._task = None  # not before: cancel() asks the driver for as long as it is there
        if self._watched is not None:
            self.tell()
        return True

    def set_begun(self) -> None:
        """Say that a worker has begun with the task; for the driver."""
        if self.now == PENDING:
            self.now = RUNNING

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
        if sys._getframe(1).f_globals.get("__name__") == "asyncio.futures":
            # A future of run_in_executor or wrap_future was cancelled. Nobody looks at what this
            # returns, and this is the loop's thread, which is not to wait for a server.
            self.abandon()
            return self.now in (CANCELLED, CANCELLED_AND_NOTIFIED)
        return driver.cancel(self, task)

    def abandon(self) -> None:
        """
        Take the task back, since a coroutine that has awaited it was cancelled. Waits for nobody.

        One that runs goes on, unless :attr:`kill_on_cancel` says otherwise.
        """
        driver, task = self._driver, self._task
        if driver is None or task is None:
            super().cancel()
        elif self.kill_on_cancel:
            driver.kill_soon([task])
        else:
            driver.cancel_all([task])

    def finish_cancelled(self) -> None:
        """
        Become cancelled, and tell who waits; for whoever settled the task. Done already is done.

        It may have been running: on a server that was lost, so that it waited once more.
        """
        self._finish(CANCELLED_AND_NOTIFIED, None, None)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Future cannot be sent here: give it to submit() as an argument, which waits for it, "
            "or pass its result() instead"
        )
