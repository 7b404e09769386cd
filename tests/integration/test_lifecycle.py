"""Shutdown from anywhere, garbage, forks, Ctrl-C; and that nothing stays behind (K60)."""

from __future__ import annotations

import gc
import os
import queue
import signal
import subprocess
import threading
import time
import weakref
from concurrent import futures

import pytest

from remote_executor import FarmExecutor, InitializerFailed
from tests.support import tasks
from tests.support.leaks import marked_processes
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)

# Every test here runs under the leak check of tests/conftest.py: threads, descriptors, processes.


# -- shutdown


def test_submit_after_shutdown():
    """K56, K96: in the standard library's words, for everything that takes tasks."""
    with FarmExecutor(1) as executor:
        view = executor.options(priority="low")
    words = "cannot schedule new futures after shutdown"

    for take in (
        lambda: executor.submit(abs, 1),
        lambda: executor.map(abs, [1]),
        lambda: executor.starmap(abs, [(1,)]),
        lambda: executor.map_unordered(abs, [1]),
        lambda: executor.broadcast(abs, 1),
        lambda: view.submit(abs, 1),
        lambda: view.map(abs, [1]),
    ):
        with pytest.raises(RuntimeError, match=words):
            take()


def test_shutdown_twice():
    """K57, K96: also from two threads, with and without waiting."""
    executor = FarmExecutor(1)
    executor.submit(abs, 1).result(LIMIT)
    threads = [threading.Thread(target=executor.shutdown) for _ in range(3)]
    for thread in threads:
        thread.start()
    executor.shutdown(wait=False)
    executor.shutdown()
    for thread in threads:
        thread.join(LIMIT)

    assert not any(thread.is_alive() for thread in threads)


def test_shutdown_waits_for_what_runs(tmp_path):
    """K92: and nothing is left over."""
    executor = FarmExecutor(2)
    release = tmp_path / "release"
    running = executor.submit(tasks.hold, tmp_path / "started", release, "done")
    wait_until((tmp_path / "started").exists, 20)
    ending = threading.Thread(target=executor.shutdown)
    ending.start()
    ending.join(0.1)
    assert ending.is_alive()
    release.touch()
    ending.join(LIMIT)

    assert not ending.is_alive()
    assert running.result(0) == "done"


def test_kill_while_shutdown_waits(tmp_path):
    """K75: ``shutdown(wait=True)`` in one thread, ``kill_tasks`` in another: both return."""
    executor = FarmExecutor(1)
    running = executor.options(category="endless").submit(tasks.spin, tmp_path / "started")
    wait_until(running.running, 20)
    ending = threading.Thread(target=executor.shutdown)
    ending.start()

    assert executor.kill_tasks("endless") == 1

    assert isinstance(running.exception(LIMIT), futures.BrokenExecutor)
    ending.join(LIMIT)
    assert not ending.is_alive()


def test_shutdown_in_a_callback():
    """The I/O thread must not wait for itself: the executor ends, and that is said."""
    executor = FarmExecutor(1)
    said = queue.SimpleQueue()

    def end(future):
        try:
            executor.shutdown(wait=True)
        except RuntimeError as exc:
            said.put(str(exc))

    future = executor.submit(tasks.nap, 0.1)
    future.add_done_callback(end)

    assert "callback" in said.get(timeout=LIMIT)
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(tasks.nothing)
    executor.shutdown()


def test_shutdown_in_another_thread(tmp_path):
    executor = FarmExecutor(1)
    found = [executor.submit(tasks.same, i) for i in range(10)]
    thread = threading.Thread(target=executor.shutdown)
    thread.start()
    thread.join(LIMIT)

    assert [future.result(0) for future in found] == [*range(10)]


def test_shutdown_in_a_finalizer():
    """``__del__`` may run in any thread, also in the I/O thread, while locks are held."""

    class Owner:
        def __init__(self):
            self.executor = FarmExecutor(1)
            self.me = self  # a cycle: the garbage collector decides when

        def __del__(self):
            self.executor.shutdown()

    owner = Owner()
    future = owner.executor.submit(tasks.same, 5)
    assert future.result(LIMIT) == 5
    dead = weakref.ref(owner)
    del owner
    gc.collect()

    assert dead() is None


def test_shutdown_in_a_signal_handler(run_script):
    """While the main thread is inside of submit, map or result."""
    code, out, err = run_script(
        """
import signal, sys
from remote_executor import FarmExecutor

def stop(*_):
    executor.shutdown(wait=False, cancel_futures=True)
    raise SystemExit(7)

if __name__ == "__main__":
    executor = FarmExecutor(2)
    executor.submit(abs, 1).result(20)
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    while True:
        executor.submit(abs, 1)
        executor.submit(abs, 2).result()
"""
    )

    assert (code, out, err) == (7, "", "")


def test_cancel_futures(tmp_path):
    executor = FarmExecutor(1)
    release = tmp_path / "release"
    running = executor.submit(tasks.hold, tmp_path / "started", release, 1)
    wait_until((tmp_path / "started").exists, 20)
    path = tmp_path / "ran"
    waiting = [executor.submit(tasks.record, path, i) for i in range(100)]
    mapped = executor.map(tasks.record, [path] * 100, range(100))

    executor.shutdown(wait=False, cancel_futures=True)
    wait_until(lambda: all(future.cancelled() for future in waiting))
    release.touch()

    assert running.result(LIMIT) == 1
    with pytest.raises(futures.CancelledError):
        next(mapped)
    executor.shutdown()
    assert not path.exists()


@pytest.mark.parametrize("ends", ["terminate_workers", "kill_workers"])
def test_end_workers_at_once(ends, tmp_path):
    """As in Python 3.14: what runs and what waits fails, and nothing is left."""
    executor = FarmExecutor(2)
    marks = [tmp_path / "a", tmp_path / "b"]
    running = [executor.submit(tasks.block_signals, mark) for mark in marks]
    wait_until(lambda: all(mark.exists() for mark in marks), 20)
    waiting = executor.submit(abs, 1)

    start = time.monotonic()
    getattr(executor, ends)()

    for future in [*running, waiting]:
        assert future.cancelled() or isinstance(future.exception(LIMIT), futures.BrokenExecutor)
    with pytest.raises(RuntimeError):
        executor.submit(abs, 1)
    executor.shutdown()
    assert time.monotonic() - start < scaled(10)


# -- garbage, many times


def test_forgotten_executor():
    """Nobody calls shutdown: it ends when it is garbage, after what was submitted."""
    executor = FarmExecutor(1)
    future = executor.submit(tasks.nap, 0.05, "late")
    dead = weakref.ref(executor)
    del executor

    assert future.result(LIMIT) == "late"
    wait_until(lambda: gc.collect() >= 0 and dead() is None)


def test_futures_do_not_keep_what_they_do_not_need():
    """Arguments are dropped once they are sent, results once nobody has them."""

    class Thing:
        pass

    with FarmExecutor(1) as executor:
        thing = Thing()
        seen = weakref.ref(thing)
        future = executor.submit(lambda thing: None, thing)
        del thing
        future.result(LIMIT)
        wait_until(lambda: gc.collect() >= 0 and seen() is None)

        result = executor.submit(tasks.Adder, 3).result(LIMIT)
        seen = weakref.ref(result)
        del result, future
        wait_until(lambda: gc.collect() >= 0 and seen() is None)


def test_many_executors(addresses):
    """K60, K73: made, used and ended in a loop, they leave nothing."""
    for count in range(6):
        with FarmExecutor(1 + count % 3) as executor:
            assert list(executor.map(abs, range(-count, 0))) == [*range(count, 0, -1)]
    for _ in range(30):
        with FarmExecutor(addresses=addresses) as executor:
            assert executor.submit(pow, 2, 3).result(LIMIT) == 8
    for _ in range(3):
        FarmExecutor(2).shutdown()


def test_many_executors_at_a_time(addresses):
    """K61, K62: of several threads."""

    def use(i):
        with FarmExecutor(addresses=addresses) as executor:
            return list(executor.map(tasks.square, range(i)))

    with futures.ThreadPoolExecutor(4) as threads:
        found = list(threads.map(use, range(8)))

    assert found == [[k * k for k in range(i)] for i in range(8)]


# -- initializers


def test_initializer_sets_the_state_of_each_worker():
    """K80: also of one that takes another's place."""
    with FarmExecutor(2, initializer=tasks.set_state, initargs=("colour", "red")) as executor:
        assert executor.broadcast(tasks.get_state, "colour") == ["red"] * 2
        executor.submit(tasks.die).exception(LIMIT)
        assert executor.broadcast(tasks.get_state, "colour") == ["red"] * 2
    assert tasks.STATE == {}


def test_failing_initializer(capfd):
    """K97: it breaks the executor in bounded time, tells why, and leaves nothing."""
    executor = FarmExecutor(2, initializer=tasks.failing_initializer, initargs=("no colour",))
    found = [executor.submit(abs, i) for i in range(5)]
    errors = [future.exception(LIMIT) for future in found]

    assert all(isinstance(error, InitializerFailed) for error in errors)
    assert all("no colour" in str(error) for error in errors)
    with pytest.raises(futures.BrokenExecutor):
        executor.submit(abs, 1).result(LIMIT)
    executor.shutdown()


@pytest.mark.parametrize("initializer", [5, "name", ()])
def test_initializer_that_is_none(initializer):
    """K97: a TypeError at once."""
    with pytest.raises(TypeError, match="callable"):
        FarmExecutor(1, initializer=initializer)


def test_initializer_that_cannot_be_pickled():
    lock = threading.Lock()

    with (
        pytest.raises(Exception, match=r"(?i)pickle"),
        FarmExecutor(1, initializer=lambda: lock) as x,
    ):
        x.submit(abs, 1).result(LIMIT)


def test_bad_arguments():
    for bad in ({"max_workers": 0}, {"max_workers": -3}, {"max_tasks_per_child": 0}):
        with pytest.raises(ValueError, match="must be"):
            FarmExecutor(**bad)
    for bad in ({"max_tasks_per_child": "3"}, {"max_workers": "2"}, {"no_such_argument": 1}):
        with pytest.raises(TypeError):
            FarmExecutor(**bad)


def test_workers_are_not_more_than_asked_for():
    with FarmExecutor(3) as executor:
        executor.wait_for_workers(3, LIMIT)
        found = executor.broadcast(tasks.pid)

    assert len(set(found)) == 3


# -- fork


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_fork_with_an_executor_open(run_script):
    """The child gets a clear error, hangs nowhere, and the parent is unharmed."""
    code, out, err = run_script(
        """
import os, sys, time, warnings
from concurrent import futures
from remote_executor import FarmExecutor

warnings.simplefilter("ignore")

if __name__ == "__main__":
    parent = os.getpid()
    with FarmExecutor(2) as executor:
        def attempt(name, call):
            try:
                print("child:", name, call())
            except RuntimeError as error:
                print("child:", name, "fork" in str(error))

        done = executor.submit(pow, 2, 3)
        done.result(20)
        running = [executor.submit(time.sleep, 1) for _ in range(4)]
        results = executor.map(abs, range(3))
        running[0].add_done_callback(lambda _: print("called", os.getpid() == parent))
        child = os.fork()
        if child == 0:
            attempt("submit", lambda: executor.submit(abs, -1).result(5))
            attempt("done before", done.result)
            attempt("result", running[0].result)
            attempt("wait", lambda: len(futures.wait(running).done))
            attempt("as_completed", lambda: len(list(futures.as_completed(running))))
            attempt("exception", lambda: type(running[1].exception()).__name__)
            attempt("done", running[2].done)
            attempt("cancel", running[3].cancel)
            attempt("map", lambda: list(results))
            executor.shutdown()
            sys.stdout.flush()
            with FarmExecutor(1) as own:
                print("own:", own.submit(pow, 2, 4).result(20), flush=True)
            os._exit(0)
        print("status", os.waitpid(child, 0)[1], flush=True)
        print("parent:", executor.submit(pow, 2, 5).result(20), done.result(20), *results)
        print([future.result(20) for future in running])
"""
    )

    assert (code, err) == (0, "")
    assert sorted(out.splitlines()) == [
        "[None, None, None, None]",
        "called True",
        "child: as_completed 4",
        "child: cancel False",
        "child: done True",
        "child: done before 8",
        "child: exception RuntimeError",
        "child: map True",
        "child: result True",
        "child: submit True",
        "child: wait 4",
        "own: 16",
        "parent: 32 8 0 1 2",
        "status 0",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_forked_child_that_exits(run_script):
    """Its exit handlers and finalizers do not end the parent's servers."""
    code, out, err = run_script(
        """
import os, sys, warnings
from remote_executor import FarmExecutor

warnings.simplefilter("ignore")

if __name__ == "__main__":
    executor = FarmExecutor(1)
    executor.submit(abs, 1).result(20)
    child = os.fork()
    if child == 0:
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(executor.submit(pow, 2, 5).result(20))
"""
    )

    assert (code, out, err) == (0, "32\n", "")


# -- the interpreter's end


def test_exit_without_shutdown(run_script):
    """As ProcessPoolExecutor: what was submitted is finished first."""
    code, out, err = run_script(
        """
from remote_executor import FarmExecutor
from tests.support import tasks

if __name__ == "__main__":
    executor = FarmExecutor(2)
    for i in range(6):
        executor.submit(print, "ran", i)
    executor.submit(tasks.nap, 0.2)
"""
    )

    assert (code, err) == (0, "")
    assert sorted(out.split()) == sorted(("ran " * 6).split() + [str(i) for i in range(6)])


def test_exit_by_an_exception(run_script):
    code, out, err = run_script(
        """
from remote_executor import FarmExecutor

if __name__ == "__main__":
    executor = FarmExecutor(2)
    print(executor.submit(pow, 2, 3).result(20))
    raise LookupError("the end")
"""
    )

    assert (code, out) == (1, "8\n")
    assert err.rstrip().endswith("LookupError: the end")
    assert err.count("Traceback") == 1


def test_submit_while_the_interpreter_ends(run_script):
    code, out, err = run_script(
        """
import atexit
from remote_executor import FarmExecutor

@atexit.register
def late():
    try:
        executor.submit(abs, 1)
    except RuntimeError as error:
        print(error)

if __name__ == "__main__":
    executor = FarmExecutor(1)
    executor.submit(abs, 1).result(20)
"""
    )

    assert (code, err) == (0, "")
    assert out.startswith("cannot schedule new futures after")


def test_shutdown_by_atexit_and_by_del(run_script):
    code, out, err = run_script(
        """
import atexit
from remote_executor import FarmExecutor

class Owner:
    def __init__(self):
        self.executor = FarmExecutor(1)
    def __del__(self):
        self.executor.shutdown()

if __name__ == "__main__":
    executor = FarmExecutor(1)
    atexit.register(executor.shutdown)
    owner = Owner()
    print(executor.submit(pow, 2, 3).result(20), owner.executor.submit(pow, 2, 4).result(20))
"""
    )

    assert (code, out, err) == (0, "8 16\n", "")


def test_daemon_thread_that_waits_at_the_end(run_script):
    code, out, _ = run_script(
        """
import threading
from remote_executor import FarmExecutor
from tests.support import tasks

def work():
    while True:
        executor.submit(tasks.nap, 0.01).result()

if __name__ == "__main__":
    executor = FarmExecutor(1)
    threading.Thread(target=work, daemon=True).start()
    print(executor.submit(pow, 2, 3).result(20))
"""
    )

    assert (code, out) == (0, "8\n")


# -- Ctrl-C

INTERRUPTED = """
import sys, time
from remote_executor import FarmExecutor
from tests.support import tasks

if __name__ == "__main__":
    folder = sys.argv[1]
    with FarmExecutor(1) as executor:
        running = executor.submit(tasks.hold, folder + "/started", folder + "/release", "done")
        waiting = [executor.submit(tasks.record, folder + "/ran", i) for i in range(50)]
        try:
            print(running.result())
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            raise
"""


def group_interrupt(script):
    """Do as a terminal does: SIGINT to every process of the foreground group."""
    os.killpg(script.process.pid, signal.SIGINT)


def test_ctrl_c_once(start_script, tmp_path):
    """Workers ignore it; what runs is finished, what waits may be dropped; no hang."""
    script = start_script(INTERRUPTED, args=[tmp_path])
    wait_until((tmp_path / "started").exists, 20)
    group_interrupt(script)
    (tmp_path / "release").touch()
    code, out, err = script.finish()

    assert out == "interrupted\n"
    assert code in (-signal.SIGINT, 130, 1)
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "remote_executor/server" not in err  # no worker or server says anything


def test_ctrl_c_twice(start_script, tmp_path):
    """The second one drops what runs, too."""
    others = marked_processes()
    script = start_script(INTERRUPTED, args=[tmp_path])
    wait_until((tmp_path / "started").exists, 20)
    group_interrupt(script)
    assert script.process.stdout.readline() == "interrupted\n"
    start = time.monotonic()
    while script.process.poll() is None and time.monotonic() - start < scaled(10):
        group_interrupt(script)  # the first may come before the wait it is to end
        try:
            script.process.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
    code = script.process.wait(scaled(5))

    assert code in (-signal.SIGINT, 130, 1)
    wait_until(lambda: marked_processes() <= others)


def test_ctrl_c_at_the_exit_handler(start_script, tmp_path):
    """Without a with statement: one at the result, one while the interpreter waits."""
    source = INTERRUPTED.replace(
        "    with FarmExecutor(1) as executor:", "    if True:\n        executor = FarmExecutor(1)"
    )
    script = start_script(source, args=[tmp_path])
    wait_until((tmp_path / "started").exists, 20)
    group_interrupt(script)
    assert script.process.stdout.readline() == "interrupted\n"
    start = time.monotonic()
    while script.process.poll() is None and time.monotonic() - start < scaled(10):
        group_interrupt(script)
        try:
            script.process.wait(0.5)
        except subprocess.TimeoutExpired:
            continue

    assert script.process.poll() is not None


def test_interrupt_of_a_waiting_main_thread_keeps_the_executor(run_script):
    """A KeyboardInterrupt that the program catches costs no task."""
    code, out, err = run_script(
        """
import os, signal, threading
from remote_executor import FarmExecutor
from tests.support import tasks

if __name__ == "__main__":
    with FarmExecutor(2) as executor:
        executor.submit(abs, 1).result(20)
        future = executor.submit(tasks.nap, 0.5, "fine")
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            future.result()
        except KeyboardInterrupt:
            print("caught")
        print(future.result(20), executor.submit(pow, 2, 3).result(20))
"""
    )

    assert (code, out, err) == (0, "caught\nfine 8\n", "")


def test_interrupts_anywhere_in_submit(run_script):
    """A handler that raises costs at most the call it interrupted; the executor goes on."""
    code, out, err = run_script(
        """
import random, signal, time
from remote_executor import FarmExecutor

class Tick(KeyboardInterrupt):
    pass

inside = False

def tick(*_):
    global inside
    if inside:
        inside = False
        raise Tick

def submit_until(end):
    global inside
    while time.monotonic() < end:
        try:
            inside = True
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 3e-4))
            future = executor.submit(same, len(found))
            inside = False
        except Tick:
            continue
        found.append(future)
        future.result(10)  # a slot is idle again: the next submit sends by itself

def same(x):
    return x

if __name__ == "__main__":
    with FarmExecutor(2) as executor:
        executor.submit(same, 1).result(20)  # what is imported late has been imported now
        found = []
        signal.signal(signal.SIGALRM, tick)
        submit_until(time.monotonic() + 1)
        for number, future in enumerate(found):
            assert future.result(10) == number
        print(executor.submit(pow, 2, 3).result(10))
""",
        limit=10,
    )

    assert (code, out) == (0, "8\n"), err
    assert "lost" not in err


def test_interrupts_anywhere_in_a_round_trip(run_script):
    """The same while callers send and receive themselves: see client/shortcut.py."""
    code, out, err = run_script(
        """
import random, signal, time
from remote_executor import FarmExecutor

class Tick(KeyboardInterrupt):
    pass

inside = False

def tick(*_):
    global inside
    if inside:
        inside = False
        raise Tick

def same(x):
    return x

def work_until(end):
    global inside
    trips = hits = 0
    while time.monotonic() < end:
        future = None
        try:
            inside = True
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 4e-4))
            future = executor.submit(same, trips)
            value = future.result(10)
            inside = False
        except Tick:
            hits += 1
            if future is None:
                continue
            value = future.result(10)
        assert value == trips, (value, trips)
        trips += 1
    return trips, hits

if __name__ == "__main__":
    with FarmExecutor(2) as executor:
        executor.submit(same, 1).result(20)
        signal.signal(signal.SIGALRM, tick)
        trips, hits = work_until(time.monotonic() + 2)
        assert trips > 100 and hits > 100, (trips, hits)
        print(executor.submit(pow, 2, 3).result(10))
""",
        limit=15,
    )

    assert (code, out) == (0, "8\n"), err
    assert "lost" not in err
    assert "failed" not in err


def test_ctrl_c_without_a_with_statement_drops_what_waits(start_script, tmp_path):
    """At the end of the interpreter, too: what runs is finished, most others are not begun."""
    script = start_script(
        """
import pathlib, sys
from remote_executor import FarmExecutor
from tests.support import tasks

def hook(*error):
    sys.__excepthook__(*error)
    pathlib.Path(sys.argv[1], "told").touch()

sys.excepthook = hook
executor = FarmExecutor(1)
running = executor.submit(tasks.hold, f"{sys.argv[1]}/started", f"{sys.argv[1]}/release", 1)
waiting = [executor.submit(tasks.record, f"{sys.argv[1]}/ran", i) for i in range(50)]
waiting[-1].result()
""",
        args=[tmp_path],
    )
    wait_until((tmp_path / "started").exists, 20)
    group_interrupt(script)
    wait_until((tmp_path / "told").exists, 20)
    (tmp_path / "release").touch()
    code, _, _ = script.finish()

    assert code in (-signal.SIGINT, 130, 1)
    ran = (tmp_path / "ran").read_text().split() if (tmp_path / "ran").exists() else []
    assert len(ran) < 25, "a few may begin before the interpreter comes to its end"
