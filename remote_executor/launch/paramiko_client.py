"""SSH connections made by paramiko, which is imported here alone."""

from __future__ import annotations

import base64
import functools
import logging
import os
import pwd
import select
import shlex
import shutil
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import paramiko

from remote_executor.client.troubles import RESOLVER_AWAY, SHORTAGES
from remote_executor.errors import LaunchFailed
from remote_executor.launch.clients import (
    PROXY_COMMAND,
    TRY_OPENSSH,
    LastWords,
    Logins,
    NotForwarded,
    ServerGone,
    Unsteady,
)
from remote_executor.launch.hosts import split_jumps, why_unfit_for_shell
from remote_executor.launch.known_hosts import HostKeys, KnownHosts, append_line, host_label
from remote_executor.launch.ssh_config import expand, include_paths, read_file
from remote_executor.launch.ssh_settings import (
    Settings,
    ask_ssh,
    make_settings,
    refuse_unknown,
    unknown_line,
)
from remote_executor.launch.stages import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote_executor.launch.hosts import SSHHost
    from remote_executor.net.addresses import Address

__all__ = ["ParamikoClient", "ParamikoConnection", "Pump"]

_log = logging.getLogger("remote_executor.paramiko")


def _for_debugging(record: logging.LogRecord) -> bool:
    """What paramiko calls an error, with a traceback, is tried again by us, or raised."""
    record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    return _log.isEnabledFor(logging.DEBUG)


_log.addFilter(_for_debugging)

CONNECT_SECONDS = 10.0
LOGIN_SECONDS = 20.0
"""For the banner, the exchange of keys, and each method of authentication."""

AGENT_SECONDS = 60.0
"""For an agent's answer: somebody may have to confirm the use of a key, or to touch it."""

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

SSH_PORT = 22

KEY_CLASSES: tuple[Any, ...] = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)


class ParamikoClient:
    """
    Makes connections; see :class:`remote_executor.launch.clients.Client`.

    Args:
        host_keys: "strict" or "accept-new".
        ssh_config: A file to read instead of ``~/.ssh/config`` and the system's.
    """

    def __init__(self, host_keys: str, ssh_config: str | None) -> None:
        self._accept_new = host_keys == "accept-new"
        self._config = ssh_config
        self._known = KnownHosts()
        self._logins = Logins()
        self._known_lock = threading.Lock()
        self._ssh = shutil.which("ssh")
        """The program that is asked what the configuration means, if there is one."""

    def connect(
        self, host: SSHHost, progress: Progress, address: Address | None, command: str | None
    ) -> ParamikoConnection:
        """Connect and authenticate; see :class:`remote_executor.launch.clients.Client`."""
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
        said: LastWords | None = None
        transport: paramiko.Transport | None = None
        proxied = settings.proxy_command is not None and host.proxy is None and not jumps
        try:
            sock: Any
            if jumps:
                before, sock = self._jump(jumps, settings, progress, depth)
            place = PROXY_COMMAND if proxied else f"{settings.name}:{settings.port}"
            with self._logins.at(place):
                if proxied:
                    progress.enter("connect")
                    assert settings.proxy_command is not None
                    sock, process, said = _run_proxy(settings.proxy_command)
                elif not jumps:
                    sock = _connect(settings, progress)
                progress.enter("connect")
                transport = _handshake(sock, self._known_kinds(settings), settings, progress)
                progress.enter("host key")
                self._check_key(transport, settings, progress)
                progress.enter("authentication")
                _authenticate(transport, host, settings, progress)
            transport.set_keepalive(KEEPALIVE_SECONDS)
            return ParamikoConnection(transport, before, process)
        except BaseException as exc:
            ParamikoConnection(transport, before, process).close()
            words = "" if said is None else said.text()
            if words and isinstance(exc, Unsteady):
                raise Unsteady(f"{exc}; the ProxyCommand wrote: {words}") from exc
            if words and isinstance(exc, LaunchFailed):
                raise progress.failure(exc.reason, words, may_pass=exc.may_pass) from exc
            raise

    def _jump(
        self, jumps: list[SSHHost], settings: Settings, progress: Progress, depth: int
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

    def _lookup(self, host: SSHHost) -> Settings:
        """Find out what the configuration says of a host."""
        home = _home()
        if self._ssh is not None:
            return make_settings(host, ask_ssh(self._ssh, host, self._config), os.environ, home)
        words = self._read_config(host, home)
        return make_settings(host, words, os.environ, home, filled=False)

    def _read_config(self, host: SSHHost, home: str) -> dict[str, list[str]]:
        """Do without the program ssh."""
        given = [f"Host {host.name}"]
        if host.user is not None:
            given.append(f"  User {host.user}")
        if host.port is not None:
            given.append(f"  Port {host.port}")
        head = "\n".join(given) + "\n"

        def applies(block: str) -> bool:
            text = f"{head}{block}\n  SendEnv YES\n"
            return "sendenv" in paramiko.SSHConfig.from_text(text).lookup(host.name)

        files = [os.path.join(home, ".ssh", "config"), "/etc/ssh/ssh_config"]
        text = head
        for path in files if self._config is None else [self._config]:
            folder = os.path.join(home, ".ssh") if path[:5] != "/etc/" else os.path.dirname(path)
            try:
                source = read_file(path)
            except FileNotFoundError:
                continue
            find = functools.partial(include_paths, folder=folder)
            whole = expand(source, applies, find, read_file)
            refuse_unknown(whole, applies)
            text += "Host *\n" + whole
        found = paramiko.SSHConfig.from_text(text).lookup(host.name)
        if "proxyjump" in found and "proxycommand" in found:
            raise unknown_line("ProxyCommand and ProxyJump", "the first of the two counts")
        return {key: [value] if isinstance(value, str) else value for key, value in found.items()}

    # ------------------------------------------------------------------ host keys

    def _known_kinds(self, settings: Settings) -> list[str]:
        try:
            found = self._look_up(settings)
        except OSError:
            return []  # it is reported when the key is checked
        return [kind for kind, _ in (*found.known, *found.without_port)]

    def _look_up(self, settings: Settings) -> HostKeys:
        port = settings.port if settings.known_port else SSH_PORT
        with self._known_lock:
            return self._known.look_up(settings.known_files, settings.known_name, port)

    def _check_key(
        self, transport: paramiko.Transport, settings: Settings, progress: Progress
    ) -> None:
        """See that a host is the one that is known by that name."""
        host_key = transport.get_remote_server_key()
        key = host_key.get_name(), host_key.get_base64()
        shown = f"{key[0]} {_fingerprint(host_key)}"
        for setting, what in (
            (settings.known_command, "KnownHostsCommand"),
            (settings.revoked_file, "RevokedHostKeys"),
        ):
            if setting is not None:
                raise progress.failure(f"paramiko does not know {what}; {TRY_OPENSSH}")
        try:
            found = self._look_up(settings)
        except OSError as exc:
            raise progress.failure(f"known_hosts cannot be read: {exc}") from exc
        if key in found.revoked:
            raise progress.failure(f"its key {shown} was revoked in known_hosts")
        if key in found.known or key in found.without_port:
            return
        name = host_label(settings.known_name, settings.port if settings.known_port else SSH_PORT)
        path = settings.known_files[0] if settings.known_files else None
        changed = [each for kind, each in found.known if kind == key[0]]
        if changed:
            was = ", ".join(f"{key[0]} {_fingerprint_of(each)}" for each in changed)
            where = f" -f {shlex.quote(path)}" if path is not None else ""
            raise progress.failure(
                f"its key has changed: it is {shown}, and known_hosts has {was} for {name}. "
                "Somebody may stand between; if the host is known to have a new key, remove "
                f"the old one with 'ssh-keygen -R {shlex.quote(name)}{where}'"
            )
        if found.authorities:
            raise progress.failure(
                f"known_hosts has an authority for {name} (@cert-authority), and paramiko knows no "
                f"certificates of hosts; {TRY_OPENSSH}"
            )
        if not self._accept_new:
            others = sorted({kind for kind, _ in found.known})
            also = f", which has its keys of other kinds ({', '.join(others)})" if others else ""
            raise progress.failure(
                f"{name} is not in {path or 'any known_hosts'}{also}; its key is {shown}. Log in "
                "once by hand, or say host_keys='accept-new'"
            )
        if path is None:
            return  # UserKnownHostsFile none: nothing is remembered
        try:
            with self._known_lock:
                append_line(path, name, key, settings.hashed)
        except OSError as exc:
            raise progress.failure(f"its key cannot be added to {path}: {exc}") from exc


def _home() -> str:
    """Return the user's folder as ssh does: that of the account, whatever HOME says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return os.path.expanduser("~")


def _fingerprint(key: Any) -> str:
    return _fingerprint_of(key.get_base64())


def _fingerprint_of(text: str) -> str:
    import hashlib

    try:
        digest = hashlib.sha256(base64.b64decode(text)).digest()
    except ValueError:
        return "(it cannot be read)"
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


# ------------------------------------------------------------------------ connecting


def _connect(settings: Settings, progress: Progress) -> socket.socket:
    """Resolve and connect, within limits, until nobody wants it any more."""
    name, port = settings.name, settings.port
    progress.enter("resolve")
    try:
        places = socket.getaddrinfo(name, port, settings.family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        away = isinstance(exc, socket.gaierror) and exc.errno in RESOLVER_AWAY
        words = f"{name} cannot be looked up" if away else f"there is no host {name}"
        raise progress.failure(f"{words}: {exc}", may_pass=away) from exc
    progress.enter("connect")
    error: OSError | None = None
    seconds = settings.connect_seconds or CONNECT_SECONDS
    for family, kind, protocol, _, where in places:
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as exc:  # this system has none of that family, or no descriptor is left
            error = exc
            continue
        try:
            if settings.bind_address is not None:
                sock.bind((settings.bind_address, 0))
            sock.setblocking(False)
            # Each address has a time of its own: a dead one says nothing of the next.
            _finish_connect(sock, where, seconds, progress)
            sock.setblocking(True)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as exc:
            sock.close()
            error = exc
    if isinstance(error, ConnectionResetError):
        raise Unsteady(f"{name}:{port}: {error}") from error
    short = error is not None and error.errno in SHORTAGES
    raise progress.failure(f"{name}:{port}: {error}", may_pass=short) from error


def _finish_connect(sock: socket.socket, where: Any, seconds: float, progress: Progress) -> None:
    until = time.monotonic() + seconds
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
            raise TimeoutError(f"no answer within {seconds:g} s")
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))


def _run_proxy(command: str) -> tuple[socket.socket, subprocess.Popen[bytes], LastWords]:
    """Run a ProxyCommand whose standard input and output are the stream."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
                start_new_session=True,  # the terminal's ^C is not for it
            )
        except BaseException:
            ours.close()
            raise
    assert process.stderr is not None
    return ours, process, LastWords(process.stderr)


def _handshake(
    sock: Any, known: list[str], settings: Settings, progress: Progress
) -> paramiko.Transport:
    """Exchange versions and keys."""
    try:
        transport = paramiko.Transport(sock)
    except (OSError, paramiko.SSHException) as exc:
        sock.close()
        raise Unsteady(f"the connection broke: {exc}") from exc
    transport.set_log_channel(_log.name)
    progress.hold(transport.close)
    options = transport.get_security_options()
    options.ciphers = [
        *(each for each in FAST if each in options.ciphers),
        *(each for each in options.ciphers if each not in FAST),
    ]
    # A key of a kind that is known of the host, rather than one that nobody can compare.
    wanted = [kind for each in known for kind in _algorithms(each) if kind in options.key_types]
    # Then in the order that HostKeyAlgorithms says, where it says anything.
    wanted += [each for each in settings.host_key_algorithms if each in options.key_types]
    if not settings.host_key_algorithms:
        wanted += options.key_types
    else:
        wanted = [each for each in wanted if each in settings.host_key_algorithms]
    if not wanted:
        transport.close()
        sock.close()
        raise progress.failure(
            f"paramiko knows none of HostKeyAlgorithms "
            f"({', '.join(settings.host_key_algorithms)}); {TRY_OPENSSH}"
        )
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
    transport: paramiko.Transport, host: SSHHost, settings: Settings, progress: Progress
) -> None:
    """Try keys, then the password. Nothing is ever asked of a user."""
    troubles: list[str] = []
    agent = _Agent(settings.agent, troubles)
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
    host: SSHHost, settings: Settings, agent: _Agent, troubles: list[str]
) -> Iterator[tuple[str, Any]]:
    """Find the keys to be tried, in order; note those that cannot be."""
    held = {key.asbytes(): key for key in agent.get_keys()}
    given = [os.path.expanduser(path) for path in host.keys]
    for path in dict.fromkeys([*given, *settings.identities]):
        public = _public_part(path)
        key = held.pop(public, None)
        if key is not None:
            yield f"{path} (in the agent)", key
            continue
        if public and path.endswith(".pub"):
            if not os.path.exists(path.removesuffix(".pub")):
                troubles.append(f"{path} is a public key, and no agent has the private one")
                continue
            path = path.removesuffix(".pub")
        if path not in given and not os.path.exists(path):
            continue
        if _is_fido(public):
            troubles.append(f"{path} is a FIDO key, which paramiko cannot use; {TRY_OPENSSH}")
            continue
        try:
            yield path, _load_key(path, host.password)
        except (OSError, ValueError, paramiko.SSHException) as exc:
            troubles.append(f"{path} cannot be used: {exc}")
    if not settings.identities_only:
        for key in held.values():
            yield f"the agent's {_fingerprint(key)}", key


class _Agent(paramiko.agent.AgentSSH):  # type: ignore[misc]
    """
    The keys that an agent holds. paramiko's own class looks in SSH_AUTH_SOCK alone.

    Args:
        path: Its socket; "" for no agent.
        troubles: Takes what is wrong with it.
    """

    def __init__(self, path: str, troubles: list[str]) -> None:
        super().__init__()
        if not path:
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(AGENT_SECONDS)
            sock.connect(path)
            self._connect(sock)
        except (OSError, paramiko.SSHException) as exc:
            sock.close()
            troubles.append(f"the agent at {path} does not answer: {exc}")

    def close(self) -> None:
        """Hang up."""
        self._close()


def _public_part(path: str) -> bytes:
    """Return the public key that a file holds, or the file beside it."""
    for name in (f"{path}.pub", path):
        try:
            kind, text = read_file(name).split(None, 2)[:2]
            if kind.startswith(("ssh-", "ecdsa-", "sk-")):
                return base64.b64decode(text)
        except (OSError, ValueError):
            continue
    return b""


def _is_fido(public: bytes) -> bool:
    """Tell whether a public key, which begins with the name of its kind, is that of a token."""
    return public[4:7] == b"sk-"


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
    A command; see :class:`remote_executor.launch.clients.Run`.

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
    A connection; see :class:`remote_executor.launch.clients.Connection`.

    Args:
        transport: It has authenticated.
        before: The connection to the jump host that it goes through.
        process: The ProxyCommand that it goes through.
    """

    places = ("127.0.0.1:0",)
    """A port of the loopback: paramiko has no streams to Unix sockets."""

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
            self._close_channel()
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
        self._close_channel()
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _close_channel(self) -> None:
        try:
            self._channel.close()
        except (OSError, EOFError, paramiko.SSHException):
            pass  # it tells the other end, and the connection may be cut

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
        self._close_channel()
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def join(self) -> None:
        """Wait for the threads, and give back the socket."""
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
        self.sock.close()
