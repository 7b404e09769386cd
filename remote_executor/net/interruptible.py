"""
Waits and turns that a signal handler or a ``__del__`` may interrupt, or enter again, anywhere.

A handler runs in the main thread and may raise between any two bytecodes; a ``__del__`` runs
wherever the garbage collector pleases. So a caller's thread may leave a ``with lock:`` block by an
exception that falls between ``lock.__enter__`` and the block (CPython 3.14 and later), a
``threading.Condition`` or an ``Event`` in the middle of their Python code (all versions), and it
may come back into a block that it has not left. In both cases somebody waits for ever. No lock of
this package is therefore taken by a thread that runs callers' code. What there is instead:

One call into C
    CPython runs handlers between bytecodes, and in calls into C that wait. A call that does not
    wait is done or not begun. ``deque(map(partial.__call__, steps), maxlen=0)`` makes several C
    calls in one: see :func:`at_once`. ``list.append``, ``list.pop``, ``list.remove``,
    ``dict.setdefault``, ``setattr``, and a lock's ``acquire`` and ``release`` are such calls.

Gates, to wait
    A gate is a lock of which nobody is the owner: whoever waits makes one, closed, and puts it
    where :meth:`Gates.open` finds it. An interrupted waiter leaves a gate that is opened once and
    thrown away. To change something and to open the gates is one call into C, so that there is no
    change of which nobody is told. The main thread waits in slices: a signal that comes between
    CPython's last look for signals and the system call is only noted, and does not end the call,
    so that its handler would run when the wait is over, which may be never.

Turns, to be the only one
    A turn is a *generator* that runs what is to be done; the first in the queue that still runs has
    it. CPython itself takes note of the end of a generator (``gi_frame`` is None), however it
    ended. So a turn cannot be left behind, and nobody has to give it back.

Nothing in here takes a lock that another thread holds while it runs Python code, and none of it
depends on the order in which finalizers run. It is for the few threads that meet at one object:
time and memory of a wait are those of the gates, one for each thread that waits.

What is left: two exceptions by handlers within the same few microseconds may cost a wake-up of a
thread that waits for a turn, which looks again after :data:`LOOK_SECONDS`. On PyPy a handler may
also run within :func:`at_once`.
"""

from __future__ import annotations

import threading
import time
from _thread import TIMEOUT_MAX, LockType, allocate_lock, get_ident, start_new_thread
from collections import deque
from functools import partial
from itertools import chain
from queue import Empty
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from queue import SimpleQueue
    from types import GeneratorType

__all__ = ["Event", "Gates", "Turns", "around", "at_once", "slices", "start_thread", "take"]

T = TypeVar("T")

FIRST_SLICE = 0.05
"""Seconds for which the main thread waits before it looks for signals. The next slice is twice as
long, and so on: it is the beginning of a wait that a signal may have missed."""

LAST_SLICE = 1.0
"""No slice is longer than twice that: to wake that seldom costs nothing."""

LOOK_SECONDS = 0.05
"""How often somebody who waits for a turn looks whether it was left by an interrupt."""

_call = partial.__call__
_open = LockType.release


def at_once(*steps: partial[Any]) -> None:
    """
    Make several calls into C in one, so that no signal handler runs between them.

    Args:
        steps: Calls of functions written in C that do not wait. The first that raises ends it.
    """
    deque(map(_call, steps), maxlen=0)


def slices(until: float | None) -> Iterator[float]:
    """
    Yield for how many seconds to wait at a time, as long as there is time left.

    For whoever waits in C, to be interrupted by all signals: between two slices CPython looks for
    them. Only the main thread needs that, all others wait in one piece.

    Args:
        until: Monotonic seconds at which the time is over; None for never.
    """
    is_main = get_ident() == threading.main_thread().ident
    longest = FIRST_SLICE if is_main else TIMEOUT_MAX
    while True:
        left = TIMEOUT_MAX if until is None else min(until - time.monotonic(), TIMEOUT_MAX)
        if left <= 0:
            return
        yield min(left, longest)
        if longest <= LAST_SLICE:
            longest *= 2


def take(source: SimpleQueue[T], until: float | None) -> T | None:
    """
    Wait for what a queue brings.

    Args:
        source: The queue. None is nothing that it brings.
        until: Monotonic seconds at which to give up; None for never.

    Returns:
        What came; None if nothing came in time.
    """
    try:
        return source.get(False)
    except Empty:
        pass

    def wait(until: float | None) -> T | None:
        for seconds in slices(until):
            try:
                return source.get(True, seconds)
            except Empty:
                continue
        return None

    found: T | None = wait(until) if around.lend is None else around.lend(wait, until)
    return found


class Gates:
    """Threads that wait for something to change. Any thread may wait and open."""

    __slots__ = ("_closed",)

    def __init__(self) -> None:
        self._closed: list[LockType] = []

    def __len__(self) -> int:
        return len(self._closed)

    def wait(self, ready: Callable[[], object], until: float | None = None) -> bool:
        """
        Wait until something holds.

        Args:
            ready: Tells whether it does. Quick, and none of the user's.
            until: Monotonic seconds at which to give up; None for never.

        Returns:
            Whether it holds.
        """
        if around.lend is not None and not ready():
            return bool(around.lend(partial(self.wait_here, ready), until))
        return self.wait_here(ready, until)

    def wait_here(self, ready: Callable[[], object], until: float | None = None) -> bool:
        """As :meth:`wait`, and keep the slot meanwhile if this is a task."""
        while not ready():
            gate = allocate_lock()
            gate.acquire()
            self._closed.append(gate)
            try:
                for seconds in slices(until):
                    # Once more, now that whoever changes it would find the gate.
                    if ready() or gate.acquire(True, seconds):
                        break
                else:
                    return bool(ready())
            finally:
                try:
                    self._closed.remove(gate)
                except ValueError:
                    pass  # it was opened
        return True

    def open(self, *steps: partial[Any]) -> None:
        """
        Make some changes, and have all who wait look again: in one call into C.

        Args:
            steps: As for :func:`at_once`. If one raises, nobody is told.

        Raises:
            Exception: What a step raised.
        """
        closed = self._closed
        told: list[None] = []
        try:
            # Each gate is opened by whoever has popped it. In the end there is none to pop.
            deque(
                chain(
                    map(_call, steps),
                    map(told.append, (None,)),
                    map(_open, iter(closed.pop, None)),
                ),
                maxlen=0,
            )
        except IndexError:
            if not told:
                raise


class Event:
    """As ``threading.Event``, which is Python code with a lock in it."""

    __slots__ = ("_gates", "_is_set")

    def __init__(self) -> None:
        self._gates = Gates()
        self._is_set = False

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and let those go on who wait."""
        self._gates.open(partial(setattr, self, "_is_set", True))

    def clear(self) -> None:
        """Make who comes now wait."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """
        Wait until it is set.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Returns:
            Whether it is set.
        """
        until = None if timeout is None else time.monotonic() + timeout
        return self._gates.wait(self.is_set, until)


class Around:
    """
    What is done around the waits of this process.

    Attributes:
        lend: Calls a wait, which it is given with the time at which to give up, and lends the slot
            of the task that waits; None but in a worker whose task has made tasks.
    """

    __slots__ = ("lend",)

    def __init__(self) -> None:
        self.lend: Callable[[Callable[[float | None], Any], float | None], Any] | None = None


around = Around()


_Turn = tuple["GeneratorType[None, None, Any]", int]
"""What runs, and in which thread."""


class Turns:
    """Something that one thread at a time may do, and what that calls may be the user's."""

    __slots__ = ("_gates", "_queue")

    def __init__(self) -> None:
        self._gates = Gates()
        self._queue: list[_Turn] = []

    def attempt(self, body: Callable[[], T]) -> tuple[T] | None:
        """
        Call something unless somebody else has the turn, this thread itself included.

        Args:
            body: What to call.

        Returns:
            A tuple of what it returned; None if somebody has the turn.

        Raises:
            Exception: What it raised.
        """
        me: list[_Turn] = []
        steps = self._steps(body, me)
        me.append((cast("GeneratorType[None, None, Any]", steps), get_ident()))
        try:
            next(steps)
        except StopIteration as end:
            outcome = end.value
        if isinstance(outcome, StopIteration):
            raise outcome  # the body's: a generator cannot raise it
        return outcome  # type: ignore[no-any-return]

    def _steps(self, body: Callable[[], T], me: list[_Turn]) -> Generator[None, None, Any]:
        yield from ()  # makes this a generator, and waits for nothing
        turn = me.pop()
        self._queue.append(turn)  # counts from now until the end of this function
        try:
            return (body(),) if self._first() is turn else None
        except StopIteration as exc:
            return exc
        finally:
            self._forget(turn)
            self._gates.open()

    def _first(self) -> _Turn | None:
        for turn in self._queue[:]:
            if turn[0].gi_frame is not None:
                return turn
            self._forget(turn)  # it was interrupted before it could do that itself
        return None

    def _forget(self, turn: _Turn) -> None:
        try:
            self._queue.remove(turn)
        except ValueError:
            pass  # somebody else has seen that it is over

    def holder(self) -> int | None:
        """Return the identity of the thread that has the turn; None if none has it."""
        turn = self._first()
        return None if turn is None else turn[1]

    def wait(self, until: float | None = None) -> None:
        """
        Wait until nobody has the turn, or for a short while: look what has become of it.

        Args:
            until: Monotonic seconds at which to give up; None for never.
        """
        look = time.monotonic() + LOOK_SECONDS
        self._gates.wait(lambda: not self._first(), look if until is None else min(look, until))


def start_thread(thread: threading.Thread) -> None:
    """
    Start a thread, and return once it runs.

    ``Thread.start`` waits by an Event of the standard library. An interrupt in there can keep the
    new thread from ever running, so another thread, which signals do not reach, does it.

    Args:
        thread: Not started yet. An interrupt of this call does not keep it from being started.

    Raises:
        RuntimeError: If there are too many threads.
    """
    errors: list[BaseException] = []
    tried = Event()

    def start() -> None:
        try:
            thread.start()
        except BaseException as exc:
            errors.append(exc)  # raised by who waits, if somebody does
        tried.set()

    start_new_thread(start, ())
    tried.wait()
    if errors:
        raise errors[0]
