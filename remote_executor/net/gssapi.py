"""
Kerberos, by GSSAPI; wraps the package gssapi, which wraps the system's library.

Both ends prove who they are (mutual authentication), and everything that travels is encrypted,
signed and counted, so that it can be neither read, changed, replayed nor reordered. Settings are
Kerberos' own: ``KRB5_CONFIG``, ``KRB5CCNAME`` for a client's tickets, ``KRB5_KTNAME`` for a
server's keys.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterable
from typing import Any

from remote_executor.errors import Refused
from remote_executor.wire.auth import Auth, Mechanism

__all__ = ["GSSAPI"]

MOST_BYTES = 64 * 1024
"""A ticket is as long as its user has groups: more than other mechanisms' messages."""


KRB5_ERRORS = -1765328384
KDC_AWAY = frozenset(
    {
        (KRB5_ERRORS + 29) & 0xFFFFFFFF,  # KRB5KDC_ERR_SVC_UNAVAILABLE
        (KRB5_ERRORS + 156) & 0xFFFFFFFF,  # KRB5_KDC_UNREACH
        (KRB5_ERRORS + 220) & 0xFFFFFFFF,  # KRB5_REALM_CANT_RESOLVE
    }
)
"""Kerberos' numbers, from krb5.h, for a realm that was not reached."""

KDC_AWAY_WORDS = ("Cannot contact any KDC", "Cannot resolve")


class GSSAPI(Auth):
    """
    Clients and servers that a Kerberos realm knows: for ``auth=``.

    Override :meth:`name_accepted` to let in others than those named, such as a group's members.

    Args:
        service_name: The first part of the servers' principals: a server on host ``node1`` must
            have keys for ``remote_executor/node1``.
        allowed_users: Who may use a server: whole principals, such as ``"alice@EXAMPLE.ORG"``. Each
            of them can run any code there, as the server's user.
        host: The second part of the server's principal; None for the host in its address.

    Raises:
        ValueError: If the package gssapi is not installed, or a user is named without a realm.
    """

    confidential = True

    def __init__(
        self,
        service_name: str = "remote_executor",
        allowed_users: Iterable[str] = (),
        *,
        host: str | None = None,
    ) -> None:
        _library()
        self.service_name = service_name
        self.allowed_users = frozenset(
            [allowed_users] if isinstance(allowed_users, str) else allowed_users
        )
        self.host = host
        for user in self.allowed_users:
            if "@" not in user:
                raise ValueError(f"{user!r} names no realm: write it as 'user@REALM'")

    def __repr__(self) -> str:
        return f"<GSSAPI {self.service_name}, {len(self.allowed_users)} users>"

    def name_accepted(self, name: str) -> bool:
        """
        Tell whether a client may use the server. It has proved who it is.

        Args:
            name: Its principal, such as ``"alice@EXAMPLE.ORG"``.
        """
        return name in self.allowed_users

    def client(self, host: str) -> Mechanism:
        """
        Return the client's part of one handshake; may ask the realm for a ticket.

        Args:
            host: The host in the server's address; empty for a Unix socket, which is here.

        Raises:
            ConnectionError: If the realm cannot be asked now.
        """
        gssapi = _library()
        name = gssapi.Name(
            f"{self.service_name}@{self.host or host or socket.gethostname()}",
            gssapi.NameType.hostbased_service,
        )

        def begin(bindings: Any) -> Any:
            return gssapi.SecurityContext(
                name=name, usage="initiate", flags=_flags(gssapi), channel_bindings=bindings
            )

        try:
            # The ticket is in the user's cache then, and the handshake need not wait for it.
            begin(None).step()
        except gssapi.exceptions.GSSError as exc:
            if _is_away(exc):
                raise ConnectionError(f"the realm cannot be asked now: {_words(exc)}") from exc
            # Else the handshake will say so.
        return _Part(gssapi, begin, None)

    def server(self) -> Callable[[], Mechanism]:
        """
        Return what makes a server's parts, with the keys that there are now.

        Raises:
            ValueError: If there are no keys for the service, or nobody may use it.
        """
        gssapi = _library()
        if not self.allowed_users and type(self).name_accepted is GSSAPI.name_accepted:
            raise ValueError(
                "nobody may use this server: say GSSAPI(allowed_users=['user@REALM']) "
                "(--gssapi-users), or override name_accepted"
            )
        try:
            keys = gssapi.Credentials(
                name=gssapi.Name(self.service_name, gssapi.NameType.hostbased_service),
                usage="accept",
            )
        except gssapi.exceptions.GSSError as exc:
            raise ValueError(
                f"there are no keys for the service {self.service_name}: {_words(exc)}; "
                "see KRB5_KTNAME"
            ) from exc

        def begin(bindings: Any) -> Any:
            return gssapi.SecurityContext(creds=keys, usage="accept", channel_bindings=bindings)

        return lambda: _Part(gssapi, begin, self.name_accepted)


class _Part(Mechanism):
    """
    One end's part in one conversation.

    Args:
        gssapi: The library.
        begin: Makes the context, given what it must be bound to.
        accepts: Tells a server whom it may serve; None for a client.
    """

    name = "gssapi"
    wraps = True
    most_bytes = MOST_BYTES

    def __init__(
        self, gssapi: Any, begin: Callable[[Any], Any], accepts: Callable[[str], bool] | None
    ) -> None:
        self._gssapi = gssapi
        self._begin = begin
        self._accepts = accepts
        self._context: Any = None

    def step(self, said: bytes, binding: bytes) -> bytes:
        """Take and give what the library says; see :class:`Mechanism`."""
        gssapi = self._gssapi
        if not said and (self._context is not None or self._accepts is not None):
            raise Refused("an empty message in the handshake")
        if self._context is None:
            data = hashlib.sha256(binding).digest()
            self._context = self._begin(gssapi.raw.ChannelBindings(application_data=data))
        context = self._context
        try:
            answer: bytes = context.step(said or None) or b""
            if not context.complete:
                return answer
            wanted = _flags(gssapi)
            name = str(context.initiator_name)
        except gssapi.exceptions.GSSError as exc:
            raise Refused(f"Kerberos says: {_words(exc)}") from exc
        if context.actual_flags & wanted != wanted:
            raise Refused("the two ends did not agree to encrypt, to sign and to count")
        if self._accepts is None:
            self.peer_name = str(context.target_name)
        elif self._accepts(name):
            self.peer_name = name
        else:
            raise Refused(f"{name} is not allowed to use this server")
        self.done = True
        return answer

    def wrap(self, data: bytes) -> bytes:
        """Encrypt, sign and count."""
        sealed = self._context.wrap(data, True)
        if not sealed.encrypted:
            raise ValueError("the library does not encrypt")
        message: bytes = sealed.message
        return message

    def unwrap(self, data: bytes) -> bytes:
        """Decrypt and check, also that nothing was left out, replayed or reordered."""
        opened = self._context.unwrap(data)
        if not opened.encrypted:
            raise ValueError("it is not encrypted")
        message: bytes = opened.message
        return message


def _flags(gssapi: Any) -> int:
    flag = gssapi.RequirementFlag
    return int(
        flag.mutual_authentication
        | flag.replay_detection
        | flag.out_of_sequence_detection
        | flag.integrity
        | flag.confidentiality
    )


def _is_away(exc: Any) -> bool:
    """Whether Kerberos could not ask, rather than got an answer: then it may go well later."""
    code = int(getattr(exc, "min_code", 0)) & 0xFFFFFFFF  # some give it with a sign
    # A library with several mechanisms may have numbered the code anew.
    return code in KDC_AWAY or any(words in str(exc) for words in KDC_AWAY_WORDS)


def _words(exc: Any) -> str:
    return " ".join(str(exc).split())


def _library() -> Any:
    try:
        import gssapi
        import gssapi.raw
    except ImportError as exc:
        raise ValueError(
            f"GSSAPI needs the package gssapi: pip install 'gssapi>=1.8' ({exc})"
        ) from exc
    return gssapi
