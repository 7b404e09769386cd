"""
A link: one byte stream between two peers that have proved who they are.

::

    client                                   server
      | preamble, HELLO (protocols, nonce)    -> |
      | <- preamble, HELLO (protocols, nonce)    |
      | PROOF                                 -> |   a stranger gets no further than here
      | <- PROOF, or REFUSED with the reason     |   in several rounds, with some mechanisms
      | ATTACH or ADMIN, then frames          <->|

What a PROOF holds is the mechanism's business; the server's last one has 1 as its ``aux``. Proofs
cover both HELLO bodies, see :func:`remote_executor.wire.auth.binding_of`.

After that a link only watches that the peer is alive. Both ends ping every few seconds, also while
they hear the other well: whoever writes a frame that takes minutes must hear meanwhile that the
peer lives. A peer that was not heard for a while counts as dead. What the frames mean is the
business of the session above.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from remote_executor.errors import (
    AuthenticationFailed,
    ProtocolMismatch,
    Refused,
    RemoteProtocolError,
)
from remote_executor.printable import printable
from remote_executor.wire.auth import binding_of
from remote_executor.wire.frames import HEADER, Frame, FrameReader, make_frame
from remote_executor.wire.messages import PROTOCOL, Kind, decode_fields, encode_fields
from remote_executor.wire.outbox import Outbox
from remote_executor.wire.seals import SealedOutbox, SealedReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.wire.auth import Mechanism
    from remote_executor.wire.frames import Allocate

__all__ = ["PREAMBLE", "Link", "LinkState", "place_of"]

PREAMBLE = b"\x89rexec\r\n"
"""The first bytes in each direction. Like PNG's: broken by whatever is not a clean byte stream."""

TLS_BEGINS = b"\x16"
"""The first byte of a TLS stream, in either direction."""

NONCE_BYTES = 32
STRANGER_BYTES = 4 * 1024
"""How many bytes are read at a time from a peer that has proved nothing yet."""

MOST_ROUNDS = 16
ACCEPTED = 1

STRANGER_WORDS = 300
"""How many characters of what such a peer says get into errors and logs."""

PING_SECONDS = 4.0
HANDSHAKE_SECONDS = 10.0

LAST_OF_LINK = int(Kind.GOODBYE)
"""A plain int: each frame's kind is compared with it."""


class LinkState(enum.Enum):
    """How far the handshake is."""

    HELLO = "hello"
    PROOF = "proof"
    OPEN = "open"
    CLOSED = "closed"


class Link:
    """
    The handshake and the upkeep of one byte stream.

    Receive into :meth:`get_buffer`, call :meth:`received`, write ``outbox``, and call :meth:`tick`
    when :meth:`deadline` has come.

    Args:
        role: "client" or "server".
        peer: What to call the peer in errors, such as its address.
        mechanism: This end's part in the authentication.
        now: Monotonic time in seconds.
        nonce: 32 fresh random bytes, never used before.
        channel: Gives what names the stream at both ends, such as the fingerprint of the server's
            certificate; asked once the peer's HELLO is there.
        place: A client's: names the session that it comes back to, see :func:`place_of`.
        limit: The largest frame in bytes that is accepted once the peer is known.
        silence: Seconds without a byte from the peer after which it counts as dead.
        allocate: As for :class:`FrameReader`; called only once the peer is known.
    """

    def __init__(
        self,
        role: str,
        peer: str,
        mechanism: Mechanism,
        now: float,
        *,
        nonce: bytes,
        limit: int,
        silence: float = 15.0,
        allocate: Allocate | None = None,
        channel: Callable[[], bytes] = bytes,
        place: str = "",
    ) -> None:
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
        self.role = role
        self.peer = peer
        self.state = LinkState.HELLO
        self.outbox = Outbox()
        self.silence = silence
        self.round_trip = 0.0
        """Seconds a message takes there and back: the last ping, and before it the proofs."""
        self._limit = limit
        self._mechanism = mechanism
        self._channel = channel
        self._binding = b""
        self._rounds = 0
        self._heard = now
        self._proved = now
        self._ping_at = now
        self._since = now
        self._greeted = False
        self._said = bytearray()
        """What came in the handshake and was not looked at yet."""
        self._early = memoryview(bytearray(STRANGER_BYTES))
        self._allocate = allocate
        self.reader: FrameReader | SealedReader
        self.reader = self._reader = FrameReader(limit)
        self.place = place
        """Names the session that the client comes back to, as it says in its HELLO; or empty."""
        hello = {"protocols": [PROTOCOL, PROTOCOL], "auth": mechanism.name, "nonce": nonce.hex()}
        if place:
            hello["place"] = place
        self._our_hello = encode_fields(hello)
        self.outbox.put(Frame(0, 0, 0, 0, PREAMBLE, 0))
        self.outbox.put(make_frame(Kind.HELLO, body=self._our_hello))

    def __repr__(self) -> str:
        return f"<Link {self.role} to {self.peer}: {self.state.value}>"

    # ---------------------------------------------------------------- receiving

    def get_buffer(self) -> memoryview:
        """Return memory to receive into: never empty."""
        if self.state is LinkState.OPEN:
            return self.reader.get_buffer()
        return self._early  # once the link is closed, nobody will look at it

    def received(self, count: int, now: float) -> list[Frame]:
        """
        Take note of ``count`` bytes in the buffer; return the frames for the session above.

        What comes after the end (a refusal, either side's goodbye) is dropped.

        Raises:
            AuthenticationFailed: If the peer refused us, or its own proof is wrong.
            ProtocolMismatch: If there is no protocol that both ends speak.
            RemoteProtocolError: If the peer is something else, or broken.

        After each of these the link is closed: write what is in ``outbox`` (it may tell the peer
        why) and close the stream.
        """
        if self.state is LinkState.CLOSED:
            return []
        self._heard = now
        try:
            return self._take(count, now)
        except Exception:
            self.state = LinkState.CLOSED
            raise

    def _take(self, count: int, now: float) -> list[Frame]:
        if self.state is not LinkState.OPEN:
            return self._shake(count, now)
        frames = self.reader.filled(count)
        for frame in frames:
            if frame.kind <= LAST_OF_LINK:
                break
        else:
            return frames
        return [frame for frame in frames if not self._upkeep(frame, now)]

    # ---------------------------------------------------------------- the handshake

    def _shake(self, count: int, now: float) -> list[Frame]:
        """Take bytes of the handshake; what comes after its end is the reader's."""
        self._said += self._early[:count]
        if not self._greeted:
            self._greeted = self._take_preamble()
        if not self._greeted:
            return []
        while self.state is not LinkState.OPEN:
            frame = self._cut_frame()
            if frame is None:
                return []
            self._handshake(frame, now)
        frames: list[Frame] = []
        rest, self._said = memoryview(self._said), bytearray()
        while rest:
            buffer = self.get_buffer()
            size = min(len(buffer), len(rest))
            buffer[:size] = rest[:size]
            rest = rest[size:]
            if self.state is LinkState.OPEN:  # else it said goodbye
                frames += self._take(size, now)
        return frames

    def _take_preamble(self) -> bool:
        """Cut the preamble off; return whether all of it was there."""
        start = bytes(self._said[:16])
        if not PREAMBLE.startswith(start[: len(PREAMBLE)]):
            if start[:1] == TLS_BEGINS:
                words = f"speaks TLS, and the {self.role} plain text: see tls="
            else:
                words = f"is not a remote_executor {self._other()}: it begins with {start!r}"
            raise RemoteProtocolError(f"{self.peer} {words}")
        if len(start) < len(PREAMBLE):
            return False
        del self._said[: len(PREAMBLE)]
        return True

    def _cut_frame(self) -> Frame | None:
        """Cut the next message of the handshake off, if all of it is there."""
        said = self._said
        if len(said) < HEADER.size:
            return None
        kind, flags, count, aux, id, size = HEADER.unpack_from(said)
        total = HEADER.size + size
        most = self._mechanism.most_bytes
        if total > most or count or flags:
            raise RemoteProtocolError(
                f"{self.peer} sent a frame of kind {kind} in the handshake ({self.state.value}) "
                f"that says {total} bytes and {count} buffers: the limit is {most}, and none"
            )
        if len(said) < total:
            return None
        raw = bytes(said[:total])
        del said[:total]
        return Frame(kind, flags, aux, id, raw, HEADER.size)

    def _other(self) -> str:
        return "server" if self.role == "client" else "client"

    def _handshake(self, frame: Frame, now: float) -> None:
        kind = frame.kind
        if kind == Kind.HELLO and self.state is LinkState.HELLO:
            self._hello(frame)
        elif kind == Kind.PROOF and self.state is LinkState.PROOF:
            self._proof(frame, now)
        elif kind == Kind.REFUSED and self.role == "client":
            fields = decode_fields(frame.body, reason=str, error=str)
            if fields["error"] == "auth":
                raise AuthenticationFailed(self.peer, _words(fields["reason"]))
            raise ProtocolMismatch(self.peer, _words(fields["reason"]))
        else:
            raise RemoteProtocolError(
                f"{self.peer} sent a message of kind {kind} in the handshake ({self.state.value})"
            )

    def _hello(self, frame: Frame) -> None:
        fields = decode_fields(frame.body, protocols=list, auth=str, nonce=str)
        low, high = (*fields["protocols"], 0, 0)[:2]
        if type(low) is not int or type(high) is not int:
            raise RemoteProtocolError(f"{self.peer} names no range of protocols")
        if not low <= PROTOCOL <= high:
            text = (
                f"the {self.role} speaks protocol {PROTOCOL}, the {self._other()} "
                f"{_words(f'{low} to {high}')}: install versions of remote_executor that have one "
                "in common"
            )
            self._refuse("protocol", text)
            raise ProtocolMismatch(self.peer, text)
        if fields["auth"] != self._mechanism.name:
            text = (
                f"the {self.role} authenticates by {self._mechanism.name!r}, "
                f"the {self._other()} by {_words(fields['auth'])!r}: see auth="
            )
            self._refuse("auth", text)
            raise AuthenticationFailed(self.peer, text)
        place = fields.get("place")
        if self.role == "server" and isinstance(place, str):
            self.place = place
        hellos = self._our_hello, bytes(frame.body)
        if self.role == "server":
            hellos = hellos[::-1]
        self._binding = binding_of(self._channel(), *hellos)
        self.state = LinkState.PROOF
        if self.role == "client":
            self._put_proof(self._step(b""))

    def _put_proof(self, said: bytes, accepted: bool = False) -> None:
        self._proved = self._heard
        self.outbox.put(make_frame(Kind.PROOF, body=said, aux=ACCEPTED if accepted else 0))

    def _proof(self, frame: Frame, now: float) -> None:
        self._rounds += 1
        if self._rounds > MOST_ROUNDS:
            raise RemoteProtocolError(f"{self.peer} makes no end of the handshake")
        mechanism = self._mechanism
        answer = b"" if mechanism.done else self._step(bytes(frame.body))
        if self.role == "server":
            self._put_proof(answer, mechanism.done)
            if mechanism.done:
                self._open(now)
        elif frame.aux != ACCEPTED:
            self._put_proof(answer)
        elif mechanism.done:
            self.round_trip = now - self._proved
            self._open(now)
        else:
            reason = "the server ends the handshake before it has proved who it is"
            raise AuthenticationFailed(self.peer, reason)

    def _step(self, said: bytes) -> bytes:
        """Have the mechanism take a message and answer."""
        mechanism = self._mechanism
        cause: Exception | None
        try:
            return mechanism.step(said, self._binding)
        except Refused as exc:
            cause, reason = exc, exc.reason
        except Exception as exc:
            cause = exc
            words = f"{type(exc).__name__}: {exc}"
            reason = f"the {self.role}'s mechanism {mechanism.name!r} failed: {words}"
        reason = _words(reason)
        self._refuse("auth", reason)
        try:
            raise AuthenticationFailed(self.peer, reason) from cause
        finally:
            cause = None  # its traceback refers to this frame

    def _open(self, now: float) -> None:
        """The peer is known: let frames through."""
        self.state = LinkState.OPEN
        self._ping_at = now + self._ping_pause()
        reader, mechanism = self._reader, self._mechanism
        reader.open_up(self._limit, self._allocate)
        if mechanism.wraps:
            self.reader = SealedReader(self.peer, mechanism.unwrap, reader)
            before = b""
            while self.outbox.size:
                piece = b"".join(self.outbox.chunk())
                self.outbox.sent(len(piece))
                before += piece
            self.outbox = SealedOutbox(self.peer, mechanism.wrap, before)

    def _refuse(self, error: str, reason: str) -> None:
        if self.role == "server":
            self.outbox.put(
                make_frame(Kind.REFUSED, body=encode_fields({"error": error, "reason": reason}))
            )

    @property
    def peer_name(self) -> str:
        """Who the peer has proved to be; empty if the mechanism knows no names."""
        return _words(self._mechanism.peer_name)

    @property
    def principal(self) -> str:
        """Who the peer has proved to be, whole, to be compared; not to be shown."""
        return str(self._mechanism.peer_name or "")

    @property
    def segments(self) -> list[Any]:
        """Takes the shared segments whose descriptors come in, before their frames."""
        return self._reader.segments

    @property
    def lost(self) -> int:
        """How many frames have come without the descriptor of their segment; may be set to 0."""
        return self._reader.lost

    @lost.setter
    def lost(self, count: int) -> None:
        self._reader.lost = count

    @property
    def wraps(self) -> bool:
        """Whether all bytes go through the mechanism, so that no descriptor can go with them."""
        return self._mechanism.wraps

    # ------------------------------------------------------------------- upkeep

    @property
    def heard(self) -> float:
        """When the last byte came, in monotonic seconds."""
        return self._heard

    def _upkeep(self, frame: Frame, now: float) -> bool:
        """Handle a frame of the open link itself; return False if it is for the session."""
        kind = frame.kind
        if self.state is LinkState.CLOSED:
            return True  # it came in one read with the goodbye before it
        if kind == Kind.PING:
            self.outbox.put(make_frame(Kind.PONG, frame.id))
        elif kind == Kind.PONG:
            took = max(0.0, now - frame.id / 1e6)
            # One that waited behind a large answer says little about the way.
            self.round_trip = min(took, 2 * self.round_trip) if self.round_trip else took
        elif kind == Kind.GOODBYE:
            self.state = LinkState.CLOSED
        elif kind <= Kind.REFUSED:
            raise RemoteProtocolError(f"{self.peer} began a second handshake")
        else:
            return False
        return True

    def say_goodbye(self) -> None:
        """Tell the peer that the end of the stream is meant."""
        if self.state is LinkState.OPEN:
            self.outbox.put(make_frame(Kind.GOODBYE))
            self.state = LinkState.CLOSED

    def deadline(self) -> float:
        """When :meth:`tick` wants to be called next, in monotonic seconds."""
        if self.state is LinkState.HELLO or self.state is LinkState.PROOF:
            return self._since + HANDSHAKE_SECONDS
        if self.state is LinkState.OPEN:
            return min(self._ping_at, self._heard + self.silence)
        return self._heard + self.silence

    def tick(self, now: float) -> str | None:
        """Do what is due. Return why the peer counts as dead, or None while it lives."""
        if self.state is LinkState.HELLO or self.state is LinkState.PROOF:
            if now >= self._since + HANDSHAKE_SECONDS:
                return f"no handshake within {HANDSHAKE_SECONDS:.0f} s"
        elif now >= self._heard + self.silence:
            return f"nothing heard for {now - self._heard:.0f} s"
        elif self.state is LinkState.OPEN and now >= self._ping_at:
            self._ping_at = now + self._ping_pause()
            # Bytes that wait to be written will tell the peer as well that we live.
            if not self.outbox.size:
                self.outbox.put(make_frame(Kind.PING, int(now * 1e6)))
        return None

    def _ping_pause(self) -> float:
        return min(PING_SECONDS, self.silence / 3)


def place_of(session: str) -> str:
    """
    Return what names a session to its server before anything is proved.

    It gives its client a place among those who have proved nothing yet, and no right whatever. The
    session's own id is not said in the open.
    """
    from hashlib import sha256

    return sha256(b"place of " + session.encode()).hexdigest()[:32]


def _words(text: str) -> str:
    """Return what a stranger says, fit to be shown: short, and nothing that moves a cursor."""
    return printable(text, STRANGER_WORDS)
