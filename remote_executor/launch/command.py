"""
Servers behind any command that runs something elsewhere: frames go over its pipe.

::

    Peer --> SSHWay --> CommandClient --> docker exec -i c1 sh -c '...' --> python3, the server
                              |                   stdin, stdout                    |
                              +----- one pair of sockets: first the launch, then the link -------+

The command's standard input and output are one end of a pair of sockets, so the other end is a
stream as any other, and nothing listens anywhere. What is said at the launch is read line by line,
and not a byte more: what comes after the last line is the link's. When the pipe breaks, the server
behind it ends; the command is run again then, and what was under way runs again.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

from remote_executor.launch.clients import LastWords, ServerGone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_executor.launch.hosts import CommandHost
    from remote_executor.launch.stages import Progress
    from remote_executor.net.addresses import Address

__all__ = ["STDIO", "CommandClient"]

STDIO = "unix:stdio"
"""In the place of an address: the pipe that the server was started by."""

CHUNK = 64 * 1024
WRITE_SECONDS = 30.0
END_SECONDS = 2.0
"""How long a command may take to end once its pipe is closed; then it is killed."""


class CommandRun:
    """
    A command, while the server behind it starts; see :class:`remote_executor.launch.clients.Run`.

    Args:
        argv: The command.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self.sock, theirs = socket.socketpair()
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                argv,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
                start_new_session=True,  # the terminal's ^C is not for it
            )
        except BaseException:
            self.sock.close()
            raise
        finally:
            theirs.close()
        assert self._process.stderr is not None
        self._said = LastWords(self._process.stderr)

    def write(self, data: bytes) -> None:
        """Write to its standard input."""
        self.sock.settimeout(WRITE_SECONDS)
        try:
            self.sock.sendall(data)
        finally:
            self.sock.settimeout(None)

    def read(self, timeout: float) -> bytes:
        """Read from its standard output, at most to the end of a line."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        if not poll.poll(timeout * 1000):
            raise TimeoutError
        try:
            seen = self.sock.recv(CHUNK, socket.MSG_PEEK)
            return self.sock.recv(seen.find(b"\n") + 1 or len(seen))
        except ConnectionResetError:  # it ended, and had not read all that we had written
            return b""

    def stderr(self) -> str:
        """Return what it has written to its standard error."""
        return self._said.text(END_SECONDS if self._process.poll() is not None else 0.0)

    def status(self) -> int | None:
        """Return its exit status."""
        return self._process.poll()

    def is_lost(self) -> bool:
        """Nobody can tell: its own end and that of what it ran look alike."""
        return False

    def wait(self, timeout: float) -> bool:
        """Wait until it has ended."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def cancel(self) -> None:
        """Nobody wants it any more: whoever reads or writes hears of its end. Any thread."""
        with contextlib.suppress(OSError):  # it is closed, or was never connected further
            self.sock.shutdown(socket.SHUT_RDWR)

    def kill(self) -> None:
        """End it, with what it has started here."""
        if not self.wait(END_SECONDS):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._said.close(END_SECONDS)


class CommandConnection:
    """
    A command that has been started; see :class:`remote_executor.launch.clients.Connection`.

    Args:
        argv: The command.
    """

    places = (STDIO,)

    def __init__(self, argv: Sequence[str]) -> None:
        self.run: CommandRun | None = CommandRun(argv)
        self._taken = False
        self._closed = False

    def open_stream(self, address: Address, timeout: float) -> socket.socket:
        """Return the stream to the server, once."""
        run = self.run
        if self._taken or run is None:
            raise ServerGone("the pipe to it has ended")
        self._taken = True
        return run.sock

    def is_alive(self) -> bool:
        """Tell whether the pipe may lead to a server."""
        return self.run is not None and self.run.status() is None

    def close(self) -> None:
        """Close the pipe, and wait for the command's end."""
        if self._closed or self.run is None:
            return
        self._closed = True
        if not self._taken:
            self.run.cancel()
            self.run.sock.close()
        self.run.kill()

    def abandon(self) -> None:
        """This is a forked child: the command is the parent's."""
        run, self.run = self.run, None
        if run is not None and not self._taken:
            run.sock.close()


class CommandClient:
    """Starts commands; see :class:`remote_executor.launch.clients.Client`."""

    def connect(
        self,
        host: CommandHost,
        progress: Progress,
        address: Address | None,
        command: str | None,
    ) -> CommandConnection:
        """
        Start the command of a host.

        Args:
            host: Which.
            progress: Told of each stage.
            address: Where the stream is to lead to; None if a server is to be started.
            command: What a shell there is to run.

        Raises:
            ServerGone: If there was a server: it has ended with its pipe.
            LaunchFailed: If there is no such command.
        """
        if command is None:
            raise ServerGone(f"{address}: it has ended with its pipe")
        progress.enter("connect")
        try:
            connection = CommandConnection([*host.words, *host.behind(command)])
        except OSError as exc:
            raise progress.failure(f"{host.words[0]}: {exc.strerror or exc}") from exc
        run = connection.run
        assert run is not None
        progress.hold(run.cancel)
        return connection
