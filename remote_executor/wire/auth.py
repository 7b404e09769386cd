"""
Authentication: small objects without sockets that prove to both ends who the other is.

A mechanism takes part in the handshake of a link. Each end makes one with fresh random bytes, puts
its :meth:`~Mechanism.opening` into its HELLO, and exchanges proofs: the client proves first, so a
stranger learns nothing from a server but that it is one. Neither end ever sends the secret.

Write your own by implementing :class:`Mechanism`.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Mechanism", "NoAuth", "TokenAuth"]

NONCE_BYTES = 32


class Mechanism(Protocol):
    """One end's part in one handshake."""

    name: str
    """Both ends must use mechanisms of the same name."""

    def opening(self) -> str:
        """Return text that goes into this end's HELLO, such as a nonce in hex."""

    def proof(self, peer_opening: str) -> str:
        """Return this end's proof, given what the peer's HELLO said."""

    def verify(self, peer_opening: str, peer_proof: str) -> bool:
        """Tell whether the peer's proof is right. Must take the same time for every wrong one."""


class NoAuth:
    """
    For streams whose other end is known by other means.

    An inherited socket pair is such a stream: nobody else can hold its other end.
    """

    name = "none"

    def opening(self) -> str:
        """Return nothing."""
        return ""

    def proof(self, peer_opening: str) -> str:
        """Return nothing."""
        return ""

    def verify(self, peer_opening: str, peer_proof: str) -> bool:
        """Accept."""
        return True


class TokenAuth:
    """
    Mutual challenge and response with a shared secret (HMAC-SHA256).

    Args:
        role: "client" or "server": goes into the proof, so that one cannot be sent back as the
            other's.
        secrets: The secrets that are accepted; the first one is used to prove.
        nonce: 32 fresh random bytes, never used before.
    """

    name = "token"

    def __init__(self, role: str, secrets: tuple[bytes, ...], nonce: bytes) -> None:
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
        if not secrets or not all(secrets):
            raise ValueError("token authentication needs a secret")
        self._role = role
        self._secrets = secrets
        self._opening = nonce.hex()
        self._matched: bytes | None = None

    def opening(self) -> str:
        """Return this end's nonce in hex."""
        return self._opening

    def proof(self, peer_opening: str) -> str:
        """
        Return the HMAC over both nonces and this end's role.

        A server answers with the secret that the client proved, so that tokens can be rotated.
        """
        secret = self._matched or self._secrets[0]
        return _hmac(secret, self._role, self._opening, peer_opening)

    def verify(self, peer_opening: str, peer_proof: str) -> bool:
        """Compare the peer's proof with every accepted secret, in constant time."""
        from hmac import compare_digest

        peer_role = "server" if self._role == "client" else "client"
        given = peer_proof.encode("utf-8", "surrogatepass")
        found = None
        for secret in self._secrets:
            wanted = _hmac(secret, peer_role, peer_opening, self._opening)
            if compare_digest(wanted.encode(), given):
                found = secret
        # A peer that echoes our own nonce could only be replaying us to ourselves. One of another
        # length could shift the border between the two nonces that the proof covers.
        if found is None or peer_opening == self._opening or len(peer_opening) != 2 * NONCE_BYTES:
            return False
        self._matched = found
        return True


def _hmac(secret: bytes, role: str, mine: str, theirs: str) -> str:
    # Imported late: loading OpenSSL takes longer than the rest of an embedded server's start.
    import hmac

    text = f"remote_executor 1\0{role}\0{mine}\0{theirs}".encode("utf-8", "surrogatepass")
    return hmac.new(secret, text, "sha256").hexdigest()
