"""Channels: tasks go in, results come out in the order in which they are done."""

from __future__ import annotations

import time
from _thread import get_ident
from collections import deque
from itertools import filterfalse, starmap
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec

from remote_executor.client.futures import SafeFuture
from remote_executor.client.waits import check_may_wait
from remote_executor.net.interruptible import Gates, Turns, slices
from remote_executor.parallel.kernel import SERIAL, kernel_of
from remote_executor.parallel.parts import count_of
from remote_executor.parallel.timers import Timer, after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor, Future

    from remote_executor.parallel.kernel import Kernel

__all__ = ["Channel"]

P = ParamSpec("P")

LOOK_SECONDS = 0.05
"""How often an iteration looks whether another thread has received the last result, and who waits
for room whether there is some."""


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
        self._done: SimpleQueue[Future[Any]] = SimpleQueue()
        self._outstanding: set[Future[Any]] = set()
        # In a task there is no other thread that could receive, and nothing to hold back.
        held = self._maxsize > 0 and self._kernel is not SERIAL
        self._held = held
        self._submitting = Turns()
        """Had, where there is a limit, by who submits or waits for room."""
        self._room = Gates()
        """Where he waits."""

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
        if not self._held:
            return self._submit(fn, args, kwargs)
        while (
            done := self._submitting.attempt(lambda: self._submit_held(fn, args, kwargs))
        ) is None:
            if self._submitting.holder() == get_ident():
                # A handler or a __del__, within the very wait: it waits by itself.
                return self._submit_held(fn, args, kwargs)
            check_may_wait()
            self._submitting.wait()
        return done[0]

    def _submit_held(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        """Submit when there is room."""
        while not self._has_room():
            check_may_wait()
            # Short, since whoever takes a result out may be interrupted before he tells.
            self._room.wait(self._has_room, time.monotonic() + LOOK_SECONDS)
        return self._submit(fn, args, kwargs)

    def _has_room(self) -> bool:
        return len(self._outstanding) < self._maxsize

    def _submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        future = self._kernel.submit(fn, *args, **kwargs)
        try:
            self._outstanding.add(future)
            future.add_done_callback(self._done.put)  # C, and never waits
        except BaseException:
            self._outstanding.discard(future)  # else an iteration would wait for it for ever
            raise
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
            future = self._get(0)
        except Empty:
            check_may_wait()
            future = self._get(None)
        return future.result()

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
            future = self._get(0)
        except Empty:
            if timeout <= 0:
                return None, False
            check_may_wait()
            try:
                future = self._get(timeout)
            except Empty:
                return None, False
        return future.result(), True

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
                future = self._get(0)
            except Empty:
                if not self._outstanding:
                    return
                check_may_wait()
                try:
                    future = self._get(LOOK_SECONDS)
                except Empty:
                    continue
            yield future.result()

    def _get(self, timeout: float | None) -> Future[Any]:
        """
        Wait for the next future that is done, and take it out.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Raises:
            Empty: None came.
        """
        if timeout == 0:
            return self._take(0)
        for seconds in slices(None if timeout is None else time.monotonic() + timeout):
            try:
                return self._take(seconds)
            except Empty:
                continue
        raise Empty

    def _take(self, timeout: float) -> Future[Any]:
        """
        Take out the next future that is done.

        To wait, to take it out of one place and out of the other is one call into C: a ^C comes
        before or after it. If it comes after, what was taken is put back.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            Empty: None came.
        """
        taken: list[Future[Any]] = []
        get = starmap(self._done.get, ((timeout != 0, timeout),))
        try:
            # append() returns None, so that the future goes on to the next step.
            deque(map(self._outstanding.discard, filterfalse(taken.append, get)), maxlen=0)
            if self._held:
                self._room.open()
        except BaseException:
            for future in taken:
                if type(future) is not _Value:
                    self._outstanding.add(future)
                self._done.put(future)
            raise
        return taken[0]

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Channel cannot be sent to a server: a task returns its result, and whoever "
            "submitted it receives that"
        )


class _Value(SafeFuture[Any]):
    """A value that arrives without a task."""


def _arrived(value: Any) -> Future[Any]:
    future = _Value()
    future.set_result(value)
    return future
