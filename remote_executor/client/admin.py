"""
Calls to a server that need no executor: is it there, what does it do, end it.

Each is a short connection of its own, so it never waits behind tasks (PARITY D9), and it
authenticates as everybody does (A11).
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from remote_executor.client.peer import LIMIT, Remote
from remote_executor.errors import ConnectionFailed, FarmError, RemoteProtocolError
from remote_executor.net.addresses import parse_address
from remote_executor.wire.frames import make_frame
from remote_executor.wire.link import Link, LinkState
from remote_executor.wire.messages import Kind, decode_fields, encode_fields

if TYPE_CHECKING:
    from remote_executor.net.addresses import AddressLike
    from remote_executor.wire.frames import Frame

__all__ = ["end_server", "ping", "server_status"]

RETRY_SECONDS = 0.1


def ping(
    address: AddressLike, timeout: float | None = 3.0, *, token: bytes | str | None = None
) -> bool:
    """
    Tell whether a server answers, and takes our token. Comes from lfarm's ping.

    Tries again until the time is over, so it also waits for a server that is starting.

    Args:
        address: "host:port", ("host", port), "unix:/path".
        timeout: Seconds; None for as long as it takes.
        token: The server's secret; None means the user's token file.

    Returns:
        False if nobody answers in time, or what answers is something else.

    Raises:
        AddressError: If the address cannot be meant; it is a ValueError too.
    """
    address = parse_address(address)
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            return False
        try:
            return bool(_ask(address, "ping", left, token).get("ok"))
        except RemoteProtocolError:
            return False
        except ConnectionFailed as exc:
            if not isinstance(exc.__cause__, OSError):
                return False  # it is there and will not have us
        except FarmError:
            return False
        pause = RETRY_SECONDS if until is None else min(RETRY_SECONDS, until - time.monotonic())
        if pause > 0:
            time.sleep(pause)


def end_server(
    address: AddressLike, timeout: float = 10.0, *, token: bytes | str | None = None
) -> None:
    """
    Have a server end: it takes no new clients, and ends when those it has are done.

    Comes from lfarm's end-server.

    Args:
        address: Where it is.
        timeout: Seconds to wait for its answer.
        token: The server's secret; None means the user's token file.

    Raises:
        ConnectionFailed: If it does not answer, or refuses.
    """
    _ask(address, "end", timeout, token)


def server_status(
    address: AddressLike, timeout: float = 10.0, *, token: bytes | str | None = None
) -> dict[str, Any]:
    """
    Ask a server what it is and what it does.

    Args:
        address: Where it is.
        timeout: Seconds to wait for its answer.
        token: The server's secret; None means the user's token file.

    Returns:
        ``host``, ``pid``, ``python``, ``slots``, ``busy`` (slots in use), ``ending``, ``uptime``
        (seconds) and ``sessions``, a list with a dict for each client.

    Raises:
        ConnectionFailed: If it does not answer, or refuses.
    """
    return _ask(address, "status", timeout, token)


def _ask(
    given: AddressLike, op: str, timeout: float | None, token: bytes | str | None
) -> dict[str, Any]:
    """Connect, prove who we are, ask, and return the answer."""
    address = parse_address(given)
    secret = token.encode() if isinstance(token, str) else token
    until = None if timeout is None else time.monotonic() + timeout
    try:
        with _connect(address, timeout) as sock:
            mechanism = Remote(address, secret).mechanism()
            link = Link("client", str(address), mechanism, time.monotonic(), limit=LIMIT)
            while link.state is not LinkState.OPEN:
                _exchange(sock, link, until)
            link.outbox.put(make_frame(Kind.ADMIN, body=encode_fields({"op": op})))
            frames: list[Frame] = []
            while not frames:
                frames = _exchange(sock, link, until)
    except OSError as exc:
        if isinstance(exc, ConnectionFailed):
            raise
        reason = "no answer in time" if isinstance(exc, TimeoutError) else str(exc)
        raise ConnectionFailed(str(address), reason) from exc
    if frames[0].kind != Kind.REPLY:
        raise RemoteProtocolError(f"{address} answers with a message of kind {frames[0].kind}")
    fields: dict[str, Any] = decode_fields(frames[0].body)
    if "error" in fields:
        raise ConnectionFailed(str(address), str(fields["error"]))
    return fields


def _connect(address: Any, timeout: float | None) -> socket.socket:
    if address.kind == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(address.path)
        except BaseException:
            sock.close()
            raise
        return sock
    return socket.create_connection((address.host, address.port), timeout)


def _exchange(sock: socket.socket, link: Link, until: float | None) -> list[Frame]:
    """Write what is to be written, then read once."""
    if until is not None:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        sock.settimeout(left)
    while link.outbox.size:
        link.outbox.sent(sock.send(link.outbox.chunk()[0]))
    count = sock.recv_into(link.get_buffer())
    if not count:
        raise ConnectionResetError("it closed the connection")
    return link.received(count, time.monotonic())
