"""What workers say: results above all, which go on to their clients unopened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_executor.errors import RemoteProtocolError
from remote_executor.net.segments import read_segment
from remote_executor.wire.frames import make_frame, segment_is_lost
from remote_executor.wire.messages import AGAIN, AGAIN_BLOB, KILLED, Kind, encode_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.server.client_session import ClientSession
    from remote_executor.server.context import Context
    from remote_executor.server.outputs import Outputs, Throttle
    from remote_executor.server.processes import Processes
    from remote_executor.server.workers import WorkerProcess
    from remote_executor.wire.frames import Frame

__all__ = ["QUICK_MICROS", "STDERR_CHARACTERS", "Results", "died"]

QUICK_MICROS = 60
"""A single task that takes less is a quick one: what comes after it is waited for awake."""

STDERR_CHARACTERS = 2000
"""So much of what a worker that has died said last is told."""

FOR_NESTED = "remote_executor.client.nested_executor"
"""What tasks that make tasks need. Once one has made some, new workers come with it: as a rule they
take the place of others that wait."""

RESULT = int(Kind.RESULT)
FAILURE = int(Kind.FAILURE)


def died(
    host: str,
    id: int,
    reason: str,
    process: WorkerProcess | None = None,
    exitcode: int | None = None,
    why: str = "",
) -> Frame:
    """
    Return what a client is told of a task that will have no result.

    Args:
        host: Where that is.
        id: The task.
        reason: "died", "killed" or "timeout".
        process: The worker that had begun it, if one had.
        exitcode: That worker's, if it has ended.
        why: What else is known of the reason.
    """
    fields = {
        "reason": reason,
        "pid": process.pid if process else 0,
        "exitcode": exitcode,
        "stderr": process.stderr(STDERR_CHARACTERS) if process else "",
        "host": host,
        "why": why,
    }
    return make_frame(Kind.DIED, id, encode_fields(fields))


class Results:
    """
    Reads workers, and passes on what they have done.

    Args:
        context: The server's.
        processes: Those that are read.
        outputs: What a task has printed goes before its result.
        throttle: Says which workers must wait.
        broken: Called with a session and its worker's frame that says why its setup failed.
    """

    __slots__ = ("_broken", "_context", "_outputs", "_processes", "_throttle")

    def __init__(
        self,
        context: Context,
        processes: Processes,
        outputs: Outputs,
        throttle: Throttle,
        broken: Callable[[ClientSession, Frame], None],
    ) -> None:
        self._context = context
        self._processes = processes
        self._outputs = outputs
        self._throttle = throttle
        self._broken = broken

    def drain(self, process: WorkerProcess) -> None:
        """Take all that a worker has sent up to now."""
        process.drained = False
        while process.answers >= 0 and not process.drained:
            self._take(process)

    def read(self, process: WorkerProcess) -> None:
        """Take some of what a worker has sent, unless its client is too far behind."""
        if process.answers >= 0 and not self._throttle.must_wait(
            self._context.clients[process.pool.session], process
        ):
            self._take(process)

    def _take(self, process: WorkerProcess) -> None:
        context = self._context
        client = context.clients[process.pool.session]
        try:
            frames = process.receive()
            if process.lost:
                frames = _ask_again(client, process, frames or [])
            for index, frame in enumerate(frames or ()):
                if frame.segment is not None and frames is not None:
                    if frame.kind == Kind.SPAWN:
                        self._processes.load_once(
                            [FOR_NESTED, *client.lines.opened(process, frame)]
                        )
                    else:
                        frames[index] = client.sharing.result(process, frame)
        except (RemoteProtocolError, OSError, ValueError) as exc:
            context.log.write("warning", f"! worker {process.pid} sent nonsense: {exc}")
            process.drained = True  # what it sends next would be no better
            frames = None
        if frames is None:
            self._processes.hung_up(process)
            return
        if not frames:
            return
        context.round.frames += len(frames)
        ids: list[int] = []
        micros = 0
        for frame in frames:
            kind = frame.kind
            if kind in (RESULT, FAILURE):
                ids.append(frame.id)
                micros += frame.aux
            elif kind == Kind.READY:
                process.started = True
                client.starts.ready()
                context.pool.ready(process.pool)
            elif kind == Kind.BROKEN:
                process.started = True
                self._broken(client, frame)
                return
            elif kind == Kind.RELEASE:
                if frame.aux in (AGAIN, AGAIN_BLOB):
                    self._give_again(client, process, frame)
                else:
                    client.sharing.released(process, frame.id)
            elif kind == Kind.LOG and client.id in context.sessions:
                client.send(frame)
        if ids:
            self._pass_on(client, process, frames, ids, micros)

    def _pass_on(
        self,
        client: ClientSession,
        process: WorkerProcess,
        frames: list[Frame],
        ids: list[int],
        micros: int,
    ) -> None:
        """Send results to their client; ``frames`` has other things, too."""
        context = self._context
        if client.lines:
            client.lines.drain(process)
        if process.printed:
            # What a task has printed comes before its result, whatever the loop saw first.
            for output in process.outputs:
                self._outputs.read(output)
        process.tokens.answered(ids[-1])
        strange = context.pool.done(process.pool, ids, micros, context.loop.now)
        if strange or len(ids) < len(frames):
            frames = [
                frame
                for frame in frames
                if frame.kind in (RESULT, FAILURE) and frame.id not in strange
            ]
        is_last = not client.pool.tasks
        if is_last and self._outputs.rests:
            # The last words of its last task: the client may leave once it has the result.
            self._outputs.end_lines(client.processes)
        pop = client.frames.pop
        for frame in frames:
            task = pop(frame.id)
            if task.segment is not None:
                client.sharing.settled(task)
        if process.doomed:
            frames = self._ended_when_told(process, frames)
        client.wire.send_all(frames)
        if client.timeouts or client.needs:
            for id in ids:
                client.forget(id)
        context.round.quick = is_last and micros < QUICK_MICROS
        client.wants_writing()

    def _ended_when_told(self, process: WorkerProcess, frames: list[Frame]) -> list[Frame]:
        """Say of tasks that have ended since they were killed why that was; the rest counts."""
        return [
            died(self._context.host, frame.id, process.doomed[frame.id], process)
            if frame.flags & KILLED and frame.id in process.doomed
            else frame
            for frame in frames
        ]

    def _give_again(self, client: ClientSession, process: WorkerProcess, frame: Frame) -> None:
        """A worker had no room for the descriptor of a task's or a blob's segment."""
        if frame.aux == AGAIN:
            client.sharing.released(process, frame.id)
            lost = client.frames.get(frame.id)
        else:
            lost = client.blobs.get(frame.id)
        if lost is None:
            again = make_frame(Kind.FORGET, aux=frame.id)
        elif lost.segment is None:
            again = lost
        else:
            try:
                again = lost.inline(read_segment(lost.segment.fd, lost.sizes()))
            except (OSError, ValueError, MemoryError) as exc:
                self._context.log.write("warning", f"! a task cannot be sent again: {exc}")
                self._processes.kill(process)
                return
        client.tell_worker(process, again)


def _ask_again(client: ClientSession, process: WorkerProcess, frames: list[Frame]) -> list[Frame]:
    """Have results sent again for whose descriptors there was no room; return the others."""
    process.lost = 0
    kept = []
    for frame in frames:
        if segment_is_lost(frame.segment):
            client.tell_worker(process, make_frame(Kind.RELEASE, frame.id, aux=AGAIN))
        else:
            kept.append(frame)
    return kept
