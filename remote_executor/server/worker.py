"""
A worker: the process that runs tasks, one at a time, in its main thread.

It has three ways to its supervisor. The *wire*, a socket, brings frames. The *token pipe* brings
the ids of the tasks that it may begin. Tasks come down the wire ahead of time; the worker begins
one only after it has read that task's id from the pipe, so that until then the supervisor can take
it back by reading the id first. The third, also a pipe, takes the *answers*. ::

    wire         T17 T18 T19 T20      19 was taken back: it is dropped when 20 is looked for
    token pipe   17  18  20           ids that may be begun, in order; see token_pipe.py
    answers      R17 R18              a small frame costs a fourth of what it would by a socket

A result is written with one call as soon as it is there. What the kernel has taken outlives us.
A large one goes by the wire, and so does one in shared memory, whose descriptor goes along.

Bodies: TASK is the pickle of ``(args, kwargs)``, with BATCH a list of items, each an argument or,
with STAR, a tuple of arguments. RESULT is the pickle of the value, of a BATCH the list of values.
FAILURE is the summary of the exception, its first buffer the pickle of it. Of a BATCH the second
buffer is the pickle of the list of values before it, and the rest are that pickle's buffers.
"""

from __future__ import annotations

import _thread
import errno
import faulthandler
import io
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from functools import partial
from itertools import islice, starmap
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn, cast

from remote_executor.errors import PayloadError
from remote_executor.lineage import DEPTH
from remote_executor.net.in_task import here
from remote_executor.net.segments import (
    AVAILABLE,
    WORTH,
    Descriptor,
    Mappings,
    SegmentPool,
    is_scarce,
    layout,
    read_segment,
)
from remote_executor.net.streams import receive_with_fds, send_with_fd
from remote_executor.net.vectors import write_some
from remote_executor.payload import setups, shared
from remote_executor.payload.code import lines, namespace
from remote_executor.payload.copies import PrivateCopies
from remote_executor.payload.failures import encode_failure
from remote_executor.payload.functions import PURE, FunctionTable
from remote_executor.payload.mains import prepare_main
from remote_executor.payload.own_imports import load_own, use_own_path
from remote_executor.payload.pickles import dump_result, load
from remote_executor.payload.pythons import abroad
from remote_executor.server.exit_codes import NOT_PREPARED
from remote_executor.server.imports import OnImport
from remote_executor.server.kill_signal import KillSignal, TaskKilled
from remote_executor.server.managers import share_key
from remote_executor.server.process_names import set_process_name
from remote_executor.server.token_pipe import ALONG, MARK
from remote_executor.server.vigil import Vigil
from remote_executor.wire import messages
from remote_executor.wire.frames import (
    HEADER,
    WORKER_LIMIT,
    Frame,
    FrameReader,
    make_frame,
    segment_is_lost,
)
from remote_executor.wire.messages import (
    AGAIN,
    AGAIN_BLOB,
    Flag,
    Kind,
    decode_fields,
    decode_ids,
    encode_fields,
)
from remote_executor.wire.outbox import Outbox, WithSegment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_executor.wire.frames import Buffer

__all__ = ["Current", "Worker", "current", "run", "server_worker_index", "worker_index"]

PR_SET_CHILD_SUBREAPER = 36
LINUX: bool = sys.platform == "linux"

HIGH = 200
"""Our descriptors are moved up here: tasks that close the low ones are not rare."""

MOST_FREE = 128 * 1024 * 1024
"""Bytes of shared memory that a worker keeps for its next large results."""

WORD_SECONDS = 1.0
"""For so long a worker that gets SIGTERM waits for its server to end it."""

PIPED = 16 * 1024
"""Answers of more bytes go by the wire."""

MOST_LENT = 32
"""Results in segments of which the worker keeps the descriptor, to use the memory again."""

MOST_MICROS = 2**32 - 1

LAYER = "remote_executor.parallel."
"""What a task has loaded of this, the tasks that it makes will want, too."""

STAND_INS = 1_000_000
"""From here on are the indices of workers that are there since others wait."""

TASK = int(Kind.TASK)
BLOB = int(Kind.BLOB)
FORGET = int(Kind.FORGET)
SETUP = int(Kind.SETUP)
RELEASE = int(Kind.RELEASE)
RELOAD = int(Kind.RELOAD)
RESULT = int(Kind.RESULT)
FAILURE = int(Kind.FAILURE)
DONE = 0
"""In place of a frame's kind, once it was taken out of its turn."""

BATCH = int(Flag.BATCH)
STAR = int(Flag.STAR)
BLOB_PURE = int(Flag.PURE)
BLOB_PART = int(Flag.PART)
BLOB_SHARED = int(Flag.SHARED)
UNLOADED = int(Flag.UNLOADED)
KILLED = int(messages.KILLED)
EACH = int(messages.EACH)


class Current:
    """What this process is doing, if it is a worker."""

    __slots__ = ("index", "server_index", "task")

    def __init__(self) -> None:
        self.index: int | None = None
        """This worker's index in the farm; None outside of workers."""
        self.server_index: int | None = None
        """This worker's index on its server; None outside of workers."""
        self.task: int | None = None
        """The id of the task that runs now."""


current = Current()


def worker_index() -> int | None:
    """
    Return the index in the farm of the worker that runs this task.

    No other worker of the executor has it at the same time, on whatever server. One that takes the
    place of another has the same, also after its server was started anew. Comes from lparallel's
    kernel-worker-index. ::

        def append(row):  # a file for each worker of the farm
            with open(f"rows-{worker_index()}.csv", "a") as file:
                file.write(row)

    For what each machine has for itself, such as a GPU, see :func:`server_worker_index`.

    Returns:
        0 to n-1 for the n workers of the farm, in the order in which servers have come, while none
        has left it; from 1,000,000 on for those that run tasks while others wait for tasks of their
        own; None outside of workers.
    """
    return current.index


def server_worker_index() -> int | None:
    """
    Return the index on its server of the worker that runs this task.

    One that takes the place of another has the same. ::

        def initialize():  # a GPU for each worker of a machine
            os.environ["CUDA_VISIBLE_DEVICES"] = str(server_worker_index())

    Returns:
        0 to n-1 for the n workers that the executor may have there; from n on for those that run
        tasks while others wait for tasks of their own; None outside of workers.
    """
    return current.server_index


class Worker:
    """
    The loop of a worker.

    Args:
        wire: The descriptor of the wire, a stream socket.
        tokens: The descriptor of the token pipe, which becomes non-blocking.
        answers: The descriptor of the pipe that takes the answers.
    """

    __slots__ = (
        "_answers",
        "_frames",
        "_functions",
        "_has_large",
        "_kill_signal",
        "_lent",
        "_mappings",
        "_reader",
        "_records",
        "_seen",
        "_segments",
        "_sending",
        "_shared",
        "_sock",
        "_tokens",
        "_waiter",
        "finder",
    )

    def __init__(self, wire: int, tokens: int, answers: int) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, wire)
        self._sock.setblocking(True)
        self._tokens = tokens
        self._answers = answers
        # We never wait in a read: a process that is killed there may still take a token along, and
        # with it a task that nobody has begun. A poll takes nothing.
        os.set_blocking(tokens, False)
        self._waiter = select.poll()
        self._waiter.register(tokens, select.POLLIN)
        self._reader = FrameReader(WORKER_LIMIT)
        self._reader.open_up(WORKER_LIMIT)
        self._frames: deque[Frame] = deque()
        self._seen = 0
        """How many frames have come by the wire, those that wait in ``_frames`` included."""
        self._kill_signal = KillSignal()
        self._functions = FunctionTable()
        self.finder: LateFinder | None = None
        """Asks the client for modules, if it may be asked."""
        self._has_large = False
        """Whether there ever were shared objects or large captured arrays."""
        self._shared = shared.SharedTable()
        shared.use(self._shared)
        self._mappings = Mappings()
        self._segments = SegmentPool(MOST_FREE)
        self._lent: dict[int, Frame] = {}
        """Results whose segments the client may be using, oldest first, by task."""
        # Any thread and any signal handler may log, also while we write an answer.
        self._records: deque[bytes] = deque()
        self._sending = _thread.allocate_lock()

    def close_in_child(self) -> None:
        """A task forked: the child must not hold our ways open, nor write to them."""
        if self._tokens >= 0:  # else it is a grandchild, where that number may be another file's
            self._sock.close()
            os.close(self._tokens)
            os.close(self._answers)
            self._tokens = self._answers = -1
        current.task = None
        here.open = None

    # ------------------------------------------------------------------- the loop

    def set_up(self, count: int) -> bool:
        """
        Do the setups that come first: the initializer, and broadcasts that are kept.

        Args:
            count: How many there are.

        Returns:
            Whether all went well.
        """
        while count:
            while not self._frames:
                self._receive()
            frame = self._frames.popleft()
            if frame.kind != SETUP:
                self._other(frame)
                continue
            if not self._set_up(frame):
                return False
            count -= 1
        return True

    def _set_up(self, frame: Frame) -> bool:
        """Do one setup, unless it was done as a task. Return whether it went well."""
        if setups.is_done(frame.aux):
            return True
        try:
            function, args = load(frame.body, frame.buffers)
            function(*args)
        except BaseException as exc:
            summary, pickled = encode_failure(exc, 1, socket.gethostname)
            self._send(Kind.BROKEN, frame.aux, summary, (pickled,))
            return False
        return True

    def say_ready(self) -> None:
        """Tell the supervisor that tasks may come, and may be killed."""
        self._kill_signal.install()
        self._send(Kind.READY, os.getpid(), b"")

    def serve(self) -> None:
        """Run tasks until the token pipe is closed."""
        tokens = self._tokens
        read, from_bytes = os.read, int.from_bytes
        wait, look = self._waiter.poll, partial(self._waiter.poll, 0)
        vigil = Vigil()
        while True:
            try:
                token = read(tokens, 8)
            except BlockingIOError:
                if not vigil.keep(look):
                    if self._has_large or self._lent:
                        self._listen()
                    else:
                        wait()
                vigil.end()
                continue
            if not token:
                return
            id = from_bytes(token, "little")
            if id >= ALONG:
                frame = self._read_along(id - ALONG)
            else:
                while (found := self._next(id)) is None:
                    pass
                frame = found
                del found  # the next may take long to come
            current.task = frame.id
            if frame.flags & BATCH:
                self._run_batch(frame)
            else:
                self._run(frame)
            if here.ended is not None:
                here.ended()
            current.task = None
            if namespace.asked:
                namespace.forget_asked()
            del frame  # as above
            if self._has_large:
                self._functions.end_task()
                self._shared.end_task()
            if self._mappings:
                for key in self._mappings.released():
                    self._send(Kind.RELEASE, cast("int", key), b"")

    def _read_along(self, size: int) -> Frame:
        """Read a task that has come with its token, and before that what the wire has for it."""
        data = b""
        size += MARK.size
        while len(data) < size:
            try:
                piece = os.read(self._tokens, size - len(data))
            except BlockingIOError:
                # The supervisor has it in its hands, since it looks who has begun.
                self._waiter.poll()
                continue
            if not piece:
                os._exit(0)  # there is no supervisor any more
            data += piece
        (mark,) = MARK.unpack_from(data)
        while self._seen - len(self._frames) < mark:
            self._next(None)  # tokens come in order, so any task there was taken back
        kind, flags, _, aux, id, _ = HEADER.unpack_from(data, MARK.size)
        return Frame(kind, flags, aux, id, data[MARK.size :], HEADER.size)

    def _next(self, id: int | None) -> Frame | None:
        """Do what comes next by the wire; return it if it is that task. Others were taken back."""
        while not self._frames:
            self._receive()
        frame = self._frames.popleft()
        if frame.kind != TASK:
            self._other(frame)
        elif frame.id == id:
            return frame
        elif frame.segment is not None:
            self._send(Kind.RELEASE, frame.id, b"")
        return None

    def _listen(self) -> None:
        """
        Wait for a token, and read the wire meanwhile.

        For who has large objects: when the client forgets them, their memory is to be free, also if
        there are no more tasks.
        """
        both = select.poll()
        both.register(self._tokens, select.POLLIN)
        both.register(self._sock, select.POLLIN)
        while all(fd != self._tokens for fd, _ in both.poll()):
            self._receive()
            while self._frames and self._frames[0].kind in (BLOB, FORGET, RELEASE, DONE):
                self._other(self._frames.popleft())

    def _receive(self) -> None:
        """Read some of the wire."""
        reader = self._reader
        count = receive_with_fds(self._sock, reader.get_buffer(), reader.segments)
        if not count:
            os._exit(0)  # there is no supervisor any more
        frames = reader.filled(count)
        self._seen += len(frames)
        self._frames.extend(frames)

    def _buffers(self, frame: Frame) -> Sequence[Buffer]:
        """Return what a task's pickle refers to."""
        if frame.segment is None:
            return frame.buffers
        descriptor, frame.segment = frame.segment, None
        if descriptor.fd < 0:
            return self._wait_again(frame, TASK) or ()
        return self._mappings.map(frame.id, descriptor.fd, frame.sizes())

    def _absorb(self) -> None:
        """Take back the segments that the supervisor says are free."""
        while self._lent and select.select([self._sock], [], [], 0)[0]:
            self._receive()
        for frame in self._frames:
            if frame.kind == RELEASE:
                self._other(frame)
                frame.kind = DONE  # it keeps its place, for the marks

    def _other(self, frame: Frame) -> None:
        kind = frame.kind
        if kind == BLOB:
            if segment_is_lost(frame.segment):
                buffers = self._wait_again(frame, BLOB)
                if buffers is None:
                    return
                frame.segment, frame.buffers = None, buffers
            pure = PURE if frame.flags & BLOB_PURE else 0
            if frame.flags & (BLOB_SHARED | BLOB_PART):
                self._has_large = True
            if frame.flags & BLOB_SHARED:
                self._shared.define(frame.aux, bytes(frame.body), bool(pure), _copies(frame))
            elif frame.flags & BLOB_PART:
                self._functions.define_part(frame.aux, _copies(frame))
            elif frame.id:
                parts = decode_ids(frame.buffers[0])
                self._functions.define(frame.aux, pure, frame.body, parts=parts)
            else:
                buffers = frame.buffers if frame.segment is None else _copies(frame).fresh()
                self._functions.define(frame.aux, pure, frame.body, buffers)
        elif kind == FORGET:
            self._functions.forget(frame.aux)
            self._shared.forget(frame.aux)
        elif kind == RELEASE:
            lent = self._lent.pop(frame.id, None)
            if frame.aux == AGAIN:
                self._send_again(frame.id, lent)
            elif lent is not None:
                self._segments.back(lent.segment)
        elif kind == SETUP:
            # A broadcast that is kept, given while this worker was there: as a rule it is done.
            if not self._set_up(frame):
                _end()
                os._exit(1)
        elif kind == RELOAD:
            fields = decode_fields(frame.body, modules=list)
            if "own" in fields and self.finder is not None:
                self.finder.claim(fields)
            self._reload(fields["modules"])

    def _send_again(self, id: int, lent: Frame | None) -> None:
        """Send a result without a segment: its descriptor was lost on its way."""
        try:
            if lent is None:
                raise OSError(errno.EMFILE, "the result was given up for want of descriptors")
            frame = lent.inline(read_segment(lent.segment.fd, lent.sizes()))
        except (OSError, ValueError, MemoryError) as exc:
            summary, pickled = encode_failure(exc, 1, socket.gethostname)
            self._send(FAILURE, id, summary, (pickled,))
            return
        self._segments.back(lent.segment)
        self._put_out(frame)

    def _wait_again(self, lost: Frame, kind: int) -> Sequence[Buffer] | None:
        """
        Have a frame sent again whose segment's descriptor was lost, since a task leaves none free.

        Returns:
            Its buffers; None if it has been forgotten.
        """
        key = lost.aux if kind == BLOB else lost.id
        self._send(RELEASE, key, b"", (), AGAIN if kind == TASK else AGAIN_BLOB)
        looked = 0
        while True:
            # What is in the queue stays there, in its place.
            for frame in islice(self._frames, looked, None):
                if frame.kind == kind and (frame.aux if kind == BLOB else frame.id) == key:
                    buffers, frame.buffers, frame.kind = frame.buffers, (), DONE
                    return buffers
                if kind == BLOB and frame.kind == FORGET and frame.aux == key:
                    return None
            looked = len(self._frames)
            self._receive()

    def _reload(self, names: list[str]) -> None:
        """Load modules again, as the client has done."""
        import importlib

        for name in names:
            module = sys.modules.get(name)
            if module is None:
                continue
            try:
                importlib.reload(module)
            except BaseException:  # it stays as it is, as at the client
                import traceback

                traceback.print_exc()
        self._functions.look_up_again()

    # ------------------------------------------------------------------ the tasks

    def _run(self, frame: Frame) -> None:
        start = perf_counter()
        unloaded = UNLOADED
        signal = self._kill_signal
        try:
            signal.open = True
            function = self._functions.get(frame.aux)
            args, kwargs = load(frame.body, self._buffers(frame))
            unloaded = 0
            value = function(*args, **kwargs) if kwargs else function(*args)
            body, buffers = dump_result(value)
            del args, kwargs
            signal.open = False
        except BaseException as exc:
            signal.open = False
            self._fail(frame, exc, start, unloaded)
            return
        micros = int((perf_counter() - start) * 1e6)
        if buffers or len(body) > PIPED or micros > MOST_MICROS:
            self._send(RESULT, frame.id, body, buffers, micros)
        else:
            _end_lines()
            with self._sending:
                self._write(HEADER.pack(RESULT, 0, 0, micros, frame.id, len(body)) + body)
            if self._records:
                self._send_records()

    def _run_batch(self, frame: Frame) -> None:
        start = perf_counter()
        values: list[Any] = []
        broken: BaseException | None = None
        unloaded = UNLOADED
        signal = self._kill_signal
        try:
            signal.open = True
            function = self._functions.get(frame.aux)
            items, broken = _load_items(frame.body, self._buffers(frame))
            unloaded = 0
            if frame.flags & EACH:
                self._run_each(frame, function, items, broken, start)
                return
            count = len(items)
            # What came before an exception stays in the list.
            values.extend(starmap(function, items) if frame.flags & STAR else map(function, items))
            if len(values) < count:
                # Neither a for loop nor extend() can tell it from the end of the items.
                raise StopIteration
            if broken is not None:
                del items
                unloaded = UNLOADED
                raise broken
            del items
            body, buffers = dump_result(values)
            signal.open = False
        except BaseException as exc:
            signal.open = False
            self._fail_batch(frame, exc, values, start, unloaded)
        else:
            self._send(RESULT, frame.id, body, buffers, int((perf_counter() - start) * 1e6))
        finally:
            del broken  # else it would hold on to this frame, and so to what came

    def _run_each(
        self,
        frame: Frame,
        function: Any,
        items: list[Any],
        broken: BaseException | None,
        start: float,
    ) -> None:
        """Run a batch in which an item that fails does not end the others."""
        load_own("remote_executor.server.each")
        from remote_executor.server.each import pack_each, run_each

        signal = self._kill_signal
        values, failures = run_each(function, items, bool(frame.flags & STAR), signal.is_cause_of)
        if broken is not None:
            failures.append((len(items), broken))
        body, buffers, failed = pack_each(values, failures)
        signal.open = False
        micros = int((perf_counter() - start) * 1e6)
        if failed is None:
            self._send(RESULT, frame.id, body, buffers, micros)
        else:
            summary, pickled = failed
            self._send(FAILURE, frame.id, summary, (pickled, body, *buffers), micros, BATCH | EACH)

    def _fail(self, frame: Frame, exc: BaseException, start: float, flags: int) -> None:
        micros = int((perf_counter() - start) * 1e6)
        if self._kill_signal.is_cause_of(exc):
            flags |= KILLED
        summary, pickled = encode_failure(exc, 1, socket.gethostname)
        self._send(FAILURE, frame.id, summary, (pickled,), micros, flags)

    def _fail_batch(
        self, frame: Frame, exc: BaseException, values: list[Any], start: float, flags: int
    ) -> None:
        """Send what was reached, and the exception that came next."""
        micros = int((perf_counter() - start) * 1e6)
        if self._kill_signal.is_cause_of(exc):
            flags |= KILLED
        try:
            body, buffers = dump_result(values)
        except BaseException:
            values, exc = _picklable(values, exc)
            body, buffers = dump_result(values)
        summary, pickled = encode_failure(exc, 1, socket.gethostname)
        self._send(FAILURE, frame.id, summary, (pickled, body, *buffers), micros, BATCH | flags)

    def _send(
        self,
        kind: int,
        id: int,
        body: bytes,
        buffers: Sequence[Buffer] = (),
        micros: int = 0,
        flags: int = 0,
    ) -> None:
        micros = min(micros, MOST_MICROS)
        if kind in (RESULT, FAILURE):
            _end_lines()
        frame = make_frame(kind, id, body, buffers, aux=micros, flags=flags)
        if AVAILABLE and kind == RESULT and sum(map(len, buffers)) >= WORTH:
            self._absorb()
            segment = self._segments.lend(buffers)
            if segment is not None:
                while len(self._lent) >= MOST_LENT:
                    # The client keeps it for long. Its memory is there for as long as it is mapped.
                    del self._lent[next(iter(self._lent))]
                frame.set_segment(segment)
        try:
            self._put_out(frame)
        except BlockingIOError:
            # Too many descriptors are on their way: then without one.
            frame = make_frame(kind, id, body, buffers, aux=micros, flags=flags)
            self._put_out(frame)
        if frame.segment is not None:
            frame.buffers = ()
            self._lent[id] = frame
        self._send_records()

    def _put_out(self, frame: Frame) -> None:
        """Write a frame, by the wire if it is large or has a segment."""
        outbox = Outbox()
        outbox.put(frame)
        by_wire = frame.segment is not None or outbox.size > PIPED
        with self._sending:
            while outbox.size:
                chunk = outbox.chunk()
                if type(chunk[0]) is WithSegment:
                    outbox.sent(send_with_fd(self._sock, chunk[0]))
                elif by_wire:
                    outbox.sent(self._sock.sendmsg(chunk))
                else:
                    outbox.sent(write_some(self._answers, chunk))

    def _write(self, data: bytes) -> None:
        """Write an answer, all of it: a signal may come in the middle of a long one."""
        count = os.write(self._answers, data)
        while count < len(data):
            count += os.write(self._answers, memoryview(data)[count:])

    def open_line(self) -> socket.socket:
        """
        Open the way by which a task and its client speak about tasks of its own.

        Returns:
            This process's end.

        Raises:
            OSError: If there are too many descriptors, or this is a child of the worker.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            loaded = [name for name in list(sys.modules) if name.startswith(LAYER)]
            body = encode_fields({"loaded": loaded})
            frame = make_frame(Kind.SPAWN, current.task or 0, body, (b"\0",))
            frame.set_segment(Descriptor(os.dup(theirs.fileno())))
            self._put_out(frame)
        return socket.socket(ours.family, ours.type, 0, _move_up(ours.detach()))

    def send_record(self, body: bytes) -> bool:
        """
        Send what a task has logged.

        Args:
            body: That of the LOG frame.

        Returns:
            False in a child of the worker, which has no way to the client.
        """
        if self._tokens < 0:
            return False
        frame = make_frame(Kind.LOG, current.task or 0, body)
        self._records.append(b"".join(frame.parts()))
        self._send_records()
        return True

    def _send_records(self) -> None:
        """Send what was logged, unless somebody is sending now, who will look once more."""
        while self._records and self._sending.acquire(blocking=False):
            try:
                while self._records:
                    self._write(self._records.popleft())
            finally:
                self._sending.release()


def _load_items(body: Buffer, buffers: Sequence[Buffer]) -> tuple[list[Any], BaseException | None]:
    """Unpickle the items of a batch: all, or those before a broken one and what that one raised."""
    try:
        return load(body, buffers), None
    except BaseException as exc:
        load_own("remote_executor.payload.salvage")
        from remote_executor.payload.salvage import load_before

        return load_before(body, buffers), exc


def _copies(frame: Frame) -> PrivateCopies:
    """Return what makes a blob's buffers anew for each task."""
    if frame.segment is None:
        return PrivateCopies(frame.buffers)
    descriptor, frame.segment = frame.segment, None
    sizes = frame.sizes()
    offsets, _ = layout(sizes)
    spans = [(at, at + size) for at, size in zip(offsets, sizes, strict=True)]
    fd = _move_up(descriptor.fd)
    descriptor.fd = -1
    if is_scarce(fd):  # the last ones are for the tasks
        descriptor.fd = fd
        return PrivateCopies(read_segment(fd, sizes))
    return PrivateCopies.of_file(fd, spans)


def _picklable(values: list[Any], exc: BaseException) -> tuple[list[Any], BaseException]:
    """Return the values before the first that cannot be pickled, and what it raises."""
    for index, value in enumerate(values):
        try:
            dump_result(value)
        except BaseException as found:
            return values[:index], found
    return [], exc


# ---------------------------------------------------------------------- a new process


class LateFinder:
    """
    The last finder of a worker: it asks the client for modules that are not here.

    What does that is loaded when it is asked first, for most workers lack nothing.

    Args:
        fd: The descriptor of the socket by which to ask.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._finder: Any = None
        self._asker: Any = None
        self._own: Any = None
        self._loading = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find a module that no other finder has. The import system calls this."""
        return self._finder.find_spec(name, path, target) if self._load() else None

    def find_own(self, name: str, target: Any = None) -> Any:
        """Find a module at the client, whatever this machine has of that name."""
        return self._finder.find_own(name, target) if self._load() else None

    def ask_copy(self, name: str, *, whole: bool) -> Any:
        """Ask what tells the client's copy of a module from others."""
        return self._finder.ask_copy(name, whole=whole) if self._load() else None

    def claim(self, fields: dict[str, Any]) -> None:
        """Have what the client has of its own come from there; see ``modules.claims``."""
        if self._own is None:
            from remote_executor.modules.own import OwnFinder, warn

            self._own = OwnFinder(self, warn)
            sys.meta_path.insert(0, self._own)
        self._own.claim(fields["own"], fields["found"])

    def ask_name(self, name: str) -> tuple[Any, Sequence[Any]] | None:
        """
        Ask for a name of the client's ``__main__``.

        Returns:
            Its bundle and the buffers of that; None if there is no such name.

        Raises:
            PayloadError: If the client has it, and it cannot be sent.
        """
        if not self._load():
            return None
        answer = self._asker.ask({"name": name, "task": current.task})
        if answer is None:
            return None
        fields, contents = answer
        if fields.get("refused"):
            raise PayloadError(f"global {name!r} of the program", str(fields["refused"]))
        if not fields.get("bundle"):
            return None
        by_digest = dict(zip(fields["contents"], contents, strict=True))
        body, *buffers = (by_digest[each] for each in fields["bundle"])
        return body, [bytearray(buffer) for buffer in buffers]

    def ask_lines(self, file: str) -> list[str] | None:
        """Ask for the lines of a file that code is from which has come."""
        if not self._load():
            return None
        answer = self._asker.ask({"lines": file})
        if answer is None:
            return None
        text = answer[0].get("text")
        return io.StringIO(text).readlines() if isinstance(text, str) else None

    def _load(self) -> bool:
        """Load what asks; return whether there is somebody to ask."""
        if self._finder is None:
            if self._loading or self._fd < 0:
                return False
            self._loading = True
            try:
                load_own("remote_executor.server.asker")
                from remote_executor.server.asker import make_finder

                self._finder, self._asker = make_finder(self._fd)
                # First, for a folder of the same name may be here.
                sys.path_hooks.insert(0, self._finder.path_hook)
            finally:
                self._loading = False
        return True

    def invalidate_caches(self) -> None:
        """Ask for everything anew. ``importlib.invalidate_caches`` calls this."""
        if self._finder is not None:
            self._finder.forget()

    def close_in_child(self) -> None:
        """A task forked: the child must not ask by a socket that it shares."""
        if self._asker is not None:
            self._asker.close_in_child()
        elif self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def run(
    config: dict[str, Any],
    wire: int,
    tokens: int,
    answers: int,
    out: int,
    err: int,
    asks: int = -1,
) -> NoReturn:
    """
    Be a worker until the token pipe is closed. Called in a process just forked.

    Args:
        config: "index", "first_index", "setups", "sys_path", "cwd", "argv", "file", "modules",
            "log_level", "client", "service": see processes.py.
        wire: The wire's descriptor; as all others, it becomes this function's.
        tokens: The token pipe's.
        answers: That of the pipe that takes the answers.
        out: Where standard output goes.
        err: Where standard error goes.
        asks: Where to ask the client for modules; -1 if it is not to be asked.
    """
    status = NOT_PREPARED
    try:
        _prepare(config, out, err)
        worker = Worker(_move_up(wire), _move_up(tokens), _move_up(answers))
        os.register_at_fork(after_in_child=worker.close_in_child)
        if asks >= 0:
            finder = LateFinder(_move_up(asks))
            os.register_at_fork(after_in_child=finder.close_in_child)
            sys.meta_path.append(finder)
            worker.finder = finder
            if config.get("own") is not None:
                finder.claim(config["own"])
            namespace.ask_by(finder.ask_name)
            lines.ask_by(finder.ask_lines, _show_known_lines)
            OnImport("linecache", lines.take_over)
        main = prepare_main()
        if isinstance(config.get("file"), str):
            main.__file__ = config["file"]
            lines.note(config["file"])
        if config.get("client") is not None:
            implementation, version = config["client"]
            abroad.settle(implementation, tuple(version))
        current.server_index = config["index"]
        current.index = _index_in_farm(config["index"], config["first_index"], config["limit"])
        here.open, here.stops, here.parallel = worker.open_line, TaskKilled, config["nested"]
        here.task = lambda: current.task
        level = config.get("log_level")
        if isinstance(level, int):
            OnImport("logging", lambda: _send_logs(worker, level))
        status = 1
        if worker.set_up(config["setups"]):
            worker.say_ready()
            try:
                worker.serve()
            except TaskKilled:
                pass  # it came when the task had just failed; the supervisor says so
            status = 0
            _finish()
        _end()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _index_in_farm(index: int, first: int, limit: int) -> int:
    """
    Return a worker's index in the farm.

    One that is there since others wait for tasks of their own is beyond all that the farm has at a
    time, and has an index that no other has.
    """
    layer, place = divmod(index, limit)
    return STAND_INS * layer + first + place


def _prepare(config: dict[str, Any], out: int, err: int) -> None:
    """Make this process what tasks expect."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, _wait_for_word)
    signal.signal(signal.SIGUSR1, _leave_to_server if config.get("service") else signal.SIG_DFL)
    os.register_at_fork(
        before=_hold_back, after_in_parent=_release, after_in_child=_release_in_child
    )
    # ^C at the client's terminal is the client's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_process_name(f"farm-worker-{config['index']}")
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, target in ((null, 0), (out, 1), (err, 2)):
        if fd != target:
            os.dup2(fd, target)
            os.close(fd)
    for name, stream in (("stdin", _stdin()), ("stdout", _text(1)), ("stderr", _text(2))):
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    faulthandler.enable(2, all_threads=False)  # a crash says where, in what the client is told
    if config.get("cwd") is not None:
        _enter(config["cwd"])
    if isinstance(config.get("depth"), int):
        os.environ[DEPTH] = str(config["depth"])
    argv = config.get("argv")
    sys.argv[:] = argv if isinstance(argv, list) else [""]
    become_reaper()
    if config.get("authkey") is not None:
        share_key(bytes.fromhex(config["authkey"]))
    random = sys.modules.get("numpy.random")
    if random is not None:
        # It was imported before the fork: without this all workers draw the same numbers.
        random.seed()
    if config.get("sys_path") is not None:
        # Last of all: from now on what is imported is what the user's program would import.
        use_own_path(sys.path)
        sys.path[:] = config["sys_path"]


def _wait_for_word(*_: object) -> None:
    """
    Give the server a moment before SIGTERM ends this worker.

    A service that is stopped gets the signal in all its processes at once (systemd's control-group,
    scancel). The server says goodbye and ends its workers; one that dies before that would be taken
    for one that its task has killed. The handler is no SIG_IGN, which programs inherit that tasks
    start.
    """
    time.sleep(WORD_SECONDS)
    _end_at_once()
    os.kill(os.getpid(), signal.SIGTERM)  # it was meant for this worker alone


def _leave_to_server(*_: object) -> None:
    """Do nothing at SIGUSR1: a batch system sends it to all processes to have a server drain."""


def _end_at_once() -> None:
    """Let these signals end this process again, unless a task has changed what they do."""
    for number, ours in ((signal.SIGTERM, _wait_for_word), (signal.SIGUSR1, _leave_to_server)):
        if signal.getsignal(number) is ours:
            signal.signal(number, signal.SIG_DFL)


# Python forgets the signals that come to a child before its first line: these have to wait until
# they have their usual effect there.

_forking = _thread._local()
"""The signals that the thread that forks has blocked."""


def _hold_back() -> None:
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _release_in_child() -> None:
    _end_at_once()
    _release()


def _show_known_lines(file: str) -> None:
    source: Any = sys.modules.get(
        "remote_executor.payload.source"
    )  # nothing was compiled, or it is
    if source is not None:
        source.show_known_lines(file)


def _enter(folder: str) -> None:
    """Make the client's current folder this process's; if that is gone, tell and go on."""
    try:
        os.chdir(folder)
    except OSError as exc:
        try:
            here = os.getcwd()
        except OSError:  # the server was started in it, too
            here = "no folder at all"
        words = f"this worker cannot enter {folder} ({exc.strerror}) and runs in {here}"
        sys.stderr.write(f"remote_executor: {words}\n")


def _send_logs(worker: Worker, level: int) -> None:
    from remote_executor.server import logs

    logs.install(level, worker.send_record)


def _stdin() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedReader(io.FileIO(0, "r", closefd=False)), "utf-8")


def become_reaper() -> bool:
    """
    Have the kernel make the orphans of our descendants our children; return whether it will.

    The zygote does, so that no process that a dead worker left behind gets away. Each worker does,
    so that what its tasks leave behind stays with it while it lives, and is told from the others'.
    """
    if not LINUX:
        return False
    try:
        import ctypes

        status: int = ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        return False
    return status == 0


class _Watched:
    """Remembers that a task has written to standard output or error, which stay what they are."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.written = False
        self._write = text.write
        self._flush = text.flush
        text.write = self.write  # type: ignore[method-assign]

    def write(self, text: str, /) -> int:
        self.written = True
        return self._write(text)

    def flush_written(self) -> None:
        """Let go of the beginning of a line, if there is one, now that its task is over."""
        self.written = False
        try:
            self._flush()
        except (OSError, ValueError):  # the task has closed it, or its descriptor
            pass


def _text(fd: int) -> io.TextIOWrapper:
    raw = io.BufferedWriter(io.FileIO(fd, "w", closefd=False))
    text = io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True)
    _texts.append(_Watched(text))
    return text


_texts: list[_Watched] = []
"""Standard output and error of this worker."""


def _end_lines() -> None:
    """Write what a task has printed and not ended by a newline: before its result."""
    for text in _texts:
        if text.written:
            text.flush_written()


def _move_up(fd: int) -> int:
    """Move a descriptor to a high number, and close it on exec."""
    import fcntl

    command: int = getattr(fcntl, "F_DUPFD_CLOEXEC", fcntl.F_DUPFD)  # PyPy has the second alone
    try:
        high: int = fcntl.fcntl(fd, command, HIGH)
    except OSError:  # so many are not allowed here
        os.set_inheritable(fd, False)
        return fd
    if command == fcntl.F_DUPFD:
        os.set_inheritable(high, False)
    os.close(fd)
    return high


def _finish() -> None:
    """Call the finalizer. What it raises is shown at the client, and is no worker's death."""
    try:
        setups.finish()
    except BaseException:
        import traceback

        traceback.print_exc()


def _end() -> None:
    """Do what the interpreter does at its end, but for waiting and freeing memory."""
    import atexit

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # a task may have put anything there
            pass
