"""What the scheduler decides about: tasks, the items of maps, and servers."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from remote_executor.core.known import Function
    from remote_executor.wire.frames import Buffer

__all__ = ["Feed", "Server", "Task", "TaskState", "needed_by"]

HORIZON = 0.020
"""Seconds of work that a slot has ahead of it."""
SHORT = 0.100
"""A task below this many seconds has a successor waiting at its server."""
QUICKEST = 5e-6
"""No task takes less than this all in all, whatever a worker measured."""
MOST_BYTES = 128 * 1024 * 1024
"""Bytes of arguments under way to one server, beyond one task a slot."""
BATCH_SECONDS = 0.020
BATCH_BYTES = 128 * 1024
"""Bytes of arguments, or of results, in a batch of several items, as far as items are alike. What
is larger leaves the caches of the processors, and its memory is not used again for the next."""
BATCH_GROWTH = 8
"""Times the largest batch that was measured: others may take longer than those in it."""
SURE_GROWTH = 64
"""The same once a batch of :data:`BATCH_GROWTH` items was measured, or an item takes less than
:data:`TINY_SECONDS`. By 1, 64, 4096 tiny items are in batches as large as they should be after two
round trips, by 1, 8, 64, 512, 4096 after four. If others take longer after all, a batch has no more
than half of a slot's even share of what is left."""
TINY_SECONDS = 50e-6
LEAST_SECONDS = 0.0005
"""Work that is not divided any more at the end of a map: to send it in parts would take longer."""
FIRST_PAUSE = 0.010
"""Seconds after which a server that had nothing to give back is asked again, doubled each time."""


class TaskState(enum.Enum):
    """Where a task stands."""

    QUEUED = "queued"
    SENT = "sent"
    BEGUN = "begun"
    SETTLED = "settled"


QUEUED = TaskState.QUEUED


class Task:
    """
    A call, or a batch of a map's items.

    ``id`` names its present attempt: every time it is sent anew it gets a new one, and answers to
    an old one mean nothing. The attributes in the second group are the driver's.
    """

    __slots__ = (
        "abroad",
        "blobs",
        "body",
        "buffers",
        "cancelling",
        "category",
        "count",
        "encoded",
        "feed",
        "first",
        "flags",
        "fn",
        "function",
        "generation",
        "grace",
        "id",
        "items",
        "lane",
        "lost_with",
        "name",
        "pinned",
        "posted",
        "priority",
        "retries",
        "retrying",
        "segment",
        "server",
        "sink",
        "size",
        "state",
        "timeout",
    )

    def __init__(
        self,
        id: int,
        sink: Any,
        encoded: Any,
        body: Buffer | None,
        buffers: Sequence[Buffer] = (),
        *,
        retries: int = 3,
        priority: int = 0,
        lane: object = None,
    ) -> None:
        self.id = id
        self.state = QUEUED
        self.server: Server | None = None
        self.size = 0
        self.retries = retries
        self.priority = priority
        self.lane = lane
        self.lost_with: tuple[str, ...] = ()
        self.cancelling = False
        self.pinned: int | None = None
        self.posted = False
        """Whether it has left for its server; until then it may be in the packing."""
        self.feed: Feed | None = None
        self.first = 0
        self.count = 1

        self.sink = sink
        self.encoded = encoded
        self.function: Function | None = None
        self.body = body
        self.buffers = buffers
        self.abroad: Any = None
        """What goes to servers of another Python, if that is something else."""
        self.generation = 0
        """As of when it sees the names of the program: see payload/code/names.py."""
        self.fn: Any = None
        """The function, kept alive in case that a server of another Python comes."""
        self.items: Any = None
        self.blobs: tuple[Any, ...] = ()
        """The shared objects that it refers to, kept until it is settled."""
        self.segment: Any = None
        self.flags = 0
        self.category: object = None
        self.timeout: float | None = None
        self.grace: float | None = None
        self.name: str | None = None
        self.retrying: Any = None
        """What was tried, and whether to try again if it fails; see client/retry.py."""

    def may_go_elsewhere(self) -> bool:
        """Whether it makes sense on another server, if it has left the one that it was sent to."""
        return self.pinned is None and not (self.feed is not None and self.feed.closed)

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.state.value} server={self.server} {self.name or ''}>"


class Feed:
    """
    The items of a map: cut into batches when there is room for one, not before.

    Args:
        sink: The driver's.
        encoded: The pickled function.
        chunksize: Items in a batch; None lets the size follow the measured time of an item.
        take: Called for each batch that is cut, in order, with the number of its items; what it
            returns becomes the task's ``items``.
    """

    __slots__ = (
        "available",
        "category",
        "chunksize",
        "closed",
        "cut",
        "encoded",
        "flags",
        "fn",
        "generation",
        "grace",
        "item_bytes",
        "lane",
        "name",
        "open_batches",
        "priority",
        "queued",
        "result_bytes",
        "retries",
        "returned",
        "seconds",
        "sink",
        "span",
        "take",
        "timeout",
    )

    def __init__(
        self,
        sink: Any,
        encoded: Any,
        chunksize: int | None,
        take: Callable[[int], Any] = lambda _: None,
        *,
        retries: int = 3,
        priority: int = 0,
        lane: object = None,
    ) -> None:
        self.sink = sink
        self.encoded = encoded
        self.chunksize = chunksize
        self.take = take
        self.retries = retries
        self.priority = priority
        self.lane = lane
        self.generation = 0
        self.fn: Any = None
        """As a task's."""
        self.flags = 0
        self.category: object = None
        self.timeout: float | None = None
        self.grace: float | None = None
        self.name: str | None = None
        self.available = 0
        """Items that are there and not yet cut."""
        self.cut = 0
        """Items cut so far."""
        self.closed = False
        """Whether nobody wants results any more."""
        self.queued = False
        """Whether it waits in the queue for its turn to be cut."""
        self.open_batches = 0
        """Batches that are cut and not settled."""
        self.returned: set[Task] = set()
        """Those of them that wait in the queue: they were sent before."""
        self.item_bytes = 0.0
        """Bytes of an item in the batch that was packed last."""
        self.result_bytes = 0.0
        """Bytes of an item's result in the batch that was done last."""
        self.seconds: float | None = None
        """Measured seconds an item takes."""
        self.span = 1
        """Items in the largest batch measured."""

    def batch(self, id: int, first: int, items: Any, count: int) -> Task:
        """
        Return a batch that is not sent yet.

        Args:
            id: What its attempt is called.
            first: The index of the first of its items.
            items: The items.
            count: How many they are.
        """
        task = Task(
            id,
            self.sink,
            self.encoded,
            None,
            retries=self.retries,
            priority=self.priority,
            lane=self.lane,
        )
        task.feed = self
        task.flags = self.flags
        task.category, task.timeout, task.name = self.category, self.timeout, self.name
        task.grace = self.grace
        task.first, task.count = first, count
        task.generation = self.generation
        task.items = items
        task.size = int(count * self.item_bytes)  # a guess, until it is packed
        return task

    def next_count(self, slots: int) -> int:
        """Return how many items the next batch has, given the farm's slots."""
        if self.chunksize is not None:
            return min(self.chunksize, self.available)
        if self.seconds is None:
            return 1
        sure = self.span >= BATCH_GROWTH or self.seconds < TINY_SECONDS
        growth = SURE_GROWTH if sure else BATCH_GROWTH
        wanted = min(int(BATCH_SECONDS / max(self.seconds, 1e-9)), self.span * growth)
        largest = max(self.item_bytes, self.result_bytes)
        if largest:
            wanted = min(wanted, int(BATCH_BYTES / largest))
        share = -(-self.available // (2 * slots))
        least = int(LEAST_SECONDS / max(self.seconds, 1e-9))
        return max(1, min(wanted, max(share, least), self.available))

    def measured(self, count: int, seconds: float, size: int = 0) -> None:
        """
        Learn from a finished batch.

        Args:
            count: How many items it had.
            seconds: How long they took on their worker, together.
            size: The bytes of their results.
        """
        self.result_bytes = size / count
        each = seconds / count
        self.span = max(self.span, count)
        # Trust the larger batch: its share of fixed cost is smaller.
        weight = 0.5 if self.seconds is None or count * 4 >= self.span else 0.1
        self.seconds = (
            each if self.seconds is None else self.seconds + weight * (each - self.seconds)
        )


class Server:
    """What the scheduler knows of one server."""

    __slots__ = (
        "ask_after",
        "asked",
        "begun",
        "bytes",
        "depth",
        "draining",
        "inflight",
        "key",
        "lent",
        "name",
        "pause",
        "round_trip",
        "seconds",
        "slots",
        "up",
    )

    def __init__(self, key: Any, name: str) -> None:
        self.key = key
        self.name = name
        self.up = False
        self.slots = 0
        self.draining = False
        self.inflight: dict[int, Task] = {}
        self.begun = 0
        """Those of them that are known to have begun: they have run for a while."""
        self.bytes = 0
        self.lent = 0
        """Those that have begun and wait for tasks of their own: their slots are free."""
        self.seconds: float | None = None
        """Measured seconds a task takes on a worker."""
        self.round_trip = 0.0
        self.depth = 0
        """How many tasks may be under way."""
        self.asked: int | None = None
        """The request for work to which it has not answered yet."""
        self.ask_after = 0.0
        self.pause = FIRST_PAUSE

    def __str__(self) -> str:
        return self.name

    def measure(self) -> None:
        """Set how many tasks may be under way, from what was measured."""
        if self.seconds is None:
            each = 2
        elif self.seconds >= SHORT:
            each = 1 if self.round_trip < self.seconds / 20 else 2
        else:
            ahead = (HORIZON + self.round_trip) / max(self.seconds, QUICKEST)
            each = 1 + max(1, min(int(ahead), 2000))
        self.depth = self.slots * each

    def held(self) -> int:
        """Return how many tasks hold a slot there, or wait for one."""
        return len(self.inflight) - self.lent

    def room(self) -> int:
        """Return how many more tasks may be sent now."""
        if not self.up or self.draining:
            return 0
        held = self.held()
        if held >= self.slots and self.bytes >= MOST_BYTES:
            return 0
        return max(0, self.depth - held)


def needed_by(tasks: Iterable[Task]) -> set[int]:
    """Return the numbers of the functions and shared objects that tasks need at their server."""
    numbers: set[int] = set()
    for task in tasks:
        if task.function is not None:
            numbers.add(task.function.number)
            numbers.update(part.number for part in task.function.parts)
        numbers.update(blob.number for blob in task.blobs)
    return numbers
