"""
The processes of workers: they are made by the zygote, watched, and ended.

::

    start ---> (asked for) --started--> (running) --stop--> ends by itself, or is killed
                    |                       |
                    +--- cannot be made     +--kill--> the zygote kills it and its descendants
                                            +--gone--> owner.worker_exited
"""

from __future__ import annotations

import errno
import json
import socket
from typing import TYPE_CHECKING, Any, Protocol

from remote_executor.core.service import FailedStart, StartStage, errno_words
from remote_executor.server.exit_codes import NOT_PREPARED
from remote_executor.server.workers import WorkerProcess
from remote_executor.server.zygote import kill_with_descendants

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_executor.core.pool import PoolWorker
    from remote_executor.server.client_session import ClientSession
    from remote_executor.server.context import Context
    from remote_executor.server.outputs import Outputs

__all__ = ["LINGER_SECONDS", "Processes", "failed_start"]

LINGER_SECONDS = 2.0
"""How long a peer has to read our last words, and a worker to end by itself."""

NO_ZYGOTE = "the process that makes workers has died"

ZYGOTE_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF)
"""What the control socket says if there is nobody at its other end; all else may pass."""


class ProcessEvents(Protocol):
    """Who wants to hear of workers' processes."""

    def worker_exited(self, process: WorkerProcess, status: int | None) -> None:
        """A process has ended; with None there never was one."""

    def worker_not_made(self, worker: PoolWorker, error: OSError) -> None:
        """There is no room for one more now: of descriptors, memory or processes."""


class Processes:
    """
    All workers of a server.

    Args:
        context: The server's.
        control: The zygote's socket.
        outputs: Reads what they print.
        events: Hears of them.
    """

    def __init__(
        self, context: Context, control: socket.socket, outputs: Outputs, events: ProcessEvents
    ) -> None:
        self._context = context
        self._control = control
        self._buffer = b""
        self._outputs = outputs
        self._events = events
        self._number = 0
        self._by_number: dict[int, WorkerProcess] = {}
        self.by_pid: dict[int, WorkerProcess] = {}
        """Those that run."""
        self._loaded: set[str] = set()
        context.loop.watch(control.fileno(), self._control_readable)

    def __repr__(self) -> str:
        return f"<Processes {sorted(self.by_pid)}>"

    def __bool__(self) -> bool:
        return bool(self._by_number)

    # ------------------------------------------------------------------- beginning

    def start(self, worker: PoolWorker) -> None:
        """Have the zygote make a process for a worker."""
        context = self._context
        client = context.clients[worker.session]
        self._number += 1
        try:
            process = WorkerProcess(worker, self._number)
        except OSError as exc:
            self._events.worker_not_made(worker, exc)
            return
        line = json.dumps(_config(context, client, worker, self._number)).encode() + b"\n"
        try:
            self._watch(process)
            if client.config.get("modules") is True:
                process.add(client.asking.open(process))
            sent = socket.send_fds(self._control, [line], process.theirs())
        except OSError as exc:
            client.asking.worker_gone(process)
            self._unwatch(process)
            process.close()
            if exc.errno in ZYGOTE_GONE:
                context.fail(NO_ZYGOTE)
            self._events.worker_not_made(worker, exc)
            return
        worker.shell = process
        self._by_number[process.number] = process
        client.processes[process] = None
        for frame in (*client.reloaded, *client.setups.values()):
            client.tell_worker(process, frame)
        if sent < len(line):
            try:
                self._control.sendall(line[sent:])
            except OSError:
                context.fail(NO_ZYGOTE)
        process.close_theirs()

    def _watch(self, process: WorkerProcess) -> None:
        loop, readable_workers = self._context.loop, self._context.round

        def readable() -> None:
            readable_workers.readable[process] = None

        loop.watch(process.answers, readable)
        loop.watch(process.wire, readable, lambda: self.flush(process))
        for output in process.outputs:
            self._outputs.watch(output)

    def _unwatch(self, process: WorkerProcess) -> None:
        """Undo :meth:`_watch`, however far it came."""
        loop = self._context.loop
        for fd in (process.answers, process.wire, *(output.fd for output in process.outputs)):
            if loop.watches(fd):
                loop.forget(fd)

    def flush(self, process: WorkerProcess) -> None:
        """Write to a worker what can be written."""
        if process.answers >= 0:
            process.want_writing(self._context.loop, not process.flush())

    # ----------------------------------------------------------------------- ending

    def stop(self, worker: PoolWorker) -> None:
        """Let a worker end by itself; kill it if it takes too long."""
        process: WorkerProcess = worker.shell
        process.tokens.close_writing()
        if process.timer is not None:
            process.timer.close()
        process.timer = self._context.loop.timer(lambda _: self.kill(process))
        process.timer.at(self._context.loop.now + LINGER_SECONDS)

    def kill(self, process: WorkerProcess) -> None:
        """Kill a worker and all that it has started."""
        if process.number in self._by_number and not process.killed:
            process.killed = True
            if process.pid:
                self._tell_zygote({"kill": process.pid})

    def hung_up(self, process: WorkerProcess) -> None:
        """A worker has closed one of its ends: it is dying, or a task has done it."""
        process.hung_up = True
        process.update_watch(self._context.loop)
        self._context.pool.stop(process.pool)
        if process.pid:
            self._tell_zygote({"kill": process.pid})

    def interrupt(self, process: WorkerProcess) -> None:
        """Have TaskKilled raised in what a worker does now."""
        self._tell_zygote({"interrupt": process.pid})

    def forget(self, process: WorkerProcess) -> None:
        """Let go of a process that has ended."""
        self._context.loop.forget(process.answers)
        self._context.loop.forget(process.wire)
        self._context.round.workers.pop(process, None)
        self._by_number.pop(process.number, None)
        self.by_pid.pop(process.pid, None)
        process.close()

    def close(self) -> None:
        """End all: the zygote kills them when it finds its socket closed."""
        self._context.loop.forget(self._control.fileno())
        self._control.close()
        self._context.idle.close()
        for process in self._by_number.values():
            process.close()
        self._by_number.clear()

    # ------------------------------------------------------------------- the zygote

    def _tell_zygote(self, message: dict[str, Any]) -> None:
        try:
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self._context.fail(NO_ZYGOTE)

    def load_once(self, names: Sequence[str]) -> None:
        """Have workers that are made from now on come with modules, since others need them."""
        fresh = [name for name in names if name not in self._loaded]
        if fresh:
            self._loaded.update(fresh)
            self._tell_zygote({"load": fresh})

    def _control_readable(self) -> None:
        context = self._context
        try:
            data = self._control.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            context.log.write("error", f"! {NO_ZYGOTE}: the server ends")
            for process in self.by_pid.values():
                kill_with_descendants(process.pid)
            context.fail(NO_ZYGOTE)
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "started" in message:
                self._started(message)
            elif "gone" in message:
                self._events.worker_exited(self.by_pid[message["gone"]], message["status"])
            else:
                context.log.write("warning", f"! {message['trouble']}")

    def _started(self, message: dict[str, Any]) -> None:
        process = self._by_number[message["started"]]
        if not message["pid"]:
            process.errno = message["errno"]
            self._events.worker_exited(process, None)
            return
        process.pid = message["pid"]
        self.by_pid[process.pid] = process
        if process.killed or process.hung_up:
            self._tell_zygote({"kill": process.pid})


def _config(
    context: Context, client: ClientSession, worker: PoolWorker, number: int
) -> dict[str, Any]:
    """Return what a worker is told before all else: see :mod:`remote_executor.server.worker`."""
    config = client.config
    return {
        "start": number,
        "index": worker.index,
        "first_index": client.first_index,
        "setups": len(client.setups),
        "sys_path": config.get("sys_path"),
        "cwd": config.get("cwd"),
        "argv": config.get("argv"),
        "file": config.get("file"),
        "authkey": config.get("authkey"),
        "depth": config.get("depth"),
        "log_level": config.get("log_level"),
        "client": _python_of(config),
        "limit": client.pool.limit,
        "nested": config.get("nested") is not False,
        "modules": config.get("modules") is True,
        "own": config.get("own"),
        "service": not context.single,
    }


def _python_of(config: dict[str, Any]) -> list[Any] | None:
    """Return the client's implementation and version, if it has said them well."""
    implementation, version = config.get("implementation"), config.get("python")
    if not isinstance(implementation, str) or not isinstance(version, list):
        return None
    return [implementation, version] if all(type(each) is int for each in version) else None


def failed_start(status: int | None, number: int | None, said: str) -> FailedStart:
    """
    Return what is known of a worker that ended before it was ready.

    Args:
        status: The exit code of its process; None if there never was one.
        number: The system's error number, if it refused the process.
        said: What it wrote to its standard error.
    """
    if status is None:
        reason = f"no process can be made for a worker ({errno_words(number)})"
        return FailedStart(StartStage.MADE, reason, number)
    how = f"exit code {status}" if status >= 0 else f"signal {-status}"
    stage = StartStage.PREPARED if status == NOT_PREPARED else StartStage.INITIALIZED
    reason = f"a worker ended before it was ready: {how}" + (said and f"\n{said}")
    return FailedStart(stage, reason, status=status)
