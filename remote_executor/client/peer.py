"""
What the client has at one server: the way there, the link, the session.

::

    IDLE -> CONNECTING -> SHAKING -> ATTACHING -> UP
              ^   |          |           |         |      cut, refused connection, silence
              |   v          v           v         v
            WAITING <------------------------------+      tried again, later and later
              |
              +-> REFUSED   wrong name, wrong token, other protocol: no use in trying again
              +-> CLOSED    nobody needs it any more

A cut shows above only if the server no longer knows the session, or the grace is over: then the
owner hears ``peer_lost``. All methods run with the driver's mutex held.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import select
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.process import current_process
from typing import TYPE_CHECKING, Any, Protocol

from remote_executor.core.known import Holdings
from remote_executor.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    FarmError,
    LaunchFailed,
    ProtocolMismatch,
    RemoteProtocolError,
)
from remote_executor.interpreter import check_python, python_command, server_environment
from remote_executor.net.security import auth_of, client_tls, is_exposed, tls_of
from remote_executor.net.segments import AVAILABLE, SegmentPool
from remote_executor.net.start import ROOT, START
from remote_executor.net.streams import SocketStream, Stream
from remote_executor.task_errors import NoServerError
from remote_executor.wire.auth import Mechanism, NoAuth
from remote_executor.wire.frames import make_frame, total_size
from remote_executor.wire.link import Link, LinkState, place_of
from remote_executor.wire.messages import Kind, decode_fields, encode_fields
from remote_executor.wire.session import Session, SessionState

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.net.addresses import Address
    from remote_executor.net.loop import Loop
    from remote_executor.net.security import AuthLike, TLSLike
    from remote_executor.net.segments import Segment
    from remote_executor.wire.frames import Frame

__all__ = ["BLOB_CACHE", "Embedded", "Owner", "Peer", "PeerState", "Remote", "Way"]

log = logging.getLogger("remote_executor.client")

ACK = int(Kind.ACK)

LIMIT = 64 * 1024**3
"""The largest frame in bytes that is accepted from a server that proved itself."""
BLOB_CACHE = 1024**3
FIRST_PAUSE = 0.05
LAST_PAUSE = 3.0
CONNECT_SECONDS = 10.0
LAST_WORDS_SECONDS = 1.0
"""How long the end may wait for a server that takes its time to read what was sent before."""
MOST_STARTS = 6
"""How often in a row an embedded server is started that ends before it has done a task."""


class PeerState(enum.Enum):
    """How the client stands with a server."""

    IDLE = "idle"
    CONNECTING = "connecting"
    SHAKING = "shaking hands"
    ATTACHING = "attaching"
    UP = "up"
    WAITING = "waiting to try again"
    REFUSED = "refused"
    CLOSED = "closed"


class Owner(Protocol):
    """Who is told what happens at a server."""

    def peer_up(self, peer: Peer, fields: dict[str, Any]) -> None:
        """A session has begun anew; ``fields`` is what the server says of itself."""

    def peer_lost(self, peer: Peer, reason: str) -> None:
        """The session is gone with all that was under way in it."""

    def peer_refused(self, peer: Peer, error: FarmError) -> None:
        """There is no use in trying again."""

    def peer_frames(self, peer: Peer, frames: list[Frame]) -> None:
        """Numbered frames have come."""


class Way(Protocol):
    """How to reach a server."""

    name: str

    def open(self, loop: Loop, done: Callable[[socket.socket | Exception], None]) -> None:
        """Begin to connect; call ``done`` in the loop's thread with a socket or the error."""

    def stream(self, sock: socket.socket) -> Stream:
        """Return a stream around the socket that :meth:`open` gave; it owns it."""

    def mechanism(self) -> Mechanism:
        """Return a fresh mechanism for a handshake."""

    def wishes(self) -> dict[str, Any]:
        """Return what else ATTACH asks for on this way."""

    def close(self) -> None:
        """Nobody will open this way again: end what it started."""


class Remote:
    """
    A server at an address.

    Args:
        address: Where it is.
        auth: How it knows us, and we know it; see :func:`remote_executor.net.security.auth_of`.
        tls: See :func:`remote_executor.net.security.tls_of`.

    Raises:
        TypeError, ValueError: If ``auth`` or ``tls`` cannot be used.
    """

    def __init__(self, address: Address, auth: AuthLike = None, tls: TLSLike = None) -> None:
        self.address = address
        self.name = str(address)
        self._auth = auth_of(auth)
        tls = client_tls(address, self._auth, tls_of(tls))
        self._tls: tuple[Any, str] | None = None
        if tls:
            from remote_executor.net.tls import client_context

            self._tls = client_context(tls, address.host)
        elif is_exposed(address, self._auth, tls):
            log.warning("%s is spoken to in plain text: others may read it and change it", address)
        self._mechanism: Mechanism | Exception | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._outcome: socket.socket | Exception | None = None
        """What the thread that dials has got, until the loop's thread takes it."""

    def stream(self, sock: socket.socket) -> Stream:
        """Return the socket as a stream, with TLS around it if that is spoken."""
        if self._tls is None:
            return SocketStream(sock)
        from remote_executor.net.tls import TLSStream

        context, host = self._tls
        return TLSStream(sock, context, self.name, host=host)

    def mechanism(self) -> Mechanism:
        """Return the client's part in the proofs, as a rule the one that dialling has made."""
        made, self._mechanism = self._mechanism, None
        if isinstance(made, Exception):
            raise made
        return made or self._auth.client(self.address.host)

    def open(self, loop: Loop, done: Callable[[socket.socket | Exception], None]) -> None:
        """Resolve and connect in a thread of its own: looking up a name may take long."""
        thread = threading.Thread(
            target=self._connect, args=(loop, done), name=f"dial {self.name}", daemon=True
        )
        thread.start()

    def _connect(self, loop: Loop, done: Callable[[socket.socket | Exception], None]) -> None:
        outcome: socket.socket | Exception
        try:
            if self.address.kind == "unix":
                outcome = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                outcome.settimeout(CONNECT_SECONDS)
                try:
                    outcome.connect(self.address.path)
                except BaseException:
                    outcome.close()
                    raise
            else:
                outcome = socket.create_connection(
                    (self.address.host, self.address.port), CONNECT_SECONDS
                )
        except Exception as exc:
            outcome = exc
        else:
            # Here, because it may ask somebody else, such as a Kerberos realm.
            try:
                self._mechanism = self._auth.client(self.address.host)
            except Exception as exc:
                self._mechanism = exc
        with self._lock:
            self._outcome = outcome
        if self._closed:
            self.close()  # nobody is left who would take it
        else:
            loop.post(lambda: self._hand_over(done))

    def _hand_over(self, done: Callable[[socket.socket | Exception], None]) -> None:
        with self._lock:
            outcome, self._outcome = self._outcome, None
        if outcome is not None:
            done(outcome)

    def wishes(self) -> dict[str, Any]:
        """Nothing: a server elsewhere has paths of its own."""
        return {}

    def close(self) -> None:
        """Leave the server alone, it serves others; but a connection that nobody took is closed."""
        self._closed = True
        with self._lock:
            outcome, self._outcome = self._outcome, None
        if isinstance(outcome, socket.socket):
            outcome.close()


BOOT = START + (
    "from remote_executor.server.embedded import main; sys.exit(main(*sys.argv[1:], here=here))"
)


class Embedded:
    """
    A server of our own: a process that is started when it is needed and ends with us.

    It inherits one end of a socket pair, so nobody else can talk to it, and it ends, with all its
    workers, when the other end is closed, however this process ends.

    Args:
        slots: How many tasks it runs at a time.
        preload: Modules to import before workers are made.
    """

    name = "embedded server"

    def __init__(self, slots: int, preload: tuple[str, ...]) -> None:
        self._slots = slots
        self._preload = preload
        self._processes: list[subprocess.Popen[bytes]] = []
        self._silent = False
        """Whether the last one that was started has not asked for our wishes yet."""

    def stream(self, sock: socket.socket) -> Stream:
        """Return the socket as a stream."""
        return SocketStream(sock)

    def mechanism(self) -> Mechanism:
        """Nothing to prove: the socket was inherited."""
        return NoAuth()

    def open(self, loop: Loop, done: Callable[[socket.socket | Exception], None]) -> None:
        """Start the server."""
        self._reap()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                if self._silent:
                    check_python()  # another one was started, and ended before it said anything
                python = python_command()
                command = [*python, "-c", BOOT, ROOT]
                command += [str(theirs.fileno()), str(self._slots), ",".join(self._preload)]
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=server_environment(python),
                    start_new_session=True,  # the terminal's ^C is for the client alone
                )
        except Exception as exc:
            ours.close()
            done(exc)
            return
        self._processes.append(process)
        self._silent = True
        done(ours)

    def wishes(self) -> dict[str, Any]:
        """Let workers import what this process can, from where it can."""
        self._silent = False
        try:
            here = os.getcwd()
        except OSError:  # the folder is gone; the server was started in it, and is there as well
            here = None
        return {
            "sys_path": [path or here or "" for path in sys.path],
            "cwd": here,
            "authkey": bytes(current_process().authkey).hex(),
        }

    def _reap(self) -> None:
        self._processes = [process for process in self._processes if process.poll() is None]

    def close(self) -> None:
        """Wait for the server, which ends since its socket was closed; kill it if it does not."""
        until = time.monotonic() + 5.0
        for process in self._processes:
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes = []

    @property
    def pid(self) -> int | None:
        """The running server's process id."""
        self._reap()
        return self._processes[-1].pid if self._processes else None


class Peer:
    """
    One server, as the client knows it.

    Args:
        way: How to reach it.
        loop: The driver's loop.
        owner: Who is told.
        config: What ATTACH says of the client and what it wants.
        grace: Seconds a session survives without a link.
        blob_cache: Bytes of functions and shared objects that the server may keep for us.
    """

    def __init__(
        self,
        way: Way,
        loop: Loop,
        owner: Owner,
        config: dict[str, Any],
        grace: float,
        blob_cache: int = BLOB_CACHE,
    ) -> None:
        self.way = way
        self.name = way.name
        self.state = PeerState.IDLE
        self.session: Session | None = None
        self.link: Link | None = None
        self.known = Holdings(blob_cache)
        """The functions and shared objects that the server holds."""
        self.fields: dict[str, Any] = {}
        """What the server says of itself."""
        self.differences: tuple[str, ...] = ()
        """What differs between the two ends, where it matters: a line each."""
        self.sources: dict[str, int] = {}
        """Sizes of the contents of modules that the server holds, by digest."""
        self.claimed: dict[str, Any] = {}
        """What the session's workers were told of our own modules; see ``modules.claims``."""
        self.trouble: str | None = None
        """Why there is no link, in words."""
        self.failures = 0
        self.foreign = False
        """Whether its Python is another one, which must not be sent code by value."""
        self.segments = False
        """Whether large buffers go there in shared memory."""
        self.pool = SegmentPool()
        """Segments for this session; another one gets others. See :class:`SegmentPool`."""
        self.lent: dict[int, Segment] = {}
        """Segments with the buffers of tasks that are there, by attempt."""
        self._shares = False
        self._loop = loop
        self._owner = owner
        self._config = config
        self._grace = grace
        self._blob_cache = blob_cache
        self.stream: Stream | None = None
        """What there is of a connection; for the driver to lend it to callers."""
        self._session_id = ""
        self._begun = False
        self._pause = FIRST_PAUSE
        self._retry_at: float | None = None
        self._timer = loop.timer(self._tick)
        self._wants_write = False

    def __repr__(self) -> str:
        return (
            f"<Peer {self.name}: {self.state.value}{', ' + self.trouble if self.trouble else ''}>"
        )

    @property
    def python(self) -> tuple[str, tuple[int, ...]] | None:
        """Its implementation and version, as far as it has said."""
        version = self.fields.get("python")
        if not isinstance(version, list):
            return None
        return str(self.fields.get("implementation")), tuple(version)

    @property
    def libraries(self) -> dict[str, str]:
        """The versions of what is installed there, by name, as far as it has said."""
        versions = self.fields.get("versions")
        return versions if isinstance(versions, dict) else {}

    # --------------------------------------------------------------- on the way

    def connect(self) -> None:
        """Begin to connect."""
        self.state = PeerState.CONNECTING
        self._retry_at = None
        self.way.open(self._loop, self._connected)

    def _connected(self, outcome: socket.socket | Exception) -> None:
        if self.state is not PeerState.CONNECTING:
            if isinstance(outcome, socket.socket):
                outcome.close()  # we were closed in the meantime
            return
        if isinstance(outcome, socket.gaierror) and outcome.errno != socket.EAI_AGAIN:
            reason = f"there is no host of that name ({outcome.strerror})"
            self._refused(ConnectionFailed(self.name, reason))
            return
        if isinstance(outcome, LaunchFailed):
            self._refused(outcome)
            return
        if isinstance(outcome, Exception):
            self._cut(f"cannot connect: {outcome}")
            return
        try:
            mechanism = self.way.mechanism()
        except Exception as exc:
            outcome.close()
            self._refused(AuthenticationFailed(self.name, str(exc)))
            return
        try:
            self.stream = stream = self.way.stream(outcome)
        except OSError as exc:
            outcome.close()
            self._cut(f"the connection broke: {exc}")
            return
        shared = AVAILABLE and isinstance(stream, SocketStream) and stream.is_local()
        shared = shared and not mechanism.wraps
        now = time.monotonic()
        embedded = isinstance(mechanism, NoAuth)
        self.link = Link(
            "client",
            self.name,
            mechanism,
            now,
            nonce=os.urandom(32),
            channel=stream.channel,
            limit=LIMIT,
            place=place_of(self._session_id) if self._begun and not embedded else "",
            # The kernel tells when a process at the other end of a socket pair is gone.
            silence=3600.0 if embedded else 15.0,
        )
        if shared and isinstance(stream, SocketStream):
            stream.fds = self.link.segments
        self._shares = shared
        self.state = PeerState.SHAKING
        self._wants_write = False
        self._loop.watch(self.stream.fileno(), self._readable, self.flush)
        self.flush()
        self._schedule()

    def _attach(self) -> None:
        """The handshake is done: ask for our session."""
        now = time.monotonic()
        if self.session is None or self.session.state is SessionState.EXPIRED:
            self._new_session(now)
        assert self.session is not None
        assert self.link is not None
        self.state = PeerState.ATTACHING
        fields = dict(
            self._config,
            **self.way.wishes(),
            session=self._session_id,
            received=self.session.received_count,
            resume=self._begun,
            grace=self._grace,
            segments=self._shares,
            log_level=logging.getLogger().level,
        )
        self.link.outbox.put(make_frame(Kind.ATTACH, body=encode_fields(fields)))

    def _new_session(self, now: float) -> None:
        self.session = Session(now, self._grace)
        self._session_id = os.urandom(16).hex()
        self._begun = False
        self.known = Holdings(self._blob_cache)
        self.sources = {}
        self.pool.close()
        self.pool = SegmentPool()

    def _attached(self, frame: Frame) -> None:
        fields = decode_fields(frame.body, resumed=bool, received=int, slots=int)
        assert self.link is not None
        assert self.session is not None
        if self._begun and not fields["resumed"]:
            self._owner.peer_lost(self, "it does not know our session: it was started anew")
            self._new_session(time.monotonic())
            self._attach()
            return
        self.state = PeerState.UP
        self.segments = fields.get("segments") is True
        self.trouble = None
        if not isinstance(self.way, Embedded):
            self.failures = 0  # one of our own has to do something first; see Driver.peer_frames
        self.fields = fields
        ours = self._config["implementation"], self._config["python"][:2]
        self.foreign = (fields.get("implementation"), fields.get("python", [])[:2]) != ours
        self.session.attach(self.link.outbox, fields["received"])
        if not fields["resumed"]:
            self._begun = True
            self._owner.peer_up(self, fields)

    # ------------------------------------------------------------------ receiving

    def _readable(self) -> None:
        stream, link = self.stream, self.link
        if stream is None or link is None:
            return
        try:
            for _ in range(16):
                buffer = link.get_buffer()
                count = stream.receive(buffer)
                if count < 0:
                    break
                if count == 0:
                    self._cut("the server closed the connection")
                    return
                now = time.monotonic()
                full = count == len(buffer)
                self._received(link.received(count, now), now)
                if self.link is not link:
                    return
                if not full:
                    break
        except (AuthenticationFailed, ProtocolMismatch) as exc:
            self._refused(exc)
        except RemoteProtocolError as exc:
            if self.state is PeerState.UP or self._begun:
                # It has served us before: whatever answers there now may be gone soon.
                self._cut(f"the link is corrupt: {exc}")
            else:
                self._refused(ConnectionFailed(self.name, str(exc)))
        except OSError as exc:
            self._cut(f"the connection broke: {exc}")
        else:
            if stream.holding:
                self._loop.post(self._readable)
            self._schedule()

    def _received(self, frames: list[Frame], now: float) -> None:
        state, session, link = self.state, self.session, self.link
        assert link is not None
        if state is PeerState.UP and frames:
            assert session is not None
            numbered = [frame for frame in frames if frame.kind != ACK]
            if len(numbered) < len(frames):
                for frame in frames:
                    if frame.kind == ACK:
                        session.acknowledged(frame.id)
            if numbered:
                session.received(len(numbered), total_size(numbered), now)
                self._owner.peer_frames(self, numbered)
        elif state is PeerState.SHAKING and link.state is LinkState.OPEN:
            self._attach()
            self.flush()
        elif state is PeerState.ATTACHING:
            for index, frame in enumerate(frames):
                if frame.kind == Kind.REPLY:
                    fields = decode_fields(frame.body, error=str)
                    if fields["error"] == "ending":
                        self._cut("the server is ending")  # the next one may be there soon
                        return
                    self._refused(
                        ConnectionFailed(self.name, f"the server refuses: {fields['error']}")
                    )
                    return
                if frame.kind != Kind.ATTACHED:
                    raise RemoteProtocolError(f"kind {frame.kind} came before ATTACHED")
                self._attached(frame)
                self._received(frames[index + 1 :], now)
                self.flush()
                break
        if link.state is LinkState.CLOSED and self.link is link and self.state is PeerState.UP:
            # A goodbye: the server ends, and the session with it.
            self._begun = False
            self._drop_link("the server said goodbye")
            self._lose("the server was shut down")

    def resume(self, received: list[Any]) -> None:
        """Take what a caller has received by the shortcut as if it came in now."""
        if self.stream is not None:
            self.stream.put_back(received)
            self._readable()

    # -------------------------------------------------------------------- writing

    @property
    def attached(self) -> bool:
        """Whether what is sent now goes out at once."""
        return self.state is PeerState.UP

    def is_at_rest(self) -> bool:
        """Whether it is attached, nothing waits to be written, and bytes go as they are."""
        link = self.link
        return self.attached and link is not None and not (link.outbox.size or link.wraps)

    def flush(self) -> bool:
        """Write what can be written; return False if something is left."""
        stream, link = self.stream, self.link
        if stream is None or link is None:
            return True
        outbox = link.outbox
        try:
            while outbox.size:
                count = stream.send(outbox.chunk())
                if not count:
                    break
                outbox.sent(count)
        except AuthenticationFailed as exc:  # what is to go out cannot be wrapped
            refusal = exc
            self._loop.post(lambda: self._refused(refusal) if self.stream is stream else None)
            return True
        except OSError as exc:
            reason = f"the connection broke: {exc}"
            self._loop.post(lambda: self._broken(stream, reason))
            return True
        return not outbox.size

    def settle_interest(self) -> None:
        """Watch for room to write if something is left. For the loop's thread only."""
        if self.stream is None or self.link is None:
            return
        wanted = self.link.outbox.size > 0 and not self.stream.waiting
        if wanted != self._wants_write:
            self._wants_write = wanted
            self._loop.want(self.stream.fileno(), write=wanted)

    def _broken(self, stream: Stream, reason: str) -> None:
        if self.stream is stream:
            # The peer may have said why before it closed: read that first.
            self._readable()
        if self.stream is stream:
            self._cut(reason)

    # ------------------------------------------------------------------- troubles

    def _cut(self, reason: str) -> None:
        """The link is gone; the session waits for the next."""
        self._drop_link(reason)
        if isinstance(self.way, Embedded) and self._begun:
            self._lose(reason)  # the socket pair was the only way
            return
        self._try_again(reason)

    def _try_again(self, reason: str) -> None:
        if isinstance(self.way, Embedded) and self.failures >= MOST_STARTS:
            # Whoever waits for it would wait for ever.
            text = f"it ended {self.failures} times before it had done anything: {reason}"
            self._refused(NoServerError([self.name], text))
            return
        self._wait()

    def _drop_link(self, reason: str) -> None:
        self.trouble = reason
        if not self.failures:
            self._pause = FIRST_PAUSE
        self.failures += 1
        if self.stream is not None:
            self._loop.forget(self.stream.fileno())
            self.stream.close()
            self.stream = None
        self.link = None
        if self.session is not None:
            self.session.link_lost(time.monotonic())

    def _lose(self, reason: str) -> None:
        self.session = None
        self._begun = False
        self._owner.peer_lost(self, reason)
        if self.state not in (PeerState.CLOSED, PeerState.REFUSED):
            self._try_again(reason)

    def _wait(self) -> None:
        self.state = PeerState.WAITING
        self._retry_at = time.monotonic() + self._pause
        self._pause = min(LAST_PAUSE, self._pause * 1.6)
        self._schedule()

    def refuse(self, error: FarmError) -> None:
        """Do without this server, which is attached; it is told goodbye."""
        self._begun = False
        if self.link is not None:
            self.link.say_goodbye()
            self.flush()
        self._refused(error)
        self.session = None

    def _refused(self, error: FarmError) -> None:
        self._drop_link(str(error))
        self.state = PeerState.REFUSED
        self._timer.at(None)
        if self._begun:
            self._begun = False
            self._owner.peer_lost(self, str(error))
        self._owner.peer_refused(self, error)

    # ---------------------------------------------------------------------- time

    def _schedule(self) -> None:
        when = self._retry_at
        if self.link is not None:
            link_when = self.link.deadline()
            when = link_when if when is None else min(when, link_when)
        if self.session is not None and self._begun:
            session_when = self.session.deadline()
            if session_when is not None:
                when = session_when if when is None else min(when, session_when)
        if when != self._timer.when:
            self._timer.at(when)

    def _tick(self, now: float) -> None:
        if self.session is not None and self._begun:
            self.session.tick(now)
            if self.session.state is SessionState.EXPIRED:
                reason = f"no link for {self._grace:g} s ({self.trouble})"
                self._drop_link(reason)
                self._lose(reason)
                return
        if self.link is not None:
            silent = self.link.tick(now)
            if silent is not None:
                self._cut(silent)
                return
        if self._retry_at is not None and now >= self._retry_at:
            self.connect()
        self._schedule()

    # ----------------------------------------------------------------------- end

    def close(self) -> None:
        """End the session, tell the server, and close the link."""
        self.state = PeerState.CLOSED
        self._timer.at(None)
        if self.link is not None:
            self.link.say_goodbye()
            self._write_out()
        self._drop_link("closed")
        self.session = None
        self.pool.close()

    def _write_out(self) -> None:
        """Write what is left, within limits: a server that hears no goodbye waits for the grace."""
        patience = 0.0 if isinstance(self.way, Embedded) else LAST_WORDS_SECONDS
        until = time.monotonic() + patience
        while not self.flush() and self.stream is not None:
            left = until - time.monotonic()
            if left <= 0:
                return
            room = select.poll()
            room.register(self.stream.fileno(), select.POLLOUT)
            room.poll(left * 1000)

    def abandon(self) -> None:
        """Let go of descriptors without a word: in a forked child the link is the parent's."""
        self.state = PeerState.CLOSED
        if self.stream is not None:
            with contextlib.suppress(OSError):
                self.stream.close()
            self.stream = None
        self.link = None
