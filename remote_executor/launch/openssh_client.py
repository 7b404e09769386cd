"""
SSH connections made by the user's own program ``ssh``, with all that it can and we cannot.

One process a connection: it runs the command, and forwards a Unix socket here to the server's
there, so there is one login (one touch of a FIDO key) a host. It ends when its standard input does:
with us, however we end.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from typing import TYPE_CHECKING

from remote_executor.launch.ssh import NotForwarded, ServerGone, Unsteady
from remote_executor.launch.stages import RESOLVER_AWAY, read_complaint

if TYPE_CHECKING:
    from remote_executor.launch.hosts import SSHHost
    from remote_executor.launch.stages import Progress
    from remote_executor.net.addresses import Address

__all__ = ["OpenSSHClient", "OpenSSHConnection", "ssh_command"]

LOGIN_SECONDS = 60.0
"""As long as somebody may need to touch a key."""

LOOK_SECONDS = 0.02
SSH_FAILED = 255
"""Its exit status when the connection fails; otherwise it has the command's."""

WRITE_SECONDS = 60.0
END_SECONDS = 2.0
CHUNK = 64 * 1024
MOST_STDERR = 64 * 1024

HOLD = "exec cat >/dev/null"
"""What a connection runs that has nothing to run: it ends when we do."""

NOWHERE = "/nowhere"

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
)


def ssh_command(
    program: str, host: SSHHost, config: str | None, host_keys: str, forward: str
) -> list[str]:
    """
    Return the words that start ssh, up to the host (PARITY S4).

    Args:
        program: Its path.
        host: Where to.
        config: A configuration to read instead of the usual ones.
        host_keys: "strict" or "accept-new".
        forward: What ``-L`` is told.
    """
    # -k: no ticket of Kerberos goes along either. As an option it is unknown to some builds.
    words = [program, "-T", "-k"]
    if config is not None:
        words += ["-F", config]
    strict = "yes" if host_keys == "strict" else "accept-new"
    for option in (*OPTIONS, f"StrictHostKeyChecking={strict}"):
        words += ["-o", option]
    if host.user is not None:
        words += ["-l", host.user]
    if host.port is not None:
        words += ["-p", str(host.port)]
    for key in host.keys:
        words += ["-i", os.path.expanduser(key)]
    if host.proxy is not None:
        words += ["-o", "ProxyJump=none"] if host.proxy == "none" else ["-J", host.proxy]
    return [*words, "-L", forward, "--", host.name]


class OpenSSHClient:
    """
    Makes connections; see :class:`remote_executor.launch.ssh.Client`.

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

    def server_address(self) -> str:
        """A Unix socket in a folder that only the user can enter."""
        return f"unix:/tmp/remote_executor-{os.urandom(8).hex()}/server"

    def connect(
        self, host: SSHHost, progress: Progress, address: Address | None, command: str | None
    ) -> OpenSSHConnection:
        """Connect and authenticate; see :class:`remote_executor.launch.ssh.Client`."""
        if host.password is not None:
            progress.enter("authentication")
            raise progress.failure("client='openssh' takes no password: use a key or an agent")
        progress.enter("connect")
        folder = tempfile.mkdtemp(prefix="remote_executor-")
        local = os.path.join(folder, "link")
        # Without a server's socket, too: once ssh listens here, it has logged in.
        remote = NOWHERE if address is None else address.path
        words = ssh_command(self._program, host, self._config, self._host_keys, f"{local}:{remote}")
        connection = OpenSSHConnection(words, command or HOLD, folder, local)
        progress.hold(connection.close)
        try:
            if not connection.wait_until_ready(LOGIN_SECONDS, progress):
                stderr = connection.run.stderr()
                if connection.is_alive():
                    raise progress.failure(f"no login within {LOGIN_SECONDS:g} s", stderr)
                stage, reason, again = read_complaint(stderr)
                progress.enter(stage)
                if again:
                    raise Unsteady(reason)
                away = stage == "resolve" and any(w in reason.lower() for w in RESOLVER_AWAY)
                stderr = stderr if stderr.strip() != reason else ""
                raise progress.failure(reason, stderr, may_pass=away)
        except BaseException:
            connection.close()
            raise
        return connection


class OpenSSHRun:
    """
    A command; see :class:`remote_executor.launch.ssh.Run`.

    Args:
        process: The ssh that runs it.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._stderr = b""
        self._reader = threading.Thread(target=self._read_stderr, name="ssh stderr", daemon=True)
        self._reader.start()
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        fd = self._process.stderr.fileno()
        while data := os.read(fd, CHUNK):
            self._stderr = (self._stderr + data)[-MOST_STDERR:]

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
        if self._process.poll() is not None:
            self._reader.join(END_SECONDS)
        return self._stderr.decode("utf-8", "replace")

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
        self._reader.join(END_SECONDS)
        for file in (process.stdin, process.stdout, process.stderr):
            assert file is not None
            try:
                file.close()
            except OSError:
                pass


class OpenSSHConnection:
    """
    A connection; see :class:`remote_executor.launch.ssh.Connection`.

    Args:
        words: What starts ssh, up to the host.
        command: What it runs there.
        folder: A folder of its own, removed at the end.
        local: The Unix socket in it that leads to the server.
    """

    def __init__(self, words: list[str], command: str, folder: str, local: str) -> None:
        self._words = words
        self._folder = folder
        self._local = local
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
        Wait until it has logged in: then its socket is there.

        Args:
            timeout: Seconds.
            progress: Says whether anybody still wants it.
        """
        until = time.monotonic() + timeout
        while self._process.poll() is None and time.monotonic() < until:
            if os.path.exists(self._local):
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
            sock.connect(self._local)
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
                probe.connect(self._local)
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
