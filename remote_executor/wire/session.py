"""
A session: what outlives a cut link.

Messages of a session are numbered by counting, in each direction: the n-th frame sent is number n,
so no number travels with it. The receiver says from time to time how many it has had (ACK); the
sender keeps what is not acknowledged. When a link is cut, both ends keep the session; on the next
link each says how many frames it has had, and the other sends the rest again. Nothing is lost, and
nothing comes twice.

::

    ATTACHED --link_lost--> DETACHED --attach--> ATTACHED
                               | grace over
                               v
                            EXPIRED
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING

from remote_executor.errors import LocalProtocolError, RemoteProtocolError
from remote_executor.wire.frames import make_frame, total_size
from remote_executor.wire.messages import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_executor.wire.frames import Frame
    from remote_executor.wire.outbox import Outbox

__all__ = ["Session", "SessionState"]

ACK_FRAMES = 128
ACK_BYTES = 1024 * 1024
ACK_SECONDS = 0.25


class SessionState(enum.Enum):
    """Where a session stands."""

    ATTACHED = "attached"
    DETACHED = "detached"
    EXPIRED = "expired"


class Session:
    """
    Number, acknowledge and send again.

    Call :meth:`send` for what goes out, :meth:`received` for what came in, :meth:`tick` when
    :meth:`deadline` has come; what is to be written goes to the attached link's outbox.

    Args:
        now: Monotonic time in seconds.
        grace: Seconds a session survives without a link.
    """

    __slots__ = (
        "_ack_at",
        "_acked_received",
        "_expires",
        "_sent",
        "_unacked",
        "_unseen_bytes",
        "grace",
        "outbox",
        "received_count",
        "state",
        "unacked_bytes",
    )

    def __init__(self, now: float, grace: float) -> None:
        self.grace = grace
        self.outbox: Outbox | None = None
        """Where bytes for the attached link go; None without a link."""
        self.state = SessionState.DETACHED
        self.received_count = 0
        """How many numbered frames have come in."""
        self.unacked_bytes = 0
        """Bytes kept because the peer has not acknowledged them."""
        self._sent = 0
        self._unacked: deque[Frame] = deque()
        self._acked_received = 0
        self._unseen_bytes = 0
        self._ack_at: float | None = None
        self._expires: float | None = now + grace

    def __repr__(self) -> str:
        return (
            f"<Session {self.state.value} sent={self._sent} unacked={len(self._unacked)} "
            f"received={self.received_count}>"
        )

    # ------------------------------------------------------------------ sending

    def send(self, frame: Frame) -> None:
        """
        Number a frame, keep it until it is acknowledged, and write it if there is a link.

        An expired session drops it: there is nobody left whom it could reach.
        """
        if self.state is SessionState.EXPIRED:
            return
        self._sent += 1
        self._unacked.append(frame)
        self.unacked_bytes += frame.size
        if self.outbox is not None:
            self.outbox.put(frame)

    def send_all(self, frames: Sequence[Frame]) -> None:
        """As :meth:`send`, for many frames in a fraction of the time."""
        if self.state is SessionState.EXPIRED:
            return
        self._sent += len(frames)
        self._unacked.extend(frames)
        self.unacked_bytes += total_size(frames)
        if self.outbox is not None:
            self.outbox.put_all(frames)

    def acknowledged(self, count: int) -> list[Frame]:
        """
        Drop what the peer has had, and return it.

        Args:
            count: How many frames the peer has had since the session began.

        Raises:
            RemoteProtocolError: If that many were never sent, or fewer than it said before.
        """
        dropped = count - (self._sent - len(self._unacked))
        if not 0 <= dropped <= len(self._unacked):
            raise RemoteProtocolError(
                f"the peer acknowledges {count} frames of {self._sent}, "
                f"{len(self._unacked)} of them open"
            )
        unacked = self._unacked
        frames = [unacked.popleft() for _ in range(dropped)]
        self.unacked_bytes -= total_size(frames)
        return frames

    def find(self, kind: int, id: int) -> Frame | None:
        """Return the newest frame of that kind and id that the peer has not acknowledged."""
        for frame in reversed(self._unacked):
            if frame.kind == kind and frame.id == id:
                return frame
        return None

    # ---------------------------------------------------------------- receiving

    def received(self, frames: int, size: int, now: float) -> None:
        """
        Count numbered frames that came in by the attached link, and acknowledge them soon.

        Args:
            frames: How many.
            size: Their bytes, buffers included.
            now: Monotonic time in seconds.
        """
        if self.state is SessionState.EXPIRED:
            return
        self.received_count += frames
        self._unseen_bytes += size
        if (
            self.received_count - self._acked_received >= ACK_FRAMES
            or self._unseen_bytes >= ACK_BYTES
        ):
            self._acknowledge()
        elif self._ack_at is None:
            self._ack_at = now + ACK_SECONDS

    def _acknowledge(self) -> None:
        self._acked_received = self.received_count
        self._unseen_bytes = 0
        self._ack_at = None
        if self.outbox is not None:
            self.outbox.put(make_frame(Kind.ACK, self.received_count))

    # ------------------------------------------------------------------- links

    def attach(self, outbox: Outbox, peer_received: int) -> None:
        """
        Take a new link into use and write again what the peer has not had.

        The link before, if there is one still, is out of use from now on: close it, and pass on
        nothing more that it brings, since the new one brings it again.

        Args:
            outbox: The link's.
            peer_received: How many of our frames the peer says it has had.

        Raises:
            RemoteProtocolError: If the peer claims frames that were never sent.
            LocalProtocolError: If the session has expired.
        """
        if self.state is SessionState.EXPIRED:
            raise LocalProtocolError("this session has expired")
        self.acknowledged(peer_received)
        self.state = SessionState.ATTACHED
        self.outbox = outbox
        self._expires = None
        self._acked_received = self.received_count
        self._unseen_bytes = 0
        self._ack_at = None
        outbox.put_all(self._unacked)

    def link_lost(self, now: float) -> None:
        """The link is gone; wait for the next one for at most the grace."""
        if self.state is SessionState.ATTACHED:
            self.state = SessionState.DETACHED
            self.outbox = None
            self._expires = now + self.grace

    def deadline(self) -> float | None:
        """When :meth:`tick` wants to be called next, in monotonic seconds."""
        if self._expires is not None:
            return self._expires
        return self._ack_at

    def tick(self, now: float) -> None:
        """Do what is due: acknowledge, or expire."""
        if self._expires is not None:
            if now >= self._expires:
                self.state = SessionState.EXPIRED
                self._expires = self._ack_at = None
                self._unacked.clear()
                self.unacked_bytes = 0
        elif self._ack_at is not None and now >= self._ack_at:
            self._acknowledge()

    def check(self) -> None:
        """State what must always hold."""
        assert self._acked_received <= self.received_count
        assert len(self._unacked) <= self._sent
        assert self.unacked_bytes == sum(frame.size for frame in self._unacked)
        assert (self._expires is not None) == (self.state is SessionState.DETACHED)
        assert (self.outbox is not None) == (self.state is SessionState.ATTACHED)
        if self.state is SessionState.EXPIRED:
            assert not self._unacked
            assert self.deadline() is None
