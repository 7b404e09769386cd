"""
The errors that only clients raise: those that a task's future can hold, and those of ``parallel``.

The tree is drawn in :mod:`remote_executor.errors`. They are apart because they need
``concurrent.futures.process``, which servers and workers shall not pay for.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool

from .errors import FarmError
from .printable import printable, printable_lines

__all__ = [
    "CycleError",
    "InitializerFailed",
    "NestingError",
    "NoKernelError",
    "NoServerError",
    "PtreeError",
    "PtreeRedefinedError",
    "PtreeUndefinedError",
    "RemoteError",
    "RemoteModuleNotFound",
    "ServerLost",
    "ServersMissing",
    "TaskKilled",
    "TaskTimeout",
    "UnsupportedError",
    "WorkerDied",
]


def exit_words(exitcode: int | None) -> str:
    """
    Say how a process ended.

    Args:
        exitcode: Its exit code; negative for the signal that ended it; None if unknown.
    """
    if exitcode is None:
        return "ended, nobody knows how"
    if exitcode >= 0:
        return f"ended with exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        return f"was killed by signal {-exitcode}"
    return f"was killed by signal {-exitcode} ({name})"


class WorkerDied(FarmError, BrokenProcessPool):
    """
    The worker process ended while it ran this task. Other tasks are not affected.

    Attributes:
        host: The host that the worker ran on.
        pid: Its process id, or None if it never got one.
        exitcode: Its exit code; negative for the signal that ended it; None if unknown.
        task: The task's name.
        stderr: The last lines that the worker wrote to stderr.
        reason: More words, such as a guess why; may be empty.
    """

    def __init__(
        self,
        host: str,
        pid: int | None,
        exitcode: int | None,
        task: str,
        stderr: str = "",
        reason: str = "",
    ) -> None:
        super().__init__(host, pid, exitcode, task, stderr, reason)
        self.host = host
        self.pid = pid
        self.exitcode = exitcode
        self.task = task
        self.stderr = stderr
        self.reason = reason

    def __str__(self) -> str:
        words = f"worker {self.pid} on {printable(self.host)} {exit_words(self.exitcode)}"
        words += f" during {printable(self.task)}"
        if self.reason:
            words += f": {self.reason}"
        if self.stderr:
            words += "\nlast lines of its stderr:\n" + printable_lines(self.stderr)
        return words


class InitializerFailed(FarmError, BrokenProcessPool):
    """
    The initializer raised in a worker, so no task can run.

    The exception that it raised is the ``__cause__``, where there is one.

    Attributes:
        host: The host that the worker ran on.
        reason: What the initializer raised, in words.
    """

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(host, reason)
        self.host = host
        self.reason = reason

    def __str__(self) -> str:
        return f"the initializer failed on {printable(self.host)}: {self.reason}"


class NestingError(FarmError, RuntimeError):
    """
    A task cannot have, or wait for, more tasks of its own: so many are nested already.

    Attributes:
        reason: Which limit it has met, and what to do.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class ServerLost(FarmError, BrokenExecutor):
    """
    The servers that a task was sent to were lost, and it has no tries left.

    Attributes:
        task: The task's name.
        servers: The addresses of the servers that it was lost with, oldest first.
    """

    def __init__(self, task: str, servers: Sequence[str]) -> None:
        self.task = task
        self.servers = tuple(servers)
        super().__init__(task, self.servers)

    def __str__(self) -> str:
        return f"{printable(self.task)} was lost with its server: {', '.join(self.servers)}"


class NoServerError(FarmError, BrokenExecutor):
    """
    There is no server that could run a task.

    Attributes:
        addresses: The addresses that were tried.
        reason: Why none of them serves.
    """

    def __init__(self, addresses: Sequence[str], reason: str) -> None:
        self.addresses = tuple(addresses)
        self.reason = reason
        super().__init__(self.addresses, reason)

    def __str__(self) -> str:
        tried = ", ".join(self.addresses) or "no address is known"
        return f"no server ({tried}): {self.reason}"


class ServersMissing(FarmError, RuntimeError):
    """
    Something wants all servers of a farm, and some of them do not serve.

    Attributes:
        servers: The addresses of those.
        reasons: Why each does not serve, in words.
        outcome: What has not been done therefore, in words.
    """

    def __init__(self, servers: Sequence[str], reasons: str, outcome: str) -> None:
        self.servers = tuple(servers)
        self.reasons = reasons
        self.outcome = outcome
        super().__init__(self.servers, reasons, outcome)

    def __str__(self) -> str:
        return (
            f"{printable(self.outcome)}, since not all servers serve ({printable(self.reasons)}): "
            'start them, or remove_server(address), or broadcast(..., missing="skip")'
        )


class TaskKilled(FarmError, BrokenExecutor):
    """
    The task was stopped by request, by ending its worker.

    Attributes:
        task: The task's name.
        host: The host that it ran on; empty if it had not begun.
        pid: The process id of its worker, or None if it had not begun.
        reason: Who asked for it.
    """

    def __init__(self, task: str, host: str = "", pid: int | None = None, reason: str = "") -> None:
        super().__init__(task, host, pid, reason)
        self.task = task
        self.host = host
        self.pid = pid
        self.reason = reason

    def __str__(self) -> str:
        words = f"{printable(self.task)} was killed"
        if self.pid is not None:
            words += f" in worker {self.pid} on {printable(self.host)}"
        if self.reason:
            words += f": {self.reason}"
        return words


class TaskTimeout(FarmError, FutureTimeoutError):
    """
    The task ran for longer than ``options(timeout=)`` allows, and was stopped.

    Attributes:
        task: The task's name.
        timeout: The time that it had, in seconds.
    """

    def __init__(self, task: str, timeout: float) -> None:
        super().__init__(task, timeout)
        self.task = task
        self.timeout = timeout

    def __str__(self) -> str:
        return f"{printable(self.task)} ran for longer than {self.timeout:g} s and was stopped"


class RemoteError(FarmError):
    """
    Stands in for an exception that could not be pickled there or rebuilt here.

    Attributes:
        type_name: The type of the exception, with its module.
        message: What ``str()`` of it gave.
        traceback_text: The remote traceback, as Python prints it.
    """

    def __init__(self, type_name: str, message: str, traceback_text: str = "") -> None:
        super().__init__(type_name, message, traceback_text)
        self.type_name = type_name
        self.message = message
        self.traceback_text = traceback_text

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class RemoteModuleNotFound(FarmError, ModuleNotFoundError):
    """
    A task needs a module that this process has, and that its server has not and cannot be sent.

    Attributes:
        name: The module.
        host: The host that lacks it.
        package: What it was installed with here, or its top-level package.
        version: The version of that package here; empty if it has none.
        reason: Why it is not sent.
    """

    def __init__(self, name: str, host: str, package: str, version: str, reason: str) -> None:
        super().__init__(name, host, package, version, reason)
        self.name = name
        self.host = host
        self.package = package
        self.version = version
        self.reason = reason

    def __str__(self) -> str:
        package = f"{self.package} {self.version}".rstrip()
        return (
            f"{printable(self.host)} has no module {self.name!r} of {package}, which {self.reason}"
        )


class NoKernelError(FarmError, RuntimeError):
    """
    Something needs the current kernel, and there is none.

    Attributes:
        reason: What became of it, in words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.reason}: make one with make_kernel(4) or make_kernel(['host:port']), or use "
            "'with executor.as_kernel():', or pass executor="
        )


class UnsupportedError(FarmError, TypeError):
    """
    The current kernel's executor cannot do what was asked for.

    Attributes:
        executor: The name of the executor's class.
        wanted: What was asked for, in words.
    """

    def __init__(self, executor: str, wanted: str) -> None:
        super().__init__(executor, wanted)
        self.executor = executor
        self.wanted = wanted

    def __str__(self) -> str:
        if self.executor == "SerialExecutor":
            return f"a task cannot {self.wanted} on the kernel that runs it"
        return f"{self.executor} cannot {self.wanted}; a FarmExecutor can"


class CycleError(FarmError, RuntimeError):
    """
    Something would have to wait for itself.

    Attributes:
        what: Which things wait for each other, in words.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"it would wait for itself for ever: {self.what}"


class PtreeError(FarmError):
    """
    A graph of named computations is not as it should be.

    Attributes:
        id: The name of the node.
    """

    def __init__(self, id: object) -> None:
        super().__init__(id)
        self.id = id


class PtreeRedefinedError(PtreeError, ValueError):
    """A node was given a function, and has one already."""

    def __str__(self) -> str:
        return f"node {self.id!r} has a function already"


class PtreeUndefinedError(PtreeError, LookupError):
    """
    A node has no function.

    Attributes:
        id: The name of the node.
        users: The names of the nodes that take its result.
    """

    def __init__(self, id: object, users: Sequence[object] = ()) -> None:
        FarmError.__init__(self, id, tuple(users))
        self.id = id
        self.users = tuple(users)

    def __str__(self) -> str:
        words = f"node {self.id!r} has no function"
        if self.users:
            words += f"; it is asked for by {', '.join(map(repr, self.users))}"
        return words
