"""
Any history of a pool: sessions, tasks and workers that come and go, in any order.

What must hold at each step: a task settles once, and only one way; none is lost; no worker begins
a task that was taken back; slots are never exceeded; when nothing is left to do, all is done.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from remote_executor.core.pool import (
    Give,
    Pool,
    PoolSession,
    PoolWorker,
    Resume,
    Start,
    Stop,
    Verdict,
    WorkerState,
)
from tests.support.pipes import FakePipes
from tests.support.scale import tries

LIVE = (WorkerState.IDLE, WorkerState.BUSY)
RUNNING = (WorkerState.BUSY, WorkerState.WAITING, WorkerState.RESUMING)


class PoolHistory(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.pipes = FakePipes()
        self.pool = Pool(3, self.pipes)
        self.now = 0.0
        self.sessions: list[PoolSession] = []
        self.starting: list[PoolWorker] = []
        self.workers: list[PoolWorker] = []
        self.next_id = 0
        self.open: dict[int, PoolSession] = {}
        self.settled: dict[int, str] = {}
        self.paused_until: dict[PoolSession, float] = {}
        self.doomed: dict[PoolWorker, None] = {}  # no set: its order would differ from run to run

    # ------------------------------------------------------------- the shell's part

    def assign(self):
        for action in self.pool.assign(self.now):
            worker = action.worker
            if isinstance(action, Give):
                assert action.ids
                assert worker.state is WorkerState.BUSY
                for id in action.ids:
                    assert self.open[id] is worker.session
                self.pipes.give(worker, action.ids)
            elif isinstance(action, Start):
                assert worker.state is WorkerState.STARTING
                assert self.paused_until.get(worker.session, 0.0) <= self.now
                self.starting.append(worker)
            elif isinstance(action, Resume):
                assert worker.state is WorkerState.BUSY
                assert worker in self.pipes.claimed or worker in self.doomed
            else:
                assert isinstance(action, Stop)
                assert not worker.assigned
                self.doomed[worker] = None
        self.pool.check()

    def settle(self, id, how):
        assert id not in self.settled, f"task {id} was {self.settled[id]} and is {how}"
        del self.open[id]
        self.settled[id] = how

    def finish(self, worker, micros):
        id = self.pipes.claimed.pop(worker)
        assert not self.pool.done(worker, [id], micros, self.now)
        self.settle(id, "done")

    def bury(self, worker):
        claimed = self.pipes.claimed.pop(worker, None)
        died = self.pool.gone(worker)
        if worker.session.open:
            assert died == ([] if claimed is None else [claimed])
        for id in died:
            self.settle(id, "died")
        assert worker.state is WorkerState.GONE
        for group in (self.starting, self.workers):
            if worker in group:
                group.remove(worker)
        self.doomed.pop(worker, None)

    # ------------------------------------------------------------------------ rules

    @precondition(lambda self: len(self.sessions) < 3)
    @rule(limit=st.integers(0, 4), per_worker=st.sampled_from([None, None, 1, 3]))
    def begin_session(self, limit, per_worker):
        name = f"s{len(self.sessions)}"
        self.sessions.append(self.pool.open(name, limit, per_worker))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def end_session(self, data):
        session = data.draw(st.sampled_from(self.sessions))
        self.sessions.remove(session)
        for worker in self.pool.close(session):
            self.doomed[worker] = None
        for id, owner in list(self.open.items()):
            if owner is session:
                self.settle(id, "dropped with its session")
        self.assign()

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), count=st.integers(1, 12))
    def queue(self, data, count):
        session = data.draw(st.sampled_from(self.sessions))
        ids = list(range(self.next_id, self.next_id + count))
        self.next_id += count
        self.open.update(dict.fromkeys(ids, session))
        self.pool.queue(session, ids)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), priority=st.sampled_from([-1, 0, 1, 2]))
    def task_with_a_priority(self, data, priority):
        session = data.draw(st.sampled_from(self.sessions))
        id, self.next_id = self.next_id, self.next_id + 1
        self.open[id] = session
        self.pool.queue_prior(session, id, priority)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def task_that_comes_alone(self, data):
        session = data.draw(st.sampled_from(self.sessions))
        id, self.next_id = self.next_id, self.next_id + 1
        self.open[id] = session
        worker = self.pool.begin(session, id, self.now)
        if worker is None:
            self.pool.queue(session, [id])
        else:
            assert worker.session is session
            assert list(worker.assigned) == [id]
            self.pipes.give(worker, [id])
        self.pool.check()

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), index=st.integers(-1, 4))
    def queue_pinned(self, data, index):
        session = data.draw(st.sampled_from(self.sessions))
        self.open[self.next_id] = session
        self.pool.queue_pinned(session, self.next_id, index)
        self.next_id += 1

    @rule()
    def end_of_round(self):
        self.assign()

    @rule(seconds=st.sampled_from([0.0001, 0.002, 0.03, 1.0]))
    def wait(self, seconds):
        self.now += seconds
        deadline = self.pool.deadline()
        if deadline is not None and deadline <= self.now:
            self.assign()

    @precondition(lambda self: self.starting)
    @rule(data=st.data())
    def worker_is_ready(self, data):
        worker = data.draw(st.sampled_from(self.starting))
        self.starting.remove(worker)
        self.workers.append(worker)
        self.pool.ready(worker)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def worker_begins(self, data):
        worker = data.draw(st.sampled_from(self.workers))
        id = self.pipes.claim(worker)
        if id is not None and worker.session.open:
            assert id in self.open, f"task {id} begins though it was {self.settled.get(id)}"

    @precondition(lambda self: self.pipes.claimed)
    @rule(data=st.data(), micros=st.sampled_from([1, 900, 20_000, 3_000_000]))
    def worker_finishes(self, data, micros):
        worker = data.draw(st.sampled_from(list(self.pipes.claimed)))
        if worker.session.open:
            self.finish(worker, micros)

    @precondition(lambda self: self.pipes.claimed)
    @rule(data=st.data())
    def task_waits_for_tasks_of_its_own(self, data):
        worker = data.draw(st.sampled_from(list(self.pipes.claimed)))
        before = worker.state
        self.pool.wait(worker)
        if before in (WorkerState.BUSY, WorkerState.RESUMING):
            assert worker.state is WorkerState.WAITING
            assert not self.pipes.pipes[worker]
        else:
            assert worker.state is before

    @precondition(lambda self: self.pipes.claimed)
    @rule(data=st.data())
    def task_wants_to_go_on(self, data):
        worker = data.draw(st.sampled_from(list(self.pipes.claimed)))
        before = worker.state
        self.pool.resume(worker)
        assert worker.state is (WorkerState.RESUMING if before is WorkerState.WAITING else before)

    @precondition(lambda self: self.workers or self.starting)
    @rule(data=st.data())
    def worker_dies(self, data):
        self.bury(data.draw(st.sampled_from(self.workers + self.starting)))
        self.assign()

    @precondition(lambda self: self.starting)
    @rule(data=st.data(), seconds=st.sampled_from([0.001, 0.1, 2.0]))
    def worker_does_not_start(self, data, seconds):
        worker = data.draw(st.sampled_from(self.starting))
        self.bury(worker)
        self.pool.pause(worker.session, self.now + seconds)
        if worker.session.open:
            self.paused_until[worker.session] = self.now + seconds
        self.assign()

    @precondition(lambda self: self.doomed)
    @rule(data=st.data())
    def doomed_worker_ends(self, data):
        self.bury(data.draw(st.sampled_from(list(self.doomed))))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def worker_turns_out_broken(self, data):
        worker = data.draw(st.sampled_from(self.workers))
        self.pool.stop(worker)
        self.doomed[worker] = None

    @precondition(lambda self: self.open)
    @rule(data=st.data(), count=st.integers(1, 4))
    def take_back(self, data, count):
        session = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        theirs = sorted(id for id, owner in self.open.items() if owner is session)
        wanted = data.draw(st.lists(st.sampled_from([*theirs, 10**6]), max_size=count, unique=True))
        taken = self.pool.take_back(session, wanted)
        assert set(taken) <= set(wanted)
        begun = set(self.pipes.claimed.values())
        assert begun.isdisjoint(taken)
        assert {id for id in wanted if id in self.open} - set(taken) <= begun
        for id in taken:
            self.settle(id, "taken back")

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), count=st.integers(1, 6))
    def take_back_newest(self, data, count):
        session = data.draw(st.sampled_from(self.sessions))
        taken = self.pool.take_back_newest(session, count)
        assert len(taken) <= count
        assert set(self.pipes.claimed.values()).isdisjoint(taken)
        for id in taken:
            assert self.open[id] is session
            self.settle(id, "taken back")

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def kill_task(self, data):
        id = data.draw(st.sampled_from(sorted(self.open)))
        verdict, worker = self.pool.kill(self.open[id], id)
        if verdict is Verdict.DROPPED:
            assert id not in self.pipes.claimed.values()
            self.settle(id, "killed")
        else:
            assert verdict is Verdict.BEGUN
            assert self.pipes.claimed[worker] == id
            self.doomed[worker] = None

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def kill_task_gently(self, data):
        id = data.draw(st.sampled_from(sorted(self.open)))
        verdict, worker = self.pool.dismiss(self.open[id], id)
        if verdict is Verdict.DROPPED:
            assert id not in self.pipes.claimed.values()
            self.settle(id, "killed")
        else:
            assert verdict is Verdict.BEGUN
            assert self.pipes.claimed[worker] == id
            assert worker.left == 0 or worker.state is WorkerState.STOPPING
            assert not self.pipes.pipes[worker]

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def replace(self, data):
        worker = data.draw(st.sampled_from(self.workers))
        state = worker.state
        if self.pool.replace(worker):
            assert state is WorkerState.IDLE
            assert not worker.assigned
        elif state is WorkerState.BUSY:
            assert worker.left == 0
            assert not self.pipes.pipes[worker]

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def ask_who_runs(self, data):
        session = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        theirs = [id for id, owner in self.open.items() if owner is session]
        running = self.pool.running(session, theirs)
        begun = {
            id
            for worker, id in self.pipes.claimed.items()
            if worker.session is session and worker.state in RUNNING
        }
        assert begun <= set(running)
        assert len(running) <= session.holding + len(session.waiting)

    @rule()
    def look_who_has_begun(self):
        found, _ = self.pool.begun(self.now)
        for worker, id, since in found:
            assert self.pipes.claimed.get(worker) == id
            assert since <= self.now

    # ------------------------------------------------------------------- invariants

    @invariant()
    def it_is_sound(self):
        self.pool.check()
        assert self.pool.holding <= self.pool.slots
        known = {id for session in self.sessions for id in session.tasks}
        assert known == set(self.open)
        in_pipes = [id for w, pipe in self.pipes.pipes.items() if w.session.open for id in pipe]
        assert len(in_pipes) == len(set(in_pipes))
        assert self.pool.slack() >= 0
        if self.pool.is_provided_for():
            assert self.pool.slack() >= 2
            assert self.pool.holding == self.pool.slots
        assert len(repr(self.pool)) < 200
        assert len(self.pool.status()) == len(self.sessions)

    def teardown(self):
        """Let everybody work: everything must be done, by fair turns, in bounded time."""
        for _ in range(40 * (len(self.open) + 10)):
            self.assign()
            for worker in list(self.doomed):
                self.bury(worker)
            for worker in list(self.starting):
                self.starting.remove(worker)
                self.workers.append(worker)
                self.pool.ready(worker)
            for worker in list(self.workers):
                if worker.state in LIVE or worker in self.pipes.claimed:
                    self.pipes.claim(worker)
                    if worker in self.pipes.claimed:
                        self.finish(worker, 1000)
            for session in self.sessions:
                for worker in list(session.waiting):
                    self.pool.resume(worker)
            self.now += 0.01
            self.pool.check()
            if not self.open:
                break
        assert not self.open, f"never done: {self.open} by {self.pool!r} {self.sessions}"
        self.assign()
        for session in self.sessions:
            assert not session.queue
            assert not session.pinned
            assert not session.pins
            assert not session.busy
            assert not session.waiting


PoolHistory.TestCase.settings = settings(max_examples=tries(75), stateful_step_count=60)
TestPoolHistory = PoolHistory.TestCase
TestPoolHistory.pytestmark = [pytest.mark.timeout(120)]
