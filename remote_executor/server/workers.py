"""The supervisor's end of a worker: its wire, its pipes, its output."""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import TYPE_CHECKING

from remote_executor.net.segments import is_scarce
from remote_executor.net.streams import receive_with_fds, send_with_fd
from remote_executor.net.vectors import read_into
from remote_executor.server.token_pipe import TokenPipe
from remote_executor.wire.frames import WORKER_LIMIT, FrameReader
from remote_executor.wire.outbox import Outbox, WithSegment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_executor.core.pool import PoolWorker
    from remote_executor.net.loop import Loop, Timer
    from remote_executor.wire.frames import Frame

__all__ = ["Output", "WorkerProcess"]

OUTPUT_CHUNK = 64 * 1024
LONGEST_LINE = 8 * 1024
STDERR_KEPT = 8 * 1024

MOST_READS = 64
"""So many reads, 4 KiB at least as a rule, are enough for all that a pipe can hold."""


class Output:
    """
    The read end of a worker's standard output or error.

    Attributes:
        fd: Our descriptor, -1 once it is closed.
        which: 1 or 2.
        rest: The beginning of a line whose end has not come yet.
        last: The last bytes that came.
        empty: Whether the last reading found nothing more.
    """

    __slots__ = ("empty", "fd", "last", "process", "rest", "which")

    def __init__(self, process: WorkerProcess, fd: int, which: int) -> None:
        os.set_blocking(fd, False)
        process.beside.register(fd, select.POLLIN)
        self.process = process
        self.fd = fd
        self.which = which
        self.rest = b""
        self.last = b""
        self.empty = False

    def read(self) -> bytes | None:
        """
        Read what is there, up to the end of a line where there is one.

        Returns:
            Text to be passed on, perhaps empty; None at the end.
        """
        try:
            data = os.read(self.fd, OUTPUT_CHUNK)
        except BlockingIOError:
            self.empty = True
            return b""
        self.empty = not data
        if not data:
            return None
        if self.which == 2:
            self.last = (self.last + data)[-STDERR_KEPT:]
        if self.rest:
            data = self.rest + data
        cut = data.rfind(b"\n") + 1
        if not cut and len(data) > LONGEST_LINE:
            cut = len(data)
        self.rest = data[cut:]
        return data[:cut]

    def take_rest(self) -> bytes:
        """Return the beginning of a line that has waited long enough for its end."""
        rest, self.rest = self.rest, b""
        return rest

    def close(self) -> None:
        """Read no more."""
        if self.fd >= 0:
            self.process.beside.unregister(self.fd)
            os.close(self.fd)
            self.fd = -1


class WorkerProcess:
    """
    A worker's process and the ways to it: see :mod:`remote_executor.server.worker`.

    Attributes:
        tokens: The pipe that says which tasks it may begin.
        wire: The descriptor of our end of the wire.
        answers: The read end of the pipe that brings its answers, -1 once it is closed.
        pool: The pool's idea of it.
        number: What the zygote calls it before it has a pid.
        pid: Its process id, 0 until the zygote has told it.
        known: Numbers of the functions that it holds.
        holds: Tasks whose shared memory it may be using.
        doomed: Tasks that are being killed, and why.
        drained: Whether the last call of :meth:`receive` found nothing more.
        printed: Whether there was output to read when the last answers came.
        killed: Whether we want it dead.
        lost: How many frames have come without the descriptor of their segment.
        timer: Kills it if it does not end by itself.
        errno: Why the system has refused its process, if it has.
        ended: Whether it has closed the wire or the pipe of its answers.
        hung_up: Whether that is known, and nothing more comes.
        paused: Whether it is not read for the time being.
        why: Why it is killed, in words, if nobody has asked for that.
        started: Whether it has said that it is ready.
    """

    __slots__ = (
        "_put",
        "_reader",
        "_theirs",
        "_wire_reader",
        "answers",
        "beside",
        "doomed",
        "drained",
        "ended",
        "errno",
        "holds",
        "hung_up",
        "killed",
        "known",
        "lost",
        "number",
        "outbox",
        "outputs",
        "paused",
        "pid",
        "pool",
        "printed",
        "sock",
        "started",
        "timer",
        "tokens",
        "why",
        "wire",
        "writing",
    )

    def __init__(self, pool: PoolWorker, number: int) -> None:
        self.pool = pool
        self.number = number
        self.pid = 0
        self.known: set[int] = set()
        self.holds: list[int] = []
        self.doomed: dict[int, str] = {}
        self.killed = False
        self.lost = 0
        self.timer: Timer | None = None
        self.errno: int | None = None
        self.hung_up = False
        self.paused = False
        self.why = ""
        self.started = False
        self.writing = False
        self.drained = False
        self.ended = False
        self.printed = False
        self._put = 0
        """How many frames have been put on the wire."""
        self.outbox = Outbox()
        self._reader = FrameReader(WORKER_LIMIT)
        self._reader.open_up(WORKER_LIMIT)
        self._wire_reader = FrameReader(WORKER_LIMIT)
        self._wire_reader.open_up(WORKER_LIMIT)
        self.outputs: list[Output] = []
        self.beside = select.poll()
        """Knows by what else something may come: the outputs that are open, and the wire."""
        self.tokens = TokenPipe()
        self.answers = -1
        self._theirs: list[int] = []
        self.sock, theirs = socket.socketpair()
        self.wire = self.sock.fileno()
        self._theirs.append(theirs.detach())
        try:
            self.sock.setblocking(False)
            self.beside.register(self.wire, select.POLLIN)
            self._theirs.append(self.tokens.open())
            self.answers, answers = os.pipe()
            self._theirs.append(answers)
            os.set_blocking(self.answers, False)
            for which in (1, 2):
                read, write = os.pipe()
                self._theirs.append(write)
                self.outputs.append(Output(self, read, which))
            if is_scarce(max(read, write)):
                raise OSError(errno.EMFILE, "the last descriptors are not for workers")
        except OSError:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.pid} {self.pool!r}>"

    def theirs(self) -> list[int]:
        """Return the worker's descriptors: wire, tokens, answers, output, error, those added."""
        return self._theirs

    def add(self, fd: int) -> None:
        """Have one more descriptor for the worker."""
        self._theirs.append(fd)

    def close_theirs(self) -> None:
        """Close the worker's ends, now that it has them."""
        for fd in self._theirs:
            os.close(fd)
        self._theirs = []

    def put(self, frame: Frame) -> None:
        """Put a frame on the wire that is no task."""
        self.outbox.put(frame)
        self._put += 1

    def give(self, frames: Sequence[Frame]) -> bool:
        """
        Give it tasks, and let it begin.

        Returns:
            Whether all that goes by the wire was written.
        """
        if len(frames) == 1 and self.tokens.write_along(frames[0], self._put):
            return not self.outbox.size or self.flush()
        self.outbox.put_all(frames)
        self._put += len(frames)
        written = self.flush()
        self.tokens.write([frame.id for frame in frames])
        return written

    def receive(self) -> list[Frame] | None:
        """
        Return the frames that have come, or None at the end.

        Most come by the pipe. Large ones come by the wire, and here they come after what the worker
        has said before them by the pipe.
        """
        answers = self._receive_answers()
        by_wire: list[Frame] | None = None
        # Now that results are here: what their tasks have printed came before them.
        beside = [fd for fd, _ in self.beside.poll(0)]
        if self.wire in beside:
            by_wire = self._receive_by_wire()
        self.drained = answers is None and by_wire is None
        if self.drained and self.ended:
            return None
        frames = answers or []
        if by_wire:
            for _ in range(MOST_READS):
                more = self._receive_answers()
                if more is None:
                    break
                frames += more
            frames += by_wire
            beside = [fd for fd, _ in self.beside.poll(0)]
        self.printed = any(fd != self.wire for fd in beside)
        return frames

    def _receive_answers(self) -> list[Frame] | None:
        """Read the pipe; return None if there was nothing."""
        reader = self._reader
        try:
            count = read_into(self.answers, [reader.get_buffer()])
        except BlockingIOError:
            return None
        if not count:
            self.ended = True
            return None
        return reader.filled(count)

    def _receive_by_wire(self) -> list[Frame] | None:
        """Read the wire; return None if there was nothing."""
        reader = self._wire_reader
        try:
            count = receive_with_fds(self.sock, reader.get_buffer(), reader.segments)
        except BlockingIOError:
            return None
        except OSError:  # it is broken, or brings descriptors that nobody wants
            count = 0
        if not count:
            self.ended = True
            self.beside.unregister(self.wire)
            return None
        frames = reader.filled(count)
        self.lost, reader.lost = reader.lost, 0
        return frames

    def flush(self) -> bool:
        """
        Write what can be written to the wire.

        Returns:
            Whether all of it was.
        """
        outbox = self.outbox
        try:
            while outbox.size:
                chunk = outbox.chunk()
                part = chunk[0]
                if type(part) is WithSegment:
                    outbox.sent(send_with_fd(self.sock, part))
                elif len(chunk) == 1:
                    outbox.sent(self.sock.send(part))
                else:
                    outbox.sent(self.sock.sendmsg(chunk))
        except BlockingIOError:
            return False
        except OSError:
            outbox.clear()  # it is dead; the zygote will say so
        return True

    def want_writing(self, loop: Loop, writing: bool) -> None:
        """Have the loop say when there is room on the wire, or no more."""
        if writing != self.writing:
            self.writing = writing
            self.update_watch(loop)

    def update_watch(self, loop: Loop) -> None:
        """Have the loop watch for what is wanted now."""
        reading = not (self.paused or self.hung_up)
        loop.want(self.answers, read=reading)
        loop.want(self.wire, read=reading, write=self.writing and not self.hung_up)

    def stderr(self, limit: int) -> str:
        """Return the last characters of its standard error."""
        for output in self.outputs:
            if output.which == 2:
                return output.last.decode("utf-8", "replace")[-limit:]
        return ""

    def close(self) -> None:
        """Close our ends, which the loop has forgotten, and let go of all that refers to us."""
        self.close_theirs()
        self.tokens.close()
        for output in self.outputs:
            output.close()
        self.outputs = []
        self.pool.shell = None
        if self.timer is not None:
            self.timer.close()
            self.timer = None
        if self.answers >= 0:
            os.close(self.answers)
            self.answers = -1
        self.sock.close()
