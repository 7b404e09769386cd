"""Ways to servers: to one at an address, and to one that this process starts for itself."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.process import current_process
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from remote_executor.interpreter import check_python, python_command, server_environment
from remote_executor.net.security import auth_of, client_tls, is_exposed, tls_of
from remote_executor.net.start import ROOT, START
from remote_executor.net.streams import SocketStream, Stream
from remote_executor.task_errors import exit_words
from remote_executor.wire.auth import Mechanism, NoAuth

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.net.addresses import Address
    from remote_executor.net.loop import Loop
    from remote_executor.net.security import AuthLike, TLSLike

__all__ = ["Embedded", "Remote", "Way"]

log = logging.getLogger("remote_executor.client")

CONNECT_SECONDS = 10.0
MOST_LAST_WORDS = 2000
"""Bytes of what a server of our own wrote at its end that go into the error."""
LAST_WORDS_SECONDS = 1.0
"""How long the end may wait for a server that takes its time to read what was sent before."""


class Way(Protocol):
    """
    How to reach a server.

    A way that starts the server itself, and for this client alone, may say so by an attribute
    ``launches`` that is true: whoever answers there is ours, and what fails may be the launch.
    """

    name: str

    def open(self, loop: Loop, done: Callable[[socket.socket | BaseException], None]) -> None:
        """Begin to connect; call ``done`` in the loop's thread with a socket or the error."""

    def stream(self, sock: socket.socket) -> Stream:
        """Return a stream around the socket that :meth:`open` gave; it owns it."""

    def mechanism(self) -> Mechanism:
        """Return a fresh mechanism for a handshake."""

    def wishes(self) -> dict[str, Any]:
        """Return what else ATTACH asks for on this way."""

    def close(self) -> None:
        """Nobody will open this way again: end what it started."""


class Remote:
    """
    A server at an address.

    Args:
        address: Where it is.
        auth: How it knows us, and we know it; see :func:`remote_executor.net.security.auth_of`.
        tls: See :func:`remote_executor.net.security.tls_of`.

    Raises:
        TypeError, ValueError: If ``auth`` or ``tls`` cannot be used.
    """

    def __init__(self, address: Address, auth: AuthLike = None, tls: TLSLike = None) -> None:
        self.address = address
        self.name = str(address)
        self._auth = auth_of(auth)
        tls = client_tls(address, self._auth, tls_of(tls))
        self._tls: tuple[Any, str] | None = None
        if tls:
            from remote_executor.net.tls import client_context

            self._tls = client_context(tls, address.host)
        elif is_exposed(address, self._auth, tls):
            log.warning("%s is spoken to in plain text: others may read it and change it", address)
        self._mechanism: Mechanism | BaseException | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._outcome: socket.socket | BaseException | None = None
        """What the thread that dials has got, until the loop's thread takes it."""

    def stream(self, sock: socket.socket) -> Stream:
        """Return the socket as a stream, with TLS around it if that is spoken."""
        if self._tls is None:
            return SocketStream(sock)
        from remote_executor.net.tls import TLSStream

        context, host = self._tls
        return TLSStream(sock, context, self.name, host=host)

    def mechanism(self) -> Mechanism:
        """Return the client's part in the proofs, as a rule the one that dialling has made."""
        made, self._mechanism = self._mechanism, None
        if isinstance(made, BaseException):
            raise made
        return made or self._auth.client(self.address.host)

    def open(self, loop: Loop, done: Callable[[socket.socket | BaseException], None]) -> None:
        """Resolve and connect in a thread of its own: looking up a name may take long."""
        thread = threading.Thread(
            target=self._connect, args=(loop, done), name=f"dial {self.name}", daemon=True
        )
        thread.start()

    def _connect(self, loop: Loop, done: Callable[[socket.socket | BaseException], None]) -> None:
        outcome: socket.socket | BaseException
        try:
            if self.address.kind == "unix":
                outcome = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                outcome.settimeout(CONNECT_SECONDS)
                try:
                    outcome.connect(self.address.path)
                except BaseException:
                    outcome.close()
                    raise
            else:
                outcome = socket.create_connection(
                    (self.address.host, self.address.port), CONNECT_SECONDS
                )
        except BaseException as exc:  # whatever it was: the loop waits for an outcome
            outcome = exc
        else:
            # Here, because it may ask somebody else, such as a Kerberos realm.
            try:
                self._mechanism = self._auth.client(self.address.host)
            except BaseException as exc:  # a mechanism may be the user's
                self._mechanism = exc
        with self._lock:
            self._outcome = outcome
        if self._closed:
            self.close()  # nobody is left who would take it
        else:
            loop.post(lambda: self._hand_over(done))

    def _hand_over(self, done: Callable[[socket.socket | BaseException], None]) -> None:
        with self._lock:
            outcome, self._outcome = self._outcome, None
        if outcome is not None:
            done(outcome)

    def wishes(self) -> dict[str, Any]:
        """Nothing: a server elsewhere has paths of its own."""
        return {}

    def close(self) -> None:
        """Leave the server alone, it serves others; but a connection that nobody took is closed."""
        self._closed = True
        with self._lock:
            outcome, self._outcome = self._outcome, None
        if isinstance(outcome, socket.socket):
            outcome.close()


BOOT = START + (
    "from remote_executor.server.embedded import main; sys.exit(main(*sys.argv[1:], here=here))"
)


class Embedded:
    """
    A server of our own: a process that is started when it is needed and ends with us.

    It inherits one end of a socket pair, so nobody else can talk to it, and it ends, with all its
    workers, when the other end is closed, however this process ends.

    Args:
        slots: How many tasks it runs at a time.
        preload: Modules to import before workers are made.
    """

    name = "embedded server"

    def __init__(self, slots: int, preload: tuple[str, ...]) -> None:
        self._slots = slots
        self._preload = preload
        self._processes: list[subprocess.Popen[bytes]] = []
        self._silent = False
        """Whether the last one that was started has not asked for our wishes yet."""
        self.keeps_stderr = False
        """Whether the next one is the last try: what it writes to stderr goes into the error."""
        self._stderr: BinaryIO | None = None

    def stream(self, sock: socket.socket) -> Stream:
        """Return the socket as a stream."""
        return SocketStream(sock)

    def mechanism(self) -> Mechanism:
        """Nothing to prove: the socket was inherited."""
        return NoAuth()

    def open(self, loop: Loop, done: Callable[[socket.socket | BaseException], None]) -> None:
        """Start the server."""
        self._reap()
        if self.keeps_stderr and self._stderr is None:
            with contextlib.suppress(OSError):  # no room for it: then nothing is kept
                self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the way
        ours = None
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                if self._silent:
                    check_python()  # another one was started, and ended before it said anything
                python = python_command()
                command = [*python, "-c", BOOT, ROOT]
                command += [str(theirs.fileno()), str(self._slots), ",".join(self._preload)]
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stderr=self._stderr if self.keeps_stderr else None,
                    pass_fds=[theirs.fileno()],
                    env=server_environment(python),
                    start_new_session=True,  # the terminal's ^C is for the client alone
                )
        except Exception as exc:
            if ours is not None:
                ours.close()
            done(exc)
            return
        self._processes.append(process)
        self._silent = True
        done(ours)

    def last_words(self) -> str:
        """Return how the last process ended and what it wrote to stderr, as far as it was kept."""
        words = ""
        if self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                words = f"its process {exit_words(self._processes[-1].wait(LAST_WORDS_SECONDS))}"
        if self._stderr is not None:
            end = self._stderr.seek(0, os.SEEK_END)
            self._stderr.seek(max(0, end - MOST_LAST_WORDS))
            said = self._stderr.read().decode("utf-8", "replace").strip()
            words += f"; it wrote:\n{said}" if said else ""
        return words

    def wishes(self) -> dict[str, Any]:
        """Let workers import what this process can, from where it can."""
        self._silent = False
        try:
            here = os.getcwd()
        except OSError:  # the folder is gone; the server was started in it, and is there as well
            here = None
        return {
            "sys_path": [path or here or "" for path in sys.path],
            "cwd": here,
            "authkey": bytes(current_process().authkey).hex(),
        }

    def _reap(self) -> None:
        self._processes = [process for process in self._processes if process.poll() is None]

    def close(self) -> None:
        """Wait for the server, which ends since its socket was closed; kill it if it does not."""
        until = time.monotonic() + 5.0
        for process in self._processes:
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes = []
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    @property
    def pid(self) -> int | None:
        """The running server's process id."""
        self._reap()
        return self._processes[-1].pid if self._processes else None
