"""Workers, servers and clients that die; and that nothing of theirs stays behind."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import time
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool

import pytest

from remote_executor import FarmExecutor, ServerLost, WorkerDied
from tests.support import tasks
from tests.support.faults import alive, wait_gone
from tests.support.leaks import marked_processes
from tests.support.scale import scaled
from tests.support.waiting import wait_until

from .conftest import ServerProcess

LIMIT = scaled(20)
GONE = 5.0  # seconds within which what is orphaned must be gone, by promise

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture(scope="module")
def shared_server(_leak_baseline, tmp_path_factory):
    """Return a server for executors whose workers die: each has workers of its own there."""
    server = ServerProcess(tmp_path_factory.mktemp("server"), workers=2)
    yield server
    server.clean()


@pytest.fixture(params=["embedded", "remote"])
def own(request, shared_server):
    """Return an executor with two workers whose workers may die."""
    if request.param == "embedded":
        with FarmExecutor(2) as executor:
            yield executor
    else:
        with FarmExecutor(addresses=[shared_server.address]) as executor:
            executor.wait_for_workers(2, LIMIT)
            yield executor


def lines(path):
    return path.read_text().split() if path.exists() else []


# -- workers


def test_exit_under_a_task(own):
    """K86, P23: that task alone fails, with host, pid, exit code and last words."""
    others = [own.submit(tasks.same, i) for i in range(20)]
    error = own.options(name="the bad one").submit(tasks.die, 7, "last words\n").exception(LIMIT)

    assert isinstance(error, WorkerDied)
    assert isinstance(error, BrokenProcessPool)
    assert error.exitcode == 7
    assert error.pid
    assert error.host
    assert "last words" in error.stderr
    for words in ("the bad one", "exit code 7", str(error.pid)):
        assert words in str(error)
    assert pickle.loads(pickle.dumps(error)).exitcode == 7
    assert [future.result(LIMIT) for future in others] == [*range(20)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_signal_under_a_task(own, number):
    """K86, K95: the signal in words. SIGKILL is also how the kernel ends one that eats memory."""
    task = tasks.crash if number == signal.SIGSEGV else tasks.kill_self
    error = own.submit(task, *([] if task is tasks.crash else [number])).exception(LIMIT)

    assert isinstance(error, WorkerDied)
    assert error.exitcode == -number
    assert signal.Signals(number).name in str(error)
    assert own.submit(pow, 2, 3).result(LIMIT) == 8


def test_capacity_comes_back(own):
    """K87: after ten deaths there are two workers again."""
    before = set(own.broadcast(tasks.pid))
    dead = [own.submit(tasks.die, 3) for _ in range(10)]

    assert all(isinstance(future.exception(LIMIT), WorkerDied) for future in dead)
    after = own.broadcast(tasks.pid)
    assert len(set(after)) == 2
    assert not before & set(after)
    assert own._max_workers == 2


def test_what_waits_behind_a_death_runs(own, tmp_path):
    """Tasks that the dead worker had not begun run elsewhere, once each."""
    path = tmp_path / "ran"
    dead = [own.submit(tasks.die, 3) for _ in range(2)]
    waiting = [own.submit(tasks.record, path, i) for i in range(50)]

    assert all(isinstance(future.exception(LIMIT), WorkerDied) for future in dead)
    assert [future.result(LIMIT) for future in waiting] == [*range(50)]
    assert sorted(map(int, lines(path))) == [*range(50)]


@pytest.mark.parametrize("count", [1, 2])
def test_idle_workers_killed_from_outside(own, count):
    """K88: one or all; no task is lost."""
    pids = own.broadcast(tasks.pid)
    for pid in pids[:count]:
        os.kill(pid, signal.SIGKILL)
    wait_gone(pids[:count])

    found = [own.submit(tasks.same, i) for i in range(20)]

    assert [future.result(LIMIT) for future in found] == [*range(20)]
    assert len(set(own.broadcast(tasks.pid))) == 2


def place(pid):
    """Return where in the kernel a process waits, as far as that is told."""
    with open(f"/proc/{pid}/wchan", encoding="ascii") as file:
        return file.read().strip("0")


@only_linux
def test_a_worker_waits_where_its_end_costs_nothing(own):
    """K88: not in a read, where a process that is killed may take the next task along."""
    for pid in own.broadcast(tasks.pid):
        try:
            wait_until(lambda pid=pid: place(pid), 2)
        except AssertionError:
            pytest.skip("this kernel does not tell where a process waits")
        wait_until(lambda pid=pid: "poll" in place(pid))


@only_linux
def test_kills_in_the_moment_of_a_submit(own, tmp_path):
    """K88: whoever dies idle has taken nothing along."""
    path = tmp_path / "ran"
    for number in range(8):
        pids = own.broadcast(tasks.pid)
        for pid in pids:
            with contextlib.suppress(AssertionError):  # where it is not told, it had the time
                wait_until(lambda pid=pid: place(pid), 0.05)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert own.submit(tasks.record, path, number).result(LIMIT) == number

    assert [*map(int, lines(path))] == [*range(8)]


def test_death_in_the_middle_of_a_map(own, tmp_path):
    """The item that did it raises; those before it have their results."""
    results = own.map(lambda i: os._exit(9) if i == 7 else i, range(20), chunksize=1)

    assert [next(results) for _ in range(7)] == [*range(7)]
    with pytest.raises(WorkerDied):
        next(results)
    assert list(own.map(tasks.same, range(20))) == [*range(20)]


def test_death_in_a_batch(own):
    """With several items to a batch, an item that was finished before is not lost."""
    found = []
    results = own.map(lambda i: os._exit(9) if i == 7 else i, range(20), chunksize=20)
    with pytest.raises(WorkerDied):
        found.extend(results)

    assert found == [*range(len(found))]
    assert own.submit(pow, 2, 3).result(LIMIT) == 8


def test_death_with_a_large_result_half_sent(own):
    """The rest never comes; the other results do."""

    def die_soon():
        import threading

        threading.Timer(0.01, os._exit, (6,)).start()
        return bytearray(64 << 20)

    bad = own.submit(die_soon)
    others = [own.submit(tasks.same, i) for i in range(10)]

    assert [future.result(LIMIT) for future in others] == [*range(10)]
    try:
        assert len(bad.result(LIMIT)) == 64 << 20
    except futures.BrokenExecutor:
        pass
    assert own.submit(pow, 2, 3).result(LIMIT) == 8


def test_stopped_worker_can_be_killed(own, tmp_path):
    """One that SIGSTOP holds, too."""
    running = own.submit(tasks.tell_and_hold, tmp_path / "pid", tmp_path / "never")
    wait_until((tmp_path / "pid").exists, 20)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGSTOP)

    assert own.kill(running)
    assert isinstance(running.exception(LIMIT), futures.BrokenExecutor)
    assert own.submit(pow, 2, 3).result(LIMIT) == 8


def test_retries_are_not_for_dead_workers(own, tmp_path):
    """A task that killed its worker is not tried again: it might kill them all."""
    error = own.submit(tasks.die_first, tmp_path, "late").exception(LIMIT)

    assert isinstance(error, WorkerDied)
    assert len(lines(tmp_path / "runs")) == 1


def test_dying_initializer():
    """K97: an executor whose workers cannot start breaks in bounded time."""
    with FarmExecutor(2, initializer=tasks.dying_initializer) as executor:
        future = executor.submit(abs, -1)

        assert isinstance(future.exception(LIMIT), BrokenProcessPool)


# -- servers


def test_lost_server(serve, tmp_path):
    """K58: its unfinished tasks run again on another one; what was finished does not."""
    one, two = serve(workers=1), serve(workers=1)
    path, release = tmp_path / "ran", tmp_path / "release"
    with FarmExecutor(addresses=[one.address, two.address], session_grace=1) as executor:
        executor.wait_for_workers(2, LIMIT)
        assert executor.submit(tasks.record, path, "finished").result(LIMIT) == "finished"
        held = [executor.submit(tasks.record_and_wait, path, i, release) for i in range(2)]
        wait_until(lambda: len(lines(path)) == 3, 20)
        one.kill()
        release.touch()

        assert [future.result(LIMIT) for future in held] == [0, 1]
        # At most one of the two ran a second time: the one that was there.
        ran = lines(path)
        assert ran.count("finished") == 1
        assert len(ran) == 4
        assert executor.submit(pow, 2, 3).result(LIMIT) == 8


def test_lost_server_at_most_once(serve, tmp_path):
    """K58: ``options(retries=0)`` runs nothing a second time."""
    one = serve(workers=1)
    with FarmExecutor(addresses=[one.address], session_grace=0.5) as executor:
        executor.wait_for_workers(1, LIMIT)
        mark = tmp_path / "started"
        once = executor.options(retries=0, name="precious").submit(tasks.spin, mark)
        wait_until(mark.exists, 20)
        one.kill()

        error = once.exception(LIMIT)

        assert isinstance(error, ServerLost)
        assert isinstance(error, futures.BrokenExecutor)
        assert error.servers == (one.address,)
        assert one.address in str(error)
        assert "precious" in str(error)
        executor.shutdown(wait=False, cancel_futures=True)


def test_server_lost_again_and_again(serve, tmp_path):
    """K58: after ``retries`` more tries the error names where it was lost, in order."""
    server = serve(workers=1)
    path = tmp_path / "ran"
    with FarmExecutor(addresses=[server.address], session_grace=0.5) as executor:
        executor.wait_for_workers(1, LIMIT)
        never = tmp_path / "never"
        future = executor.options(retries=1).submit(tasks.record_and_wait, path, "run", never)
        for run in (1, 2):
            wait_until(lambda run=run: len(lines(path)) == run, 20)
            server.kill()
            if run == 1:
                server.start()

        error = future.exception(LIMIT)

        assert isinstance(error, ServerLost)
        assert error.servers == (server.address,) * 2
        executor.shutdown(wait=False, cancel_futures=True)


def test_server_restarted_under_the_executor(serve, tmp_path):
    """K59: pending tasks run, and the executor needs no rebuilding."""
    server = serve(workers=1)
    with FarmExecutor(addresses=[server.address]) as executor:
        assert executor.submit(tasks.pid).result(LIMIT)
        server.kill()
        waiting = [executor.submit(tasks.same, i) for i in range(10)]
        server.start()

        assert [future.result(LIMIT) for future in waiting] == [*range(10)]
        assert executor.broadcast(tasks.same, 5) == [5]


@only_linux
@pytest.mark.parametrize("task", [tasks.spin, tasks.block_signals, tasks.spin_and_catch])
def test_workers_of_a_killed_server_end(serve, tmp_path, task):
    """Whatever they are busy with."""
    server = serve(workers=2)
    with FarmExecutor(addresses=[server.address], session_grace=0.2) as executor:
        pids = executor.broadcast(tasks.pid)
        marks = [tmp_path / "a", tmp_path / "b"]
        running = [executor.options(retries=0).submit(task, mark) for mark in marks]
        wait_until(lambda: all(mark.exists() for mark in marks), 20)
        server.kill()

        wait_gone(pids, GONE)
        assert all(isinstance(f.exception(LIMIT), futures.BrokenExecutor) for f in running)
        executor.shutdown(wait=False, cancel_futures=True)


def test_killed_embedded_server():
    """It does not leave the client hanging: tasks fail or run, in bounded time."""
    with FarmExecutor(1) as executor:
        _, parent = executor.submit(tasks.pids).result(LIMIT)
        server = embedded_server_of(executor, parent)
        os.kill(server, signal.SIGKILL)

        future = executor.submit(pow, 2, 3)
        error = future.exception(LIMIT)

        assert error is None or isinstance(error, futures.BrokenExecutor)


def embedded_server_of(executor, parent):
    """Return the child of this process that the worker's parent is, or descends from."""
    import psutil

    chain = [psutil.Process(parent), *psutil.Process(parent).parents()]
    ours = [process.pid for process in chain if process.ppid() == os.getpid()]
    assert len(ours) == 1
    return ours[0]


@only_linux
def test_terminated_server_leaves_nothing(serve, tmp_path):
    """SIGTERM: its workers and their children end with it."""
    server = serve(workers=2)
    with FarmExecutor(addresses=[server.address], session_grace=0.2) as executor:
        pids = [
            *executor.broadcast(tasks.pid),
            executor.submit(tasks.leave_grandchild, 60).result(),
        ]
        server.process.terminate()

        wait_gone([server.pid, *pids], GONE)
        executor.shutdown(wait=False, cancel_futures=True)


# -- clients

CLIENT = """
import os, signal, sys, time
from remote_executor import FarmExecutor
from tests.support import tasks

if __name__ == "__main__":
    folder = sys.argv[1]
    addresses = sys.argv[2:] or None
    grace = {"session_grace": 1} if addresses else {}
    executor = FarmExecutor(2, addresses=addresses, **grace)
    pids = executor.broadcast(tasks.pid)
    pids.append(executor.submit(tasks.leave_grandchild, 60).result())
    pids.append(executor.submit(tasks.leave_grandchild, 60, ignore_signals=True).result())
    pids.append(executor.submit(tasks.fork_grandchild, 60).result())
    tasks.append(os.path.join(folder, "pids"), " ".join(map(str, pids)))
    executor.submit(tasks.spin, os.path.join(folder, "a"))
    executor.submit(tasks.block_signals, os.path.join(folder, "b"))
    tasks.wait_for(os.path.join(folder, "a"))
    tasks.wait_for(os.path.join(folder, "b"))
    END
"""

ENDS = {
    "killed": "time.sleep(60)",
    "killed by itself": "os.kill(os.getpid(), signal.SIGKILL)",
    "os._exit": "os._exit(3)",
    "terminated": "time.sleep(60)",
}


@only_linux
@pytest.mark.parametrize("end", ENDS)
def test_end_of_a_client_with_an_embedded_server(start_script, tmp_path, end):
    """However it ends, nothing is left 5 s later, grandchildren included."""
    others = marked_processes()
    script = start_script(CLIENT.replace("END", ENDS[end]), args=[tmp_path])
    _wait_busy(script, tmp_path)
    pids = list(map(int, lines(tmp_path / "pids")))
    assert len(pids) == 5
    if end == "killed":
        script.process.kill()
    elif end == "terminated":
        script.process.terminate()
    script.process.wait(scaled(10))

    wait_gone(pids, GONE)
    wait_until(lambda: marked_processes() <= others, GONE)


def _wait_busy(script, folder):
    def busy():
        if script.process.poll() is not None and not (folder / "b").exists():
            raise AssertionError(script.process.communicate())
        return (folder / "a").exists() and (folder / "b").exists()

    wait_until(busy, 20)


@only_linux
def test_killed_client_of_a_server(serve, start_script, tmp_path):
    """After the grace its session's workers end, grandchildren included; the server lives."""
    server = serve(workers=2)
    script = start_script(CLIENT.replace("END", "time.sleep(60)"), args=[tmp_path, server.address])
    _wait_busy(script, tmp_path)
    pids = list(map(int, lines(tmp_path / "pids")))
    script.process.kill()
    script.process.wait(scaled(10))

    wait_gone(pids, 1 + GONE)
    assert alive(server.pid)
    with FarmExecutor(addresses=[server.address]) as executor:
        assert executor.submit(pow, 2, 3).result(LIMIT) == 8


@only_linux
def test_client_that_ends_well_leaves_nothing(run_script, tmp_path):
    """Its workers' children included."""
    others = marked_processes()
    code, out, err = run_script(
        """
from remote_executor import FarmExecutor
from tests.support import tasks

if __name__ == "__main__":
    with FarmExecutor(2) as executor:
        executor.submit(tasks.leave_grandchild, 60).result(20)
        executor.submit(tasks.fork_grandchild, 60).result(20)
"""
    )

    assert (code, out, err) == (0, "", "")
    wait_until(lambda: marked_processes() <= others, GONE)


@only_linux
def test_stopped_client_is_not_dead(serve, start_script, tmp_path):
    """A client that SIGSTOP holds for less than the grace goes on where it was."""
    server = serve(workers=1)
    script = start_script(
        """
import sys
from remote_executor import FarmExecutor
from tests.support import tasks

if __name__ == "__main__":
    with FarmExecutor(addresses=[sys.argv[1]]) as executor:
        future = executor.submit(tasks.hold, sys.argv[2] + "/started", sys.argv[2] + "/go", "ok")
        print(future.result(30))
""",
        args=[server.address, tmp_path],
    )
    wait_until((tmp_path / "started").exists, 20)
    script.process.send_signal(signal.SIGSTOP)
    with FarmExecutor(addresses=[server.address]) as other:
        (tmp_path / "go").touch()
        assert other.submit(pow, 2, 3).result(LIMIT) == 8
    script.process.send_signal(signal.SIGCONT)

    assert script.finish() == (0, "ok\n", "")


@pytest.mark.linux("only a subreaper tells whose daemon it is")
def test_a_daemon_of_a_living_worker_outlives_the_others(tmp_path):
    """It ends with the worker that made it, not with one next to it."""

    def leave_daemon():
        read, write = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(write, str(os.getpid()).encode())
                time.sleep(60)
            os._exit(0)
        os.wait()
        return os.getpid(), int(os.read(read, 100))

    with FarmExecutor(2) as executor:
        worker, daemon = executor.submit(leave_daemon).result(LIMIT)
        places = [tmp_path / "a", tmp_path / "b"]
        release = tmp_path / "release"
        held = [executor.submit(tasks.tell_and_hold, place, release) for place in places]
        wait_until(lambda: all(place.exists() for place in places), 20)
        pids = [int(place.read_text()) for place in places]
        (other,) = set(pids) - {worker}

        os.kill(other, signal.SIGKILL)

        with pytest.raises(WorkerDied):
            held[pids.index(other)].result(LIMIT)
        release.touch()
        assert held[pids.index(worker)].result(LIMIT) == worker
        assert alive(daemon)
    wait_until(lambda: not alive(daemon), 5)
