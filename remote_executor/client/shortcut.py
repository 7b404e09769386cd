"""
The shortcut: a caller that has the farm to itself sends its task and reads the answer itself.

Much code waits for each task before it submits the next. What costs it most is the I/O thread: two
threads to be woken and the interpreter's lock to be passed on, twice a task. So while nothing is
under way the I/O thread *parks*: it leaves one stream to callers and looks after it now and then.
::

    caller                                   I/O thread
    ------                                   ----------
    submit: send        (one call into C)    parked: every few milliseconds
    result: wait                                take the journal
            receive     (one call into C)       do as if it had sent and received
            unpickle, set the future

A caller changes nothing but the journal, and each change is one call into C, which also does what
it writes down. A ^C comes before it or after it, never between. What a task means to the scheduler
and the session is done later, by the I/O thread, from the journal. Whatever is out of the ordinary
(a second task, another message, a wait that takes longer, somebody who looks at the future in
another way than :meth:`~FarmFuture.result`) ends the parking, and things go their usual way.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from remote_executor.net.loop import READ
from remote_executor.payload.pickles import load
from remote_executor.wire.frames import HEADER, Frame, make_frame
from remote_executor.wire.messages import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from remote_executor.client.futures import FarmFuture
    from remote_executor.client.peer import Peer
    from remote_executor.core.known import Functions
    from remote_executor.core.scheduler import Task
    from remote_executor.net.loop import Loop

__all__ = ["PATIENCE", "Sent", "Shortcut"]

PATIENCE = 0.002
"""Seconds for which a caller waits for its answer itself."""

LARGEST = 16 * 1024
"""Bytes of a task that takes the shortcut."""

MOST = 256
"""Tasks in the journal at which a caller leaves the next one to the I/O thread."""

TASK = int(Kind.TASK)
RESULT = int(Kind.RESULT)

Sent = tuple["Task", Frame, int]
"""A task that was sent, its frame, and how many bytes of that have gone."""

Journal = tuple[list[Sent], list[Any]]
"""What was sent, and what was received."""


class Shortcut:
    """
    One stream while callers may use it, and the journal of what they did.

    The I/O thread calls :meth:`open`, and from then on :meth:`take` now and then, until that or
    :meth:`close` has closed it. Callers :meth:`send`, then :meth:`fetch`.

    Args:
        loop: Watches the stream; callers wait with it, too.
        functions: Those that servers may know.
    """

    __slots__ = (
        "_functions",
        "_loop",
        "_peer",
        "_receive",
        "_received",
        "_send",
        "_sent",
        "_waits",
        "_wanted",
        "lock",
    )

    def __init__(self, loop: Loop, functions: Functions) -> None:
        self.lock = threading.Lock()
        """Who has it may use the stream and the journal. Entered by ``with`` and nothing else."""
        self._loop = loop
        self._functions = functions
        self._peer: Peer | None = None
        self._sent: list[Sent] = []
        self._received: list[Any] = []
        self._send: Callable[[Any], Iterator[int]]
        self._receive: Callable[[], Iterator[Any]]
        self._wanted: list[tuple[int, int]] = []
        self._waits: Task | None = None

    def __repr__(self) -> str:
        return f"<Shortcut to {self._peer} sent={len(self._sent)} received={len(self._received)}>"

    # --------------------------------------------------------------- the I/O thread's

    def open(self, peer: Peer) -> bool:
        """Let callers use the stream to a server, to which nothing waits to be written."""
        stream = peer.stream
        steps = stream.steps() if stream is not None and self._loop.can_be_shared else None
        if stream is None or steps is None:
            return False
        self._send, self._receive = steps
        self._wanted = [(stream.fileno(), READ)]
        self._waits = None
        self._peer = peer
        return True

    def take(self, keep: bool) -> Journal:
        """
        Take the journal. The lock is held.

        Args:
            keep: Whether callers may go on. It is closed all the same if nobody has used it since
                the last time, if an answer has been waited for since then, or if something else
                than results has come.

        Returns:
            What was done; of a task that is still under way nothing, unless it was closed.
        """
        sent, received = self._sent, self._received
        self._sent, self._received = [], []
        waits = sent[-1][0] if len(sent) > len(received) else None
        if (
            not keep
            or not sent
            or (waits is not None and waits is self._waits)
            or not all(map(_is_result, received, sent))
        ):
            self._peer = None
        elif waits is not None:
            self._sent = [sent.pop()]
        self._waits = waits
        return sent, received

    def is_open(self) -> bool:
        """Whether callers may use it."""
        return self._peer is not None

    def forget(self) -> None:
        """This is a forked child: the stream is the parent's, and so may be the lock."""
        self.lock = threading.Lock()
        self._peer = None

    # --------------------------------------------------------------------- callers'

    def send(self, task: Task) -> bool:
        """
        Send a task if the farm is free for it.

        Returns:
            Whether it has gone, and its future should know this shortcut. If not, nothing has
            happened.
        """
        peer = self._peer
        if peer is None or task.size > LARGEST or task.buffers or task.timeout is not None:
            return False
        function = self._functions.find(task.encoded)
        if function is None:
            return False
        assert task.body is not None
        frame = make_frame(TASK, task.id, task.body, aux=function.number)
        # All that takes time was done before: the I/O thread may be waiting for the lock.
        with self.lock:
            sent = self._sent
            if self._peer is not peer or function.number not in peer.known:
                return False
            if len(sent) != len(self._received) or len(sent) > MOST:
                return False
            try:
                sent.extend(zip((task,), (frame,), self._send(frame.raw)))  # noqa: B905
            except OSError:
                return False
        return True

    def fetch(self, task: Task, future: FarmFuture[Any]) -> None:
        """
        Wait for a task's answer for a short while, and settle its future if it has come.

        In all other cases the I/O thread is told, and it will settle the future.
        """
        if self._peer is None:
            return  # it knows already
        if self._loop.look(PATIENCE) == self._wanted:
            found = self._take_answer(task)
            if found is not None and _is_result(*found):
                try:
                    value = load(found[0][0][HEADER.size :])
                except KeyboardInterrupt:
                    raise
                except BaseException:
                    pass  # the I/O thread will find the same, and make an error of it
                else:
                    future.settle(value)
                    return
        self.hand_over()

    def _take_answer(self, task: Task) -> tuple[Any, Sent] | None:
        with self.lock:
            sent, received = self._sent, self._received
            if self._peer is None or len(sent) != len(received) + 1 or sent[-1][0] is not task:
                return None
            try:
                received.extend(self._receive())
            except OSError:
                return None
            return received[-1], sent[-1]

    def hand_over(self) -> None:
        """Have the I/O thread go on with what is under way."""
        self._loop.wake()


def _is_result(received: Any, sent: Sent) -> bool:
    """Whether this is the result of that task, whole, and nothing else."""
    data: bytes = received[0]
    if len(data) < HEADER.size:
        return False
    kind, _, buffers, _, id, size = HEADER.unpack_from(data)
    return bool(
        kind == RESULT and id == sent[1].id and not buffers and len(data) == HEADER.size + size
    )
