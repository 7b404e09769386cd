"""The pool's decisions, carried out: tasks go to workers, and workers come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_executor.core.pool import Give, Resume, Start
from remote_executor.server.results import QUICK_MICROS

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.server.begin_order import BeginOrder
    from remote_executor.server.client_session import ClientSession
    from remote_executor.server.context import Context
    from remote_executor.server.processes import Processes
    from remote_executor.server.workers import WorkerProcess

__all__ = ["Assignments"]


class Assignments:
    """
    Does what the pool has decided.

    Args:
        context: The server's.
        processes: Workers are started and stopped there.
        begin_order: Keeps the order of priorities.
        given: Called whenever a worker was given tasks.
    """

    __slots__ = ("_begin_order", "_context", "_given", "_processes", "_timer")

    def __init__(
        self,
        context: Context,
        processes: Processes,
        begin_order: BeginOrder,
        given: Callable[[], None],
    ) -> None:
        self._context = context
        self._processes = processes
        self._begin_order = begin_order
        self._given = given
        self._timer = context.loop.timer(lambda _: None)  # a round is all it takes

    def carry_out(self, now: float) -> None:
        """Ask the pool what is to be done, and do it."""
        pool = self._context.pool
        for action in pool.assign(now):
            if type(action) is Give:
                self.give(action.worker.shell, action.ids)
            elif type(action) is Start:
                self._processes.start(action.worker)
            elif type(action) is Resume:
                self._context.clients[action.worker.session].lines.go_on(action.worker.shell)
            else:
                self._processes.stop(action.worker)
        self._timer.at(pool.deadline())
        if self._context.idle.is_open:
            self._context.idle.say(pool.idle())

    def give(self, process: WorkerProcess, ids: list[int]) -> None:
        """
        Give a worker tasks, and what they need, in one write.

        Args:
            process: The worker, for which the pool has taken note of them.
            ids: The tasks, of one session.
        """
        context = self._context
        tenant = process.pool.session
        client = context.clients[tenant]
        known, needs = process.known, client.needs
        frames = [client.frames[id] for id in ids]
        for frame in frames:
            if frame.aux not in known:
                _give_blob(client, process, frame.aux)
            if needs:
                for number in needs.get(frame.id, ()):
                    if number not in known:
                        _give_blob(client, process, number)
            if frame.segment is not None:
                client.sharing.given(process, frame)
        if tenant.priorities:
            self._begin_order.wait_for_turn(process.pool, ids[0])
        process.want_writing(context.loop, not process.give(frames))
        seconds = tenant.seconds
        context.round.quick = len(ids) == 1 and seconds is not None and seconds * 1e6 < QUICK_MICROS
        self._given()


def _give_blob(client: ClientSession, process: WorkerProcess, number: int) -> None:
    blob = client.blobs.get(number)
    if blob is not None:
        process.known.add(number)
        process.put(blob)
