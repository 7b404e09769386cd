"""Channels: tasks go in, results come out in the order in which they are done."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec

from remote_executor.client.waits import check_may_wait
from remote_executor.parallel.kernel import SERIAL, kernel_of
from remote_executor.parallel.parts import count_of
from remote_executor.parallel.timers import Timer, after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

    from remote_executor.parallel.kernel import Kernel

__all__ = ["Channel"]

P = ParamSpec("P")

LOOK_SECONDS = 0.05
"""How often an iteration looks whether another thread has received the last result."""


class Channel:
    """
    A queue of results: lparallel's and lfarm's channel.

    ::

        channel = Channel()
        for name in names:
            channel.submit(fetch, name)
        for _ in names:
            print(channel.receive())

    Each task delivers once, whatever becomes of it: a value, an error, a cancellation, a kill. Any
    number of threads may submit and receive.

    Args:
        executor: An Executor or a Kernel; None for the current kernel as of now.
        maxsize: How many results may be submitted and not yet received; 0 for any number. Whoever
            submits more waits until somebody receives, so that must be another thread.

    Raises:
        NoKernelError: If there is no kernel.
        TypeError, ValueError: If ``maxsize`` is not an int from 0.
    """

    def __init__(self, executor: Executor | Kernel | None = None, maxsize: int = 0) -> None:
        self._maxsize = count_of(maxsize, "maxsize")
        self._kernel = kernel_of(executor)
        self._done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._outstanding: set[Future[Any]] = set()
        # In a task there is no other thread that could receive, and nothing to hold back.
        held = self._maxsize > 0 and self._kernel is not SERIAL
        self._room = threading.Semaphore(self._maxsize) if held else None

    def __repr__(self) -> str:
        return f"<Channel outstanding={self.outstanding} on {self._kernel!r}>"

    @property
    def outstanding(self) -> int:
        """How many tasks were submitted and not yet received."""
        return len(self._outstanding)

    # ---------------------------------------------------------------------- going in

    def submit(self, fn: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Future[Any]:
        """
        Submit a task (lparallel's submit-task). Take its result by :meth:`receive`.

        Args:
            fn: What to call.
            args: Its positional arguments.
            kwargs: Its keyword arguments; all of them are the task's.

        Returns:
            The task's future, with which it can be cancelled, or killed on a farm.

        Raises:
            RuntimeError: If the kernel was ended, or a done-callback would have to wait for room.
            TypeError: If ``fn`` is not callable.
        """
        room = self._room
        if room is not None and not room.acquire(blocking=False):
            check_may_wait()
            room.acquire()
        try:
            future = self._kernel.submit(fn, *args, **kwargs)
        except BaseException:
            if room is not None:
                room.release()
            raise
        self._outstanding.add(future)
        future.add_done_callback(self._done.put)  # C, and never waits
        return future

    def submit_timeout(self, seconds: float, value: Any = None) -> Timer:
        """
        Have a value arrive after some time, without the use of any worker.

        Args:
            seconds: From now.
            value: What :meth:`receive` returns then.

        Returns:
            A handle for :meth:`cancel_timeout`.
        """
        return after(seconds, self._done.put, _arrived(value))

    def cancel_timeout(self, timer: Timer, value: Any = None) -> bool:
        """
        Have another value arrive at once in place of a timer's.

        Args:
            timer: What :meth:`submit_timeout` returned.
            value: What :meth:`receive` returns.

        Returns:
            True if it counts; False if the timer's value came first, or another cancellation's.
        """
        if not timer.claim():
            return False
        self._done.put(_arrived(value))
        return True

    # -------------------------------------------------------------------- coming out

    def receive(self) -> Any:
        """
        Return the next result, in order of completion; wait for it.

        If nothing was submitted it waits until some other thread submits. To wait for a time see
        :meth:`try_receive`.

        Raises:
            Exception: What the task raised. It is received by that, and not raised again.
            RuntimeError: If a done-callback would have to wait.
        """
        try:
            future = self._done.get_nowait()
        except queue.Empty:
            check_may_wait()
            future = self._done.get()
        return self._take(future)

    def try_receive(self, timeout: float = 0) -> tuple[Any, bool]:
        """
        Return the next result if there is one within some time.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            ``(result, True)``, or ``(None, False)`` if nothing came. A later result is not lost.

        Raises:
            Exception: What the task raised.
            RuntimeError: If a done-callback would have to wait.
        """
        try:
            future = self._done.get_nowait()
        except queue.Empty:
            if timeout <= 0:
                return None, False
            check_may_wait()
            try:
                future = self._done.get(timeout=timeout)
            except queue.Empty:
                return None, False
        return self._take(future), True

    def receive_many(self, n: int) -> Iterator[Any]:
        """
        Yield the next ``n`` results (lparallel's do-fast-receives).

        Args:
            n: How many.

        Raises:
            Exception: What a task raised, at its turn. Go on with a new call for the others.
        """
        for _ in range(count_of(n, "n")):
            yield self.receive()

    def __iter__(self) -> Iterator[Any]:
        """Yield results until no task is outstanding. A timer is not waited for."""
        while True:
            try:
                future = self._done.get_nowait()
            except queue.Empty:
                if not self._outstanding:
                    return
                check_may_wait()
                try:
                    future = self._done.get(timeout=LOOK_SECONDS)
                except queue.Empty:
                    continue
            yield self._take(future)

    def _take(self, future: Future[Any]) -> Any:
        if future in self._outstanding:
            self._outstanding.discard(future)
            if self._room is not None:
                self._room.release()
        return future.result()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Channel cannot be sent to a server: a task returns its result, and whoever "
            "submitted it receives that"
        )


def _arrived(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future
