"""
The tasks that tasks make: the supervisor's end of what a worker says to its client about them.

::

    task --SPAWN--> TaskLines --SPAWN--> client          in the order in which it was said, before
    task <--CHILD-- TaskLines <--CHILD-- client          the task's own result

A worker opens its line when a task of its makes another for the first time: it sends one end of a
pair of sockets. Nothing is opened here but what says that a task waits, or goes on: then its slot
is lent to others, which the pool decides.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from remote_executor.core.pool import WorkerState
from remote_executor.errors import RemoteProtocolError
from remote_executor.net.segments import Descriptor
from remote_executor.net.streams import send_with_fd
from remote_executor.wire.frames import WORKER_LIMIT, FrameReader
from remote_executor.wire.messages import Kind, decode_fields
from remote_executor.wire.nested import Said, Spawn, child_frame, said_in
from remote_executor.wire.outbox import Outbox, WithSegment

if TYPE_CHECKING:
    from remote_executor.server.client_session import ClientSession
    from remote_executor.server.context import Context
    from remote_executor.server.workers import WorkerProcess
    from remote_executor.wire.frames import Frame

__all__ = ["MOST_WAITING", "TaskLines"]

MOST_WAITING = 512
"""Tasks of one client that may wait at one server; each has a process of its own."""

MOST_UNACKED = 256 * 1024 * 1024
"""With so many bytes not acknowledged by their client, tasks that make tasks must wait."""

LAYER = "remote_executor.parallel."

PAUSE_SECONDS = 0.1
"""So often it is looked whether the client has caught up."""

MOST_READS = 16
"""So often one line is read in a round, so that others have their turn."""


class _Line:
    """The supervisor's end of a worker's line."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = FrameReader(WORKER_LIMIT)
        self.reader.open_up(WORKER_LIMIT)
        self.outbox = Outbox()


class TaskLines:
    """
    The lines of one session's workers.

    Args:
        context: The server's.
        client: The session.
    """

    __slots__ = ("_client", "_context", "_lines", "_loop", "_paused", "_pool", "_session", "_timer")

    def __init__(self, context: Context, client: ClientSession) -> None:
        self._context = context
        self._client = client
        self._loop = context.loop
        self._pool = context.pool
        self._session = client.pool
        self._lines: dict[WorkerProcess, _Line] = {}
        self._paused: dict[WorkerProcess, None] = {}
        """Those that are not read until the client has caught up."""
        self._timer = context.loop.timer(self._look_again)

    def __len__(self) -> int:
        return len(self._lines)

    def opened(self, process: WorkerProcess, frame: Frame) -> list[str]:
        """
        A worker has sent one end of its line along with a frame.

        Returns:
            The modules of ``remote_executor.parallel`` that its task has loaded.

        Raises:
            RemoteProtocolError: If it has not, or has one already.
        """
        descriptor = frame.segment
        if descriptor is None or descriptor.fd < 0 or process in self._lines:
            raise RemoteProtocolError("a worker opens a way for its tasks that cannot be")
        fd, descriptor.fd = descriptor.fd, -1
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
        sock.setblocking(False)
        line = self._lines[process] = _Line(sock)
        self._loop.watch(
            sock.fileno(), lambda: self._read(process, line), lambda: self._flush(process, line)
        )
        page = self._context.idle.open()
        if page >= 0:
            try:
                along = Descriptor(os.dup(page))
            except OSError:  # there are too many: the worker does without
                return []
            said = child_frame(Said.IDLE, frame.id, 0, b"", (b"\0",))
            said.set_segment(along)
            self._put(process, said)
        loaded = decode_fields(frame.body, loaded=list)["loaded"]
        return [name for name in loaded if isinstance(name, str) and name.startswith(LAYER)]

    def worker_gone(self, process: WorkerProcess) -> None:
        """A worker has ended, or closed its end."""
        line = self._lines.pop(process, None)
        self._paused.pop(process, None)
        if line is not None:
            self._loop.forget(line.sock.fileno())
            line.sock.close()

    def close(self) -> None:
        """Let go of all."""
        for process in list(self._lines):
            self.worker_gone(process)
        self._timer.close()
        del self._client  # it refers to this, and is to go without the garbage collector

    # -------------------------------------------------------------- from the worker

    def drain(self, process: WorkerProcess) -> None:
        """Take what a worker has said up to now: it comes before the results of its tasks."""
        line = self._lines.get(process)
        while line is not None and self._take(process, line):
            line = self._lines.get(process)

    def _read(self, process: WorkerProcess, line: _Line) -> None:
        """Read some of a line, unless the client is too far behind."""
        if self._client.wire.unacked_bytes > MOST_UNACKED:
            self._paused[process] = None
            self._loop.want(line.sock.fileno(), read=False)
            self._timer.at(self._loop.now + PAUSE_SECONDS)
        else:
            self._take(process, line)

    def _look_again(self, now: float) -> None:
        if self._client.wire.unacked_bytes > MOST_UNACKED:
            self._timer.at(now + PAUSE_SECONDS)
            return
        paused, self._paused = self._paused, {}
        for process in paused:
            self._loop.want(self._lines[process].sock.fileno(), read=True)

    def _take(self, process: WorkerProcess, line: _Line) -> bool:
        """Read some of a line; return whether there may be more."""
        for _ in range(MOST_READS):
            try:
                count = line.sock.recv_into(line.reader.get_buffer())
                frames = line.reader.filled(count)
            except BlockingIOError:
                return False
            except (OSError, RemoteProtocolError):
                count = 0
            if not count:
                self.worker_gone(process)
                return False
            for frame in frames:
                self._heard(process, frame)
        return True

    def _heard(self, process: WorkerProcess, frame: Frame) -> None:
        worker = process.pool
        if frame.kind != Kind.SPAWN or frame.id not in worker.assigned:
            return  # from a thread that a task has left behind
        what = said_in(frame)
        if what == Spawn.WAITS:
            waiting = len(self._session.waiting)
            if waiting >= MOST_WAITING and worker.state is WorkerState.BUSY:
                self._put(process, child_frame(Said.NO_ROOM, frame.id, waiting))
                return
            self._pool.wait(worker)
        elif what == Spawn.GOES_ON:
            self._pool.resume(worker)
        if self._context.is_here(self._client):
            self._context.round.frames += 1
            self._client.send(frame)

    # ---------------------------------------------------------------- to the worker

    def told(self, frame: Frame) -> None:
        """The client says something to a task. If that is over, nobody wants to know."""
        worker = self._session.tasks.get(frame.id)
        if worker is not None and worker.shell is not None:
            self._put(worker.shell, frame)

    def go_on(self, process: WorkerProcess) -> None:
        """The pool has a slot again for a worker."""
        self._put(process, child_frame(Said.GO_ON, next(iter(process.pool.assigned), 0)))

    def _put(self, process: WorkerProcess, frame: Frame) -> None:
        line = self._lines.get(process)
        if line is not None:
            line.outbox.put(frame)
            self._flush(process, line)

    def _flush(self, process: WorkerProcess, line: _Line) -> None:
        outbox = line.outbox
        try:
            while outbox.size:
                chunk = outbox.chunk()
                part = chunk[0]
                if type(part) is WithSegment:
                    outbox.sent(send_with_fd(line.sock, part))
                else:
                    outbox.sent(line.sock.sendmsg(chunk))
        except BlockingIOError:
            pass
        except OSError:
            self.worker_gone(process)
            return
        self._loop.want(line.sock.fileno(), write=outbox.size > 0)
