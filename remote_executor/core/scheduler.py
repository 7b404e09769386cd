"""
Which server runs which task.

::

                 submit                    fill                    begun
        (caller) -----> QUEUED ---------------------> SENT ------------------> BEGUN
                          ^  |                        |  |                       |
                          |  | cancel, kill           |  | done, died            | done, died
                          |  v                        |  v                       v
                          |  SETTLED                  |  SETTLED               SETTLED
                          |                           |
                          +---- taken back, lost -----+------ lost: again, at most `retries` times

A task that is *parked* is queued too, but not in the queue: it waits for a time (another try) or
for other tasks (its arguments), and takes no slot. It is cancelled and killed as any that waits.

The scheduler knows tasks, servers and time, and nothing of sockets, threads or futures: a task's
``sink`` and ``body`` are none of its business. One method an event; each event may leave work to be
sent, which :meth:`Scheduler.fill` hands out as a list of what to send where.

It keeps every slot fed and little more. How much is sent ahead follows from the measured time of a
task: some 20 ms of work a slot. What waits at a busy server is asked back for an idle one.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from remote_executor.core.queues import FairQueue
from remote_executor.core.tasks import (
    BATCH_SECONDS,
    FIRST_PAUSE,
    HORIZON,
    MOST_BYTES,
    Feed,
    Server,
    Task,
    TaskState,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

__all__ = ["Scheduler"]

ANSWER_SECONDS = 0.002
"""Work that a server is through with sooner is not worth asking back."""
LAST_PAUSE = 1.0

QUEUED = TaskState.QUEUED
SENT = TaskState.SENT
BEGUN = TaskState.BEGUN
SETTLED = TaskState.SETTLED


class Scheduler:
    """
    Choose which server runs which task.

    After any event call :meth:`fill`, carry out what it returns, and look into :attr:`asks` (work
    to be asked back) and :attr:`failures` (tasks that were lost once too often).
    """

    def __init__(self) -> None:
        self.tasks: dict[int, Task] = {}
        """Every unsettled task that has been sent, by the id of its attempt."""
        self.servers: dict[Any, Server] = {}
        self.queue: FairQueue[Task | Feed] = FairQueue()
        self.asks: list[tuple[Server, int, list[int], int]] = []
        """(server, request number, ids, count): ask it to give back these, or so many."""
        self.failures: list[Task] = []
        """Tasks that were lost with a server and may not be tried again."""
        self.unsettled = 0
        """Tasks and feeds that are not over."""
        self.parked: dict[Task, None] = {}
        """Tasks that are to enter the queue later: see :meth:`park`."""
        self.idle_slots = 0
        """Slots without a task. Read without the mutex, as a hint."""
        self._ids = itertools.count(1)
        self._requests = itertools.count(1)
        self._live: list[Server] = []
        self._slots = 0
        self._look_at: float | None = None

    # ----------------------------------------------------------------- tasks come

    def next_id(self) -> int:
        """Return an id that was never used; any thread may ask."""
        return next(self._ids)

    def submit(self, task: Task) -> None:
        """Queue a task, a new one or a batch that is to be tried once more."""
        if task.feed is not None:
            if task.feed.closed:
                task.state = SETTLED  # nobody wants it any more
                return
            task.feed.returned.add(task)
            task.feed.open_batches += 1
        self.unsettled += 1
        self.queue.push(task, task.priority, task.lane)

    def park(self, task: Task) -> None:
        """
        Take a task that is to enter the queue later, by :meth:`unpark`.

        Args:
            task: A new one, or one that is settled and is to be tried once more.
        """
        if task.state is SETTLED:
            task.id = next(self._ids)
            task.state = QUEUED
            task.posted = task.cancelling = False
        if task.feed is not None:
            if task.feed.closed:
                task.state = SETTLED
                return
            task.feed.returned.add(task)
            task.feed.open_batches += 1
        self.unsettled += 1
        self.parked[task] = None

    def unpark(self, task: Task) -> None:
        """What a task has waited for is there. Does nothing if it was dropped meanwhile."""
        if task in self.parked:
            del self.parked[task]
            self.queue.push(task, task.priority, task.lane)

    def offer(self, feed: Feed, count: int) -> None:
        """Say that a feed has ``count`` more items to be cut."""
        if feed.closed:
            return
        feed.available += count
        if feed.available and not feed.queued:
            feed.queued = True
            self.unsettled += 1
            self.queue.push(feed, feed.priority, feed.lane)

    # ---------------------------------------------------------------- servers come

    def add_server(self, key: Any, name: str) -> Server:
        """Make a server known; it is not up yet."""
        server = self.servers[key] = Server(key, name)
        return server

    def server_up(self, server: Server, slots: int) -> None:
        """A server takes tasks, ``slots`` at a time; also when that number changes."""
        server.up = True
        server.slots = slots
        server.measure()
        self._recount()

    def server_drains(self, server: Server) -> None:
        """A server takes no more tasks, and will be lost when those that it has are done."""
        server.draining = True
        self._recount()

    def server_lost(self, server: Server, unharmed: Collection[Task] = ()) -> None:
        """
        A server and all that was under way there are gone: try again elsewhere, or give up.

        Args:
            server: Which.
            unharmed: Tasks that have certainly not begun there.
        """
        server.up = False
        server.draining = False
        server.asked = None
        lost = list(server.inflight.values())
        server.inflight.clear()
        server.begun = 0
        server.lent = 0
        server.bytes = 0
        server.seconds = None
        server.ask_after = 0.0
        server.pause = FIRST_PAUSE
        self._recount()
        for task in reversed(lost):
            del self.tasks[task.id]
            tried = task not in unharmed
            fails = task.cancelling or (tried and task.retries <= 0) or not task.may_go_elsewhere()
            if tried or fails:
                task.lost_with += (server.name,)
            if fails:
                self._settle(task)
                self.failures.append(task)
            else:
                task.retries -= tried
                self._again(task)

    def server_left_out(self, server: Server) -> None:
        """
        A server has said that it does nothing for us any more.

        What it had not begun by then it never will, so that this costs a task none of its tries.
        """
        waiting = {task for task in server.inflight.values() if task.state is SENT}
        self.server_lost(server, waiting)

    def server_removed(self, server: Server) -> None:
        """Forget a server that holds no task."""
        if self.servers.pop(server.key, None) is not None:
            server.up = False
            self._recount()

    def _recount(self) -> None:
        self._live = [server for server in self.servers.values() if server.up]
        self._slots = sum(server.slots for server in self._live)
        self._count_idle()

    def _count_idle(self) -> None:
        idle = 0
        for server in self._live:
            if server.held() < server.slots and not server.draining:
                idle += server.slots - server.held()
        self.idle_slots = idle

    def _out(self, server: Server, id: int) -> Task | None:
        """Take an attempt off the books of its server."""
        task = server.inflight.pop(id, None)
        if task is not None:
            del self.tasks[id]
            server.bytes -= task.size
            if task.state is BEGUN:
                server.begun -= 1
        return task

    # ---------------------------------------------------------------- tasks go out

    def fill(self, now: float) -> list[tuple[Server, list[Task]]]:
        """
        Hand out queued work to servers with room.

        Args:
            now: Monotonic time in seconds.

        Returns:
            What to send, in order: (server, tasks). A task whose ``body`` is None is to be packed
            first.
        """
        queue = self.queue
        sends: list[tuple[Server, list[Task]]] = []
        if queue.count:
            live = self._live
            if len(live) == 1:
                room = live[0].room()
                if room:
                    tasks = self._take(live[0], room)
                    if tasks:
                        sends.append((live[0], tasks))
            elif live:
                sends = self._spread()
        self._count_idle()
        self._look_at = None
        if self.idle_slots and not queue.count and len(self._live) > 1:
            self._balance(now)
        return sends

    def _spread(self) -> list[tuple[Server, list[Task]]]:
        """Fill idle slots one by one, then send ahead in proportion to room."""
        taken: dict[Server, list[Task]] = {}
        free = {
            server: server.slots - server.held()
            for server in self._live
            if server.room() and server.held() < server.slots
        }
        while free and self.queue.count:
            server = max(free, key=free.__getitem__)
            tasks = self._take(server, 1)
            if not tasks:
                break
            taken.setdefault(server, []).extend(tasks)
            free[server] -= 1
            if not free[server]:
                del free[server]
        # More than once, since a feed counts as one entry however many batches are in it.
        while waiting := self.queue.count:
            rooms = {server: room for server in self._live if (room := server.room())}
            if not rooms:
                break
            total = sum(rooms.values())
            gone = 0
            for server, room in rooms.items():
                tasks = self._take(server, min(room, -(-waiting * room // total)))
                taken.setdefault(server, []).extend(tasks)
                gone += len(tasks)
            if not gone and self.queue.count == waiting:
                break  # what is left is for other servers, which have no room now
        return [(server, tasks) for server, tasks in taken.items() if tasks]

    def _take(self, server: Server, room: int) -> list[Task]:
        """Take up to ``room`` tasks off the queue for ``server``."""
        queue, tasks, inflight = self.queue, self.tasks, server.inflight
        taken: list[Task] = []
        others: list[Task] = []
        while room > 0 and queue.count:
            task = queue.pop()
            if isinstance(task, Feed):
                if task.closed:
                    continue
                task = self._cut(task)
            elif task.state is not QUEUED:
                continue  # cancelled while it waited
            elif task.feed is not None:
                task.feed.returned.discard(task)
            if task.retrying is not None and self._goes_elsewhere(task, server):
                others.append(task)
                continue
            task.state = SENT
            task.posted = False
            task.server = server
            tasks[task.id] = task
            inflight[task.id] = task
            server.bytes += task.size
            taken.append(task)
            room -= 1
            if server.bytes >= MOST_BYTES and server.held() >= server.slots:
                break
        for task in reversed(others):
            if task.feed is not None:
                task.feed.returned.add(task)
            queue.push_front(task, task.priority, task.lane)
        return taken

    def _goes_elsewhere(self, task: Task, server: Server) -> bool:
        """Whether a task has failed on this server, and another one has room for the next try."""
        return task.retrying.avoid is server and any(
            other is not server and other.room() for other in self._live
        )

    def _cut(self, feed: Feed) -> Task:
        """Cut a batch off a feed, and queue the feed again if it has more."""
        count = feed.next_count(max(1, self._slots))
        task = feed.batch(next(self._ids), feed.cut, feed.take(count), count)
        feed.cut += count
        feed.available -= count
        feed.open_batches += 1
        if feed.available:
            self.unsettled += 1
            self.queue.push_front(feed, feed.priority, feed.lane)
        else:
            feed.queued = False  # the batch takes its place among the unsettled
        return task

    def pin(self, server: Server, task: Task) -> None:
        """Give a task to one server, past the queue."""
        self.unsettled += 1
        task.state = SENT
        task.server = server
        self.tasks[task.id] = task
        server.inflight[task.id] = task
        server.bytes += task.size

    def packed(self, task: Task, size: int) -> None:
        """Take note of the size in bytes of a task that was packed after :meth:`fill`."""
        if task.server is not None:
            task.server.bytes += size - task.size
        task.size = size
        if task.feed is not None:
            task.feed.item_bytes = size / task.count

    # --------------------------------------------------------------- answers come

    def done(self, server: Server, ids: Iterable[int], seconds: float) -> list[Task | None]:
        """
        Workers have finished attempts.

        Args:
            server: Where.
            ids: The attempts.
            seconds: How long they took on their workers, together.

        Returns:
            For each id the task, or None if the answer comes too late to matter.
        """
        tasks, inflight = self.tasks, server.inflight
        found: list[Task | None] = []
        count = size = begun = batches = 0
        # As _out and _settle do it, and faster: this is the hot path.
        for id in ids:
            task = inflight.pop(id, None)
            found.append(task)
            if task is None:
                continue
            del tasks[id]
            count += 1
            size += task.size
            if task.state is BEGUN:
                begun += 1
            task.state = SETTLED
            task.server = None
            if task.feed is not None:
                task.feed.open_batches -= 1
                if task.feed.chunksize is None:
                    batches += 1
        if count:
            self.unsettled -= count
            server.bytes -= size
            server.begun -= begun
            # While the batches of a map grow they are short. Many of those ahead would be too many.
            each = max(seconds, batches * BATCH_SECONDS) / count
            old = server.seconds
            server.seconds = each if old is None else old + 0.3 * (each - old)
            server.measure()
        return found

    def ended(self, server: Server, id: int) -> Task | None:
        """An attempt has ended otherwise than by finishing; return its task, if it matters."""
        task = self._out(server, id)
        if task is not None:
            self._settle(task)
        return task

    def lend(self, server: Server, lent: int) -> None:
        """So many more tasks of a server wait for tasks of their own; fewer if it is negative."""
        server.lent += lent
        self._count_idle()

    def begun(self, server: Server, ids: Iterable[int]) -> list[Task]:
        """Attempts have begun on workers; return the tasks for which that is news."""
        news = []
        for id in ids:
            task = server.inflight.get(id)
            if task is not None and task.state is SENT:
                task.state = BEGUN
                server.begun += 1
                news.append(task)
        return news

    def taken_back(
        self, server: Server, request: int, ids: Iterable[int], now: float
    ) -> list[Task]:
        """A server gave back tasks it had not begun; return those that were being cancelled."""
        cancelled = []
        again = []
        for id in ids:
            task = self._out(server, id)
            if task is None:
                continue
            if task.cancelling or not task.may_go_elsewhere():
                self._settle(task)
                cancelled.append(task)
            else:
                again.append(task)
        for task in reversed(again):
            self._again(task)
        if server.asked == request:
            server.asked = None
            if again or cancelled:
                server.pause = FIRST_PAUSE
            else:
                server.ask_after = now + server.pause + 2 * server.round_trip
                server.pause = min(LAST_PAUSE, 2 * server.pause)
        return cancelled

    def _again(self, task: Task) -> None:
        """Queue a task that was sent before, as a new attempt, ahead of others."""
        task.id = next(self._ids)
        task.server = None
        task.state = QUEUED
        if task.feed is not None:
            task.feed.returned.add(task)
        self.queue.push_front(task, task.priority, task.lane)

    def _settle(self, task: Task) -> None:
        task.state = SETTLED
        task.server = None
        self.unsettled -= 1
        if self.parked:
            self.parked.pop(task, None)
        if task.feed is not None:
            task.feed.open_batches -= 1
            task.feed.returned.discard(task)

    # ----------------------------------------------------------- asked from above

    def drop(self, task: Task) -> bool:
        """Settle a task that has not left, so that it never runs; False if it has."""
        if task.state is SENT and not task.posted and task.server is not None:
            return self.ended(task.server, task.id) is task
        if task.state is not QUEUED:
            return False
        self._settle(task)
        return True

    def ask_back(self, tasks: Sequence[Task]) -> None:
        """Ask servers to give back tasks that are to be cancelled."""
        by_server: dict[Server, list[int]] = {}
        for task in tasks:
            if task.state is SENT and task.server is not None:
                task.cancelling = True
                by_server.setdefault(task.server, []).append(task.id)
        for server, ids in by_server.items():
            self.asks.append((server, next(self._requests), ids, 0))

    def ask_for(self, server: Server, count: int) -> None:
        """Ask a server to give back up to ``count`` tasks that have not begun."""
        request = next(self._requests)
        server.asked = request
        self.asks.append((server, request, [], count))

    def next_request(self) -> int:
        """Return the number of a question to a server, which was never used."""
        return next(self._requests)

    def close_feed(self, feed: Feed) -> list[Task]:
        """
        Nobody wants more of a feed: cut no more, and send no batch again.

        Returns:
            Its batches that are under way: see :meth:`ask_back`.
        """
        feed.closed = True
        feed.available = 0
        # What is in the queue stays there until its turn comes, but nothing waits for that.
        if feed.queued:
            feed.queued = False
            self.unsettled -= 1
        for task in list(feed.returned):
            self._settle(task)
        if not feed.open_batches:
            return []  # as a rule: a map is closed when it is over
        return [task for task in self.tasks.values() if task.feed is feed]

    def drop_queued(self) -> list[Task | Feed]:
        """
        Empty the queue and return what was in it; the feeds are closed, the tasks settled.

        So are those that are parked.
        """
        dropped: list[Task | Feed] = []
        while self.queue.count:
            entry = self.queue.pop()
            if isinstance(entry, Feed):
                if not entry.closed:
                    self.close_feed(entry)
                    dropped.append(entry)
            elif entry.state is QUEUED:
                self._settle(entry)
                dropped.append(entry)
        for task in list(self.parked):
            self._settle(task)
            dropped.append(task)
        return dropped

    # ------------------------------------------------------------------- balance

    def _balance(self, now: float) -> None:
        """Ask busy servers for work that waits there: others idle and nothing waits here."""
        idle = self.idle_slots
        for server in self._live:
            waiting = server.held() - server.slots
            if waiting <= 0 or server.asked is not None:
                continue
            if now < server.ask_after:
                if self._look_at is None or server.ask_after < self._look_at:
                    self._look_at = server.ask_after
                continue
            # Slots whose tasks have run for a while may be held much longer, whatever was measured.
            passing = server.slots - server.begun + server.lent
            seconds = HORIZON if server.seconds is None else server.seconds
            if passing > 0 and waiting * seconds / passing < ANSWER_SECONDS + 2 * server.round_trip:
                continue
            count = min(idle, (waiting + 1) // 2)
            self.ask_for(server, count)
            idle -= count
            if not idle:
                return

    def deadline(self) -> float | None:
        """When :meth:`fill` wants to be called even if nothing happens, in monotonic seconds."""
        return self._look_at

    def slots(self) -> int:
        """Return the slots of all servers that are up."""
        return self._slots

    def check(self) -> None:
        """State what must always hold."""
        inflight: dict[int, Task] = {}
        for server in self.servers.values():
            assert server.bytes == sum(task.size for task in server.inflight.values())
            assert server.begun == sum(task.state is BEGUN for task in server.inflight.values())
            for id, task in server.inflight.items():
                assert task.id == id
                assert task.server is server
                assert task.state in (SENT, BEGUN)
            assert not (server.inflight and not server.up)
            assert 0 <= server.lent <= len(server.inflight)
            inflight.update(server.inflight)
        assert inflight == self.tasks
        feeds = [e for e in self.queue if isinstance(e, Feed) and not e.closed]
        waiting = [e for e in self.queue if isinstance(e, Task) and e.state is QUEUED]
        assert all(task.state is QUEUED and task not in waiting for task in self.parked)
        waiting += self.parked
        assert self.unsettled == len(self.tasks) + len(feeds) + len(waiting)
        assert all(feed.queued and feed.available > 0 for feed in feeds)
        batches = [task for task in [*self.tasks.values(), *waiting] if task.feed is not None]
        for feed in {*feeds, *(task.feed for task in batches if task.feed is not None)}:
            assert feed.open_batches == sum(task.feed is feed for task in batches)
            assert feed.returned == {task for task in waiting if task.feed is feed}
