"""
Futures, and the executor itself, in asyncio: ``await future`` and ``async with executor``.

::

    I/O thread                        a loop of asyncio, in any thread
    ----------                        --------------------------------
                                      await future: a waiter, and a done-callback
    results have come:
      the callback of each puts
      its waiter into the loop's
      mailbox; the first of them
      wakes the loop ...............  empty the mailbox: all their tasks go on

To wake a loop takes a system call and a turn of the interpreter's lock, so it is done once for all
results that come together, and not, as by ``asyncio.wrap_future``, once for each. Nothing in here
waits in the loop's thread: what may take a while (to end an executor) is done by a thread of its
own, and what a server has to say (whether a task that is cancelled had begun) is not waited for.

A loop may close, or its thread may end, while results are under way. They are dropped then: nobody
is there who would take them.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from remote_executor.net.interruptible import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from remote_executor.client.futures import SafeFuture

__all__ = ["Mailbox", "awaited", "mailbox", "shut_down", "wait_for"]

T = TypeVar("T")

_here = threading.local()
"""Has the mailbox of the loop that was used last in this thread."""


class Mailbox:
    """
    What other threads have for one loop: waiters whose results have come.

    Args:
        loop: The loop. It is not kept alive.
    """

    __slots__ = ("_may_wake", "_waiters", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = weakref.ref(loop)
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._may_wake: list[None] = [None]
        """Has an entry while the loop was not woken: whoever takes it out has to do so."""

    def put(self, waiter: asyncio.Future[None], _: object = None) -> None:
        """
        Have a waiter of the loop go on. Any thread may call this; it waits for nobody.

        Args:
            waiter: A future of the loop's. One that is done is left as it is.
        """
        # In this order: who empties the mailbox gives the entry back before it looks for waiters.
        self._waiters.append(waiter)
        try:
            self._may_wake.pop()
        except IndexError:
            return  # it was woken, and has not looked yet
        loop = self.loop()
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self._empty)
        except RuntimeError:
            loop = None  # it is closed
        if loop is None:
            self._waiters.clear()

    def _empty(self) -> None:
        self._may_wake.append(None)
        waiters = self._waiters
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)


def mailbox(loop: asyncio.AbstractEventLoop) -> Mailbox:
    """
    Return the mailbox of the loop that runs in this thread.

    Args:
        loop: The loop.
    """
    box: Mailbox | None = getattr(_here, "box", None)
    if box is None or box.loop() is not loop:
        box = _here.box = Mailbox(loop)
    return box


def wait_for(future: SafeFuture[T]) -> Generator[Any, None, T]:
    """
    Wait for a future in a coroutine: what ``await future`` does.

    If the task that waits is cancelled, or its coroutine is closed, the future is told by
    :meth:`~SafeFuture.abandon`.

    Args:
        future: Which one.

    Returns:
        Its result.

    Raises:
        asyncio.CancelledError: The task that waits, or the future, was cancelled.
        RuntimeError: No loop of asyncio runs in this thread.
        Exception: What the future holds.
    """
    if not future.done():
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        future.add_done_callback(partial(mailbox(loop).put, waiter))
        try:
            yield from waiter
        except BaseException:  # cancelled, or closed: it goes on
            if not future.done():
                future.abandon()
            raise
    if future.cancelled():
        # As for a future of asyncio. The standard library's own CancelledError is an Exception.
        raise asyncio.CancelledError
    return future.result()


async def awaited(future: SafeFuture[T]) -> T:
    """Wait for a future; see :func:`wait_for`."""
    return await future


async def shut_down(
    end: Callable[[bool], object],
    hurry: Callable[[], object],
    exc_type: type[BaseException] | None,
) -> None:
    """
    Leave the block of an executor: wait for its end, which a thread of its own brings about.

    As for a ``with`` block and ^C: the first cancellation drops what has not begun, a second one,
    while this waits, stops what runs.

    Args:
        end: Ends it, and returns when it has ended. Is told whether to drop what has not begun.
        hurry: Stops what runs. Called, in another thread, if the task that waits is cancelled.
        exc_type: Of what has ended the block.

    Raises:
        RuntimeError: If there are too many threads.
        BaseException: What ``end`` raised.
    """
    stopped = (KeyboardInterrupt, asyncio.CancelledError, GeneratorExit)
    interrupted = exc_type is not None and issubclass(exc_type, stopped)
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()
    tell = partial(mailbox(loop).put, waiter)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            end(interrupted)
        except BaseException as exc:
            errors.append(exc)  # for who waits
        tell()

    _start(run)
    try:
        await waiter
    except BaseException:
        _start(hurry)
        raise
    if errors:
        raise errors[0]


def _start(call: Callable[[], object]) -> None:
    """Call something in a thread of its own. It holds up nobody at the interpreter's end."""
    start_thread(threading.Thread(target=call, name="remote_executor end", daemon=True))
