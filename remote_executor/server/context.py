"""What all parts of a supervisor use."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from remote_executor.server.idle_page import IdlePage
from remote_executor.server.round import Round
from remote_executor.server.server_log import ServerLog

if TYPE_CHECKING:
    from remote_executor.core.pool import Pool, PoolSession
    from remote_executor.net.loop import Loop
    from remote_executor.server.client_session import ClientSession

__all__ = ["Context"]


class Context:
    """
    The loop, the pool, and who is here.

    Attributes:
        loop: Runs all that happens here, in one thread.
        pool: Decides who runs what.
        log: The server's log.
        round: What is to be done at the end of this round of the loop.
        sessions: The sessions that clients may go on with, by their ids.
        clients: Those and the ones that have ended and still have workers, by the pool's records.
        host: This machine's name.
        id: This server's name, new each time that one starts.
        idle: What workers see of slots that nobody uses.
        single: Whether it serves one client that has started it, and ends with its stream.
        embedded: Whether that client is on the same machine, with the same libraries.
        ending: Whether it takes no new sessions, and ends with the last one.
        draining: Whether it also takes no more tasks of those that are here.
        over: Whether it ends now.
        failure: Why it ends though nobody wants it to; "" if somebody does.
    """

    __slots__ = (
        "clients",
        "draining",
        "embedded",
        "ending",
        "failure",
        "host",
        "id",
        "idle",
        "log",
        "loop",
        "over",
        "pool",
        "round",
        "sessions",
        "single",
    )

    def __init__(self, loop: Loop, pool: Pool, log_level: str) -> None:
        self.loop = loop
        self.pool = pool
        self.log = ServerLog(loop, log_level)
        self.round = Round()
        self.idle = IdlePage()
        self.sessions: dict[str, ClientSession] = {}
        self.clients: dict[PoolSession, ClientSession] = {}
        self.host = socket.gethostname()
        self.id = os.urandom(16).hex()
        self.single = False
        self.embedded = False
        self.ending = False
        self.draining = False
        self.over = False
        self.failure = ""

    def fail(self, reason: str) -> None:
        """End now, since it does not go on without something."""
        self.failure = self.failure or reason
        self.over = True

    def is_here(self, client: ClientSession) -> bool:
        """Whether a session has not ended."""
        return self.sessions.get(client.id) is client
