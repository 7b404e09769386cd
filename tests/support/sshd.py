"""
A real OpenSSH server on a loopback port, with throw-away keys, for whoever runs the tests.

What it starts carries the tests' mark and has a cache folder of its own, so that nothing is written
to the user's home and leaks are found.
"""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from pathlib import Path

from tests.support.faults import free_port
from tests.support.leaks import MARK
from tests.support.scale import scaled
from tests.support.tools import require
from tests.support.waiting import wait_until

__all__ = ["Keys", "SSHServer"]

HINT = "Debian's package openssh-server"
PRIVILEGE_SEPARATION = Path("/run/sshd")


class Keys:
    """
    Key pairs of a test run.

    Args:
        folder: Where they are made.

    Attributes:
        user: The private key that logs in.
        encrypted: One with the passphrase "secret", which logs in as well.
        stranger: One that does not.
        host: What a server proves itself with.
        other_host: Another such.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keygen = require("ssh-keygen", "Debian's package openssh-client")
        self.user = self._make("user")
        self.encrypted = self._make("encrypted", "secret")
        self.stranger = self._make("stranger")
        self.host = self._make("host")
        self.other_host = self._make("other_host")
        self.authorized = folder / "authorized_keys"
        self.authorized.write_text(self.public(self.user) + self.public(self.encrypted))

    def _make(self, name: str, passphrase: str = "") -> Path:
        path = self.folder / name
        command = [self.keygen, "-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", path]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=scaled(30))
        return path

    def public(self, key: Path) -> str:
        """Return the line of a public key."""
        return key.with_name(key.name + ".pub").read_text()

    def known_hosts(self, *names: str, key: Path | None = None) -> str:
        """Return the lines of a known_hosts file for these names."""
        kind, text = self.public(key or self.host).split()[:2]
        return "".join(f"{name} {kind} {text}\n" for name in names)


class SSHServer:
    """
    A running sshd, and a client's configuration that names it ``alias``.

    Args:
        folder: For its files; one folder a server.
        keys: Whom it lets in, and what it is known by.
        options: Lines for its configuration, ahead of our own; the first one of a kind counts.
        environment: What sessions have in their environment beside the usual.
        alias: What the client calls it.
        wrapper: Words ahead of the command, such as those that enter a network namespace.
        address: Where it listens.

    Attributes:
        port: Its port.
        config: The path of a client's configuration.
        known_hosts: The path of the client's known_hosts.
    """

    def __init__(
        self,
        folder: Path,
        keys: Keys,
        *options: str,
        environment: dict[str, str] | None = None,
        alias: str = "node",
        wrapper: tuple[str, ...] = (),
        address: str = "127.0.0.1",
    ) -> None:
        self._program = require("sshd", HINT)
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        self.folder, self.keys, self.alias = folder, keys, alias
        self.wrapper = wrapper
        self.address = address
        self.port = 22022 if wrapper else free_port()
        self.cache = folder / "cache"
        self.user = getpass.getuser()
        variables = {
            "XDG_CACHE_HOME": str(self.cache),
            MARK: os.environ.get(MARK, ""),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PATH": os.environ.get("PATH", os.defpath),
            **(environment or {}),
        }
        self.settings = folder / "sshd_config"
        lines = [
            *options,
            f"ListenAddress {address}:{self.port}",
            f"HostKey {keys.host}",
            f"AuthorizedKeysFile {keys.authorized}",
            f"PidFile {folder / 'pid'}",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "PermitRootLogin yes",
            "PrintMotd no",
            "PrintLastLog no",
            "MaxStartups 100",
            "SetEnv " + " ".join(f'"{name}={value}"' for name, value in variables.items()),
        ]
        self.settings.write_text("\n".join(lines) + "\n")
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(keys.known_hosts(f"[{address}]:{self.port}"))
        self.config = folder / "ssh_config"
        self.config.write_text(self.client_lines())
        self.log = folder / "sshd.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def client_lines(self, *more: str) -> str:
        """Return what a client's configuration says of this server."""
        lines = [
            f"Host {self.alias}",
            f"  HostName {self.address}",
            f"  Port {self.port}",
            f"  User {self.user}",
            f"  IdentityFile {self.keys.user}",
            "  IdentitiesOnly yes",
            f"  UserKnownHostsFile {self.known_hosts}",
            "  GlobalKnownHostsFile none",
            *(f"  {line}" for line in more),
        ]
        return "\n".join(lines) + "\n"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, self._program, "-D", "-e", "-f", str(self.settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, 10, "sshd")

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"sshd ended: {self.log.read_text()}")
        if self.wrapper:
            return "Server listening" in self.log.read_text()
        try:
            with socket.create_connection((self.address, self.port), scaled(1)) as sock:
                return sock.recv(4) == b"SSH-"
        except OSError:
            return False

    def stop(self) -> None:
        """End the listener; sessions go on."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(scaled(10))
            self.process = None

    def sessions(self) -> list[int]:
        """Return the pids of the processes that serve its connections."""
        import psutil

        if self.process is None:
            return []
        return [each.pid for each in psutil.Process(self.process.pid).children()]

    def cut(self, *, for_good: bool = False) -> None:
        """
        End all connections at once, as a broken one ends.

        Args:
            for_good: Take no new ones either.
        """
        import signal

        import psutil

        assert self.process is not None
        found = psutil.Process(self.process.pid).children(recursive=True)
        daemons = [each for each in found if each.name() == "sshd"]
        if for_good:
            self.stop()
        for each in daemons:
            each.send_signal(signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
