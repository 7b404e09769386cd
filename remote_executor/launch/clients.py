"""
What makes SSH connections, as the rest of this folder sees it: clients, connections, commands.

There are two, the library paramiko and the program ssh. What both need stands here and imports
neither.
"""

from __future__ import annotations

import os
import threading
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from remote_executor.launch.stages import Progress
    from remote_executor.net.addresses import Address

__all__ = [
    "PROXY_COMMAND",
    "TRY_OPENSSH",
    "Client",
    "Connection",
    "LastWords",
    "Logins",
    "NotForwarded",
    "Run",
    "ServerGone",
    "Unsteady",
]

MAX_AT_ONCE = 8
"""Connections to a server that have not authenticated."""

PROXY_COMMAND = "a ProxyCommand"
"""In the place of a server that is not known."""

CHUNK = 64 * 1024
MAX_SAID = 64 * 1024
"""Bytes that are kept of what a program writes to its standard error."""

TRY_OPENSSH = "client='openssh' does"
"""Ends the reason of a failure that the program ssh would not have."""


class Unsteady(Exception):
    """The SSH connection broke before the login was done: worth another try."""


class ServerGone(Exception):
    """Nobody listens any more where our server did."""


class NotForwarded(Exception):
    """The SSH server does not forward."""


class Logins:
    """Lets a few log in at a time at each SSH server, which drops some from its tenth on."""

    def __init__(self) -> None:
        self._gates: dict[str, threading.BoundedSemaphore] = {}

    def at(self, place: str) -> threading.BoundedSemaphore:
        """
        Return what is to be held until the login is done.

        Args:
            place: The server that is connected to from here. A dead one holds up no other.
        """
        return self._gates.setdefault(place, threading.BoundedSemaphore(MAX_AT_ONCE))


class LastWords:
    """
    Keeps the last of what a program writes to its standard error, in a thread of its own.

    Args:
        file: The pipe that it writes to; owned from now on.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._said = b""
        self._reader = threading.Thread(target=self._read, name="ssh stderr", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self._file as file:
            while data := os.read(file.fileno(), CHUNK):
                self._said = (self._said + data)[-MAX_SAID:]

    def text(self, patience: float = 0.5) -> str:
        """
        Return it.

        Args:
            patience: Seconds to wait for the program's end.
        """
        self._reader.join(patience)
        return self._said.decode("utf-8", "replace")

    def close(self, patience: float) -> None:
        """Wait for the end of the program, which gives back the pipe, for so many seconds."""
        self._reader.join(patience)


class Run(Protocol):
    """A command that runs on a host."""

    def write(self, data: bytes) -> None:
        """Write to its standard input; raise OSError if nobody reads that any more."""

    def read(self, timeout: float) -> bytes:
        """Read from its standard output: b"" at the end; TimeoutError if nothing comes."""

    def stderr(self) -> str:
        """Return what it has written to its standard error so far."""

    def status(self) -> int | None:
        """Return its exit status once it has ended, None if that is not known."""

    def wait(self, timeout: float) -> bool:
        """Wait until it has ended; return whether it has."""

    def is_lost(self) -> bool:
        """Tell whether it was the connection that ended, rather than the command."""


class Connection(Protocol):
    """An SSH connection that has authenticated."""

    @property
    def places(self) -> Sequence[str]:
        """Where a new server may listen to be reached over it, the best first."""

    @property
    def run(self) -> Run | None:
        """The command that was asked for."""

    def open_stream(self, address: Address, timeout: float) -> socket.socket:
        """
        Return a socket that leads to an address on the host.

        Raises:
            ServerGone: If nobody listens there.
            NotForwarded: If the SSH server will not have it.
            OSError: If the connection is dead.
        """

    def is_alive(self) -> bool:
        """Tell whether it is of use as far as is known."""

    def close(self) -> None:
        """Close it and end what belongs to it. Any thread may call this, and more than once."""

    def abandon(self) -> None:
        """Let go of descriptors only: in a forked child the connection is the parent's."""


class Client(Protocol):
    """A way to make SSH connections: paramiko, or the program ssh."""

    def connect(
        self, host: Any, progress: Progress, address: Address | None, command: str | None
    ) -> Connection:
        """
        Connect and authenticate.

        Args:
            host: Where to: an SSHHost, or a CommandHost for a client of commands.
            progress: Told of each stage; makes the errors.
            address: Where streams will lead to; None if a server is to be started.
            command: What to run through the login shell there.

        Raises:
            LaunchFailed: If that cannot be.
            Unsteady: If it may go better next time.
        """
