"""
Which worker runs which task: the decisions of one server.

::

    task    queued --give--> on a worker, not begun --claimed--> begun --done--> settled
              ^                 |                                  |
              +---- taken back -+                                  +--> died, if its worker did

    worker  STARTING --> IDLE <--> BUSY --> WAITING --> RESUMING --> BUSY
                |          |         |         |            |
                +----------+---------+---------+------------+--> STOPPING --> GONE

A worker is given tasks ahead of time, but may begin one only after it has read the task's *token*
from a pipe. The pool takes tokens back by reading the same pipe. So a token is either with the
pool or with the worker, never with both, and work can be moved, killed or cancelled without asking
the worker and without a task running twice.

A worker that starts or has tasks holds a *slot*; idle ones hold none. A free slot goes to the
session that has work and holds the fewest. A worker whose task waits for tasks of its own has lent
its slot, and gets one back before anybody begins something new: see :mod:`core.lending`.

The pool knows ids only. Frames, pipes and processes belong to the supervisor, which tells what
happened by the methods of :class:`Pool`, then asks :meth:`Pool.assign` once what to do.
"""

from __future__ import annotations

import enum
from collections import deque
from itertools import chain, count
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "Action",
    "Give",
    "Pool",
    "PoolSession",
    "PoolWorker",
    "Resume",
    "Start",
    "Stop",
    "Tokens",
    "Verdict",
    "WorkerState",
]

AHEAD_SECONDS = 0.005
"""How much work a worker is given ahead of time."""

AHEAD_MOST = 256
AHEAD_PRIOR = 16
"""The same where tasks have priorities, since what is given ahead may have to be taken back."""

SHORT_SECONDS = 0.005
"""Of tasks up to this long a worker is given several."""

LONG_SECONDS = 0.05
"""Behind a task that is longer than this none waits."""

STEAL_SECONDS = 0.001
"""Work that would wait longer than this behind another task is moved to an idle worker."""

SPREAD_SECONDS = 0.02
"""Work that has waited this long behind another task is worth a new worker."""

BEGUN_SECONDS = 0.012
"""Tasks shorter than this are never reported as begun."""


class WorkerState(enum.Enum):
    """Where a worker stands."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    WAITING = "waiting"
    """Its task waits for tasks of its own."""
    RESUMING = "resuming"
    """Its task has what it waited for, and wants to go on."""
    STOPPING = "stopping"
    GONE = "gone"

    __hash__ = object.__hash__  # that of Enum is written in Python, and takes part in each move


STARTING = WorkerState.STARTING
IDLE = WorkerState.IDLE
BUSY = WorkerState.BUSY
WAITING = WorkerState.WAITING
RESUMING = WorkerState.RESUMING
STOPPING = WorkerState.STOPPING
GONE = WorkerState.GONE

MOVES = {
    STARTING: (IDLE, STOPPING, GONE),
    IDLE: (BUSY, STOPPING, GONE),
    BUSY: (IDLE, WAITING, STOPPING, GONE),
    WAITING: (RESUMING, IDLE, STOPPING, GONE),
    RESUMING: (BUSY, WAITING, IDLE, STOPPING, GONE),
    STOPPING: (GONE,),
    GONE: (),
}
HOLDING = (STARTING, BUSY)
"""A worker in one of these states holds a slot."""
LENDING = (WAITING, RESUMING)
"""A worker in one of these states has begun a task and holds no slot."""
RUNNING = (BUSY, *LENDING)


class Verdict(enum.Enum):
    """What became of a task that is to be killed."""

    UNKNOWN = "unknown"
    """It is finished, or never was."""
    DROPPED = "dropped"
    """It had not begun, and will not."""
    BEGUN = "begun"
    """It had begun: its worker is to be killed."""


class PoolWorker:
    """
    A worker, as the pool sees it.

    Attributes:
        session: Whose it is.
        index: 0 to n-1 within the session; its replacement has the same.
        state: Where it stands.
        assigned: Ids it was given and has not finished, in the order of their tokens.
        left: How many tasks it may still be given; None means any number.
        shell: Whatever the supervisor wants to keep here.
    """

    __slots__ = (
        "assigned",
        "head",
        "head_since",
        "index",
        "left",
        "reported",
        "session",
        "shell",
        "since",
        "state",
    )

    def __init__(self, session: PoolSession, index: int, now: float) -> None:
        self.session = session
        self.index = index
        self.state = STARTING
        self.assigned: dict[int, bool] = {}
        self.left = session.tasks_per_worker
        self.shell: Any = None
        self.since = now  # when it was given work while idle, or last finished a task
        self.head = -1  # the oldest of its tasks when begun() looked last
        self.head_since = now
        self.reported = False  # whether begun() has told about the head

    def __repr__(self) -> str:
        return f"<PoolWorker {self.index} {self.state.value} assigned={len(self.assigned)}>"


class PoolSession:
    """
    A client's share of the pool.

    Attributes:
        name: What to call it.
        limit: The most workers it may have, beside those that have lent their slot.
        tasks_per_worker: After so many tasks a worker is replaced; None means never.
        workers: Those that are not stopping, by index.
        seconds: Running average of the time a task takes; None before the first has finished.
    """

    __slots__ = (
        "busy",
        "holding",
        "idle",
        "limit",
        "name",
        "open",
        "pinned",
        "pins",
        "priorities",
        "queue",
        "seconds",
        "stale",
        "starting",
        "stopping",
        "tasks",
        "tasks_per_worker",
        "turn",
        "waiting",
        "workers",
    )

    def __init__(self, name: str, limit: int, tasks_per_worker: int | None) -> None:
        self.name = name
        self.limit = limit
        self.tasks_per_worker = tasks_per_worker
        self.open = True
        # Every unsettled task, and the worker that was given it, or None while it is queued.
        self.tasks: dict[int, PoolWorker | None] = {}
        # Ids that were taken back stay in the queue and are skipped: there are ``stale`` of them.
        self.queue: deque[int] = deque()
        self.stale = 0
        # Tasks for a certain worker: queued ones by index, and the index of every unsettled one.
        self.pinned: dict[int, deque[int]] = {}
        self.pins: dict[int, int] = {}
        # Those that are not 0.
        self.priorities: dict[int, int] = {}
        self.workers: dict[int, PoolWorker] = {}
        self.idle: dict[PoolWorker, None] = {}
        self.busy: dict[PoolWorker, None] = {}
        self.waiting: dict[PoolWorker, None] = {}
        self.stopping: dict[PoolWorker, None] = {}
        self.starting = 0
        self.holding = 0
        self.turn = 0
        self.seconds: float | None = None

    @property
    def queued(self) -> int:
        """How many tasks wait for any worker."""
        return len(self.queue) - self.stale

    def tidy(self) -> None:
        """Empty the queue if nothing in it is wanted any more."""
        if self.stale and self.stale == len(self.queue):
            self.queue.clear()
            self.stale = 0

    @property
    def running(self) -> int:
        """How many tasks workers have been given, begun or not."""
        return len(self.tasks) - self.queued - sum(map(len, self.pinned.values()))

    def __repr__(self) -> str:
        return (
            f"<PoolSession {self.name} workers={len(self.workers)}/{self.limit} "
            f"busy={len(self.busy)} queued={self.queued}>"
        )


class Give:
    """Send these tasks to a worker, then their tokens, in this order."""

    __slots__ = ("ids", "worker")

    def __init__(self, worker: PoolWorker, ids: list[int]) -> None:
        self.worker = worker
        self.ids = ids

    def __repr__(self) -> str:
        return f"<Give {self.worker!r} {self.ids[:5]}{'...' if self.ids[5:] else ''}>"


class Start:
    """Start a process for this worker; tell :meth:`Pool.ready` or :meth:`Pool.gone`."""

    __slots__ = ("worker",)

    def __init__(self, worker: PoolWorker) -> None:
        self.worker = worker

    def __repr__(self) -> str:
        return f"<Start {self.worker!r}>"


class Resume:
    """Let this worker go on with its task: it has a slot again."""

    __slots__ = ("worker",)

    def __init__(self, worker: PoolWorker) -> None:
        self.worker = worker

    def __repr__(self) -> str:
        return f"<Resume {self.worker!r}>"


class Stop:
    """Let this worker end: it has done its share. Tell :meth:`Pool.gone` when it has."""

    __slots__ = ("worker",)

    def __init__(self, worker: PoolWorker) -> None:
        self.worker = worker

    def __repr__(self) -> str:
        return f"<Stop {self.worker!r}>"


Action = Give | Start | Stop | Resume


class Tokens(Protocol):
    """The pipes that hold the tokens; tests use one in memory."""

    def reclaim(self, worker: PoolWorker) -> list[int]:
        """Take back all tokens that the worker has not read, in order."""

    def restore(self, worker: PoolWorker, ids: Sequence[int]) -> None:
        """Give back tokens that were reclaimed; the worker still has the tasks."""

    def unread(self, worker: PoolWorker) -> int:
        """Return how many tokens the worker has not read."""


class Pool:
    """
    Decide which worker runs which task, and how many workers there are.

    Tell what happened (:meth:`queue`, :meth:`ready`, :meth:`done`, :meth:`gone` ...), then call
    :meth:`assign` and carry its actions out in order. Call it again at :meth:`deadline`.

    Args:
        slots: How many tasks run at a time.
        tokens: The pipes.
    """

    def __init__(self, slots: int, tokens: Tokens) -> None:
        self.slots = slots
        self.sessions: dict[PoolSession, None] = {}
        self.holding = 0
        self._tokens = tokens
        self._dirty: dict[PoolSession, None] = {}
        self._dry: dict[PoolWorker, None] = {}
        # Sessions that may have queued tasks. Those that have none are dropped when looked at.
        self._waiting: dict[PoolSession, None] = {}
        # Sessions with work behind other work, while a worker or a slot is free.
        self._lagging: dict[PoolSession, None] = {}
        self._recheck: float | None = None
        # Sessions that are to start no worker before a time, since the last ones failed.
        self._paused: dict[PoolSession, float] = {}
        self._turns = 0
        # Workers that want their slot back, in the order in which they have asked.
        self._resuming: dict[PoolWorker, None] = {}

    def __repr__(self) -> str:
        return f"<Pool {self.holding}/{self.slots} slots held, {len(self.sessions)} sessions>"

    # ------------------------------------------------------------------ sessions

    def open(self, name: str, limit: int, tasks_per_worker: int | None = None) -> PoolSession:
        """
        Begin a session.

        Args:
            name: What to call it.
            limit: The most workers it wants; 0 means as many as there are slots.
            tasks_per_worker: After so many tasks a worker is replaced; None means never.
        """
        limit = min(limit, self.slots) if limit > 0 else self.slots
        session = PoolSession(name, limit, tasks_per_worker)
        self.sessions[session] = None
        return session

    def close(self, session: PoolSession) -> list[PoolWorker]:
        """
        End a session and forget its tasks.

        Returns:
            Its workers, all of which are to be killed. Tell :meth:`gone` for each.
        """
        session.open = False
        for worker in list(session.workers.values()):
            self._move(worker, STOPPING)
        workers = list(session.stopping)
        for worker in workers:
            worker.assigned.clear()
        session.tasks.clear()
        session.queue.clear()
        session.stale = 0
        session.pinned.clear()
        session.pins.clear()
        session.priorities.clear()
        del self.sessions[session]
        for table in (self._dirty, self._waiting, self._lagging):
            table.pop(session, None)
        self._paused.pop(session, None)
        self._touch_all()
        return workers

    # --------------------------------------------------------------------- tasks

    def queue(self, session: PoolSession, ids: Sequence[int]) -> None:
        """Take tasks that any worker of the session may run. Ids must be new."""
        if session.priorities:
            for id in ids:
                self.queue_prior(session, id, 0)
            return
        session.tasks.update(dict.fromkeys(ids))
        session.queue.extend(ids)
        self._waiting[session] = None
        self._dirty[session] = None

    def queue_prior(self, session: PoolSession, id: int, priority: int) -> None:
        """Take a task that goes before those of a lower priority, and after all others."""
        session.tasks[id] = None
        priorities, queue = session.priorities, session.queue
        if priority:
            priorities[id] = priority
        for worker in list(session.busy):
            if any(priorities.get(other, 0) < priority for other in worker.assigned):
                self._recall(worker, priority)
        place = len(queue)
        if queue and priorities.get(queue[-1], 0) < priority:
            place = next(
                at for at, other in enumerate(queue) if priorities.get(other, 0) < priority
            )
        queue.insert(place, id)
        self._waiting[session] = None
        self._dirty[session] = None

    def _recall(self, worker: PoolWorker, priority: int) -> None:
        """Have back what a worker was given ahead, if something of it is less urgent than that."""
        session = worker.session
        priorities, queue, pins = session.priorities, session.queue, session.pins
        unread = self._tokens.reclaim(worker)
        back = [id for id in unread if priorities.get(id, 0) < priority and id not in pins]
        self._tokens.restore(worker, [id for id in unread if id not in back])
        for id in reversed(back):
            del worker.assigned[id]
            session.tasks[id] = None
            mine = priorities.get(id, 0)
            # Before those of its own priority, since it was the first of them.
            places = (at for at, other in enumerate(queue) if priorities.get(other, 0) <= mine)
            queue.insert(next(places, len(queue)), id)
        if worker.left is not None:
            worker.left += len(back)
        if not worker.assigned:
            self._dry[worker] = None

    def begin(self, session: PoolSession, id: int, now: float) -> PoolWorker | None:
        """
        Take a task and choose its worker in one step, where :meth:`assign` would do just that.

        That is as a rule so for a task that comes alone. It saves half of the time that a server
        takes to pass it on.

        Args:
            session: Whose task it is.
            id: The task; must be new.
            now: Monotonic time in seconds.

        Returns:
            The worker to give it to; None if nothing has happened: :meth:`queue` it.
        """
        if self._waiting or self._dirty or self.holding >= self.slots or not session.idle:
            return None
        if session.holding >= session.limit:
            return None  # some of its workers have lent their slots, and there are others instead
        worker = next(reversed(session.idle))
        self._move(worker, BUSY)
        worker.since = now
        worker.assigned[id] = True
        if worker.left is not None:
            worker.left -= 1
        session.tasks[id] = worker
        return worker

    def queue_pinned(self, session: PoolSession, id: int, index: int) -> None:
        """Take a task for the worker of that index; for any worker if there can be none."""
        if not 0 <= index < session.limit:
            self.queue(session, (id,))
            return
        session.tasks[id] = None
        session.pins[id] = index
        session.pinned.setdefault(index, deque()).append(id)
        self._waiting[session] = None
        self._dirty[session] = None

    def take_back(self, session: PoolSession, ids: Iterable[int]) -> list[int]:
        """
        Take tasks back that have not begun.

        Returns:
            Those that the pool has forgotten; the others have begun, or never were.
        """
        taken = []
        by_worker: dict[PoolWorker, set[int]] = {}
        tasks = session.tasks
        for id in ids:
            if id not in tasks:
                continue
            worker = tasks[id]
            if worker is None:
                self._unqueue(session, id)
                taken.append(id)
            else:
                by_worker.setdefault(worker, set()).add(id)
        for worker, wanted in by_worker.items():
            taken += self._withdraw(worker, wanted)
        return taken

    def take_back_newest(self, session: PoolSession, count: int) -> list[int]:
        """
        Take back at most ``count`` tasks that have not begun, the newest first.

        Returns:
            Those that the pool has forgotten. Tasks for a certain worker are left alone.
        """
        taken: list[int] = []
        while len(taken) < count and session.queued:
            id = session.queue.pop()
            if id in session.tasks:
                del session.tasks[id]
                session.priorities.pop(id, None)
                taken.append(id)
            else:
                session.stale -= 1
        session.tidy()
        pins = session.pins
        for worker in sorted(session.busy, key=_backlog, reverse=True):
            if len(taken) >= count:
                break
            unread = self._tokens.reclaim(worker)
            movable = [id for id in unread if id not in pins]
            chosen = movable[len(movable) - min(len(movable), count - len(taken)) :]
            self._forget(worker, unread, chosen)
            taken += reversed(chosen)
        return taken

    def kill(self, session: PoolSession, id: int) -> tuple[Verdict, PoolWorker | None]:
        """
        Stop a task.

        Read what its worker has finished first, to spare a worker that has just finished it.

        Returns:
            The verdict and, if the task has begun, the worker to kill. Of that one :meth:`gone`
            will say that the task died.
        """
        if id not in session.tasks:
            return Verdict.UNKNOWN, None
        worker = session.tasks[id]
        if worker is None:
            self._unqueue(session, id)
            return Verdict.DROPPED, None
        if worker.state is not STOPPING:
            unread = self._tokens.reclaim(worker)
            if id in unread:
                self._forget(worker, unread, [id])
                return Verdict.DROPPED, None
            # Its other tasks are safe now: it cannot begin them any more.
            self._requeue(worker, unread)
            self._move(worker, STOPPING)
        return Verdict.BEGUN, worker

    def dismiss(self, session: PoolSession, id: int) -> tuple[Verdict, PoolWorker | None]:
        """
        Stop a task that has not begun, and let the worker of one that has end when that is over.

        Read what its worker has finished first, as for :meth:`kill`.

        Returns:
            The verdict and, if the task has begun, its worker: tell the task to stop. The worker is
            given nothing any more, and keeps its slot and index until the task has ended; then
            :meth:`assign` lets it end.
        """
        if id not in session.tasks:
            return Verdict.UNKNOWN, None
        worker = session.tasks[id]
        if worker is None or worker.state is STOPPING:
            return self.kill(session, id)
        unread = self._tokens.reclaim(worker)
        if id in unread:
            self._forget(worker, unread, [id])
            return Verdict.DROPPED, None
        self._requeue(worker, unread)
        worker.left = 0
        return Verdict.BEGUN, worker

    def running(self, session: PoolSession, ids: Iterable[int]) -> list[int]:
        """
        Return which of these tasks hold a slot.

        They are those that workers have begun, or begin now, since none is before them; and those
        for which a worker is being started. Read what the workers have finished first.
        """
        next_ones = self._for_starting(session) if session.starting else ()
        found = []
        for id in ids:
            worker = session.tasks.get(id)
            if worker is None:
                if id in next_ones:
                    found.append(id)
            elif worker.state in RUNNING and next(iter(worker.assigned)) == id:
                found.append(id)
        return found

    def _for_starting(self, session: PoolSession) -> set[int]:
        """Return the queued tasks that workers which start now will be given first."""
        found = {
            queue[0]
            for index, queue in session.pinned.items()
            if index in session.workers and session.workers[index].state is STARTING
        }
        for id in session.queue:
            if len(found) >= session.starting:
                break
            if id in session.tasks:
                found.add(id)
        return found

    # ------------------------------------------------------------------- workers

    def ready(self, worker: PoolWorker) -> None:
        """Take note that a worker has started. One that is stopping is left alone."""
        if worker.state is STARTING:
            self._move(worker, IDLE)

    def done(
        self, worker: PoolWorker, ids: Sequence[int], micros: int, now: float
    ) -> Sequence[int]:
        """
        Take note that a worker has finished tasks.

        Args:
            worker: Which.
            ids: The tasks, in order.
            micros: Microseconds they took together.
            now: Monotonic time in seconds.

        Returns:
            The ids that it was never given: as a rule none.
        """
        assigned = worker.assigned
        session = worker.session
        tasks = session.tasks
        strange: Sequence[int] = ()
        for id in ids:
            if assigned.pop(id, False):
                del tasks[id]
            else:
                strange = [*strange, id]
        if session.pins or session.priorities:
            for id in ids:
                session.pins.pop(id, None)
                session.priorities.pop(id, None)
        count = len(ids)
        mean = micros / (count * 1e6)
        if session.seconds is None:
            session.seconds = mean
        else:
            session.seconds += (mean - session.seconds) * min(0.5, 0.1 * count)
        worker.since = now
        self._dirty[session] = None
        if not assigned and worker.state in RUNNING:
            self._dry[worker] = None
        return strange

    def replace(self, worker: PoolWorker) -> bool:
        """
        Use a worker no more once its task is done. Another one is started if there is work for it.

        Returns:
            Whether it has no task: let it end now.
        """
        if worker.state is IDLE:
            self._move(worker, STOPPING)
            return True
        if worker.state is BUSY:
            self._requeue(worker, self._tokens.reclaim(worker))
            worker.left = 0
            if not worker.assigned:
                self._dry[worker] = None
        return False

    def stop(self, worker: PoolWorker) -> None:
        """Give a worker no more work: it is broken, or about to be killed."""
        if worker.state not in (STOPPING, GONE):
            self._requeue(worker, self._tokens.reclaim(worker))
            self._move(worker, STOPPING)

    def gone(self, worker: PoolWorker) -> list[int]:
        """
        Take note that a worker's process has ended. Tell what it finished first.

        Returns:
            The tasks that it had begun and not finished. They are forgotten; those it had not
            begun are queued again.
        """
        if worker.state is GONE:
            return []
        session = worker.session
        if session.open:
            self._requeue(worker, self._tokens.reclaim(worker))
        died = list(worker.assigned)
        worker.assigned.clear()
        for id in died:
            del session.tasks[id]
            session.pins.pop(id, None)
            session.priorities.pop(id, None)
        self._move(worker, GONE)
        return died

    def wait(self, worker: PoolWorker) -> None:
        """
        Take note that a worker's task waits for tasks of its own: its slot is free meanwhile.

        What it was given ahead is queued again. Another worker may be started in its place.
        """
        if worker.state is BUSY:
            unread = self._tokens.reclaim(worker)
            self._requeue(worker, unread)
            if worker.left is not None:
                worker.left += len(unread)
            self._move(worker, WAITING)
        elif worker.state is RESUMING:
            self._move(worker, WAITING)

    def resume(self, worker: PoolWorker) -> None:
        """Take note that such a task wants to go on: :meth:`assign` will say when it may."""
        if worker.state is WAITING:
            self._move(worker, RESUMING)

    def pause(self, session: PoolSession, until: float) -> None:
        """Start no worker for a session before ``until`` (monotonic seconds): those fail now."""
        if session.open:
            self._paused[session] = until

    def begun(self, now: float) -> tuple[list[tuple[PoolWorker, int, float]], bool]:
        """
        Find tasks that have been running for a while. Call it every 20 ms while it is due.

        Returns:
            Worker, task and time since when, of each that was not returned before; and whether to
            call again.
        """
        found = []
        due = False
        for session in self.sessions:
            for worker in chain(session.busy, session.waiting):
                head = next(iter(worker.assigned), -1)
                if head != worker.head:
                    worker.head = head
                    worker.head_since = now
                    worker.reported = False
                elif (
                    not worker.reported
                    and now - worker.head_since >= BEGUN_SECONDS
                    and self._tokens.unread(worker) < len(worker.assigned)
                ):
                    worker.reported = True
                    found.append((worker, head, worker.head_since))
                # Behind a reported task others may wait, and begin when it ends.
                due = due or not worker.reported or len(worker.assigned) > 1
        return found, due

    # ------------------------------------------------------------------ decisions

    def deadline(self) -> float | None:
        """When :meth:`assign` wants to be called even if nothing happens, in monotonic seconds."""
        if not self._paused:
            return self._recheck
        ends = min(self._paused.values())
        return ends if self._recheck is None else min(ends, self._recheck)

    def idle(self) -> int:
        """Return how many slots nobody holds, nor waits for."""
        return self.slots - self.holding - sum(map(_wants, self._waiting)) - len(self._resuming)

    def slack(self) -> int:
        """Return how many tasks the worker has left that has the fewest."""
        least = AHEAD_MOST
        for session in self.sessions:
            for worker in session.busy:
                if len(worker.assigned) < least:
                    least = len(worker.assigned)
        return least

    def precedes(self, worker: PoolWorker, id: int, other: PoolWorker) -> bool:
        """
        Whether what a worker was given last is to begin before a task of another worker.

        Args:
            worker: The other worker.
            id: Its task.
            other: The worker that was given something before.
        """
        session = worker.session
        if session is not other.session or not other.assigned or not session.priorities:
            return False
        priorities = session.priorities
        return priorities.get(next(iter(other.assigned)), 0) > priorities.get(id, 0)

    def is_provided_for(self) -> bool:
        """Whether all slots are held, by tasks that take a while and have successors waiting."""
        if self.holding < self.slots:
            return False
        found = False
        for session in self.sessions:
            for worker in session.busy:
                found = True
                if (session.seconds or 0.0) < SHORT_SECONDS or len(worker.assigned) < 2:
                    return False
        return found

    def assign(self, now: float) -> list[Action]:
        """
        Decide what to do after what was told since the last call.

        Args:
            now: Monotonic time in seconds.

        Returns:
            What to do, in order.
        """
        actions: list[Action] = []
        if self._recheck is not None and now >= self._recheck:
            self._recheck = None
            self._dirty.update(self._lagging)
        if self._paused:
            self._end_pauses(now)
        if not self._dirty:
            return actions
        gives: dict[PoolWorker, list[int]] = {}
        if self._dry:
            self._release(actions)
        if self._resuming:
            self._resume(actions)
        if self._waiting:
            self._grant(gives, actions, now)
        sessions = list(self._dirty)
        if self._waiting:
            rival = self._rival()
            for session in sessions:
                self._fill(session, gives, rival)
        for session in sessions:
            if self._lagging:
                self._lagging.pop(session, None)
            if len(session.tasks) > len(session.busy):
                self._spread(session, gives, actions, now)
        self._dirty.clear()
        for worker, ids in gives.items():
            actions.append(Give(worker, ids))
        return actions

    def _release(self, actions: list[Action]) -> None:
        """Take the slots of workers that have run dry; they compete for them like all others."""
        for worker in self._dry:
            if worker.state in RUNNING and not worker.assigned:
                if worker.left == 0 or self._is_surplus(worker):
                    self._move(worker, STOPPING)
                    actions.append(Stop(worker))
                else:
                    self._move(worker, IDLE)
        self._dry.clear()

    def _resume(self, actions: list[Action]) -> None:
        """Give those a slot whose tasks want to go on, in the order in which they have asked."""
        for worker in list(self._resuming):
            if self.holding < self.slots and worker.session.holding < worker.session.limit:
                self._move(worker, BUSY)
                actions.append(Resume(worker))

    def _is_surplus(self, worker: PoolWorker) -> bool:
        """Whether a worker took the place of one that waited, and there are enough of such."""
        session = worker.session
        return worker.index >= session.limit and len(session.idle) >= 2 * session.limit

    def _end_pauses(self, now: float) -> None:
        """Let sessions start workers again whose time has come."""
        for session in [each for each, until in self._paused.items() if until <= now]:
            del self._paused[session]
            self._dirty[session] = None

    def _grant(self, gives: dict[PoolWorker, list[int]], actions: list[Action], now: float) -> None:
        """Give the free slots to the sessions that have work and hold the fewest."""
        while self.holding < self.slots and self._waiting:
            best: PoolSession | None = None
            for session in list(self._waiting):
                if not session.queued and not session.pinned:
                    del self._waiting[session]
                elif self._usable(session) and (
                    best is None or (session.holding, session.turn) < (best.holding, best.turn)
                ):
                    best = session
            if best is None:
                return
            self._turns += 1
            best.turn = self._turns
            self._dirty[best] = None
            for index in best.pinned:
                worker = best.workers.get(index)
                if worker is None:
                    if best in self._paused:
                        continue
                    self._start(best, index, actions, now)
                    break
                if worker.state is IDLE:
                    self._wake(worker, best.pinned, gives, now)
                    break
            else:
                if best.idle:
                    # The one that was busy last: its caches are warm.
                    self._wake(next(reversed(best.idle)), None, gives, now)
                else:
                    self._start(best, self._free_index(best), actions, now)

    def _usable(self, session: PoolSession) -> bool:
        """Whether the session, which has queued tasks, could use a free slot."""
        if session.holding >= session.limit:
            return False
        queued = session.queued
        if queued and session.idle:
            return True
        paused = session in self._paused
        if queued > session.starting and _has_room(session) and not paused:
            return True
        for index in session.pinned:
            worker = session.workers.get(index)
            if not paused if worker is None else worker.state is IDLE:
                return True
        return False

    def _start(self, session: PoolSession, index: int, actions: list[Action], now: float) -> None:
        worker = PoolWorker(session, index, now)
        session.workers[index] = worker
        session.starting += 1
        session.holding += 1
        self.holding += 1
        actions.append(Start(worker))

    def _wake(
        self,
        worker: PoolWorker,
        pinned: dict[int, deque[int]] | None,
        gives: dict[PoolWorker, list[int]],
        now: float,
    ) -> None:
        """Give an idle worker its first task."""
        session = worker.session
        self._move(worker, BUSY)
        worker.since = now
        gives[worker] = []
        if pinned is None:
            self._take(session, worker, 1, gives)
        else:
            self._take_pinned(session, worker, 1, gives)

    def _take(
        self,
        session: PoolSession,
        worker: PoolWorker,
        count: int,
        gives: dict[PoolWorker, list[int]],
    ) -> None:
        """Move tasks from the session's queue to a worker; there are at least ``count``."""
        popleft, tasks = session.queue.popleft, session.tasks
        if session.stale:
            ids: list[int] = []
            while len(ids) < count:
                id = popleft()
                if id in tasks:
                    ids.append(id)
                else:
                    session.stale -= 1
            session.tidy()
        else:
            ids = [popleft() for _ in range(count)]
        self._hand(session, worker, ids, gives)

    def _take_pinned(
        self,
        session: PoolSession,
        worker: PoolWorker,
        count: int,
        gives: dict[PoolWorker, list[int]],
    ) -> None:
        queue = session.pinned[worker.index]
        ids = [queue.popleft() for _ in range(min(count, len(queue)))]
        if not queue:
            del session.pinned[worker.index]
        self._hand(session, worker, ids, gives)

    def _hand(
        self,
        session: PoolSession,
        worker: PoolWorker,
        ids: list[int],
        gives: dict[PoolWorker, list[int]],
    ) -> None:
        session.tasks.update(dict.fromkeys(ids, worker))
        worker.assigned.update(dict.fromkeys(ids, True))
        if worker.left is not None:
            worker.left -= len(ids)
        given = gives.get(worker)
        if given is None:
            gives[worker] = ids
        else:
            given += ids

    def _rival(self) -> tuple[PoolSession | None, int]:
        """Return the session that waits for a slot and holds the fewest, and how many it holds."""
        best: PoolSession | None = None
        if len(self.sessions) > 1 and self.holding >= self.slots:
            for session in self._waiting:
                wants = (session.queued or session.pinned) and self._usable(session)
                if wants and (best is None or session.holding < best.holding):
                    best = session
        return best, best.holding if best is not None else 0

    def _depth(self, session: PoolSession) -> int:
        """Return how many tasks a worker should have, the running one included."""
        seconds = session.seconds
        if seconds is None:
            return 2
        if seconds < SHORT_SECONDS:
            most = AHEAD_PRIOR if session.priorities else AHEAD_MOST
            return min(most, max(2, int(AHEAD_SECONDS / max(seconds, 1e-6))))
        return 2 if seconds < LONG_SECONDS else 1

    def _fill(
        self,
        session: PoolSession,
        gives: dict[PoolWorker, list[int]],
        rival: tuple[PoolSession | None, int],
    ) -> None:
        """Give busy workers that have little left more of the session's work."""
        depth = self._depth(session)
        if session.pinned:
            for worker in session.busy:
                room = self._room(worker, depth)
                if room and worker.index in session.pinned:
                    self._take_pinned(session, worker, room, gives)
        # What workers about to be ready will want is left to them.
        available = session.queued - session.starting
        if available <= 0:
            return
        other, holds = rival
        if (
            other is not None
            and other is not session
            and (not holds or session.holding > holds + 1)
        ):
            return
        needy = [worker for worker in session.busy if len(worker.assigned) * 2 <= depth]
        for place, worker in enumerate(needy):
            share = -(-available // (len(needy) - place))
            count = min(self._room(worker, depth), share)
            if count > 0:
                self._take(session, worker, count, gives)
                available -= count

    def _room(self, worker: PoolWorker, depth: int) -> int:
        room = depth - len(worker.assigned)
        if worker.left is not None and worker.left < room:
            return worker.left
        return max(0, room)

    def _spread(
        self,
        session: PoolSession,
        gives: dict[PoolWorker, list[int]],
        actions: list[Action],
        now: float,
    ) -> None:
        """Move work that waits behind other work to workers that have none."""
        limit = session.limit
        while self.holding < self.slots and session.holding < limit and not session.queued:
            late = [worker for worker in session.busy if len(worker.assigned) > 1]
            if not late:
                return
            victim = max(late, key=lambda worker: self._lag(worker, now))
            lag = self._lag(victim, now)
            if session.idle:
                if lag < STEAL_SECONDS or victim in gives:
                    self._look_again(session, now + STEAL_SECONDS)
                    return
                thief = next(reversed(session.idle))
                stolen = self._steal(victim, self._room(thief, AHEAD_MOST))
                if not stolen:
                    return
                self._move(thief, BUSY)
                thief.since = now
                self._hand(session, thief, stolen, gives)
                continue
            if not _has_room(session) or session.starting >= len(late):
                return
            if session in self._paused:
                return  # the end of the pause makes it dirty again
            if lag < SPREAD_SECONDS:
                self._look_again(session, now + SPREAD_SECONDS)
                return
            self._start(session, self._free_index(session), actions, now)

    def _free_index(self, session: PoolSession) -> int:
        return next(index for index in count() if index not in session.workers)

    def _lag(self, worker: PoolWorker, now: float) -> float:
        """Return how many seconds the last of a worker's tasks has waited or will wait."""
        waited = now - worker.since
        return max(waited, (worker.session.seconds or 0.0) * (len(worker.assigned) - 1))

    def _look_again(self, session: PoolSession, when: float) -> None:
        self._lagging[session] = None
        if self._recheck is None or when < self._recheck:
            self._recheck = when

    def _steal(self, victim: PoolWorker, most: int) -> list[int]:
        """Take the later half of what a worker has not begun, at most ``most``."""
        unread = self._tokens.reclaim(victim)
        pins = victim.session.pins
        movable = [id for id in unread if id not in pins]
        # One that has begun nothing yet keeps at least one.
        count = len(movable) // 2 if len(unread) == len(victim.assigned) else -(-len(movable) // 2)
        stolen = movable[len(movable) - min(count, most) :]
        self._restore(victim, unread, stolen)
        return stolen

    # ------------------------------------------------------------------- helpers

    def _move(self, worker: PoolWorker, state: WorkerState) -> None:
        """Move a worker to another state: the one place where states change."""
        before = worker.state
        assert state in MOVES[before], f"{worker!r} cannot become {state.value}"
        session = worker.session
        worker.state = state
        if before is STARTING:
            session.starting -= 1
        elif before is IDLE:
            del session.idle[worker]
        elif before is BUSY:
            del session.busy[worker]
        elif before in LENDING:
            del session.waiting[worker]
            self._resuming.pop(worker, None)
        else:
            del session.stopping[worker]
        if before in HOLDING and state not in HOLDING:
            session.holding -= 1
            self.holding -= 1
            self._touch_all()
        elif before not in HOLDING and state in HOLDING:
            session.holding += 1
            self.holding += 1
        if state is IDLE:
            session.idle[worker] = None
        elif state is BUSY:
            session.busy[worker] = None
        elif state in LENDING:
            session.waiting[worker] = None
            if state is RESUMING:
                self._resuming[worker] = None
        else:
            if before is not STOPPING:
                del session.workers[worker.index]
            if state is STOPPING:
                session.stopping[worker] = None
        if session.open:
            self._dirty[session] = None

    def _touch_all(self) -> None:
        """A slot became free: see to all who might want it."""
        if self._waiting or self._lagging:
            self._dirty.update(self._waiting)
            self._dirty.update(self._lagging)
        for worker in self._resuming:
            self._dirty[worker.session] = None

    def _unqueue(self, session: PoolSession, id: int) -> None:
        del session.tasks[id]
        session.priorities.pop(id, None)
        index = session.pins.pop(id, None)
        if index is None:
            session.stale += 1
            session.tidy()
            return
        queue = session.pinned[index]
        queue.remove(id)
        if not queue:
            del session.pinned[index]

    def _withdraw(self, worker: PoolWorker, wanted: set[int]) -> list[int]:
        """Take back and forget those of a worker's tasks that it has not begun."""
        unread = self._tokens.reclaim(worker)
        taken = [id for id in unread if id in wanted]
        self._forget(worker, unread, taken)
        return taken

    def _forget(self, worker: PoolWorker, unread: list[int], taken: list[int]) -> None:
        self._restore(worker, unread, taken)
        session = worker.session
        for id in taken:
            del session.tasks[id]
            session.pins.pop(id, None)
            session.priorities.pop(id, None)

    def _restore(self, worker: PoolWorker, unread: list[int], taken: list[int]) -> None:
        """Let a worker keep what it had not begun, but for what was taken."""
        if not taken:
            self._tokens.restore(worker, unread)
            return
        gone = set(taken)
        self._tokens.restore(worker, [id for id in unread if id not in gone])
        for id in taken:
            del worker.assigned[id]
        if worker.left is not None:
            worker.left += len(taken)
        session = worker.session
        self._dirty[session] = None
        if not worker.assigned and worker.state is BUSY:
            self._dry[worker] = None

    def _requeue(self, worker: PoolWorker, ids: list[int]) -> None:
        """Put what a worker had not begun back to the front of the queues."""
        session = worker.session
        for id in reversed(ids):
            del worker.assigned[id]
            session.tasks[id] = None
            index = session.pins.get(id)
            if index is None:
                session.queue.appendleft(id)
            else:
                session.pinned.setdefault(index, deque()).appendleft(id)
        if ids:
            self._waiting[session] = None
            self._dirty[session] = None

    # -------------------------------------------------------------------- insight

    def status(self) -> list[dict[str, Any]]:
        """Return each session's name, workers, queued and running tasks."""
        return [
            {
                "name": session.name,
                "workers": len(session.workers),
                "queued": session.queued + sum(map(len, session.pinned.values())),
                "running": session.running,
            }
            for session in self.sessions
        ]

    def check(self) -> None:
        """State what must always hold."""
        holding = 0
        for session in self.sessions:
            workers = [*session.workers.values(), *session.stopping]
            assert session.holding == sum(w.state in HOLDING for w in workers)
            assert session.starting == sum(w.state is STARTING for w in workers)
            assert set(session.idle) == {w for w in workers if w.state is IDLE}
            assert set(session.busy) == {w for w in workers if w.state is BUSY}
            assert set(session.waiting) == {w for w in workers if w.state in LENDING}
            assert session.holding <= session.limit
            holding += session.holding
            given = {id: w for w in workers for id in w.assigned}
            queued = [id for id in session.queue if id in session.tasks]
            assert len(session.queue) - len(queued) == session.stale
            pinned = [id for queue in session.pinned.values() for id in queue]
            assert all(session.pinned.values())
            assert sorted([*given, *queued, *pinned]) == sorted(session.tasks)
            assert given == {id: w for id, w in session.tasks.items() if w is not None}
            assert session.pins.keys() <= session.tasks.keys()
            assert session.priorities.keys() <= session.tasks.keys()
            for worker in workers:
                assert worker.left is None or worker.left >= 0
                if worker.state in (STARTING, IDLE):
                    assert not worker.assigned
                if worker.state is BUSY:
                    assert worker.assigned or worker in self._dry
                if worker.state in LENDING:
                    assert len(worker.assigned) == 1 or worker in self._dry
        assert holding == self.holding <= self.slots
        resuming = [w for s in self.sessions for w in s.waiting if w.state is RESUMING]
        assert set(resuming) == set(self._resuming)


def _backlog(worker: PoolWorker) -> int:
    return len(worker.assigned)


def _wants(session: PoolSession) -> int:
    return session.queued


def _has_room(session: PoolSession) -> bool:
    """Whether a session may have one more worker; those that have lent their slot do not count."""
    return len(session.workers) - len(session.waiting) < session.limit
