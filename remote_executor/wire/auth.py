"""
Authentication: small objects without sockets that prove to both ends who the other is.

A mechanism takes part in the handshake of a link. The client speaks first, and the two answer each
other for as many rounds as they need::

    client                                    server
    step(b"", binding)       -- PROOF -->     step(said, binding)
    step(said, binding)     <-- PROOF --      done, or another round; or REFUSED, with the reason

``binding`` is the same at both ends if nobody stands between them, and never the same twice. It
covers both greetings, each with fresh random bytes, and the certificate of the server if the stream
is TLS. A proof that covers it is good for this conversation alone.

Write your own by deriving from :class:`Mechanism`, and an object for ``auth=`` that makes them: see
:class:`Auth`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from remote_executor.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Auth", "Mechanism", "NoAuth", "TokenAuth", "binding_of"]

CLIENT_UNKNOWN = (
    "the client's token is not the server's: compare the token files "
    "(REMOTE_EXECUTOR_TOKEN_FILE) of both machines"
)
IMPOSTOR = (
    "the server does not know our token: it may be an impostor, or somebody may stand between us"
)


class Mechanism(ABC):
    """One end's part in one handshake. Derive from it; only ``name`` and ``step`` are needed."""

    name: str
    """Both ends must use mechanisms of the same name."""

    done: bool = False
    """
    Whether this end believes the peer, and has said all that it has to say: set by :meth:`step`,
    which is not called again then.
    """

    peer_name: str = ""
    """Who the peer has proved to be, for the log; empty if the mechanism knows no names."""

    wraps: bool = False
    """Whether all that travels after the handshake goes through :meth:`wrap`."""

    most_bytes: int = 16 * 1024
    """How long a message of the handshake may be: memory that a stranger can claim."""

    @abstractmethod
    def step(self, said: bytes, binding: bytes) -> bytes:
        """
        Take what the peer said and return what to answer.

        Args:
            said: The peer's last message; empty when the client begins.
            binding: What a proof must cover, see above.

        Raises:
            Refused: With the reason, which the peer is told.
        """

    def wrap(self, data: bytes) -> bytes:
        """
        Change bytes on their way out, in order. Called only if ``wraps`` is true.

        Args:
            data: Some 256 KiB of frames at most; what becomes of them may be twice as long.
        """
        return data

    def unwrap(self, data: bytes) -> bytes:
        """
        Undo what the peer's :meth:`wrap` did, or raise: then the link is cut.

        Args:
            data: What one call of it returned.
        """
        return data


class Auth(ABC):
    """
    What ``auth=`` takes: it makes the mechanisms of one end.

    Attributes:
        confidential: Whether the mechanism encrypts all that travels, so that TLS is not needed.
    """

    confidential: bool = False

    @abstractmethod
    def client(self, host: str) -> Mechanism:
        """
        Return the client's part of one handshake.

        Args:
            host: The name of the server's host, as the user gave it; empty for a Unix socket.

        Raises:
            ConnectionError, TimeoutError: If whoever must be asked is away: it is tried again.
                So is an OSError that tells of a shortage, such as EMFILE.
            Exception: Anything else is final for a server that has not served yet, and becomes the
                cause of an AuthenticationFailed.
        """

    @abstractmethod
    def server(self) -> Callable[[], Mechanism]:
        """Read what a server needs, once at its start; return what makes its parts."""


class NoAuth(Mechanism):
    """
    For streams whose other end is known by other means.

    An inherited socket pair is such a stream: nobody else can hold its other end.
    """

    name = "none"

    def step(self, said: bytes, binding: bytes) -> bytes:
        """Accept."""
        self.done = True
        return b""


class TokenAuth(Mechanism):
    """
    Mutual challenge and response with a shared secret (HMAC-SHA256).

    Args:
        role: "client" or "server": goes into the proof, so that one cannot be sent back as the
            other's.
        secrets: The secrets that are accepted; the first one is used to prove.
    """

    name = "token"

    def __init__(self, role: str, secrets: tuple[bytes, ...]) -> None:
        if not secrets or not all(secrets):
            raise ValueError("token authentication needs a secret")
        self._role = role
        self._secrets = secrets
        self._began = False

    def step(self, said: bytes, binding: bytes) -> bytes:
        """
        Prove that this end knows the secret; check that the peer does.

        A server answers with the secret that the client proved, so that tokens can be rotated.
        """
        if self._role == "server":
            secret = self._matching("client", said, binding)
            if secret is None:
                raise Refused(CLIENT_UNKNOWN)
            self.done = True
            return _hmac(secret, "server", binding)
        if not self._began:
            self._began = True
            return _hmac(self._secrets[0], "client", binding)
        if self._matching("server", said, binding) is None:
            raise Refused(IMPOSTOR)
        self.done = True
        return b""

    def _matching(self, role: str, said: bytes, binding: bytes) -> bytes | None:
        """Compare the peer's proof with that of every accepted secret, in constant time."""
        from hmac import compare_digest

        found = None
        for secret in self._secrets:
            if compare_digest(_hmac(secret, role, binding), said):
                found = secret
        return found


def _hmac(secret: bytes, role: str, binding: bytes) -> bytes:
    # Imported late: loading OpenSSL takes longer than the rest of an embedded server's start.
    import hmac

    return hmac.digest(secret, role.encode() + b"\0" + binding, "sha256")


def binding_of(channel: bytes, client_hello: bytes, server_hello: bytes) -> bytes:
    """
    Return what proofs must cover.

    Args:
        channel: What names the stream at both ends, such as a certificate's fingerprint, or empty.
        client_hello: The body of the client's HELLO.
        server_hello: The body of the server's HELLO.
    """
    parts = (channel, client_hello, server_hello)
    # Each with its length: nobody can shift the border between two of them.
    return b"remote_executor 1\0" + b"".join(
        len(part).to_bytes(4, "little") + part for part in parts
    )
