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

Who may do what is said by two lists. ``free`` has an entry while nothing is under way: whoever
takes it out may send. ``pending`` has the task that is under way: whoever takes it out may receive.
They change in the calls that send and receive, and each of these is made by ``Context.run``. That
is a lock without a wait, of which C sees to it that it is given back: it enters the context, makes
the call, and leaves, also after an error; a second one to enter gets a RuntimeError. (A ``with``
would not do: from CPython 3.14 on a signal may fall between ``__enter__`` and the block.) The I/O
thread waits for callers in it, which is a call that does not block; a caller waits for the I/O
thread for a moment only and then takes the usual way: a ``__del__`` may have brought him here.
"""

from __future__ import annotations

import time
from contextvars import Context
from itertools import filterfalse
from typing import TYPE_CHECKING, Any, TypeVar

from remote_executor.client.waits import IN_A_STEP
from remote_executor.net.loop import READ
from remote_executor.payload.pickles import load
from remote_executor.wire.frames import HEADER, Frame, make_frame
from remote_executor.wire.messages import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from remote_executor.client.futures import FarmFuture
    from remote_executor.client.peer import Peer
    from remote_executor.core.known import Functions
    from remote_executor.core.tasks import Task
    from remote_executor.net.loop import Loop

__all__ = ["PATIENCE", "Sent", "Shortcut"]

T = TypeVar("T")

PATIENCE = 0.002
"""Seconds for which a caller waits for its answer itself."""

LARGEST = 16 * 1024
"""Bytes of a task that takes the shortcut."""

MOST = 256
"""Tasks in the journal at which a caller leaves the next one to the I/O thread."""

TRIES = 20
"""How often a caller tries to use the journal while the I/O thread has it."""

TRY_SECONDS = 0.0001

TASK = int(Kind.TASK)
RESULT = int(Kind.RESULT)

Sent = tuple["Task", Frame, int]
"""A task that was sent, its frame, and how many bytes of that have gone."""

Journal = tuple[list[Sent], list[Any]]
"""What was sent, and what was received."""


class _Opening:
    """One time of parking: the stream, and what callers did with it."""

    __slots__ = ("context", "free", "peer", "pending", "receive", "received", "send", "sent")

    def __init__(
        self,
        peer: Peer,
        send: Callable[[Any], Iterator[int]],
        receive: Callable[[], Iterator[Any]],
    ) -> None:
        self.peer = peer
        self.send = send
        self.receive = receive
        self.context = Context()
        self.context.run(IN_A_STEP.set, True)
        """Who is in it may change what follows."""
        self.free: list[None] = [None]
        self.pending: list[Task] = []
        self.sent: list[tuple[None, Task, Frame, int, None]] = []
        self.received: list[tuple[None, Any, None]] = []


class Shortcut:
    """
    One stream while callers may use it, and the journal of what they did.

    The I/O thread calls :meth:`open`, and from then on :meth:`take` now and then, until that has
    closed it. Callers :meth:`send`, then :meth:`fetch`.

    Args:
        loop: Watches the stream; callers wait with it, too.
        functions: Those that servers may know.
    """

    __slots__ = ("_functions", "_loop", "_opening", "_waits", "_wanted")

    def __init__(self, loop: Loop, functions: Functions) -> None:
        self._loop = loop
        self._functions = functions
        self._opening: _Opening | None = None
        self._wanted: list[tuple[int, int]] = []
        self._waits: Task | None = None

    def __repr__(self) -> str:
        opening = self._opening
        if opening is None:
            return "<Shortcut closed>"
        sent, received = len(opening.sent), len(opening.received)
        return f"<Shortcut to {opening.peer} sent={sent} received={received}>"

    # --------------------------------------------------------------- the I/O thread's

    def open(self, peer: Peer) -> bool:
        """Let callers use the stream to a server, to which nothing waits to be written."""
        stream = peer.stream
        steps = stream.steps() if stream is not None and self._loop.can_be_shared else None
        if stream is None or steps is None:
            return False
        self._wanted = [(stream.fileno(), READ)]
        self._waits = None
        self._opening = _Opening(peer, *steps)
        return True

    def alone(self, call: Callable[[], T]) -> T:
        """
        Call something while no caller uses the stream and the journal.

        Args:
            call: What to call. Quick, and none of the user's.
        """
        opening = self._opening
        if opening is None:
            return call()
        answers: list[T] = []
        begun: list[bool] = []

        def answer() -> None:
            begun.append(True)
            answers.append(call())

        while True:
            try:
                opening.context.run(answer)
            except RuntimeError:
                if begun:
                    raise
                time.sleep(0.00002)  # a caller sends or receives, which is a call into C
            else:
                return answers[0]

    def take(self, keep: bool) -> Journal:
        """
        Take the journal. To be called by :meth:`alone`.

        Args:
            keep: Whether callers may go on. It is closed all the same if nobody has used it since
                the last time, if an answer has been waited for since then, or if something else
                than results has come.

        Returns:
            What was done; of a task that is still under way nothing, unless it was closed.
        """
        opening = self._opening
        if opening is None:
            return [], []
        sent: list[Sent] = [entry[1:4] for entry in opening.sent]
        received = [entry[1] for entry in opening.received]
        waits = sent[-1][0] if len(sent) > len(received) else None
        if (
            not keep
            or not sent
            or (waits is not None and waits is self._waits)
            or not (opening.free or opening.pending)  # a call has failed
            or not all(_is_result(data, each[1].id) for data, each in zip(received, sent))  # noqa: B905
        ):
            self._opening = None
            opening.free.clear()
            opening.pending.clear()
        else:
            opening.received.clear()
            if waits is None:
                opening.sent.clear()
            else:
                del opening.sent[:-1]
                sent.pop()
        self._waits = waits
        return sent, received

    def is_open(self) -> bool:
        """Whether callers may use it."""
        return self._opening is not None

    def forget(self) -> None:
        """This is a forked child: the stream is the parent's."""
        self._opening = None

    # --------------------------------------------------------------------- callers'

    def send(self, task: Task) -> bool:
        """
        Send a task if the farm is free for it.

        Returns:
            Whether it has gone, and its future should know this shortcut. If not, nothing has
            happened.
        """
        opening = self._opening
        if opening is None or task.size > LARGEST or task.buffers or task.timeout is not None:
            return False
        function = self._functions.find(task.encoded)
        if function is None or function.parts or function.number not in opening.peer.known:
            return False
        if not opening.free or len(opening.sent) > MOST:
            return False
        assert task.body is not None
        frame = make_frame(TASK, task.id, task.body, aux=function.number)
        entries = zip(  # noqa: B905 - each step is made only if the one before it was
            map(opening.free.pop, (0,)),
            (task,),
            (frame,),
            opening.send(frame.raw),
            map(opening.pending.append, (task,)),
        )
        return _enter(opening, opening.sent.extend, entries)

    def fetch(self, task: Task, future: FarmFuture[Any]) -> None:
        """
        Wait for a task's answer for a short while, and settle its future if it has come.

        In all other cases the I/O thread is told, and it will settle the future.
        """
        opening = self._opening
        if opening is None:
            return  # it knows already
        if self._loop.look(PATIENCE) == self._wanted:
            found: list[Any] = []
            entries = zip(  # noqa: B905 - as in send()
                map(opening.pending.remove, (task,)),
                filterfalse(found.append, opening.receive()),  # append() returns None
                map(opening.free.append, (None,)),
            )
            done = _enter(opening, opening.received.extend, entries)
            if done and _is_result(found[0], task.id):
                try:
                    value = load(found[0][0][HEADER.size :])
                except KeyboardInterrupt:
                    raise
                except BaseException as exc:
                    # The I/O thread makes an error of it, and does not unpickle it once more.
                    future.unloaded = exc
                else:
                    future.settle(value)
                    return
        self.hand_over()

    def hand_over(self) -> None:
        """Have the I/O thread go on with what is under way."""
        self._loop.wake()


def _enter(opening: _Opening, extend: Callable[[Any], None], entries: Iterator[Any]) -> bool:
    """Take steps in one call into C; return whether all were taken."""
    for _ in range(TRIES):
        try:
            opening.context.run(extend, entries)
        except RuntimeError:
            time.sleep(TRY_SECONDS)  # somebody else is in it
        except (OSError, IndexError, ValueError):
            return False  # the stream would have to wait, or there is nothing to be taken
        else:
            return True
    return False


def _is_result(received: Any, id: int) -> bool:
    """Whether this is the result of that task, whole, and nothing else."""
    data: bytes = received[0]
    if len(data) < HEADER.size:
        return False
    kind, _, buffers, _, found, size = HEADER.unpack_from(data)
    return bool(kind == RESULT and found == id and not buffers and len(data) == HEADER.size + size)
