"""
What ``auth=``, ``tls=`` and ``insecure=`` mean, for clients and servers alike.

::

    address           auth                        tls=None means
    ---------------   -------------------------   ---------------------------------------------
    loopback, Unix    any                         plain text
    any other         it encrypts (GSSAPI)        plain text, as far as the stream is concerned
    any other         any other (the token)       TLS, with a certificate made at the server's start

TLS itself is loaded only where it is spoken.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from remote_executor.net.tokens import Token

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from remote_executor.net.addresses import Address
    from remote_executor.net.tls import TLS
    from remote_executor.wire.auth import Auth

    AuthLike = Auth | str | bytes | Sequence[str | bytes] | None
    TLSLike = bool | TLS | ssl.SSLContext | None

__all__ = ["auth_of", "client_tls", "is_exposed", "server_tls", "tls_of"]

YES = ("1", "on", "true", "yes")
NO = ("0", "off", "false", "no")


def auth_of(given: AuthLike) -> Auth:
    """
    Return what an ``auth=`` argument means.

    Args:
        given: A mechanism's maker, a secret, or two secrets; None for what the environment says
            (``REMOTE_EXECUTOR_AUTH``), or else the user's token file.

    Raises:
        TypeError, ValueError: If it is none of these.
    """
    if given is None:
        return _auth_of_environment()
    if isinstance(given, (str, bytes, list, tuple)):
        # An empty list must not mean the token file.
        return Token(*([given] if isinstance(given, (str, bytes)) else given or [""]))
    if not (callable(getattr(given, "client", None)) and callable(getattr(given, "server", None))):
        raise TypeError(
            "auth must be Token(...), GSSAPI(...), a secret, two secrets, or have the methods "
            f"client and server, not {given!r:.100}"
        )
    return given  # type: ignore[return-value]


def _auth_of_environment() -> Auth:
    name = os.environ.get("REMOTE_EXECUTOR_AUTH", "") or "token"
    if name == "token":
        return Token()
    if name == "gssapi":
        from remote_executor.net.gssapi import GSSAPI

        users = os.environ.get("REMOTE_EXECUTOR_GSSAPI_USERS", "")
        service = os.environ.get("REMOTE_EXECUTOR_GSSAPI_SERVICE", "")
        return GSSAPI(**({"service_name": service} if service else {}), allowed_users=users.split())
    raise ValueError(f"REMOTE_EXECUTOR_AUTH must be token or gssapi, not {name!r}")


def tls_of(given: TLSLike) -> TLSLike:
    """
    Return what a ``tls=`` argument means; None if nobody says anything.

    Args:
        given: True, False, ``TLS(...)``, or an ``ssl.SSLContext``; None for what the environment
            says: ``REMOTE_EXECUTOR_TLS`` (on or off), and ``REMOTE_EXECUTOR_TLS_`` with
            ``CERTIFICATE``, ``KEY``, ``CA``, ``PASSWORD`` or ``NAME`` at its end.

    Raises:
        TypeError, ValueError: If it is none of these.
    """
    if given is None:
        given = _tls_of_environment()
    if given is None or isinstance(given, bool):
        return given
    import ssl

    from remote_executor.net.tls import TLS

    if not isinstance(given, (TLS, ssl.SSLContext)):
        raise TypeError(
            f"tls must be True, False, TLS(...) or an ssl.SSLContext, not {given!r:.100}"
        )
    return given


def _tls_of_environment() -> TLSLike:
    switch = os.environ.get("REMOTE_EXECUTOR_TLS", "").lower()
    if switch not in (*YES, *NO, ""):
        raise ValueError(f"REMOTE_EXECUTOR_TLS must be on or off, not {switch!r}")
    if switch in NO:
        return False
    fields = {
        field: value
        for field, name in (
            ("certificate", "CERTIFICATE"),
            ("key", "KEY"),
            ("ca", "CA"),
            ("password", "PASSWORD"),
            ("server_name", "NAME"),
        )
        if (value := os.environ.get(f"REMOTE_EXECUTOR_TLS_{name}"))
    }
    if fields:
        from remote_executor.net.tls import TLS

        return TLS(**fields)  # type: ignore[arg-type]
    return True if switch else None


def is_exposed(address: Address, auth: Auth, tls: TLSLike) -> bool:
    """Whether others could read what travels, or change it."""
    return not (address.is_loopback or tls or getattr(auth, "confidential", False))


def client_tls(address: Address, auth: Auth, tls: TLSLike) -> TLSLike:
    """
    Decide how a client speaks with a server.

    Args:
        address: The server's.
        auth: What :func:`auth_of` returned.
        tls: What :func:`tls_of` returned.

    Returns:
        False for plain text; otherwise what TLS is to be spoken with.
    """
    return is_exposed(address, auth, False) if tls is None else tls


def server_tls(address: Address, auth: Auth, tls: TLSLike, insecure: bool) -> TLSLike:
    """
    Decide how a server speaks with its clients; the arguments are those of :func:`client_tls`.

    Args:
        address: Where it listens.
        auth: How it knows clients.
        tls: What the user asks for.
        insecure: Whether plain text is allowed where others can listen, and meant if nothing is
            said of TLS.

    Returns:
        As for :func:`client_tls`.

    Raises:
        ValueError: If others could listen, and ``insecure`` is false.
    """
    if tls is None:
        return False if insecure else is_exposed(address, auth, False)
    if is_exposed(address, auth, tls) and not insecure:
        raise ValueError(
            f"{address} can be reached from other machines, and without TLS what travels is not "
            "encrypted: leave tls= (--no-tls) out, or serve on 127.0.0.1 behind an SSH tunnel, or "
            "say --insecure (insecure=True) if the network is trusted"
        )
    return tls
