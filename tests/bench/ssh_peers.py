"""
Farms behind SSH connections, and the bare connections.

The SSH server is a real one, on the loopback, with throw-away keys.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from remote_executor import Address
    from tests.support.sshd import SSHServer

__all__ = ["SSH_PEERS", "Bare"]

WORKERS = 2
CHUNK = 256 * 1024


@contextlib.contextmanager
def _sshd() -> Iterator[SSHServer]:
    from tests.support.sshd import Keys, SSHServer

    with tempfile.TemporaryDirectory(prefix="remote-executor-bench-") as name:
        folder = Path(name)
        with SSHServer(folder / "node", Keys(folder)) as server:
            lines = server.client_lines()
            for number in range(4):
                lines += server.client_lines().replace(
                    f"Host {server.alias}\n", f"Host node{number}\n"
                )
            server.config.write_text(lines)
            yield server


@contextlib.contextmanager
def _farm(client: str, **options: Any) -> Iterator[Any]:
    from remote_executor import FarmExecutor

    with (
        _sshd() as server,
        FarmExecutor.spawn_over_ssh(
            [server.alias], WORKERS, ssh_config=str(server.config), client=client, **options
        ) as executor,
    ):
        yield executor


class Bare:
    """
    A stream through an SSH connection, and at its end somebody who reads and answers.

    Args:
        open_stream: Opens it, given the address at the other end.
        path: Where that is to be, if it is to be a Unix socket.
    """

    def __init__(self, open_stream: Callable[[Address], Any], path: str | None = None) -> None:
        from remote_executor import parse_address
        from remote_executor.net.streams import listen

        self._listener = listen(parse_address(f"unix:{path}" if path else "127.0.0.1:0"))
        self._listener.setblocking(True)
        port = 0 if path else self._listener.getsockname()[1]
        self._child = os.fork()
        if not self._child:
            try:
                self._serve()
            finally:
                os._exit(0)
        self.stream = open_stream(parse_address(f"unix:{path}" if path else f"127.0.0.1:{port}"))
        self.stream.recv(1)

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        connection.sendall(b"?")  # as a server of ours, it speaks first
        buffer, blob = memoryview(bytearray(CHUNK)), bytes(CHUNK)
        while header := connection.recv(32, socket.MSG_WAITALL):
            left, back = int(header[:16]), int(header[16:])
            while left:
                left -= connection.recv_into(buffer[: min(CHUNK, left)])
            while back:
                back -= connection.send(blob[: min(CHUNK, back)])
            connection.sendall(b"!")

    def move(self, there: int, back: int) -> None:
        """Send so many bytes, and receive so many."""
        self.stream.sendall(b"%16d%16d" % (there, back))
        # In pieces: what paramiko has not sent yet it copies once a packet.
        blob = bytes(CHUNK)
        while there:
            self.stream.sendall(blob[: min(CHUNK, there)])
            there -= min(CHUNK, there)
        left = back + 1
        while left:
            left -= len(self.stream.recv(min(left, CHUNK)))

    def close(self) -> None:
        """End it."""
        self.stream.close()
        self._listener.close()
        # It may have inherited the connection itself, whose end it would wait for.
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)


@contextlib.contextmanager
def bare_paramiko() -> Iterator[Bare]:
    """A direct-tcpip channel of paramiko, as it comes."""
    import paramiko

    with _sshd() as server:
        transport = paramiko.Transport((server.address, server.port))
        made: list[Bare] = []

        def open_stream(address: Address) -> Any:
            transport.start_client()
            key = paramiko.Ed25519Key.from_private_key_file(str(server.keys.user))
            transport.auth_publickey(server.user, key)
            return transport.open_channel(
                "direct-tcpip", (address.host, address.port), ("127.0.0.1", 0)
            )

        try:
            made.append(Bare(open_stream))
            yield made[0]
        finally:
            transport.close()
            for each in made:
                each.close()


@contextlib.contextmanager
def bare_openssh() -> Iterator[Bare]:
    """A port that ``ssh -L`` forwards."""
    from tests.support.faults import free_port
    from tests.support.waiting import wait_until

    with _sshd() as server:
        here = free_port()
        started: list[subprocess.Popen[bytes]] = []

        def connect() -> socket.socket | None:
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", here), 5)
            return None

        def open_stream(address: Address) -> Any:
            forward = f"127.0.0.1:{here}:{address}"
            words = ["ssh", "-F", str(server.config), "-N", "-L", forward, server.alias]
            started.append(subprocess.Popen(words, stdin=subprocess.DEVNULL))
            sock = wait_until(connect, 10, "ssh -L")
            sock.settimeout(None)
            return sock

        made = Bare(open_stream)
        try:
            yield made
        finally:
            made.close()
            for each in started:
                each.terminate()
                each.wait()


@contextlib.contextmanager
def tunnel(client: str) -> Iterator[Bare]:
    """A stream through a connection of ours, such as a farm's link goes through."""
    from remote_executor import SSHHost
    from remote_executor.launch.ssh import Plan
    from remote_executor.launch.stages import Progress

    with _sshd() as server:
        host = SSHHost(server.alias)
        ours = Plan(client=client, ssh_config=str(server.config)).make_client()
        connections: list[Any] = []

        def open_stream(address: Address) -> Any:
            connections.append(ours.connect(host, Progress(host), address, None))
            return connections[0].open_stream(address, 10)

        path = str(server.folder / "there") if client == "openssh" else None
        made = Bare(open_stream, path)
        try:
            yield made
        finally:
            made.close()
            for each in connections:
                each.close()


SSH_PEERS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "farm-paramiko": lambda: _farm("paramiko"),
    "farm-openssh": lambda: _farm("openssh"),
    "farm-direct": lambda: _farm("paramiko", tunnel=False),
    "tunnel-paramiko": lambda: tunnel("paramiko"),
    "tunnel-openssh": lambda: tunnel("openssh"),
    "bare-paramiko": bare_paramiko,
    "bare-openssh": bare_openssh,
    "one-host": _sshd,
    "four-hosts": _sshd,
}
