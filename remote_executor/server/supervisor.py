"""
The supervisor: one thread that stands between clients and workers.

::

    client --stream--> Connection (Link) --> ClientSession (Session) --> Pool
                                                                          | Give, Start, Stop
    client <-- RESULT, unopened <-- WorkerProcess <-- wire <-- worker <---+ tokens

It moves frames, never opens a payload, and decides nothing about who runs what: that is the
:class:`~remote_executor.core.pool.Pool`'s business. Everything that happened in one round of the
loop is acted upon at its end: one write per worker, one per client.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from remote_executor import garbage
from remote_executor.core.pool import Give, Pool, Start, Verdict, WorkerState
from remote_executor.core.rate import RateLimit
from remote_executor.core.service import FailedStart, GiveUp, Starts, StartStage, errno_words
from remote_executor.errors import AuthenticationFailed, FarmError, RemoteProtocolError
from remote_executor.net.segments import (
    AVAILABLE,
    is_scarce,
    most_descriptors,
    raise_descriptor_limit,
    read_segment,
)
from remote_executor.net.streams import SocketStream
from remote_executor.payload.libraries import installed
from remote_executor.printable import printable, printable_lines
from remote_executor.server.asking import Asking
from remote_executor.server.begin_order import BeginOrder
from remote_executor.server.sharing import Incoming, Memory, Room, Sharing
from remote_executor.server.strangers import MOST_STRANGERS, Progress, Strangers, network_of
from remote_executor.server.token_pipe import ALONG, TokenPipes
from remote_executor.server.vigil import Vigil
from remote_executor.server.workers import Output, WorkerProcess
from remote_executor.server.zygote import NOT_PREPARED, kill_with_descendants
from remote_executor.wire.frames import make_frame, segment_is_lost
from remote_executor.wire.link import Link, LinkState, place_of
from remote_executor.wire.messages import (
    AGAIN,
    AGAIN_BLOB,
    FIRST_NUMBERED,
    GRACE,
    KILLED,
    Flag,
    Kind,
    decode_fields,
    decode_ids,
    encode_fields,
    encode_ids,
    grace_of_aux,
)
from remote_executor.wire.session import Session, SessionState

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.core.lease import Lease
    from remote_executor.core.pool import PoolSession, PoolWorker
    from remote_executor.net.loop import Loop
    from remote_executor.net.tls import ServerTLS, TLSStream
    from remote_executor.server.door import Door
    from remote_executor.wire.auth import Mechanism
    from remote_executor.wire.frames import Frame

__all__ = ["ClientSession", "Connection", "Supervisor"]

CLIENT_LIMIT = 16 * 1024**3
"""The largest frame in bytes that a client may send."""

QUICK_MICROS = 60
"""A single task that takes less is a quick one: what comes after it is waited for awake."""

BEGUN_PERIOD = 0.02
INTERRUPT_PERIOD = 0.05
"""So often a worker whose task is to stop is told so."""

DOOR_SECONDS = 0.5
"""For so long the address of a server that ends is free, even if a client has yet to come back."""

LINGER_SECONDS = 2.0
"""How long a peer has to read our last words, and a worker to end by itself."""

SILENCE_SECONDS = 15.0
"""A client of which nothing is heard for so long has no link any more."""

SHORTEST_SILENCE = 3.0
"""... for a server that was launched with a short grace."""

MOST_UNACKED = 256 * 1024 * 1024
"""With so many bytes not acknowledged by its client, a session's workers must wait."""

MOST_OUTPUT_UNACKED = 64 * 1024 * 1024
MOST_OUTPUT_QUEUED = 1024 * 1024
OUTPUT_SECONDS = 0.05
"""How long the beginning of a line waits for its end."""

STDERR_CHARACTERS = 2000
LONGEST_TIMEOUT = 1e8
LONGEST_GRACE = 1e7
MOST_SESSION_ID = 128
"""Characters; ours have 32."""
ZYGOTE_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF)
"""What the control socket says if there is nobody at its other end; all else may pass."""

MOST_NAME = 300
MOST_NAMES = 1000
"""Characters of names in one line of the log."""

MOST_REFUSALS = 10
REFUSALS_SECONDS = 60.0
"""So many refused peers in so many seconds have a line each in the log; the rest are counted."""

BUSY_FRAMES = 48
"""A round with so many frames is a busy one."""

COALESCE_SECONDS = 0.0002
"""After a busy round, sleep so long, so that the next has more to do."""

COALESCE_SLACK = 48
"""... if every worker has at least so many tasks left."""

TASK = int(Kind.TASK)
RESULT = int(Kind.RESULT)
FAILURE = int(Kind.FAILURE)
ACK = int(Kind.ACK)
OPTIONED = int(Flag.OPTIONED)
SEGMENT = int(Flag.SEGMENT)
SPECIAL = OPTIONED | SEGMENT


Principal = tuple[str, str]
"""Who somebody has proved to be: the name that the mechanism knows, and that of a certificate."""


def _named(principal: Principal) -> str:
    """Return who that is, to be shown."""
    words = [printable(name, MOST_NAME) for name in principal if name]
    return " with the certificate ".join(words) or "somebody without a name"


class ClientSession:
    """
    What a client has here: it outlives the connections.

    Attributes:
        id: 32 hex digits, chosen by the client.
        wire: Numbers and acknowledgements.
        pool: The pool's idea of it.
        connection: The link that is attached, if any.
        config: What ATTACH said.
        principal: Who began it; nobody else may go on with it.
        frames: TASK frames of unsettled tasks.
        blobs: BLOB frames by number: functions and shared objects.
        needs: The numbers of the shared objects that an unsettled task refers to, by id.
        setups: The SETUP frames, in the order in which workers do them.
        reloaded: RELOAD frames: what the zygote was told to preload may be older than that.
        timeouts: Seconds that a task may run, by id.
        ends: When such a task is to be killed, once it has begun.
        graces: Seconds that it has to end by itself then, if its client says.
        first_index: The index in its farm of its first worker here.
        place: What its client says when it comes back.
        broken: Whether it gets no workers any more: see ``starts``, or its initializer failed.
        starts: Decides what follows when its workers do not start.
    """

    __slots__ = (
        "asking",
        "blobs",
        "broken",
        "config",
        "connection",
        "ends",
        "first_index",
        "frames",
        "graces",
        "id",
        "incoming",
        "needs",
        "options",
        "paused_answers",
        "paused_outputs",
        "place",
        "pool",
        "principal",
        "processes",
        "reloaded",
        "setups",
        "sharing",
        "starts",
        "timeouts",
        "timer",
        "wire",
    )

    def __init__(
        self,
        id: str,
        wire: Session,
        pool: PoolSession,
        config: dict[str, Any],
        principal: Principal = ("", ""),
    ) -> None:
        self.id = id
        self.principal = principal
        self.wire = wire
        self.pool = pool
        self.config = config
        self.connection: Connection | None = None
        self.frames: dict[int, Frame] = {}
        self.blobs: dict[int, Frame] = {}
        self.needs: dict[int, list[int]] = {}
        self.options: dict[int, dict[str, Any]] = {}
        self.timeouts: dict[int, float] = {}
        self.ends: dict[int, float] = {}
        self.graces: dict[int, float] = {}
        self.setups: dict[int, Frame] = {}
        self.reloaded: list[Frame] = []
        self.processes: dict[WorkerProcess, None] = {}
        self.paused_answers: dict[WorkerProcess, None] = {}
        self.paused_outputs: dict[Output, None] = {}
        self.starts = Starts()
        self.place = ""
        self.broken = False
        self.first_index = 0
        self.timer: Any = None
        self.incoming: Incoming
        self.sharing: Sharing
        self.asking: Asking

    def __repr__(self) -> str:
        return f"<ClientSession {self.id[:8]} {self.wire!r} {self.pool!r}>"


class Connection:
    """
    One stream to a client: first a stranger, then the link of a session or an administrator.

    Args:
        supervisor: Whose it is.
        stream: The stream.
        peer: What to call the other end.
        silence: Seconds without a byte after which the peer counts as dead.
    """

    __slots__ = (
        "client",
        "closing",
        "link",
        "open",
        "peer",
        "room",
        "stranger",
        "stream",
        "supervisor",
        "timer",
        "writing",
    )

    def __init__(
        self,
        supervisor: Supervisor,
        stream: SocketStream | TLSStream,
        peer: str,
        silence: float,
    ) -> None:
        loop = supervisor.loop
        self.supervisor = supervisor
        self.stream = stream
        self.peer = peer
        self.client: ClientSession | None = None
        self.open = True
        self.closing = False
        self.writing = False
        self.stranger = True
        now = time.monotonic()
        mechanism = supervisor.mechanism()
        self.room = Room()
        self.link = Link(
            "server",
            peer,
            mechanism,
            now,
            nonce=os.urandom(32),
            channel=stream.channel,
            limit=CLIENT_LIMIT,
            silence=silence,
            allocate=self.room.allocate,
        )
        self.timer = loop.timer(self._tick)
        loop.watch(stream.fileno(), self._readable, self.flush)
        self.timer.at(self.link.deadline())  # last: what was refused before has no deadline

    def __repr__(self) -> str:
        return f"<Connection {self.link!r}>"

    def _readable(self) -> None:
        if not self.open:
            return
        link, stream = self.link, self.stream
        try:
            for _ in range(16):
                buffer = link.get_buffer()
                count = stream.receive(buffer)
                if self.stranger and count:
                    self._advance()
                if count < 0:
                    break
                if count == 0:
                    self.lost("it closed the connection")
                    return
                if self.closing:
                    break  # whatever it says, we have said our last word
                now = time.monotonic()
                full = count == len(buffer)
                frames = link.received(count, now)
                if self.stranger:
                    if link.state is LinkState.OPEN:
                        self._is_known()
                    elif link.place:
                        self._advance()
                if frames:
                    self._received(frames, count, now)
                if self._is_closed():
                    return
                if link.state is LinkState.CLOSED:
                    self.supervisor.log("debug", f"< {self.peer} says goodbye")
                    self.close()
                    self.supervisor.goodbye(self)
                    return
                if not full:
                    break
        except AuthenticationFailed as exc:
            self.supervisor.log_refusal(f"! {self.peer} was refused: {exc.reason}")
            self._broke_the_rules()
        except FarmError as exc:
            self.supervisor.log("info", f"! {self.peer}: {exc}")
            self._broke_the_rules()
        except OSError as exc:
            self.lost(f"the connection broke: {exc}")
        except Exception:
            # A defect of ours, and still no reason to drop everybody else's work.
            self.supervisor.log_exception(f"! {self.peer} sent what could not be handled")
            self._broke_the_rules()
        else:
            if self.client is None:
                # Later on what comes only puts the deadline off, and the timer looks again.
                self.timer.at(link.deadline())
            if link.outbox.size:
                self.supervisor.unflushed[self] = None
            if stream.holding and self.open:
                self.supervisor.loop.post(self._readable)

    def _advance(self) -> None:
        """It has said something, if only to make a TLS stream: see Strangers."""
        expected = self.link.place in self.supervisor.places
        progress = Progress.EXPECTED if expected else Progress.SPEAKING
        victim = self.supervisor.strangers.advance(self, progress)
        if victim is not None:
            victim.lost("others came back before it proved who it is")

    def _is_known(self) -> None:
        """The peer has proved who it is."""
        self.stranger = False
        self.supervisor.strangers.remove(self)
        self.supervisor.log("info", f"= {self.peer} is {_named(self.principal())}")

    def principal(self) -> Principal:
        """Return who the peer has proved to be, in all that it can be told from others by."""
        return self.link.principal, self.stream.certificate_name()

    def _broke_the_rules(self) -> None:
        """Part with a peer that sent nonsense: what it will say next cannot be better."""
        client = self.client
        self.finish()
        if client is not None:
            self.supervisor.end_session(client, "it broke the protocol")

    def _is_closed(self) -> bool:
        return not self.open

    def _received(self, frames: list[Frame], size: int, now: float) -> None:
        client = self.client
        while client is None:
            frame, *frames = frames
            if frame.kind == Kind.ATTACH:
                client = self.client = self.supervisor.attach(self, frame, now)
            elif frame.kind == Kind.ADMIN:
                self.supervisor.administer(self, frame)
            else:
                raise RemoteProtocolError(f"kind {frame.kind} came before ATTACH")
            if not frames:
                return
        self.supervisor.frames_from_client(client, frames, size, now)

    def _tick(self, now: float) -> None:
        if not self.open:
            return
        if self.closing:
            self.lost("it did not close the connection")
            return
        trouble = self.link.tick(now)
        if trouble is not None:
            self.lost(trouble)
            return
        self.timer.at(self.link.deadline())
        self.flush()

    def flush(self) -> None:
        """Write what can be written; the loop calls this again when there is room for the rest."""
        if not self.open:
            return
        outbox, stream = self.link.outbox, self.stream
        try:
            while outbox.size:
                count = stream.send(outbox.chunk())
                if not count:
                    break
                outbox.sent(count)
        except AuthenticationFailed as exc:
            # What is to go out cannot be wrapped, today or tomorrow (PARITY A6).
            self.supervisor.log("error", f"! {self.peer}: {exc}")
            outbox.clear()
            self._broke_the_rules()
            return
        except OSError as exc:
            # It may have said why before it closed: read that first, in a later round.
            outbox.clear()
            self.supervisor.loop.post(self._readable)
            self.supervisor.log("debug", f"! {self.peer}: {exc}")
        writing = outbox.size > 0 and not stream.waiting
        if writing != self.writing:
            self.writing = writing
            self.supervisor.loop.want(stream.fileno(), write=writing)
        if self.closing and not writing:
            stream.end_writing()

    def share(self) -> bool:
        """Pass descriptors from now on; return whether that can be."""
        stream = self.stream
        sharing = AVAILABLE and isinstance(stream, SocketStream) and stream.is_local()
        sharing = sharing and not self.link.wraps
        if sharing and isinstance(stream, SocketStream):
            stream.fds = self.link.segments
        return sharing

    def finish(self) -> None:
        """Say what is to be said, then close once the peer has read it."""
        if not self.open or self.closing:
            return
        self._detach()
        self.closing = True
        self.timer.at(time.monotonic() + LINGER_SECONDS)
        self.flush()

    def lost(self, reason: str) -> None:
        """The stream is gone; the session waits for another."""
        if self.open:
            self.supervisor.log(
                "info" if self.client is None else "debug", f"= {self.peer}: {reason}"
            )
            self.close()
            self.supervisor.cut(self)

    def close(self) -> None:
        """Close the stream, at once."""
        if self.open:
            self.open = False
            self._detach()
            self.timer.close()
            self.supervisor.loop.forget(self.stream.fileno())
            self.stream.close()
            self.supervisor.connections.pop(self, None)
            self.supervisor.strangers.remove(self)
            self.supervisor.unflushed.pop(self, None)

    def _detach(self) -> None:
        client = self.client
        if client is not None and client.connection is self:
            client.connection = None
            client.wire.link_lost(time.monotonic())
            self.supervisor.schedule(client)
            self.supervisor.door_matters()


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
    """

    def __init__(
        self,
        loop: Loop,
        slots: int,
        control: socket.socket,
        mechanism: Callable[[], Mechanism],
        log_level: str = "warning",
        tls: ServerTLS | None = None,
    ) -> None:
        self.loop = loop
        self.mechanism = mechanism
        self.tls = tls
        raise_descriptor_limit()  # the zygote has been forked: workers keep theirs
        self.strangers: Strangers[Connection] = Strangers(
            max(8, min(MOST_STRANGERS, most_descriptors() // 4))
        )
        self.places: dict[str, str] = {}
        """The ids of sessions by what a client says when it comes back to one."""
        tokens = TokenPipes()
        self.pool = Pool(slots, tokens)
        self._begin_order = BeginOrder(self.pool, tokens.unread)
        self.host = socket.gethostname()
        self.memory = Memory()
        self.id = os.urandom(16).hex()
        self.connections: dict[Connection, None] = {}
        self.unflushed: dict[Connection, None] = {}
        self._sessions: dict[str, ClientSession] = {}
        self._clients: dict[PoolSession, ClientSession] = {}
        self._control = control
        self._control_buffer = b""
        self._processes: dict[int, WorkerProcess] = {}
        self._by_pid: dict[int, WorkerProcess] = {}
        self._number = 0
        self._door: Door | None = None
        self._embedded = False
        self._lease: Lease | None = None
        self._owner: ClientSession | None = None
        """Whose server this is, if it was launched for one client."""
        self._silence = SILENCE_SECONDS
        self._ending = False
        self._over = False
        self._started = time.time()
        self._levels = ("debug", "info", "warning", "error")
        self._level = self._levels.index(log_level)
        self._frames = 0
        self._quick = False
        """Whether a single short task is all that goes on."""
        self._vigil = Vigil()
        self._readable: dict[WorkerProcess, None] = {}
        self._unflushed_workers: dict[WorkerProcess, None] = {}
        self._throttled: dict[ClientSession, None] = {}
        self._rests: dict[Output, None] = {}
        self._rest_timer = loop.timer(self._flush_rests)
        self._begun_timer = loop.timer(self._report_begun)
        self._pool_timer = loop.timer(lambda _: None)  # a round is all it takes
        self._timeout_timer = loop.timer(self._kill_late)
        self._lease_timer = loop.timer(lambda _: self.stop())
        self._door_timer = loop.timer(self._mind_door)
        self._refusals = RateLimit(MOST_REFUSALS, REFUSALS_SECONDS)
        self._refusals_timer = loop.timer(self._log_left_out)
        loop.watch(control.fileno(), self._control_readable)

    def __repr__(self) -> str:
        return f"<Supervisor {self.pool!r} {len(self.connections)} connections>"

    def log(self, level: str, text: str) -> None:
        """Write a line to standard error, if it is important enough."""
        if self._levels.index(level) >= self._level:
            self._write_log(printable(text))

    def _write_log(self, text: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        line = f"{stamp} remote_executor[{os.getpid()}] {text}"
        with contextlib.suppress(OSError, ValueError):  # the disk is full: no reason to stop
            print(line, file=sys.stderr, flush=True)  # noqa: T201

    def log_exception(self, text: str) -> None:
        """Write a line and the traceback of the exception being handled."""
        import traceback

        self._write_log(f"{printable(text)}\n{printable_lines(traceback.format_exc())}")

    def log_refusal(self, text: str) -> None:
        """Write a line about a peer that was refused, but not one for each try of a thousand."""
        now = self.loop.now
        admitted = self._refusals.admits(now)
        self._log_left_out(now)
        if admitted:
            self.log("warning", text)
        else:
            self._refusals_timer.at(self._refusals.deadline())

    def _log_left_out(self, now: float) -> None:
        deadline = self._refusals.deadline()
        if deadline is not None and now >= deadline:
            count = self._refusals.take_left_out()
            self.log("warning", f"! {count} more peers were refused")

    # -------------------------------------------------------------------- running

    def listen(self, door: Door) -> None:
        """Accept connections at a door that is open."""
        self._door = door
        for fd in door.filenos():
            self.loop.watch(fd, self._accept)

    def let(self, lease: Lease) -> None:
        """Belong to the first client that comes, and end as the lease says."""
        self._lease = lease
        self._silence = min(SILENCE_SECONDS, max(SHORTEST_SILENCE, lease.grace))
        self._lease_timer.at(lease.deadline())

    def hung_up(self) -> None:
        """The channel over which this server was launched has ended."""
        assert self._lease is not None
        self._lease.hung_up(self.loop.now)
        self._lease_timer.at(self._lease.deadline())

    def serve_one(self, sock: socket.socket) -> None:
        """Serve this stream alone, and end with it."""
        self._embedded = True
        connection = Connection(self, SocketStream(sock), "the client", 3600.0)
        self.connections[connection] = None
        connection.flush()

    def run(self) -> None:
        """Serve until it is over, then kill all workers."""
        loop, pool = self.loop, self.pool
        # A long queue is many objects and no cycles: looking for some took a fifth of the time.
        garbage.freeze()
        garbage.set_threshold(50_000, 50, 50)
        try:
            while not self._over:
                ready = self._await()
                if pool.is_provided_for():
                    # Who has just woken us has begun its next task, or wants to: out of its way.
                    time.sleep(COALESCE_SECONDS)
                    ready = loop.poll(0.0)
                self._frames = 0
                loop.dispatch(ready)
                self._settle(loop.now)
                if self._frames >= BUSY_FRAMES and pool.slack() >= COALESCE_SLACK:
                    time.sleep(COALESCE_SECONDS)
        finally:
            self._close()

    def _await(self) -> list[tuple[int, int]]:
        """Wait for something to happen: awake, if one short task follows the other."""
        quick, self._quick = self._quick, False
        if not quick:
            return self.loop.poll()
        ready = self._vigil.keep(self._look) or self.loop.poll()
        self._vigil.end()
        return ready

    def _look(self) -> list[tuple[int, int]]:
        return self.loop.poll(0.0)

    def stop(self) -> None:
        """End now: say goodbye and kill all workers. A signal handler may call this."""
        self._over = True
        self.loop.wake()

    def end(self) -> None:
        """Accept no new sessions, and end when the last one has."""
        if not self._ending:
            self._ending = True
            if self._door is not None:
                self._leave_door(self._door)
            self.door_matters()
            self._over_if_done()

    def door_matters(self) -> None:
        """Somebody has come or gone: while we end, see to the door."""
        if self._ending and self._door is not None and self._door_timer.when is None:
            self._door_timer.at(self.loop.now + DOOR_SECONDS)

    def _mind_door(self, now: float) -> None:
        """
        Open the door for a session that has lost its link, and for no longer than that.

        Until then the address is anybody's. If another server has it by now, that is where the
        client finds itself.
        """
        door = self._door
        assert door is not None
        wanted = any(client.connection is None for client in self._sessions.values())
        if not wanted:
            self._leave_door(door)
        elif not door.is_open:
            try:
                door.open()
            except OSError as exc:
                self.log("warning", f"! a client that was cut off cannot come back yet: {exc}")
                self._door_timer.at(now + DOOR_SECONDS)
            else:
                for fd in door.filenos():
                    self.loop.watch(fd, self._accept)

    def _leave_door(self, door: Door) -> None:
        if door.is_open:
            for fd in door.filenos():
                self.loop.forget(fd)
            door.close()

    def _over_if_done(self) -> None:
        if self._ending and not self._sessions and not self._processes:
            self._over = True

    def _close(self) -> None:
        for connection in list(self.connections):
            connection.link.say_goodbye()
            connection.flush()
            connection.close()
        if self._door is not None:
            self._leave_door(self._door)
        # The zygote kills all workers when it finds this closed.
        self.loop.forget(self._control.fileno())
        self._control.close()
        for client in self._clients.values():
            client.asking.close()
            client.timer.close()
        for process in self._processes.values():
            process.close()
        self._processes.clear()

    # ---------------------------------------------------------------- connections

    def _accept(self) -> None:
        assert self._door is not None
        for _ in range(32):
            try:
                sock, where = self._door.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                self._rest_from_accepting(str(exc))
                return
            if is_scarce(sock.fileno()):
                # The last ones are for those that are here already.
                sock.close()
                self._rest_from_accepting("the last descriptors are not for newcomers")
                return
            if isinstance(where, tuple):
                host, peer = str(where[0]), f"{where[0]}:{where[1]}"
            else:
                host, peer = "", "a local client"
            try:
                stream = SocketStream(sock) if self.tls is None else self.tls.stream(sock, peer)
                connection = Connection(self, stream, peer, self._silence)
            except OSError:
                sock.close()  # it was gone before we looked
                continue
            except Exception:
                # A mechanism that cannot be made: the user's own, as a rule.
                self.log_exception(f"! {peer} cannot be served")
                sock.close()
                continue
            victim = self.strangers.add(connection, network_of(host))
            if victim is not None:
                victim.lost("others came before it proved who it is")
            self.log("debug", f"= {peer} connected")
            self.connections[connection] = None
            self.unflushed[connection] = None

    def _rest_from_accepting(self, reason: str) -> None:
        """As a rule no descriptors are left. Let others be served meanwhile."""
        assert self._door is not None
        self.log("warning", f"! cannot accept: {reason}")
        for fd in self._door.filenos():
            self.loop.want(fd, read=False)
        self.loop.timer(self._accept_again).at(self.loop.now + 0.2)

    def _accept_again(self, now: float) -> None:
        if self._door is not None and self._door.is_open:
            for fd in self._door.filenos():
                self.loop.want(fd)

    def attach(self, connection: Connection, frame: Frame, now: float) -> ClientSession | None:
        """Give a connection its session, an old or a new one."""
        number = (int, float)
        reply: dict[str, Any]
        fields = decode_fields(
            frame.body, session=str, received=int, resume=bool, grace=number, workers=int
        )
        id = fields["session"]
        if not (id.isascii() and id.isprintable() and 0 < len(id) <= MOST_SESSION_ID):
            raise RemoteProtocolError("the id of a session cannot be that")
        client = self._sessions.get(id)
        principal = connection.principal()
        if client is not None and client.principal != principal:
            # To know its id is not enough. Whoever wants to resume hears what he would of one that
            # has ended, and nothing of whose it is.
            self.log_refusal(
                f"! {connection.peer} ({_named(principal)}) wants the session {id[:8]} of "
                f"{_named(client.principal)}, and was refused"
            )
            if not fields["resume"]:
                reply = {"error": "a session of that id belongs to somebody else"}
                connection.link.outbox.put(make_frame(Kind.REPLY, body=encode_fields(reply)))
                connection.finish()
                return None
            client = None
        if client is not None and not fields["resume"]:
            self.end_session(client, "it began anew")
            client = None
        resumed = client is not None
        if client is None and fields["resume"]:
            # Make nothing yet: the client is to begin a new session, under another name.
            reply = {"resumed": False, "received": 0, "slots": 0, **self._identity()}
            connection.link.outbox.put(make_frame(Kind.ATTACHED, body=encode_fields(reply)))
            return None
        if client is None:
            if self._ending:
                connection.link.outbox.put(
                    make_frame(Kind.REPLY, body=encode_fields({"error": "ending"}))
                )
                connection.finish()
                return None
            wire = Session(now, min(max(0.0, float(fields["grace"])), LONGEST_GRACE))
            per_worker = fields.get("tasks_per_worker")
            pool = self.pool.open(
                printable(f"{fields.get('host', '?')} pid {fields.get('pid', '?')}", 100),
                fields["workers"],
                per_worker if isinstance(per_worker, int) and per_worker > 0 else None,
            )
            client = ClientSession(id, wire, pool, fields, principal)
            client.incoming = Incoming(self.memory)
            client.sharing = self._sharing(client)
            client.asking = self._asking(client)
            client.timer = self.loop.timer(lambda now: self._tick_session(client, now))
            self._sessions[id] = client
            self._clients[pool] = client
            if not self._embedded:
                client.place = place_of(id)
                self.places[client.place] = id
        elif client.connection is not None:
            # It has a new link; the old one is dead, though we had not noticed.
            client.connection.close()
        self.log(
            "debug" if resumed else "info",
            f"= {connection.peer} {'resumed' if resumed else 'began'} session {id[:8]} "
            f"({client.pool.name}), {_named(principal)}",
        )
        reply = {
            "resumed": resumed,
            "received": client.wire.received_count,
            "slots": client.pool.limit,
            "host": self.host,
            "pid": os.getpid(),
            **self._identity(),
            "implementation": sys.implementation.name,
            "python": list(sys.version_info[:3]),
            "versions": {} if self._embedded else installed(),
        }
        client.sharing.host = fields.get("segments") is True and connection.share()
        reply["segments"] = client.sharing.host
        connection.timer.at(connection.link.deadline())
        outbox = connection.link.outbox
        outbox.put(make_frame(Kind.ATTACHED, body=encode_fields(reply)))
        if resumed:
            client.sharing.acknowledged(client.wire.acknowledged(fields["received"]))
        client.wire.attach(outbox, fields["received"] if resumed else 0)
        client.connection = connection
        connection.room.incoming = client.incoming
        self._throttled[client] = None
        if self._lease is not None:
            self._owner = self._owner or client
            if client is self._owner:
                self._lease.attached()
                self._lease_timer.at(None)
        self.door_matters()
        return client

    def _identity(self) -> dict[str, str]:
        """Return what tells a client which server it has met: this one, or one in its place."""
        # Who is started anew has another id, and listens where the one before did. One that was
        # launched has its port or folder by chance, and whoever is led to it is led to no other.
        where = "launched" if self._lease is not None else self._door and self._door.address
        place = f"{self.host} {where}" if where else ""
        return {"server": self.id, "place": place}

    def _sharing(self, client: ClientSession) -> Sharing:
        def tell_worker(process: WorkerProcess, frame: Frame) -> None:
            process.put(frame)
            self._unflushed_workers[process] = None

        return Sharing(client.incoming, lambda frame: self._send(client, frame), tell_worker)

    def _asking(self, client: ClientSession) -> Asking:
        return Asking(self.loop, client.incoming, lambda frame: self._send(client, frame))

    def administer(self, connection: Connection, frame: Frame) -> None:
        """Answer an administrator."""
        fields = decode_fields(frame.body, op=str)
        op = fields["op"]
        reply: dict[str, Any]
        if op == "ping":
            reply = {"error": "ending"} if self._ending else {"ok": True}
        elif op == "status":
            reply = self.status()
        elif op == "end":
            self.log("info", f"= {connection.peer} ({_named(connection.principal())}) has us end")
            reply = {"ok": True, "sessions": len(self._sessions)}
            self.loop.post(self.end)
        else:
            reply = {"error": f"unknown operation {op[:40]!r}"}
        connection.link.outbox.put(make_frame(Kind.REPLY, body=encode_fields(reply)))

    def status(self) -> dict[str, Any]:
        """Return what an administrator may want to know, as JSON values."""
        return {
            "ok": True,
            "host": self.host,
            "pid": os.getpid(),
            "python": list(sys.version_info[:3]),
            "implementation": sys.implementation.name,
            "slots": self.pool.slots,
            "busy": self.pool.holding,
            "ending": self._ending,
            "uptime": time.time() - self._started,
            "version": _version(),
            "sessions": [
                {"client": each.pop("name"), "connected": self._is_connected(session), **each}
                for session, each in zip(self.pool.sessions, self.pool.status(), strict=True)
            ],
        }

    def _is_connected(self, session: PoolSession) -> bool:
        client = self._clients.get(session)
        return client is not None and client.connection is not None

    def goodbye(self, connection: Connection) -> None:
        """A client has said that it needs us no more."""
        if connection.client is not None:
            self.end_session(connection.client, "goodbye", gently=True)
        if self._embedded or (self._owner is not None and connection.client is self._owner):
            self._ending = True
            self.loop.timer(lambda _: self.stop()).at(self.loop.now + LINGER_SECONDS)
            self._over_if_done()

    def cut(self, connection: Connection) -> None:
        """A stream has ended without a goodbye."""
        if self._embedded:
            self._over = True  # that was all there was to live for
        elif self._lease is not None and connection.client is self._owner is not None:
            heard = connection.link.heard
            # Its next link may be there already.
            if self._owner.connection is None:
                silent = self.loop.now - heard >= connection.link.silence
                self._lease.cut(self.loop.now, heard, not silent)
                self._lease_timer.at(self._lease.deadline())
        else:
            self._over_if_done()

    # ------------------------------------------------------------------- sessions

    def schedule(self, client: ClientSession) -> None:
        """See to a session when it wants it next."""
        client.timer.at(client.wire.deadline())

    def _tick_session(self, client: ClientSession, now: float) -> None:
        client.wire.tick(now)
        if client.wire.state is SessionState.EXPIRED:
            self.end_session(client, "its client did not come back")
            return
        self.schedule(client)
        if client.connection is not None:
            self.unflushed[client.connection] = None

    def end_session(self, client: ClientSession, reason: str, *, gently: bool = False) -> None:
        """End the workers of a session and forget it."""
        if self._sessions.get(client.id) is not client:
            return
        self.log("info", f"= session {client.id[:8]} ends: {reason}")
        del self._sessions[client.id]
        self.places.pop(client.place, None)
        client.timer.close()
        self._throttled.pop(client, None)
        self._drop_workers(client, gently=gently)
        if client.connection is not None:
            connection, client.connection = client.connection, None
            connection.client = None
            connection.link.say_goodbye()
            connection.flush()
            connection.close()
        self._forget_if_gone(client)
        if client is self._owner and not gently:
            self.stop()
        self.door_matters()
        self._over_if_done()

    def _forget_if_gone(self, client: ClientSession) -> None:
        """
        Let go of a session that has ended, once its last worker is gone.

        What refers to it by a closure is let go of here: the garbage collector runs rarely (see
        :meth:`run`), and a session with its workers takes megabytes.
        """
        if client.processes or client.pool in self.pool.sessions:
            return
        self._clients.pop(client.pool, None)
        client.sharing.close()
        client.asking.close()
        client.incoming.close()
        client.connection = None

    def _drop_workers(self, client: ClientSession, *, gently: bool = False) -> None:
        """End the workers of a session and forget its tasks."""
        idle = set(client.pool.idle) if gently else set()
        if client.pool in self.pool.sessions:
            for worker in self.pool.close(client.pool):
                if worker in idle:
                    self._stop(worker)
                else:
                    self._kill(worker.shell)
        for blob in client.blobs.values():
            client.sharing.drop(blob)
        for table in (
            client.frames,
            client.blobs,
            client.needs,
            client.options,
            client.timeouts,
            client.ends,
            client.graces,
        ):
            table.clear()

    def frames_from_client(
        self, client: ClientSession, frames: list[Frame], size: int, now: float
    ) -> None:
        """Take what a session's client has sent."""
        tasks, new = client.frames, []
        self._frames += len(frames)
        unnumbered = 0
        for frame in frames:
            if frame.kind == TASK:
                id = frame.id
                if id in tasks or id >= ALONG:
                    raise RemoteProtocolError(f"task {id} came twice, or its id is too large")
                tasks[id] = frame
                if not frame.flags & SPECIAL:
                    new.append(id)
                    continue
                if frame.flags & SEGMENT and frame.segment is not None:
                    kept = client.sharing.arrived(frame)
                    if kept is None:
                        del tasks[id]
                        continue
                    tasks[id] = kept
                if frame.flags & OPTIONED:
                    self._optioned(client, id)
                else:
                    new.append(id)
            elif frame.kind == ACK:
                unnumbered += 1
                client.sharing.acknowledged(client.wire.acknowledged(frame.id))
            elif frame.kind < FIRST_NUMBERED:
                raise RemoteProtocolError(f"kind {frame.kind} came in a session")
            else:
                if new:
                    self._queue(client, new)
                    new = []
                self._other(client, frame)
        if new:
            self._queue(client, new)
        if unnumbered < len(frames):
            client.wire.received(len(frames) - unnumbered, size, now)
            if client.timer.when is None:
                self.schedule(client)

    def _queue(self, client: ClientSession, ids: list[int]) -> None:
        if client.broken:
            for id in ids:
                del client.frames[id]
            return
        if len(ids) == 1:
            worker = self.pool.begin(client.pool, ids[0], self.loop.now)
            if worker is not None:
                self._give(worker.shell, ids)
                return
        self.pool.queue(client.pool, ids)

    def _optioned(self, client: ClientSession, id: int) -> None:
        options = client.options.pop(id, {})
        timeout, index = options.get("timeout"), options.get("worker")
        blobs = options.get("blobs")
        if isinstance(blobs, list):
            client.needs[id] = [number for number in blobs if isinstance(number, int)]
        if isinstance(timeout, (int, float)) and 0 <= timeout < LONGEST_TIMEOUT:
            client.timeouts[id] = timeout
            grace = options.get("grace")
            if isinstance(grace, (int, float)) and 0 <= grace < LONGEST_TIMEOUT:
                client.graces[id] = grace
        priority = options.get("priority")
        if isinstance(index, int) and not client.broken:
            self.pool.queue_pinned(client.pool, id, index)
        elif isinstance(priority, int) and not client.broken:
            self.pool.queue_prior(client.pool, id, priority)
        else:
            self._queue(client, [id])

    def _other(self, client: ClientSession, frame: Frame) -> None:
        kind = frame.kind
        if kind == Kind.BLOB:
            self._drop_blob(client, frame.aux)
            client.sharing.keep(frame)
            client.blobs[frame.aux] = frame
            for process in client.processes:
                process.known.discard(frame.aux)
        elif kind == Kind.FORGET:
            self._drop_blob(client, frame.aux)
            for process in client.processes:
                if frame.aux in process.known:
                    process.known.discard(frame.aux)
                    process.put(frame)
                    self._unflushed_workers[process] = None
        elif kind == Kind.OPTIONS:
            client.options[frame.id] = decode_fields(frame.body)
        elif kind == Kind.TAKE_BACK:
            ids = decode_ids(frame.body)
            if ids or not frame.aux:
                taken = self.pool.take_back(client.pool, ids)
            else:
                taken = self.pool.take_back_newest(client.pool, frame.aux)
            for id in taken:
                self._forget(client, id)
            self._send(client, make_frame(Kind.TAKEN_BACK, frame.id, encode_ids(taken)))
        elif kind == Kind.KILL:
            self._kill_task(client, frame.id, "killed", grace_of_aux(frame.aux))
        elif kind == Kind.PLACE:
            client.first_index = frame.aux
        elif kind == Kind.ASK_BEGUN:
            self._tell_begun(client, frame)
        elif kind == Kind.SETUP:
            client.setups = dict(sorted({**client.setups, frame.aux: frame}.items()))
            for process in client.processes:
                process.put(frame)
                self._unflushed_workers[process] = None
        elif kind == Kind.RELEASE:
            if frame.aux == AGAIN:
                self._result_again(client, frame.id)
            client.sharing.result_released(frame.id)
        elif kind == Kind.MODULES:
            names = client.asking.answered(frame)
            if names:
                served = printable(", ".join(names), MOST_NAMES)
                self.log("info", f"= session {client.id[:8]} is served the modules {served}")
        elif kind == Kind.RELOAD:
            fields = decode_fields(frame.body, modules=list)
            if "own" in fields:
                client.config["own"] = decode_fields(frame.body, own=list, found=list)
            if fields["modules"]:
                client.reloaded.append(frame)
            for process in client.processes:
                process.put(frame)
                self._unflushed_workers[process] = None
        else:
            raise RemoteProtocolError(f"kind {kind} is not for a server")

    def _result_again(self, client: ClientSession, id: int) -> None:
        """The client had no room for the descriptor of a result's segment: send what is in it."""
        lost = client.wire.find(RESULT, id)
        try:
            if lost is None or lost.segment is None:
                raise ValueError("the result is not here any more")
            self._send(client, lost.inline(read_segment(lost.segment.fd, lost.sizes())))
        except (OSError, ValueError, MemoryError) as exc:
            self.log("warning", f"! a result cannot be sent again: {exc}")
            self._send_died(client, id, "died", None, None)

    def _given_again(self, client: ClientSession, process: WorkerProcess, frame: Frame) -> None:
        """A worker had no room for the descriptor of a task's or a blob's segment."""
        if frame.aux == AGAIN:
            client.sharing.released(process, frame.id)
            lost = client.frames.get(frame.id)
        else:
            lost = client.blobs.get(frame.id)
        if lost is None:
            again = make_frame(Kind.FORGET, aux=frame.id)
        elif lost.segment is None:
            again = lost
        else:
            try:
                again = lost.inline(read_segment(lost.segment.fd, lost.sizes()))
            except (OSError, ValueError, MemoryError) as exc:
                self.log("warning", f"! a task cannot be sent again: {exc}")
                self._kill(process)
                return
        process.put(again)
        self._unflushed_workers[process] = None

    def _drop_blob(self, client: ClientSession, number: int) -> None:
        blob = client.blobs.pop(number, None)
        if blob is not None:
            client.sharing.drop(blob)

    def _forget(self, client: ClientSession, id: int) -> None:
        frame = client.frames.pop(id, None)
        if frame is not None and frame.segment is not None:
            client.sharing.settled(frame)
        client.needs.pop(id, None)
        if client.timeouts:
            client.timeouts.pop(id, None)
            client.ends.pop(id, None)
            client.graces.pop(id, None)

    def _send(self, client: ClientSession, frame: Frame) -> None:
        client.wire.send(frame)
        if client.connection is not None:
            self.unflushed[client.connection] = None

    def _tell_begun(self, client: ClientSession, frame: Frame) -> None:
        """Tell which tasks have begun, however young they are, and kill these if that is asked."""
        self._assign(self.loop.now)  # what came in this round begins in it
        ids = decode_ids(frame.body)
        workers = [client.pool.tasks.get(id) for id in ids]
        for worker in dict.fromkeys(worker for worker in workers if worker is not None):
            self._drain_answers(worker.shell)  # what has just ended does not run
        begun = self.pool.running(client.pool, ids)
        self._send(client, make_frame(Kind.BEGUN, frame.id, encode_ids(begun)))
        if frame.aux:
            for id in begun:
                self._kill_task(client, id, "killed", grace_of_aux(frame.aux - 1))

    def _kill_task(self, client: ClientSession, id: int, reason: str, grace: float) -> None:
        worker = client.pool.tasks.get(id)
        if worker is not None:
            self._drain_answers(worker.shell)  # it may have finished it just now
        gently = grace > 0 and worker is not None and worker.shell.pid
        stop = self.pool.dismiss if gently else self.pool.kill
        verdict, worker = stop(client.pool, id)
        if verdict is Verdict.DROPPED:
            self._forget(client, id)
            self._send_died(client, id, reason, None, None)
        elif worker is not None:
            process: WorkerProcess = worker.shell
            process.doomed.setdefault(id, reason)
            if gently and worker.state is WorkerState.BUSY:
                self._interrupt(client, process, id, self.loop.now + grace)
            else:
                self._kill(process)

    def _interrupt(
        self, client: ClientSession, process: WorkerProcess, id: int, end: float
    ) -> None:
        """Have a worker raise TaskKilled in its task; kill it if that has not ended in time."""

        def again(now: float) -> None:
            if id not in process.pool.assigned:
                return
            if now >= end:
                self._kill_task(client, id, "killed", 0.0)
                return
            # More than once: it may be between two of its own steps, where it cannot be raised.
            self._tell_zygote({"interrupt": process.pid})
            timer.at(min(end, now + INTERRUPT_PERIOD))

        if process.timer is not None:
            process.timer.close()  # of an earlier kill: the last word counts
        timer = process.timer = self.loop.timer(again)
        again(self.loop.now)

    def _send_died(
        self,
        client: ClientSession,
        id: int,
        reason: str,
        process: WorkerProcess | None,
        exitcode: int | None,
    ) -> None:
        self._send(client, self._died(id, reason, process, exitcode))

    def _died(
        self, id: int, reason: str, process: WorkerProcess | None, exitcode: int | None
    ) -> Frame:
        fields = {
            "reason": reason,
            "pid": process.pid if process else 0,
            "exitcode": exitcode,
            "stderr": process.stderr(STDERR_CHARACTERS) if process else "",
            "host": self.host,
        }
        return make_frame(Kind.DIED, id, encode_fields(fields))

    def _ended_when_told(self, process: WorkerProcess, frames: list[Frame]) -> list[Frame]:
        """Say of tasks that have ended since they were killed why that was; the rest counts."""
        if not process.doomed:  # a hot path
            return frames
        return [
            self._died(frame.id, process.doomed[frame.id], process, None)
            if frame.flags & KILLED and frame.id in process.doomed
            else frame
            for frame in frames
        ]

    # ------------------------------------------------------------- end of a round

    def _settle(self, now: float) -> None:
        """Act upon all that has happened in this round."""
        if self._readable:
            # Output was read before, so that it comes before the result of its task.
            readable, self._readable = self._readable, {}
            for process in readable:
                self._read_answers(process)
            # Whoever waits for a result should not wait for our deliberations too.
            self._flush_connections()
        self._assign(now)
        if self._unflushed_workers:
            for process in self._unflushed_workers:
                self._flush_worker(process)
            self._unflushed_workers.clear()
        if self.unflushed:
            self._flush_connections()
        if self._throttled:
            self._unthrottle()

    def _assign(self, now: float) -> None:
        """Carry out what the pool decides."""
        for action in self.pool.assign(now):
            if type(action) is Give:
                self._give(action.worker.shell, action.ids)
            elif type(action) is Start:
                self._start(action.worker)
            else:
                self._stop(action.worker)
        self._pool_timer.at(self.pool.deadline())

    def _flush_connections(self) -> None:
        unflushed, self.unflushed = self.unflushed, {}
        for connection in unflushed:
            connection.flush()

    def _give(self, process: WorkerProcess, ids: list[int]) -> None:
        client = self._clients[process.pool.session]
        known, needs = process.known, client.needs
        frames = [client.frames[id] for id in ids]
        for frame in frames:
            if frame.aux not in known:
                self._give_blob(client, process, frame.aux)
            if needs:
                for number in needs.get(frame.id, ()):
                    if number not in known:
                        self._give_blob(client, process, number)
            if frame.segment is not None:
                client.sharing.given(process, frame)
        if process.pool.session.priorities:
            self._begin_order.wait_for_turn(process.pool, ids[0])
        self._want_writing(process, not process.give(frames))
        seconds = process.pool.session.seconds
        self._quick = len(ids) == 1 and seconds is not None and seconds * 1e6 < QUICK_MICROS
        if self._begun_timer.when is None:
            self._begun_timer.at(self.loop.now + BEGUN_PERIOD)

    def _give_blob(self, client: ClientSession, process: WorkerProcess, number: int) -> None:
        blob = client.blobs.get(number)
        if blob is not None:
            process.known.add(number)
            process.put(blob)

    def _flush_worker(self, process: WorkerProcess) -> None:
        if process.answers < 0:
            return
        self._want_writing(process, not process.flush())

    def _want_writing(self, process: WorkerProcess, writing: bool) -> None:
        if writing != process.writing:
            process.writing = writing
            self._want_worker(process)

    def _want_worker(self, process: WorkerProcess) -> None:
        client = self._clients[process.pool.session]
        reading = process not in client.paused_answers and not process.hung_up
        self.loop.want(process.answers, read=reading)
        self.loop.want(process.wire, read=reading, write=process.writing and not process.hung_up)

    def _report_begun(self, now: float) -> None:
        for process in self._by_pid.values():
            if process.pool.state is WorkerState.BUSY:
                self._read_answers(process)  # what has been finished is not running
        found, due = self.pool.begun(now)
        begun: dict[ClientSession, list[int]] = {}
        for worker, id, since in found:
            client = self._clients[worker.session]
            begun.setdefault(client, []).append(id)
            if id in client.timeouts:
                client.ends[id] = since + client.timeouts[id]
                if self._timeout_timer.when is None or client.ends[id] < self._timeout_timer.when:
                    self._timeout_timer.at(client.ends[id])
        for client, ids in begun.items():
            self._send(client, make_frame(Kind.BEGUN, body=encode_ids(ids)))
        if due:
            self._begun_timer.at(now + BEGUN_PERIOD)

    def _kill_late(self, now: float) -> None:
        """Kill the tasks that have taken longer than they may."""
        next_end: float | None = None
        for client in list(self._sessions.values()):
            for id, end in list(client.ends.items()):
                if end <= now:
                    client.ends.pop(id, None)
                    self._kill_task(client, id, "timeout", client.graces.pop(id, GRACE))
                elif next_end is None or end < next_end:
                    next_end = end
        self._timeout_timer.at(next_end)

    # -------------------------------------------------------------------- workers

    def _start(self, worker: PoolWorker) -> None:
        client = self._clients[worker.session]
        self._number += 1
        config = {
            "start": self._number,
            "index": worker.index,
            "first_index": client.first_index,
            "setups": len(client.setups),
            "sys_path": client.config.get("sys_path"),
            "cwd": client.config.get("cwd"),
            "argv": client.config.get("argv"),
            "file": client.config.get("file"),
            "authkey": client.config.get("authkey"),
            "depth": client.config.get("depth"),
            "log_level": client.config.get("log_level"),
            "client": _python_of(client.config),
            "modules": client.config.get("modules") is True,
            "own": client.config.get("own"),
        }
        try:
            process = WorkerProcess(worker, self._number)
        except OSError as exc:
            self._not_made(worker, exc)
            return
        line = json.dumps(config).encode() + b"\n"
        try:
            self._watch_worker(client, process)
            if config["modules"]:
                process.add(client.asking.open(process))
            sent = socket.send_fds(self._control, [line], process.theirs())
        except OSError as exc:
            client.asking.worker_gone(process)
            self._unwatch_worker(process)
            process.close()
            if exc.errno in ZYGOTE_GONE:
                self._over = True  # there are no workers without it
            self._not_made(worker, exc)
            return
        worker.shell = process
        self._processes[process.number] = process
        client.processes[process] = None
        for frame in (*client.reloaded, *client.setups.values()):
            process.put(frame)
            self._unflushed_workers[process] = None
        if sent < len(line):
            try:
                self._control.sendall(line[sent:])
            except OSError:
                self._over = True
        process.close_theirs()

    def _watch_worker(self, client: ClientSession, process: WorkerProcess) -> None:
        def readable() -> None:
            self._readable[process] = None

        self.loop.watch(process.answers, readable)
        self.loop.watch(process.wire, readable, lambda: self._flush_worker(process))
        for output in process.outputs:
            self._watch_output(output)

    def _unwatch_worker(self, process: WorkerProcess) -> None:
        """Undo :meth:`_watch_worker`, however far it came."""
        for fd in (process.answers, process.wire, *(output.fd for output in process.outputs)):
            if self.loop.watches(fd):
                self.loop.forget(fd)

    def _not_made(self, worker: PoolWorker, error: OSError) -> None:
        """There is no room for one more worker now: of descriptors, memory or processes."""
        self.pool.gone(worker)
        client = self._clients[worker.session]
        reason = f"no worker can be made ({errno_words(error.errno)})"
        self._failed_start(client, FailedStart(StartStage.MADE, reason, error.errno))

    def _watch_output(self, output: Output) -> None:
        self.loop.watch(output.fd, lambda: self._read_output(output))

    def _stop(self, worker: PoolWorker) -> None:
        """Let a worker end by itself; kill it if it takes too long."""
        process: WorkerProcess = worker.shell
        process.tokens.close_writing()
        if process.timer is not None:
            process.timer.close()
        process.timer = self.loop.timer(lambda _: self._kill(process))
        process.timer.at(self.loop.now + LINGER_SECONDS)

    def _kill(self, process: WorkerProcess) -> None:
        if process.number in self._processes and not process.killed:
            process.killed = True
            if process.pid:
                self._tell_zygote({"kill": process.pid})

    def _tell_zygote(self, message: dict[str, Any]) -> None:
        try:
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self._over = True  # without it there are no workers

    def _control_readable(self) -> None:
        try:
            data = self._control.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.log("error", "! the process that makes workers has died: the server ends")
            for process in self._by_pid.values():
                kill_with_descendants(process.pid)
            self._over = True
            return
        *lines, self._control_buffer = (self._control_buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "started" in message:
                self._started_worker(message)
            elif "gone" in message:
                self._gone(self._by_pid[message["gone"]], message["status"])
            else:
                self.log("warning", f"! {message['trouble']}")

    def _started_worker(self, message: dict[str, Any]) -> None:
        process = self._processes[message["started"]]
        if not message["pid"]:
            process.errno = message["errno"]
            self._gone(process, None)
            return
        process.pid = message["pid"]
        self._by_pid[process.pid] = process
        if process.killed or process.hung_up:
            self._tell_zygote({"kill": process.pid})

    def _drain_answers(self, process: WorkerProcess) -> None:
        """Take all that a worker has sent up to now."""
        process.drained = False
        while process.answers >= 0 and not process.drained:
            self._take_from(process)

    def _read_answers(self, process: WorkerProcess) -> None:
        """Take some of what a worker has sent, unless its client is too far behind."""
        if process.answers < 0:
            return
        client = self._clients[process.pool.session]
        if client.wire.unacked_bytes > MOST_UNACKED:
            if process not in client.paused_answers:
                client.paused_answers[process] = None
                self._throttled[client] = None
                self._want_worker(process)
            return
        self._take_from(process)

    def _take_from(self, process: WorkerProcess) -> None:
        client = self._clients[process.pool.session]
        try:
            frames = process.receive()
            if process.lost:
                frames = self._ask_worker_again(process, frames or [])
            for index, frame in enumerate(frames or ()):
                if frame.segment is not None and frames is not None:
                    frames[index] = client.sharing.result(process, frame)
        except (RemoteProtocolError, OSError, ValueError) as exc:
            self.log("warning", f"! worker {process.pid} sent nonsense: {exc}")
            process.drained = True  # what it sends next would be no better
            frames = None
        if frames is None:
            # It has closed one of its ends: it is dying, or a task has done it.
            process.hung_up = True
            self._want_worker(process)
            self.pool.stop(process.pool)
            if process.pid:
                self._tell_zygote({"kill": process.pid})
            return
        if not frames:
            return
        self._frames += len(frames)
        ids: list[int] = []
        micros = 0
        for frame in frames:
            kind = frame.kind
            if kind in (RESULT, FAILURE):
                ids.append(frame.id)
                micros += frame.aux
            elif kind == Kind.READY:
                process.started = True
                client.starts.ready()
                self.pool.ready(process.pool)
            elif kind == Kind.BROKEN:
                process.started = True
                self._broken(client, frame)
                return
            elif kind == Kind.RELEASE:
                if frame.aux in (AGAIN, AGAIN_BLOB):
                    self._given_again(client, process, frame)
                else:
                    client.sharing.released(process, frame.id)
            elif kind == Kind.LOG and client.id in self._sessions:
                self._send(client, frame)
        if ids:
            if process.printed:
                # What a task has printed comes before its result, whatever the loop saw first.
                for output in process.outputs:
                    self._read_output(output)
            process.tokens.answered(ids[-1])
            strange = self.pool.done(process.pool, ids, micros, self.loop.now)
            if strange or len(ids) < len(frames):
                frames = [
                    frame
                    for frame in frames
                    if frame.kind in (RESULT, FAILURE) and frame.id not in strange
                ]
            if self._rests and not client.pool.tasks:
                # The last words of its last task: the client may leave once it has the result.
                self._send_rests([each for each in self._rests if each.process in client.processes])
            pop = client.frames.pop
            for frame in frames:
                task = pop(frame.id)
                if task.segment is not None:
                    client.sharing.settled(task)
            if process.doomed:
                frames = self._ended_when_told(process, frames)
            client.wire.send_all(frames)
            if client.timeouts or client.needs:
                for id in ids:
                    self._forget(client, id)
            self._quick = micros < QUICK_MICROS and not client.pool.tasks
            if client.connection is not None:
                self.unflushed[client.connection] = None

    def _ask_worker_again(self, process: WorkerProcess, frames: list[Frame]) -> list[Frame]:
        """Have results sent again for whose descriptors there was no room; return the others."""
        process.lost = 0
        kept = []
        for frame in frames:
            if segment_is_lost(frame.segment):
                process.put(make_frame(Kind.RELEASE, frame.id, aux=AGAIN))
                self._unflushed_workers[process] = None
            else:
                kept.append(frame)
        return kept

    def _broken(self, client: ClientSession, frame: Frame) -> None:
        """The session gets no workers any more: its client hears what had begun, then why."""
        if client.broken or self._sessions.get(client.id) is not client:
            return
        client.broken = True
        for process in list(client.processes):
            self._drain_answers(process)
        self.pool.take_back(client.pool, list(client.pool.tasks))
        begun = list(client.pool.tasks)
        if begun:
            # Of all others the client knows then that they never ran here.
            self._send(client, make_frame(Kind.BEGUN, body=encode_ids(begun)))
        self._drop_workers(client)
        self._send(client, frame)

    def _failed_start(self, client: ClientSession, failure: FailedStart) -> None:
        """A worker of a session did not start: try again later, or tell the client."""
        self.log("warning", f"! a worker for {client.pool.name} did not start: {failure.reason}")
        initializer = bool(client.setups)
        others = sum(process.started for process in client.processes)
        what = client.starts.failed(failure, initializer, others, self.loop.now)
        if isinstance(what, GiveUp):
            fields: dict[str, Any] = {
                "stage": "initializer" if what.initializer else "start",
                "host": self.host,
                "type": "WorkerDied",
                "module": "remote_executor.task_errors",
                "message": what.reason,
                "traceback": "",
                "notes": [],
            }
            self._broken(client, make_frame(Kind.BROKEN, 0, encode_fields(fields), (b"",)))
        elif what is not None:
            self.pool.pause(client.pool, what.until)

    def _gone(self, process: WorkerProcess, status: int | None) -> None:
        """A worker's process has ended: take what it finished, then what it had not begun."""
        client = self._clients[process.pool.session]
        self._drain_answers(process)
        for output in process.outputs:
            self._drain_output(output)
        for id in self.pool.gone(process.pool):
            self._forget(client, id)
            self._send_died(client, id, process.doomed.get(id, "died"), process, status)
        client.sharing.worker_gone(process)
        client.asking.worker_gone(process)
        self.loop.forget(process.answers)
        self.loop.forget(process.wire)
        said = process.stderr(STDERR_CHARACTERS)
        process.close()
        client.paused_answers.pop(process, None)
        client.processes.pop(process, None)
        self._unflushed_workers.pop(process, None)
        self._processes.pop(process.number, None)
        self._by_pid.pop(process.pid, None)
        if not process.started and not process.killed:
            self._failed_start(client, failed_start(status, process.errno, said))
        self._forget_if_gone(client)
        self._over_if_done()

    # --------------------------------------------------------------------- output

    def _read_output(self, output: Output) -> None:
        """Pass on what a worker has printed."""
        if output.fd < 0:
            return
        client = self._clients[output.process.pool.session]
        if _clogged(client):
            client.paused_outputs[output] = None
            self._throttled[client] = None
            self.loop.want(output.fd, read=False)
            return
        text = output.read()
        if text is None:
            self._drain_output(output)
            return
        if text:
            self._send_output(client, output, text)
        if output.rest:
            self._rests[output] = None
            if self._rest_timer.when is None:
                self._rest_timer.at(self.loop.now + OUTPUT_SECONDS)

    def _drain_output(self, output: Output) -> None:
        """Read what is left of a worker's output, and close it."""
        if output.fd < 0:
            return
        client = self._clients[output.process.pool.session]
        # A grandchild may hold it open and print for ever.
        for _ in range(8):
            text = output.read()
            if text:
                self._send_output(client, output, text)
            if output.empty:
                break
        rest = output.take_rest()
        if rest:
            self._send_output(client, output, rest)
        self._rests.pop(output, None)
        client.paused_outputs.pop(output, None)
        self.loop.forget(output.fd)
        output.close()

    def _send_output(self, client: ClientSession, output: Output, text: bytes) -> None:
        if client.id in self._sessions:
            process = output.process
            task = next(iter(process.pool.assigned), 0)
            self._send(
                client, make_frame(Kind.OUTPUT, task, text, aux=process.pid * 4 + output.which)
            )

    def _flush_rests(self, now: float) -> None:
        self._send_rests(list(self._rests))

    def _send_rests(self, outputs: list[Output]) -> None:
        """Pass on beginnings of lines whose ends have not come."""
        for output in outputs:
            self._rests.pop(output, None)
            rest = output.take_rest()
            if rest and output.fd >= 0:
                self._send_output(self._clients[output.process.pool.session], output, rest)

    def _unthrottle(self) -> None:
        """Read again from those that had to wait, once their client has caught up."""
        for client in list(self._throttled):
            if client.paused_answers and client.wire.unacked_bytes <= MOST_UNACKED:
                processes, client.paused_answers = client.paused_answers, {}
                for process in processes:
                    self._want_worker(process)
            if client.paused_outputs and not _clogged(client):
                outputs, client.paused_outputs = client.paused_outputs, {}
                for output in outputs:
                    self.loop.want(output.fd)
            if not client.paused_answers and not client.paused_outputs:
                del self._throttled[client]


def failed_start(status: int | None, number: int | None, said: str) -> FailedStart:
    """
    Return what is known of a worker that ended before it was ready.

    Args:
        status: The exit code of its process; None if there never was one.
        number: The system's error number, if it refused the process.
        said: What it wrote to its standard error.
    """
    if status is None:
        reason = f"no process can be made for a worker ({errno_words(number)})"
        return FailedStart(StartStage.MADE, reason, number)
    how = f"exit code {status}" if status >= 0 else f"signal {-status}"
    stage = StartStage.PREPARED if status == NOT_PREPARED else StartStage.INITIALIZED
    reason = f"a worker ended before it was ready: {how}" + (said and f"\n{said}")
    return FailedStart(stage, reason, status=status)


def _version() -> str:
    # Floors below the top may not import it, but it has been imported.
    return str(getattr(sys.modules["remote_executor"], "__version__", ""))


def _python_of(config: dict[str, Any]) -> list[Any] | None:
    """Return the client's implementation and version, if it has said them well."""
    implementation, version = config.get("implementation"), config.get("python")
    if not isinstance(implementation, str) or not isinstance(version, list):
        return None
    return [implementation, version] if all(type(each) is int for each in version) else None


def _clogged(client: ClientSession) -> bool:
    """Whether output must wait, so that it does not fill memory nor delay results."""
    if client.wire.unacked_bytes > MOST_OUTPUT_UNACKED:
        return True
    return client.connection is not None and (
        client.connection.link.outbox.size > MOST_OUTPUT_QUEUED
    )
