"""What a client has at a server, in one record: it outlives the connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from remote_executor.core.service import Starts
from remote_executor.printable import printable
from remote_executor.wire.frames import make_frame
from remote_executor.wire.messages import Kind, encode_ids

if TYPE_CHECKING:
    from remote_executor.core.pool import PoolSession
    from remote_executor.net.loop import Timer
    from remote_executor.server.asking import Asking
    from remote_executor.server.round import Round
    from remote_executor.server.sharing import Incoming, Sharing
    from remote_executor.server.workers import Output, WorkerProcess
    from remote_executor.wire.frames import Frame
    from remote_executor.wire.link import Link
    from remote_executor.wire.session import Session

__all__ = ["Attachment", "ClientSession", "Principal", "named"]

MOST_NAME = 300
"""Characters of a principal's name that are shown."""

Principal = tuple[str, str]
"""Who somebody has proved to be: the name that the mechanism knows, and that of a certificate."""


def named(principal: Principal) -> str:
    """Return who that is, to be shown."""
    words = [printable(name, MOST_NAME) for name in principal if name]
    return " with the certificate ".join(words) or "somebody without a name"


class Attachment(Protocol):
    """A connection, as the session sees it to which it is attached."""

    client: ClientSession | None
    link: Link

    def flush(self) -> None:
        """Write what can be written."""

    def close(self) -> None:
        """Close the stream, at once."""


class Lines(Protocol):
    """What the session's workers say of tasks of their own; see :mod:`server.nested`."""

    def __len__(self) -> int:
        """Return how many workers have a line."""

    def opened(self, process: WorkerProcess, frame: Frame) -> list[str]:
        """A worker has sent one end of its line along with a frame."""

    def worker_gone(self, process: WorkerProcess) -> None:
        """A worker has ended, or closed its end."""

    def drain(self, process: WorkerProcess) -> None:
        """Take what a worker has said up to now."""

    def told(self, frame: Frame) -> None:
        """The client says something to a task."""

    def go_on(self, process: WorkerProcess) -> None:
        """The pool has a slot again for a worker."""

    def close(self) -> None:
        """Let go of all."""


class ClientSession:
    """
    What a client has here.

    Attributes:
        id: 32 hex digits, chosen by the client.
        wire: Numbers and acknowledgements.
        pool: The pool's idea of it.
        connection: The link that is attached, if any.
        config: What ATTACH said.
        principal: Who began it; nobody else may go on with it.
        frames: TASK frames of unsettled tasks.
        blobs: BLOB frames by number: functions and shared objects.
        needs: The numbers of the shared objects that an unsettled task refers to, by id.
        setups: The SETUP frames, in the order in which workers do them.
        reloaded: RELOAD frames: what the zygote was told to preload may be older than that.
        timeouts: Seconds that a task may run, by id.
        ends: When such a task is to be killed, once it has begun.
        graces: Seconds that it has to end by itself then, if its client says.
        first_index: The index in its farm of its first worker here.
        memory_per_worker: Bytes above which a worker is not used again; None for no such limit.
        place: What its client says when it comes back.
        broken: Whether it gets no workers any more: see ``starts``, or its initializer failed.
        starts: Decides what follows when its workers do not start.
        paused_answers: Workers that are not read until the client has caught up.
        paused_outputs: Their output likewise.
    """

    __slots__ = (
        "_round",
        "asking",
        "blobs",
        "broken",
        "config",
        "connection",
        "ends",
        "first_index",
        "frames",
        "graces",
        "id",
        "incoming",
        "lines",
        "memory_per_worker",
        "needs",
        "options",
        "paused_answers",
        "paused_outputs",
        "place",
        "pool",
        "principal",
        "processes",
        "reloaded",
        "setups",
        "sharing",
        "starts",
        "timeouts",
        "timer",
        "wire",
    )

    def __init__(
        self,
        id: str,
        wire: Session,
        pool: PoolSession,
        config: dict[str, Any],
        principal: Principal,
        round: Round,
    ) -> None:
        self.id = id
        self.principal = principal
        self.wire = wire
        self.pool = pool
        self.config = config
        self._round = round
        self.connection: Attachment | None = None
        self.frames: dict[int, Frame] = {}
        self.blobs: dict[int, Frame] = {}
        self.needs: dict[int, list[int]] = {}
        self.options: dict[int, dict[str, Any]] = {}
        self.timeouts: dict[int, float] = {}
        self.ends: dict[int, float] = {}
        self.graces: dict[int, float] = {}
        self.setups: dict[int, Frame] = {}
        self.reloaded: list[Frame] = []
        self.processes: dict[WorkerProcess, None] = {}
        self.paused_answers: dict[WorkerProcess, None] = {}
        self.paused_outputs: dict[Output, None] = {}
        self.starts = Starts()
        limit = config.get("memory_per_worker")
        self.memory_per_worker = limit if isinstance(limit, int) and limit > 0 else None
        self.place = ""
        self.broken = False
        self.first_index = 0
        self.timer: Timer
        self.incoming: Incoming
        self.sharing: Sharing
        self.asking: Asking
        self.lines: Lines

    def __repr__(self) -> str:
        return f"<ClientSession {self.id[:8]} {self.wire!r} {self.pool!r}>"

    def send(self, frame: Frame) -> None:
        """Send something to the client; it keeps until there is a link that takes it."""
        self.wire.send(frame)
        self.wants_writing()

    def wants_writing(self) -> None:
        """Have what was sent written at the end of the round."""
        if self.connection is not None:
            self._round.connections[self.connection] = None

    def schedule(self) -> None:
        """Have the session looked at when it wants it next."""
        self.timer.at(self.wire.deadline())

    def tell_workers(self, frame: Frame) -> None:
        """Send something to each of its workers."""
        for process in self.processes:
            self.tell_worker(process, frame)

    def tell_worker(self, process: WorkerProcess, frame: Frame) -> None:
        """Send something to one of its workers, at the end of the round."""
        process.put(frame)
        self._round.workers[process] = None

    def forget(self, id: int) -> None:
        """Forget a task that is settled, or whose client has taken it back."""
        frame = self.frames.pop(id, None)
        if frame is not None and frame.segment is not None:
            self.sharing.settled(frame)
        self.needs.pop(id, None)
        if self.timeouts:
            self.timeouts.pop(id, None)
            self.ends.pop(id, None)
            self.graces.pop(id, None)

    def give_back(self, ids: list[int], request: int = 0) -> None:
        """
        Give tasks back that have not begun: they run elsewhere.

        Args:
            ids: The tasks, which the pool has forgotten or never had.
            request: What the client has asked, if it has.
        """
        for id in ids:
            self.forget(id)
        self.send(make_frame(Kind.TAKEN_BACK, request, encode_ids(ids)))

    def forget_blob(self, number: int) -> None:
        """Forget a function or a shared object, if it is there."""
        blob = self.blobs.pop(number, None)
        if blob is not None:
            self.sharing.drop(blob)

    def forget_all(self) -> None:
        """Forget all tasks, and what they need."""
        for blob in self.blobs.values():
            self.sharing.drop(blob)
        for table in (
            self.frames,
            self.blobs,
            self.needs,
            self.options,
            self.timeouts,
            self.ends,
            self.graces,
        ):
            table.clear()

    def let_go(self) -> None:
        """
        Let go of what refers to it by a closure, once it has ended and its last worker is gone.

        The garbage collector runs rarely in a server, and a session with its workers takes
        megabytes.
        """
        self.sharing.close()
        self.asking.close()
        self.lines.close()
        self.incoming.close()
        self.connection = None
