"""
SSH connections made by the user's own program ``ssh``, with all that it can and we cannot.

One process a connection: it runs the command, and forwards a Unix socket here to the server's
there, so there is one login (one touch of a FIDO key) a host. It ends when its standard input does:
with us, however we end.

Where a new server can have its socket is not known before it has tried, so each of the places that
come into question is forwarded.
"""

from __future__ import annotations

import functools
import os
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from typing import TYPE_CHECKING

from remote_executor.launch.clients import (
    PROXY_COMMAND,
    LastWords,
    Logins,
    NotForwarded,
    ServerGone,
    Unsteady,
)
from remote_executor.launch.ssh_settings import ask_ssh
from remote_executor.launch.stages import RESOLVER_AWAY, read_complaint

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from remote_executor.launch.hosts import SSHHost
    from remote_executor.launch.stages import Progress
    from remote_executor.net.addresses import Address

__all__ = ["OpenSSHClient", "OpenSSHConnection", "ssh_command"]

ASK_SECONDS = 20.0

LOGIN_SECONDS = 60.0
"""As long as somebody may need to touch a key."""

LOOK_SECONDS = 0.02
SSH_FAILED = 255
"""Its exit status when the connection fails; otherwise it has the command's."""

WRITE_SECONDS = 60.0
END_SECONDS = 2.0
CHUNK = 64 * 1024

HOLD = "exec cat >/dev/null"
"""What a connection runs that has nothing to run: it ends when we do."""

PLACES = ("/tmp", "/dev/shm", "/var/tmp")
"""Where a server there may have its socket: the first of these folders that it can write to."""

MAX_PATH = 100
"""Bytes of a Unix socket's path: 103 on macOS, 107 on Linux."""

OPTIONS = (
    "BatchMode=yes",  # nothing is ever asked
    "ConnectTimeout=10",
    "ServerAliveInterval=10",  # PARITY S4
    "ServerAliveCountMax=2",
    "ExitOnForwardFailure=no",  # those of the user's configuration may be taken
    "StreamLocalBindUnlink=yes",
    "RemoteCommand=none",
    "PermitLocalCommand=no",
    "ForwardX11=no",
    "ForwardAgent=no",  # who is root there could log in as the user elsewhere
    "ClearAllForwardings=no",  # ours among them
)
NEWER_OPTIONS = ("ForkAfterAuthentication=no", "SessionType=default", "StdinNull=no")
"""Known from OpenSSH 8.7 on; an ssh that does not know an option refuses to run."""


def ssh_command(
    program: str,
    host: SSHHost,
    config: str | None,
    host_keys: str,
    forwards: Mapping[str, str],
    known: Collection[str] = (),
) -> list[str]:
    """
    Return the words that start ssh, up to the host (PARITY S4).

    Args:
        program: Its path.
        host: Where to.
        config: A configuration to read instead of the usual ones.
        host_keys: "strict" or "accept-new".
        forwards: Sockets here, by the paths of those there that they lead to.
        known: Options, in small letters, that this ssh has beside those that all have.
    """
    # -k: no ticket of Kerberos goes along either. As an option it is unknown to some builds.
    words = [program, "-T", "-k"]
    if config is not None:
        words += ["-F", config]
    strict = "yes" if host_keys == "strict" else "accept-new"
    newer = [each for each in NEWER_OPTIONS if each.partition("=")[0].lower() in known]
    for option in (*OPTIONS, *newer, f"StrictHostKeyChecking={strict}"):
        words += ["-o", option]
    if host.user is not None:
        words += ["-l", host.user]
    if host.port is not None:
        words += ["-p", str(host.port)]
    for key in host.keys:
        words += ["-i", os.path.expanduser(key)]
    if host.proxy is not None:
        words += ["-o", "ProxyJump=none"] if host.proxy == "none" else ["-J", host.proxy]
    for there, here in forwards.items():
        words += ["-L", f"{here}:{there}"]
    return [*words, "--", host.name]


@functools.lru_cache
def options_of(program: str) -> frozenset[str]:
    """Return the names of options that an ssh knows, in small letters; none if it does not say."""
    words = [program, "-G", "-F", os.devnull, "--", "localhost"]
    try:
        run = subprocess.run(
            words, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=ASK_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return frozenset()
    return frozenset(line.split()[0].decode() for line in run.stdout.splitlines() if line.strip())


def socket_folder(temporary: str | None, environment: Mapping[str, str]) -> str:
    """
    Make a folder that only the user can enter, whose path leaves room for a socket's name.

    Args:
        temporary: Where temporary files go; None if there is no such place.
        environment: May name the user's own folder for such things.

    Raises:
        OSError: If none of the usual places will do.
    """
    runtime = environment.get("XDG_RUNTIME_DIR")
    error: OSError | None = None
    for place in filter(None, (temporary, runtime, *PLACES)):
        if len(os.fsencode(place)) > MAX_PATH - len("/remote_executor-12345678/1"):
            continue
        try:
            return tempfile.mkdtemp(prefix="remote_executor-", dir=place)
        except OSError as exc:
            error = error or exc
    raise error or OSError(f"no folder for a socket: {temporary} is too long a path")


class OpenSSHClient:
    """
    Makes connections; see :class:`remote_executor.launch.clients.Client`.

    Args:
        host_keys: "strict" or "accept-new".
        ssh_config: A file to read instead of ``~/.ssh/config`` and the system's.

    Raises:
        ValueError: If there is no program ssh.
    """

    def __init__(self, host_keys: str, ssh_config: str | None) -> None:
        program = shutil.which("ssh")
        if program is None:
            raise ValueError("there is no program ssh in the PATH: install it, or use paramiko")
        self._program = program
        self._host_keys = host_keys
        self._config = ssh_config
        self._logins = Logins()

    def _place(self, host: SSHHost) -> str:
        """Return which SSH server is connected to from here: the first on the way."""
        try:
            words = ask_ssh(self._program, host, self._config)
        except (OSError, ValueError):
            return str(host)  # ssh itself will say what is wrong
        jumps = host.proxy or words.get("proxyjump", ["none"])[0]
        if jumps != "none":
            return jumps.partition(",")[0]
        if words.get("proxycommand", ["none"])[0] != "none" and host.proxy is None:
            return PROXY_COMMAND
        return f"{words.get('hostname', [host.name])[0]}:{words.get('port', ['22'])[0]}"

    def connect(
        self, host: SSHHost, progress: Progress, address: Address | None, command: str | None
    ) -> OpenSSHConnection:
        """Connect and authenticate; see :class:`remote_executor.launch.clients.Client`."""
        if host.password is not None:
            progress.enter("authentication")
            raise progress.failure("client='openssh' takes no password: use a key or an agent")
        progress.enter("connect")
        if address is not None:
            remote = [address.path]
        else:
            name = f"remote_executor-{os.urandom(8).hex()}"
            remote = [f"{place}/{name}/server" for place in PLACES]
        with self._logins.at(self._place(host)):
            if progress.cancelled:
                raise ConnectionAbortedError("the executor was shut down")
            connection = self._begin(host, command or HOLD, remote)
            progress.hold(connection.close)
            try:
                if not connection.wait_until_ready(LOGIN_SECONDS, progress):
                    raise self._why_not(connection, progress)
            except BaseException:
                connection.close()
                raise
        return connection

    def _begin(self, host: SSHHost, command: str, remote: Sequence[str]) -> OpenSSHConnection:
        """Start ssh, with a folder for the sockets that lead to those there."""
        try:
            temporary: str | None = tempfile.gettempdir()
        except FileNotFoundError:
            temporary = None
        folder = socket_folder(temporary, os.environ)
        try:
            forwards = {there: os.path.join(folder, str(n)) for n, there in enumerate(remote)}
            known = options_of(self._program)
            words = ssh_command(self._program, host, self._config, self._host_keys, forwards, known)
            return OpenSSHConnection(words, command, folder, forwards)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    @staticmethod
    def _why_not(connection: OpenSSHConnection, progress: Progress) -> Exception:
        stderr = connection.run.stderr()
        if connection.is_alive():
            return progress.failure(f"no login within {LOGIN_SECONDS:g} s", stderr)
        stage, reason, again = read_complaint(stderr)
        progress.enter(stage)
        if again:
            return Unsteady(reason)
        away = stage == "resolve" and any(w in reason.lower() for w in RESOLVER_AWAY)
        stderr = stderr if stderr.strip() != reason else ""
        return progress.failure(reason, stderr, may_pass=away)


class OpenSSHRun:
    """
    A command; see :class:`remote_executor.launch.clients.Run`.

    Args:
        process: The ssh that runs it.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        assert process.stderr is not None
        self._said = LastWords(process.stderr)
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)

    def write(self, data: bytes) -> None:
        """Write to its standard input."""
        assert self._process.stdin is not None
        fd = self._process.stdin.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        view = memoryview(data)
        while view:
            if not poll.poll(WRITE_SECONDS * 1000):
                raise TimeoutError("nobody reads")
            view = view[os.write(fd, view[:CHUNK]) :]

    def read(self, timeout: float) -> bytes:
        """Read from its standard output."""
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(timeout * 1000):
            raise TimeoutError
        return os.read(fd, CHUNK)

    def stderr(self) -> str:
        """Return what it has written to its standard error."""
        return self._said.text(END_SECONDS if self._process.poll() is not None else 0.0)

    def status(self) -> int | None:
        """Return its exit status."""
        return self._process.poll()

    def is_lost(self) -> bool:
        """Tell whether it was ssh itself that has failed."""
        return self.status() == SSH_FAILED

    def wait(self, timeout: float) -> bool:
        """Wait until it has ended."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def finish(self) -> None:
        """Give back what is left of the process, which has ended."""
        process = self._process
        self._said.close(END_SECONDS)
        for file in (process.stdin, process.stdout):
            assert file is not None
            try:
                file.close()
            except OSError:
                pass


class OpenSSHConnection:
    """
    A connection; see :class:`remote_executor.launch.clients.Connection`.

    Args:
        words: What starts ssh, up to the host.
        command: What it runs there.
        folder: A folder of its own, removed at the end.
        forwards: Unix sockets in it, by the paths of those there that they lead to.
    """

    def __init__(
        self, words: list[str], command: str, folder: str, forwards: dict[str, str]
    ) -> None:
        self.places = [f"unix:{path}" for path in forwards]
        self._words = words
        self._folder = folder
        self._forwards = forwards
        self._lock = threading.Lock()
        self._closed = False
        self._process = subprocess.Popen(
            [*words, command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # the terminal's ^C is not for it
        )
        self.run = OpenSSHRun(self._process)

    def wait_until_ready(self, timeout: float, progress: Progress) -> bool:
        """
        Wait until it has logged in: then its sockets are there.

        Args:
            timeout: Seconds.
            progress: Says whether anybody still wants it.
        """
        until = time.monotonic() + timeout
        while self._process.poll() is None and time.monotonic() < until:
            if all(map(os.path.exists, self._forwards.values())):
                return True
            if progress.cancelled:
                raise ConnectionAbortedError("the executor was shut down")
            time.sleep(LOOK_SECONDS)
        return False

    def open_stream(self, address: Address, timeout: float) -> socket.socket:
        """Return a socket that leads to the server."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(self._forwards[address.path])
            # ssh accepts, whoever is at the other end; but a server speaks first.
            first = sock.recv(1, socket.MSG_PEEK)
            sock.settimeout(None)
        except OSError:
            sock.close()
            raise
        if first:
            return sock
        sock.close()
        if not self.is_alive():
            raise ConnectionResetError("the connection was closed")
        time.sleep(LOOK_SECONDS)  # for the thread that reads what ssh says about it
        words = self.run.stderr()
        if "prohibited" in words:
            raise NotForwarded(words.strip().splitlines()[-1])
        # Of a Unix socket sshd says the same in both cases.
        raise ServerGone(
            "nobody listens there, or the SSH server does not forward (AllowStreamLocalForwarding)"
        )

    def is_alive(self) -> bool:
        """Tell whether the process runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass
        if not self.run.wait(0.2):
            self._process.terminate()
            if not self.run.wait(END_SECONDS):
                self._process.kill()
                self._process.wait()
        if self._is_shared():
            # The connection is a ControlMaster's, and so is the socket.
            host = self._words.index("--")
            words = [*self._words[:host], "-O", "cancel", *self._words[host:]]
            try:
                subprocess.run(
                    words,
                    check=False,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=END_SECONDS,
                )
            except subprocess.TimeoutExpired:
                pass  # it ends with the master
        self.run.finish()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _is_shared(self) -> bool:
        """Whether somebody else listens on our socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(next(iter(self._forwards.values())))
            except OSError:
                return False
        return True

    def abandon(self) -> None:
        """Let go of descriptors: above all of the one that keeps the process alive."""
        for file in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert file is not None
            try:
                file.close()
            except OSError:
                pass
