"""The scheduler: which server runs which task. Ids, numbers and time only; nothing runs here."""

from __future__ import annotations

import pytest

from remote_executor.core.scheduler import LAST_PAUSE, Scheduler
from remote_executor.core.tasks import BATCH_BYTES, FIRST_PAUSE, MOST_BYTES, Feed, Task, TaskState


class Farm:
    """A scheduler and its servers; each step is checked."""

    def __init__(self, **slots):
        self.scheduler = Scheduler()
        self.now = 100.0
        for name, count in slots.items():
            self.up(name, count)

    def up(self, name, slots):
        server = self.scheduler.servers.get(name) or self.scheduler.add_server(name, name)
        self.scheduler.server_up(server, slots)
        return server

    def __getattr__(self, name):
        return self.scheduler.servers[name]

    def submit(self, *names, **options):
        tasks = [self.task(name, **options) for name in names]
        for task in tasks:
            self.scheduler.submit(task)
        return tasks[0] if len(tasks) == 1 else tasks

    def task(self, name, *, size=0, pinned=None, **options):
        task = Task(self.scheduler.next_id(), None, None, b"", **options)
        task.name, task.size, task.pinned = name, size, pinned
        return task

    def feed(self, items, chunksize=None, **options):
        feed = Feed(None, None, chunksize, **options)
        self.scheduler.offer(feed, items)
        return feed

    def fill(self):
        """Send what can be sent, and return it as (server's name, its tasks)."""
        sends = [(server.name, tasks) for server, tasks in self.scheduler.fill(self.now)]
        for _, tasks in sends:
            for task in tasks:
                assert not task.posted
                task.posted = True
        self.scheduler.check()
        return sends

    def sent(self):
        """Fill, and return the names of the tasks sent to each server."""
        return {name: [task.name for task in tasks] for name, tasks in self.fill()}

    def done(self, *tasks, seconds=0.001):
        """Each task takes ``seconds`` on its worker."""
        ids = [task.id for task in tasks]
        found = self.scheduler.done(tasks[0].server, ids, seconds * len(tasks))
        self.scheduler.check()
        assert found == list(tasks)

    def learn(self, name, seconds, round_trip=0.0):
        """Have a server run tasks of that length until it is known how long they take."""
        server = self.scheduler.servers[name]
        server.round_trip = round_trip
        for _ in range(30):
            task = self.task("learn")
            self.scheduler.pin(server, task)
            self.done(task, seconds=seconds)

    def asks(self):
        """Return what servers are asked for, as (server's name, ids or count)."""
        asks, self.scheduler.asks = self.scheduler.asks, []
        return [(server.name, ids or count) for server, _, ids, count in asks]

    def give_back(self, server, *tasks):
        """The server answers what it was asked last: it gives these tasks."""
        cancelled = self.scheduler.taken_back(
            server, server.asked or 0, [task.id for task in tasks], self.now
        )
        self.scheduler.check()
        return cancelled


def names(tasks):
    return [task.name for task in tasks]


def states(tasks):
    return {task.state for task in tasks}


# ------------------------------------------------------------------------ tasks go out


def test_tasks_wait_while_there_is_no_server():
    farm = Farm()
    task = farm.submit("t")

    assert farm.sent() == {}
    assert task.state is TaskState.QUEUED
    assert (farm.scheduler.unsettled, farm.scheduler.idle_slots, farm.scheduler.slots()) == (
        1,
        0,
        0,
    )


def test_tasks_that_waited_go_to_the_first_server_that_is_up_in_order():
    farm = Farm()
    farm.submit("t0", "t1", "t2")

    farm.up("a", 2)

    assert farm.scheduler.idle_slots == 2
    assert farm.sent() == {"a": ["t0", "t1", "t2"]}
    assert farm.scheduler.idle_slots == 0
    assert farm.scheduler.slots() == 2


def test_a_server_that_is_known_and_not_up_gets_nothing():
    farm = Farm(a=1)
    farm.scheduler.add_server("b", "b")
    farm.submit("t0", "t1")

    assert farm.sent() == {"a": ["t0", "t1"]}
    assert farm.b.room() == 0


def test_idle_slots_are_fed_before_anything_is_sent_ahead():
    farm = Farm(a=1, b=3)

    farm.submit("t0", "t1", "t2", "t3")

    sent = farm.sent()
    assert {name: len(tasks) for name, tasks in sent.items()} == {"a": 1, "b": 3}
    assert farm.scheduler.idle_slots == 0


def test_what_is_sent_ahead_is_shared_out_by_room():
    farm = Farm(a=2, b=6)
    farm.submit(*map(str, range(12)))

    sent = farm.sent()

    assert {name: len(tasks) for name, tasks in sent.items()} == {"a": 3, "b": 9}


def test_every_slot_has_a_task_and_a_successor_while_nothing_is_known_of_them():
    farm = Farm(a=4)
    farm.submit(*map(str, range(100)))

    assert len(farm.sent()["a"]) == 8


@pytest.mark.parametrize(
    ("seconds", "round_trip", "each"),
    [
        (1e-7, 0.0, 2001),  # no more than that, however short
        (1e-4, 0.0, 201),  # 20 ms of work ahead
        (1e-4, 0.010, 301),  # and what passes while an answer is under way
        (0.005, 0.0, 5),
        (0.050, 0.0, 2),
        (0.050, 0.1, 3),  # far away
        (0.500, 0.0, 1),  # long tasks are not hoarded,
        (0.500, 0.1, 2),  # unless a slot would idle for long between two
        (30.0, 0.1, 1),
    ],
)
def test_how_much_is_sent_ahead_follows_from_measured_time(seconds, round_trip, each):
    farm = Farm(a=2)
    farm.learn("a", seconds, round_trip)
    farm.submit(*map(str, range(6000)))

    assert len(farm.sent()["a"]) == 2 * each


def test_tasks_that_become_long_are_hoarded_no_more():
    farm = Farm(a=1)
    farm.learn("a", 0.001)
    tasks = farm.submit(*map(str, range(100)))
    assert len(farm.sent()["a"]) == 21

    for task in tasks[:20]:
        farm.done(task, seconds=2.0)

    assert farm.sent() == {}
    farm.done(tasks[20], seconds=2.0)
    assert farm.sent() == {"a": ["21"]}


def test_a_server_whose_slots_change_is_fed_accordingly():
    farm = Farm(a=2)
    farm.submit(*map(str, range(10)))
    assert len(farm.sent()["a"]) == 4

    farm.up("a", 4)
    assert len(farm.sent()["a"]) == 4

    farm.up("a", 0)
    assert farm.sent() == {}
    assert farm.scheduler.slots() == 0


def test_bytes_under_way_are_bounded_beyond_one_task_a_slot():
    farm = Farm(a=2)
    farm.learn("a", 0.001)
    tasks = farm.submit(*"abcde", size=MOST_BYTES // 2)

    assert farm.sent() == {"a": ["a", "b"]}
    assert farm.a.bytes == MOST_BYTES

    farm.done(tasks[0])
    assert farm.sent() == {"a": ["c"]}

    large = farm.submit("huge", size=3 * MOST_BYTES)
    farm.done(tasks[1], tasks[2])
    assert farm.sent() == {"a": ["d", "e"]}
    farm.done(tasks[3])
    assert farm.sent() == {"a": ["huge"]}  # a slot is never kept idle for their sake
    farm.done(tasks[4], large)
    assert farm.a.bytes == 0


def test_bytes_bound_what_is_sent_to_each_of_several_servers():
    farm = Farm(a=1, b=1)
    for name in "ab":
        farm.learn(name, 0.001)
    farm.submit(*map(str, range(10)), size=MOST_BYTES * 3 // 4)

    assert {name: len(tasks) for name, tasks in farm.fill()} == {"a": 2, "b": 2}
    assert farm.sent() == {}


def test_a_draining_server_gets_nothing_new():
    farm = Farm(a=1, b=1)
    farm.a.draining = True
    farm.submit("t0", "t1", "t2")

    assert farm.sent() == {"b": ["t0", "t1"]}
    assert farm.scheduler.idle_slots == 0


# ------------------------------------------------------------- priorities and fairness


def test_higher_priorities_are_sent_first():
    """K51."""
    farm = Farm(a=1)
    farm.submit("low", priority=-1)
    farm.submit("normal0", "normal1")
    farm.submit("high", priority=1)

    assert farm.sent() == {"a": ["high", "normal0"]}


def test_views_take_turns():
    farm = Farm(a=2)
    farm.submit(*(f"x{n}" for n in range(50)), lane="x")
    farm.submit("y0", "y1", lane="y")

    assert farm.sent() == {"a": ["x0", "y0", "x1", "y1"]}


def test_a_view_with_a_map_and_one_with_tasks_take_turns():
    farm = Farm(a=2)
    feed = farm.feed(1000, chunksize=10, lane="x")
    tasks = farm.submit("y0", "y1", lane="y")

    ((_, sent),) = farm.fill()

    assert [task.feed for task in sent] == [feed, None, feed, None]
    assert sent[1::2] == tasks


# --------------------------------------------------------------------- answers come


def test_a_done_task_is_settled_and_makes_room():
    farm = Farm(a=1)
    tasks = farm.submit("t0", "t1", "t2")
    farm.fill()

    farm.done(*tasks[:2])

    assert states(tasks[:2]) == {TaskState.SETTLED}
    assert tasks[0].server is None
    assert farm.sent() == {"a": ["t2"]}
    assert farm.scheduler.unsettled == 1


def test_an_answer_that_comes_late_or_twice_means_nothing():
    farm = Farm(a=1)
    task = farm.submit("t")
    farm.fill()
    (old,) = farm.scheduler.tasks
    farm.done(task)

    assert farm.scheduler.done(farm.a, [old, 999], 1.0) == [None, None]
    assert farm.scheduler.begun(farm.a, [old]) == []
    assert farm.scheduler.ended(farm.a, old) is None
    assert farm.scheduler.taken_back(farm.a, 1, [old], farm.now) == []
    assert farm.scheduler.unsettled == 0
    assert farm.a.seconds == 0.001


def test_a_task_that_died_is_settled():
    farm = Farm(a=1)
    task = farm.submit("t", size=7)
    farm.fill()

    assert farm.scheduler.ended(farm.a, task.id) is task

    assert task.state is TaskState.SETTLED
    assert (farm.scheduler.unsettled, farm.a.bytes) == (0, 0)


def test_that_a_task_has_begun_is_news_once():
    farm = Farm(a=2)
    tasks = farm.submit("t0", "t1")
    farm.fill()
    ids = [task.id for task in tasks]

    assert farm.scheduler.begun(farm.a, ids[:1]) == tasks[:1]
    assert farm.scheduler.begun(farm.a, ids) == tasks[1:]
    assert states(tasks) == {TaskState.BEGUN}
    assert farm.a.begun == 2

    farm.done(tasks[0])
    farm.scheduler.ended(farm.a, ids[1])
    assert farm.a.begun == 0
    farm.scheduler.check()


def test_a_task_says_where_it_stands():
    farm = Farm(a=1)
    task = farm.submit("word_count")
    assert repr(task) == f"<Task {task.id} queued server=None word_count>"

    farm.fill()

    assert repr(task) == f"<Task {task.id} sent server=a word_count>"


# ------------------------------------------------------------------------- lost servers


def test_tasks_of_a_lost_server_go_to_another_in_their_order_as_new_attempts():
    """K58."""
    farm = Farm(a=2)
    tasks = farm.submit("t0", "t1", "t2", "t3")
    farm.fill()
    farm.scheduler.begun(farm.a, [tasks[0].id])
    old = [task.id for task in tasks]
    later = farm.submit("later")

    farm.scheduler.server_lost(farm.a)
    farm.scheduler.check()
    assert states(tasks) == {TaskState.QUEUED}
    farm.up("b", 4)

    assert farm.sent() == {"b": ["t0", "t1", "t2", "t3", "later"]}
    assert not {task.id for task in tasks} & set(old)
    assert [task.lost_with for task in tasks] == [("a",)] * 4
    assert farm.scheduler.done(farm.a, old, 1.0) == [None] * 4  # late answers
    farm.done(*tasks, later)
    assert farm.scheduler.unsettled == 0


def test_a_server_that_is_left_out_costs_what_it_never_began_no_try():
    farm = Farm(a=2, b=2)
    first, second = farm.submit("once", "begun", retries=0)
    farm.scheduler.server_lost(farm.b)
    farm.fill()
    farm.scheduler.begun(farm.a, [second.id])

    farm.scheduler.server_left_out(farm.a)

    assert farm.scheduler.failures == [second]
    assert second.lost_with == ("a",)
    farm.up("b", 2)
    assert farm.sent() == {"b": ["once"]}
    assert first.lost_with == ()


def test_a_server_that_is_left_out_fails_what_was_for_it_alone():
    farm = Farm(a=2)
    task = farm.task("pinned", pinned=0)
    farm.scheduler.pin(farm.a, task)

    farm.scheduler.server_left_out(farm.a)

    assert farm.scheduler.failures == [task]
    assert task.lost_with == ("a",)
    farm.scheduler.check()


def test_tasks_wait_for_a_lost_server_to_come_back_if_there_is_no_other():
    """K59."""
    farm = Farm(a=1)
    task = farm.submit("t")
    farm.fill()
    farm.learn("a", 5.0)

    farm.scheduler.server_lost(farm.a)
    assert farm.sent() == {}
    assert farm.scheduler.slots() == 0
    farm.up("a", 1)

    assert farm.sent() == {"a": ["t"]}
    assert farm.a.seconds is None  # it may be another machine by now
    assert task.retries == 2


def test_a_task_that_was_lost_too_often_fails_and_names_the_servers():
    farm = Farm(a=1)
    task = farm.submit("t", retries=1)
    farm.fill()
    farm.scheduler.server_lost(farm.a)
    assert farm.scheduler.failures == []
    farm.up("b", 1)
    farm.fill()

    farm.scheduler.server_lost(farm.b)

    assert farm.scheduler.failures == [task]
    assert task.lost_with == ("a", "b")
    assert task.state is TaskState.SETTLED
    assert farm.scheduler.unsettled == 0


def test_a_task_without_retries_runs_at_most_once():
    farm = Farm(a=1)
    task = farm.submit("t", retries=0)
    farm.fill()

    farm.scheduler.server_lost(farm.a)

    assert farm.scheduler.failures == [task]
    assert farm.sent() == {}


def test_a_task_that_is_being_cancelled_is_not_tried_again():
    farm = Farm(a=1)
    task = farm.submit("t")
    farm.fill()
    farm.scheduler.ask_back([task])

    farm.scheduler.server_lost(farm.a)

    assert farm.scheduler.failures == [task]
    assert task.cancelling


def test_a_removed_server_is_forgotten():
    farm = Farm(a=1, b=1)
    server = farm.a

    farm.scheduler.server_removed(server)
    farm.scheduler.server_removed(server)

    assert list(farm.scheduler.servers) == ["b"]
    assert farm.scheduler.slots() == farm.scheduler.idle_slots == 1


# ---------------------------------------------------------------------------- cancelling


def test_a_task_that_waits_here_is_dropped_and_never_sent():
    farm = Farm()
    tasks = farm.submit("t0", "t1", "t2")

    assert farm.scheduler.drop(tasks[1])
    assert not farm.scheduler.drop(tasks[1])
    assert farm.scheduler.unsettled == 2

    farm.up("a", 4)
    assert farm.sent() == {"a": ["t0", "t2"]}
    assert not farm.scheduler.drop(tasks[0])


def test_a_batch_that_has_not_left_is_dropped_and_one_that_has_is_not():
    farm = Farm(a=1)
    farm.feed(2)
    ((_, (packed, unpacked)),) = farm.scheduler.fill(farm.now)
    packed.posted = True

    assert farm.scheduler.drop(unpacked)
    assert not farm.scheduler.drop(packed)
    assert not farm.scheduler.drop(unpacked)

    assert list(farm.a.inflight) == [packed.id]
    assert unpacked.state is TaskState.SETTLED
    farm.scheduler.check()


def test_nothing_is_sent_if_all_that_waited_was_dropped():
    farm = Farm()
    for task in farm.submit("t0", "t1"):
        farm.scheduler.drop(task)

    farm.up("a", 1)
    farm.up("b", 1)

    assert farm.sent() == {}


def test_a_task_that_waits_at_its_server_is_asked_back():
    farm = Farm(a=1, b=1)
    tasks = farm.submit("t0", "t1", "t2", "t3")
    farm.fill()
    running = farm.scheduler.begun(farm.a, [tasks[0].id])
    waiting = [task for task in tasks if task.server is farm.a and task not in running]

    farm.scheduler.ask_back(tasks)

    assert sorted(farm.asks()) == [
        ("a", [task.id for task in waiting]),
        ("b", [task.id for task in tasks if task.server is farm.b]),
    ]
    assert farm.give_back(farm.a, *waiting) == waiting
    assert states(waiting) == {TaskState.SETTLED}
    assert farm.scheduler.unsettled == 3


def test_a_task_that_began_before_it_was_asked_back_goes_on():
    farm = Farm(a=1)
    task = farm.submit("t")
    farm.fill()
    farm.scheduler.ask_back([task])

    assert farm.give_back(farm.a) == []

    farm.done(task)
    assert farm.scheduler.unsettled == 0


def test_a_task_that_is_given_back_unasked_while_it_is_being_cancelled_is_cancelled():
    farm = Farm(a=1)
    tasks = farm.submit("t0", "t1")
    farm.fill()
    farm.scheduler.ask_for(farm.a, 1)
    farm.scheduler.ask_back(tasks[1:])

    assert farm.give_back(farm.a, tasks[1]) == tasks[1:]
    assert farm.give_back(farm.a) == []


def test_the_queue_can_be_emptied():
    farm = Farm()
    first, second = farm.submit("t0", "t1")
    farm.scheduler.drop(first)
    feed = farm.feed(10)
    closed = farm.feed(10)
    farm.scheduler.close_feed(closed)

    assert farm.scheduler.drop_queued() == [second, feed]

    assert second.state is TaskState.SETTLED
    assert feed.closed
    assert (len(farm.scheduler.queue), farm.scheduler.unsettled) == (0, 0)


# ------------------------------------------------------------------- tasks for one server


def test_a_pinned_task_goes_to_its_server_past_queue_and_depth():
    farm = Farm(a=1, b=1)
    farm.submit(*map(str, range(10)))
    farm.fill()
    task = farm.task("pinned", pinned=0, size=5)

    farm.scheduler.pin(farm.a, task)
    farm.scheduler.check()

    assert task.server is farm.a
    assert farm.a.bytes == 5
    farm.done(task)
    assert farm.scheduler.unsettled == 10


def test_a_pinned_task_runs_nowhere_else():
    farm = Farm(a=1, b=1)
    lost, returned = farm.task("lost", pinned=0), farm.task("returned", pinned=0)
    farm.scheduler.pin(farm.a, lost)
    farm.scheduler.pin(farm.b, returned)

    farm.scheduler.server_lost(farm.a)

    assert farm.scheduler.failures == [lost]
    # Asked back to be cancelled, and given back after the canceller gave up waiting.
    assert farm.give_back(farm.b, returned) == [returned]
    assert farm.scheduler.unsettled == 0


# ------------------------------------------------------------------------------ balance


def test_work_that_waits_at_a_busy_server_is_taken_back_for_an_idle_one():
    farm = Farm(a=1)
    tasks = farm.submit("t0", "t1")
    farm.fill()
    farm.up("b", 1)

    assert farm.sent() == {}
    assert farm.asks() == [("a", 1)]
    assert farm.sent() == {}
    assert farm.asks() == []  # one request at a time

    assert farm.give_back(farm.a, tasks[1]) == []
    assert farm.sent() == {"b": ["t1"]}
    assert farm.scheduler.deadline() is None
    assert tasks[1].retries == 3  # that was no loss


def test_what_is_taken_back_keeps_its_order():
    farm = Farm(a=2)
    farm.learn("a", 0.01)
    tasks = farm.submit(*map(str, range(6)))
    farm.fill()
    farm.up("b", 2)
    farm.fill()
    assert farm.asks() == [("a", 2)]

    farm.give_back(farm.a, tasks[4], tasks[5])

    assert farm.sent() == {"b": ["4", "5"]}


def test_no_more_is_asked_than_idle_servers_can_run_nor_more_than_half():
    farm = Farm(a=2, b=2)
    for name in "ab":
        farm.learn(name, 0.015)
    farm.submit(*map(str, range(100)))
    farm.scheduler.servers["b"].draining = True
    farm.fill()
    farm.scheduler.drop_queued()
    farm.scheduler.servers["b"].draining = False
    assert len(farm.a.inflight) == 4

    farm.fill()
    assert farm.asks() == [("a", 1)]


def test_several_busy_servers_are_asked_for_what_idle_slots_need():
    farm = Farm(a=2, b=2, c=2)
    farm.submit(*map(str, range(12)))
    farm.fill()
    farm.up("d", 2)

    farm.fill()

    assert farm.asks() == [("a", 1), ("b", 1)]


def test_nothing_is_asked_back_where_work_waits_here_for_the_idle_one():
    farm = Farm(a=1)
    farm.submit(*map(str, range(10)))
    farm.fill()
    farm.up("b", 1)

    assert farm.sent() == {"b": ["2", "3"]}
    assert farm.asks() == []


def test_nothing_is_asked_of_a_server_that_will_be_through_before_it_answers():
    farm = Farm(a=2, b=2)
    farm.learn("a", 1e-5)
    for number in range(20):
        farm.scheduler.pin(farm.a, farm.task(str(number)))

    farm.fill()

    assert farm.asks() == []
    assert farm.scheduler.deadline() is None


def test_the_further_away_the_more_must_wait_before_it_is_asked_back():
    farm = Farm(a=1, b=1)
    farm.learn("a", 0.010, round_trip=0.1)
    for number in range(12):
        farm.scheduler.pin(farm.a, farm.task(str(number)))

    farm.fill()
    assert farm.asks() == []

    for number in range(30):
        farm.scheduler.pin(farm.a, farm.task(str(number)))
    farm.fill()
    assert farm.asks() == [("a", 1)]


def test_short_tasks_behind_one_that_proves_long_are_asked_back():
    farm = Farm(a=1, b=1)
    farm.learn("a", 1e-5)
    long, *_ = tasks = [farm.task(name) for name in ("long", "short0", "short1")]
    for task in tasks:
        farm.scheduler.pin(farm.a, task)
    farm.fill()
    assert farm.asks() == []

    farm.scheduler.begun(farm.a, [long.id])
    farm.fill()

    assert farm.asks() == [("a", 1)]


def test_a_server_that_had_nothing_to_give_is_asked_again_later_and_later():
    farm = Farm(a=1, b=1)
    tasks = [farm.task(str(number)) for number in range(2)]
    for task in tasks:
        farm.scheduler.pin(farm.a, task)
    farm.a.round_trip = 0.001
    pause = FIRST_PAUSE
    for _ in range(10):
        farm.fill()
        assert farm.asks() == [("a", 1)]
        assert farm.scheduler.deadline() is None

        farm.give_back(farm.a)
        farm.fill()
        assert farm.asks() == []
        assert farm.scheduler.deadline() == farm.now + pause + 0.002

        farm.now = farm.scheduler.deadline()
        pause = min(LAST_PAUSE, 2 * pause)
    assert pause == LAST_PAUSE

    farm.fill()
    farm.give_back(farm.a, tasks[1])
    assert farm.a.pause == FIRST_PAUSE


def test_the_first_to_be_asked_again_sets_the_deadline():
    farm = Farm(a=1, b=1, c=1, d=1)
    for server, after in (farm.a, 0.2), (farm.b, 0.1), (farm.c, 0.3):
        farm.scheduler.pin(server, farm.task("t0", retries=0))
        farm.scheduler.pin(server, farm.task("t1", retries=0))
        server.ask_after = farm.now + after

    farm.fill()

    assert farm.asks() == []
    assert farm.scheduler.deadline() == farm.now + 0.1

    farm.scheduler.server_lost(farm.b)
    farm.fill()
    assert farm.scheduler.deadline() == farm.now + 0.2


def test_an_answer_to_an_older_request_leaves_the_newer_one_open():
    farm = Farm(a=1)
    farm.submit("t0", "t1")
    farm.fill()
    farm.scheduler.ask_for(farm.a, 1)
    old = farm.a.asked
    farm.scheduler.ask_for(farm.a, 1)

    farm.scheduler.taken_back(farm.a, old, [], farm.now)

    assert farm.a.asked == old + 1
    assert farm.a.ask_after == 0.0


def test_a_lost_server_has_forgotten_what_it_was_asked():
    farm = Farm(a=1, b=1)
    farm.submit("t0", "t1", "t2", "t3")
    farm.fill()
    farm.scheduler.ask_for(farm.a, 1)
    assert farm.asks() == [("a", 1)]

    farm.scheduler.server_lost(farm.a)
    assert farm.a.asked is None
    farm.up("a", 1)
    farm.fill()

    assert farm.asks() == []


# ------------------------------------------------------------------------------ batches


def batch_sizes(farm):
    return [task.count for _, tasks in farm.fill() for task in tasks]


def run_feed(farm, feed, seconds):
    """Run all batches of a feed; return their sizes. ``seconds(count)`` is what a batch takes."""
    sizes = []
    while farm.scheduler.unsettled:
        ready = [task for server in farm.scheduler.servers.values() for task in sent_to(server)]
        if not ready:
            sizes += batch_sizes(farm)
            continue
        farm.done(ready[0], seconds=seconds(ready[0].count))
        feed.measured(ready[0].count, seconds(ready[0].count))
        sizes += batch_sizes(farm)
    return sizes


def sent_to(server):
    return list(server.inflight.values())


def test_a_task_that_was_handed_out_and_has_not_left_can_be_dropped():
    """Its buffers may be on their way into shared memory."""
    farm = Farm(a=2)
    task = farm.submit("t0")
    farm.scheduler.fill(0.0)

    assert farm.scheduler.drop(task)
    assert farm.scheduler.unsettled == 0
    assert not farm.scheduler.tasks
    farm.scheduler.check()


def test_batches_are_cut_when_there_is_room_and_not_before():
    farm = Farm(a=2)
    feed = farm.feed(1000)

    assert farm.scheduler.unsettled == 1
    assert batch_sizes(farm) == [1, 1, 1, 1]
    assert (feed.available, feed.cut, feed.open_batches) == (996, 4, 4)
    assert farm.scheduler.unsettled == 5
    assert batch_sizes(farm) == []


def test_a_batch_says_which_items_it_has_and_inherits_the_rest():
    farm = Farm(a=1)
    feed = farm.feed(5, chunksize=2, retries=7, priority=1, lane="view")
    feed.flags, feed.category, feed.timeout, feed.name = 3, "etl", 30.0, "word_count"

    ((_, (first, second)),) = farm.fill()

    assert [(task.first, task.count) for task in (first, second)] == [(0, 2), (2, 2)]
    assert (first.retries, first.priority, first.lane) == (7, 1, "view")
    assert (first.flags, first.category, first.timeout, first.name) == (
        3,
        "etl",
        30.0,
        "word_count",
    )
    assert first.body is None


def test_batches_of_tiny_items_grow_quickly_and_shrink_at_the_end():
    farm = Farm(a=2)
    feed = farm.feed(1_000_000)

    sizes = run_feed(farm, feed, lambda count: 1e-6 + count * 1e-7)

    assert sum(sizes) == 1_000_000
    assert sizes[:4] == [1, 1, 1, 1]
    assert sizes[4] == 64
    assert max(sizes) > 100_000
    assert len(sizes) < 40
    assert sizes[-1] <= 5000


def test_batches_of_items_that_may_take_longer_grow_slowly_at_first():
    farm = Farm(a=2)
    feed = farm.feed(100_000)

    sizes = run_feed(farm, feed, lambda count: 1e-4 + count * 1e-5)

    assert sizes[4] == 8
    assert 64 not in sizes
    assert 512 in sizes


def test_half_a_millisecond_of_work_is_not_divided():
    farm = Farm(a=2)
    feed = farm.feed(3000)
    feed.measured(100, 100e-7)

    assert batch_sizes(farm)[0] == 3000


def test_a_batch_is_some_20_ms_of_work():
    farm = Farm(a=2)
    feed = farm.feed(100_000)

    sizes = run_feed(farm, feed, lambda count: count * 1e-4)

    assert sum(sizes) == 100_000
    assert max(sizes) == pytest.approx(200, rel=0.1)


def test_long_items_travel_one_by_one():
    farm = Farm(a=2)
    feed = farm.feed(50)

    assert set(run_feed(farm, feed, lambda count: count * 0.5)) == {1}


def test_no_batch_is_above_an_even_share_of_what_is_left():
    farm = Farm(a=4)
    feed = farm.feed(40)
    feed.measured(1, 1e-3)
    feed.measured(1000, 1.0)

    sizes = batch_sizes(farm)

    assert sizes[0] == 5
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) < 40


def test_an_explicit_chunksize_is_obeyed():
    farm = Farm(a=2)
    feed = farm.feed(1003, chunksize=100)

    assert run_feed(farm, feed, lambda count: count * 1.0) == [100] * 10 + [3]


def test_a_map_feeds_several_servers_as_deeply_as_one():
    farm = Farm(a=2, b=2)
    for name in "ab":
        farm.learn(name, 0.001)
    farm.feed(1000, chunksize=1)

    assert {name: len(tasks) for name, tasks in farm.fill()} == {"a": 42, "b": 42}


def test_batches_that_still_grow_are_not_sent_ahead_by_the_hundred():
    farm = Farm(a=2)
    feed = farm.feed(1_000_000)
    for _ in range(10):
        task = sent_to(farm.a)[0] if farm.a.inflight else None
        if task is not None:
            farm.done(task, seconds=1e-6 * task.count)
            feed.measured(task.count, 1e-6 * task.count)
        farm.fill()

        assert len(farm.a.inflight) == 4


def test_large_items_make_small_batches():
    farm = Farm(a=1)
    feed = farm.feed(1000)
    ((_, tasks),) = farm.fill()
    for task in tasks:
        farm.scheduler.packed(task, 16 * 1024)
    assert farm.a.bytes == 2 * 16 * 1024

    farm.done(tasks[0], seconds=1e-4)
    feed.measured(1, 1e-4)
    feed.measured(100, 1e-2)

    ((_, (batch, *_)),) = farm.fill()
    assert batch.count == 8 == BATCH_BYTES // (16 * 1024)
    assert batch.size == BATCH_BYTES  # until it is packed, as the last was
    farm.scheduler.packed(batch, 5)
    assert batch.size == 5
    farm.scheduler.check()


def test_large_results_make_small_batches():
    farm = Farm(a=1)
    feed = farm.feed(1000)
    ((_, (task, *_)),) = farm.fill()

    farm.done(task, seconds=1e-4)
    feed.measured(1, 1e-4, 16 * 1024)
    feed.measured(100, 1e-2, 100 * 16 * 1024)

    ((_, (batch, *_)),) = farm.fill()
    assert batch.count == 8


def test_batches_that_are_not_packed_yet_count_as_large_as_those_before():
    farm = Farm(a=2)
    feed = farm.feed(1000)
    ((_, tasks),) = farm.fill()
    for task in tasks:
        farm.scheduler.packed(task, MOST_BYTES // 2)
    farm.done(*tasks, seconds=0.001)
    feed.measured(1, 0.001)

    assert batch_sizes(farm) == [1, 1]


def test_a_task_may_prove_larger_than_it_was_said_to_be():
    farm = Farm(a=1)
    task = farm.submit("t", size=5)
    farm.fill()

    farm.scheduler.packed(task, 50)

    assert farm.a.bytes == 50


def test_a_batch_that_was_lost_before_it_was_packed_is_as_large_as_it_proves():
    farm = Farm(a=1)
    farm.feed(10)
    ((_, (task, _)),) = farm.fill()
    farm.scheduler.server_lost(farm.a)

    farm.scheduler.packed(task, 77)
    farm.up("b", 1)
    farm.fill()

    assert task.server is farm.b
    assert farm.b.bytes == 77


def test_a_feed_that_gets_more_items_is_cut_again():
    farm = Farm(a=1)
    feed = farm.feed(1)
    ((_, (first,)),) = farm.fill()
    assert farm.scheduler.unsettled == 1

    farm.scheduler.offer(feed, 0)
    assert farm.scheduler.unsettled == 1
    farm.scheduler.offer(feed, 1)
    farm.scheduler.offer(feed, 1)

    ((_, (second,)),) = farm.fill()
    assert (second.first, second.count) == (1, 1)
    farm.done(first, second)
    ((_, (third,)),) = farm.fill()
    assert (third.first, third.count) == (2, 1)


def test_a_closed_feed_is_cut_no_more():
    farm = Farm(a=1)
    feed = farm.feed(10)
    ((_, batches),) = farm.fill()

    assert farm.scheduler.close_feed(feed) == batches
    assert farm.scheduler.unsettled == 2
    farm.scheduler.check()
    farm.scheduler.offer(feed, 10)
    farm.done(*batches)

    assert farm.fill() == []
    assert farm.scheduler.unsettled == 0


def test_closing_a_feed_that_is_over_does_nothing():
    farm = Farm(a=1)
    feed = farm.feed(2)
    other = farm.submit("other", priority=1)
    ((_, (_, first)),) = farm.fill()
    farm.done(first)
    ((_, (last,)),) = farm.fill()
    farm.done(last)

    assert farm.scheduler.close_feed(feed) == []
    farm.done(other)
    assert farm.scheduler.unsettled == 0


def test_no_batch_of_a_closed_feed_is_sent_again():
    farm = Farm(a=1)
    feed = farm.feed(10)
    ((_, (first, second)),) = farm.fill()
    farm.give_back(farm.a, second)
    farm.scheduler.begun(farm.a, [first.id])
    assert farm.scheduler.unsettled == 3

    assert farm.scheduler.close_feed(feed) == [first]  # second waits here
    farm.scheduler.check()
    assert second.state is TaskState.SETTLED
    assert farm.scheduler.unsettled == 1
    farm.scheduler.server_lost(farm.a)

    farm.up("b", 1)
    assert farm.fill() == []
    assert farm.scheduler.failures == [first]
    assert farm.scheduler.unsettled == 0


def test_a_batch_that_is_taken_back_or_lost_goes_out_again_before_later_ones():
    farm = Farm(a=1)
    feed = farm.feed(10)
    ((_, (first, second)),) = farm.fill()
    farm.give_back(farm.a, second)
    farm.scheduler.server_lost(farm.a)
    assert feed.returned == {first, second}

    farm.up("b", 2)

    ((_, batches),) = farm.fill()
    assert batches[:2] == [first, second]
    assert [batch.first for batch in batches] == [0, 1, 2, 3]
    assert feed.returned == set()


def test_a_batch_that_was_settled_can_be_tried_once_more():
    """As when a server lacked a module: it goes out again, by value."""
    farm = Farm(a=1)
    farm.feed(1)
    ((_, (batch,)),) = farm.fill()
    farm.done(batch)

    batch.id, batch.state, batch.body = farm.scheduler.next_id(), TaskState.QUEUED, None
    farm.scheduler.submit(batch)
    farm.scheduler.check()

    assert farm.fill() == [("a", [batch])]
    farm.done(batch)
    assert farm.scheduler.unsettled == 0


def test_a_batch_that_waits_again_can_be_dropped():
    farm = Farm(a=1)
    feed = farm.feed(2)
    ((_, (first, second)),) = farm.fill()
    farm.give_back(farm.a, second)

    assert farm.scheduler.drop(second)
    farm.scheduler.check()

    farm.done(first)
    assert (feed.open_batches, farm.scheduler.unsettled) == (0, 0)
    assert names([first]) == [None]


# ------------------------------------------------------------------- parked, and elsewhere


class Tried:
    def __init__(self, avoid):
        self.avoid = avoid
        self.tries = 1


def test_a_parked_task_takes_no_slot_and_counts():
    farm = Farm(a=1)
    parked = farm.task("parked")
    farm.scheduler.park(parked)
    farm.submit("other")

    assert [[task.name for task in tasks] for _, tasks in farm.fill()] == [["other"]]
    assert farm.scheduler.unsettled == 2
    farm.scheduler.unpark(parked)
    farm.scheduler.check()
    farm.scheduler.unpark(parked)  # once more: it is in the queue only once
    assert len(farm.scheduler.queue) == 1 or parked.state is TaskState.SENT


def test_a_settled_task_that_is_parked_is_a_new_attempt():
    farm = Farm(a=1)
    task = farm.submit("t")
    farm.fill()
    before = task.id
    farm.scheduler.ended(farm.a, task.id)

    farm.scheduler.park(task)
    farm.scheduler.check()

    assert (task.state, task.posted) == (TaskState.QUEUED, False)
    assert task.id != before
    assert farm.scheduler.drop(task)
    farm.scheduler.check()
    assert not farm.scheduler.parked


def test_what_is_parked_is_dropped_with_all_that_waits():
    farm = Farm()
    parked, queued = farm.task("parked"), farm.submit("queued")
    farm.scheduler.park(parked)

    assert set(farm.scheduler.drop_queued()) == {parked, queued}
    farm.scheduler.check()
    assert farm.scheduler.unsettled == 0


def test_batches_of_a_closed_map_are_neither_parked_nor_queued():
    farm = Farm(a=1)
    feed = farm.feed(3, chunksize=1)
    farm.fill()
    scheduler = farm.scheduler
    parked = feed.batch(scheduler.next_id(), 0, [1], 1)
    scheduler.park(parked)
    scheduler.check()
    scheduler.close_feed(feed)
    scheduler.check()
    assert parked.state is TaskState.SETTLED
    late = [feed.batch(scheduler.next_id(), 0, [1], 1) for _ in range(2)]
    scheduler.park(late[0])
    scheduler.submit(late[1])

    scheduler.check()
    assert {task.state for task in late} == {TaskState.SETTLED}


def test_the_next_try_is_elsewhere_where_there_is_room():
    farm = Farm(a=2, b=2)
    task = farm.task("again")
    task.retrying = Tried(farm.a)
    farm.scheduler.submit(task)

    assert [name for name, _ in farm.fill()] == ["b"]


def test_where_there_is_no_elsewhere_it_is_where_it_was():
    farm = Farm(a=1)
    alone = farm.task("again")
    alone.retrying = Tried(farm.a)
    farm.scheduler.submit(alone)
    assert [name for name, _ in farm.fill()] == ["a"]

    farm = Farm(a=1, b=1)
    farm.b.draining = True
    again = farm.task("again")
    again.retrying = Tried(farm.a)
    farm.scheduler.submit(again)
    assert [name for name, _ in farm.fill()] == ["a"]


def test_tasks_that_go_elsewhere_keep_nobody_waiting():
    farm = Farm(a=1, b=1)
    tasks = [farm.task(f"t{i}") for i in range(40)]
    for index, task in enumerate(tasks):
        if index % 2:
            task.retrying = Tried(farm.a)
        farm.scheduler.submit(task)
    sent = set()
    while len(sent) < len(tasks):
        for name, batch in farm.fill():
            sent.update(batch)
            farm.scheduler.done(farm.scheduler.servers[name], [each.id for each in batch], 0.001)

    farm.scheduler.check()
    assert farm.scheduler.unsettled == 0


def test_tasks_that_wait_for_tasks_of_their_own_leave_their_slots_to_these():
    scheduler = Scheduler()
    server = scheduler.add_server("nested", "nested")
    scheduler.server_up(server, 1)
    server.seconds = 10.0
    server.measure()
    for _ in range(3):
        scheduler.submit(Task(scheduler.next_id(), None, None, b""))
    (found,) = scheduler.fill(0.0)
    held = len(found[1])
    assert not scheduler.fill(0.0)

    scheduler.lend(server, 1)
    assert scheduler.idle_slots == (1 if held == 1 else 0)
    (found,) = scheduler.fill(0.0)
    assert len(found[1]) == 1
    scheduler.check()

    scheduler.lend(server, -1)
    assert not scheduler.fill(0.0)
    scheduler.lend(server, 1)
    scheduler.server_lost(server)
    assert server.lent == 0
    scheduler.check()


def test_a_server_that_drains_gets_nothing_more_until_it_has_been_lost_and_is_back():
    farm = Farm(a=1, b=1)
    farm.submit("one", "two", "three", "four")
    farm.fill()
    farm.scheduler.server_drains(farm.a)

    assert farm.a.room() == 0
    farm.submit("five")
    assert all(server is not farm.a for server, _ in farm.fill())
    farm.scheduler.server_lost(farm.a)
    farm.scheduler.server_up(farm.a, 1)
    assert farm.a.room() > 0
    farm.scheduler.check()
