"""
Any history of a scheduler: tasks, maps and servers that come and go, in any order.

The machine plays the driver, the wires and the servers. What must hold at each step: a task settles
once; none is lost; none runs again unless a server was lost with it; all counts are right; and when
nothing is left to do, nothing is waited for.
"""

from __future__ import annotations

from collections import Counter, deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from remote_executor.core.scheduler import Scheduler
from remote_executor.core.tasks import Feed, Task, TaskState
from tests.support.scale import tries

lanes = st.sampled_from([None, "x", "y"])
priorities = st.sampled_from([-1, 0, 0, 0, 1])
sizes = st.sampled_from([0, 10, 10, 50 * 1024 * 1024])
seconds = st.sampled_from([1e-6, 1e-3, 0.03, 0.5])
EVENTS = 40


class Remote:
    """A server and the wires there and back, as the driver's frames find them."""

    def __init__(self, server):
        self.server = server
        self.reset()

    def reset(self):
        self.there = deque()
        self.waiting = {}
        self.begun = {}
        self.back = deque()

    def receive(self):
        """Take one frame in."""
        what, *rest = self.there.popleft()
        if what == "task":
            self.waiting[rest[0]] = None
            return
        request, ids, count = rest
        if ids:
            given = [id for id in ids if id in self.waiting]
        else:
            given = [id for id in reversed(self.waiting) if id >= 0][:count]
        for id in given:
            del self.waiting[id]
        self.back.append(("taken back", request, given))

    def __repr__(self):
        return f"<Remote {self.server} waiting={list(self.waiting)} begun={list(self.begun)}>"


class SchedulerHistory(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.scheduler = Scheduler()
        self.now = 100.0
        self.remotes: list[Remote] = []
        self.servers_made = 0
        self.tasks: list[Task] = []
        self.retries: dict[Task, int] = {}
        self.feeds: list[Feed] = []
        self.outcomes: dict[Task, str] = {}
        self.items: dict[Feed, Counter[int]] = {}
        self.offered: Counter[Feed] = Counter()
        self.runs: Counter[Task] = Counter()
        self.attempts: dict[int, Task] = {}
        self.to_pack: deque[tuple[Task, int]] = deque()

    # ------------------------------------------------------------- the driver's part

    def accept(self, task):
        self.tasks.append(task)
        self.retries[task] = task.retries

    def settle(self, task, how):
        assert task not in self.outcomes, f"{task} was {self.outcomes[task]} and is {how}"
        assert task.state is TaskState.SETTLED
        self.outcomes[task] = how
        if task.feed is not None:
            self.items[task.feed].update(range(task.first, task.first + task.count))

    def send(self, task):
        assert task.state is TaskState.SENT
        assert task.id not in self.attempts, "an id was used before"
        self.attempts[task.id] = task
        task.posted = True
        self.remote(task.server).there.append(("task", task.id))

    def remote(self, server):
        return next(remote for remote in self.remotes if remote.server is server)

    def drive(self):
        for server, tasks in self.scheduler.fill(self.now):
            assert server.up
            assert not server.draining
            assert tasks
            for task in tasks:
                assert task.server is server
                assert task.pinned is None, "it runs where it was not meant to"
                assert not (task.feed and task.feed.closed), "nobody wants this any more"
                if task.feed is not None and task not in self.tasks:
                    self.accept(task)  # it was just cut
                    assert task.retries == task.feed.retries
                if task.body is None:
                    self.to_pack.append((task, task.id))
                else:
                    self.send(task)
        asks, self.scheduler.asks = self.scheduler.asks, []
        for server, request, ids, count in asks:
            assert server.up
            assert bool(ids) != (count > 0)
            self.remote(server).there.append(("ask", request, ids, count))
        for task in self.scheduler.failures:
            how = "cancelled" if task.cancelling else "lost"
            if how == "lost" and not (task.feed and task.feed.closed):
                assert len(task.lost_with) == self.retries[task] + 1
            self.settle(task, how)
        self.scheduler.failures = []
        deadline = self.scheduler.deadline()
        assert deadline is None or deadline > self.now, "the driver would spin"
        idle = [
            remote.server.slots - len(remote.server.inflight)
            for remote in self.remotes
            if remote.server.up and not remote.server.draining
        ]
        assert self.scheduler.idle_slots == sum(free for free in idle if free > 0)
        if self.scheduler.idle_slots:
            assert not self.scheduler.queue.count, "a slot idles while work waits"

    def hear(self, remote):
        """Take in one message of a server."""
        server = remote.server
        what, *rest = remote.back.popleft()
        if what == "done":
            ids, took = rest
            found = self.scheduler.done(server, ids, took * len(ids))
            for id, task in zip(ids, found, strict=True):
                assert task is self.attempts[id], "a live server's answer is never late"
                if task.feed is not None:
                    task.feed.measured(task.count, took)
                self.settle(task, "done")
        elif what == "begun":
            for task in self.scheduler.begun(server, rest[0]):
                assert task.state is TaskState.BEGUN
        elif what == "died":
            task = self.scheduler.ended(server, rest[0])
            assert task is self.attempts[rest[0]]
            self.settle(task, "died")
        else:
            for task in self.scheduler.taken_back(server, rest[0], rest[1], self.now):
                self.settle(task, "cancelled")
        self.drive()

    def up(self):
        return [remote for remote in self.remotes if remote.server.up]

    def open_tasks(self):
        return [task for task in self.tasks if task not in self.outcomes]

    # --------------------------------------------------------------------- work comes

    @rule(count=st.integers(1, 8), priority=priorities, lane=lanes, retries=st.integers(0, 2))
    def submit(self, count, priority, lane, retries):
        for _ in range(count):
            id = self.scheduler.next_id()
            task = Task(id, None, None, b"", retries=retries, priority=priority, lane=lane)
            self.accept(task)
            self.scheduler.submit(task)
        self.drive()

    @rule(size=sizes)
    def submit_one_of_some_size(self, size):
        task = Task(self.scheduler.next_id(), None, None, b"")
        task.size = size
        self.accept(task)
        self.scheduler.submit(task)
        self.drive()

    @rule(
        items=st.integers(0, 500),
        chunksize=st.sampled_from([None, None, 1, 7]),
        priority=priorities,
        lane=lanes,
        retries=st.integers(0, 2),
    )
    def map(self, items, chunksize, priority, lane, retries):
        feed = Feed(None, None, chunksize, retries=retries, priority=priority, lane=lane)
        self.feeds.append(feed)
        self.items[feed] = Counter()
        self.offer(feed, items)

    @precondition(lambda self: self.feeds)
    @rule(data=st.data(), items=st.integers(0, 20))
    def offer_more(self, data, items):
        self.offer(data.draw(st.sampled_from(self.feeds)), items)

    def offer(self, feed, items):
        if not feed.closed:
            self.offered[feed] += items
        self.scheduler.offer(feed, items)
        self.drive()

    @precondition(lambda self: self.to_pack)
    @rule(size=sizes, fails=st.sampled_from([False, False, False, True]))
    def pack(self, size, fails):
        task, attempt = self.to_pack.popleft()
        if fails and task.body is None:
            if task.server is not None:
                assert self.scheduler.ended(task.server, task.id) is task
                self.settle(task, "cannot be pickled")
            # Otherwise it waits for another server, and fails when it is sent there.
        else:
            task.body = b""
            self.scheduler.packed(task, size)
            if task.id == attempt and task.state is TaskState.SENT:
                self.send(task)
        self.drive()

    @precondition(lambda self: self.up())
    @rule(data=st.data())
    def pin(self, data):
        server = data.draw(st.sampled_from(self.up())).server
        task = Task(-self.scheduler.next_id(), None, None, b"", retries=0)
        task.pinned = 0
        self.accept(task)
        self.scheduler.pin(server, task)
        self.send(task)
        self.drive()

    # ------------------------------------------------------------- servers come and go

    @precondition(lambda self: len(self.remotes) < 3)
    @rule(slots=st.integers(0, 3))
    def add_server(self, slots):
        self.servers_made += 1
        name = f"s{self.servers_made}"
        self.remotes.append(Remote(self.scheduler.add_server(name, name)))
        if slots:
            self.scheduler.server_up(self.remotes[-1].server, slots)
        self.drive()

    @precondition(lambda self: self.remotes)
    @rule(data=st.data(), slots=st.integers(0, 4))
    def server_up(self, data, slots):
        self.scheduler.server_up(data.draw(st.sampled_from(self.remotes)).server, slots)
        self.drive()

    @precondition(lambda self: self.up())
    @rule(data=st.data())
    def server_lost(self, data):
        self.lose(data.draw(st.sampled_from(self.up())))
        self.drive()

    def lose(self, remote):
        self.scheduler.server_lost(remote.server)
        remote.reset()

    @precondition(lambda self: self.remotes)
    @rule(data=st.data())
    def remove_server(self, data):
        remote = data.draw(st.sampled_from(self.remotes))
        if remote.server.up:
            self.lose(remote)
        self.scheduler.server_removed(remote.server)
        self.drive()
        self.remotes.remove(remote)

    @precondition(lambda self: self.up())
    @rule(data=st.data())
    def drain_server(self, data):
        server = data.draw(st.sampled_from(self.up())).server
        if server.draining:
            server.draining = False  # another session has begun there
        else:
            self.scheduler.server_drains(server)
        waiting = [task for task in server.inflight.values() if task.state is TaskState.SENT]
        if server.draining and waiting and server.asked is None:
            self.scheduler.ask_for(server, len(waiting))
        self.drive()

    @rule(step=st.sampled_from([0.001, 0.02, 2.0]))
    def time_passes(self, step):
        self.now += step
        self.drive()

    @precondition(lambda self: self.scheduler.deadline() is not None)
    @rule()
    def deadline_comes(self):
        self.now = self.scheduler.deadline()
        self.drive()

    # ------------------------------------------------------------------- servers work

    @precondition(lambda self: self.up())
    @rule(data=st.data(), count=st.integers(1, EVENTS))
    def frames_arrive(self, data, count):
        remote = data.draw(st.sampled_from(self.up()))
        for _ in range(min(count, len(remote.there))):
            remote.receive()

    @precondition(lambda self: self.up())
    @rule(data=st.data(), count=st.integers(1, EVENTS))
    def workers_begin(self, data, count):
        self.begin(data.draw(st.sampled_from(self.up())), count)

    def begin(self, remote, count):
        """Start the oldest that wait, as many as there are slots."""
        while remote.waiting and len(remote.begun) < max(1, remote.server.slots) and count:
            count -= 1
            id = next(iter(remote.waiting))
            del remote.waiting[id]
            remote.begun[id] = None
            task = self.attempts[id]
            assert task not in self.outcomes, "a settled task runs"
            assert self.runs[task] <= len(task.lost_with), "it runs twice"
            self.runs[task] += 1

    @precondition(lambda self: self.up())
    @rule(data=st.data())
    def server_says_what_has_begun(self, data):
        remote = data.draw(st.sampled_from(self.up()))
        if remote.begun:
            remote.back.append(("begun", list(remote.begun)))

    @precondition(lambda self: self.up())
    @rule(data=st.data(), count=st.integers(1, EVENTS), took=seconds)
    def workers_finish(self, data, count, took):
        remote = data.draw(st.sampled_from(self.up()))
        self.finish(remote, count, took)

    def finish(self, remote, count, took):
        ids = []
        while count and (remote.begun or remote.waiting):
            count -= 1
            self.begin(remote, 1)
            id = next(iter(remote.begun))
            del remote.begun[id]
            ids.append(id)
        if ids:
            remote.back.append(("done", ids, took))

    @precondition(lambda self: any(remote.begun for remote in self.up()))
    @rule(data=st.data())
    def worker_dies(self, data):
        remote = data.draw(st.sampled_from([remote for remote in self.up() if remote.begun]))
        id = data.draw(st.sampled_from(list(remote.begun)))
        del remote.begun[id]
        remote.back.append(("died", id))

    @precondition(lambda self: any(remote.back for remote in self.up()))
    @rule(data=st.data(), count=st.integers(1, EVENTS))
    def answers_arrive(self, data, count):
        remote = data.draw(st.sampled_from([remote for remote in self.up() if remote.back]))
        for _ in range(min(count, len(remote.back))):
            self.hear(remote)

    # ------------------------------------------------------------- somebody cancels

    @precondition(lambda self: self.open_tasks())
    @rule(data=st.data())
    def cancel(self, data):
        task = data.draw(st.sampled_from(self.open_tasks()))
        if self.scheduler.drop(task):
            self.settle(task, "cancelled")
        else:
            self.scheduler.ask_back([task])
        self.drive()

    @precondition(lambda self: any(task.cancelling for task in self.open_tasks()))
    @rule(data=st.data())
    def canceller_gives_up_waiting(self, data):
        tasks = [task for task in self.open_tasks() if task.cancelling]
        data.draw(st.sampled_from(tasks)).cancelling = False

    @precondition(lambda self: any(not feed.closed for feed in self.feeds))
    @rule(data=st.data())
    def nobody_wants_more_of_a_map(self, data):
        feed = data.draw(st.sampled_from([feed for feed in self.feeds if not feed.closed]))
        left = self.scheduler.close_feed(feed)
        self.scheduler.ask_back([task for task in left if not self.scheduler.drop(task)])
        for task in self.open_tasks():
            if task.feed is feed and task.state is TaskState.SETTLED:
                self.settle(task, "not wanted")
        self.drive()

    @rule(really=st.sampled_from([False, False, True]))
    def shut_down_with_cancel(self, really):
        if not really:
            return
        for entry in self.scheduler.drop_queued():
            if isinstance(entry, Feed):
                assert entry.closed
            else:
                self.settle(entry, "cancelled")
        for task in list(self.scheduler.tasks.values()):
            if self.scheduler.drop(task):
                self.settle(task, "cancelled")
        self.scheduler.ask_back(list(self.scheduler.tasks.values()))
        self.drive()

    # ------------------------------------------------------------------- invariants

    @invariant()
    def it_is_sound(self):
        self.scheduler.check()
        for task in self.tasks:
            assert (task.state is TaskState.SETTLED) == (task in self.outcomes)
            if task not in self.outcomes:
                assert len(task.lost_with) + task.retries == self.retries[task]
        for feed, items in self.items.items():
            assert all(count == 1 for count in items.values())
            if not feed.closed:
                assert feed.cut + feed.available == self.offered[feed]
        open_feeds = [feed for feed in self.feeds if feed.available]
        assert self.scheduler.unsettled == len(self.open_tasks()) + len(open_feeds)
        for remote in self.up():
            assert remote.server.bytes >= 0

    def teardown(self):
        """Let the servers work: everything must be done in bounded time."""
        if not any(remote.server.slots and not remote.server.draining for remote in self.up()):
            self.remotes.append(Remote(self.scheduler.add_server("last", "last")))
            self.scheduler.server_up(self.remotes[-1].server, 2)
        self.drive()
        for _ in range(5000):
            if not self.scheduler.unsettled:
                break
            while self.to_pack:
                self.pack(10, False)
            for remote in self.up():
                while remote.there:
                    remote.receive()
                self.finish(remote, EVENTS, 0.001)
                while remote.back:
                    self.hear(remote)
            self.it_is_sound()
        assert self.scheduler.unsettled == 0, f"never done: {self.open_tasks()} {self.remotes}"
        assert not self.open_tasks()
        assert not self.scheduler.tasks
        assert not any(remote.server.bytes or remote.server.begun for remote in self.remotes)
        for feed, items in self.items.items():
            if not feed.closed:
                assert sorted(items) == list(range(self.offered[feed]))


SchedulerHistory.TestCase.settings = settings(max_examples=tries(40), stateful_step_count=60)
TestSchedulerHistory = SchedulerHistory.TestCase
TestSchedulerHistory.pytestmark = [pytest.mark.timeout(120)]
