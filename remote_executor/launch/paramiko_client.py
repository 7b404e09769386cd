"""SSH connections made by paramiko, which is imported here alone."""

from __future__ import annotations

import base64
import functools
import getpass
import os
import select
import shlex
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import paramiko

from remote_executor.errors import LaunchFailed
from remote_executor.launch.hosts import split_jumps, why_unfit_for_shell
from remote_executor.launch.ssh import NotForwarded, ServerGone, Unsteady
from remote_executor.launch.ssh_config import expand, include_paths, read_file
from remote_executor.launch.stages import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote_executor.launch.hosts import SSHHost
    from remote_executor.net.addresses import Address

__all__ = ["ParamikoClient", "ParamikoConnection", "Pump"]

CONNECT_SECONDS = 10.0
LOGIN_SECONDS = 20.0
"""For the banner, the exchange of keys, and each method of authentication."""

LOOK_SECONDS = 0.1
"""How soon a connection in the making notices that nobody wants it any more."""

KEEPALIVE_SECONDS = 10
MOST_JUMPS = 8
JOIN_SECONDS = 2.0
CHUNK = 256 * 1024
PACKET = 32 * 1024 - 64
"""What goes into one packet, as OpenSSH allows it."""

FAST = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
"""Tried first: with paramiko they move nearly twice as much as its own first choice."""

CONNECT_FAILED = 2
PROHIBITED = 1

KEY_CLASSES: tuple[Any, ...] = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)


class ParamikoClient:
    """
    Makes connections; see :class:`remote_executor.launch.ssh.Client`.

    Args:
        host_keys: "strict" or "accept-new".
        ssh_config: A file to read instead of ``~/.ssh/config`` and the system's.
    """

    def __init__(self, host_keys: str, ssh_config: str | None) -> None:
        self._accept_new = host_keys == "accept-new"
        self._config = ssh_config
        self._known_lock = threading.Lock()

    def server_address(self) -> str:
        """A port of the loopback: paramiko has no streams to Unix sockets."""
        return "127.0.0.1:0"

    def connect(
        self, host: SSHHost, progress: Progress, address: Address | None, command: str | None
    ) -> ParamikoConnection:
        """Connect and authenticate; see :class:`remote_executor.launch.ssh.Client`."""
        connection = self._login(host, progress, 0)
        if command is not None:
            progress.enter("boot")
            try:
                connection.start(command)
            except OSError as exc:
                connection.close()
                raise progress.failure(f"cannot run a command: {exc}") from exc
        return connection

    def _login(self, host: SSHHost, progress: Progress, depth: int) -> ParamikoConnection:
        progress.enter("configuration")
        try:
            settings = self._lookup(host)
            jumps = split_jumps(host.proxy if host.proxy is not None else settings.proxy_jump)
            if depth > MOST_JUMPS:
                raise ValueError("the jump hosts jump over each other without end")
            if settings.proxy_command is not None and host.proxy is None:
                # What the configuration makes of the names stands in the command now, unquoted.
                unfit = why_unfit_for_shell(settings.name, settings.user)
                if unfit is not None:
                    raise ValueError(f"ProxyCommand is not run: {unfit}")
        except (ValueError, OSError, ImportError, paramiko.SSHException) as exc:
            raise progress.failure(str(exc)) from exc
        before: ParamikoConnection | None = None
        process: subprocess.Popen[bytes] | None = None
        transport: paramiko.Transport | None = None
        try:
            sock: Any
            if jumps:
                before, sock = self._jump(jumps, settings, progress, depth)
            elif settings.proxy_command is not None and host.proxy is None:
                progress.enter("connect")
                sock, process = _run_proxy(settings.proxy_command)
            else:
                sock = _connect(settings.name, settings.port, progress)
            progress.enter("connect")
            transport = _handshake(sock, self._known_types(settings), progress)
            progress.enter("host key")
            self._check_key(transport, settings, progress)
            progress.enter("authentication")
            _authenticate(transport, host, settings, progress)
            transport.set_keepalive(KEEPALIVE_SECONDS)
            return ParamikoConnection(transport, before, process)
        except BaseException:
            ParamikoConnection(transport, before, process).close()
            raise

    def _jump(
        self, jumps: list[SSHHost], settings: _Settings, progress: Progress, depth: int
    ) -> tuple[ParamikoConnection, Any]:
        """Reach the host over others: return the last of them and a stream through it."""
        connection: ParamikoConnection | None = None
        last = jumps[-1]
        if len(jumps) > 1:
            # The hosts before it are the way to it, whatever its own configuration says.
            from dataclasses import replace

            last = replace(last, proxy=",".join(map(str, jumps[:-1])))
        inner = Progress(last, progress.config)
        progress.follow(inner)
        try:
            connection = self._login(last, inner, depth + 1)
        except LaunchFailed as exc:
            reason = f"jump host {exc.address}: {exc.reason}"
            raise progress.failure(reason, exc.stderr, stage=exc.stage) from exc
        except Unsteady as exc:
            raise Unsteady(f"jump host {last}: {exc}") from exc
        progress.enter("connect")
        try:
            return connection, connection.open_channel(settings.name, settings.port, LOGIN_SECONDS)
        except (ServerGone, NotForwarded, OSError) as exc:
            connection.close()
            raise progress.failure(
                f"jump host {last} cannot connect to {settings.name}:{settings.port}: {exc}"
            ) from exc

    # -------------------------------------------------------------- configuration

    def _lookup(self, host: SSHHost) -> _Settings:
        """Find out what the configuration says of a host."""
        given = [f"Host {host.name}"]
        if host.user is not None:
            given.append(f"  User {host.user}")
        if host.port is not None:
            given.append(f"  Port {host.port}")
        head = "\n".join(given) + "\n"

        def applies(block: str) -> bool:
            text = f"{head}{block}\n  SendEnv YES\n"
            return "sendenv" in paramiko.SSHConfig.from_text(text).lookup(host.name)

        text = head
        for path in self._config_files():
            folder = os.path.expanduser("~/.ssh") if path[:5] != "/etc/" else os.path.dirname(path)
            try:
                source = read_file(path)
            except FileNotFoundError:
                continue
            text += "Host *\n"
            find = functools.partial(include_paths, folder=folder)
            text += expand(source, applies, find, read_file)
        found = paramiko.SSHConfig.from_text(text).lookup(host.name)
        return _Settings(host, found)

    def _config_files(self) -> list[str]:
        if self._config is not None:
            return [self._config]
        return [os.path.expanduser("~/.ssh/config"), "/etc/ssh/ssh_config"]

    # ------------------------------------------------------------------ host keys

    def _known(self, settings: _Settings) -> tuple[list[Any], list[Any]]:
        """Return the keys that a host is known by, and those that were revoked."""
        table, revoked = paramiko.HostKeys(), paramiko.HostKeys()
        for path in settings.known_files:
            try:
                lines = read_file(path).splitlines()
            except (FileNotFoundError, NotADirectoryError):
                continue
            for line in lines:
                marker, _, rest = line.strip().partition(" ")
                keys = table
                if marker == "@revoked":
                    keys, line = revoked, rest
                elif not line.strip() or line.lstrip()[0] in "#@":
                    continue
                try:
                    entry = paramiko.hostkeys.HostKeyEntry.from_line(line.strip())
                except Exception:  # noqa: S112 - one bad line is no reason to trust nobody
                    continue
                if entry is not None:
                    keys._entries.append(entry)
        name = settings.known_name
        return list((table.lookup(name) or {}).values()), list(
            (revoked.lookup(name) or {}).values()
        )

    def _known_types(self, settings: _Settings) -> list[str]:
        try:
            known, _ = self._known(settings)
        except OSError:
            return []  # it is reported when the key is checked
        return [key.get_name() for key in known]

    def _check_key(
        self, transport: paramiko.Transport, settings: _Settings, progress: Progress
    ) -> None:
        key = transport.get_remote_server_key()
        shown = f"{key.get_name()} {_fingerprint(key)}"
        with self._known_lock:
            try:
                known, revoked = self._known(settings)
            except OSError as exc:
                raise progress.failure(f"known_hosts cannot be read: {exc}") from exc
            if key in revoked:
                raise progress.failure(f"its key {shown} was revoked in known_hosts")
            if key in known:
                return
            name, path = settings.known_name, settings.known_files[0]
            if known:
                was = ", ".join(f"{each.get_name()} {_fingerprint(each)}" for each in known)
                raise progress.failure(
                    f"its key has changed: it is {shown}, and known_hosts has {was} for {name}. "
                    "Somebody may stand between; if the host is known to have a new key, remove "
                    f"the old one with 'ssh-keygen -R {shlex.quote(name)} -f {shlex.quote(path)}'"
                )
            if not self._accept_new:
                raise progress.failure(
                    f"{name} is not in {path}; its key is {shown}. Log in once by hand, or say "
                    "host_keys='accept-new'"
                )
            try:
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                with open(fd, "w", encoding="ascii") as file:
                    file.write(f"{name} {key.get_name()} {key.get_base64()}\n")
            except OSError as exc:
                raise progress.failure(f"its key cannot be added to {path}: {exc}") from exc


class _Settings:
    """What is known of a host after its configuration was read."""

    def __init__(self, host: SSHHost, found: Any) -> None:
        self.name: str = found.get("hostname", host.name)
        self.port = int(found.get("port", 22))
        self.user: str = found.get("user") or getpass.getuser()
        self.proxy_jump: str | None = found.get("proxyjump")
        self.proxy_command: str | None = found.get("proxycommand")
        if self.proxy_command is not None and self.proxy_jump is not None:
            self.proxy_command = None
        self.identities: list[str] = [
            os.path.expanduser(path) for path in found.get("identityfile", []) if path != "none"
        ]
        self.identities_only = found.get("identitiesonly", "no").lower() == "yes"
        agent = found.get("identityagent", "")
        self.agent = agent.lower() != "none"
        alias = found.get("hostkeyalias")
        plain = alias or self.name
        self.known_name = plain if self.port == 22 or alias else f"[{plain}]:{self.port}"
        files = found.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")
        more = found.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts")
        self.known_files = [
            os.path.expanduser(path)
            for path in [*shlex.split(files), *shlex.split(more)]
            if path.lower() != "none"
        ] or [os.devnull]


def _fingerprint(key: Any) -> str:
    import hashlib

    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest())
    return "SHA256:" + digest.decode().rstrip("=")


# ------------------------------------------------------------------------ connecting


def _connect(name: str, port: int, progress: Progress) -> socket.socket:
    """Resolve and connect, within limits, until nobody wants it any more."""
    progress.enter("resolve")
    try:
        places = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise progress.failure(f"there is no host {name}: {exc}") from exc
    progress.enter("connect")
    error: OSError | None = None
    until = time.monotonic() + CONNECT_SECONDS
    for family, kind, protocol, _, where in places:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            _finish_connect(sock, where, until, progress)
            sock.setblocking(True)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as exc:
            sock.close()
            error = exc
    if isinstance(error, ConnectionResetError):
        raise Unsteady(f"{name}:{port}: {error}") from error
    raise progress.failure(f"{name}:{port}: {error}") from error


def _finish_connect(sock: socket.socket, where: Any, until: float, progress: Progress) -> None:
    try:
        sock.connect(where)
        return
    except BlockingIOError:
        pass
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    while not poll.poll(LOOK_SECONDS * 1000):
        if progress.cancelled:
            raise ConnectionAbortedError("the executor was shut down")
        if time.monotonic() > until:
            raise TimeoutError(f"no answer within {CONNECT_SECONDS:g} s")
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))


def _run_proxy(command: str) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Run a ProxyCommand whose standard input and output are the stream."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # the terminal's ^C is not for it
            )
        except BaseException:
            ours.close()
            raise
    return ours, process


def _handshake(sock: Any, known: list[str], progress: Progress) -> paramiko.Transport:
    """Exchange versions and keys."""
    try:
        transport = paramiko.Transport(sock)
    except (OSError, paramiko.SSHException) as exc:
        sock.close()
        raise Unsteady(f"the connection broke: {exc}") from exc
    progress.hold(transport.close)
    options = transport.get_security_options()
    options.ciphers = [
        *(each for each in FAST if each in options.ciphers),
        *(each for each in options.ciphers if each not in FAST),
    ]
    # A key of a kind that is known of the host, rather than one that nobody can compare.
    wanted = [kind for each in known for kind in _algorithms(each) if kind in options.key_types]
    wanted += [each for each in options.key_types if each not in wanted]
    options.key_types = list(dict.fromkeys(wanted))
    transport.banner_timeout = LOGIN_SECONDS
    transport.auth_timeout = LOGIN_SECONDS
    try:
        transport.start_client(timeout=LOGIN_SECONDS)
        transport.get_remote_server_key()
    except paramiko.ssh_exception.IncompatiblePeer as exc:
        transport.close()
        raise progress.failure(f"no common way to encrypt: {exc}") from exc
    except (OSError, EOFError, paramiko.SSHException) as exc:
        transport.close()
        sock.close()
        words = str(exc) or "it closed the connection"
        raise Unsteady(f"the SSH server did not get on: {words}") from exc
    return transport


def _algorithms(name: str) -> list[str]:
    return ["rsa-sha2-512", "rsa-sha2-256", name] if name == "ssh-rsa" else [name]


# -------------------------------------------------------------------- authentication


def _authenticate(
    transport: paramiko.Transport, host: SSHHost, settings: _Settings, progress: Progress
) -> None:
    """Try keys, then the password. Nothing is ever asked of a user."""
    troubles: list[str] = []
    agent = paramiko.Agent()
    progress.enter("authentication")
    try:
        for label, key in _keys(host, settings, agent, troubles):
            try:
                left = transport.auth_publickey(settings.user, key)
            except paramiko.BadAuthenticationType as exc:
                troubles.append(f"keys are not accepted, but {', '.join(exc.allowed_types)}")
                break
            except paramiko.AuthenticationException:
                troubles.append(f"{label} was refused")
            else:
                if not left:
                    return
                troubles.append(f"{label} was accepted, but {', '.join(left)} is wanted, too")
                break
        if host.password is not None:
            try:
                left = transport.auth_password(settings.user, host.password)
            except paramiko.BadAuthenticationType as exc:
                troubles.append(f"passwords are not accepted, but {', '.join(exc.allowed_types)}")
            except paramiko.AuthenticationException:
                troubles.append("the password was refused")
            else:
                if not left:
                    return
                troubles.append(f"after the password, {', '.join(left)} is wanted, too")
    except (OSError, EOFError, paramiko.SSHException) as exc:
        if not troubles:
            raise Unsteady(f"the connection broke: {exc or 'it was closed'}") from exc
        troubles.append(f"the server closed the connection: {exc}")
    finally:
        agent.close()
    if not troubles:
        troubles.append("there is no key, no agent and no password")
    raise progress.failure(f"as {settings.user}: {'; '.join(troubles)}")


def _keys(
    host: SSHHost, settings: _Settings, agent: paramiko.Agent, troubles: list[str]
) -> Iterator[tuple[str, Any]]:
    """Find the keys to be tried, in order; note those that cannot be."""
    held: dict[bytes, Any] = {}
    if settings.agent:
        held = {key.asbytes(): key for key in agent.get_keys()}
    given = [os.path.expanduser(path) for path in host.keys]
    standard = ["ed25519", "ecdsa", "rsa"]
    default = [os.path.expanduser(f"~/.ssh/id_{kind}") for kind in standard]
    named = [*given, *settings.identities] or default
    for path in dict.fromkeys(named):
        key = held.pop(_public_part(path), None)
        if key is not None:
            yield f"{path} (in the agent)", key
            continue
        if path not in given and not os.path.exists(path):
            continue
        try:
            yield path, _load_key(path, host.password)
        except (OSError, ValueError, paramiko.SSHException) as exc:
            troubles.append(f"{path} cannot be used: {exc}")
    if not settings.identities_only:
        for key in held.values():
            yield f"the agent's {_fingerprint(key)}", key


def _public_part(path: str) -> bytes:
    try:
        return base64.b64decode(read_file(f"{path}.pub").split()[1])
    except (OSError, ValueError, IndexError):
        return b""


def _load_key(path: str, passphrase: str | None) -> Any:
    """Read a private key of any kind, and the certificate beside it."""
    reasons = []
    for kind in KEY_CLASSES:
        try:
            key = kind.from_private_key_file(path, passphrase)
            break
        except paramiko.PasswordRequiredException:
            raise paramiko.SSHException(
                "it is encrypted, and there is no passphrase: give it as password=, or add the "
                "key to an agent"
            ) from None
        except (paramiko.SSHException, ValueError) as exc:
            reasons.append(str(exc))
    else:
        raise paramiko.SSHException(reasons[0] if len(set(reasons)) == 1 else "it is no key")
    if os.path.exists(f"{path}-cert.pub"):
        key.load_certificate(f"{path}-cert.pub")
    return key


# ----------------------------------------------------------------------- connections


class ParamikoRun:
    """
    A command; see :class:`remote_executor.launch.ssh.Run`.

    Args:
        channel: Where it runs.
    """

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._stderr = b""

    def write(self, data: bytes) -> None:
        """Write to its standard input."""
        self._channel.settimeout(LOGIN_SECONDS)
        self._channel.sendall(data)

    def read(self, timeout: float) -> bytes:
        """Read from its standard output."""
        self._channel.settimeout(timeout)
        data: bytes = self._channel.recv(CHUNK)
        return data

    def stderr(self) -> str:
        """Return what it has written to its standard error."""
        while self._channel.recv_stderr_ready():
            self._stderr += self._channel.recv_stderr(CHUNK)
        return self._stderr.decode("utf-8", "replace")

    def status(self) -> int | None:
        """Return its exit status."""
        if not self._channel.exit_status_ready() or self._channel.exit_status < 0:
            return None
        status: int = self._channel.exit_status
        return status

    def is_lost(self) -> bool:
        """Tell whether the connection has ended."""
        return self.status() is None and not self._channel.get_transport().is_active()

    def wait(self, timeout: float) -> bool:
        """Wait until it has ended."""
        ended: bool = self._channel.status_event.wait(timeout)
        return ended


class ParamikoConnection:
    """
    A connection; see :class:`remote_executor.launch.ssh.Connection`.

    Args:
        transport: It has authenticated.
        before: The connection to the jump host that it goes through.
        process: The ProxyCommand that it goes through.
    """

    def __init__(
        self,
        transport: paramiko.Transport | None,
        before: ParamikoConnection | None,
        process: subprocess.Popen[bytes] | None,
    ) -> None:
        self._transport = transport
        self._before = before
        self._process = process
        self._pumps: list[Pump] = []
        self._lock = threading.Lock()
        self.run: ParamikoRun | None = None

    def start(self, command: str) -> None:
        """Run a command; raise OSError if that cannot be."""
        assert self._transport is not None
        try:
            channel = self._transport.open_session(timeout=LOGIN_SECONDS)
            channel.exec_command(command)
        except (EOFError, paramiko.SSHException) as exc:
            raise OSError(f"{exc or 'the connection was closed'}") from exc
        self.run = ParamikoRun(channel)

    def open_channel(self, host: str, port: int, timeout: float) -> paramiko.Channel:
        """
        Open a channel to a place that the other end can reach.

        Raises:
            ServerGone, NotForwarded, OSError: As :meth:`open_stream`.
        """
        assert self._transport is not None
        try:
            return self._transport.open_channel(
                "direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=timeout
            )
        except paramiko.ChannelException as exc:
            if exc.code == CONNECT_FAILED:
                raise ServerGone(str(exc)) from exc
            if exc.code == PROHIBITED:
                raise NotForwarded(str(exc)) from exc
            raise OSError(str(exc)) from exc
        except (EOFError, paramiko.SSHException) as exc:
            raise OSError(f"{exc or 'the connection was closed'}") from exc

    def open_stream(self, address: Address, timeout: float) -> socket.socket:
        """Return a socket that leads to the address."""
        channel = self.open_channel(address.host, address.port, timeout)
        ours, theirs = socket.socketpair()
        with self._lock:
            self._pumps = [pump for pump in self._pumps if pump.runs()]
            self._pumps.append(Pump(theirs, channel, str(address)))
        return ours

    def is_alive(self) -> bool:
        """Tell whether the connection is open, as far as is known."""
        return self._transport is not None and self._transport.is_active()

    def close(self) -> None:
        """Close it."""
        with self._lock:
            pumps, self._pumps = self._pumps, []
        for pump in pumps:
            pump.finish(0.5 if self.is_alive() else 0.0)
        if self._transport is not None:
            self._transport.close()
        for pump in pumps:
            pump.join()
        if self._before is not None:
            self._before.close()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(1.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def abandon(self) -> None:
        """Let go of descriptors."""
        sock = getattr(self._transport, "sock", None)
        if isinstance(sock, socket.socket):
            sock.close()
        if self._before is not None:
            self._before.abandon()
        for pump in self._pumps:
            pump.sock.close()


class Pump:
    """
    Moves bytes between a socket and a channel, in two threads, until both ends have ended.

    Args:
        sock: Owned from now on.
        channel: Owned from now on.
        name: What to call the threads.
    """

    def __init__(self, sock: socket.socket, channel: paramiko.Channel, name: str) -> None:
        self.sock = sock
        self._channel = channel
        self._sent = threading.Event()
        """Set once all that the socket brought has been sent."""
        self._threads = [
            threading.Thread(target=run, name=f"ssh {way} {name}", daemon=True)
            for run, way in ((self._send_all, "to"), (self._receive_all, "from"))
        ]
        for thread in self._threads:
            thread.start()

    def _send_all(self) -> None:
        buffer = memoryview(bytearray(CHUNK))
        channel, sock = self._channel, self.sock
        try:
            while count := sock.recv_into(buffer):
                for start in range(0, count, PACKET):
                    # A packet each: of more, paramiko copies the rest again and again.
                    channel.sendall(bytes(buffer[start : min(count, start + PACKET)]))
            channel.shutdown_write()
        except (OSError, EOFError, paramiko.SSHException):
            channel.close()
        finally:
            self._sent.set()

    def _receive_all(self) -> None:
        channel, sock = self._channel, self.sock
        try:
            while data := channel.recv(CHUNK):
                sock.sendall(data)
        except (OSError, EOFError, paramiko.SSHException):
            pass
        # The end is the end for both: the link above has no use for half a stream.
        channel.close()
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def runs(self) -> bool:
        """Tell whether it still moves anything; if not, give back the socket."""
        if any(thread.is_alive() for thread in self._threads):
            return True
        self.sock.close()
        return False

    def finish(self, patience: float) -> None:
        """
        Have the last words sent, and stop.

        Args:
            patience: Seconds for that.
        """
        self._sent.wait(patience)
        self._channel.close()
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def join(self) -> None:
        """Wait for the threads, and give back the socket."""
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
        self.sock.close()
