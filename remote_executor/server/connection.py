"""One stream to a client: the shell of a :class:`~remote_executor.wire.link.Link`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Protocol

from remote_executor.errors import AuthenticationFailed, FarmError, RemoteProtocolError
from remote_executor.net.segments import AVAILABLE
from remote_executor.net.streams import SocketStream
from remote_executor.server.client_session import named
from remote_executor.server.processes import LINGER_SECONDS
from remote_executor.server.sharing import Room
from remote_executor.wire.frames import make_frame
from remote_executor.wire.link import Link, LinkState
from remote_executor.wire.messages import Kind, encode_fields

if TYPE_CHECKING:
    from remote_executor.net.tls import TLSStream
    from remote_executor.server.client_session import ClientSession, Principal
    from remote_executor.server.context import Context
    from remote_executor.wire.auth import Mechanism
    from remote_executor.wire.frames import Frame

__all__ = ["Connection"]

CLIENT_LIMIT = 16 * 1024**3
"""The largest frame in bytes that a client may send."""

MOST_READS = 16
"""So often a stream is read before others have their turn."""


class ConnectionEvents(Protocol):
    """Who wants to hear of connections."""

    def attach(self, connection: Connection, frame: Frame, now: float) -> ClientSession | None:
        """A client wants a session."""

    def administer(self, connection: Connection, frame: Frame) -> None:
        """An administrator wants to know something, or wants something done."""

    def frames(self, client: ClientSession, frames: list[Frame], size: int, now: float) -> None:
        """A client of a session has sent something."""

    def advanced(self, connection: Connection) -> None:
        """A stranger has said something."""

    def known(self, connection: Connection) -> None:
        """A peer has proved who it is."""

    def goodbye(self, connection: Connection) -> None:
        """A client has said that it needs us no more."""

    def broke_the_rules(self, client: ClientSession) -> None:
        """A client has sent nonsense, and was left."""

    def cut(self, connection: Connection) -> None:
        """A stream has ended without a goodbye."""

    def detached(self, client: ClientSession) -> None:
        """A session has lost its link."""

    def closed(self, connection: Connection) -> None:
        """A connection is no more."""


class Connection:
    """
    One stream: first a stranger's, then the link of a session or an administrator's.

    Args:
        context: The server's.
        events: Hears of it.
        stream: The stream.
        peer: What to call the other end.
        mechanism: Makes this end's part in the handshake.
        silence: Seconds without a byte after which the peer counts as dead.
    """

    __slots__ = (
        "_context",
        "_events",
        "client",
        "closing",
        "link",
        "open",
        "peer",
        "room",
        "stranger",
        "stream",
        "timer",
        "writing",
    )

    def __init__(
        self,
        context: Context,
        events: ConnectionEvents,
        stream: SocketStream | TLSStream,
        peer: str,
        mechanism: Mechanism,
        silence: float,
    ) -> None:
        loop = context.loop
        self._context = context
        self._events = events
        self.stream = stream
        self.peer = peer
        self.client: ClientSession | None = None
        self.open = True
        self.closing = False
        self.writing = False
        self.stranger = True
        now = time.monotonic()
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
        link, stream, log = self.link, self.stream, self._context.log
        try:
            for _ in range(MOST_READS):
                buffer = link.get_buffer()
                count = stream.receive(buffer)
                if self.stranger and count:
                    self._events.advanced(self)
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
                        self._events.advanced(self)
                if frames:
                    self._received(frames, count, now)
                if self._is_closed():
                    return
                if link.state is LinkState.CLOSED:
                    log.write("debug", f"< {self.peer} says goodbye")
                    self.close()
                    self._events.goodbye(self)
                    return
                if not full:
                    break
        except AuthenticationFailed as exc:
            log.refusal(f"! {self.peer} was refused: {exc.reason}")
            self._broke_the_rules()
        except FarmError as exc:
            log.write("info", f"! {self.peer}: {exc}")
            self._broke_the_rules()
        except OSError as exc:
            self.lost(f"the connection broke: {exc}")
        except Exception:
            # A defect of ours, and still no reason to drop everybody else's work.
            log.exception(f"! {self.peer} sent what could not be handled")
            self._broke_the_rules()
        else:
            if self.client is None:
                # Later on what comes only puts the deadline off, and the timer looks again.
                self.timer.at(link.deadline())
            if link.outbox.size:
                self._context.round.connections[self] = None
            if stream.holding and self.open:
                self._context.loop.post(self._readable)

    def _is_known(self) -> None:
        self.stranger = False
        self._events.known(self)
        self._context.log.write("info", f"= {self.peer} is {named(self.principal())}")

    def principal(self) -> Principal:
        """Return who the peer has proved to be, in all that it can be told from others by."""
        return self.link.principal, self.stream.certificate_name()

    def _broke_the_rules(self) -> None:
        """Part with a peer that sent nonsense: what it will say next cannot be better."""
        client = self.client
        self.finish()
        if client is not None:
            self._events.broke_the_rules(client)

    def _is_closed(self) -> bool:
        return not self.open

    def _received(self, frames: list[Frame], size: int, now: float) -> None:
        client = self.client
        while client is None:
            frame, *frames = frames
            if frame.kind == Kind.ATTACH:
                client = self.client = self._events.attach(self, frame, now)
            elif frame.kind == Kind.ADMIN:
                self._events.administer(self, frame)
            else:
                raise RemoteProtocolError(f"kind {frame.kind} came before ATTACH")
            if not frames:
                return
        self._events.frames(client, frames, size, now)

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
            self._context.log.write("error", f"! {self.peer}: {exc}")
            outbox.clear()
            self._broke_the_rules()
            return
        except OSError as exc:
            # It may have said why before it closed: read that first, in a later round.
            outbox.clear()
            self._context.loop.post(self._readable)
            self._context.log.write("debug", f"! {self.peer}: {exc}")
        writing = outbox.size > 0 and not stream.waiting
        if writing != self.writing:
            self.writing = writing
            self._context.loop.want(stream.fileno(), write=writing)
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

    def refuse(self, reason: str) -> None:
        """Say why there is nothing for this peer here, and part."""
        reply = {"error": reason}
        self.link.outbox.put(make_frame(Kind.REPLY, body=encode_fields(reply)))
        self.finish()

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
            level = "info" if self.client is None else "debug"
            self._context.log.write(level, f"= {self.peer}: {reason}")
            self.close()
            self._events.cut(self)

    def close(self) -> None:
        """Close the stream, at once."""
        if self.open:
            self.open = False
            self._detach()
            self.timer.close()
            self._context.loop.forget(self.stream.fileno())
            self.stream.close()
            self._context.round.connections.pop(self, None)
            self._events.closed(self)

    def _detach(self) -> None:
        client = self.client
        if client is not None and client.connection is self:
            client.connection = None
            client.wire.link_lost(time.monotonic())
            client.schedule()
            self._events.detached(client)
