"""
TLS 1.3 around a socket, without ever blocking.

::

    shell          TLSStream                                     socket
    send      -->  SSLObject.write --> BIO --> _held        -->  send
    receive   <--  SSLObject.read  <-- BIO                  <--  recv_into

Loaded only where TLS is spoken: it takes longer than the start of an embedded server. What a side
says of itself is either the user's certificate, or one that the server makes at its start. In the
second case nobody checks the certificate; but the proofs of the link cover its fingerprint
(:meth:`TLSStream.channel`), so that whoever stands in the middle, with a certificate of his own, is
found out by both ends.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import ssl
import tempfile
from dataclasses import dataclass, field
from operator import itemgetter, neg
from typing import TYPE_CHECKING, Any

from remote_executor.errors import AuthenticationFailed, ProtocolMismatch
from remote_executor.net.certificates import self_made
from remote_executor.net.streams import STEP, SocketStream
from remote_executor.wire.frames import make_frame
from remote_executor.wire.link import PREAMBLE
from remote_executor.wire.messages import Kind, encode_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from remote_executor.net.streams import Steps
    from remote_executor.wire.frames import Buffer

__all__ = ["TLS", "ServerTLS", "TLSStream", "client_context"]

STRIDE = 256 * 1024
"""Bytes that are encrypted, or received, at a time: many records to a system call."""

MOST_READ = 4 * STRIDE
"""After so many encrypted bytes others have their turn."""

PIECE = 64 * 1024
"""... but encrypted in pieces that stay in the processor's cache, which saves a quarter."""

LONGEST_RECORD = 16 * 1024

MOST_SHAKING = 256 * 1024
"""A handshake takes a few KiB; with long chains of certificates some more."""

PLAIN_CLIENT = (
    "the client speaks plain text, and this server TLS: give the client tls=True, or nothing where "
    "that is the default, or give the server tls=False (--no-tls --insecure)"
)
PLAIN_SERVER = (
    "the server speaks plain text, and this client TLS: give the server tls=True (--tls), or the "
    "client tls=False if what is between them can be trusted"
)
NOT_ACCEPTED = "does not accept our certificate"
ABOUT_CERTIFICATES = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
"""In the names of the alerts by which a peer says so."""


@dataclass(frozen=True)
class TLS:
    """
    How to speak TLS 1.3: for ``tls=``. All paths are of PEM files.

    Attributes:
        certificate: This end's certificate, with those that lead to its authority. A server without
            one makes its own; a client without one has none.
        key: The key that belongs to it; None if it is in the same file.
        ca: The authorities that this end trusts. A client then checks the server's certificate and
            its name; a server asks each client for a certificate, and refuses those without.
        password: Opens the key.
        server_name: The name to look for in the server's certificate; None for the address's host.
        check_name: Whether a client looks for a name at all.

    Raises:
        ValueError: If there is a key and nothing that it belongs to.
    """

    certificate: str | None = None
    key: str | None = None
    ca: str | None = None
    password: str | bytes | None = field(default=None, repr=False)
    server_name: str | None = None
    check_name: bool = True

    def __post_init__(self) -> None:
        if self.key and not self.certificate:
            raise ValueError(f"to which certificate does the key in {self.key} belong?")

    def client_context(self) -> ssl.SSLContext:
        """
        Return what a client needs.

        Raises:
            ValueError: If a file is missing, or is not what it should be.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = bool(self.ca) and self.check_name
        context.verify_mode = ssl.CERT_REQUIRED if self.ca else ssl.CERT_NONE
        self._load(context)
        return context

    def server_context(self) -> ssl.SSLContext:
        """
        Return what a server needs.

        Raises:
            ValueError: If a file is missing, or is not what it should be.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0  # sessions are resumed by other means
        if self.ca:
            context.verify_mode = ssl.CERT_REQUIRED
        self._load(context)
        if not self.certificate:
            _load_self_made(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        password = self.password
        try:
            if self.certificate:
                # Without a password OpenSSL would ask for one at the terminal.
                secret = "" if password is None else password
                context.load_cert_chain(self.certificate, self.key, lambda: secret)
        except OSError as exc:  # which SSLError is as well
            names = " and ".join(filter(None, [self.certificate, self.key]))
            if password is None:
                names += " (perhaps it needs a password)"
            raise ValueError(f"cannot use the certificate and key in {names}: {exc}") from exc
        try:
            if self.ca:
                context.load_verify_locations(self.ca)
        except OSError as exc:
            raise ValueError(f"cannot use the authorities in {self.ca}: {exc}") from exc


def _load_self_made(context: ssl.SSLContext) -> None:
    certificate, key = self_made(socket.gethostname())
    # OpenSSL takes files only. These are ours alone, and gone in a moment.
    with tempfile.TemporaryDirectory(prefix="remote-executor-") as folder:
        path = os.path.join(folder, "pem")
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(certificate + key)
        context.load_cert_chain(path)


def client_context(tls: bool | TLS | ssl.SSLContext, host: str) -> tuple[ssl.SSLContext, str]:
    """
    Return a client's context, and the server's name that it is to check.

    Args:
        tls: What the user asks for; True for no check but that of the link's proofs.
        host: The host in the server's address; empty for a Unix socket.

    Raises:
        ValueError: If it cannot be used.
    """
    if isinstance(tls, ssl.SSLContext):
        context, name = tls, host
        if context.protocol == ssl.PROTOCOL_TLS_SERVER:
            raise ValueError("this SSLContext is for servers, and a client needs one for clients")
    else:
        settings = tls if isinstance(tls, TLS) else TLS()
        context, name = settings.client_context(), settings.server_name or host
    if context.check_hostname and not name:
        raise ValueError("which name is to be in the server's certificate? Give TLS(server_name=)")
    return context, name


class ServerTLS:
    """
    What a server that speaks TLS has ready for each connection.

    Args:
        tls: What the user asks for; True for a certificate made now.
        plain_locally: Whether peers on this very machine may speak plain text.

    Raises:
        ValueError: If it cannot be used.
    """

    def __init__(self, tls: bool | TLS | ssl.SSLContext, plain_locally: bool) -> None:
        if isinstance(tls, ssl.SSLContext):
            self._context = tls
            if tls.protocol == ssl.PROTOCOL_TLS_CLIENT:
                raise ValueError(
                    "a server cannot speak TLS 1.3 with this context: it is for clients"
                )
        else:
            self._context = (tls if isinstance(tls, TLS) else TLS()).server_context()
        self._plain_locally = plain_locally
        self._scratch = memoryview(bytearray(STRIDE))
        try:
            self._fingerprint = _fingerprint(_certificate_of(self._context))
        except (OSError, ValueError) as exc:
            raise ValueError(f"a server cannot speak TLS 1.3 with this context: {exc}") from exc

    def stream(self, sock: socket.socket, peer: str) -> TLSStream:
        """
        Begin with a client that has connected.

        Args:
            sock: Its socket.
            peer: What to call it.
        """
        tls = TLSStream(
            sock, self._context, peer, server=True, channel=self._fingerprint, scratch=self._scratch
        )
        if self._plain_locally:
            tls.plain_allowed = _is_this_machine(sock)
        return tls


def _is_this_machine(sock: socket.socket) -> bool:
    if sock.family == socket.AF_UNIX:
        return True
    try:
        host: str = sock.getpeername()[0]
    except OSError:  # gone already
        return False
    return host.removeprefix("::ffff:").startswith("127.") or host == "::1"


def _fingerprint(certificate: bytes) -> bytes:
    return b"tls-server-end-point:" + hashlib.sha256(certificate).digest()


_UNUSUAL = re.compile(r"[^A-Za-z0-9 ._@/:*-]")


def _escape(found: re.Match[str]) -> str:
    return f"\\{ord(found[0]):x}\\"


def _name_in(certificate: dict[str, Any]) -> str:
    """
    Return what a certificate is told from others by.

    Not its number or key: a new one for the same name is as good.
    """

    def listed(pairs: Iterable[tuple[str, Any]]) -> str:
        # No value can be mistaken for two, nor for the beginning of what comes next.
        return ",".join(f"{key}={_UNUSUAL.sub(_escape, str(value))}" for key, value in pairs)

    subject, issuer = (
        listed(pair for rdn in certificate.get(which, ()) for pair in rdn)
        for which in ("subject", "issuer")
    )
    others = listed(sorted(certificate.get("subjectAltName", ())))
    return f"{subject}{others and ';'}{others} by {issuer}"


def _certificate_of(context: ssl.SSLContext) -> bytes:
    """Find out which certificate a server's context shows: shake hands with it."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(there, back, server_side=True)
    client = TLS().client_context().wrap_bio(back, there)
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            found = client.getpeercert(binary_form=True)
            if end is client and found:
                return found
    raise ValueError("it shows no certificate")


class TLSStream:
    """
    A connected socket with TLS around it: see :class:`remote_executor.net.streams.Stream`.

    Bytes count as sent once all that they became is with the kernel, so whoever waits for room as
    long as something is left need not know of what is held here.

    Args:
        sock: The socket; this object owns it from now on.
        context: With the certificates.
        peer: What to call the other end in errors.
        host: The server's name; for clients.
        server: Whether this end is the server.
        channel: What names the stream, if this end is the server; a client finds out.
        scratch: Memory to receive into, which streams of one thread may share: nothing stays there.

    Attributes:
        fds: Descriptors do not travel through TLS.
        holding: Whether decrypted bytes are left that no event of the socket will announce: call
            :meth:`receive` again.
        plain_allowed: Whether a client that speaks plain text is served like that.
    """

    fds: None = None

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        peer: str,
        *,
        host: str = "",
        server: bool = False,
        channel: bytes = b"",
        scratch: memoryview | None = None,
    ) -> None:
        self._plain: SocketStream | None = None
        self._inner = SocketStream(sock)  # makes it non-blocking, and does what else is due
        self._sock = sock
        self._peer = peer
        self._server = server
        self._channel = channel
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server, server_hostname=host or None
        )
        # What is around it is Python code, where time goes by.
        self._engine: Any = getattr(self._tls, "_sslobj", self._tls)
        self._raw = scratch or memoryview(bytearray(STRIDE))
        self._held: list[Buffer] = []
        """What is encrypted and not yet with the kernel."""
        self._owed = 0
        """How many of the caller's bytes became that."""
        self._shaken = False
        self._begun = False
        self._heard = 0
        self._ended = False
        self._failure: Exception | None = None
        self._failed = False
        self._returned = b""
        self.holding = False
        self.plain_allowed = False
        if not server:
            self._shake()

    def __repr__(self) -> str:
        state = "failed" if self._failed else "open" if self._shaken else "shaking hands"
        return f"<TLSStream {'plain' if self._plain else state} to {self._peer}>"

    @property
    def waiting(self) -> bool:
        """Whether nothing can be written before something was received, or ever."""
        if self._plain is not None:
            return False
        return self._failed or not (self._shaken or self._held)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._sock.fileno()

    def is_local(self) -> bool:
        """Whether descriptors can be passed: never."""
        return False

    def channel(self) -> bytes:
        """Return the fingerprint of the server's certificate: the same at both ends."""
        return b"" if self._plain is not None else self._channel

    def certificate_name(self) -> str:
        """Return the name in the peer's certificate, and who says so; empty if none was checked."""
        found = self._tls.getpeercert() if self._plain is None and self._shaken else None
        return _name_in(found) if found else ""

    def end_writing(self) -> None:
        """Let the peer find the end of the stream after what was written; reading goes on."""
        self._inner.end_writing()

    def close(self) -> None:
        """Close the socket. The link has said its goodbye; the TLS one would add nothing."""
        self._sock.close()
        # With their memory: who refers to this stream may take a while to forget it.
        del self._tls, self._engine

    # ----------------------------------------------------------------- the handshake

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as exc:
            self._fail(exc)
            try:
                self._write_out()  # tells the peer why, if it still listens
            except OSError:
                pass
            return
        else:
            self._shaken = True
            if self._tls.version() != "TLSv1.3":
                self._failed = True
                self._failure = ProtocolMismatch(
                    self._peer, f"it speaks {self._tls.version()}, and this end TLS 1.3 only"
                )
            elif not self._server:
                self._channel = _fingerprint(self._tls.getpeercert(binary_form=True) or b"")
        self._write_out()

    def _fail(self, exc: ssl.SSLError) -> None:
        """Remember what went wrong; :meth:`receive` says so once."""
        reason = exc.reason or str(exc)
        words = reason.replace("_", " ").lower()
        other = "client" if self._server else "server"
        self._failed = True
        if isinstance(exc, ssl.SSLCertVerificationError):
            self._failure = AuthenticationFailed(
                self._peer, f"the {other}'s certificate is not trusted: {exc.verify_message}"
            )
        elif "PEER_DID_NOT_RETURN" in reason:
            self._failure = AuthenticationFailed(self._peer, "the client has no certificate")
        elif "ALERT" in reason and any(part in reason for part in ABOUT_CERTIFICATES):
            self._failure = AuthenticationFailed(
                self._peer,
                f"the {other} {NOT_ACCEPTED} ({words}): see TLS(certificate=, key=, ca=)",
            )
        elif self._shaken:
            # It was changed on the way: the session may go on elsewhere.
            self._failure = exc.with_traceback(None)
        else:
            self._failure = ProtocolMismatch(self._peer, f"there is no TLS 1.3 with it: {words}")

    def _begin(self) -> None:
        """Look whether the first byte can be that of TLS."""
        try:
            first = self._sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        self._begun = True
        if first != PREAMBLE[:1]:
            return
        if self.plain_allowed:
            self._plain = self._inner
            return
        self._failed = True
        self._failure = ProtocolMismatch(self._peer, PLAIN_CLIENT if self._server else PLAIN_SERVER)
        if self._server:
            fields = {"error": "tls", "reason": PLAIN_CLIENT}
            frame = make_frame(Kind.REFUSED, body=encode_fields(fields))
            self._held = [PREAMBLE + bytes(frame.raw)]
            self._push()

    def _goes_on(self) -> bool:
        """Whether more may come."""
        return self._begun and not (self._failed or self._ended)

    # --------------------------------------------------------------------- receiving

    def receive(self, buffer: memoryview) -> int:
        """
        Receive into ``buffer``; see :class:`remote_executor.net.streams.Stream`.

        Raises:
            AuthenticationFailed: If one end does not trust the other's certificate.
            ProtocolMismatch: If one of them does not speak TLS 1.3.
            OSError: If the stream is broken.
        """
        if self._shaken and not (self.holding or self._returned or self._failed or self._ended):
            # Mostly a short message comes, whole.
            read = self._read_raw()
            if not read:
                return self._nothing()
            self._incoming.write(self._raw[:read])
            count = self._decrypt(buffer)
            if read < STRIDE and count and not self._outgoing.pending:
                return count
            return self._receive_more(buffer, count, MOST_READ - read if read == STRIDE else 0)
        if not self._begun:
            self._begin()
        if self._plain is not None:
            return self._plain.receive(buffer)
        if self._returned:
            count = min(len(buffer), len(self._returned))
            buffer[:count] = self._returned[:count]
            self._returned = self._returned[count:]
            if not self._returned and self.holding and self._goes_on():
                count += self._decrypt(buffer[count:])
            return count  # what the socket has may be a caller's to receive
        count = self._decrypt(buffer) if self.holding and self._goes_on() else 0
        return self._receive_more(buffer, count, MOST_READ)

    def _receive_more(self, buffer: memoryview, count: int, most: int) -> int:
        """
        Go on receiving.

        Args:
            buffer: Takes what is decrypted.
            count: Bytes that are in it already.
            most: About how many encrypted bytes to take.
        """
        while count < len(buffer) and most > 0 and self._goes_on():
            read = self._read_raw()
            if not read:
                break
            most -= read
            self._take(read)
            if self._shaken and self._goes_on():
                count += self._decrypt(buffer[count:] if count else buffer)
            if read < STRIDE:
                break  # that was all there is now; to ask once more costs a system call
        if self._outgoing.pending:
            self._write_out()
        if count:
            return count
        return self._nothing()

    def steps(self) -> Steps | None:
        """
        Return how to send and receive; see :class:`remote_executor.net.streams.Stream`.

        If the kernel takes a part only of what was encrypted, the stream is torn: the peer finds a
        broken record and cuts the link, and the session goes on over the next one.
        """
        if self._plain is not None:
            return self._plain.steps()
        # In Python code a signal's handler could come between.
        engine = self._engine
        busy = self._held or self._owed or self.holding or self._outgoing.pending
        if engine is self._tls or busy or not self._shaken or not self._goes_on():
            return None
        encrypt, decrypt, take, read = (
            engine.write,
            engine.read,
            self._incoming.write,
            self._outgoing.read,
        )
        send, receive = self._sock.sendall, self._sock.recv

        def sending(data: Buffer) -> Iterator[int]:
            # A negative number of bytes to read is all of them.
            sent = map(send, map(read, map(neg, map(encrypt, (data,)))))
            return map(itemgetter(0), zip((len(data),), sent))  # noqa: B905

        def receiving() -> Iterator[tuple[bytes]]:
            return zip(map(decrypt, map(take, map(receive, (STEP,)))))

        return sending, receiving

    def put_back(self, received: list[Any]) -> None:
        """Keep bytes for :meth:`receive`; see :class:`remote_executor.net.streams.Stream`."""
        if self._plain is not None:
            self._plain.put_back(received)
            return
        self._returned += b"".join(data for (data,) in received)
        self.holding = True  # perhaps: a caller may have met the beginning of a record

    def _nothing(self) -> int:
        """Say why there are no bytes."""
        failure, self._failure = self._failure, None
        self.holding = False
        if failure is not None:
            try:
                raise failure
            finally:
                failure = None  # its traceback refers to this frame, and this frame to the stream
        if self._failed:
            # The last words are said. What still comes is dropped, until the peer goes.
            for _ in range(16):
                if not self._read_raw():
                    break
        return 0 if self._ended else -1

    def _read_raw(self) -> int:
        """Receive encrypted bytes; 0 if there are none now, or no more."""
        try:
            count = self._sock.recv_into(self._raw)
        except (BlockingIOError, InterruptedError):
            return 0
        self._ended = not count
        return count

    def _take(self, count: int) -> None:
        """Take so many encrypted bytes in."""
        self._incoming.write(self._raw[:count])
        if not self._shaken:
            self._heard += count
            if self._heard <= MOST_SHAKING:
                self._shake()
            else:
                self._failed = True
                self._failure = ProtocolMismatch(self._peer, "its TLS handshake has no end")

    def _decrypt(self, buffer: memoryview) -> int:
        """Decrypt as much as there is room for."""
        count, size, incoming = 0, len(buffer), self._incoming
        read = self._engine.read
        self.holding = False
        try:
            while count < size:
                got = int(read(size - count, buffer[count:] if count else buffer))
                if not got:  # the peer's closing alert
                    self._ended = True
                    break
                count += got
                if got < LONGEST_RECORD and count < size and not incoming.pending:
                    return count  # without the exception, which costs more than a short message
        except ssl.SSLWantReadError:
            return count
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._ended = True
        except ssl.SSLError as exc:
            self._fail(exc)
        self.holding = True  # more bytes, or the end, or an error
        return count

    # ----------------------------------------------------------------------- sending

    def send(self, chunk: list[Buffer]) -> int:
        """Write what can be written now; see :class:`remote_executor.net.streams.Stream`."""
        if self._plain is not None:
            return self._plain.send(chunk)
        if self._held and not self._push():
            return 0
        if self._owed:
            owed, self._owed = self._owed, 0
            return owed
        if not self._shaken or self._failed:
            return 0
        total, encrypt, read = 0, self._engine.write, self._outgoing.read
        for part in chunk:
            view = part
            if len(part) > LONGEST_RECORD or total:
                view = memoryview(part)[: STRIDE - total]
            total += len(view)
            while len(view) > PIECE:
                view = view[encrypt(view[:PIECE]) :]
                self._held.append(read())
            if len(view):
                encrypt(view)
                self._held.append(read())
        if not self._push():
            self._owed, total = total, 0
        return total

    def _write_out(self) -> None:
        """Give the kernel what is encrypted, as far as it takes it."""
        if self._outgoing.pending:
            self._held.append(self._outgoing.read())
        self._push()

    def _push(self) -> bool:
        """Return whether all of it went."""
        held = self._held
        try:
            while held:
                sent = self._sock.send(held[0]) if len(held) == 1 else self._sock.sendmsg(held)
                while held and sent >= len(held[0]):
                    sent -= len(held.pop(0))
                if sent:
                    held[0] = memoryview(held[0])[sent:]
        except (BlockingIOError, InterruptedError):
            return False
        return True
