"""What a farm tells of itself: frozen values."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FarmStatus", "ServerStatus"]


class ServerStatus(NamedTuple):
    """
    One server, as the client knows it.

    Attributes:
        address: As it was given.
        state: "up", "draining", "connecting", "waiting to try again", "refused", ...
        slots: How many tasks it runs at a time for anybody; 0 while it is not up.
        running: Tasks known to run.
        sent: Tasks sent and not done, the running ones included.
        bytes_sent: Bytes of their arguments.
        task_seconds: Measured seconds a task takes, or None.
        round_trip: Measured seconds a message takes there and back.
        host: What the server says its host is called.
        pid: The server's process id.
        python: The server's Python version.
        trouble: Why it is not up, in words; None if it is.
        implementation: The server's Python implementation, as ``sys.implementation.name``.
        differences: What differs between the two ends, where it matters for what travels: a line
            each for another minor version of Python, cloudpickle or this library.
        done: Tasks that have returned there; a batch of a map counts as one.
        failed: Tasks that have failed there: they raised, or their worker ended.
    """

    address: str
    state: str
    slots: int
    running: int
    sent: int
    bytes_sent: int
    task_seconds: float | None
    round_trip: float
    host: str
    pid: int
    python: str
    trouble: str | None
    implementation: str = ""
    differences: tuple[str, ...] = ()
    done: int = 0
    failed: int = 0


class FarmStatus(NamedTuple):
    """
    A whole farm at one moment.

    Attributes:
        servers: Each server.
        slots: Slots of all servers that are up.
        queued: Tasks and maps that wait at the client.
        sent: Tasks sent to servers and not done.
        functions: Functions that are remembered.
        waiting: Tasks that wait, and could not begin now: for another try, or for other tasks.
    """

    servers: tuple[ServerStatus, ...]
    slots: int
    queued: int
    sent: int
    functions: int
    waiting: int = 0
