"""
Every error that the library raises, in one tree.

::

    FarmError
    ├── LocalProtocolError            we misused the protocol: a bug on this side
    ├── RemoteProtocolError           the peer sent something that the protocol forbids
    ├── AddressError                  also a ValueError: an address that cannot be meant
    ├── ConnectionFailed              also a ConnectionError: no session with that server
    │   ├── AuthenticationFailed      one side could not prove who it is
    │   ├── ProtocolMismatch          the two sides speak no common version
    │   └── LaunchFailed              no server could be started there
    ├── ServerFailed                  a server in this process has ended, and nobody wanted it to
    ├── Refused                       what a mechanism of authentication raises; see wire.auth
    ├── PayloadError                  also a PicklingError and a TypeError: it cannot travel
    │   └── CannotShip                it cannot travel to that other version of Python
    ├── JournalError                  also an OSError: a result cannot be kept, or not be read
    │
    │   (in task_errors.py, which only a client imports)
    ├── WorkerDied                    also a BrokenProcessPool: the worker ended under the task
    ├── InitializerFailed             also a BrokenProcessPool: the initializer raised
    ├── ServerLost                    also a BrokenExecutor: no tries were left for the task
    ├── NoServerError                 also a BrokenExecutor: there is no server to run tasks
    ├── ServersMissing                also a RuntimeError: all servers are wanted, and some are away
    ├── TaskKilled                    also a BrokenExecutor: the task was stopped by request
    ├── TaskTimeout                   also a concurrent.futures.TimeoutError
    ├── RemoteModuleNotFound          also a ModuleNotFoundError: a server lacks what we have
    ├── RemoteError                   stands in for an exception that could not be rebuilt here
    ├── NestingError                  also a RuntimeError: tasks of tasks are nested too deep
    ├── NoKernelError                 also a RuntimeError: there is no current kernel
    ├── UnsupportedError              also a TypeError: the kernel's executor cannot do that
    ├── CycleError                    also a RuntimeError: it waits for itself
    └── PtreeError                    a graph of computations is not as it should be
        ├── PtreeRedefinedError       also a ValueError: a node has a function already
        └── PtreeUndefinedError       also a LookupError: a node has no function

``CancelledError``, ``TimeoutError``, ``BrokenExecutor`` are those of ``concurrent.futures``.

Fields come first, the words are made from them in ``__str__``. All of them pickle. Servers and
workers import this file, so it stays light; what needs ``concurrent.futures`` is next door.
"""

from __future__ import annotations

import pickle
from typing import Any

from .printable import printable

__all__ = [
    "AddressError",
    "AuthenticationFailed",
    "CannotShip",
    "ConnectionFailed",
    "FarmError",
    "JournalError",
    "LaunchFailed",
    "LocalProtocolError",
    "PayloadError",
    "ProtocolMismatch",
    "Refused",
    "RemoteProtocolError",
    "ServerFailed",
]


class FarmError(Exception):
    """The root of all errors of this library."""

    def __init__(self, *args: object) -> None:
        # Not super(): some errors are also an OSError, which would take two fields for an errno.
        BaseException.__init__(self, *args)

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from the fields, whatever the other base classes would do."""
        return type(self), self.args, self.__dict__


class LocalProtocolError(FarmError):
    """This side was told to do what the protocol forbids. It is a bug in the library."""


class RemoteProtocolError(FarmError):
    """The peer sent bytes that the protocol forbids. The link to it is closed."""


class AddressError(FarmError, ValueError):
    """
    An address that no server can have. Raised before anything is connected.

    Attributes:
        address: What was given, as text.
        reason: What is wrong with it.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"bad address {self.address!r}: {self.reason}"


class ConnectionFailed(FarmError, ConnectionError):
    """
    No session could be had with a server.

    Attributes:
        address: The server's address, as text.
        reason: Why it failed.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot connect to {self.address}: {self.reason}"


class AuthenticationFailed(ConnectionFailed):
    """One side could not prove who it is, or is not allowed. Trying again does not help."""

    def __str__(self) -> str:
        return f"authentication with {self.address} failed: {self.reason}"


class ProtocolMismatch(ConnectionFailed):
    """The two sides speak no common version of the protocol, or run unlike Pythons."""

    def __str__(self) -> str:
        return f"no common protocol with {self.address}: {self.reason}"


class LaunchFailed(ConnectionFailed):
    """
    A server could not be started, over SSH or by this program. Trying again will not help.

    Attributes:
        address: The host, as it was given; "this machine" for one that this program starts itself.
        stage: How far it came: "configuration", "resolve", "connect", "host key",
            "authentication", "boot", "python not found", "python too old", "import" or "port".
        reason: Why it failed.
        stderr: The last of what the other side wrote to its standard error, or instead of an
            answer; may be empty.
        command: What to try by hand in a shell.
        may_pass: Whether it may go well a moment later, so that it is tried again.
    """

    may_pass: bool = False

    def __init__(
        self, address: str, stage: str, reason: str, stderr: str = "", command: str = ""
    ) -> None:
        FarmError.__init__(self, address, stage, reason, stderr, command)
        self.address = address
        self.stage = stage
        self.reason = reason
        self.stderr = stderr
        self.command = command

    def __str__(self) -> str:
        text = f"no server on {self.address}: {self.stage}: {self.reason}"
        if self.stderr:
            text += f"; it wrote: {self.stderr}"
        if self.command:
            text += f"; try by hand: {self.command}"
        return text


class Refused(FarmError):
    """
    Raised by a mechanism of authentication that does not believe its peer.

    The user gets to see an :class:`AuthenticationFailed` with the same reason.

    Attributes:
        reason: Why. A server's reason is told to the client: let it help, and give nothing away.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ServerFailed(FarmError):
    """
    A server that runs in this process has ended though nobody has asked it to.

    Its clients have been told, and run their tasks elsewhere. Start it again; the command line
    ends with exit code 3, for which a service manager can be told to do that.
    """


class PayloadError(FarmError, pickle.PicklingError, TypeError):
    """
    A function, an argument or a result cannot be pickled.

    It is a ``PicklingError`` and a ``TypeError``, the two that ``pickle`` itself raises.

    Attributes:
        what: The part that cannot be pickled, in words.
        reason: What the pickler said.
    """

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        self.what = what
        self.reason = reason

    def __str__(self) -> str:
        return f"{printable(self.what)} cannot be pickled: {self.reason}"


class CannotShip(PayloadError):
    """
    Code cannot go to another version of Python.

    Bytecode is never sent there. Source is, where it is found and both ends know its syntax.

    Attributes:
        function: What cannot be sent: a function, a class, or what names it.
        reason: Why.
        ours: The Python that has it.
        theirs: The Python that it was to go to.
        cure: What to do about it.
    """

    def __init__(
        self, function: str, reason: str, ours: str = "", theirs: str = "", cure: str = ""
    ) -> None:
        FarmError.__init__(self, function, reason, ours, theirs, cure)
        self.what = self.function = function
        self.reason = reason
        self.ours = ours
        self.theirs = theirs
        self.cure = cure

    def __str__(self) -> str:
        words = f"{printable(self.function)} cannot be sent"
        if self.ours:
            words += f" from {self.ours}"
        if self.theirs:
            words += f" to {self.theirs}"
        words += f": {self.reason}"
        return f"{words}; {self.cure}" if self.cure else words

    def between(self, ours: str, theirs: str) -> CannotShip:
        """
        Return the same with both Pythons named, where they are not yet.

        Args:
            ours: The Python that has it.
            theirs: The Python that it was to go to.
        """
        named = CannotShip(
            self.function, self.reason, self.ours or ours, self.theirs or theirs, self.cure
        )
        named.__cause__ = self.__cause__
        return named


class JournalError(FarmError, OSError):
    """
    A result cannot be written to a journal, or not be read from it.

    Attributes:
        path: The journal's file.
        reason: Why.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"journal {printable(self.path)}: {self.reason}"
