"""What the client of a session sends: tasks, what they need, and what is to become of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_executor.errors import RemoteProtocolError
from remote_executor.net.segments import read_segment
from remote_executor.printable import printable
from remote_executor.server.results import died
from remote_executor.server.token_pipe import ALONG
from remote_executor.wire.messages import (
    AGAIN,
    FIRST_NUMBERED,
    Flag,
    Kind,
    decode_fields,
    decode_ids,
    grace_of_aux,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.server.client_session import ClientSession
    from remote_executor.server.context import Context
    from remote_executor.server.running import Running
    from remote_executor.server.workers import WorkerProcess
    from remote_executor.wire.frames import Frame

__all__ = ["Requests"]

LONGEST_TIMEOUT = 1e8
"""Seconds that a client may ask for; with more there is no limit."""

MOST_NAMES = 1000
"""Characters of names of modules in one line of the log."""

TASK = int(Kind.TASK)
RESULT = int(Kind.RESULT)
ACK = int(Kind.ACK)
OPTIONED = int(Flag.OPTIONED)
SEGMENT = int(Flag.SEGMENT)
SPECIAL = OPTIONED | SEGMENT


class Requests:
    """
    Takes what clients send.

    Args:
        context: The server's.
        running: Is told what is to be killed.
        give: Gives a worker tasks at once.
    """

    __slots__ = ("_context", "_give", "_running")

    def __init__(
        self,
        context: Context,
        running: Running,
        give: Callable[[WorkerProcess, list[int]], None],
    ) -> None:
        self._context = context
        self._running = running
        self._give = give

    def take(self, client: ClientSession, frames: list[Frame], size: int, now: float) -> None:
        """
        Take what a session's client has sent.

        Args:
            client: The session.
            frames: What came.
            size: How many bytes that was.
            now: The time.

        Raises:
            RemoteProtocolError: If it is not what a client may send.
        """
        tasks, new = client.frames, []
        self._context.round.frames += len(frames)
        unnumbered = 0
        for frame in frames:
            if frame.kind == TASK:
                id = frame.id
                if id in tasks or id >= ALONG:
                    raise RemoteProtocolError(f"task {id} came twice, or its id is too large")
                tasks[id] = frame
                if not frame.flags & SPECIAL:
                    new.append(id)
                    continue
                if frame.flags & SEGMENT and frame.segment is not None:
                    kept = client.sharing.arrived(frame)
                    if kept is None:
                        del tasks[id]
                        continue
                    tasks[id] = kept
                if frame.flags & OPTIONED:
                    self._queue_optioned(client, id)
                else:
                    new.append(id)
            elif frame.kind == ACK:
                unnumbered += 1
                client.sharing.acknowledged(client.wire.acknowledged(frame.id))
            elif frame.kind < FIRST_NUMBERED:
                raise RemoteProtocolError(f"kind {frame.kind} came in a session")
            else:
                if new:
                    self._queue(client, new)
                    new = []
                self._take_other(client, frame)
        if new:
            self._queue(client, new)
        if unnumbered < len(frames):
            client.wire.received(len(frames) - unnumbered, size, now)
            if client.timer.when is None:
                client.schedule()

    def _queue(self, client: ClientSession, ids: list[int]) -> None:
        if client.broken:
            for id in ids:
                del client.frames[id]
            return
        if self._context.draining:
            client.give_back(ids)  # it had not heard yet
            return
        pool = self._context.pool
        if len(ids) == 1:
            worker = pool.begin(client.pool, ids[0], self._context.loop.now)
            if worker is not None:
                self._give(worker.shell, ids)
                return
        pool.queue(client.pool, ids)

    def _queue_optioned(self, client: ClientSession, id: int) -> None:
        options = client.options.pop(id, {})
        timeout, index = options.get("timeout"), options.get("worker")
        blobs = options.get("blobs")
        if isinstance(blobs, list):
            client.needs[id] = [number for number in blobs if isinstance(number, int)]
        if isinstance(timeout, (int, float)) and 0 <= timeout < LONGEST_TIMEOUT:
            client.timeouts[id] = timeout
            grace = options.get("grace")
            if isinstance(grace, (int, float)) and 0 <= grace < LONGEST_TIMEOUT:
                client.graces[id] = grace
        priority = options.get("priority")
        if isinstance(index, int) and not client.broken:
            self._context.pool.queue_pinned(client.pool, id, index)
        elif isinstance(priority, int) and not (client.broken or self._context.draining):
            self._context.pool.queue_prior(client.pool, id, priority)
        else:
            self._queue(client, [id])

    def _take_other(self, client: ClientSession, frame: Frame) -> None:
        kind = frame.kind
        if kind == Kind.BLOB:
            client.forget_blob(frame.aux)
            client.sharing.keep(frame)
            client.blobs[frame.aux] = frame
            for process in client.processes:
                process.known.discard(frame.aux)
        elif kind == Kind.FORGET:
            client.forget_blob(frame.aux)
            for process in client.processes:
                if frame.aux in process.known:
                    process.known.discard(frame.aux)
                    client.tell_worker(process, frame)
        elif kind == Kind.OPTIONS:
            client.options[frame.id] = decode_fields(frame.body)
        elif kind == Kind.TAKE_BACK:
            self._take_back(client, frame)
        elif kind == Kind.KILL:
            self._running.kill(client, frame.id, "killed", grace_of_aux(frame.aux))
        elif kind == Kind.PLACE:
            client.first_index = frame.aux
        elif kind == Kind.ASK_BEGUN:
            self._running.tell(client, frame)
        elif kind == Kind.SETUP:
            client.setups = dict(sorted({**client.setups, frame.aux: frame}.items()))
            client.tell_workers(frame)
        elif kind == Kind.RELEASE:
            if frame.aux == AGAIN:
                self._send_result_again(client, frame.id)
            client.sharing.result_released(frame.id)
        elif kind == Kind.MODULES:
            names = client.asking.answered(frame)
            if names:
                served = printable(", ".join(names), MOST_NAMES)
                self._context.log.write(
                    "info", f"= session {client.id[:8]} is served the modules {served}"
                )
        elif kind == Kind.CHILD:
            client.lines.told(frame)
        elif kind == Kind.RELOAD:
            fields = decode_fields(frame.body, modules=list)
            if "own" in fields:
                client.config["own"] = decode_fields(frame.body, own=list, found=list)
            if fields["modules"]:
                client.reloaded.append(frame)
            client.tell_workers(frame)
        else:
            raise RemoteProtocolError(f"kind {kind} is not for a server")

    def _take_back(self, client: ClientSession, frame: Frame) -> None:
        ids = decode_ids(frame.body)
        if ids or not frame.aux:
            taken = self._context.pool.take_back(client.pool, ids)
        else:
            taken = self._context.pool.take_back_newest(client.pool, frame.aux)
        client.give_back(taken, frame.id)

    def _send_result_again(self, client: ClientSession, id: int) -> None:
        """The client had no room for the descriptor of a result's segment: send what is in it."""
        lost = client.wire.find(RESULT, id)
        try:
            if lost is None or lost.segment is None:
                raise ValueError("the result is not here any more")
            client.send(lost.inline(read_segment(lost.segment.fd, lost.sizes())))
        except (OSError, ValueError, MemoryError) as exc:
            self._context.log.write("warning", f"! a result cannot be sent again: {exc}")
            client.send(died(self._context.host, id, "died"))
