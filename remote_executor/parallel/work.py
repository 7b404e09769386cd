"""
The tasks of one cognate, under way together: collected in order, and stopped together.

::

    with Work(kernel, timeout) as work:
        for part in parts:
            work.submit(function, part)
        for result in work.in_order():       # or as_completed()
            ...

However the block is left, what has not begun is cancelled. What runs is killed, where the executor
can, if nobody needs it any more: after a timeout, a ^C, or when an answer was found without it.
"""

from __future__ import annotations

import queue
import sys
from concurrent.futures import Future, TimeoutError
from typing import TYPE_CHECKING, Any, final

from remote_executor.client.waits import check_may_wait
from remote_executor.net.interruptible import take
from remote_executor.parallel.parts import deadline_of
from remote_executor.parallel.timers import after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from remote_executor.parallel.kernel import Farm, Kernel

__all__ = ["LAST_CHANCE", "Work", "stop_all"]

LAST_CHANCE = 0.1
"""Seconds that a task has to end by itself when nobody needs it any more: a worker is worth it."""


@final
class Work:
    """
    Tasks that belong together.

    Args:
        kernel: Runs them.
        timeout: Seconds from now after which waiting raises TimeoutError; None for no limit.

    Raises:
        RuntimeError: In a done-callback, which must not wait for the thread that runs it.
        TypeError: If the timeout is not a number.
    """

    def __init__(self, kernel: Kernel, timeout: float | None = None) -> None:
        check_may_wait()
        self._kernel = kernel
        self._until = deadline_of(timeout)
        self._futures: dict[Future[Any], int] = {}
        self._take: Callable[..., Future[Any] | None] | None = getattr(
            kernel.executor, "take_done", None
        )
        """How the executor of a task waits, which runs some itself meanwhile."""
        self._count = 0
        self._yielded = 0
        self._done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> None:
        """
        Submit one more task. Its index is the number of those before it.

        Args:
            fn: What to call.
            args: With which arguments.
        """
        future = self._kernel.submit(fn, *args)
        self._futures[future] = self._count
        self._count += 1
        future.add_done_callback(self._done.put)

    def in_order(self, ends: Callable[[Any], bool] | None = None) -> Iterator[Any]:
        """
        Yield the results in the order in which the tasks were submitted.

        Args:
            ends: Tells of a result whether it makes those after it superfluous, so that they need
                not begin. It is the last one to be yielded.

        Raises:
            TimeoutError: They did not come in time.
            Exception: The error of the first task that failed, first in that order.
        """
        arrived: dict[int, Future[Any]] = {}
        following = self._yielded
        last = sys.maxsize
        while following < self._count and following <= last:
            index, future = self._next()
            arrived[index] = future
            if index < last and (_failed(future) or (ends is not None and ends(future.result()))):
                # What comes after it does not matter any more; what comes before it does.
                last = index
                self._cancel(index)
            while following in arrived and following <= last:
                yield arrived.pop(following).result()
                following += 1
                self._yielded = following

    def answers(self) -> Iterator[tuple[int, Any]]:
        """
        Yield (index, result) as the tasks are done, for who may need but one of them.

        After a task has failed only those before it count: each of them could still make the
        failure irrelevant, as it would be if the tasks ran one after the other.

        Raises:
            TimeoutError: They did not come in time.
            Exception: The error of the first task that failed, first in the order in which they
                were submitted, when all before it are done.
        """
        failed: Future[Any] | None = None
        last = missing = self._count
        while missing:
            index, future = self._next()
            if index > last:
                continue
            missing -= 1
            if _failed(future):
                failed, last = future, index
                missing = sum(other < index for other in self._futures.values())
                self._cancel(index)
            else:
                yield index, future.result()
        if failed is not None:
            failed.result()

    def as_completed(self) -> Iterator[tuple[int, Any]]:
        """
        Yield (index, result) as the tasks are done.

        Raises:
            TimeoutError: They did not come in time.
            Exception: The error of a task, at its turn.
        """
        for _ in range(self._count):
            yield self.next()

    def next(self) -> tuple[int, Any]:
        """
        Wait for one more task and return (index, result).

        Raises:
            TimeoutError: None came in time.
            Exception: The task's error.
        """
        index, future = self._next()
        return index, future.result()

    def _next(self) -> tuple[int, Future[Any]]:
        """Wait for the next task that is done and let go of it."""
        if self._take is not None:
            future = self._take(self._done, self._futures, self._until)
        else:
            future = take(self._done, self._until)
        if future is None:
            raise TimeoutError(f"{len(self._futures)} of {self._count} parts were not done in time")
        return self._futures.pop(future), future

    def _cancel(self, above: int) -> None:
        cancel_all(self._kernel, [each for each, index in self._futures.items() if index > above])

    # ------------------------------------------------------------------------- stopping

    def stop(self, kill: bool) -> None:
        """
        Cancel what has not begun.

        Args:
            kill: Whether to stop what runs, too, if the executor can and it does not end soon.
        """
        unwanted = list(self._futures)
        self._futures.clear()
        cancel_all(self._kernel, unwanted)
        if kill:
            stop_all(self._kernel, unwanted)

    def __enter__(self) -> Work:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._futures:
            # A part that failed leaves the others to themselves; else nobody wants them.
            self.stop(kill=not isinstance(exc, Exception) or isinstance(exc, TimeoutError))


def _failed(future: Future[Any]) -> bool:
    return future.cancelled() or future.exception() is not None


def cancel_all(kernel: Kernel, futures: list[Future[Any]]) -> None:
    """Cancel those that have not begun. A farm needs not be asked for each of them."""
    if kernel.farm is not None:
        kernel.farm.cancel_all(futures)
    else:
        for future in futures:
            future.cancel()


def stop_all(kernel: Kernel, running: list[Future[Any]]) -> None:
    """Kill tasks that nobody needs any more, where the executor can, unless they end soon."""
    if kernel.farm is not None and running:
        after(LAST_CHANCE, _kill_all, kernel.farm, running)


def _kill_all(farm: Farm, futures: list[Future[Any]]) -> None:
    for future in futures:
        if not future.done():
            farm.kill(future)
