"""
What the client has at one server: the way there, the link, the session.

The shell around :class:`remote_executor.core.connection.Connection`, which decides what is tried
again, when, and what is final. Here are the sockets, the timers and the frames; exceptions become
the core's words in :mod:`remote_executor.client.troubles`.

::

    way.open -> _connected -> link: HELLO, PROOF -> ATTACH -> ATTACHED -> frames -> owner
                     |                |                |          |          |
                     +----------------+--- _failed ----+----------+----------+
                                             |
                                  Connection.failed -> actions -> _act

A cut shows above only if the server no longer knows the session, or the grace is over: then the
owner hears ``peer_lost``. All methods run with the driver's mutex held.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Any, Protocol

from remote_executor.client.troubles import Step, trouble_of
from remote_executor.client.ways import LAST_WORDS_SECONDS, Embedded, Way
from remote_executor.core.connection import (
    MOST_STARTS,
    Action,
    Attach,
    Connection,
    ConnectionState,
    Drop,
    Failure,
    Lasts,
    Lose,
    Open,
    Refuse,
    Use,
)
from remote_executor.core.known import Holdings
from remote_executor.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    FarmError,
    ProtocolMismatch,
    RemoteProtocolError,
)
from remote_executor.net.segments import AVAILABLE, SegmentPool
from remote_executor.net.streams import SocketStream, Stream
from remote_executor.printable import printable
from remote_executor.task_errors import NoServerError
from remote_executor.wire.auth import Mechanism, NoAuth
from remote_executor.wire.frames import make_frame, segment_is_lost, total_size
from remote_executor.wire.link import Link, LinkState, place_of
from remote_executor.wire.messages import (
    AGAIN,
    FIRST_NUMBERED,
    Kind,
    encode_fields,
    fields_for_client,
)
from remote_executor.wire.session import Session

if TYPE_CHECKING:
    from remote_executor.net.loop import Loop
    from remote_executor.net.segments import Segment
    from remote_executor.wire.frames import Frame

__all__ = ["BLOB_CACHE", "Owner", "Peer", "PeerState"]

log = logging.getLogger("remote_executor.client")

ACK = int(Kind.ACK)

LIMIT = 64 * 1024**3
"""The largest frame in bytes that is accepted from a server that proved itself."""
BLOB_CACHE = 1024**3

PeerState = ConnectionState
"""How the client stands with a server: the core's word."""


class Owner(Protocol):
    """Who is told what happens at a server."""

    def peer_up(self, peer: Peer, fields: dict[str, Any]) -> None:
        """A session has begun anew; ``fields`` is what the server says of itself."""

    def peer_lost(self, peer: Peer, reason: str) -> None:
        """The session is gone with all that was under way in it."""

    def peer_failed(self, peer: Peer) -> None:
        """A try has failed, or the link was cut; it may be tried again."""

    def peer_refused(self, peer: Peer, error: FarmError) -> None:
        """There is no use in trying again."""

    def peer_frames(self, peer: Peer, frames: list[Frame]) -> None:
        """
        Numbered frames have come.

        Raises:
            RemoteProtocolError: One of them makes no sense; all before it have been taken.
        """


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
        patience: Seconds for which a name that nobody knows is asked; None to give up at once.
    """

    def __init__(
        self,
        way: Way,
        loop: Loop,
        owner: Owner,
        config: dict[str, Any],
        grace: float,
        blob_cache: int = BLOB_CACHE,
        patience: float | None = None,
    ) -> None:
        self.way = way
        self.name = way.name
        self.core = Connection(
            grace,
            patience=patience,
            own=isinstance(way, Embedded),
            launched=getattr(way, "launches", False),
        )
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
        self.error: FarmError | None = None
        """Why it is left out, if it is."""
        self.away_since: float | None = None
        """Since when there is no session, in monotonic seconds; None before it is tried."""
        self.last_words = ""
        """The last that the server itself has said when it would not have us."""
        self.done = 0
        """Tasks that it has finished, each batch of a map being one."""
        self.failed = 0
        """Tasks that have failed there: they raised, or their worker ended."""
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
        self._said: dict[str, Any] = {}
        self._timer = loop.timer(self._tick)
        self._wants_write = False

    def __repr__(self) -> str:
        return (
            f"<Peer {self.name}: {self.state.value}{', ' + self.trouble if self.trouble else ''}>"
        )

    @property
    def state(self) -> ConnectionState:
        """How the client stands with it."""
        return self.core.state

    @property
    def trouble(self) -> str | None:
        """Why there is no link, in words."""
        return self.core.trouble

    @property
    def words(self) -> str:
        """Why it is of no use now, and the last that it has said itself."""
        words = self.core.trouble or self.state.value
        if self.last_words and self.last_words not in words:
            words += f"; the last that it said: {self.last_words}"
        return words

    @property
    def place(self) -> str:
        """Which server it is, for errors: its host, and how it was named here."""
        host = self.fields.get("host")
        return self.name if not host or host == self.name else f"{host} ({self.name})"

    @property
    def note(self) -> str:
        """What the errors of its tasks say of where they ran."""
        if isinstance(self.way, Embedded):
            return printable(self.fields.get("host", "this machine"))
        return self.place

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

    # ------------------------------------------------------------ what the core decides

    def connect(self) -> None:
        """Begin to connect."""
        self.away_since = now = time.monotonic()
        self._act(self.core.start(now), now)

    def _act(self, actions: list[Action], now: float) -> None:
        """Carry out what the core has decided."""
        for action in actions:
            if isinstance(action, Open):
                self._open()
            elif isinstance(action, Attach):
                self._attach(action.resume, now)
            elif isinstance(action, Use):
                self._use(action.resumed)
            elif isinstance(action, Drop):
                self._drop_link(now)
                self._owner.peer_failed(self)
            elif isinstance(action, Lose):
                self.session = None
                self.away_since = now
                self._owner.peer_lost(self, action.reason)
            else:
                self._refuse(action)
        self._schedule()

    def _failed(self, exc: BaseException, step: Step) -> None:
        """Something has failed: the core says what follows."""
        failure = trouble_of(exc, step, self.name)
        if isinstance(exc, (AuthenticationFailed, ProtocolMismatch)):
            self.last_words = exc.reason
        now = time.monotonic()
        self._act(self.core.failed(failure, now), now)

    def _cut(self, reason: str) -> None:
        """The link is gone, for a reason that may pass; the session waits for the next."""
        now = time.monotonic()
        self._act(self.core.failed(Failure(Lasts.NO, reason), now), now)

    def _refuse(self, action: Refuse) -> None:
        failure = action.failure
        self._timer.at(None)
        error = failure.error
        if isinstance(self.way, Embedded) and failure.lasts is Lasts.NO:
            times = self.core.failures
            words = f"it ended {times} times before it had done anything: {failure.reason}"
            said = self.way.last_words()
            self.error = NoServerError([self.name], f"{words}; {said}" if said else words)
            self.error.__cause__ = error
        else:
            self.error = error or ConnectionFailed(self.name, failure.reason)
        self._owner.peer_refused(self, self.error)

    def refuse(self, error: FarmError) -> None:
        """Do without this server. Its owner, who wants that, sees to what was under way there."""
        now = time.monotonic()
        self.last_words = str(error)
        if self.link is not None and self.attached:
            self.link.say_goodbye()
            self.flush()
        self.session = None
        self._act(self.core.leave_out(Failure(Lasts.YES, str(error), error), now), now)

    # --------------------------------------------------------------- on the way

    def _open(self) -> None:
        if isinstance(self.way, Embedded):
            self.way.keeps_stderr = self.core.failures == MOST_STARTS - 1
        try:
            self.way.open(self._loop, self._connected)
        except Exception as exc:  # no thread, no descriptor; or a way of the user's own
            self._failed(exc, self._step_to_connect)

    @property
    def _step_to_connect(self) -> Step:
        return Step.LAUNCH if self.core.launched else Step.CONNECT

    def _connected(self, outcome: socket.socket | BaseException) -> None:
        if self.state is not ConnectionState.CONNECTING:
            if isinstance(outcome, socket.socket):
                outcome.close()  # we were closed in the meantime
            return
        if isinstance(outcome, BaseException):
            self._failed(outcome, self._step_to_connect)
            return
        try:
            mechanism = self.way.mechanism()
        except BaseException as exc:  # it may be the user's, and it may have been made in a thread
            outcome.close()
            self._failed(exc, Step.AUTH)
            return
        try:
            self._begin(outcome, mechanism)
        except Exception as exc:
            outcome.close()
            self._failed(exc, Step.LINK)
            return
        self.core.opened()
        self.flush()
        self._schedule()

    def _begin(self, sock: socket.socket, mechanism: Mechanism) -> None:
        """Begin the handshake on a connected socket."""
        stream = self.way.stream(sock)
        shared = AVAILABLE and isinstance(stream, SocketStream) and stream.is_local()
        shared = shared and not mechanism.wraps
        embedded = isinstance(mechanism, NoAuth)
        resumes = self.core.has_session
        link = Link(
            "client",
            self.name,
            mechanism,
            time.monotonic(),
            nonce=os.urandom(32),
            channel=stream.channel,
            limit=LIMIT,
            place=place_of(self._session_id) if resumes and not embedded else "",
            # The kernel tells when a process at the other end of a socket pair is gone.
            silence=3600.0 if embedded else 15.0,
        )
        if shared and isinstance(stream, SocketStream):
            stream.fds = link.segments
        self._loop.watch(stream.fileno(), self._readable, self.flush)
        self.stream, self.link = stream, link
        self._shares = shared
        self._wants_write = False

    def _attach(self, resume: bool, now: float) -> None:
        """The handshake is done: ask for our session."""
        if self.session is None:
            self._new_session(now)
        assert self.session is not None
        assert self.link is not None
        fields = dict(
            self._config,
            **self.way.wishes(),
            session=self._session_id,
            received=self.session.received_count,
            resume=resume,
            grace=self._grace,
            segments=self._shares,
            log_level=logging.getLogger().level,
        )
        self.link.outbox.put(make_frame(Kind.ATTACH, body=encode_fields(fields)))

    def _new_session(self, now: float) -> None:
        self.session = Session(now, self._grace)
        self._session_id = os.urandom(16).hex()
        self.known = Holdings(self._blob_cache)
        self.sources = {}
        self.pool.close()
        self.pool = SegmentPool()

    def _attached(self, frame: Frame, now: float) -> None:
        self._said = fields_for_client(frame.kind, frame.body)
        fields = self._said
        server, place = fields.get("server", ""), fields.get("place", "")
        self._act(self.core.attached(fields["resumed"], server, place, now), now)

    def _use(self, resumed: bool) -> None:
        """The session has its link."""
        assert self.link is not None
        assert self.session is not None
        self.fields = fields = self._said
        self.segments = fields.get("segments") is True
        ours = self._config["implementation"], self._config["python"][:2]
        self.foreign = (fields.get("implementation"), fields.get("python", [])[:2]) != ours
        self.session.attach(self.link.outbox, fields["received"])
        if not resumed:
            self.last_words = ""
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
                frames = link.received(count, now)
                if not self._take(frames, now) or self.link is not link:
                    return
                if not full:
                    break
        except (AuthenticationFailed, ProtocolMismatch, OSError) as exc:
            self._failed(exc, Step.LINK)
        except RemoteProtocolError as exc:
            words = f"the link is corrupt: {exc}" if self.core.served else str(exc)
            self._failed(RemoteProtocolError(words), Step.LINK)
        else:
            if stream.holding:
                self._loop.post(self._readable)
            self._schedule()

    def _take(self, frames: list[Frame], now: float) -> bool:
        """Take frames; return False if they make no sense, and the server has lost its session."""
        try:
            self._received(frames, now)
        except RemoteProtocolError as exc:
            failure = trouble_of(exc, Step.LINK, self.name)
        except Exception as exc:
            # A defect of ours; it must not cost more than this server.
            log.exception("! a message of %s could not be taken", self.name)
            failure = trouble_of(exc, Step.LINK, self.name)
        else:
            return True
        reason = f"it talks nonsense: {failure.reason}"
        failure = Failure(Lasts.YES, reason, ConnectionFailed(self.name, reason))
        if self.state is ConnectionState.UP:
            self._act(self.core.talked_nonsense(failure, now), now)
        else:
            self._act(self.core.failed(failure, now), now)
        return False

    def _received(self, frames: list[Frame], now: float) -> None:
        state, session, link = self.state, self.session, self.link
        assert link is not None
        if state is ConnectionState.UP and frames:
            assert session is not None
            numbered = [frame for frame in frames if frame.kind >= FIRST_NUMBERED]
            if len(numbered) < len(frames):
                for frame in frames:
                    if frame.kind == ACK:
                        session.acknowledged(frame.id)
                    elif frame.kind < FIRST_NUMBERED:
                        raise RemoteProtocolError(f"kind {frame.kind} came in a session")
            if numbered:
                count, size = len(numbered), total_size(numbered)
                if link.lost:
                    # Before they are acknowledged: until then the server has them.
                    link.lost = 0
                    numbered = self._ask_again(numbered)
                session.received(count, size, now)
                self._owner.peer_frames(self, numbered)
        elif state is ConnectionState.SHAKING and link.state is LinkState.OPEN:
            self._act(self.core.proved(), now)
            self.flush()
            self._received(frames, now)
        elif state is ConnectionState.ATTACHING and frames:
            self._answered(frames, now)
        if link.state is LinkState.CLOSED and self.link is link and self.attached:
            # A goodbye: the server ends, and the session with it.
            self._act(self.core.goodbye(now), now)

    def _answered(self, frames: list[Frame], now: float) -> None:
        """The server has answered ATTACH."""
        link, frame = self.link, frames[0]
        if frame.kind == Kind.REPLY:
            said = printable(fields_for_client(frame.kind, frame.body)["error"], 300)
            if said == "ending":
                self._cut("the server is ending")  # the next one may be there soon
                return
            reason = f"the server refuses: {said}"
            error = ConnectionFailed(self.name, reason)
            self.last_words = said
            self._act(self.core.failed(Failure(Lasts.YES, reason, error), now), now)
            return
        if frame.kind != Kind.ATTACHED:
            raise RemoteProtocolError(f"kind {frame.kind} came before ATTACHED")
        self._attached(frame, now)
        if self.link is link:
            self._received(frames[1:], now)
            self.flush()

    def _ask_again(self, frames: list[Frame]) -> list[Frame]:
        """Ask for results again for whose descriptors this process has no room; return the rest."""
        assert self.session is not None
        kept = []
        for frame in frames:
            if segment_is_lost(frame.segment):
                self.session.send(make_frame(Kind.RELEASE, frame.id, aux=AGAIN))
            else:
                kept.append(frame)
        return kept

    def resume(self, received: list[Any]) -> None:
        """Take what a caller has received by the shortcut as if it came in now."""
        if self.stream is not None:
            self.stream.put_back(received)
            self._readable()

    # -------------------------------------------------------------------- writing

    @property
    def attached(self) -> bool:
        """Whether what is sent now goes out at once."""
        return self.core.state is ConnectionState.UP

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
        step = Step.LINK
        try:
            while outbox.size:
                step = Step.WRAP  # by our own mechanism: the other end has no part in it
                chunk = outbox.chunk()
                step = Step.LINK
                count = stream.send(chunk)
                if not count:
                    break
                outbox.sent(count)
        except (AuthenticationFailed, OSError) as exc:
            trouble, where = exc, step
            self._loop.post(lambda: self._broken(stream, trouble, where))
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

    def _broken(self, stream: Stream, exc: Exception, step: Step) -> None:
        if self.stream is stream and not isinstance(exc, AuthenticationFailed):
            # The peer may have said why before it closed: read that first.
            self._readable()
        if self.stream is stream:
            self._failed(exc, step)

    def _drop_link(self, now: float) -> None:
        if self.stream is not None:
            self._loop.forget(self.stream.fileno())
            self.stream.close()
            self.stream = None
        self.link = None
        if self.session is not None:
            self.session.link_lost(now)

    # ---------------------------------------------------------------------- time

    def _schedule(self) -> None:
        when = self.core.deadline()
        if self.link is not None:
            link_when = self.link.deadline()
            when = link_when if when is None else min(when, link_when)
        if self.session is not None and self.attached:
            session_when = self.session.deadline()
            if session_when is not None:
                when = session_when if when is None else min(when, session_when)
        if when != self._timer.when:
            self._timer.at(when)

    def _tick(self, now: float) -> None:
        if self.session is not None and self.attached:
            self.session.tick(now)
        if self.link is not None:
            silent = self.link.tick(now)
            if silent is not None:
                self._cut(silent)
                return
        self._act(self.core.tick(now), now)

    # ----------------------------------------------------------------------- end

    def close(self) -> None:
        """End the session, tell the server, and close the link."""
        self.core.close()
        self._timer.at(None)
        if self.link is not None:
            self.link.say_goodbye()
            self._write_out()
        self._drop_link(time.monotonic())
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
        self.core.close()
        if self.stream is not None:
            with contextlib.suppress(OSError):
                self.stream.close()
            self.stream = None
        self.link = None
