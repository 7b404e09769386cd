"""Where servers are: ``host:port``, ``(host, port)``, ``[ipv6]:port``, ``unix:/path``."""

from __future__ import annotations

from remote_executor.errors import AddressError

__all__ = ["DEFAULT_PORT", "Address", "AddressLike", "parse_address", "parse_addresses"]

DEFAULT_PORT = 11111


class Address:
    """
    The address of a server. Make one with :func:`parse_address`.

    Attributes:
        kind: "tcp" or "unix".
        host: Name or number, without brackets; "" for a Unix socket.
        port: 0 to 65535; 0 for a Unix socket.
        path: The path of a Unix socket, otherwise "".
    """

    __slots__ = ("host", "kind", "path", "port")

    def __init__(self, kind: str, host: str = "", port: int = 0, path: str = "") -> None:
        self.kind = kind
        self.host = host
        self.port = port
        self.path = path

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        # "unix:5" would read as a path.
        host = f"[{self.host}]" if ":" in self.host or self.host == "unix" else self.host
        return f"{host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Address {self}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it: a Unix socket, 127.x.x.x, ::1 or localhost."""
        if self.kind == "unix":
            return True
        return self.host.lower() in ("localhost", "::1") or (
            self.host.startswith("127.") and self.host.replace(".", "").isdigit()
        )


AddressLike = str | tuple[str, int] | Address


def parse_address(given: AddressLike) -> Address:
    """
    Read an address; nothing is looked up or connected (PARITY K67).

    Args:
        given: "host:port", "host" (port 11111), "[::1]:port", "unix:/path", (host, port), or an
            :class:`Address`.

    Raises:
        AddressError: If it is none of these; it is a ValueError too.
    """
    if isinstance(given, Address):
        return given
    if isinstance(given, (tuple, list)):
        if len(given) != 2:
            raise _error(given, "expected (host, port)")
        return _tcp(given[0], given[1], given)
    if not isinstance(given, str):
        raise _error(given, "expected 'host:port' or (host, port)")
    text = given.strip()
    if text.startswith("unix:"):
        path = text[len("unix:") :]
        if not path or "\0" in path:
            raise _error(given, "expected 'unix:/path'")
        return Address("unix", path=path)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise _error(given, "expected '[host]:port'")
        return _tcp(host, rest[1:] if rest else DEFAULT_PORT, given)
    if text.count(":") > 1:
        raise _error(given, f"write IPv6 as '[{text}]:port'")
    host, colon, port = text.partition(":")
    return _tcp(host, port if colon else DEFAULT_PORT, given)


def _tcp(host: object, port: object, given: object) -> Address:
    if isinstance(port, str) and port.isascii() and port.isdigit() and len(port) < 10:
        port = int(port)
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise _error(given, "the port must be a number from 0 to 65535")
    if not isinstance(host, str) or not _is_host(host):
        raise _error(given, f"{host!r} is not the name or the number of a host")
    return Address("tcp", host, port)


def _is_host(host: str) -> bool:
    if not host or any(not c.isprintable() or c in " ,/@[]" for c in host):
        return False
    try:
        host.encode("idna")  # as connecting does, which would raise a UnicodeError then
    except UnicodeError:
        return False
    return True


def _error(given: object, reason: str) -> AddressError:
    return AddressError(given if isinstance(given, str) else repr(given), reason)


def parse_addresses(text: str) -> list[Address]:
    """
    Read a list of addresses, separated by commas or blanks.

    Raises:
        AddressError: If one of them is not an address.
    """
    return [parse_address(part) for part in text.replace(",", " ").split()]
