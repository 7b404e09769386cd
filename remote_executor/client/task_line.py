"""
A worker's end of the way by which its tasks and their client speak about tasks of their own.

A thread reads it, from the first such task on: results are unpickled and callbacks run there, as an
executor's I/O thread does it. Any thread of a task may write.

A task that waits lends its slot. That is done around every wait of this library, see
:data:`net.interruptible.around`, if it takes longer than a moment and the task has children. Before
the wait returns the slot is taken back, which may take as long as others have it. ::

    waits > LEND_SECONDS --WAITS--> (others run) ... it is over --GOES_ON--> GO_ON --> it returns

Other waits, such as those of ``asyncio``, are not seen. So who reads the line looks now and then
whether the main thread has slept all the time, and lends the slot if it has.
"""

from __future__ import annotations

import itertools
import logging
import mmap
import os
import select
import time
from _thread import RLock
from collections.abc import Callable
from threading import main_thread
from typing import TYPE_CHECKING, Any, Protocol

from remote_executor.client.waits import IOThread
from remote_executor.errors import RemoteProtocolError
from remote_executor.net.in_task import here
from remote_executor.net.interruptible import Gates, around, start_thread
from remote_executor.net.streams import receive_with_fds
from remote_executor.task_errors import NestingError
from remote_executor.wire.frames import WORKER_LIMIT, FrameReader
from remote_executor.wire.messages import encode_fields
from remote_executor.wire.nested import Said, Spawn, said_in, spawn_frame
from remote_executor.wire.outbox import Outbox

if TYPE_CHECKING:
    import socket

    from remote_executor.client.child_code import Told
    from remote_executor.wire.frames import Frame

__all__ = ["OVER", "Heard", "TaskLine", "line"]

log = logging.getLogger("remote_executor.client")

MAX_TOLD = 256
"""Functions that the client keeps for one task; after that the oldest is told again if need be."""

LEND_SECONDS = 0.002
"""A wait that is shorter does not lend the slot: to lend it may start a process."""

COUNT_SECONDS = 10.0

LOOK_SECONDS = 0.05
"""A main thread that takes no time of a processor for so long sleeps."""

SLEEPING = 0.0005
"""Seconds of a processor that such a thread may take meanwhile, to look for signals."""

OVER = "the task that this executor belongs to is over"


class Heard(Protocol):
    """A child, for who reads the line."""

    def heard(self, frame: Frame) -> None:
        """Take what the client says of it."""

    def give_up(self, error: BaseException | None) -> None:
        """Nobody will say anything of it any more; None if its parent is over."""


class TaskLine:
    """
    The line of this worker.

    Attributes:
        children: What the client has yet to speak about, by number.
        told: The functions that the client knows of this task, by id, kept alive.
        running: How many children run here at the moment, one within the other.
    """

    def __init__(self) -> None:
        assert here.open is not None
        self._sock: socket.socket = here.open()
        self._sock.setblocking(True)
        self._reader = FrameReader(WORKER_LIMIT)
        self._reader.open_up(WORKER_LIMIT)
        self._lock = RLock()
        """Of who writes, and of the counts below. Taken for moments, and never while code of the
        user's runs."""
        self._numbers = itertools.count(1)
        self._functions = itertools.count(1)
        self.children: dict[int, Heard] = {}
        self.told: dict[Any, tuple[Any, int, Told]] = {}
        self._keys: dict[int, Any] = {}
        """Of what was told, by number."""
        self.running = 0
        self._task: int | None = None
        self._waiting = 0
        self._lent = False
        self._resuming = False
        self._gates = Gates()
        self._slots: int | None = None
        self._open = True
        self._pid = os.getpid()
        self._clock = _clock_of_main_thread()
        self._taken = 0.0
        """Seconds of a processor that the main thread had taken at the last look."""
        self._sleeps = False
        """Whether the slot was lent since the main thread sleeps."""
        start_thread(IOThread(target=self._read, name="remote_executor-children", daemon=True))

    # -------------------------------------------------------------------- the task

    def begin(self) -> int:
        """
        Return the id of the task that runs now.

        Raises:
            RuntimeError: If there is none, or this is a child process of the worker.
        """
        task = here.task()
        if task is None or not self._open or self._pid != os.getpid():
            raise RuntimeError(OVER)
        if task != self._task:
            self._task = task
            here.ended = self._ended
            around.lend = self._lend
            self.send(spawn_frame(Spawn.COUNT, task))  # the answer has the reader look about
        return task

    def _ended(self) -> None:
        """The task is over. Its children that are not done are of no interest any more."""
        here.ended = around.lend = self._task = self._slots = None
        self.told.clear()
        self._keys.clear()
        self.running = 0
        self._sleeps = False
        if self._waiting or self._lent or self._resuming:
            with self._lock:
                self._waiting = 0
                self._lent = self._resuming = False
        left, self.children = self.children, {}
        for child in left.values():
            child.give_up(None)

    def next_number(self) -> int:
        """Return a number for a child: no other of this worker's has it for long."""
        return 1 + next(self._numbers) % 0xFFFFFFF0

    def tell(self, key: Any, function: Any, told: Told) -> int:
        """
        Tell the client a function, in the place of the one that was told long ago.

        Args:
            key: By what it is found.
            function: The function, which is kept alive so that its id stays its own.
            told: What tells it.

        Returns:
            Its number.
        """
        number = 1 + next(self._functions) % MAX_TOLD
        before = self._keys.pop(number, None)
        if before is not None and self.told.get(before, (None, 0))[1] == number:
            del self.told[before]
        self._keys[number] = key
        self.told[key] = function, number, told
        parts = encode_fields(told.fields), *told.buffers
        self.send(spawn_frame(Spawn.FUNCTION, self.begin(), number, told.body, parts))
        return number

    def say(self, what: Spawn, number: int = 0, body: bytes = b"") -> None:
        """Say something of a child."""
        self.send(spawn_frame(what, self.begin(), number, body))

    def send(self, frame: Frame) -> None:
        """Write a frame, all of it."""
        try:
            with self._lock:
                if frame.tail is None and not frame.buffers:
                    self._sock.sendall(frame.raw)
                    return
                outbox = Outbox()
                outbox.put(frame)
                while outbox.size:
                    outbox.sent(self._sock.sendmsg(outbox.chunk()))
        except OSError as exc:
            raise RuntimeError("this worker's server has gone") from exc

    def count(self) -> int:
        """Return how many tasks the farm runs at a time."""
        self.begin()
        if self._slots is None:
            until = time.monotonic() + COUNT_SECONDS
            self._gates.wait_here(lambda: self._slots is not None or not self._open, until)
        return self._slots or 1

    # --------------------------------------------------------------------- waiting

    def _lend(self, wait: Callable[[float | None], Any], until: float | None) -> Any:
        """Call a wait, and lend the slot if it takes longer than a moment."""
        now = time.monotonic()
        if not self.children or (until is not None and until - now <= LEND_SECONDS):
            return wait(until)
        found = wait(now + LEND_SECONDS)
        if found is not None and found is not False:
            return found
        self._begin_wait()
        try:
            found = wait(until)
        except BaseException:
            self._end_wait()  # and what it raises is not to wait for a slot
            raise
        self._end_wait()
        if self._resuming:
            self._gates.wait_here(lambda: not self._resuming or not self._open)
        return found

    def _begin_wait(self) -> None:
        with self._lock:
            self._waiting += 1
            if not self._lent and not self._resuming:
                self._lent = True
                self.say(Spawn.WAITS)

    def _end_wait(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting -= 1
                if not self._waiting and self._lent:
                    self._lent, self._resuming = False, True
                    self.say(Spawn.GOES_ON)

    def _go_on(self) -> None:
        """The slot is ours again."""
        with self._lock:
            self._resuming = False
            if self._waiting:  # another thread waits still
                self._lent = True
                self.say(Spawn.WAITS)
        self._gates.open()

    # --------------------------------------------------------------------- reading

    def _look(self) -> None:
        """See whether the main thread sleeps, of which nothing else tells."""
        if self._clock is None or not self.children:
            return
        taken = time.clock_gettime(self._clock)
        slept, self._taken = taken - self._taken < SLEEPING, taken
        if slept and not self._sleeps and not self._lent and not self._resuming:
            self._sleeps = True
            self._begin_wait()
        elif not slept:
            self._wake()

    def _wake(self) -> None:
        """The main thread goes on, or has something to go on with."""
        if self._sleeps:
            self._sleeps = False
            self._end_wait()

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        while True:
            try:
                while self._task is not None and not poll.poll(LOOK_SECONDS * 1000):
                    self._look()
                reader = self._reader
                count = receive_with_fds(self._sock, reader.get_buffer(), reader.segments)
                frames = self._reader.filled(count) if count else []
            except (OSError, RemoteProtocolError):
                count = 0
            if not count:
                break
            for frame in frames:
                try:
                    self._heard(frame)
                except BaseException:  # whatever it was, it is no end for all the others
                    log.exception("what became of a task's task could not be delivered")
        self._open = False
        self._gates.open()
        self._give_up(RuntimeError("this worker's server has gone"))

    def _heard(self, frame: Frame) -> None:
        said = said_in(frame)
        if frame.segment is not None and said == Said.IDLE:
            if frame.segment.fd >= 0:
                here.idle = mmap.mmap(frame.segment.fd, mmap.PAGESIZE, prot=mmap.PROT_READ)
            return
        if frame.id != self._task:
            return
        if said == Said.GO_ON:
            self._go_on()
        elif said == Said.COUNT:
            self._slots = frame.aux
            self._gates.open()
        elif said == Said.NO_ROOM:
            with self._lock:
                self._lent = False
            words = (
                f"{frame.aux} tasks wait for tasks of their own at this server already, each in a "
                "process of its own: nest less deeply, or have fewer wait"
            )
            self.say(Spawn.CANCEL)
            self._give_up(NestingError(words))
        else:
            child = self.children.get(frame.aux)
            if child is not None:
                if said != Said.BEGUN:
                    self._wake()
                child.heard(frame)

    def _give_up(self, error: BaseException) -> None:
        left, self.children = self.children, {}
        for child in left.values():
            child.give_up(error)

    def close_in_child(self) -> None:
        """A task forked: the child must not speak by a socket that it shares."""
        self._open = False
        self._sock.close()
        around.lend = here.ended = None


def _clock_of_main_thread() -> int | None:
    """Return the clock of the time that the main thread takes; None where there is none."""
    clock_of = getattr(time, "pthread_getcpuclockid", None)
    ident = main_thread().ident
    return None if clock_of is None or ident is None else int(clock_of(ident))


_line: TaskLine | None = None
_opening = RLock()


def line() -> TaskLine:
    """
    Return the line of this worker; opened by the first who asks.

    Raises:
        RuntimeError: If this is no worker, or no task runs.
        OSError: If there are too many descriptors.
    """
    global _line
    if here.open is None or here.task() is None:
        raise RuntimeError(OVER)
    if _line is None:
        with _opening:  # of several threads one
            if _line is None:
                _line = TaskLine()
    return _line


def _after_fork() -> None:
    global _line, _opening
    _opening = RLock()
    if _line is not None:
        _line.close_in_child()
        _line = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
