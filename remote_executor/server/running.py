"""Tasks that have begun: their clients are told, and they are killed on request or by time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_executor.core.pool import Verdict, WorkerState
from remote_executor.server.results import died
from remote_executor.wire.frames import make_frame
from remote_executor.wire.messages import GRACE, Kind, decode_ids, encode_ids, grace_of_aux

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.server.client_session import ClientSession
    from remote_executor.server.context import Context
    from remote_executor.server.processes import Processes
    from remote_executor.server.results import Results
    from remote_executor.server.workers import WorkerProcess
    from remote_executor.wire.frames import Frame

__all__ = ["Running"]

BEGUN_PERIOD = 0.02
INTERRUPT_PERIOD = 0.05
"""So often a worker whose task is to stop is told so."""


class Running:
    """
    What runs, for whom, and until when it may.

    Args:
        context: The server's.
        processes: Where it runs.
        results: What has just ended does not run.
        assign: Has tasks begin that came in this round.
    """

    __slots__ = ("_assign", "_begun_timer", "_context", "_late_timer", "_processes", "_results")

    def __init__(
        self,
        context: Context,
        processes: Processes,
        results: Results,
        assign: Callable[[float], None],
    ) -> None:
        self._context = context
        self._processes = processes
        self._results = results
        self._assign = assign
        self._begun_timer = context.loop.timer(self._report_begun)
        self._late_timer = context.loop.timer(self._kill_late)

    def given(self) -> None:
        """A worker was given tasks: say soon that they have begun."""
        if self._begun_timer.when is None:
            self._begun_timer.at(self._context.loop.now + BEGUN_PERIOD)

    def _report_begun(self, now: float) -> None:
        for process in self._processes.by_pid.values():
            if process.pool.state is WorkerState.BUSY:
                self._results.read(process)  # what has been finished is not running
        found, due = self._context.pool.begun(now)
        begun: dict[ClientSession, list[int]] = {}
        for worker, id, since in found:
            client = self._context.clients[worker.session]
            begun.setdefault(client, []).append(id)
            if id in client.timeouts:
                client.ends[id] = since + client.timeouts[id]
                if self._late_timer.when is None or client.ends[id] < self._late_timer.when:
                    self._late_timer.at(client.ends[id])
        for client, ids in begun.items():
            client.send(make_frame(Kind.BEGUN, body=encode_ids(ids)))
        if due:
            self._begun_timer.at(now + BEGUN_PERIOD)

    def _kill_late(self, now: float) -> None:
        """Kill the tasks that have taken longer than they may."""
        next_end: float | None = None
        for client in list(self._context.sessions.values()):
            for id, end in list(client.ends.items()):
                if end <= now:
                    client.ends.pop(id, None)
                    self.kill(client, id, "timeout", client.graces.pop(id, GRACE))
                elif next_end is None or end < next_end:
                    next_end = end
        self._late_timer.at(next_end)

    def tell(self, client: ClientSession, frame: Frame) -> None:
        """Tell which tasks have begun, however young they are, and kill these if that is asked."""
        context = self._context
        self._assign(context.loop.now)  # what came in this round begins in it
        ids = decode_ids(frame.body)
        workers = [client.pool.tasks.get(id) for id in ids]
        for worker in dict.fromkeys(worker for worker in workers if worker is not None):
            self._results.drain(worker.shell)  # what has just ended does not run
        begun = context.pool.running(client.pool, ids)
        client.send(make_frame(Kind.BEGUN, frame.id, encode_ids(begun)))
        if frame.aux:
            for id in begun:
                self.kill(client, id, "killed", grace_of_aux(frame.aux - 1))

    def kill(self, client: ClientSession, id: int, reason: str, grace: float) -> None:
        """
        Stop a task: at once if it has not begun, else by its worker.

        Args:
            client: Whose task it is.
            id: Which.
            reason: "killed" or "timeout".
            grace: Seconds that it has to end by itself; 0 to kill its worker at once.
        """
        context = self._context
        worker = client.pool.tasks.get(id)
        if worker is not None:
            self._results.drain(worker.shell)  # it may have finished it just now
        gently = grace > 0 and worker is not None and worker.shell.pid
        stop = context.pool.dismiss if gently else context.pool.kill
        verdict, worker = stop(client.pool, id)
        if verdict is Verdict.DROPPED:
            client.forget(id)
            client.send(died(context.host, id, reason))
        elif worker is not None:
            process: WorkerProcess = worker.shell
            process.doomed.setdefault(id, reason)
            if gently and worker.state is not WorkerState.STOPPING:
                self._interrupt(client, process, id, context.loop.now + grace)
            else:
                self._processes.kill(process)

    def _interrupt(
        self, client: ClientSession, process: WorkerProcess, id: int, end: float
    ) -> None:
        """Have a worker raise TaskKilled in its task; kill it if that has not ended in time."""

        def again(now: float) -> None:
            if id not in process.pool.assigned:
                return
            if now >= end:
                self.kill(client, id, "killed", 0.0)
                return
            # More than once: it may be between two of its own steps, where it cannot be raised.
            self._processes.interrupt(process)
            timer.at(min(end, now + INTERRUPT_PERIOD))

        if process.timer is not None:
            process.timer.close()  # of an earlier kill: the last word counts
        timer = process.timer = self._context.loop.timer(again)
        again(self._context.loop.now)
