"""The pool's decisions, one by one. Whole histories are in tests/histories."""

from __future__ import annotations

import pytest

from remote_executor.core.pool import (
    AHEAD_MOST,
    Give,
    Pool,
    Resume,
    Start,
    Stop,
    Verdict,
    WorkerState,
)
from tests.support.pipes import FakePipes


class Shell:
    """Carries out what a pool asks for, and plays its workers when told to."""

    def __init__(self, slots=2):
        self.pipes = FakePipes()
        self.pool = Pool(slots, self.pipes)
        self.now = 0.0
        self.next_id = 1
        self.started = []
        self.stopped = []
        self.resumed = []

    def open(self, limit=0, per_worker=None, name="s"):
        return self.pool.open(name, limit, per_worker)

    def assign(self, after=0.0):
        self.now += after
        actions = self.pool.assign(self.now)
        for action in actions:
            if isinstance(action, Give):
                self.pipes.give(action.worker, action.ids)
            elif isinstance(action, Start):
                self.started.append(action.worker)
            elif isinstance(action, Resume):
                self.resumed.append(action.worker)
            else:
                self.stopped.append(action.worker)
        self.pool.check()
        return actions

    def queue(self, session, count=1):
        ids = list(range(self.next_id, self.next_id + count))
        self.next_id += count
        self.pool.queue(session, ids)
        return ids

    def ready(self, *workers):
        for worker in workers or list(self.started):
            self.started.remove(worker)
            self.pool.ready(worker)
        return self.assign()

    def begin(self, worker):
        return self.pipes.claim(worker)

    def finish(self, worker, seconds=1e-6, count=1):
        for _ in range(count):
            id = self.pipes.claimed.pop(worker, None)
            if id is None:
                id = self.pipes.claim(worker)
                del self.pipes.claimed[worker]
            assert not self.pool.done(worker, [id], int(seconds * 1e6), self.now)

    def warm(self, session, count, seconds=1e-6):
        """Give a session that many workers, and a known time per task."""
        while len(session.workers) < count:
            self.queue(session, count)
            self.assign()
            self.ready()
            self.drain(session, seconds)
        return [session.workers[index] for index in range(count)]

    def drain(self, session, seconds=1e-6):
        """Do all there is to do."""
        while session.tasks:
            for worker in list(session.busy):
                if worker.assigned:
                    self.finish(worker, seconds)
            self.assign()
            if self.started:
                self.ready()


@pytest.fixture
def shell():
    return Shell()


def ids_given(actions):
    return {action.worker: action.ids for action in actions if isinstance(action, Give)}


# ------------------------------------------------------------------- starting workers


def test_nothing_to_do(shell):
    assert shell.assign() == []
    shell.open()
    assert shell.assign() == []
    assert shell.pool.deadline() is None


def test_a_worker_is_started_for_the_first_task_and_gets_it_when_ready(shell):
    session = shell.open()
    (id,) = shell.queue(session)

    (start,) = shell.assign()
    assert isinstance(start, Start)
    assert start.worker.index == 0
    assert shell.assign() == []
    (give,) = shell.ready()

    assert (give.worker, give.ids) == (start.worker, [id])


def test_workers_are_started_on_demand_as_process_pool_executor_does(shell):
    session = shell.open()
    shell.queue(session)
    shell.assign()
    shell.ready()
    worker = session.workers[0]
    shell.finish(worker)
    shell.assign()
    shell.queue(session)

    (give,) = shell.assign()  # it is idle: no second one

    assert give.worker is worker
    shell.queue(session)
    (start,) = shell.assign()  # it is busy: a second one
    assert start.worker.index == 1


def test_a_task_that_comes_alone_goes_to_the_worker_that_was_busy_last(shell):
    session = shell.open()
    workers = shell.warm(session, 2)
    chosen = []
    for _ in range(2):
        id = shell.next_id
        shell.next_id += 1
        worker = shell.pool.begin(session, id, shell.now)
        assert worker is not None
        assert worker.state is WorkerState.BUSY
        shell.pipes.give(worker, [id])
        shell.pool.check()
        chosen.append(worker)
        shell.finish(worker)
        assert not any(isinstance(action, Give) for action in shell.assign())

    (id,) = shell.queue(session)
    (give,) = shell.assign()
    assert chosen == [give.worker, give.worker]
    assert give.worker in workers
    assert id in session.tasks


def test_a_task_does_not_go_before_others_nor_beyond_the_slots(shell):
    session = shell.open()
    assert shell.pool.begin(session, 100, 0.0) is None  # no worker
    shell.warm(session, 2)
    shell.queue(session)
    assert shell.pool.begin(session, 101, 0.0) is None  # another waits
    shell.assign()
    assert shell.pool.begin(session, 102, 0.0) is not None
    assert shell.pool.begin(session, 103, 0.0) is None  # both are busy
    assert 103 not in session.tasks


def test_a_task_that_comes_alone_counts_for_its_worker():
    shell = Shell(1)
    session = shell.open(per_worker=2)
    (worker,) = shell.warm(session, 1)
    assert shell.pool.begin(session, 50, shell.now) is worker
    shell.pipes.give(worker, [50])
    shell.finish(worker)
    shell.assign()

    assert shell.stopped == [worker]


def test_no_more_workers_than_tasks_slots_or_the_limit():
    shell = Shell(slots=4)
    session = shell.open(limit=3)
    shell.queue(session, 2)
    assert [type(a) for a in shell.assign()] == [Start, Start]
    shell.queue(session, 10)
    assert [type(a) for a in shell.assign()] == [Start]
    other = shell.open(limit=9)
    assert other.limit == 4
    shell.queue(other, 10)
    assert [type(a) for a in shell.assign()] == [Start]
    assert shell.pool.holding == 4


def test_a_worker_that_cannot_start_frees_its_slot_and_its_index(shell):
    session = shell.open(limit=1)
    shell.queue(session)
    (start,) = shell.assign()

    assert shell.pool.gone(start.worker) == []
    (again,) = shell.assign()

    assert again.worker is not start.worker
    assert again.worker.index == 0
    assert start.worker.state is WorkerState.GONE


def test_what_starting_workers_will_want_is_left_to_them(shell):
    session = shell.open()
    shell.queue(session, 3)
    first, second = (action.worker for action in shell.assign())

    given = ids_given(shell.ready(first))
    assert given == {first: [1, 2]}
    given = ids_given(shell.ready(second))
    assert given == {second: [3]}


def test_a_worker_that_was_told_to_stop_while_starting_is_not_ready(shell):
    session = shell.open()
    shell.queue(session)
    (start,) = shell.assign()
    shell.pool.stop(start.worker)
    shell.pool.ready(start.worker)
    assert start.worker.state is WorkerState.STOPPING
    shell.pool.stop(start.worker)
    assert shell.pool.gone(start.worker) == []
    assert shell.pool.gone(start.worker) == []


# ---------------------------------------------------------------------- giving ahead


@pytest.mark.parametrize(
    ("seconds", "depth"),
    [(0.000001, AHEAD_MOST), (0.0005, 10), (0.004, 2), (0.02, 2), (0.2, 1)],
)
def test_depth_follows_the_time_of_tasks(seconds, depth):
    shell = Shell(slots=1)
    session = shell.open()
    (worker,) = shell.warm(session, 1, seconds)
    shell.queue(session, 1000)

    shell.assign()

    assert len(worker.assigned) == depth
    assert shell.pool.slack() == depth


def test_of_unknown_tasks_one_waits_behind_the_first():
    shell = Shell(slots=1)
    session = shell.open()
    shell.queue(session, 9)
    shell.assign()
    shell.ready()
    assert len(session.workers[0].assigned) == 2


def test_a_few_short_tasks_are_spread_evenly(shell):
    session = shell.open()
    one, two = shell.warm(session, 2)
    shell.queue(session, 20)
    shell.assign()
    assert (len(one.assigned), len(two.assigned)) == (10, 10)


def test_a_worker_is_given_more_only_once_it_has_used_half(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1, 0.0005)  # a depth of ten
    shell.queue(session, 100)
    shell.assign()
    shell.finish(worker, 0.0005, count=4)
    assert shell.assign() == []
    shell.finish(worker, 0.0005)
    (give,) = shell.assign()
    assert len(give.ids) == 5


def test_long_tasks_make_the_depth_shrink(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1)
    shell.queue(session, 2)
    shell.assign()
    shell.finish(worker, 10.0)
    assert session.seconds > 0.05
    shell.queue(session, 5)
    assert shell.assign() == []  # one is there already


# ------------------------------------------------------------------------- fairness


def test_a_free_slot_goes_to_who_holds_the_fewest():
    shell = Shell(slots=3)
    one, two = shell.open(name="one"), shell.open(name="two")
    shell.queue(one, 50)
    shell.assign()
    shell.ready()
    assert one.holding == 3
    shell.queue(two, 50)
    assert shell.assign() == []

    worker = one.workers[0]
    shell.finish(worker, 0.2, count=len(worker.assigned))
    (start,) = shell.assign()

    assert isinstance(start, Start)
    assert start.worker.session is two
    assert (one.holding, two.holding) == (2, 1)


def test_who_is_above_its_share_is_not_given_more_while_another_waits():
    shell = Shell(slots=3)
    one, two = shell.open(), shell.open()
    shell.warm(one, 3)
    shell.queue(one, 3000)
    shell.assign()
    shell.queue(two, 3000)
    for worker in one.workers.values():
        shell.finish(worker, count=200)

    assert shell.assign() == []  # all might be given more, but two waits

    for worker in list(one.workers.values()):
        shell.finish(worker, count=len(worker.assigned))
        shell.assign()
        shell.ready()
    assert sorted([one.holding, two.holding]) == [1, 2]


@pytest.mark.parametrize(("slots", "sessions"), [(1, 2), (1, 3), (2, 3), (4, 2)])
def test_in_the_long_run_all_get_about_the_same(slots, sessions):
    shell = Shell(slots=slots)
    clients = [shell.open(name=str(n)) for n in range(sessions)]
    done = dict.fromkeys(clients, 0)
    for client in clients:
        shell.queue(client, 4000)
    for _ in range(200):
        shell.assign()
        if shell.started:
            shell.ready()
        for client in clients:
            for worker in list(client.busy):
                shell.finish(worker, 0.001)
                done[client] += 1
    assert max(done.values()) - min(done.values()) < 0.2 * sum(done.values()) / sessions
    assert sum(done.values()) > 0.9 * 200 * slots


def test_a_session_alone_is_given_all_though_others_are_open():
    shell = Shell(slots=2)
    one, two = shell.open(), shell.open()
    shell.warm(two, 2)
    shell.warm(one, 2)
    shell.queue(one, 1000)
    shell.assign()
    assert one.holding == 2
    for worker in one.workers.values():
        shell.finish(worker, count=200)
    assert len(ids_given(shell.assign())) == 2
    assert two.holding == 0
    assert len(two.idle) == 2


def test_one_more_slot_than_the_other_is_fair_enough():
    shell = Shell(slots=3)
    one, two = shell.open(), shell.open()
    shell.warm(two, 1)
    shell.warm(one, 2)
    shell.queue(two, 1)
    shell.assign()
    shell.queue(one, 2000)
    shell.assign()
    shell.queue(two, 1000)
    assert (one.holding, two.holding) == (2, 1)
    for worker in one.workers.values():
        shell.finish(worker, count=200)
    assert set(ids_given(shell.assign())) >= set(one.workers.values())


# -------------------------------------------------------------------------- provision


def test_nobody_is_provided_for_while_nothing_goes_on(shell):
    assert not shell.pool.is_provided_for()
    shell.warm(shell.open(), 2, seconds=0.02)
    assert not shell.pool.is_provided_for()


def test_provided_for_is_who_has_a_task_that_takes_a_while_and_another_one(shell):
    session = shell.open()
    shell.queue(session, 2)
    shell.assign()
    assert not shell.pool.is_provided_for()  # they are being started
    shell.ready()
    assert not shell.pool.is_provided_for()  # nobody knows how long they take
    shell.drain(session, 0.02)
    shell.warm(session, 2, seconds=0.02)
    shell.queue(session, 4)
    shell.assign()
    assert shell.pool.is_provided_for()
    shell.finish(session.workers[0], 0.02)
    assert not shell.pool.is_provided_for()
    shell.queue(session)
    shell.assign()
    assert shell.pool.is_provided_for()


def test_while_a_slot_is_free_somebody_may_want_it_at_once():
    shell = Shell(slots=3)
    one, two = shell.open(limit=1), shell.open(limit=1)
    shell.warm(one, 1, seconds=0.02)
    shell.warm(two, 1, seconds=0.02)
    for session in (one, two):
        shell.queue(session, 4)
    shell.assign()
    assert not shell.pool.is_provided_for()


def test_who_has_short_tasks_wants_his_results_at_once(shell):
    session = shell.open()
    shell.warm(session, 2, seconds=0.0005)
    shell.queue(session, 40)
    shell.assign()
    assert not shell.pool.is_provided_for()


# ------------------------------------------------------------------------- stealing


def stuck(shell, session, seconds=0.0005):
    """Make worker 0 busy with one task and others behind it, and worker 1 idle."""
    one, two = shell.warm(session, 2, seconds)
    shell.queue(session, 20)
    shell.assign()
    shell.begin(one)
    shell.finish(two, seconds, count=len(two.assigned))
    return one, two


def test_an_idle_worker_takes_half_of_what_waits_elsewhere(shell):
    session = shell.open()
    one, two = stuck(shell, session)
    waiting = list(one.assigned)[1:]

    (give,) = shell.assign(after=0.002)

    assert give.worker is two
    assert give.ids == waiting[len(waiting) // 2 :]
    assert list(one.assigned)[1:] == waiting[: len(waiting) // 2]


def test_what_would_be_done_at_once_is_not_worth_stealing(shell):
    session = shell.open()
    one, two = stuck(shell, session, seconds=0.00001)
    assert shell.assign(after=0.0001) == []
    assert shell.pool.deadline() == pytest.approx(shell.now + 0.001)
    assert shell.assign(after=0.0005) == []
    (give,) = shell.assign(after=0.001)  # by now it is stuck
    assert give.worker is two
    assert one.assigned


def test_stealing_ends_with_the_last_waiting_task(shell):
    session = shell.open()
    one, two = stuck(shell, session)
    while len(one.assigned) > 1:
        shell.assign(after=0.002)
        shell.finish(two, 0.0005, count=len(two.assigned))
    assert shell.assign(after=0.002) == []
    assert shell.assign(after=0.002) == []
    assert shell.pool.deadline() is None
    assert len(one.assigned) == 1


def test_a_victim_that_has_begun_nothing_keeps_something(shell):
    session = shell.open()
    one, two = shell.warm(session, 2, 0.0005)
    shell.queue(session, 4)
    shell.assign()
    shell.finish(two, 0.0005, count=2)
    (give,) = shell.assign(after=0.002)
    assert give.ids == [list(range(1, 100))[give.ids[0] - 1]]
    assert len(one.assigned) == 1


def test_a_victim_whose_only_other_task_has_just_begun_keeps_it(shell):
    session = shell.open()
    one, two = shell.warm(session, 2, 0.0005)
    shell.queue(session, 4)
    shell.assign()
    shell.finish(two, 0.0005, count=2)
    shell.begin(one)
    shell.pipes.claimed.pop(one)  # it has finished, and the result is under way
    shell.begin(one)
    assert shell.assign(after=0.002) == []


def test_what_was_given_in_this_round_is_not_stolen_in_it():
    shell = Shell(slots=2)
    session = shell.open()
    one, two = shell.warm(session, 2, 0.002)
    shell.queue(session, 2)
    shell.pool.queue_pinned(session, 100, 0)
    shell.pool.queue_pinned(session, 101, 0)
    shell.assign()
    shell.finish(two, 0.002)
    shell.now += 0.01
    actions = shell.assign()
    assert all(action.worker is one for action in actions)
    shell.drain(session)


def test_a_thief_is_given_no_more_than_it_may_take():
    shell = Shell(slots=2)
    session = shell.open(per_worker=20)
    one, two = shell.warm(session, 2, 0.0005)
    shell.queue(session, 12)
    shell.assign()
    shell.begin(one)
    shell.finish(two, 0.0005, count=len(two.assigned))
    two.left = 1
    (give,) = shell.assign(after=0.002)
    assert (give.worker, len(give.ids)) == (two, 1)
    assert two.left == 0


def test_a_worker_is_started_for_what_waits_long_behind_other_work():
    shell = Shell(slots=2)
    one, two = shell.open(), shell.open()
    shell.warm(one, 1, 0.001)
    shell.queue(two)
    shell.assign()
    shell.ready()  # two holds the other slot
    shell.queue(one, 5)
    shell.assign()
    worker = one.workers[0]
    shell.begin(worker)
    assert len(worker.assigned) == 5
    shell.finish(two.workers[0], 1.0)

    assert shell.assign() == []
    assert shell.pool.deadline() == pytest.approx(shell.now + 0.02)
    (start,) = shell.assign(after=0.021)
    assert isinstance(start, Start)
    assert shell.assign(after=0.021) == []  # one is enough for now
    (give,) = shell.ready()
    assert give.worker is start.worker
    assert len(give.ids) == 2


def test_nothing_is_moved_where_there_is_no_worker_and_no_room_for_one():
    shell = Shell(slots=2)
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1, 0.001)
    shell.queue(session, 5)
    shell.assign()
    shell.begin(worker)
    assert shell.assign(after=1.0) == []
    assert shell.pool.deadline() is None


# ------------------------------------------------------------------- certain workers


def test_a_pinned_task_starts_its_worker(shell):
    session = shell.open()
    shell.pool.queue_pinned(session, 7, 1)
    (start,) = shell.assign()
    assert start.worker.index == 1
    (give,) = shell.ready()
    assert give.ids == [7]
    shell.finish(start.worker)
    assert not session.pins


def test_a_pinned_task_wakes_its_worker_and_no_other(shell):
    session = shell.open()
    one, two = shell.warm(session, 2)
    for index, worker in [(0, one), (1, two), (0, one)]:
        shell.pool.queue_pinned(session, 70 + shell.next_id, index)
        shell.next_id += 1
        (give,) = shell.assign()
        assert give.worker is worker
        shell.finish(worker)
        shell.assign()


def test_a_pinned_task_waits_for_its_busy_worker_and_goes_first(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1, 0.2)
    shell.queue(session, 3)
    shell.assign()
    shell.pool.queue_pinned(session, 70, 0)
    assert shell.assign() == []
    shell.finish(worker, 0.2)
    (give,) = shell.assign()
    assert give.ids == [70]
    shell.drain(session)


def test_a_pinned_task_is_neither_stolen_nor_taken_back_as_the_newest(shell):
    session = shell.open()
    one, two = shell.warm(session, 2, 0.004)
    shell.queue(session, 2)
    for id in (70, 71):
        shell.pool.queue_pinned(session, id, 0)
    shell.assign()
    shell.begin(one)
    assert shell.pool.take_back_newest(session, 10) == [
        id for id in session.tasks if id < 70 and id != next(iter(one.assigned))
    ] or not shell.pool.take_back_newest(session, 10)
    shell.finish(two, 0.004, count=len(two.assigned))
    assert shell.assign(after=1.0) == []
    shell.drain(session)


def test_a_pinned_task_for_an_index_that_cannot_be_runs_anywhere(shell):
    session = shell.open()
    for index in (-1, 2):
        shell.pool.queue_pinned(session, index + 10, index)
    assert session.queued == 2
    shell.assign()
    shell.ready()
    shell.drain(session)


def test_pinned_tasks_survive_their_worker(shell):
    session = shell.open()
    one, _ = shell.warm(session, 2, 0.004)
    for id in (70, 71, 72):
        shell.pool.queue_pinned(session, id, 0)
    shell.assign()
    shell.begin(one)
    assert shell.pool.gone(one) == [70]
    (start,) = shell.assign()
    assert start.worker.index == 0
    shell.ready()
    assert next(iter(start.worker.assigned)) == 71
    shell.drain(session)


def test_a_pinned_task_can_be_taken_back_from_the_queue(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1, 0.2)
    shell.queue(session)
    shell.assign()
    shell.begin(worker)
    for id in (70, 71):
        shell.pool.queue_pinned(session, id, 0)
    shell.assign()
    assert shell.pool.take_back(session, [70]) == [70]
    shell.pool.check()
    assert shell.pool.take_back(session, [71]) == [71]
    assert not session.pinned
    shell.drain(session)


# ---------------------------------------------------------------------- taking back


def test_queued_tasks_are_taken_back(shell):
    session = shell.open(limit=1)
    ids = shell.queue(session, 5)
    assert shell.pool.take_back(session, [ids[1], ids[3], 99]) == [ids[1], ids[3]]
    shell.pool.check()
    shell.assign()
    shell.ready()
    assert list(session.workers[0].assigned) == [ids[0], ids[2]]
    shell.drain(session)
    assert not session.queue


def test_tasks_that_have_not_begun_are_taken_back_from_workers(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1)
    ids = shell.queue(session, 5)
    shell.assign()
    shell.begin(worker)
    assert shell.pool.take_back(session, ids[:2]) == [ids[1]]
    assert list(worker.assigned) == [ids[0], *ids[2:]]
    assert shell.pipes.unread(worker) == 3


def test_a_worker_from_which_all_was_taken_is_idle(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1)
    ids = shell.queue(session, 2)
    shell.assign()
    assert shell.pool.take_back(session, ids) == ids
    assert shell.assign() == []
    assert worker.state is WorkerState.IDLE


def test_the_newest_are_taken_back_first(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1, 0.004)
    ids = shell.queue(session, 6)
    shell.assign()
    shell.begin(worker)
    shell.pool.take_back(session, [ids[4]])
    assert shell.pool.take_back_newest(session, 2) == [ids[5], ids[3]]
    assert shell.pool.take_back_newest(session, 9) == [ids[2], ids[1]]
    assert shell.pool.take_back_newest(session, 9) == []
    shell.pool.check()


def test_no_worker_is_asked_once_enough_is_taken_back(shell):
    session = shell.open()
    one, two = shell.warm(session, 2, 0.0005)
    shell.queue(session, 10)
    shell.assign()
    assert len(shell.pool.take_back_newest(session, 3)) == 3
    assert sorted([len(one.assigned), len(two.assigned)]) == [2, 5]


# ---------------------------------------------------------------------------- killing


def test_kill_of_a_task_that_is_not_there(shell):
    session = shell.open()
    assert shell.pool.kill(session, 5) == (Verdict.UNKNOWN, None)


def test_kill_of_a_queued_task(shell):
    session = shell.open()
    (id,) = shell.queue(session)
    assert shell.pool.kill(session, id) == (Verdict.DROPPED, None)
    assert shell.assign() == []


def test_kill_of_a_task_that_waits_at_a_worker(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1)
    ids = shell.queue(session, 3)
    shell.assign()
    shell.begin(worker)
    assert shell.pool.kill(session, ids[1]) == (Verdict.DROPPED, None)
    assert list(worker.assigned) == [ids[0], ids[2]]
    assert worker.state is WorkerState.BUSY


def test_kill_of_a_task_that_has_begun(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1)
    ids = shell.queue(session, 3)
    shell.assign()
    shell.begin(worker)

    assert shell.pool.kill(session, ids[0]) == (Verdict.BEGUN, worker)

    assert worker.state is WorkerState.STOPPING
    assert shell.pool.kill(session, ids[0]) == (Verdict.BEGUN, worker)
    (start,) = shell.assign()  # the others go on at once
    assert shell.pool.gone(worker) == [ids[0]]
    (give,) = shell.ready()
    assert (give.worker, give.ids) == (start.worker, ids[1:])


def test_a_result_that_comes_after_the_kill_counts(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1)
    (id,) = shell.queue(session)
    shell.assign()
    shell.begin(worker)
    shell.pool.kill(session, id)
    shell.finish(worker)
    assert shell.pool.gone(worker) == []
    assert not session.tasks


# -------------------------------------------------------------------- ends of workers


def test_a_dead_worker_takes_only_what_it_had_begun(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1)
    ids = shell.queue(session, 4)
    shell.assign()
    shell.begin(worker)

    assert shell.pool.gone(worker) == [ids[0]]

    assert session.queued == 3
    (start,) = shell.assign()
    assert start.worker.index == 0
    (give,) = shell.ready()
    assert give.ids == ids[1:]


def test_a_worker_is_replaced_after_so_many_tasks(shell):
    session = shell.open(limit=1, per_worker=3)
    shell.queue(session, 7)
    shell.assign()
    shell.ready()
    first = session.workers[0]
    shell.finish(first)
    shell.finish(first)
    shell.assign()
    assert first.left == 0
    assert len(first.assigned) == 1
    shell.finish(first)
    actions = shell.assign()
    assert [type(action) for action in actions] == [Stop, Start]
    assert shell.stopped == [first]
    assert session.workers[0] is not first
    shell.ready()
    shell.drain(session)
    assert len(shell.stopped) == 2


def test_a_task_taken_back_does_not_count_for_its_worker(shell):
    session = shell.open(limit=1, per_worker=3)
    ids = shell.queue(session, 3)
    shell.assign()
    shell.ready()
    worker = session.workers[0]
    assert worker.left == 1
    assert shell.pool.take_back(session, [ids[1]]) == [ids[1]]
    assert worker.left == 2


def test_a_strange_result_is_reported_and_changes_nothing(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1)
    shell.queue(session, 2)
    shell.assign()
    before = list(worker.assigned)
    assert shell.pool.done(worker, [98, before[0], 99], 3, 0.0) == [98, 99]
    assert list(worker.assigned) == before[1:]


def test_the_end_of_a_session(shell):
    session = shell.open()
    other = shell.open()
    one, two = shell.warm(session, 2)
    shell.queue(session, 8)
    shell.assign()
    shell.begin(one)
    shell.pool.kill(session, next(iter(one.assigned)))
    shell.assign()
    shell.queue(other, 1)
    assert shell.assign() == []

    workers = shell.pool.close(session)

    assert set(workers) >= {one, two}
    assert shell.pool.sessions == {other: None}
    (start,) = shell.assign()
    assert start.worker.session is other
    for worker in workers:
        assert shell.pool.gone(worker) == []
    shell.pool.check()
    assert session.tasks == {}


# ------------------------------------------------------------------------ what has begun


def test_begun_is_told_once_after_a_while(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1)
    (id,) = shell.queue(session)
    shell.assign()
    assert shell.pool.begun(0.0) == ([], True)
    assert shell.pool.begun(0.02) == ([], True)  # it has not begun at all
    shell.begin(worker)
    assert shell.pool.begun(0.022) == ([(worker, id, 0.0)], False)
    assert shell.pool.begun(0.05) == ([], False)


def test_begun_is_not_told_of_short_tasks(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1)
    shell.queue(session, 3)
    shell.assign()
    for now in (0.0, 0.02, 0.04):
        shell.begin(worker)
        assert shell.pool.begun(now)[0] == []
        shell.finish(worker)
    assert shell.pool.begun(0.06) == ([], True)
    shell.assign()
    assert shell.pool.begun(0.08) == ([], False)


def test_begun_looks_again_while_something_waits_behind(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1)
    shell.queue(session, 2)
    shell.assign()
    shell.begin(worker)
    shell.pool.begun(0.0)
    found, due = shell.pool.begun(0.02)
    assert len(found) == 1
    assert due


# ---------------------------------------------------------------------------- insight


def test_things_tell_their_state(shell):
    session = shell.open(name="client pid 7")
    shell.queue(session, 8)
    shell.pool.queue_pinned(session, 70, 0)
    actions = shell.assign()
    assert "starting" in repr(actions[0])
    actions = shell.ready()
    assert "..." in repr(Give(actions[0].worker, list(range(9))))
    assert "Give" in repr(actions[0])
    assert "Stop" in repr(Stop(actions[0].worker))
    assert "client pid 7" in repr(session)
    assert "1 sessions" in repr(shell.pool)
    assert shell.pool.status() == [
        {
            "name": "client pid 7",
            "workers": 2,
            "queued": session.queued,
            "running": 9 - session.queued,
        }
    ]
    assert "busy" in repr(actions[0].worker)


def test_a_worker_cannot_come_back(shell):
    session = shell.open()
    shell.queue(session)
    (start,) = shell.assign()
    shell.pool.gone(start.worker)
    with pytest.raises(AssertionError, match="cannot become"):
        shell.pool._move(start.worker, WorkerState.IDLE)


def test_a_worker_that_has_run_dry_and_died_in_one_round(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1)
    shell.queue(session)
    shell.assign()
    shell.finish(worker)
    assert shell.pool.gone(worker) == []
    assert shell.assign() == []
    assert shell.pool.holding == 0


# ------------------------------------------------------------- workers that do not start


def start_fails(shell, session, seconds):
    worker = shell.started.pop()
    shell.pool.gone(worker)
    shell.pool.pause(session, shell.now + seconds)


def test_after_a_start_that_failed_the_next_one_waits_for_the_end_of_the_pause(shell):
    session = shell.open()
    shell.queue(session, 3)
    shell.assign()
    shell.pool.gone(shell.started.pop())
    start_fails(shell, session, 0.5)

    assert shell.assign() == []
    assert shell.pool.deadline() == shell.now + 0.5
    assert shell.assign(after=0.4) == []
    assert [type(action) for action in shell.assign(after=0.1)] == [Start, Start]
    assert shell.pool.deadline() is None


def test_meanwhile_the_workers_that_live_do_all(shell):
    session = shell.open()
    (worker,) = shell.warm(session, 1)
    shell.queue(session, 10)
    shell.assign()
    start_fails(shell, session, 10.0)

    shell.drain(session)

    assert list(session.workers.values()) == [worker]
    assert not session.tasks


def test_and_another_session_has_the_slots(shell):
    failing, other = shell.open(), shell.open(name="other")
    shell.queue(failing, 5)
    shell.assign()
    shell.pool.gone(shell.started.pop())
    start_fails(shell, failing, 10.0)
    shell.queue(other, 5)

    shell.assign()

    assert {worker.session for worker in shell.started} == {other}
    assert len(shell.started) == 2


def test_a_task_for_a_worker_that_does_not_start_keeps_nobody_else_waiting(shell):
    session = shell.open()
    (worker,) = shell.warm(session, 1)
    shell.pool.queue_pinned(session, 1000, 1)
    shell.assign()
    start_fails(shell, session, 10.0)
    (id,) = shell.queue(session)

    assert ids_given(shell.assign()) == {worker: [id]}
    shell.finish(worker)
    assert shell.assign() == []
    assert [type(action) for action in shell.assign(after=10.0)] == [Start]


def test_the_pause_of_a_session_ends_with_it(shell):
    session = shell.open()
    shell.queue(session)
    shell.assign()
    start_fails(shell, session, 10.0)

    shell.pool.close(session)
    shell.pool.pause(session, 20.0)

    assert shell.pool.deadline() is None


# ------------------------------------------------------------------ kills with a grace


def test_a_dismissed_worker_keeps_its_slot_until_its_task_has_ended_and_then_ends(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1, 1.0)
    running, waiting = shell.queue(session, 2)
    shell.assign()
    assert shell.begin(worker) == running

    assert shell.pool.dismiss(session, running) == (Verdict.BEGUN, worker)
    shell.assign()
    assert worker.state is WorkerState.BUSY
    assert session.holding == 1
    assert shell.started == [], "no other worker has its index meanwhile"

    shell.finish(worker)
    shell.assign()
    assert shell.stopped == [worker]
    assert [each.index for each in shell.started] == [worker.index]
    assert waiting in session.tasks


def test_what_waits_behind_a_dismissed_task_goes_back_to_the_queue(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1, 1e-3)
    first, second = shell.queue(session, 2)
    shell.assign()
    assert list(worker.assigned) == [first, second]
    shell.begin(worker)

    shell.pool.dismiss(session, first)
    shell.pool.check()
    assert list(worker.assigned) == [first]
    assert session.queued == 1


def test_a_task_that_has_not_begun_is_dropped_gently_as_well(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1, 1e-3)
    first, second, third = shell.queue(session, 3)
    shell.assign()
    shell.begin(worker)

    assert shell.pool.dismiss(session, third) == (Verdict.DROPPED, None)
    assert shell.pool.dismiss(session, second) == (Verdict.DROPPED, None)
    assert shell.pool.dismiss(session, 10**6) == (Verdict.UNKNOWN, None)
    assert worker.left is None
    assert list(session.tasks) == [first]


def test_a_dismissed_task_can_be_killed_at_once(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1, 1.0)
    (id,) = shell.queue(session)
    shell.assign()
    shell.begin(worker)
    shell.pool.dismiss(session, id)

    assert shell.pool.kill(session, id) == (Verdict.BEGUN, worker)
    assert worker.state is WorkerState.STOPPING
    assert shell.pool.dismiss(session, id) == (Verdict.BEGUN, worker)
    assert shell.pool.gone(worker) == [id]


def test_a_task_runs_as_soon_as_a_worker_has_it_with_none_before_it(shell):
    session = shell.open(limit=1)
    shell.warm(session, 1, 1e-3)
    first, second, third = shell.queue(session, 3)

    assert shell.pool.running(session, [first, second, third]) == []
    shell.assign()
    assert shell.pool.running(session, [third, second, first, 10**6]) == [first]


# ------------------------------------------------------------------------- priorities


def test_what_waits_goes_by_priority_and_within_one_in_order(shell):
    session = shell.open(limit=1)
    for id, priority in enumerate([0, -1, 1, 0, 2, -1, 1]):
        shell.pool.queue_prior(session, id, priority)
    shell.pool.queue(session, [7, 8])
    shell.pool.check()

    assert list(session.queue) == [4, 2, 6, 0, 3, 7, 8, 1, 5]


def test_priorities_are_forgotten_with_their_tasks(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1, 1e-3)
    for id in range(100, 106):
        shell.pool.queue_prior(session, id, id % 3 - 1)
    shell.assign()
    shell.finish(worker)
    shell.pool.take_back(session, [104])
    shell.pool.take_back_newest(session, 1)
    shell.pool.check()
    shell.drain(session)
    assert not session.priorities


def test_what_is_more_urgent_precedes_what_another_worker_is_given(shell):
    session = shell.open()
    shell.warm(session, 2, 1.0)
    shell.pool.queue_prior(session, 101, 1)
    shell.pool.queue_prior(session, 102, 0)
    given = {ids[0]: worker for worker, ids in ids_given(shell.assign()).items()}

    assert list(given) == [101, 102], "the urgent one first"
    assert shell.pool.precedes(given[102], 102, given[101])
    assert not shell.pool.precedes(given[101], 101, given[102])
    assert not shell.pool.precedes(given[101], 101, given[101])


def test_what_was_given_ahead_comes_back_for_something_more_urgent(shell):
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1, 1e-3)
    (running,) = shell.queue(session)
    shell.assign()
    shell.begin(worker)
    for id, priority in ((101, 0), (102, 0), (103, 1), (104, 2)):
        shell.pool.queue_prior(session, id, priority)
        shell.assign()

    assert list(worker.assigned) == [running, 104, 103, 101, 102]
    assert list(shell.pipes.pipes[worker]) == [104, 103, 101, 102]


def test_a_task_for_which_a_worker_is_being_started_has_its_slot(shell):
    session = shell.open(limit=2)
    first, second, third = shell.queue(session, 3)
    shell.pool.queue_pinned(session, 100, 1)
    shell.assign()
    ids = [first, second, third, 100]
    assert session.starting == 2
    assert len(shell.pool.running(session, ids)) == 2

    for id in shell.pool.running(session, ids):
        assert shell.pool.dismiss(session, id) == (Verdict.DROPPED, None)
    shell.ready()
    assert len(session.tasks) == 2


# ------------------------------------------------------- tasks that wait for their own


def test_a_task_that_waits_lends_its_slot_and_its_workers_tasks_go_back_to_the_queue(shell):
    shell = Shell(slots=1)
    session = shell.open()
    (worker,) = shell.warm(session, 1, seconds=1e-4)
    first, second = shell.queue(session, 2)
    shell.assign()
    assert shell.begin(worker) == first
    assert list(worker.assigned) == [first, second]

    shell.pool.wait(worker)
    (start,) = shell.assign()

    assert isinstance(start, Start)
    assert start.worker.index == 1
    assert list(worker.assigned) == [first]
    assert ids_given(shell.ready()) == {start.worker: [second]}


def test_a_task_that_goes_on_has_a_slot_before_anything_new_begins(shell):
    shell = Shell(slots=1)
    session = shell.open()
    (worker,) = shell.warm(session, 1)
    shell.queue(session)
    shell.assign()
    shell.begin(worker)
    shell.pool.wait(worker)
    (child,) = shell.queue(session)
    shell.assign()
    (give,) = shell.ready()
    other = give.worker
    assert shell.begin(other) == child

    shell.queue(session, 5)
    shell.pool.resume(worker)
    shell.assign()
    assert not shell.resumed
    assert worker.state is WorkerState.RESUMING
    while other.assigned:
        shell.finish(other)
    shell.assign()

    assert shell.resumed == [worker]
    assert worker.state is WorkerState.BUSY
    assert other.state is WorkerState.IDLE


def test_a_session_with_a_limit_keeps_it_with_stand_ins_about(shell):
    shell = Shell(slots=4)
    session = shell.open(limit=1)
    (worker,) = shell.warm(session, 1, seconds=1.0)
    shell.queue(session, 1)
    shell.assign()
    shell.begin(worker)
    shell.pool.wait(worker)
    shell.queue(session, 3)
    shell.assign()
    (give,) = shell.ready()
    shell.begin(give.worker)

    shell.pool.resume(worker)
    shell.assign()

    assert worker.state is WorkerState.RESUMING
    assert session.holding == 1
    assert not shell.started


def test_stand_ins_end_where_twice_as_many_as_there_may_be_are_idle(shell):
    shell = Shell(slots=1)
    session = shell.open()
    shell.warm(session, 1, seconds=1.0)
    waiting = []
    for _ in range(5):
        shell.queue(session)
        shell.assign()
        if shell.started:
            shell.ready()
        (worker,) = session.busy
        shell.begin(worker)
        shell.pool.wait(worker)
        waiting.append(worker)
    for worker in reversed(waiting):
        shell.pool.resume(worker)
        shell.assign()
        shell.finish(worker)
        shell.assign()

    assert len(session.workers) == 3  # its own, and two more
    assert len(shell.stopped) == 2
    assert all(worker.index >= session.limit for worker in shell.stopped)


def test_a_task_that_waits_is_told_as_begun_and_can_be_killed(shell):
    shell = Shell(slots=1)
    session = shell.open()
    (worker,) = shell.warm(session, 1)
    (id,) = shell.queue(session)
    shell.assign()
    shell.begin(worker)
    shell.pool.wait(worker)
    shell.assign()

    assert shell.pool.running(session, [id]) == [id]
    shell.pool.begun(shell.now)
    assert [found[1] for found in shell.pool.begun(shell.now + 1.0)[0]] == [id]
    assert shell.pool.take_back(session, [id]) == []
    assert shell.pool.kill(session, id) == (Verdict.BEGUN, worker)
    assert shell.pool.gone(worker) == [id]
    shell.pool.check()


def test_a_task_that_is_done_while_it_waits_leaves_its_worker_free(shell):
    shell = Shell(slots=1)
    session = shell.open()
    (worker,) = shell.warm(session, 1)
    shell.queue(session)
    shell.assign()
    shell.begin(worker)
    shell.pool.wait(worker)
    shell.finish(worker)
    shell.assign()

    assert worker.state is WorkerState.IDLE
    assert not session.waiting
