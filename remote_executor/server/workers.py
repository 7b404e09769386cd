"""The supervisor's end of a worker: its wire, its token pipe, its output."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
from termios import FIONREAD
from typing import TYPE_CHECKING

from remote_executor.net.streams import receive_with_fds, send_with_fd
from remote_executor.wire.frames import WORKER_LIMIT, FrameReader
from remote_executor.wire.outbox import Outbox, WithSegment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_executor.core.pool import PoolWorker
    from remote_executor.wire.frames import Frame

__all__ = ["Output", "TokenPipes", "WorkerProcess"]

OUTPUT_CHUNK = 64 * 1024
LONGEST_LINE = 8 * 1024
STDERR_KEPT = 8 * 1024


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
        process.printing.register(fd, select.POLLIN)
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
            self.process.printing.unregister(self.fd)
            os.close(self.fd)
            self.fd = -1


class WorkerProcess:
    """
    A worker's process and the ways to it.

    Attributes:
        pool: The pool's idea of it.
        number: What the zygote calls it before it has a pid.
        pid: Its process id, 0 until the zygote has told it.
        known: Numbers of the functions that it holds.
        holds: Tasks whose shared memory it may be using.
        doomed: Tasks that are being killed, and why.
        drained: Whether the last reading of the wire found nothing more.
        killed: Whether we want it dead.
        hung_up: Whether it has closed the wire.
        started: Whether it has said that it is ready.
    """

    __slots__ = (
        "_theirs",
        "doomed",
        "drained",
        "fd",
        "holds",
        "hung_up",
        "killed",
        "known",
        "number",
        "outbox",
        "outputs",
        "pid",
        "pool",
        "printing",
        "reader",
        "sock",
        "started",
        "token_read",
        "token_write",
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
        self.hung_up = False
        self.started = False
        self.writing = False
        self.drained = False
        self.outbox = Outbox()
        self.reader = FrameReader(WORKER_LIMIT)
        self.reader.open_up(WORKER_LIMIT)
        self.outputs: list[Output] = []
        self.printing = select.poll()
        """Knows the outputs that are open."""
        self.token_read = self.token_write = -1
        self._theirs: list[int] = []
        self.sock, theirs = socket.socketpair()
        self.fd = self.sock.fileno()
        self.sock.setblocking(False)
        self._theirs.append(theirs.detach())
        try:
            token_read, self.token_write = os.pipe()
            self._theirs.append(token_read)
            self.token_read = _second_reader(token_read)
            for which in (1, 2):
                read, write = os.pipe()
                self._theirs.append(write)
                self.outputs.append(Output(self, read, which))
        except OSError:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.pid} {self.pool!r}>"

    def theirs(self) -> list[int]:
        """Return the descriptors for the worker: wire, tokens, output, error, and those added."""
        return self._theirs

    def add(self, fd: int) -> None:
        """Have one more descriptor for the worker."""
        self._theirs.append(fd)

    def close_theirs(self) -> None:
        """Close the worker's ends, now that it has them."""
        for fd in self._theirs:
            os.close(fd)
        self._theirs = []

    def receive(self) -> list[Frame] | None:
        """Return the frames that have come, or None at the end of the wire."""
        try:
            count = receive_with_fds(self.sock, self.reader.get_buffer(), self.reader.segments)
        except BlockingIOError:
            self.drained = True
            return []
        except OSError:
            count = 0
        self.drained = not count
        return self.reader.filled(count) if count else None

    def has_printed(self) -> bool:
        """Whether there is output to read."""
        return bool(self.printing.poll(0))

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

    def write_tokens(self, ids: Sequence[int]) -> None:
        """Let the worker begin these tasks."""
        if self.token_write < 0:
            return
        try:
            if len(ids) == 1:
                os.write(self.token_write, ids[0].to_bytes(8, "little"))
            else:
                os.write(self.token_write, struct.pack(f"<{len(ids)}Q", *ids))
        except BrokenPipeError:
            pass  # only if we closed our own read end, too

    def close_tokens(self) -> None:
        """Have the worker end once it has nothing to do."""
        if self.token_write >= 0:
            os.close(self.token_write)
            self.token_write = -1

    def stderr(self, limit: int) -> str:
        """Return the last characters of its standard error."""
        for output in self.outputs:
            if output.which == 2:
                return output.last.decode("utf-8", "replace")[-limit:]
        return ""

    def close(self) -> None:
        """Close our ends; the loop has forgotten them."""
        self.close_theirs()
        self.close_tokens()
        if self.token_read >= 0:
            os.close(self.token_read)
            self.token_read = -1
        for output in self.outputs:
            output.close()
        self.sock.close()


def _second_reader(fd: int) -> int:
    """
    Open a pipe's read end a second time, not blocking.

    A plain dup shares the flag with the worker's end. Where the pipe cannot be opened anew, the
    worker has to live with that: it polls.
    """
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        os.set_blocking(fd, False)
        return os.dup(fd)


class TokenPipes:
    """The pool's way to the token pipes: see :class:`remote_executor.core.pool.Tokens`."""

    def reclaim(self, worker: PoolWorker) -> list[int]:
        """Take back all tokens that the worker has not read, in order."""
        process: WorkerProcess | None = worker.shell
        if process is None or process.token_read < 0:
            return []
        try:
            data = os.read(process.token_read, 65536)
        except BlockingIOError:
            return []
        return list(struct.unpack(f"<{len(data) // 8}Q", data))

    def restore(self, worker: PoolWorker, ids: Sequence[int]) -> None:
        """Give back tokens that were reclaimed."""
        if ids:
            worker.shell.write_tokens(ids)

    def unread(self, worker: PoolWorker) -> int:
        """Return how many tokens the worker has not read."""
        process: WorkerProcess | None = worker.shell
        if process is None or process.token_read < 0:
            return 0
        size: int = struct.unpack("i", fcntl.ioctl(process.token_read, FIONREAD, b"\0" * 4))[0]
        return size // 8
