"""
A link: one byte stream between two peers that have proved who they are.

::

    client                                   server
      | preamble, HELLO (protocols, opening)  -> |
      | <- preamble, HELLO (protocols, opening)  |
      | PROOF                                 -> |   a stranger gets no further than here
      | <- PROOF, or REFUSED with the reason     |
      | ATTACH or ADMIN, then frames          <->|

After that a link only watches that the peer is alive. Both ends ping every few seconds, also while
they hear the other well: whoever writes a frame that takes minutes must hear meanwhile that the
peer lives. A peer that was not heard for a while counts as dead. What the frames mean is the
business of the session above.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from remote_executor.errors import AuthenticationFailed, ProtocolMismatch, RemoteProtocolError
from remote_executor.wire.frames import Frame, FrameReader, make_frame
from remote_executor.wire.messages import PROTOCOL, Kind, decode_fields, encode_fields
from remote_executor.wire.outbox import Outbox

if TYPE_CHECKING:
    from remote_executor.wire.auth import Mechanism
    from remote_executor.wire.frames import Allocate

__all__ = ["PREAMBLE", "Link", "LinkState"]

PREAMBLE = b"\x89rexec\r\n"
"""The first bytes in each direction. Like PNG's: broken by whatever is not a clean byte stream."""

STRANGER_LIMIT = 16 * 1024
"""The largest frame in bytes from a peer that has proved nothing yet."""

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
        limit: int,
        silence: float = 15.0,
        allocate: Allocate | None = None,
    ) -> None:
        self.role = role
        self.peer = peer
        self.state = LinkState.HELLO
        self.outbox = Outbox()
        self.silence = silence
        self.round_trip = 0.0
        """Seconds a message takes there and back: the last ping, and before it the proofs."""
        self._limit = limit
        self._mechanism = mechanism
        self._peer_opening = ""
        self._heard = now
        self._proved = now
        self._ping_at = now
        self._since = now
        self._preamble = bytearray()
        self._allocate = allocate
        # Plain memory for strangers: no shared segment is made for them.
        self.reader = FrameReader(STRANGER_LIMIT)
        hello = make_frame(
            Kind.HELLO,
            body=encode_fields(
                {
                    "protocols": [PROTOCOL, PROTOCOL],
                    "auth": mechanism.name,
                    "opening": mechanism.opening(),
                }
            ),
        )
        self.outbox.put(Frame(0, 0, 0, 0, PREAMBLE, 0))
        self.outbox.put(hello)

    def __repr__(self) -> str:
        return f"<Link {self.role} to {self.peer}: {self.state.value}>"

    # ---------------------------------------------------------------- receiving

    def get_buffer(self) -> memoryview:
        """Return memory to receive into: never empty."""
        if self.state is LinkState.CLOSED:
            return memoryview(bytearray(4096))  # nobody will look at it
        return self.reader.get_buffer()

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
        if len(self._preamble) < len(PREAMBLE):
            count = self._take_preamble(count)
            if not count:
                return []
        frames = self.reader.filled(count)
        if self.state is LinkState.OPEN:
            for frame in frames:
                if frame.kind <= LAST_OF_LINK:
                    break
            else:
                return frames
        return [frame for frame in frames if not self._upkeep(frame, now)]

    def _take_preamble(self, count: int) -> int:
        """Cut the preamble off the bytes just received; return how many are left."""
        buffer = self.reader.get_buffer()
        wanted = min(len(PREAMBLE) - len(self._preamble), count)
        self._preamble += buffer[:wanted]
        if not PREAMBLE.startswith(self._preamble):
            start = bytes(self._preamble + buffer[wanted:count])[:16]
            raise RemoteProtocolError(
                f"{self.peer} is not a remote_executor {self._other()}: it begins with {start!r}"
            )
        left = count - wanted
        buffer[:left] = bytes(buffer[wanted:count])
        return left

    def _other(self) -> str:
        return "server" if self.role == "client" else "client"

    def _upkeep(self, frame: Frame, now: float) -> bool:
        """Handle a frame of the link itself; return False if it is for the session."""
        kind = frame.kind
        if self.state is LinkState.CLOSED:
            return True  # it came in one read with the goodbye before it
        if self.state is LinkState.OPEN:
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
        return True

    def _hello(self, frame: Frame) -> None:
        fields = decode_fields(frame.body, protocols=list, auth=str, opening=str)
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
                f"the {self._other()} by {_words(fields['auth'])!r}"
            )
            self._refuse("auth", text)
            raise AuthenticationFailed(self.peer, text)
        self._peer_opening = fields["opening"]
        self.state = LinkState.PROOF
        if self.role == "client":
            self._put_proof()

    def _put_proof(self) -> None:
        self._proved = self._heard
        proof = self._mechanism.proof(self._peer_opening)
        self.outbox.put(make_frame(Kind.PROOF, body=encode_fields({"proof": proof})))

    def _proof(self, frame: Frame, now: float) -> None:
        fields = decode_fields(frame.body, proof=str)
        if not self._mechanism.verify(self._peer_opening, fields["proof"]):
            if self.role == "client":
                text = "the server does not know our token: it may be an impostor"
            else:
                text = (
                    "the client's token is not the server's: compare the token files "
                    "(REMOTE_EXECUTOR_TOKEN_FILE) of both machines"
                )
            self._refuse("auth", text)
            raise AuthenticationFailed(self.peer, text)
        if self.role == "server":
            self._put_proof()
        else:
            self.round_trip = now - self._proved
        self.state = LinkState.OPEN
        self._ping_at = now + self._ping_pause()
        self.reader.open_up(self._limit, self._allocate)

    def _refuse(self, error: str, reason: str) -> None:
        if self.role == "server":
            self.outbox.put(
                make_frame(Kind.REFUSED, body=encode_fields({"error": error, "reason": reason}))
            )

    # ------------------------------------------------------------------- upkeep

    @property
    def heard(self) -> float:
        """When the last byte came, in monotonic seconds."""
        return self._heard

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


def _words(text: str) -> str:
    """Return what a stranger says, fit to be shown: short, and nothing that moves a cursor."""
    return "".join(c if c.isprintable() else "?" for c in text[:STRANGER_WORDS])
