"""
Streams whose bytes a mechanism changes on their way: encrypts, signs, compresses.

::

    offset  size  field
         0     4  size    bytes of the sealed record, little-endian
         4     .  record  what the mechanism made of some 256 KiB of frames at most

A link uses these two in place of its outbox and its reader once the peer is known, if its mechanism
wraps. Links whose mechanism does not are spared all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_executor.errors import AuthenticationFailed, RemoteProtocolError
from remote_executor.wire.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.wire.frames import Buffer, Frame, FrameReader

__all__ = ["MOST_SEALED", "RECORD", "SealedOutbox", "SealedReader"]

RECORD = 256 * 1024
"""How many bytes are wrapped at a time, at most."""

MOST_SEALED = 2 * RECORD
"""How long they may be when they are wrapped; checked before memory is taken."""


class SealedOutbox(Outbox):
    """
    An outbox that gives out wrapped records.

    Args:
        peer: What to call the peer in errors.
        wrap: Wraps some bytes.
        before: What must go out first as it is: the end of the handshake.
    """

    __slots__ = ("_peer", "_sealed", "_wrap")

    def __init__(self, peer: str, wrap: Callable[[bytes], bytes], before: bytes) -> None:
        super().__init__()
        self._peer = peer
        self._wrap = wrap
        self._sealed = memoryview(before)
        self.size = len(before)

    def clear(self) -> None:
        """Forget everything: the stream is gone."""
        super().clear()
        self._sealed = memoryview(b"")

    def chunk(self) -> list[Buffer]:
        """
        Return the record to write next, or the rest of the last one.

        Raises:
            AuthenticationFailed: If the mechanism cannot wrap it. Nothing can be sent any more.
        """
        if not self._sealed and self.size:
            pieces, room = [], RECORD
            for piece in super().chunk():  # the last of which may be a large one
                pieces.append(memoryview(piece)[:room])
                room -= len(pieces[-1])
            plain = b"".join(pieces)
            super().sent(len(plain))
            try:
                record = self._wrap(plain)
                if len(record) > MOST_SEALED:
                    raise ValueError(f"{len(plain)} bytes became {len(record)}")
            except Exception as exc:
                reason = f"what is to be sent cannot be wrapped: {type(exc).__name__}: {exc}"
                raise AuthenticationFailed(self._peer, reason) from exc
            self._sealed = memoryview(len(record).to_bytes(4, "little") + record)
            self.size += len(self._sealed)
        return [self._sealed]

    def sent(self, count: int) -> None:
        """Take note that ``count`` bytes of the last :meth:`chunk` were written."""
        self.size -= count
        self._sealed = self._sealed[count:]


class SealedReader:
    """
    A reader that unwraps records before it reads frames.

    Args:
        peer: What to call the peer in errors.
        unwrap: Unwraps a record.
        reader: Reads what was in it.
    """

    __slots__ = ("_into", "_length", "_peer", "_record", "_unwrap", "reader")

    def __init__(self, peer: str, unwrap: Callable[[bytes], bytes], reader: FrameReader) -> None:
        self.reader = reader
        self._peer = peer
        self._unwrap = unwrap
        self._length = memoryview(bytearray(4))
        self._record: memoryview | None = None
        self._into = self._length
        """Where the next bytes go: the rest of the length, or of the record."""

    def get_buffer(self) -> memoryview:
        """Return memory to receive into: never empty."""
        return self._into

    def filled(self, count: int) -> list[Frame]:
        """
        Take note that ``count`` bytes came into the buffer; return the frames now complete.

        Raises:
            RemoteProtocolError: If a record is empty or too long, or what is in it is no frame.
            ConnectionAbortedError: If it cannot be unwrapped: it was changed on the way, sent
                twice, or left out. The link is to be cut, and the session goes on over another.
        """
        self._into = self._into[count:]
        if self._into:
            return []
        if self._record is None:
            size = int.from_bytes(self._length, "little")
            if not 0 < size <= MOST_SEALED:
                raise RemoteProtocolError(
                    f"{self._peer} announces a wrapped record of {size} bytes, "
                    f"the limit is {MOST_SEALED}"
                )
            self._record = self._into = memoryview(bytearray(size))
            return []
        record, self._record, self._into = self._record, None, self._length
        try:
            plain = memoryview(self._unwrap(bytes(record)))
        except Exception as exc:
            raise ConnectionAbortedError(
                f"{self._peer} sent what cannot be unwrapped, or it was changed on the way: {exc}"
            ) from exc
        frames = []
        while plain:
            buffer = self.reader.get_buffer()
            size = min(len(buffer), len(plain))
            buffer[:size] = plain[:size]
            plain = plain[size:]
            frames += self.reader.filled(size)
        return frames
