"""Views with options, kill, categories, broadcast, status, and farms that change."""

from __future__ import annotations

import collections
import pickle
import threading
import time
from concurrent import futures

import pytest

from remote_executor import FarmExecutor, NoServerError, TaskKilled, TaskTimeout, start_server
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)


@pytest.fixture(params=["embedded", "remote"])
def own(request, addresses):
    """Return an executor with two workers whose workers may be killed."""
    if request.param == "embedded":
        with FarmExecutor(2) as executor:
            yield executor
    else:
        with FarmExecutor(addresses=addresses) as executor:
            executor.wait_for_workers(2, LIMIT)
            yield executor


@pytest.fixture
def hold(farm, tmp_path):
    """Return a function that keeps workers busy until the test ends or calls release()."""
    mark_to_go = tmp_path / "release-all"
    holding = []

    class Hold:
        def __call__(self, count=2, through=farm):
            marks = [tmp_path / f"held{len(holding) + i}" for i in range(count)]
            holding.extend(through.submit(tasks.hold, mark, mark_to_go) for mark in marks)
            wait_until(lambda: all(mark.exists() for mark in marks), 20)

        release = staticmethod(mark_to_go.touch)

    yield Hold()
    mark_to_go.touch()
    futures.wait(holding, LIMIT)


# -- views


def test_a_view_is_an_executor(farm):
    view = farm.options(priority="low", category="etl", retries=0, name="load")

    assert isinstance(view, futures.Executor)
    assert view.submit(pow, 2, 5).result(LIMIT) == 32
    assert list(view.map(tasks.square, range(5))) == [0, 1, 4, 9, 16]
    assert view._max_workers == farm._max_workers


def test_options_are_checked(farm):
    with pytest.raises(TypeError):
        farm.options(colour="red")
    with pytest.raises((TypeError, ValueError)):
        farm.options(retries=-1)
    with pytest.raises((TypeError, ValueError)):
        farm.options(timeout=-1)
    with pytest.raises((TypeError, ValueError)):
        farm.options(priority="urgentest")


def test_options_add_up(own, tmp_path):
    view = own.options(category="a", name="first").options(name="second")
    running = view.submit(tasks.spin, tmp_path / "started")
    wait_until(running.running, 20)

    assert own.kill_tasks("a") == 1
    assert "second" in str(running.exception(LIMIT))


def test_options_never_ride_in_keywords(farm):
    args, kwargs = farm.options(timeout=5).submit(tasks.echo, timeout=1, priority=2).result(LIMIT)

    assert (args, kwargs) == ((), {"timeout": 1, "priority": 2})


def test_the_name_is_in_the_error(own):
    error = own.options(name="the heavy one").submit(tasks.die, 3).exception(LIMIT)

    assert "the heavy one" in str(error)


def test_low_priority_waits_for_normal(tmp_path):
    """K51, P16: also for what came later."""
    path, release = tmp_path / "order", tmp_path / "release"
    with FarmExecutor(1) as executor:
        held = executor.submit(tasks.hold, tmp_path / "held", release)
        wait_until((tmp_path / "held").exists, 20)
        for priority in ("low", "normal", "high"):
            view = executor.options(priority=priority)
            found = [view.submit(tasks.record, path, priority) for _ in range(20)]
        release.touch()
        futures.wait([held, *found], LIMIT)

    order = path.read_text().split()
    assert collections.Counter(order) == {"low": 20, "normal": 20, "high": 20}
    # What was sent ahead before the others came is not called back: one or two.
    assert order[-17:] == ["low"] * 17
    assert "normal" not in order[:18]


def test_views_share_fairly(tmp_path):
    """A view that comes later does not wait for all of a view that came first."""
    path, release = tmp_path / "order", tmp_path / "release"
    with FarmExecutor(1) as executor:
        held = executor.submit(tasks.hold, tmp_path / "held", release)
        wait_until((tmp_path / "held").exists, 20)
        first, second = executor.options(name="first"), executor.options(name="second")
        many = [first.submit(tasks.record, path, "first") for _ in range(200)]
        few = [second.submit(tasks.record, path, "second") for _ in range(10)]
        release.touch()
        futures.wait([held, *many, *few], LIMIT)

    order = path.read_text().split()
    assert "second" not in order[40:]


def test_timeout_stops_a_running_task(own, tmp_path):
    """A tight loop is ended with its worker; the error is concurrent.futures' own TimeoutError."""
    view = own.options(timeout=0.3, name="loop")
    start = time.monotonic()
    error = view.submit(tasks.spin, tmp_path / "started").exception(LIMIT)
    took = time.monotonic() - start

    assert isinstance(error, futures.TimeoutError)
    assert isinstance(error, TaskTimeout)
    assert error.timeout == 0.3
    assert "loop" in str(error)
    assert 0.3 <= took < scaled(5)
    assert own.submit(pow, 2, 3).result(LIMIT) == 8


def test_timeout_counts_from_the_beginning_of_the_run(farm, hold):
    """Time in the queue does not count."""
    hold(2)
    waiting = farm.options(timeout=0.3).submit(tasks.nap, 0.05, "in time")
    with pytest.raises(futures.TimeoutError):
        waiting.result(0.6)
    hold.release()

    assert waiting.result(LIMIT) == "in time"


# -- broadcast


def test_broadcast_has_the_timeout_and_the_name_of_its_view(own, tmp_path):
    view = own.options(timeout=0.3, name="loop")

    with pytest.raises(TaskTimeout, match="loop") as found:
        view.broadcast(tasks.spin, tmp_path / "started")

    assert found.value.timeout == 0.3
    assert view.broadcast(abs, -3) == [3, 3]
    assert own.submit(pow, 2, 3).result(LIMIT) == 8


def test_a_broadcast_of_low_priority_lets_what_is_more_urgent_go_first(tmp_path):
    with FarmExecutor(1) as executor:
        executor.submit(tasks.hold, tmp_path / "started", tmp_path / "release")
        wait_until((tmp_path / "started").exists, 20)
        for number in range(40):
            executor.submit(tasks.record_and_nap, tmp_path / "ran", number, 0.02)
        calls = [
            threading.Thread(
                target=executor.options(priority=priority).broadcast,
                args=(tasks.record, tmp_path / "ran", priority),
            )
            for priority in ("low", "high")
        ]
        for call in calls:
            call.start()
        wait_until(lambda: executor._driver._broadcasts, 20)
        (tmp_path / "release").touch()
        for call in calls:
            call.join(LIMIT)
    ran = (tmp_path / "ran").read_text().split()

    assert sorted(ran) == sorted([*map(str, range(40)), "low", "high"])
    assert ran.index("high") < 10
    assert ran.index("low") > 30


def test_a_broadcast_that_waits_ends_with_the_executor(tmp_path):
    executor = FarmExecutor(1)
    executor.submit(tasks.hold, tmp_path / "started", tmp_path / "release")
    wait_until((tmp_path / "started").exists, 20)
    queued = [executor.submit(abs, number) for number in range(40)]
    errors = []

    def call():
        try:
            executor.options(priority="low").broadcast(abs, 1)
        except RuntimeError as exc:
            errors.append(exc)

    thread = threading.Thread(target=call)
    thread.start()
    wait_until(lambda: executor._driver._broadcasts, 20)
    executor.terminate_workers()
    thread.join(LIMIT)

    assert "shutdown" in str(errors[0])
    assert futures.wait(queued, LIMIT).not_done == set()


# -- kill


def test_kill_one_future(own, tmp_path):
    """K54: a tight loop dies; its future tells; the next task runs."""
    running = own.submit(tasks.spin, tmp_path / "started")
    wait_until((tmp_path / "started").exists, 20)

    assert own.kill(running)

    error = running.exception(LIMIT)
    assert isinstance(error, TaskKilled)
    assert isinstance(error, futures.BrokenExecutor)
    assert error.pid
    assert pickle.loads(pickle.dumps(error)).pid == error.pid
    assert own.submit(pow, 2, 3).result(LIMIT) == 8
    assert not own.kill(running)


def test_kill_a_future_that_waits(farm, hold, tmp_path):
    hold(2)
    path = tmp_path / "ran"
    waiting = [farm.submit(tasks.record, path, i) for i in range(10)]

    assert farm.kill(waiting[-1])

    assert isinstance(waiting[-1].exception(LIMIT), TaskKilled)
    hold.release()
    assert [future.result(LIMIT) for future in waiting[:-1]] == [*range(9)]
    assert "9" not in path.read_text().split()


def test_many_are_cancelled_at_once(farm, hold, tmp_path):
    """What waits at the client, and what waits at a server already; what runs goes on."""
    hold()
    waiting = [farm.submit(tasks.append, tmp_path / "ran", str(i)) for i in range(500)]
    farm.cancel_all(waiting)
    running = farm.submit(tasks.square, 3)

    assert futures.wait(waiting, LIMIT).not_done == set()
    hold.release()
    assert all(future.cancelled() for future in waiting)
    assert running.result(LIMIT) == 9
    farm.cancel_all([*waiting, running])  # it is over, and stays as it is
    assert running.result() == 9
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="not a future of this executor"):
        farm.cancel_all([futures.Future()])


def test_kill_a_future_of_another_executor(farm):
    with pytest.raises(ValueError, match="future"):
        farm.kill(futures.Future())


@pytest.mark.parametrize("category", ["sleeper", 999, ("a", 1)], ids=str)
def test_kill_tasks(own, category, tmp_path):
    """K35, K37, K38, K39, K53, K89: what sleeps and what loops, and not what waits."""
    marks = [tmp_path / "a", tmp_path / "b"]
    view = own.options(category=category)
    running = [view.submit(tasks.spin, marks[0]), view.submit(tasks.block_signals, marks[1])]
    wait_until(lambda: all(mark.exists() for mark in marks), 20)
    wait_until(lambda: all(future.running() for future in running))
    survivors = [view.submit(tasks.same, f"survived {i}") for i in range(3)]

    assert own.kill_tasks(category, dry_run=True) == 2
    assert own.kill_tasks("no such category") == 0
    assert own.kill_tasks(category) == 2

    assert all(isinstance(future.exception(LIMIT), TaskKilled) for future in running)
    assert [future.result(LIMIT) for future in survivors] == [f"survived {i}" for i in range(3)]
    # K36: the slots are free again, under no category.
    wait_until(lambda: not any(own.task_categories_running()))
    assert len(own.broadcast(tasks.pid)) == 2


def test_kill_the_default_category(own, tmp_path):
    """K54, K89: two tight endless loops die, ``survived`` does not; through TCP as well (K55)."""
    marks = [tmp_path / "a", tmp_path / "b"]
    running = [own.submit(tasks.spin, mark) for mark in marks]
    wait_until(lambda: all(future.running() for future in running), 20)
    waiting = own.submit(tasks.same, "survived")

    assert own.kill_tasks("default") == 2

    assert all(isinstance(future.exception(LIMIT), TaskKilled) for future in running)
    assert waiting.result(LIMIT) == "survived"


def test_kill_tasks_of_no_category_is_refused(farm):
    """K94."""
    with pytest.raises(ValueError, match="category"):
        farm.kill_tasks(None)


def test_a_task_that_catches_everything_is_killed(own, tmp_path):
    """K54: no cooperation is needed."""
    running = own.submit(tasks.spin_and_catch, tmp_path / "started")
    wait_until((tmp_path / "started").exists, 20)

    assert own.kill(running)
    assert isinstance(running.exception(LIMIT), TaskKilled)


def test_a_client_cannot_kill_anothers_tasks(server, tmp_path):
    """K40, K62: the same category at another client is another one."""
    with (
        FarmExecutor(addresses=[server.address]) as mine,
        FarmExecutor(addresses=[server.address]) as theirs,
    ):
        release = tmp_path / "release"
        other = theirs.options(category="x").submit(
            tasks.hold, tmp_path / "theirs", release, "unharmed"
        )
        running = mine.options(category="x").submit(tasks.spin, tmp_path / "mine")
        wait_until(lambda: running.running() and other.running(), 20)

        assert mine.kill_tasks("x") == 1
        assert isinstance(running.exception(LIMIT), TaskKilled)
        release.touch()
        assert other.result(LIMIT) == "unharmed"


def test_kill_while_a_server_is_away(serve, tmp_path, caplog):
    """K41: what cannot be reached is a warning, the others are still told."""
    here, away = serve(workers=1), serve(workers=1)
    with FarmExecutor(addresses=[here.address, away.address], session_grace=1) as executor:
        executor.wait_for_workers(2, LIMIT)
        marks = [tmp_path / "a", tmp_path / "b"]
        view = executor.options(category="x", retries=0)
        running = [view.submit(tasks.spin, mark) for mark in marks]
        wait_until(lambda: all(future.running() for future in running), 20)
        away.kill()

        assert executor.kill_tasks("x") in (1, 2)

        errors = [future.exception(LIMIT) for future in running]
        assert any(isinstance(error, TaskKilled) for error in errors)
        assert all(isinstance(error, futures.BrokenExecutor) for error in errors)


def test_a_task_ends_its_own_worker(own):
    """K95: by its own process id."""
    error = own.submit(tasks.kill_self).exception(LIMIT)

    assert isinstance(error, futures.BrokenExecutor)
    assert own.submit(pow, 2, 3).result(LIMIT) == 8


# -- categories


def test_categories_that_run(farm, hold):
    """K52, K53, K83: one entry a worker; true only where something runs."""
    wait_until(lambda: not any(farm.task_categories_running()))
    assert len(farm.task_categories_running()) == 2

    hold(1)
    wait_until(lambda: sorted(map(str, farm.task_categories_running())) == ["None", "default"])
    hold(1, farm.options(category=999))
    wait_until(lambda: sorted(map(str, farm.task_categories_running())) == ["999", "default"])
    hold.release()
    wait_until(lambda: not any(farm.task_categories_running()))


# -- broadcast


def test_broadcast_runs_once_in_each_worker(farm):
    """K25: and not at the client."""
    import os

    found = farm.broadcast(tasks.pid)

    assert len(found) == len(set(found)) == 2
    assert os.getpid() not in found
    assert farm.broadcast(tasks.add, 2, 3) == [5, 5]
    assert farm.broadcast(lambda x: x * 2, 4) == [8, 8]


def test_broadcast_waits_for_busy_workers(farm, tmp_path):
    """K26: exactly once each, when one is busy with a long task and the other is idle."""
    release, path = tmp_path / "release", tmp_path / "ran"
    busy = farm.submit(tasks.hold, tmp_path / "started", release)
    wait_until((tmp_path / "started").exists, 20)
    found = []
    thread = threading.Thread(
        target=lambda: found.extend(farm.broadcast(lambda: tasks.record(path, tasks.pid())))
    )
    thread.start()
    wait_until(lambda: path.exists() and len(path.read_text().split()) == 1, 20)
    release.touch()
    thread.join(LIMIT)
    busy.result(LIMIT)

    assert len(found) == 2
    assert sorted(map(str, found)) == sorted(set(path.read_text().split()))


def test_broadcast_with_a_failing_worker(farm):
    """K27: all results are taken in first, then the first error is raised."""
    first = min(farm.broadcast(tasks.pid))

    def fail_at_one(where):
        import os

        if os.getpid() == where:
            raise LookupError("this one")
        return "fine"

    with pytest.raises(LookupError, match="this one"):
        farm.broadcast(fail_at_one, first)
    assert farm.broadcast(fail_at_one, 0) == ["fine"] * 2
    assert [farm.submit(tasks.same, i).result(LIMIT) for i in range(10)] == [*range(10)]


def test_state_set_by_broadcast_stays(farm):
    """K98: also with tasks before and behind it."""
    before = [farm.submit(tasks.same, i) for i in range(1000)]
    pids = farm.broadcast(tasks.set_state_and_pid, "number", 99)
    after = [farm.submit(tasks.get_state_and_pid, "number") for _ in range(1000)]

    assert [future.result(LIMIT) for future in before] == [*range(1000)]
    seen = {future.result(LIMIT) for future in after}
    assert seen <= {(pid, 99) for pid in pids}
    assert farm.broadcast(tasks.get_state, "number") == [99, 99]
    farm.broadcast(tasks.set_state, "number", None)


def test_broadcast_errors(farm):
    """K99: not a function; an error in it; and from inside a worker: an error, no deadlock."""
    with pytest.raises(TypeError, match="callable"):
        farm.broadcast(99)
    with pytest.raises(RuntimeError, match="foo"):
        farm.broadcast(tasks.fail, "foo")
    with pytest.raises(Exception, match=r"(?i)executor|pickle"):
        farm.submit(lambda: farm.broadcast(tasks.pid)).result(LIMIT)
    with FarmExecutor(1) as ended:
        pass
    with pytest.raises(RuntimeError, match="shutdown"):
        ended.broadcast(tasks.pid)


def test_worker_index(farm):
    """K100: none at the client, 0 to n-1 in the workers."""
    from remote_executor import worker_index

    assert worker_index() is None
    assert sorted(farm.broadcast(worker_index)) == [0, 1]


# -- status, and farms that change


def test_status_is_frozen_and_cheap(farm):
    status = farm.status()

    with pytest.raises(AttributeError):
        status.queued = 1
    assert repr(status)
    start = time.thread_time()
    for _ in range(1000):
        farm.status()
    assert time.thread_time() - start < scaled(0.3)


def test_add_and_remove_servers(serve, tmp_path):
    """Work moves to a server that is added; one that is removed ends what it has."""
    one, two = serve(workers=1), serve(workers=1)
    with FarmExecutor(addresses=[one.address]) as executor:
        executor.wait_for_workers(1, LIMIT)
        first = executor.submit(tasks.pid).result(LIMIT)
        executor.add_server(two.address)
        executor.wait_for_workers(2, LIMIT)
        assert executor._max_workers == 2
        assert len(set(executor.broadcast(tasks.pid))) == 2

        release = tmp_path / "release"
        marks = [tmp_path / "a", tmp_path / "b"]
        held = [executor.submit(tasks.hold, mark, release, "held") for mark in marks]
        wait_until(lambda: all(mark.exists() for mark in marks), 20)
        remover = threading.Thread(target=executor.remove_server, args=(one.address,))
        remover.start()
        release.touch()
        remover.join(LIMIT)

        assert [future.result(LIMIT) for future in held] == ["held"] * 2
        wait_until(lambda: executor._max_workers == 1)
        assert executor.submit(tasks.pid).result(LIMIT) != first


def test_remove_a_server_at_once(serve, tmp_path):
    """Without draining, its tasks run on another one."""
    one, two = serve(workers=1), serve(workers=1)
    with FarmExecutor(addresses=[one.address, two.address]) as executor:
        executor.wait_for_workers(2, LIMIT)
        release = tmp_path / "release"
        marks = [tmp_path / "a", tmp_path / "b"]
        held = [executor.submit(tasks.hold, mark, release, "held") for mark in marks]
        wait_until(lambda: all(mark.exists() for mark in marks), 20)

        executor.remove_server(one.address, drain=False)
        release.touch()

        assert [future.result(LIMIT) for future in held] == ["held"] * 2


def test_remove_a_server_that_is_not_there(farm):
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:1"):
        farm.remove_server("127.0.0.1:1")


def test_wait_for_workers(farm):
    farm.wait_for_workers(2, LIMIT)
    with pytest.raises(futures.TimeoutError):
        farm.wait_for_workers(3, 0.05)


def test_addresses_are_checked_before_any_connect():
    """K67: ports, brackets, hosts; a ValueError at once."""
    for bad in ["h:70000", "h:-1", "h:x", "::1", ":5", ("h", 70000), ("h",), (5, 5), 5, "unix:"]:
        with pytest.raises(ValueError, match="address"):
            FarmExecutor(addresses=[bad])


def test_public_names():
    """K101: what the package shows is what it means to show, and all of it is there."""
    import remote_executor

    assert sorted(remote_executor.__all__) == dir(remote_executor)
    assert [name for name in dir(remote_executor) if not hasattr(remote_executor, name)] == []
    with pytest.raises(AttributeError, match="no_such_name"):
        remote_executor.no_such_name  # noqa: B018


def test_a_server_that_comes_later_helps_where_all_had_refused():
    with (
        start_server(workers=1, auth="another one in words") as strict,
        start_server(workers=1) as kind,
    ):
        with FarmExecutor(addresses=[strict.address]) as executor:
            assert isinstance(executor.submit(abs, -1).exception(LIMIT), ConnectionError)
            with pytest.raises(ConnectionError):
                executor.submit(abs, -1)

            executor.add_server(kind.address)

            assert executor.submit(abs, -1).result(LIMIT) == 1


def test_without_the_last_server_that_takes_us_nothing_waits(caplog):
    with (
        start_server(workers=1, auth="another one in words") as strict,
        start_server(workers=1) as kind,
    ):
        with FarmExecutor(addresses=[strict.address, kind.address]) as executor:
            assert executor.submit(abs, -1).result(LIMIT) == 1
            wait_until(lambda: "refused" in {server.state for server in executor.status().servers})

            executor.remove_server(kind.address)

            wait_until(lambda: executor._driver.broken is not None)
            with pytest.raises(NoServerError, match="token"):
                executor.submit(abs, -1)
    assert "is not used" in caplog.text
