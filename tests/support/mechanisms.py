"""Mechanisms of a site's own, as a user would write them; servers import this module."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from remote_executor.errors import Refused
from remote_executor.wire.auth import Auth, Mechanism

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MARK", "Packed", "Trusting", "Users"]

MARK = b"what cannot be sent"


class _Packs(Mechanism):
    """Compresses all that travels, and proves nothing."""

    name = "packed"
    wraps = True

    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def step(self, said: bytes, binding: bytes) -> bytes:
        """Accept."""
        self.done = True
        return b""

    def wrap(self, data: bytes) -> bytes:
        """Compress."""
        if self.fails and MARK in data:
            raise ValueError("there is something that cannot be sent")
        return zlib.compress(data, 1)

    def unwrap(self, data: bytes) -> bytes:
        """Undo it."""
        return zlib.decompress(data)


class Packed(Auth):
    """
    Compresses what travels.

    Args:
        fails: At which end :data:`MARK` cannot be sent: "client", "server" or nowhere.
    """

    def __init__(self, fails: str = "") -> None:
        self.fails = fails

    def client(self, host: str) -> Mechanism:
        """Return the client's part."""
        return _Packs(self.fails == "client")

    def server(self) -> Callable[[], Mechanism]:
        """Return what makes the server's parts."""
        return lambda: _Packs(self.fails == "server")


class _Names(Mechanism):
    """Says the name of the server, and believes whoever says the same."""

    name = "names"

    def __init__(self, host: str) -> None:
        self.host = host

    def step(self, said: bytes, binding: bytes) -> bytes:
        """Compare what the client calls the server."""
        if self.host == "?":
            if said != b"localhost":
                raise Refused(f"I am localhost, and not {said.decode()}")
            self.peer_name = "somebody"
        self.done = True
        return self.host.encode()


class _Says(Mechanism):
    """Says who the user is; the server believes it."""

    name = "says"

    def __init__(self, user: str | None) -> None:
        self.user = user

    def step(self, said: bytes, binding: bytes) -> bytes:
        """Say it, or take note of it."""
        if self.user is None:
            if said == b"mallory":
                raise Refused("mallory is not let in")
            self.peer_name = said.decode()
        elif said:
            self.done = True
            return b""
        self.done = self.user is None
        return b"fine" if self.user is None else self.user.encode()


class Users(Auth):
    """
    A site whose users tell their names; all but mallory are let in.

    Args:
        user: Who a client is.
    """

    def __init__(self, user: str | None = None) -> None:
        self.user = user

    def client(self, host: str) -> Mechanism:
        """Return the client's part."""
        return _Says(self.user)

    def server(self) -> Callable[[], Mechanism]:
        """Return what makes the server's parts."""
        return lambda: _Says(None)


class Trusting(Auth):
    """Lets in whoever knows the server's name."""

    def client(self, host: str) -> Mechanism:
        """Return the client's part."""
        if host == "LOCALHOST":
            raise RuntimeError("no key for that host")
        return _Names(host)

    def server(self) -> Callable[[], Mechanism]:
        """Return what makes the server's parts."""
        return lambda: _Names("?")
