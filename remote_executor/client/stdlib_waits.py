"""
What ``concurrent.futures.wait`` and ``as_completed`` find in a future of ours.

Both hold the conditions of all futures while they look at their states and leave a *waiter* in each
``_waiters``. A real lock there could be left behind by a ^C, and then the thread that brings
results would wait for it for ever. So ours hold nothing: who "acquires" gets a view, the state of
the future as of now, and reads that until the "release", whatever happens meanwhile. A waiter that
is left under such a view is told at once if the future has finished since.

The waiters are the standard library's, with a lock and an Event of Python code in them. They are
given others when they come here. If a ^C leaves that lock taken, its owner is gone, and so will be
the waiter: whoever would tell it does not wait.

Everything that is private to the standard library, and used here, is named here:
``Future._condition``, ``Future._waiters``, ``Future._state``, and a waiter's ``event``, ``lock``,
``add_result``, ``add_exception``, ``add_cancelled``.
"""

from __future__ import annotations

import weakref
from _thread import RLock, get_ident, start_new_thread
from typing import TYPE_CHECKING, Any

from remote_executor.net.interruptible import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from remote_executor.client.futures import SafeFuture

__all__ = ["Views", "Waiters"]

PATIENCE = 0.02
"""Seconds for which who tells a waiter waits for its lock: it is held for three lines."""

RETRY_SECONDS = 0.05


class Views:
    """A future's condition: ``acquire`` takes a view of its state, ``release`` ends that."""

    __slots__ = ("_future",)

    def __init__(self, future: SafeFuture[Any]) -> None:
        self._future = future

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take a view, at once."""
        self._future.watchers().views.append((get_ident(), self._future.now))
        return True

    def release(self) -> None:
        """End the thread's last view, if there is one."""
        views, me = self._future.watchers().views, get_ident()
        for view in reversed(views[:]):
            if view[0] == me:
                try:
                    views.remove(view)
                except ValueError:
                    pass  # ended by a handler in this very moment
                return

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the future is done."""
        return self._future.wait_until_done(timeout)

    def notify(self, n: int = 1) -> None:
        """Do nothing: who waits is told by the future itself."""

    notify_all = notify


class Waiters:
    """What the standard library takes for a future's list of waiters."""

    __slots__ = ("_future",)

    def __init__(self, future: SafeFuture[Any]) -> None:
        self._future = future

    def __len__(self) -> int:
        return len(self._future.watchers().waiters)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._future.watchers().waiters[:])

    def append(self, waiter: Any) -> None:
        """
        Have a waiter told of the end, unless its owner has seen that.

        Raises:
            RuntimeError: In a done-callback that would wait for the thread that runs it.
        """
        future = self._future
        if future.is_over(future._state):
            return
        future.check_may_wait()
        _make_safe(waiter)
        waiters = future.watchers().waiters
        waiters.append(waiter)
        if future.is_over(future.now):
            try:
                waiters.remove(waiter)
            except ValueError:
                return  # whoever has finished it tells
            tell(waiter, future)

    def remove(self, waiter: Any) -> None:
        """Tell a waiter no more. It need not be there."""
        try:
            self._future.watchers().waiters.remove(waiter)
        except ValueError:
            pass  # it was told


def _make_safe(waiter: Any) -> None:
    """Replace what Python code locks. Nobody uses it yet: its owner holds all the conditions."""
    if not isinstance(getattr(waiter, "event", None), Event):
        waiter.event = Event()
    if hasattr(waiter, "lock") and not isinstance(waiter.lock, RLock):
        waiter.lock = RLock()


def tell(waiter: Any, future: SafeFuture[Any]) -> None:
    """Tell a waiter that a future is done. Waits for nobody for long."""
    lock = getattr(waiter, "lock", None)
    late: list[SafeFuture[Any]] | None = getattr(waiter, "late", None)
    if late is not None:
        late.append(future)
    elif lock is None or lock.acquire(True, PATIENCE):
        try:
            _add(waiter)(future)
        finally:
            if lock is not None:
                lock.release()
    else:
        # Its owner was interrupted, or has not had its turn for long. In the first case the waiter
        # will soon be gone; in the second it must be told.
        waiter.late = [future]
        start_new_thread(_tell_late, (weakref.ref(waiter), waiter.late))


def _add(waiter: Any) -> Callable[[SafeFuture[Any]], None]:
    def add(future: SafeFuture[Any]) -> None:
        if future.cancelled():
            waiter.add_cancelled(future)
        elif future.exception() is not None:
            waiter.add_exception(future)
        else:
            waiter.add_result(future)

    return add


def _tell_late(reference: weakref.ref[Any], late: list[SafeFuture[Any]]) -> None:
    pause = Event()
    while not pause.wait(RETRY_SECONDS):
        waiter = reference()
        if waiter is None:
            return
        if waiter.lock.acquire(False):
            try:
                while late:
                    _add(waiter)(late.pop(0))
            finally:
                waiter.lock.release()
        del waiter
