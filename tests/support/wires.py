"""Move bytes between frames, readers, outboxes and links: whole, one at a time, or as one likes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_executor.wire.auth import TokenAuth
from remote_executor.wire.link import PREAMBLE, Link, LinkState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from remote_executor.wire.auth import Mechanism
    from remote_executor.wire.frames import Frame, FrameReader
    from remote_executor.wire.outbox import Outbox

__all__ = [
    "LIMIT",
    "SECRET",
    "Talk",
    "bytes_of",
    "client_link",
    "drain",
    "feed",
    "nonce_of",
    "pieces_of",
    "plain",
    "server_link",
    "spoken",
    "token_of",
]

SECRET = b"s" * 32
LIMIT = 1024 * 1024


def bytes_of(*frames: Frame) -> bytes:
    """Return frames as they look on the wire."""
    return b"".join(bytes(part) for frame in frames for part in frame.parts())


def plain(frame: Frame) -> tuple[int, int, int, int, bytes, list[bytes]]:
    """Return all that a frame says, fit to be compared."""
    buffers = [bytes(buffer) for buffer in frame.buffers]
    return frame.kind, frame.flags, frame.aux, frame.id, bytes(frame.body), buffers


def pieces_of(data: bytes, steps: int | Iterable[int] | None) -> Iterator[memoryview]:
    """Cut bytes into pieces: all in one (None), of one length, or of the lengths that come."""
    view = memoryview(data)
    if steps is None:
        steps = max(1, len(view))
    lengths = iter(steps) if not isinstance(steps, int) else None
    while view:
        length = steps if lengths is None else max(1, next(lengths, len(view)))
        yield view[:length]
        view = view[length:]


def feed(
    taker: FrameReader | Link,
    data: bytes,
    steps: int | Iterable[int] | None = None,
    now: float = 0.0,
) -> list[Frame]:
    """Have a reader or a link receive ``data``; return the frames that it gives."""
    frames = []
    for piece in pieces_of(data, steps):
        while len(piece):
            buffer = taker.get_buffer()
            assert len(buffer), "get_buffer() must never be empty"
            count = min(len(buffer), len(piece))
            buffer[:count] = piece[:count]
            piece = piece[count:]
            if isinstance(taker, Link):
                frames += taker.received(count, now)
            else:
                frames += taker.filled(count)
    return frames


def drain(outbox: Outbox, most: int | None = None) -> bytes:
    """Write all that waits in an outbox, ``most`` bytes with each system call."""
    data = b""
    while outbox.size:
        chunk = b"".join(bytes(part) for part in outbox.chunk())
        written = chunk[:most]
        assert written, "an outbox that is not empty must give a chunk"
        outbox.sent(len(written))
        data += written
    return data


def token_of(role: str, secret: bytes = SECRET) -> TokenAuth:
    """Return an end's part of a token handshake."""
    return TokenAuth(role, (secret,))


def nonce_of(role: str) -> bytes:
    """Return the nonce that an end uses if a test says nothing else."""
    return role[:1].encode() * 32


def client_link(mechanism: Mechanism | None = None, now: float = 0.0, **options: object) -> Link:
    """Return the client's end of a link."""
    return _link("client", "server.example:11111", mechanism, now, options)


def server_link(mechanism: Mechanism | None = None, now: float = 0.0, **options: object) -> Link:
    """Return the server's end of a link."""
    return _link("server", "192.0.2.7:40000", mechanism, now, options)


def _link(
    role: str, peer: str, mechanism: Mechanism | None, now: float, options: dict[str, object]
) -> Link:
    options.setdefault("limit", LIMIT)
    options.setdefault("nonce", nonce_of(role))
    return Link(role, peer, mechanism or token_of(role), now, **options)  # type: ignore[arg-type]


class Talk:
    """
    A client's and a server's link, and the wire between them.

    ``heard`` has what each end gave to its session, as :func:`plain` shows it; ``said`` has all
    bytes that each end wrote.
    """

    def __init__(self, client: Link | None = None, server: Link | None = None) -> None:
        self.ends = {"client": client or client_link(), "server": server or server_link()}
        self.heard: dict[str, list[tuple[object, ...]]] = {"client": [], "server": []}
        self.said = {"client": b"", "server": b""}

    @property
    def client(self) -> Link:
        return self.ends["client"]

    @property
    def server(self) -> Link:
        return self.ends["server"]

    def pass_on(self, role: str, steps: int | None = None, now: float = 0.0) -> int:
        """Bring what ``role`` has to say to the other end; return how many bytes that was."""
        data = drain(self.ends[role].outbox)
        self.said[role] += data
        other = "server" if role == "client" else "client"
        self.heard[other] += map(plain, feed(self.ends[other], data, steps, now))
        return len(data)

    def run(self, steps: int | None = None, now: float = 0.0) -> Talk:
        """Pass on until both ends have nothing more to say."""
        while self.pass_on("client", steps, now) + self.pass_on("server", steps, now):
            pass
        return self

    @property
    def is_open(self) -> bool:
        return {LinkState.OPEN} == {link.state for link in self.ends.values()}


def spoken(*frames: Frame) -> bytes:
    """Return what a peer says that opens with a preamble and goes on with ``frames``."""
    return PREAMBLE + bytes_of(*frames)
