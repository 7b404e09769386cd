"""What one round of the supervisor's loop has yet to do when all has been read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from remote_executor.server.workers import WorkerProcess

__all__ = ["Round"]


class Flushable(Protocol):
    """What has something to write."""

    def flush(self) -> None:
        """Write what can be written."""


class Round:
    """
    What is to be done at the end of the round: each thing once, however often it came up.

    One write per worker and one per client is what makes many small tasks fast.

    Attributes:
        readable: Workers that have said something.
        workers: Workers to which something is to be written.
        connections: Clients' connections likewise.
        frames: How many frames have come in this round.
        quick: Whether a single short task is all that goes on: the next wait is spent awake.
    """

    __slots__ = ("connections", "frames", "quick", "readable", "workers")

    def __init__(self) -> None:
        self.readable: dict[WorkerProcess, None] = {}
        self.workers: dict[WorkerProcess, None] = {}
        self.connections: dict[Flushable, None] = {}
        self.frames = 0
        self.quick = False

    def __repr__(self) -> str:
        return (
            f"<Round readable={len(self.readable)} workers={len(self.workers)} "
            f"connections={len(self.connections)} frames={self.frames}>"
        )

    def flush_connections(self) -> None:
        """Write to clients. What comes up meanwhile is for the next time."""
        connections, self.connections = self.connections, {}
        for connection in connections:
            connection.flush()
