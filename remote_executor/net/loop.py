"""
The one event loop, for the server's supervisor and for the client's I/O thread.

One thread runs it; others may only :meth:`Loop.post` and :meth:`Loop.wake`. It is split in two on
purpose: :meth:`Loop.poll` waits and touches nothing, :meth:`Loop.dispatch` calls the handlers. The
client holds its mutex for the second half only.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import select
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

__all__ = ["READ", "Loop", "Timer"]

READ = 1
WRITE = 4
"""As poll and epoll have it; what else they report (errors, hang-ups) is for both handlers."""


CLOSED_TIMERS = 64
"""So many closed timers may wait in the queue for their time in any case."""


def _nothing(now: float) -> None:
    """Stand in for the callback of a timer that was closed."""


class Timer:
    """
    Calls back once its time has come. Cheap to set again and again.

    Made by :meth:`Loop.timer`; set it by :meth:`at`.
    """

    __slots__ = ("_loop", "_queued", "callback", "when")

    def __init__(self, loop: Loop, callback: Callable[[float], None]) -> None:
        self._loop = loop
        self._queued: float | None = None
        self.callback = callback
        self.when: float | None = None

    def at(self, when: float | None) -> None:
        """Call back at ``when`` (monotonic seconds) instead of before; None means not at all."""
        self.when = when
        if when is not None and (self._queued is None or when < self._queued):
            self._queued = when
            self._loop._push(when, self)

    def close(self) -> None:
        """
        Never call back any more, and let go of the callback and of all that it refers to.

        A timer that is not set keeps both until its last time has come, which may take days.
        """
        self.when = None
        self.callback = _nothing
        if self._queued is not None:
            self._loop._closed_one()


class Loop:
    """Wait for file descriptors, timers and posts, and call who asked for them."""

    def __init__(self) -> None:
        # Not by way of the selectors module, which costs several times what the system call does.
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._poller: Any = self._epoll or select.poll()
        self._watched: dict[int, tuple[int, Any, Any]] = {}
        self._paused: dict[int, Any] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._pushed = 0
        self._closed_timers = 0
        self._posted: deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        self._poller.register(self._wake_read, READ)
        self._bell = select.poll()
        """Rings for the wake-ups alone."""
        self._bell.register(self._wake_read, READ)
        self._asleep = False
        self._wait = 0
        self._woken = 0
        """The wait that somebody has ended, counting from 1."""
        self.now = time.monotonic()
        """The time in monotonic seconds when the last wait ended."""

    # -------------------------------------------------------------- descriptors

    def watch(
        self, fd: int, on_read: Callable[[], object], on_write: Callable[[], object] | None = None
    ) -> None:
        """Call ``on_read`` when ``fd`` can be read; see :meth:`want` for the other."""
        self._poller.register(fd, READ)
        self._watched[fd] = READ, on_read, on_write

    def want(self, fd: int, *, read: bool = True, write: bool = False) -> None:
        """Say which of the two callbacks are wanted from now on."""
        events = (READ if read else 0) | (WRITE if write else 0)
        watched = self._watched.get(fd)
        if watched is None:
            # It was paused: nothing wanted means not watched, else a hang-up would spin the loop.
            if events:
                self._poller.register(fd, events)
                self._watched[fd] = events, *self._paused.pop(fd)
        elif not events:
            self._poller.unregister(fd)
            self._paused[fd] = self._watched.pop(fd)[1:]
        elif watched[0] != events:
            self._poller.modify(fd, events)
            self._watched[fd] = events, *watched[1:]

    def watches(self, fd: int) -> bool:
        """Whether ``fd`` was given to :meth:`watch` and not forgotten."""
        return fd in self._watched or fd in self._paused

    def forget(self, fd: int) -> None:
        """Stop watching ``fd``; do so before closing it."""
        if self._paused.pop(fd, None) is None:
            del self._watched[fd]
            self._poller.unregister(fd)

    # -------------------------------------------------------------------- timers

    def timer(self, callback: Callable[[float], None]) -> Timer:
        """Return a timer that is not set yet; its callback is given the time."""
        return Timer(self, callback)

    def _push(self, when: float, timer: Timer) -> None:
        self._pushed += 1
        heapq.heappush(self._timers, (when, self._pushed, timer))

    def _closed_one(self) -> None:
        """Throw closed timers out of the queue once they are the larger part of it."""
        self._closed_timers += 1
        if self._closed_timers > CLOSED_TIMERS and 2 * self._closed_timers > len(self._timers):
            # In place: a round that is going through it goes on with what is left.
            self._timers[:] = [each for each in self._timers if each[2].callback is not _nothing]
            heapq.heapify(self._timers)
            self._closed_timers = 0

    # --------------------------------------------------------------------- posts

    def post(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called by the loop's thread. Any thread may call this."""
        self._posted.append(callback)
        if self.asleep:
            self.wake()

    def wake(self) -> None:
        """End the wait that is under way, or the next. Any thread and any signal handler may."""
        wait = self._wait
        try:
            os.write(self._wake_write, b"\0")
        except OSError:
            pass  # it is full of wake-ups already, or the loop is closed
        # Last, and for that wait only: a signal handler may raise right before this line, and the
        # loop may be in its next wait by now.
        self._woken = wait

    @property
    def asleep(self) -> bool:
        """Whether the loop waits and nobody has woken it yet."""
        return self._asleep and self._woken != self._wait

    # ----------------------------------------------------------------- the rounds

    def poll(self, timeout: float | None = None, inbox: Sized = ()) -> list[tuple[int, int]]:
        """
        Wait until something is ready, a timer is due, or somebody posts.

        Args:
            timeout: Seconds to wait at most; None for no limit.
            inbox: Do not wait if there is something in it. Whoever puts something in looks at
                :attr:`asleep` afterwards, so nothing is overlooked.

        Returns:
            What :meth:`dispatch` wants.
        """
        if self._timers:
            until = max(0.0, self._timers[0][0] - time.monotonic())
            timeout = until if timeout is None else min(until, timeout)
        self._wait += 1
        self._asleep = True
        if self._posted or inbox:
            timeout = 0.0
        ready: list[tuple[int, int]]
        if self._epoll is not None:
            ready = self._epoll.poll(-1 if timeout is None else timeout)  # PyPy takes no None
        else:
            ready = self._poller.poll(None if timeout is None else timeout * 1000)
        self._asleep = False
        self.now = time.monotonic()
        return ready

    def nap(self, timeout: float) -> bool:
        """
        Wait as :meth:`poll` does, but leave the descriptors to others: see :meth:`look`.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether somebody woke the loop or posted, or a timer is due: call :meth:`poll` next.
        """
        if self._timers:
            timeout = min(timeout, max(0.0, self._timers[0][0] - time.monotonic()))
        self._wait += 1
        self._asleep = True
        if self._posted:
            timeout = 0.0
        woken = self._bell.poll(timeout * 1000)
        self._asleep = False
        self.now = time.monotonic()
        due = self._timers and self._timers[0][0] <= self.now
        return bool(woken or self._posted or due)

    @property
    def can_be_shared(self) -> bool:
        """Whether :meth:`look` may be called: epoll alone lets several threads wait."""
        return self._epoll is not None

    def look(self, timeout: float) -> list[tuple[int, int]]:
        """
        Wait for descriptors while the loop's thread naps. Any thread may call this.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            What is ready, a wake-up included. It is as well ready the next time.
        """
        assert self._epoll is not None
        try:
            ready: list[tuple[int, int]] = self._epoll.poll(timeout)
            return ready
        except ValueError:  # it has been closed
            return []

    def dispatch(self, ready: list[tuple[int, int]]) -> None:
        """Call the handlers of what is ready, then the timers that are due, then the posts."""
        for fd, events in ready:
            watched = self._watched.get(fd)
            if watched is None:
                # Either our own pipe, or a handler called before has let go of this one.
                if fd == self._wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(fd, 65536)  # as much as a pipe holds
                continue
            wanted, on_read, on_write = watched
            if events & ~READ and wanted & WRITE and on_write is not None:
                on_write()
            if events & ~WRITE and wanted & READ:
                on_read()
        timers, last = self._timers, self._pushed
        # One that a callback sets to a time already past waits for the next round, so that it
        # cannot keep the loop from its descriptors.
        while timers and timers[0][0] <= self.now and timers[0][1] <= last:
            queued, _, timer = heapq.heappop(timers)
            if timer._queued != queued:
                continue
            timer._queued = None
            if timer.when is None:
                continue
            if timer.when > self.now:
                timer.at(timer.when)
                continue
            timer.when = None
            timer.callback(self.now)
        for _ in range(len(self._posted)):
            self._posted.popleft()()

    def run_once(self, timeout: float | None = None) -> None:
        """One round."""
        self.dispatch(self.poll(timeout))

    def close(self) -> None:
        """
        Give back the loop's own descriptors. The owner has closed the others before.

        To wake or post to a closed loop does nothing; to close it again does nothing either.
        """
        if self._wake_write < 0:
            return
        wake_write, self._wake_write = self._wake_write, -1
        if self._epoll is not None:
            self._epoll.close()
        self._watched.clear()
        os.close(self._wake_read)
        os.close(wake_write)
