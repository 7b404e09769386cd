"""
The supervisor: one thread that stands between clients and workers.

::

    client --stream--> Connection (Link) --> Requests --> Pool --> Assignments --> WorkerProcess
                             ^                                                    tokens | wire
    client <-- RESULT, unopened <-- ClientSession (Session) <-- Results <-- wire <-- worker

It moves frames, never opens a payload, and decides nothing about who runs what: that is the
:class:`~remote_executor.core.pool.Pool`'s business. Everything that happened in one round of the
loop is acted upon at its end: one write per worker, one per client. This module has the loop, and
puts the parts together; each part has a module of its own.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from remote_executor import garbage
from remote_executor.core.pool import Pool
from remote_executor.errors import ServerFailed
from remote_executor.net.segments import most_descriptors, raise_descriptor_limit
from remote_executor.net.streams import SocketStream
from remote_executor.server.acceptor import Acceptor
from remote_executor.server.assignments import Assignments
from remote_executor.server.begin_order import BeginOrder
from remote_executor.server.client_session import named
from remote_executor.server.connection import Connection
from remote_executor.server.context import Context
from remote_executor.server.memory_watch import MemoryWatch
from remote_executor.server.outputs import Outputs, Throttle
from remote_executor.server.processes import LINGER_SECONDS, Processes
from remote_executor.server.requests import Requests
from remote_executor.server.results import Results
from remote_executor.server.running import Running
from remote_executor.server.sessions import Sessions
from remote_executor.server.strangers import MOST_STRANGERS, Progress, Strangers, network_of
from remote_executor.server.token_pipe import TokenPipes
from remote_executor.server.vigil import Vigil
from remote_executor.wire.frames import make_frame
from remote_executor.wire.messages import Kind, decode_fields, encode_fields

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from remote_executor.core.lease import Lease
    from remote_executor.core.pool import PoolSession, PoolWorker
    from remote_executor.net.loop import Loop
    from remote_executor.net.tls import ServerTLS
    from remote_executor.server.client_session import ClientSession
    from remote_executor.server.door import Door
    from remote_executor.server.workers import WorkerProcess
    from remote_executor.wire.auth import Mechanism
    from remote_executor.wire.frames import Frame

__all__ = ["Supervisor"]

SILENCE_SECONDS = 15.0
"""A client of which nothing is heard for so long has no link any more."""

SHORTEST_SILENCE = 3.0
"""... for a server that was launched with a short grace."""

EMBEDDED_SILENCE = 3600.0
"""... for one whose client has started it, and ends it by closing a socket."""

LONGEST_DRAIN = 1e8
"""Seconds after which a server that drains may be told to end."""

BUSY_FRAMES = 48
"""A round with so many frames is a busy one."""

COALESCE_SECONDS = 0.0002
"""After a busy round, sleep so long, so that the next has more to do."""

COALESCE_SLACK = 48
"""... if every worker has at least so many tasks left."""


class Supervisor:
    """
    Serve clients with the workers that a zygote makes.

    Args:
        loop: Runs in this thread.
        slots: How many tasks run at a time.
        control: The zygote's socket.
        mechanism: Makes this end's part in a handshake.
        log_level: "debug", "info", "warning" or "error": what is written to standard error.
        tls: Makes the streams of clients, if the server speaks TLS.
        memory_per_worker: Bytes that a worker may have for itself; None for as many as it gets.
    """

    def __init__(
        self,
        loop: Loop,
        slots: int,
        control: socket.socket,
        mechanism: Callable[[], Mechanism],
        log_level: str = "warning",
        tls: ServerTLS | None = None,
        memory_per_worker: int | None = None,
    ) -> None:
        self.mechanism = mechanism
        self.tls = tls
        raise_descriptor_limit()  # the zygote has been forked: workers keep theirs
        self.connections: dict[Connection, None] = {}
        self._strangers: Strangers[Connection] = Strangers(
            max(8, min(MOST_STRANGERS, most_descriptors() // 4))
        )
        tokens = TokenPipes()
        pool = Pool(slots, tokens)
        context = self._context = Context(loop, pool, log_level)
        self._throttle = Throttle(context)
        outputs = Outputs(context, self._throttle)
        self._processes = Processes(context, control, outputs, self)
        self._results = Results(context, self._processes, outputs, self._throttle, self._broken)
        running = Running(context, self._processes, self._results, self._assign)
        order = BeginOrder(pool, tokens.unread)
        self._assignments = Assignments(context, self._processes, order, running.given)
        self.frames = Requests(context, running, self._assignments.give).take
        self._sessions = Sessions(
            context,
            self._processes,
            self._results,
            outputs,
            self._throttle,
            MemoryWatch(context, self._processes, memory_per_worker),
            self._identity,
            self._session_ended,
        )
        self._acceptor: Acceptor | None = None
        self._lease: Lease | None = None
        self._lease_timer = loop.timer(lambda _: self.stop())
        self._drain_timer = loop.timer(lambda _: self.stop())
        self._owner: ClientSession | None = None
        """Whose server this is, if it was launched for one client."""
        self._silence = SILENCE_SECONDS
        self._started = time.time()
        self._vigil = Vigil()

    def __repr__(self) -> str:
        return f"<Supervisor {self._context.pool!r} {len(self.connections)} connections>"

    def log(self, level: str, text: str) -> None:
        """Write a line to standard error, if it is important enough."""
        self._context.log.write(level, text)

    # -------------------------------------------------------------- who it is for

    def listen(self, door: Door) -> None:
        """Accept connections at a door that is open."""
        self._acceptor = Acceptor(self._context, door, self._connect)

    def let(self, lease: Lease) -> None:
        """Belong to the first client that comes, and end as the lease says."""
        self._lease = lease
        self._silence = min(SILENCE_SECONDS, max(SHORTEST_SILENCE, lease.grace))
        self._lease_timer.at(lease.deadline())

    def hung_up(self) -> None:
        """The channel over which this server was launched has ended."""
        assert self._lease is not None
        self._lease.hung_up(self._context.loop.now)
        self._lease_timer.at(self._lease.deadline())

    def serve_one(self, stream: SocketStream, *, embedded: bool) -> None:
        """
        Serve this stream alone, and end with it.

        Args:
            stream: The stream.
            embedded: Whether the client is on this machine, and no link needs a heartbeat.
        """
        self._context.single, self._context.embedded = True, embedded
        silence = EMBEDDED_SILENCE if embedded else SILENCE_SECONDS
        connection = Connection(
            self._context, self, stream, "the client", self.mechanism(), silence
        )
        self.connections[connection] = None
        connection.flush()

    def _identity(self) -> dict[str, str]:
        """Return what tells a client which server it has met: this one, or one in its place."""
        # Who is started anew has another id, and listens where the one before did. One that was
        # launched has its port or folder by chance, and whoever is led to it is led to no other.
        acceptor = self._acceptor
        where = "launched" if self._lease is not None else acceptor and acceptor.door.address
        place = f"{self._context.host} {where}" if where else ""
        return {"server": self._context.id, "place": place}

    # ------------------------------------------------------------------- the loop

    def run(self) -> None:
        """
        Serve until it is over, then kill all workers.

        Raises:
            ServerFailed: If it has ended though nobody has asked for that.
        """
        context = self._context
        loop, pool, round = context.loop, context.pool, context.round
        # A long queue is many objects and no cycles: looking for some took a fifth of the time.
        garbage.freeze()
        garbage.set_threshold(50_000, 50, 50)
        try:
            while not context.over:
                ready = self._await()
                if pool.is_provided_for():
                    # Who has just woken us has begun its next task, or wants to: out of its way.
                    time.sleep(COALESCE_SECONDS)
                    ready = loop.poll(0.0)
                round.frames = 0
                loop.dispatch(ready)
                self._settle(loop.now)
                if round.frames >= BUSY_FRAMES and pool.slack() >= COALESCE_SLACK:
                    time.sleep(COALESCE_SECONDS)
        finally:
            self._close()
        if context.failure:
            raise ServerFailed(context.failure)

    def _await(self) -> list[tuple[int, int]]:
        """Wait for something to happen: awake, if one short task follows the other."""
        round, loop = self._context.round, self._context.loop
        quick, round.quick = round.quick, False
        if not quick:
            return loop.poll()
        ready = self._vigil.keep(self._look) or loop.poll()
        self._vigil.end()
        return ready

    def _look(self) -> list[tuple[int, int]]:
        return self._context.loop.poll(0.0)

    def _settle(self, now: float) -> None:
        """Act upon all that has happened in this round."""
        round = self._context.round
        if round.readable:
            # Output was read before, so that it comes before the result of its task.
            readable, round.readable = round.readable, {}
            for process in readable:
                self._results.read(process)
            # Whoever waits for a result should not wait for our deliberations too.
            round.flush_connections()
        self._assignments.carry_out(now)
        if round.workers:
            for process in round.workers:
                self._processes.flush(process)
            round.workers.clear()
        if round.connections:
            round.flush_connections()
        if self._throttle:
            self._throttle.resume()
        if self._context.draining:
            self._sessions.end_drained()
        if self._context.ending and not (self._context.sessions or self._processes):
            self._context.over = True

    def _assign(self, now: float) -> None:
        self._assignments.carry_out(now)

    def stop(self) -> None:
        """End now: say goodbye and kill all workers. A signal handler may call this."""
        self._context.over = True
        self._context.loop.wake()

    def end(self) -> None:
        """Accept no new sessions, and end when the last one has."""
        if not self._context.ending:
            self._context.ending = True
            if self._acceptor is not None:
                self._acceptor.close()
            self._recheck_listening()

    def drain(self, timeout: float | None = None) -> None:
        """
        Give back what has not begun, take nothing more, and end when the rest is done.

        A signal handler may call this.

        Args:
            timeout: Seconds after which it ends all the same; None for as long as it takes.
        """
        self._context.loop.post(lambda: self._drain(timeout))

    def _drain(self, timeout: float | None) -> None:
        context = self._context
        if timeout is not None:
            self._drain_timer.at(context.loop.now + timeout)
        if not context.draining:
            self.log("info", "= the server drains: tasks that have begun are finished")
            context.draining = True
            for client in list(context.sessions.values()):
                self._sessions.drain(client)
            self.end()

    def _recheck_listening(self) -> None:
        if self._acceptor is not None:
            self._acceptor.recheck()

    def _close(self) -> None:
        for connection in list(self.connections):
            connection.link.say_goodbye()
            connection.flush()
            connection.close()
        if self._acceptor is not None:
            self._acceptor.close()
        self._sessions.close()
        self._processes.close()

    # ---------------------------------------------------------------- connections

    def _connect(self, sock: socket.socket, where: Any) -> None:
        """Serve somebody who has connected."""
        if isinstance(where, tuple):
            host, peer = str(where[0]), f"{where[0]}:{where[1]}"
        else:
            host, peer = "", "a local client"
        try:
            stream = SocketStream(sock) if self.tls is None else self.tls.stream(sock, peer)
            connection = Connection(
                self._context, self, stream, peer, self.mechanism(), self._silence
            )
        except OSError:
            sock.close()  # it was gone before we looked
            return
        except Exception:
            # A mechanism that cannot be made: the user's own, as a rule.
            self._context.log.exception(f"! {peer} cannot be served")
            sock.close()
            return
        victim = self._strangers.add(connection, network_of(host))
        if victim is not None:
            victim.lost("others came before it proved who it is")
        self.log("debug", f"= {peer} connected")
        self.connections[connection] = None
        self._context.round.connections[connection] = None

    def advanced(self, connection: Connection) -> None:
        """A stranger has said something, if only to make a TLS stream: see Strangers."""
        expected = connection.link.place in self._sessions.places
        progress = Progress.EXPECTED if expected else Progress.SPEAKING
        victim = self._strangers.advance(connection, progress)
        if victim is not None:
            victim.lost("others came back before it proved who it is")

    def known(self, connection: Connection) -> None:
        """A peer has proved who it is."""
        self._strangers.remove(connection)

    def attach(self, connection: Connection, frame: Frame, now: float) -> ClientSession | None:
        """Give a connection its session, an old or a new one."""
        client = self._sessions.attach(connection, frame, now)
        if client is not None and self._lease is not None:
            self._owner = self._owner or client
            if client is self._owner:
                self._lease.attached()
                self._lease_timer.at(None)
        self._recheck_listening()
        return client

    def broke_the_rules(self, client: ClientSession) -> None:
        """A client has sent nonsense, and was left."""
        self._sessions.end(client, "it broke the protocol")

    def goodbye(self, connection: Connection) -> None:
        """A client has said that it needs us no more."""
        context = self._context
        if connection.client is not None:
            self._sessions.end(connection.client, "goodbye", gently=True)
        if context.single or (self._owner is not None and connection.client is self._owner):
            context.ending = True
            context.loop.timer(lambda _: self.stop()).at(context.loop.now + LINGER_SECONDS)

    def cut(self, connection: Connection) -> None:
        """A stream has ended without a goodbye."""
        context = self._context
        if context.single:
            context.over = True  # its one client is gone
        elif self._lease is not None and connection.client is self._owner is not None:
            heard = connection.link.heard
            # Its next link may be there already.
            if self._owner.connection is None:
                silent = context.loop.now - heard >= connection.link.silence
                self._lease.cut(context.loop.now, heard, not silent)
                self._lease_timer.at(self._lease.deadline())

    def detached(self, client: ClientSession) -> None:
        """A session has lost its link."""
        self._recheck_listening()

    def closed(self, connection: Connection) -> None:
        """A connection is no more."""
        self.connections.pop(connection, None)
        self._strangers.remove(connection)

    # ---------------------------------------------------------- sessions, workers

    def _session_ended(self, client: ClientSession, gently: bool) -> None:
        if client is self._owner and not gently:
            self.stop()
        self._recheck_listening()

    def _broken(self, client: ClientSession, frame: Frame) -> None:
        self._sessions.broken(client, frame)

    def worker_exited(self, process: WorkerProcess, status: int | None) -> None:
        """A worker's process has ended."""
        self._sessions.worker_exited(process, status)

    def worker_not_made(self, worker: PoolWorker, error: OSError) -> None:
        """There is no room for one more worker now."""
        self._sessions.worker_not_made(worker, error)

    # ------------------------------------------------------------- administration

    def administer(self, connection: Connection, frame: Frame) -> None:
        """Answer an administrator."""
        fields = decode_fields(frame.body, op=str)
        op = fields["op"]
        reply: dict[str, Any]
        if op == "ping":
            reply = {"error": "ending"} if self._context.ending else {"ok": True}
        elif op == "status":
            reply = self.status()
        elif op == "drain":
            timeout = fields.get("timeout")
            if not isinstance(timeout, (int, float)) or not 0 <= timeout < LONGEST_DRAIN:
                timeout = None
            self.log("info", f"= {connection.peer} ({named(connection.principal())}) has us drain")
            running = sum(len(each.tasks) for each in self._context.pool.sessions)
            reply = {"ok": True, "sessions": len(self._context.sessions), "running": running}
            self.drain(timeout)
        elif op == "end":
            self.log("info", f"= {connection.peer} ({named(connection.principal())}) has us end")
            reply = {"ok": True, "sessions": len(self._context.sessions)}
            self._context.loop.post(self.end)
        else:
            reply = {"error": f"unknown operation {op[:40]!r}"}
        connection.link.outbox.put(make_frame(Kind.REPLY, body=encode_fields(reply)))

    def status(self) -> dict[str, Any]:
        """Return what an administrator may want to know, as JSON values."""
        pool = self._context.pool
        return {
            "ok": True,
            "host": self._context.host,
            "pid": os.getpid(),
            "python": list(sys.version_info[:3]),
            "implementation": sys.implementation.name,
            "slots": pool.slots,
            "busy": pool.holding,
            "ending": self._context.ending,
            "draining": self._context.draining,
            "uptime": time.time() - self._started,
            "version": _version(),
            "sessions": [
                {"client": each.pop("name"), "connected": self._is_connected(session), **each}
                for session, each in zip(pool.sessions, pool.status(), strict=True)
            ],
        }

    def _is_connected(self, session: PoolSession) -> bool:
        client = self._context.clients.get(session)
        return client is not None and client.connection is not None


def _version() -> str:
    # Floors below the top may not import it, but it has been imported.
    return str(getattr(sys.modules["remote_executor"], "__version__", ""))
