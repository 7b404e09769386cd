"""
Servers on hosts that are reached over SSH: started when they are needed, ended with their client.

::

    Peer --open--> SSHWay --(thread)--> connect, boot --> server --+
                     |                                             |
                     +------- stream through the connection <------+

A way keeps one SSH connection. When that is cut, the next stream goes over a new one to the same
server, which waits for us; only if the server is gone is another one started.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import shutil
import socket
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from remote_executor.client.troubles import Step, may_pass
from remote_executor.client.ways import Remote
from remote_executor.errors import FarmError, LaunchFailed
from remote_executor.launch.bootstrap import boot_command, bundle, first_stage
from remote_executor.launch.clients import NotForwarded, ServerGone, Unsteady
from remote_executor.launch.stages import MARK, Dialogue, Progress
from remote_executor.net.addresses import Address, parse_address
from remote_executor.net.certificates import self_made
from remote_executor.net.streams import DistantStream, Stream
from remote_executor.net.tokens import Token, make_token
from remote_executor.task_errors import NoServerError
from remote_executor.wire.messages import encode_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from remote_executor.client.driver import Driver
    from remote_executor.client.executor import FarmExecutor
    from remote_executor.launch.clients import Client, Connection, Run
    from remote_executor.launch.hosts import CommandHost, SSHHost
    from remote_executor.net.loop import Loop
    from remote_executor.wire.auth import Mechanism

__all__ = [
    "Plan",
    "SSHWay",
    "spawn",
    "wait_for_servers",
]

log = logging.getLogger("remote_executor.client")

E = TypeVar("E", bound="FarmExecutor")
T = TypeVar("T")

CLIENTS = ("paramiko", "openssh", "auto")

BOOT_SECONDS = 60.0
LAST_WORDS_SECONDS = 2.0
TRIES = 5
FIRST_PAUSE = 0.2
STREAM_SECONDS = 5.0
CLOSE_SECONDS = 5.0
"""How long the ways of a farm wait at their end for servers that were told to end."""

LEAST_CLOSE_SECONDS = 0.5


@dataclass(frozen=True)
class Plan:
    """
    What all hosts of a farm have in common.

    Attributes:
        client: "paramiko", "openssh" or "auto".
        host_keys: "strict" or "accept-new".
        ssh_config: A configuration to read instead of the usual ones.
        grace: Seconds for which a server waits for a client that is cut off.
        preload: Modules that a server imports before it makes workers.
        connect_timeout: Seconds after which nobody waits any more.
        tunnel: Whether all goes through the SSH connection. Otherwise it starts the server and
            tells it the secret and a certificate, and tasks go straight to the host, over TLS.
    """

    client: str = "paramiko"
    host_keys: str = "strict"
    ssh_config: str | None = None
    grace: float = 60.0
    preload: tuple[str, ...] = ()
    connect_timeout: float | None = None
    tunnel: bool = True

    @property
    def boot_seconds(self) -> float:
        """How long a host may take from the login to its server, so that it is said in time."""
        if self.connect_timeout is None:
            return BOOT_SECONDS
        return min(BOOT_SECONDS, 0.8 * self.connect_timeout)

    def __post_init__(self) -> None:
        if self.client not in CLIENTS:
            raise ValueError(f"client must be 'paramiko', 'openssh' or 'auto', not {self.client!r}")
        if self.host_keys not in ("strict", "accept-new"):
            raise ValueError(f"host_keys must be 'strict' or 'accept-new', not {self.host_keys!r}")
        if self.ssh_config is not None and not os.path.isfile(self.ssh_config):
            raise ValueError(f"there is no ssh_config {self.ssh_config}")

    def make_client(self) -> Client:
        """
        Return the client that is meant.

        Raises:
            ImportError: If paramiko is not installed.
            ValueError: If there is no program ssh.
        """
        openssh = shutil.which("ssh") is not None
        paramiko = importlib.util.find_spec("paramiko") is not None
        if self.client == "openssh" or (openssh and not paramiko):
            from remote_executor.launch.openssh_client import OpenSSHClient

            if self.client == "paramiko":
                log.info("the program ssh is used, since paramiko is not installed")
            return OpenSSHClient(self.host_keys, self.ssh_config)
        if not paramiko:
            raise ImportError(
                "spawning over SSH needs paramiko (pip install 'paramiko>=3.4') or a program ssh "
                "(Debian's package openssh-client)",
                name="paramiko",
            )
        if self.client == "auto" and openssh:
            from remote_executor.launch.auto_client import AutoClient

            return AutoClient(self.host_keys, self.ssh_config)
        from remote_executor.launch.paramiko_client import ParamikoClient

        return ParamikoClient(self.host_keys, self.ssh_config)


def spawn(
    make: Callable[[list[SSHWay]], E],
    hosts: Sequence[SSHHost | CommandHost],
    plan: Plan,
    *,
    min_servers: int,
    timeout: float | None,
    settle: bool = False,
    report: Callable[[Any, str], None] | None = None,
    client: Client | None = None,
) -> tuple[E, list[SSHWay]]:
    """
    Start a server on each host, and return an executor that uses them.

    Args:
        make: Makes the executor, given the ways to its servers.
        hosts: The hosts.
        plan: What they have in common.
        min_servers: How many must serve.
        timeout: Seconds after which it fails; None for as long as it takes.
        settle: Wait until all of them serve or have failed.
        report: Called, in any thread, with each host and each stage that it enters.
        client: Makes the connections; None means the plan's.

    Returns:
        The executor, and the ways to its servers.

    Raises:
        ImportError, ValueError: If the plan's client cannot be had.
        LaunchFailed, NoServerError: As :func:`wait_for_servers`.
    """
    if not 1 <= min_servers <= len(hosts):
        raise ValueError(f"min_servers must be from 1 to the number of hosts, {len(hosts)}")
    client = client or plan.make_client()
    together = Together()
    ways = [SSHWay(host, client, plan, together, report) for host in hosts]
    executor = make(ways)
    wait_for_servers(executor._driver, ways, min_servers, timeout, settle)
    return executor, ways


class Together:
    """What the ways of one farm share."""

    def __init__(self) -> None:
        self._until: float | None = None

    def patience(self) -> float:
        """
        Return for how many seconds a way may wait at its end.

        All were told to end at the same time, so what one has waited the next need not.
        """
        if self._until is None:
            self._until = time.monotonic() + CLOSE_SECONDS
        return max(LEAST_CLOSE_SECONDS, self._until - time.monotonic())


class SSHWay:
    """
    The way to a server that we start on a host; see :class:`remote_executor.client.ways.Way`.

    Args:
        host: Where.
        client: Makes connections.
        plan: What all hosts have in common.
        together: What it shares with others.
        report: Called with the host and each stage that is entered.

    Attributes:
        launches: Whoever answers was started by us; see :class:`remote_executor.client.ways.Way`.
    """

    launches = True

    def __init__(
        self,
        host: SSHHost | CommandHost,
        client: Client,
        plan: Plan,
        together: Together,
        report: Callable[[Any, str], None] | None = None,
    ) -> None:
        self.host = host
        self.name = str(host)
        self._client = client
        self._plan = plan
        self._together = together
        self._report = report
        self._secret = b""
        self._remote: Remote | None = None
        """The server, if it is spoken to directly."""
        self._address: Address | None = None
        self._served = False
        self._connection: Connection | None = None
        self._run: Run | None = None
        self._closed = False
        self._progress: Progress | None = None
        self._lock = threading.Lock()
        self._dialling = False
        self._done: Callable[[socket.socket | BaseException], None] | None = None
        """Who is told next."""
        self._outcome: socket.socket | BaseException | None = None
        """What the thread that dials has got, until the loop's thread takes it."""
        self._thread: threading.Thread | None = None
        _ways.add(self)

    def __repr__(self) -> str:
        return f"<SSHWay {self.name} to {self._address}>"

    def mechanism(self) -> Mechanism:
        """Return the client's part in the proof of the secret that the server was given."""
        return Token(self._secret).client(self.host.name)

    def stream(self, sock: socket.socket) -> Stream:
        """Return the socket as a stream, with TLS around it if it does not go through SSH."""
        return DistantStream(sock) if self._remote is None else self._remote.stream(sock)

    def wishes(self) -> dict[str, Any]:
        """Nothing: a server elsewhere has paths of its own."""
        return {}

    def _tell(self, stage: str) -> None:
        if self._report is not None:
            self._report(self.host, stage)

    # ------------------------------------------------------------------- opening

    def open(self, loop: Loop, done: Callable[[socket.socket | BaseException], None]) -> None:
        """Connect, and start the server if there is none, in a thread of its own."""
        with self._lock:
            self._done = done
            if self._dialling:
                return  # what that brings is as good
            self._dialling = True
        self._thread = threading.Thread(
            target=self._dial, args=(loop,), name=f"ssh {self.name}", daemon=True
        )
        self._thread.start()

    def _dial(self, loop: Loop) -> None:
        error: BaseException | None = None
        sock = None
        progress = self._progress = Progress(self.host, self._plan.ssh_config, self._tell)
        try:
            sock = self.reach(progress)
        except LaunchFailed as exc:
            error = exc
        except Exception as exc:
            words = str(exc) if isinstance(exc, OSError) else f"{type(exc).__name__}: {exc}"
            error = progress.failure(words, may_pass=may_pass(exc, Step.LAUNCH))
            error.__cause__ = exc
        except BaseException as exc:  # whatever it was: the loop waits for an outcome
            error = exc
        self._drop_outcome()
        with self._lock:
            self._outcome = sock if error is None else error
            self._dialling = False
            closed = self._closed
        if closed:
            self._drop_outcome()
        else:
            loop.post(self._hand_over)

    def _hand_over(self) -> None:
        with self._lock:
            outcome, self._outcome = self._outcome, None
            done = self._done
        if outcome is not None and done is not None:
            done(outcome)

    def _drop_outcome(self) -> None:
        with self._lock:
            outcome, self._outcome = self._outcome, None
        if outcome is not None and not isinstance(outcome, BaseException):
            outcome.close()

    def reach(self, progress: Progress) -> socket.socket:
        """
        Return a socket that leads to the server, which is started if there is none.

        Args:
            progress: Told of each stage.

        Raises:
            LaunchFailed: If there can be none.
            OSError: If the connection broke.
        """
        if self._address is not None:
            try:
                return self._stream_to(self._address, progress)
            except ServerGone:
                self._forget_server()
        self._start(progress)
        assert self._address is not None
        try:
            return self._stream_to(self._address, progress)
        except ServerGone as exc:
            reason = f"the server that was started cannot be reached: {exc}"
            raise progress.failure(reason, stage="port") from exc

    def another_stream(self) -> socket.socket:
        """
        Return one more socket that leads to the server.

        Raises:
            OSError: If there is no connection now, or the server is gone.
        """
        with self._lock:
            connection, address = self._connection, self._address
        if connection is None or address is None:
            raise ConnectionError(f"there is no connection to {self.name}")
        try:
            return connection.open_stream(address, STREAM_SECONDS)
        except (NotForwarded, ServerGone) as exc:
            raise ConnectionError(f"{self.name}: {exc}") from exc

    def _stream_to(self, address: Address, progress: Progress) -> socket.socket:
        """Open a stream, over a new connection if the one there is proves dead."""
        if not self._plan.tunnel:
            return self._connect_to(address, progress)
        connection = self._connection
        if connection is not None and connection.is_alive():
            try:
                return self._open_stream(connection, address, progress)
            except LaunchFailed:
                raise  # it is an OSError, too
            except OSError:
                pass  # it is dead, and nobody had noticed
        connection = self._connect(progress, address, None)
        return self._open_stream(connection, address, progress)

    def _open_stream(
        self, connection: Connection, address: Address, progress: Progress
    ) -> socket.socket:
        try:
            sock = connection.open_stream(address, STREAM_SECONDS)
        except NotForwarded as exc:
            raise progress.failure(
                f"the SSH server does not forward to {address}: {exc} (AllowTcpForwarding, "
                "AllowStreamLocalForwarding or PermitOpen in its sshd_config; tunnel=False needs "
                "none of them)",
                stage="port",
            ) from exc
        self._served = True
        return sock

    def _connect_to(self, address: Address, progress: Progress) -> socket.socket:
        """Connect straight to the server."""
        try:
            host = _as_seen_from_here(address.host, self.host.name)
            sock = socket.create_connection((host, address.port), STREAM_SECONDS)
        except ConnectionRefusedError as exc:
            raise ServerGone(f"{address}: {exc}") from exc
        except OSError as exc:
            if self._served:
                raise
            reason = f"{address} cannot be reached directly: {exc}; tunnel=True goes through SSH"
            raise progress.failure(reason, stage="port") from exc
        self._served = True
        return sock

    def _forget_server(self) -> None:
        self._address = None
        self._run = None
        self._drop_connection()

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(
        self, progress: Progress, address: Address | None, command: str | None
    ) -> Connection:
        """Connect; again after a while if the SSH server is busy or the line is bad."""

        def connect() -> Connection:
            self._drop_connection()
            self._check_open()
            return self._client.connect(self.host, progress, address, command)

        connection = self._steadily(connect, progress)
        with self._lock:
            self._connection = connection
        try:
            self._check_open()
        except ConnectionAbortedError:
            connection.close()
            raise
        return connection

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionAbortedError("the executor was shut down")

    def _steadily(self, attempt: Callable[[], T], progress: Progress) -> T:
        """Try again, later and later, what has failed for no reason that lasts."""
        pause = FIRST_PAUSE
        for _ in range(TRIES - 1):
            try:
                return attempt()
            except Unsteady:
                # Not all at the same time, or the same ones would be dropped again.
                time.sleep(pause * random.uniform(0.5, 1.5))
                pause *= 2
        try:
            return attempt()
        except Unsteady as exc:
            raise progress.failure(f"{exc} ({TRIES} times)") from exc

    # ------------------------------------------------------------------- starting

    def _start(self, progress: Progress) -> None:
        """Start a server."""
        self._steadily(lambda: self._boot(progress), progress)
        progress.enter("port")

    def _boot(self, progress: Progress) -> None:
        """Connect, send what a server needs, and learn where it listens."""
        secret = make_token()  # for this server alone: never what another host could use
        connection = self._connect(progress, None, boot_command(self.host))
        run = connection.run
        assert run is not None
        progress.enter("boot")
        library = bundle()
        config = {
            "mark": MARK,
            "secret": secret.decode("latin-1"),
            "places": list(connection.places) if self._plan.tunnel else ["direct"],
            "workers": self.host.workers,
            "env": dict(self.host.env or {}),
            "preload": list(self._plan.preload),
            "grace": self._plan.grace,
            "log_file": self.host.log_file,
            "log_level": "warning" if self.host.log_file is None else "info",
            "zip_size": len(library.data),
            "certificate": None if self._plan.tunnel else _certificate(self.name),
        }

        def last_words() -> str:
            run.wait(LAST_WORDS_SECONDS)
            return run.stderr()

        dialogue = Dialogue(progress, last_words)
        try:
            run.write(first_stage(library.digest))
            until = time.monotonic() + self._plan.boot_seconds
            self._listen(run, dialogue, until, lambda: dialogue.python is not None)
            run.write(encode_fields(config) + b"\n")
            if not dialogue.has_zip:
                run.write(library.data)
            self._listen(run, dialogue, until, lambda: dialogue.address is not None)
        except LaunchFailed:
            raise  # it is an OSError, too
        except TimeoutError:
            raise dialogue.late(self._plan.boot_seconds, run.stderr()) from None
        except OSError:
            if self._closed:
                raise
            # It may have said why before it stopped listening.
            self._listen(run, dialogue, time.monotonic() + LAST_WORDS_SECONDS, lambda: False)
        assert dialogue.address is not None
        with self._lock:
            self._secret = secret
            self._run = run
            self._address = parse_address(dialogue.address)
            if not self._plan.tunnel:
                # Whose certificate it is, the proof of the secret tells.
                self._remote = Remote(self._address, secret, True)

    def _listen(
        self, run: Run, dialogue: Dialogue, until: float, enough: Callable[[], bool]
    ) -> None:
        while not enough():
            data = run.read(max(0.0, until - time.monotonic()))
            if not data:
                run.wait(LAST_WORDS_SECONDS)
                self._check_open()
                if run.is_lost():
                    raise Unsteady("the connection broke while the server was started")
                raise dialogue.ended(run.status(), run.stderr())
            dialogue.received(data)

    # ----------------------------------------------------------------------- end

    def close(self) -> None:
        """End the connection, and wait a moment for the server, which was told to end."""
        with self._lock:
            self._closed = True
            connection, run = self._connection, self._run
        if self._progress is not None and connection is None:
            self._progress.cancel()
        if connection is not None and connection.is_alive() and run is not None and self._served:
            run.wait(self._together.patience())
        if connection is not None:
            connection.close()
        self._drop_outcome()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._together.patience())

    def abandon(self) -> None:
        """This is a forked child: the connection is the parent's."""
        if self._connection is not None:
            self._connection.abandon()


def _as_seen_from_here(number: str, name: str) -> str:
    """
    Return a host's number with the zone that leads to it from here.

    Args:
        number: As the host itself says it: a link-local one may have a zone of its own.
        name: By which it was connected to.
    """
    number = number.partition("%")[0]
    zone = name.partition("%")[2]
    return f"{number}%{zone}" if zone and number.lower().startswith("fe80:") else number


def _certificate(name: str) -> str:
    certificate, key = self_made(name)
    return (certificate + key).decode("ascii")


_ways: weakref.WeakSet[SSHWay] = weakref.WeakSet()


def _after_fork() -> None:
    for way in list(_ways):
        way.abandon()
    _ways.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def wait_for_servers(
    driver: Driver, ways: list[SSHWay], wanted: int, timeout: float | None, settle: bool
) -> None:
    """
    Start a driver, and wait until enough servers are up; shut it down if they will not be.

    Args:
        driver: Has these ways and no others.
        ways: The ways.
        wanted: How many must be up.
        timeout: Seconds; None for as long as they take.
        settle: Wait for the others, too, until they are up or have failed.

    Raises:
        LaunchFailed: The first failure, with the others as notes, if too many have failed.
        NoServerError: If the time is over.
        FarmError: If a server was started and then refused us.
    """
    until = None if timeout is None else time.monotonic() + timeout

    def count() -> tuple[int, list[FarmError]]:
        peers = driver.peers()
        up = sum(server.up for _, server in peers)
        return up, [peer.error for peer, _ in peers if peer.error is not None]

    def decided() -> bool:
        up, failures = count()
        settled = not settle or up + len(failures) >= len(ways)
        return (up >= wanted and settled) or len(ways) - len(failures) < wanted

    try:
        driver.start()
        in_time = driver.wait_for_change(decided, until)
        up, failures = count()
        if len(ways) - len(failures) < wanted:
            raise _first_of(failures)
        if up >= wanted and (decided() or not in_time):
            return
        if driver.broken is not None:
            raise driver.broken
        waiting = [peer for peer, server in driver.peers() if not server.up]
        reasons = "; ".join(f"{peer.name}: {peer.words}" for peer in waiting)
        raise NoServerError(
            [peer.name for peer in waiting],
            f"{len(ways) - len(waiting)} of {wanted} servers within {timeout or 0:g} s ({reasons})",
        )
    except BaseException:
        driver.shutdown(True)
        driver.join()
        raise


def _first_of(failures: list[FarmError]) -> FarmError:
    error, *others = failures
    if others:
        vars(error)["__notes__"] = [str(each) for each in others]
    return error
