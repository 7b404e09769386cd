"""Sessions begin, are resumed, end; and what follows when their workers do not start, or die."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from remote_executor.core.service import FailedStart, GiveUp, StartStage, errno_words
from remote_executor.errors import RemoteProtocolError
from remote_executor.payload.libraries import installed
from remote_executor.printable import printable
from remote_executor.server.asking import Asking
from remote_executor.server.client_session import ClientSession, named
from remote_executor.server.nested import TaskLines
from remote_executor.server.processes import failed_start
from remote_executor.server.results import STDERR_CHARACTERS, died
from remote_executor.server.sharing import Incoming, Memory, Sharing
from remote_executor.wire.frames import make_frame
from remote_executor.wire.link import place_of
from remote_executor.wire.messages import (
    NO_SLOTS,
    Kind,
    decode_fields,
    encode_fields,
    encode_ids,
)
from remote_executor.wire.session import Session, SessionState

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.core.pool import PoolWorker
    from remote_executor.server.client_session import Principal
    from remote_executor.server.connection import Connection
    from remote_executor.server.context import Context
    from remote_executor.server.memory_watch import MemoryWatch
    from remote_executor.server.outputs import Outputs, Throttle
    from remote_executor.server.processes import Processes
    from remote_executor.server.results import Results
    from remote_executor.server.workers import WorkerProcess
    from remote_executor.wire.frames import Frame

__all__ = ["Sessions"]

LONGEST_GRACE = 1e7
"""Seconds that a session may be without a link at most, whatever its client asks for."""

MOST_SESSION_ID = 128
"""Characters; ours have 32."""


class Sessions:
    """
    All sessions of a server.

    Args:
        context: The server's.
        processes: Their workers.
        results: Reads what these have done.
        outputs: Reads what these have printed.
        throttle: Knows which clients are behind.
        memory_watch: Knows which workers are too large.
        identity: Returns what tells a client which server it has met.
        ended: Called when a session has ended, with whether its client wanted that.
    """

    def __init__(
        self,
        context: Context,
        processes: Processes,
        results: Results,
        outputs: Outputs,
        throttle: Throttle,
        memory_watch: MemoryWatch,
        identity: Callable[[], dict[str, str]],
        ended: Callable[[ClientSession, bool], None],
    ) -> None:
        self._context = context
        self._processes = processes
        self._results = results
        self._outputs = outputs
        self._throttle = throttle
        self._memory_watch = memory_watch
        self._identity = identity
        self._ended = ended
        self._memory = Memory()
        self.places: dict[str, str] = {}
        """The ids of sessions by what a client says when it comes back to one."""

    def __repr__(self) -> str:
        return f"<Sessions {sorted(self._context.sessions)}>"

    # ------------------------------------------------------------------- beginning

    def attach(self, connection: Connection, frame: Frame, now: float) -> ClientSession | None:
        """
        Give a connection its session, an old or a new one.

        Args:
            connection: Its peer has proved who it is.
            frame: The ATTACH that it has sent.
            now: The time.

        Returns:
            The session; None if there is none for this client, which has been told so.

        Raises:
            RemoteProtocolError: If the frame is not what a client sends.
        """
        number = (int, float)
        fields = decode_fields(
            frame.body, session=str, received=int, resume=bool, grace=number, workers=int
        )
        id = fields["session"]
        if not (id.isascii() and id.isprintable() and 0 < len(id) <= MOST_SESSION_ID):
            raise RemoteProtocolError("the id of a session cannot be that")
        resume: bool = fields["resume"]
        principal = connection.principal()
        client = self._context.sessions.get(id)
        if client is not None and client.principal != principal:
            # To know its id is not enough. Whoever wants to resume hears what he would of one that
            # has ended, and nothing of whose it is.
            self._context.log.refusal(
                f"! {connection.peer} ({named(principal)}) wants the session {id[:8]} of "
                f"{named(client.principal)}, and was refused"
            )
            if not resume:
                connection.refuse("a session of that id belongs to somebody else")
                return None
            client = None
        if client is not None and not resume:
            self.end(client, "it began anew")
            client = None
        if client is None and resume:
            # Make nothing yet: the client is to begin a new session, under another name.
            reply = {"resumed": False, "received": 0, "slots": 0, **self._identity()}
            connection.link.outbox.put(make_frame(Kind.ATTACHED, body=encode_fields(reply)))
            return None
        if client is None:
            if self._context.ending:
                connection.refuse("ending")
                return None
            client = self._begin(id, fields, principal, now)
        elif client.connection is not None:
            # It has a new link; the old one is dead, though we had not noticed.
            client.connection.close()
        self._context.log.write(
            "debug" if resume else "info",
            f"= {connection.peer} {'resumed' if resume else 'began'} session {id[:8]} "
            f"({client.pool.name}), {named(principal)}",
        )
        self._welcome(client, connection, fields)
        return client

    def _begin(
        self, id: str, fields: dict[str, Any], principal: Principal, now: float
    ) -> ClientSession:
        context = self._context
        wire = Session(now, min(max(0.0, float(fields["grace"])), LONGEST_GRACE))
        per_worker = fields.get("tasks_per_worker")
        pool = context.pool.open(
            printable(f"{fields.get('host', '?')} pid {fields.get('pid', '?')}", 100),
            fields["workers"],
            per_worker if isinstance(per_worker, int) and per_worker > 0 else None,
        )
        client = ClientSession(id, wire, pool, fields, principal, context.round)
        client.incoming = Incoming(self._memory)
        client.sharing = Sharing(client.incoming, client.send, client.tell_worker)
        client.asking = Asking(context.loop, client.incoming, client.send)
        client.lines = TaskLines(context, client)
        client.timer = context.loop.timer(lambda now: self._tick(client, now))
        context.sessions[id] = client
        context.clients[pool] = client
        self._memory_watch.attached()
        if not context.single:
            client.place = place_of(id)
            self.places[client.place] = id
        return client

    def _welcome(
        self, client: ClientSession, connection: Connection, fields: dict[str, Any]
    ) -> None:
        """Attach a session to a new link, and say what its client has found here."""
        context = self._context
        resumed: bool = fields["resume"]
        client.sharing.host = fields.get("segments") is True and connection.share()
        reply: dict[str, Any] = {
            "resumed": resumed,
            "received": client.wire.received_count,
            "slots": client.pool.limit,
            "host": context.host,
            "pid": os.getpid(),
            **self._identity(),
            "implementation": sys.implementation.name,
            "python": list(sys.version_info[:3]),
            "versions": {} if context.embedded else installed(),
            "segments": client.sharing.host,
        }
        connection.timer.at(connection.link.deadline())
        outbox = connection.link.outbox
        outbox.put(make_frame(Kind.ATTACHED, body=encode_fields(reply)))
        if resumed:
            client.sharing.acknowledged(client.wire.acknowledged(fields["received"]))
        client.wire.attach(outbox, fields["received"] if resumed else 0)
        client.connection = connection
        connection.room.incoming = client.incoming
        self._throttle.look_at(client)

    def _tick(self, client: ClientSession, now: float) -> None:
        client.wire.tick(now)
        if client.wire.state is SessionState.EXPIRED:
            self.end(client, "its client did not come back")
            return
        client.schedule()
        client.wants_writing()

    # ----------------------------------------------------------------------- ending

    def end(self, client: ClientSession, reason: str, *, gently: bool = False) -> None:
        """
        End the workers of a session and forget it.

        Args:
            client: The session; it may have ended already.
            reason: Why, for the log.
            gently: Whether workers that have nothing to do may end by themselves.
        """
        context = self._context
        if not context.is_here(client):
            return
        context.log.write("info", f"= session {client.id[:8]} ends: {reason}")
        del context.sessions[client.id]
        self.places.pop(client.place, None)
        client.timer.close()
        self._throttle.forget(client)
        self._drop_workers(client, gently=gently)
        if client.connection is not None:
            connection, client.connection = client.connection, None
            connection.client = None
            connection.link.say_goodbye()
            connection.flush()
            connection.close()
        self._let_go_if_done(client)
        self._ended(client, gently)

    def drain(self, client: ClientSession) -> None:
        """Have a client send no more tasks here, and take back those that have not begun."""
        taken = self._context.pool.take_back_newest(client.pool, len(client.frames))
        client.send(make_frame(Kind.SLOTS, aux=NO_SLOTS))
        client.give_back(taken)

    def end_drained(self) -> None:
        """End the sessions whose tasks are done, and whose clients have heard all of it."""
        for client in list(self._context.sessions.values()):
            # A client that has acknowledged has sent nothing since it heard that it is to send no
            # more. One that is cut off has not heard: it has its grace.
            if client.connection is not None and not (client.frames or client.wire.unacked_bytes):
                self.end(client, "drained", gently=True)

    def _let_go_if_done(self, client: ClientSession) -> None:
        """Let go of a session that has ended, once its last worker is gone."""
        if not client.processes and client.pool not in self._context.pool.sessions:
            self._context.clients.pop(client.pool, None)
            client.let_go()

    def _drop_workers(self, client: ClientSession, *, gently: bool = False) -> None:
        """End the workers of a session and forget its tasks."""
        pool = self._context.pool
        idle = set(client.pool.idle) if gently else set()
        if client.pool in pool.sessions:
            for worker in pool.close(client.pool):
                if worker in idle:
                    self._processes.stop(worker)
                else:
                    self._processes.kill(worker.shell)
        client.forget_all()

    def close(self) -> None:
        """The server ends."""
        for client in self._context.clients.values():
            client.asking.close()
            client.lines.close()
            client.timer.close()

    # ---------------------------------------------------------------- their workers

    def broken(self, client: ClientSession, frame: Frame) -> None:
        """
        Give a session no workers any more: its client hears what had begun, then why.

        Args:
            client: The session.
            frame: Says why.
        """
        pool = self._context.pool
        if client.broken or not self._context.is_here(client):
            return
        client.broken = True
        for process in list(client.processes):
            self._results.drain(process)
        pool.take_back(client.pool, list(client.pool.tasks))
        begun = list(client.pool.tasks)
        if begun:
            # Of all others the client knows then that they never ran here.
            client.send(make_frame(Kind.BEGUN, body=encode_ids(begun)))
        self._drop_workers(client)
        client.send(frame)

    def worker_not_made(self, worker: PoolWorker, error: OSError) -> None:
        """There is no room for one more worker now: of descriptors, memory or processes."""
        self._context.pool.gone(worker)
        client = self._context.clients[worker.session]
        reason = f"no worker can be made ({errno_words(error.errno)})"
        self._failed_start(client, FailedStart(StartStage.MADE, reason, error.errno))

    def worker_exited(self, process: WorkerProcess, status: int | None) -> None:
        """A worker's process has ended: take what it finished, then what it had not begun."""
        context = self._context
        client = context.clients[process.pool.session]
        self._results.drain(process)
        for output in process.outputs:
            self._outputs.drain(output)
        why = self._memory_watch.why_it_died(process, status)
        for id in context.pool.gone(process.pool):
            client.forget(id)
            reason = process.doomed.get(id, "died")
            client.send(died(context.host, id, reason, process, status, why))
        client.sharing.worker_gone(process)
        client.asking.worker_gone(process)
        client.lines.worker_gone(process)
        said = process.stderr(STDERR_CHARACTERS)
        client.paused_answers.pop(process, None)
        client.processes.pop(process, None)
        self._processes.forget(process)
        if not process.started and not process.killed:
            self._failed_start(client, failed_start(status, process.errno, said))
        self._let_go_if_done(client)

    def _failed_start(self, client: ClientSession, failure: FailedStart) -> None:
        """A worker of a session did not start: try again later, or tell the client."""
        context = self._context
        context.log.write(
            "warning", f"! a worker for {client.pool.name} did not start: {failure.reason}"
        )
        initializer = bool(client.setups)
        others = sum(process.started for process in client.processes)
        what = client.starts.failed(failure, initializer, others, context.loop.now)
        if isinstance(what, GiveUp):
            fields: dict[str, Any] = {
                "stage": "initializer" if what.initializer else "start",
                "host": context.host,
                "type": "WorkerDied",
                "module": "remote_executor.task_errors",
                "message": what.reason,
                "traceback": "",
                "notes": [],
            }
            self.broken(client, make_frame(Kind.BROKEN, 0, encode_fields(fields), (b"",)))
        elif what is not None:
            context.pool.pause(client.pool, what.until)
