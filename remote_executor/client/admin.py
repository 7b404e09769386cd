"""
Calls to a server that need no executor: is it there, what does it do, end it.

Each is a short connection of its own, so it never waits behind tasks (PARITY D9), and it
authenticates as everybody does (A11).
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from remote_executor.client.peer import LIMIT
from remote_executor.client.ways import Remote
from remote_executor.errors import ConnectionFailed, FarmError, RemoteProtocolError
from remote_executor.net.addresses import parse_address
from remote_executor.printable import printable
from remote_executor.wire.frames import make_frame
from remote_executor.wire.link import Link, LinkState
from remote_executor.wire.messages import Kind, decode_fields, encode_fields

if TYPE_CHECKING:
    from remote_executor.net.addresses import AddressLike
    from remote_executor.net.security import AuthLike, TLSLike
    from remote_executor.net.streams import Stream
    from remote_executor.wire.frames import Frame

__all__ = ["drain_server", "end_server", "ping", "server_status", "why_no_answer"]

NOTHING: Mapping[str, Any] = {}
RETRY_SECONDS = 0.1
ANSWER_SECONDS = 10.0
END_SECONDS = 10.0
"""Beyond its time a server that drains may take so long to end its workers."""


def ping(
    address: AddressLike,
    timeout: float | None = 3.0,
    *,
    auth: AuthLike = None,
    tls: TLSLike = None,
) -> bool:
    """
    Tell whether a server answers, and will have us. Comes from lfarm's ping.

    Tries again until the time is over, so it also waits for a server that is starting.

    Args:
        address: "host:port", ("host", port), "unix:/path".
        timeout: Seconds; None for as long as it takes.
        auth: How the server knows us; as for :class:`FarmExecutor`.
        tls: Whether and how to speak TLS; as for :class:`FarmExecutor`.

    Returns:
        False if nobody answers in time, or what answers is something else.

    Raises:
        AddressError: If the address cannot be meant; it is a ValueError too.
    """
    return why_no_answer(address, timeout, auth=auth, tls=tls) is None


def why_no_answer(
    address: AddressLike,
    timeout: float | None = 3.0,
    *,
    auth: AuthLike = None,
    tls: TLSLike = None,
) -> FarmError | None:
    """
    Ping a server, and tell why that fails.

    Args:
        address: As for :func:`ping`, and so the others.
        timeout: Seconds.
        auth: How the server knows us.
        tls: Whether and how to speak TLS.

    Returns:
        None if it answers and will have us, otherwise the last that went wrong.

    Raises:
        AddressError: If the address cannot be meant.
    """
    address = parse_address(address)
    until = None if timeout is None else time.monotonic() + timeout
    error: FarmError = ConnectionFailed(str(address), "no answer in time")
    while True:
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            return error
        try:
            _ask(address, "ping", left, auth, tls)
        except ConnectionFailed as exc:
            if not isinstance(exc.__cause__, OSError):
                return exc  # it is there and will not have us
            error = exc
        except FarmError as exc:
            return exc
        else:
            return None
        pause = RETRY_SECONDS if until is None else min(RETRY_SECONDS, until - time.monotonic())
        if pause > 0:
            time.sleep(pause)


def end_server(
    address: AddressLike, timeout: float = 10.0, *, auth: AuthLike = None, tls: TLSLike = None
) -> None:
    """
    Have a server end: it takes no new clients, and ends when those it has are done.

    Comes from lfarm's end-server.

    Args:
        address: Where it is.
        timeout: Seconds to wait for its answer.
        auth: How the server knows us; as for :class:`FarmExecutor`.
        tls: Whether and how to speak TLS; as for :class:`FarmExecutor`.

    Raises:
        ConnectionFailed: If it does not answer, or refuses.
    """
    _ask(address, "end", timeout, auth, tls)


def drain_server(
    address: AddressLike,
    timeout: float | None = None,
    *,
    wait: bool = False,
    auth: AuthLike = None,
    tls: TLSLike = None,
) -> bool:
    """
    Have a server finish what it has begun, give the rest back to its clients, and end.

    It takes no new clients and no more tasks. What waits there runs on the clients' other servers;
    a client that has no other tries this address until a server is there again.

    Args:
        address: Where it is.
        timeout: Seconds after which it ends whatever runs there; None for as long as it takes.
        wait: Return only when it is gone.
        auth: How the server knows us; as for :class:`FarmExecutor`.
        tls: Whether and how to speak TLS; as for :class:`FarmExecutor`.

    Returns:
        Whether it is gone, if ``wait``; otherwise True.

    Raises:
        ConnectionFailed: If it does not answer, or refuses.
    """
    _ask(address, "drain", ANSWER_SECONDS, auth, tls, {"timeout": timeout})
    if not wait:
        return True
    until = None if timeout is None else time.monotonic() + timeout + END_SECONDS
    while until is None or time.monotonic() < until:
        try:
            _ask(address, "ping", ANSWER_SECONDS, auth, tls)
        except ConnectionFailed as exc:
            if isinstance(exc.__cause__, OSError):
                return True  # nobody is there any more
        time.sleep(RETRY_SECONDS)
    return False


def server_status(
    address: AddressLike, timeout: float = 10.0, *, auth: AuthLike = None, tls: TLSLike = None
) -> dict[str, Any]:
    """
    Ask a server what it is and what it does.

    Args:
        address: Where it is.
        timeout: Seconds to wait for its answer.
        auth: How the server knows us; as for :class:`FarmExecutor`.
        tls: Whether and how to speak TLS; as for :class:`FarmExecutor`.

    Returns:
        ``host``, ``pid``, ``python``, ``slots``, ``busy`` (slots in use), ``ending``, ``uptime``
        (seconds) and ``sessions``, a list with a dict for each client: ``client``, ``connected``
        (False while it is cut off), ``workers``, ``queued`` and ``running`` (tasks).

    Raises:
        ConnectionFailed: If it does not answer, or refuses.
    """
    return _ask(address, "status", timeout, auth, tls)


def _ask(
    given: AddressLike,
    op: str,
    timeout: float | None,
    auth: AuthLike,
    tls: TLSLike,
    asked: Mapping[str, Any] = NOTHING,
) -> dict[str, Any]:
    """Connect, prove who we are, ask, and return the answer."""
    address = parse_address(given)
    way = Remote(address, auth, tls)
    until = None if timeout is None else time.monotonic() + timeout
    try:
        with _connect(address, timeout) as sock:
            stream = way.stream(sock)
            link = Link(
                "client",
                str(address),
                way.mechanism(),
                time.monotonic(),
                nonce=os.urandom(32),
                channel=stream.channel,
                limit=LIMIT,
            )
            while link.state is not LinkState.OPEN:
                _exchange(stream, link, until)
            link.outbox.put(make_frame(Kind.ADMIN, body=encode_fields({"op": op, **asked})))
            frames: list[Frame] = []
            while not frames:
                frames = _exchange(stream, link, until)
    except OSError as exc:
        if isinstance(exc, ConnectionFailed):
            raise
        reason = "no answer in time" if isinstance(exc, TimeoutError) else str(exc)
        raise ConnectionFailed(str(address), reason) from exc
    if frames[0].kind != Kind.REPLY:
        raise RemoteProtocolError(f"{address} answers with a message of kind {frames[0].kind}")
    fields: dict[str, Any] = decode_fields(frames[0].body)
    if "error" in fields:
        raise ConnectionFailed(str(address), printable(fields["error"], 300))
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


def _exchange(stream: Stream, link: Link, until: float | None) -> list[Frame]:
    """Write what is to be written, and wait until something comes."""
    outbox = link.outbox
    while True:
        while outbox.size:
            sent = stream.send(outbox.chunk())
            if not sent:
                break
            outbox.sent(sent)
        count = stream.receive(link.get_buffer())
        if not count:
            raise ConnectionResetError("it closed the connection")
        if count > 0:
            return link.received(count, time.monotonic())
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        writes = select.POLLOUT if outbox.size and not stream.waiting else 0
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLIN | writes)
        poll.poll(None if left is None else left * 1000)
