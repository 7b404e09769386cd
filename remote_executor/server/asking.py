"""
The modules of one session: what its workers ask for, and what its client has sent.

::

    worker --WANT 1--> Asking --WANT 7--> client        numbered anew, since all workers of the
    worker <-MODULES 1-  |    <-MODULES 7-              session ask by one way
                         contents by digest             kept, so that each comes once

What is kept is the business of :class:`~remote_executor.core.sources.Sources`. Contents are not
looked at, and whatever else an answer says is the worker's to read.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from remote_executor.core.sources import Sources
from remote_executor.errors import RemoteProtocolError
from remote_executor.net.segments import Segment
from remote_executor.wire.frames import FrameReader, make_frame
from remote_executor.wire.messages import Kind, decode_fields
from remote_executor.wire.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.net.loop import Loop
    from remote_executor.server.sharing import Incoming
    from remote_executor.server.workers import WorkerProcess
    from remote_executor.wire.frames import Frame

__all__ = ["Asking"]

QUESTION_LIMIT = 1024 * 1024
"""The largest question in bytes."""


class _Line:
    """The supervisor's end of a worker's socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = FrameReader(QUESTION_LIMIT)
        self.outbox = Outbox()


def _tell_nobody(frame: Frame) -> None:
    """Stand in for the way to the client of a session that is over."""


class Asking:
    """
    Passes questions on, and answers back.

    Args:
        loop: Watches the sockets.
        incoming: Where the memory of large frames comes from.
        tell_client: Sends a frame to the client.
    """

    __slots__ = ("_incoming", "_lines", "_loop", "_tell_client", "sources")

    def __init__(
        self, loop: Loop, incoming: Incoming, tell_client: Callable[[Frame], None]
    ) -> None:
        self._loop = loop
        self._incoming = incoming
        self._tell_client = tell_client
        self._lines: dict[WorkerProcess, _Line] = {}
        self.sources: Sources[WorkerProcess] = Sources()

    def open(self, process: WorkerProcess) -> int:
        """Make a way for a new worker, and return the descriptor that is the worker's end."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        line = self._lines[process] = _Line(ours)
        self._loop.watch(
            ours.fileno(), lambda: self._read(process, line), lambda: self._flush(process, line)
        )
        return theirs.detach()

    def worker_gone(self, process: WorkerProcess) -> None:
        """A worker has ended, or closed its end: nobody waits there."""
        line = self._lines.pop(process, None)
        if line is not None:
            self._loop.forget(line.sock.fileno())
            line.sock.close()
            self.sources.gone(process)

    def close(self) -> None:
        """Let go of all."""
        for process in list(self._lines):
            self.worker_gone(process)
        self.sources.clear()
        self._tell_client = _tell_nobody

    def _read(self, process: WorkerProcess, line: _Line) -> None:
        try:
            count = line.sock.recv_into(line.reader.get_buffer())
            frames = line.reader.filled(count)
        except BlockingIOError:
            return
        except (OSError, RemoteProtocolError):
            count = 0
        if not count:
            self.worker_gone(process)
            return
        for frame in frames:
            id = self.sources.asked(process, frame.id)
            self._tell_client(make_frame(Kind.WANT, id, frame.body))

    def answered(self, frame: Frame) -> list[str]:
        """
        Pass an answer of the client's on to the worker that asked.

        Returns:
            The names of the modules in it.

        Raises:
            RemoteProtocolError: If it names contents that are neither in it nor here.
        """
        fields: dict[str, Any] = decode_fields(frame.body, contents=list, sent=list, drop=list)
        found = self.sources.answered(frame.id, fields, frame.buffers)
        if isinstance(frame.segment, Segment):
            # What stays was copied: this memory is for arrays.
            self._incoming.back(frame.segment)
        if found is None:
            return []  # it has ended meanwhile
        process, number, contents = found
        line = self._lines[process]
        line.outbox.put(make_frame(Kind.MODULES, number, frame.body, contents))
        self._flush(process, line)
        modules = fields.get("modules")
        if not isinstance(modules, list):
            return []
        return [str(each[0]) for each in modules if isinstance(each, list) and each]

    def _flush(self, process: WorkerProcess, line: _Line) -> None:
        outbox = line.outbox
        try:
            while outbox.size:
                outbox.sent(line.sock.sendmsg(outbox.chunk()))
        except BlockingIOError:
            pass
        except OSError:
            self.worker_gone(process)
            return
        self._loop.want(line.sock.fileno(), write=outbox.size > 0)
