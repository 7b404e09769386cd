"""The parts of a supervisor, put together by hand: pipes and a loop, and no process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from remote_executor.core.pool import Pool, Start
from remote_executor.net.loop import Loop
from remote_executor.server.asking import Asking
from remote_executor.server.client_session import ClientSession
from remote_executor.server.context import Context
from remote_executor.server.sharing import Incoming, Memory, Sharing
from remote_executor.server.token_pipe import TokenPipes
from remote_executor.server.workers import WorkerProcess
from remote_executor.wire.frames import FrameReader
from remote_executor.wire.outbox import Outbox
from remote_executor.wire.session import Session

if TYPE_CHECKING:
    from remote_executor.core.pool import PoolWorker
    from remote_executor.wire.frames import Frame

__all__ = ["Parts", "taken"]


class Link:
    """As much of a link as a session's parts look at."""

    def __init__(self) -> None:
        self.outbox = Outbox()


class Attached:
    """A connection that only takes note of what is written to it."""

    def __init__(self, client: ClientSession) -> None:
        self.client: ClientSession | None = client
        self.link = Link()
        self.flushed = 0

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.client = None


def taken(outbox: Outbox) -> list[Frame]:
    """Take what is to be written, as whoever reads it has it."""
    reader, frames = FrameReader(2**20), []
    reader.open_up(2**20)
    while outbox.size:
        for part in outbox.chunk():
            data = memoryview(bytes(part))
            outbox.sent(len(data))
            while data:
                buffer = reader.get_buffer()
                count = min(len(buffer), len(data))
                buffer[:count] = data[:count]
                frames += reader.filled(count)
                data = data[count:]
            break
    return frames


class Parts:
    """A context, and one session, which may have two workers."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.pool = Pool(2, TokenPipes())
        self.context = Context(self.loop, self.pool, "debug")
        tenant = self.pool.open("somebody", 2, None)
        wire = Session(0.0, 60.0)
        client = ClientSession("0" * 32, wire, tenant, {}, ("", ""), self.context.round)
        client.incoming = Incoming(Memory())
        client.sharing = Sharing(client.incoming, client.send, client.tell_worker)
        client.asking = Asking(self.loop, client.incoming, client.send)
        client.timer = self.loop.timer(lambda now: None)
        client.connection = Attached(client)
        wire.attach(client.connection.link.outbox, 0)
        self.context.sessions[client.id] = client
        self.context.clients[tenant] = client
        self.client = client
        self.processes: list[WorkerProcess] = []

    def start_workers(self, number: int) -> list[Start]:
        """Have the pool want so many workers; return what it asks for."""
        self.pool.queue(self.client.pool, list(range(1, number + 1)))
        return [each for each in self.pool.assign(self.loop.now) if isinstance(each, Start)]

    def pass_time(self, seconds: float) -> None:
        """Do what is due after so many seconds, or can be done now."""
        deadline = time.monotonic() + seconds
        ready = self.loop.poll(0.0)
        self.loop.dispatch(ready)
        while time.monotonic() < deadline:
            self.loop.dispatch(self.loop.poll(deadline - time.monotonic()))

    def start(self, worker: PoolWorker) -> WorkerProcess:
        """Make the pipes of a worker, as if the zygote had made its process."""
        process = WorkerProcess(worker, len(self.processes) + 1)
        process.pid = 1000 + process.number
        worker.shell = process
        self.client.processes[process] = None
        self.processes.append(process)
        self.loop.watch(process.answers, lambda: None)
        self.loop.watch(process.wire, lambda: None, lambda: None)
        return process

    def sent(self) -> list[Frame]:
        """Return the frames that the client has been sent since the last time."""
        assert self.client.connection is not None
        return taken(self.client.connection.link.outbox)

    def close(self) -> None:
        for process in self.processes:
            for fd in (process.answers, process.wire):
                if self.loop.watches(fd):
                    self.loop.forget(fd)
            process.close()
        self.loop.close()
