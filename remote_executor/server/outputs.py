"""
What workers print, and how far their clients may fall behind.

A worker is read on while its client takes what comes. One whose client is far behind has to wait,
its output sooner than its results: it may be endless.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_executor.wire.frames import make_frame
from remote_executor.wire.messages import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from remote_executor.server.client_session import ClientSession
    from remote_executor.server.context import Context
    from remote_executor.server.workers import Output, WorkerProcess

__all__ = ["Outputs", "Throttle"]

MOST_UNACKED = 256 * 1024 * 1024
"""With so many bytes not acknowledged by its client, a session's workers must wait."""

MOST_OUTPUT_UNACKED = 64 * 1024 * 1024
MOST_OUTPUT_QUEUED = 1024 * 1024
"""With so many bytes on their way to its client, a session's output must wait."""

OUTPUT_SECONDS = 0.05
"""How long the beginning of a line waits for its end."""

MOST_LAST_READS = 8
"""So often the output of a worker that has ended is read: a grandchild may print for ever."""


class Throttle:
    """Who is not read because a client is too far behind."""

    __slots__ = ("_clients", "_context")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._clients: dict[ClientSession, None] = {}

    def __bool__(self) -> bool:
        return bool(self._clients)

    def look_at(self, client: ClientSession) -> None:
        """Look at the end of the round whether a client has caught up."""
        self._clients[client] = None

    def forget(self, client: ClientSession) -> None:
        """A session has ended."""
        self._clients.pop(client, None)

    def must_wait(self, client: ClientSession, process: WorkerProcess) -> bool:
        """Whether a worker's answers must wait; they are not read then until that is over."""
        if client.wire.unacked_bytes <= MOST_UNACKED:
            return False
        if process not in client.paused_answers:
            client.paused_answers[process] = None
            self._clients[client] = None
            process.paused = True
            process.update_watch(self._context.loop)
        return True

    def must_output_wait(self, client: ClientSession, output: Output) -> bool:
        """Whether a worker's output must wait; it is not read then until that is over."""
        if not _is_clogged(client):
            return False
        client.paused_outputs[output] = None
        self._clients[client] = None
        self._context.loop.want(output.fd, read=False)
        return True

    def resume(self) -> None:
        """Read again from those that had to wait, once their client has caught up."""
        loop = self._context.loop
        for client in list(self._clients):
            if client.paused_answers and client.wire.unacked_bytes <= MOST_UNACKED:
                processes, client.paused_answers = client.paused_answers, {}
                for process in processes:
                    process.paused = False
                    process.update_watch(loop)
            if client.paused_outputs and not _is_clogged(client):
                outputs, client.paused_outputs = client.paused_outputs, {}
                for output in outputs:
                    loop.want(output.fd)
            if not client.paused_answers and not client.paused_outputs:
                del self._clients[client]


def _is_clogged(client: ClientSession) -> bool:
    """Whether output must wait, so that it does not fill memory nor delay results."""
    if client.wire.unacked_bytes > MOST_OUTPUT_UNACKED:
        return True
    return client.connection is not None and (
        client.connection.link.outbox.size > MOST_OUTPUT_QUEUED
    )


class Outputs:
    """
    Passes on what workers print, in whole lines as a rule.

    Args:
        context: The server's.
        throttle: Says whether it must wait.
    """

    __slots__ = ("_context", "_throttle", "_timer", "rests")

    def __init__(self, context: Context, throttle: Throttle) -> None:
        self._context = context
        self._throttle = throttle
        self.rests: dict[Output, None] = {}
        """Those that have begun a line whose end has not come."""
        self._timer = context.loop.timer(lambda _: self._send_rests(list(self.rests)))

    def watch(self, output: Output) -> None:
        """Read it whenever something comes."""
        self._context.loop.watch(output.fd, lambda: self.read(output))

    def read(self, output: Output) -> None:
        """Pass on what a worker has printed."""
        if output.fd < 0:
            return
        client = self._context.clients[output.process.pool.session]
        if self._throttle.must_output_wait(client, output):
            return
        text = output.read()
        if text is None:
            self.drain(output)
            return
        if text:
            self._send(client, output, text)
        if output.rest:
            self.rests[output] = None
            if self._timer.when is None:
                self._timer.at(self._context.loop.now + OUTPUT_SECONDS)

    def drain(self, output: Output) -> None:
        """Read what is left of a worker's output, and close it."""
        if output.fd < 0:
            return
        client = self._context.clients[output.process.pool.session]
        for _ in range(MOST_LAST_READS):
            text = output.read()
            if text:
                self._send(client, output, text)
            if output.empty:
                break
        rest = output.take_rest()
        if rest:
            self._send(client, output, rest)
        self.rests.pop(output, None)
        client.paused_outputs.pop(output, None)
        self._context.loop.forget(output.fd)
        output.close()

    def end_lines(self, processes: Iterable[WorkerProcess]) -> None:
        """Pass on the beginnings of lines of some workers whose ends have not come."""
        wanted = set(processes)
        self._send_rests([each for each in self.rests if each.process in wanted])

    def _send_rests(self, outputs: list[Output]) -> None:
        for output in outputs:
            self.rests.pop(output, None)
            rest = output.take_rest()
            if rest and output.fd >= 0:
                self._send(self._context.clients[output.process.pool.session], output, rest)

    def _send(self, client: ClientSession, output: Output, text: bytes) -> None:
        if client.id in self._context.sessions:
            process = output.process
            task = next(iter(process.pool.assigned), 0)
            client.send(make_frame(Kind.OUTPUT, task, text, aux=process.pid * 4 + output.which))
