"""
Which thread does the I/O of an executor, and who takes over when that one is held up.

The thread on duty owns the sockets. It also runs done-callbacks and unpickles results, which may
take any time, and meanwhile nobody would answer heartbeats. So before such code it *offers* its
duty, and afterwards takes it back. Another thread looks now and then: if it finds the very same
code running twice in a row it takes the duty, and the first thread is on duty no more. ::

    on duty                              on the watch
    -------                              ------------
    read, decide, write                  look every 50 ms
    offer ............................   the same code as the last time?
      a callback that takes long ...        take it: read, decide, write
    take back: too late
    go on the watch, or end

The offer is an entry of a list, the thread that makes it: whoever takes it out has the duty. So to
offer it and to take it back costs two calls into C for a batch of results, and no thread is woken
for that.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from remote_executor.client.waits import IOThread
from remote_executor.net.interruptible import Event

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Duty"]

LOOK_SECONDS = 0.05
"""How often the watch looks. It takes over after one to two times that."""

QUIET_LOOKS = 20
"""Looks without anything new after which the watch sleeps until there is something."""

MOST_THREADS = 32
"""Threads held up at a time beyond which nobody takes over any more."""


class Duty:
    """
    The duty of an executor's I/O.

    Args:
        on_duty: What a thread of ours runs: see :meth:`start`.
    """

    def __init__(self, on_duty: Callable[[bool], None]) -> None:
        self._on_duty = on_duty
        self._offers: list[threading.Thread] = []
        """Has an entry while another thread may take the duty."""
        self._posts: list[None] = [None]
        """Has an entry while nobody is on the watch."""
        self._count = 0
        """How often code that is not ours was begun."""
        self._asleep = False
        self._signal = Event()
        self._ended = False
        self.threads: list[IOThread] = []
        """All that were started and may still run."""

    def thread(self, on_duty: bool) -> IOThread:
        """
        Make a thread, not started yet.

        Args:
            on_duty: Whether it begins with the duty, and not with the watch.
        """
        name = "remote_executor I/O" if on_duty else "remote_executor I/O watch"
        thread = IOThread(target=self._on_duty, args=(on_duty,), name=name)
        # It ends by itself, since it is told to when the interpreter ends; see the driver.
        thread.daemon = True
        self.threads = [*(each for each in self.threads if each.is_alive()), thread]
        return thread

    def end(self) -> None:
        """End the watch: there is no duty any more."""
        self._ended = True
        self._signal.set()

    # ---------------------------------------------------------------- the thread on duty

    def offer(self, me: threading.Thread) -> None:
        """Go into code that may take long."""
        self._count += 1
        self._offers.append(me)
        if self._asleep:
            self._signal.set()
        elif self._posts:
            self._start_watch()

    def step(self, me: threading.Thread) -> bool:
        """Go into the next code of that kind; return False if the duty is another's by now."""
        self._count += 1
        return me in self._offers

    def take_back(self, me: threading.Thread) -> bool:
        """Return from that code; False if the duty is another's by now."""
        try:
            self._offers.remove(me)
        except ValueError:
            return False
        return True

    def _start_watch(self) -> None:
        if self._ended or sum(each.is_alive() for each in self.threads) > MOST_THREADS:
            return
        thread = self.thread(on_duty=False)
        try:
            thread.start()
        except RuntimeError:
            self.threads.remove(thread)  # too many threads: nobody takes over

    # -------------------------------------------------------------- the thread on watch

    def watch(self) -> bool:
        """
        Wait until the thread on duty is held up, and take the duty.

        Returns:
            Whether this thread has the duty now; False if there is none any more, or another
            thread is on the watch.
        """
        try:
            self._posts.pop()
        except IndexError:
            return False
        try:
            return self._watch()
        finally:
            self._posts.append(None)

    def _watch(self) -> bool:
        quiet, last = 0, -1
        while not self._ended:
            if quiet >= QUIET_LOOKS:
                quiet = 0
                self._asleep = True
                if not self._offers:  # who offers looks afterwards whether we sleep
                    self._signal.wait()
                self._asleep = False
            if self._signal.wait(LOOK_SECONDS):
                if not self._ended:
                    self._signal.clear()
                continue
            count = self._count
            if count == last and self._take():
                return True
            quiet = quiet + 1 if count == last else 0
            last = count
        return False

    def _take(self) -> bool:
        try:
            self._offers.pop()
        except IndexError:
            return False
        return True

    def is_of_ours(self) -> bool:
        """Return whether this thread is on duty, or was and is held up now."""
        return threading.current_thread() in self.threads
