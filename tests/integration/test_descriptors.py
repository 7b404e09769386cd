"""Few descriptors, in each of the four kinds of process: that costs time, and no result."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import sys

import psutil
import pytest

from remote_executor import FarmExecutor
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.shortage import descriptors, nth_fails
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of others are Linux's")

LIMIT = scaled(30)
LARGE = 300_000
"""Bytes that travel in shared memory."""


class Buffer:
    """Bytes that travel out of band."""

    def __init__(self, size, fill=1):
        self.data = bytearray([fill]) * size

    def __reduce_ex__(self, protocol):
        from pickle import PickleBuffer

        return rebuild, (PickleBuffer(self.data),)


def rebuild(data):
    found = Buffer(0)
    found.data = data
    return found


def make(size, fill):
    return Buffer(size, fill)


def total(buffer):
    return sum(buffer.data)


def processes(executor):
    """Return the pids of the server, its zygote, and a worker."""
    worker, zygote = executor.submit(tasks.pids).result(LIMIT)
    return {"server": psutil.Process(zygote).ppid(), "zygote": zygote, "worker": worker}


def used(pid):
    return max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 1


def work(executor, count=8):
    """Large tasks and results, and shared objects; all must come, and be right."""
    made = [executor.submit(make, LARGE, n) for n in range(count)]
    found = [executor.submit(total, Buffer(LARGE, n)) for n in range(count)]
    for n, (large, small) in enumerate(zip(made, found, strict=True)):
        assert bytes(large.result(LIMIT).data) == bytes([n]) * LARGE
        assert small.result(LIMIT) == n * LARGE
    handle = executor.share(Buffer(LARGE, 3))
    assert executor.submit(total, handle).result(LIMIT) == 3 * LARGE


# ------------------------------------------------------------------------- kept results


def test_results_that_are_kept_hold_no_descriptor_each():
    with FarmExecutor(2) as executor:
        work(executor)
        who = processes(executor)
        before = {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in (os.getpid(), *who.values())}

        kept = [executor.submit(make, LARGE, n % 256).result(LIMIT) for n in range(600)]

        for pid, count in before.items():
            # A server holds those of some hundred results that are not acknowledged yet.
            assert len(os.listdir(f"/proc/{pid}/fd")) < count + 200
        assert all(bytes(each.data[:1]) == bytes([n % 256]) for n, each in enumerate(kept))


def test_finished_results_come_although_the_client_has_no_descriptor_left():
    with FarmExecutor(2) as executor:
        work(executor)
        with descriptors(0, used(os.getpid())):
            with contextlib.ExitStack() as taken:
                with contextlib.suppress(OSError):
                    while True:
                        taken.callback(os.close, os.dup(0))
                kept = [executor.submit(make, LARGE, n) for n in range(50)]
                for n, future in enumerate(kept):
                    assert bytes(future.result(LIMIT).data) == bytes([n]) * LARGE
                assert executor.submit(total, Buffer(LARGE, 2)).result(LIMIT) == 2 * LARGE


# ------------------------------------------------------------------------ every process


@pytest.mark.parametrize("who", ["server", "worker", "zygote"])
@pytest.mark.parametrize("spare", [0, 1, 2, 3, 5, 8, 13, 21, 30])
def test_a_limit_that_is_met_while_it_runs_costs_no_result_and_no_worker(who, spare):
    with FarmExecutor(2) as executor:
        work(executor)
        pids = sorted(executor.broadcast(tasks.pid))
        pid = processes(executor)[who]
        with descriptors(pid, used(pid) + spare):
            work(executor)
        work(executor)
        assert sorted(executor.broadcast(tasks.pid)) == pids


def leave_none_free():
    """A task that leaks: no descriptor is left in its worker."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    with contextlib.suppress(OSError):
        while True:
            os.dup(0)
    return os.getpid()


def test_a_task_that_leaks_all_descriptors_of_its_worker_harms_no_later_one():
    with FarmExecutor(1) as executor:
        worker = executor.submit(leave_none_free).result(LIMIT)
        work(executor)
        assert executor.submit(tasks.pid).result(LIMIT) == worker


@pytest.mark.parametrize("spare", range(0, 60, 4))
def test_workers_are_made_later_if_there_are_no_descriptors_now(spare):
    with FarmExecutor(2) as executor:
        assert executor.submit(abs, -1).result(LIMIT) == 1
        who = processes(executor)
        for name in ("server", "zygote"):
            with descriptors(who[name], used(who[name]) + spare):
                executor.submit(tasks.die).exception(LIMIT)
                futures = [executor.submit(tasks.square, n) for n in range(10)]
                with contextlib.suppress(TimeoutError):
                    futures[0].result(0.5)
            assert [future.result(LIMIT) for future in futures] == [n * n for n in range(10)]


@pytest.mark.parametrize("most", [24, 32, 40, 48, 64, 96, 128, 200])
def test_a_server_that_may_have_few_descriptors_from_the_start(serve, most):
    """Below some number it has no worker, which it says."""
    code = (
        "import resource, runpy, sys; "
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most})); "
        "sys.argv[0] = 'serve'; runpy.run_module('remote_executor', run_name='__main__')"
    )
    server = serve(python=sys.executable, wrapped=code)
    with FarmExecutor(addresses=[server.address]) as executor:
        future = executor.submit(total, Buffer(LARGE, 2))
        error = future.exception(LIMIT)
        if error is None:
            assert future.result() == 2 * LARGE
            work(executor)
        else:
            assert most <= 48
            assert "EMFILE" in str(error)


# ------------------------------------------------------------------ what a client opens


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_server_of_our_own_is_started_although_the_first_tries_are_refused(
    monkeypatch, number, n
):
    import socket

    refusing, uses = nth_fails(socket.socketpair, n, number)
    monkeypatch.setattr("remote_executor.client.ways.socket.socketpair", refusing)
    with FarmExecutor(1) as executor:
        assert executor.submit(tasks.square, 3).result(LIMIT) == 9
        for _ in range(2):  # and when it has died, the next one
            os.kill(processes(executor)["server"], 9)
            assert executor.submit(tasks.square, 4).result(LIMIT) == 16
    assert len(uses) > n


@pytest.mark.parametrize("call", ["subprocess.Popen", "threading.Thread.start"])
def test_a_process_or_a_thread_that_is_refused_once_is_tried_again(monkeypatch, addresses, call):
    import subprocess
    import threading

    if call == "subprocess.Popen":
        refusing, _ = nth_fails(subprocess.Popen, 0, errno.EAGAIN)
        monkeypatch.setattr("remote_executor.client.ways.subprocess.Popen", refusing)
        settings = {}
    else:
        start, failed = threading.Thread.start, []

        def refuse_once(self):
            if self.name.startswith("dial") and not failed:
                failed.append(self)
                raise RuntimeError("can't start new thread")
            start(self)

        monkeypatch.setattr(threading.Thread, "start", refuse_once)
        settings = {"addresses": addresses[:1]}
    with FarmExecutor(**settings) as executor:
        assert executor.submit(tasks.square, 3).result(LIMIT) == 9


def test_the_epoll_that_has_no_room_for_one_more_is_no_end(monkeypatch, addresses):
    from remote_executor.net.loop import Loop

    refusing, _ = nth_fails(Loop.watch, 0, errno.ENOSPC)
    monkeypatch.setattr(Loop, "watch", lambda self, *a, **k: refusing(self, *a, **k))
    with FarmExecutor(addresses=addresses[:1]) as executor:
        assert executor.submit(tasks.square, 3).result(LIMIT) == 9
        wait_until(lambda: executor.status().servers, 5)
