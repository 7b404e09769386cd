"""
Servers on other hosts for whoever is on this one: lfarm's launcher, over SSH.

An executor without tasks keeps the servers alive and the connections up. Beside it listens a port
of the loopback for each of them, through which other processes of the user reach it::

    other process  --proves the user's token-->  port | link to the host --proves--> server
                                                  here                   that server's own secret

Each server has a secret of its own, which is good for nothing else, and nobody there gets to see
the user's token: who controls one host can pose neither as the user at another nor as another to
the user. So the port here takes part in both proofs. What comes after them it passes on unopened.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from remote_executor.client.executor import FarmExecutor
from remote_executor.client.peer import PeerState
from remote_executor.errors import FarmError
from remote_executor.launch.hosts import SSHHost, parse_hosts
from remote_executor.launch.local import end_all
from remote_executor.launch.ssh import Plan, SSHWay, spawn
from remote_executor.net.addresses import Address, parse_address
from remote_executor.net.streams import listen
from remote_executor.net.tokens import Token, secrets_of
from remote_executor.wire.link import Link, LinkState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from remote_executor.launch.hosts import HostLike
    from remote_executor.net.addresses import AddressLike
    from remote_executor.net.security import AuthLike, TLSLike
    from remote_executor.wire.auth import Mechanism

__all__ = ["Diagnosis", "RemoteServers", "end_remote_servers", "examine", "start_remote_servers"]

log = logging.getLogger("remote_executor.client")

CHUNK = 256 * 1024
HANDSHAKE_SECONDS = 10.0
MOST_COMING = 64
"""Clients at one port that have proved nothing yet: each has a thread."""

JOIN_SECONDS = 5.0
MOST_EXAMINED = 8


class RemoteServers:
    """
    Servers that were started together over SSH. Use it in a ``with`` statement, or :meth:`stop` it.

    They end with this process, however that ends.

    Attributes:
        hosts: Where they run, as text.
        addresses: Where each can be reached from this host: for ``FarmExecutor(addresses=...)``.
    """

    def __init__(self, executor: FarmExecutor, ways: list[SSHWay], token: Token) -> None:
        self._executor = executor
        self._doors = []
        try:
            known = token.server()
            for way in ways:
                self._doors.append(_Door(way, known))
        except BaseException:
            self.stop()
            raise
        self.hosts: list[str] = [way.name for way in ways]
        self.addresses: list[Address] = [door.address for door in self._doors]

    def __repr__(self) -> str:
        return f"<RemoteServers {', '.join(self.hosts)}>"

    def __len__(self) -> int:
        return len(self.addresses)

    def _lost(self) -> list[str]:
        """Return the hosts that cannot be reached now."""
        driver = self._executor._driver
        states = {peer.name: peer.state for peer, _ in driver.peers()}
        return [host for host in self.hosts if states.get(host) is not PeerState.UP]

    def join(self, timeout: float | None = None) -> bool:
        """
        Wait until no server is left.

        Args:
            timeout: Seconds; None means for ever.

        Returns:
            Whether none is.
        """
        driver = self._executor._driver
        until = None if timeout is None else time.monotonic() + timeout
        return driver.wait_for_change(lambda: False, until)

    def stop(self) -> None:
        """End them all, with what they run."""
        for door in self._doors:
            door.close()
        self._executor.shutdown(cancel_futures=True)

    def __enter__(self) -> RemoteServers:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def start_remote_servers(
    hosts: Iterable[HostLike],
    *,
    min_servers: int | None = None,
    auth: bytes | str | None = None,
    client: str = "paramiko",
    host_keys: str = "strict",
    ssh_config: str | None = None,
    session_grace: float = 60.0,
    connect_timeout: float | None = 120.0,
    preload: Iterable[str] = (),
    **defaults: Any,
) -> RemoteServers:
    """
    Start servers on other hosts over SSH, for executors of this and other processes here.

    Args:
        hosts: As for ``FarmExecutor.spawn_over_ssh``.
        min_servers: How many must start; None means all of them: if one does not, the others are
            ended again.
        auth: The secret that clients here must know; None means the user's token file. It does not
            leave this host: each server has a secret of its own.
        client: "paramiko", "openssh" or "auto"; see :meth:`FarmExecutor.spawn_over_ssh`.
        host_keys: "strict" or "accept-new".
        ssh_config: A file to read instead of ``~/.ssh/config`` and the system's.
        session_grace: Seconds after which a server ends that cannot be reached from here.
        connect_timeout: Seconds after which a host that has not got there is not waited for.
        preload: Modules that a server imports once, before it makes workers.
        defaults: For hosts that do not say otherwise, as for :class:`~remote_executor.SSHHost`.

    Returns:
        The servers; all of them answer.

    Raises:
        LaunchFailed: If too many of them cannot start.
        AddressError: If a host cannot be meant; it is a ValueError too.
        OSError, ValueError: If there is no token, or ``auth`` cannot be one.
    """
    token = Token() if auth is None else Token(*secrets_of(auth))
    token.server()  # what is wrong with it is to be said before anything is started
    plan = Plan(
        client=client,
        host_keys=host_keys,
        ssh_config=ssh_config,
        grace=session_grace,
        preload=tuple(preload),
        connect_timeout=connect_timeout,
    )
    parsed = parse_hosts(hosts, SSHHost("default", **defaults))
    executor, ways = spawn(
        lambda ways: FarmExecutor(addresses=ways, session_grace=session_grace),
        parsed,
        plan,
        min_servers=len(parsed) if min_servers is None else min_servers,
        timeout=connect_timeout,
        settle=True,
    )
    up = {peer.name for peer, server in executor._driver.peers() if server.up}
    return RemoteServers(executor, [way for way in ways if way.name in up], token)


def end_remote_servers(
    servers: RemoteServers | Iterable[AddressLike],
    *,
    auth: AuthLike = None,
    tls: TLSLike = None,
) -> None:
    """
    End servers that were started over SSH. One that cannot be reached is a warning.

    Args:
        servers: What :func:`start_remote_servers` returned: they are ended at once. Or addresses:
            they end when their clients are done.
        auth: How they know us, for addresses; as for :class:`FarmExecutor`.
        tls: Whether and how to speak TLS, for addresses; as for :class:`FarmExecutor`.

    Raises:
        AddressError: If an address cannot be meant.
    """
    if not isinstance(servers, RemoteServers):
        end_all(servers, auth, tls)
        return
    for host in servers._lost():
        warnings.warn(
            f"the server on {host} cannot be reached: it ends by itself",
            RuntimeWarning,
            stacklevel=2,
        )
    servers.stop()


class _Door:
    """
    A port of the loopback that leads to a server.

    Args:
        way: The way to it.
        known: Makes this end's part in the proofs of clients.
    """

    def __init__(self, way: SSHWay, known: Callable[[], Mechanism]) -> None:
        self._way = way
        self._known = known
        self._listener = listen(parse_address("127.0.0.1:0"))
        self._listener.settimeout(None)
        self.address = Address("tcp", *self._listener.getsockname()[:2])
        self._closing = False
        self._pairs: dict[tuple[socket.socket, socket.socket], list[threading.Thread]] = {}
        self._coming: dict[socket.socket, None] = {}
        """Clients that have proved nothing yet."""
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"door {way.name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if len(self._coming) >= MOST_COMING:
                    near.close()
                    continue
                self._coming[near] = None
            threading.Thread(target=self._let_in, args=(near,), daemon=True).start()

    def _let_in(self, near: socket.socket) -> None:
        """Have a client prove who it is, prove who we are to the server, and join the two."""
        far: socket.socket | None = None
        try:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _shake_hands(near, "server", self._known())
            far = self._way.another_stream()
            _shake_hands(far, "client", self._way.mechanism())
        except (OSError, FarmError) as exc:
            # Refused, or gone; whoever has failed has been told. It may try again.
            log.info("! %s: a client was not let in: %s", self._way.name, exc)
            near.close()
            if far is not None:
                far.close()
            return
        finally:
            with self._lock:
                self._coming.pop(near, None)
        pair = near, far
        threads = [
            threading.Thread(target=self._copy, args=(pair, *ends), daemon=True)
            for ends in ((near, far), (far, near))
        ]
        with self._lock:
            self._pairs[pair] = threads
            closing = self._closing
        for thread in threads:
            thread.start()
        if closing:
            _hang_up(pair)

    def _copy(
        self, pair: tuple[socket.socket, socket.socket], source: socket.socket, sink: socket.socket
    ) -> None:
        buffer = memoryview(bytearray(CHUNK))
        try:
            while count := source.recv_into(buffer):
                sink.sendall(buffer[:count])
        except OSError:
            pass
        # The end of one way is the end of both; whoever is last gives the sockets back.
        _hang_up(pair)
        with self._lock:
            threads = self._pairs.get(pair, [])
            others = [thread for thread in threads if thread is not threading.current_thread()]
            if any(thread.is_alive() for thread in others):
                threads.remove(threading.current_thread())
                return
            self._pairs.pop(pair, None)
        for each in pair:
            each.close()

    def close(self) -> None:
        """Hang up everywhere and end."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(JOIN_SECONDS)
        self._listener.close()
        with self._lock:
            pairs = [(pair, list(threads)) for pair, threads in self._pairs.items()]
            coming = tuple(self._coming)
        _hang_up(coming)
        for pair, threads in pairs:
            _hang_up(pair)
            for thread in threads:
                thread.join(JOIN_SECONDS)


def _hang_up(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _shake_hands(sock: socket.socket, role: str, mechanism: Mechanism) -> None:
    """
    Do one end's part in the handshake of a link, and not a byte more.

    Args:
        sock: It blocks.
        role: "client" or "server".
        mechanism: What this end says.

    Raises:
        FarmError: If one of the two does not believe the other.
        OSError: If it takes too long, or the stream ends.
    """
    link = Link(
        role,
        "a client" if role == "server" else "the server",
        mechanism,
        0.0,
        nonce=os.urandom(32),
        limit=0,
    )
    until = time.monotonic() + HANDSHAKE_SECONDS
    try:
        _write_out(sock, link)
        while link.state is not LinkState.OPEN:
            sock.settimeout(max(0.001, until - time.monotonic()))
            # One byte at a time: what comes after the last one is not ours to read.
            if not sock.recv_into(link.get_buffer(), 1):
                raise ConnectionResetError("it closed the connection")
            try:
                link.received(1, 0.0)
            finally:
                _write_out(sock, link)  # also why it is refused
    finally:
        sock.settimeout(None)


def _write_out(sock: socket.socket, link: Link) -> None:
    while link.outbox.size:
        chunk = b"".join(link.outbox.chunk())
        sock.sendall(chunk)
        link.outbox.sent(len(chunk))


# --------------------------------------------------------------------------- doctor


@dataclass(frozen=True)
class Diagnosis:
    """
    How the launch on a host went.

    Attributes:
        host: The host.
        stages: Each stage that was entered, and how many seconds it took.
        error: Why it failed; None if all is well.
        python: The version there.
        workers: How many tasks it runs at a time.
    """

    host: str
    stages: tuple[tuple[str, float], ...]
    error: FarmError | None
    python: str = ""
    workers: int = 0


def examine(
    hosts: Iterable[HostLike],
    *,
    client: str = "paramiko",
    host_keys: str = "strict",
    ssh_config: str | None = None,
    connect_timeout: float = 120.0,
    **defaults: Any,
) -> Iterator[Diagnosis]:
    """
    Try to start a server on each host and to run a task there, and end it again.

    Args:
        hosts: As for ``FarmExecutor.spawn_over_ssh``.
        client: "paramiko", "openssh" or "auto"; see :meth:`FarmExecutor.spawn_over_ssh`.
        host_keys: "strict" or "accept-new".
        ssh_config: A file to read instead of ``~/.ssh/config`` and the system's.
        connect_timeout: Seconds for each host.
        defaults: For hosts that do not say otherwise, as for :class:`~remote_executor.SSHHost`.

    Returns:
        How it went, in the order of the hosts.

    Raises:
        AddressError: If a host cannot be meant; it is a ValueError too.
    """
    plan = Plan(
        client=client,
        host_keys=host_keys,
        ssh_config=ssh_config,
        connect_timeout=connect_timeout,
    )
    parsed = parse_hosts(hosts, SSHHost("default", **defaults))
    with ThreadPoolExecutor(MOST_EXAMINED) as pool:
        yield from pool.map(lambda host: _examine(host, plan, connect_timeout), parsed)


def _examine(host: SSHHost, plan: Plan, timeout: float) -> Diagnosis:
    entered: list[tuple[str, float]] = [("configuration", time.monotonic())]

    def stages() -> tuple[tuple[str, float], ...]:
        ends = [when for _, when in entered[1:]] + [time.monotonic()]
        return tuple((name, end - when) for (name, when), end in zip(entered, ends, strict=True))

    try:
        executor, _ = spawn(
            lambda ways: FarmExecutor(addresses=ways),
            [host],
            plan,
            min_servers=1,
            timeout=timeout,
            report=lambda _, stage: entered.append((stage, time.monotonic())),
        )
    except FarmError as exc:
        return Diagnosis(str(host), stages(), exc)
    with executor:
        entered.append(("a task", time.monotonic()))
        try:
            executor.submit(os.getpid).result(timeout)
        except FarmError as exc:
            return Diagnosis(str(host), stages(), exc)
        (server,) = executor.status().servers
        return Diagnosis(str(host), stages(), None, server.python, server.slots)
