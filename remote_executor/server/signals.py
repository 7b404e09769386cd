"""
What signals say to a server that an administrator or a service manager runs.

========= ==========================================================================================
SIGTERM   End now: say goodbye to clients, whose tasks run elsewhere at once. SIGINT likewise.
SIGUSR1   Drain: finish what has begun, give the rest back, then end.
SIGHUP    Open the log file anew, for logrotate. A server whose terminal was closed ends instead.
SIGCHLD   Wait for orphans, if this is process 1, as in a container.
========= ==========================================================================================
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.net.loop import Loop
    from remote_executor.server.supervisor import Supervisor

__all__ = ["LogFile", "ServerSignals"]


class LogFile:
    """
    A file in the place of standard error, which can be opened anew.

    Args:
        path: Where; lines are added to what is there.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.open()

    def __repr__(self) -> str:
        return f"<LogFile {self.path}>"

    def open(self) -> None:
        """
        Write to the file of that name from now on.

        Raises:
            OSError: If it cannot be opened; what was written to before is written to further.
        """
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            os.dup2(fd, 2)
        finally:
            os.close(fd)


class ServerSignals:
    """
    Handles signals while a server runs; to be used by ``with``, in the main thread.

    Args:
        supervisor: What it is told.
        loop: Its loop.
        log_file: What is to be opened anew, if there is one.
        zygote: The process that this one waits for itself.
    """

    def __init__(
        self, supervisor: Supervisor, loop: Loop, log_file: LogFile | None, zygote: int
    ) -> None:
        self._supervisor = supervisor
        self._loop = loop
        self._log_file = log_file
        self._zygote = zygote
        self._before: dict[int, Any] = {}
        self._terminal = any(os.isatty(fd) for fd in (0, 1, 2))
        """Whether it was started in one. Once that is closed nobody can tell any more."""

    def __enter__(self) -> None:
        self._handle(signal.SIGTERM, self._supervisor.stop)
        self._handle(signal.SIGINT, self._supervisor.stop)
        self._handle(signal.SIGUSR1, self._supervisor.drain)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup wants it
            self._handle(signal.SIGHUP, self._hang_up)
        if os.getpid() == 1:
            self._handle(signal.SIGCHLD, lambda: self._loop.post(self._reap))

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, call: Callable[[], object]) -> None:
        self._before[number] = signal.signal(number, lambda *_: call())

    def _hang_up(self) -> None:
        if self._log_file is not None:
            self._loop.post(self._reopen)
        elif self._terminal:
            self._supervisor.stop()
        else:
            self._loop.post(lambda: self._supervisor.log("info", "= SIGHUP: there is no log file"))

    def _reopen(self) -> None:
        assert self._log_file is not None
        try:
            self._log_file.open()
        except OSError as exc:
            self._supervisor.log("warning", f"! {self._log_file.path} cannot be opened: {exc}")
        else:
            self._supervisor.log("info", "= the log file was opened anew")

    def _reap(self) -> None:
        """Wait for those that have ended here, and were started elsewhere in the container."""
        waitid = getattr(os, "waitid", None)  # not on macOS before Python 3.13
        while waitid is not None:
            try:
                info = waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if info is None or info.si_pid == self._zygote:
                    return  # with the zygote the server ends, too
                os.waitpid(info.si_pid, 0)
            except ChildProcessError:
                return
