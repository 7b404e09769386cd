"""Servers that are short of processes, descriptors or memory, and hosts whose initializer fails."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from remote_executor import FarmExecutor, InitializerFailed, NoServerError
from tests.support import tasks
from tests.support.house import ROOT
from tests.support.scale import scaled
from tests.support.shortage import Refusals
from tests.support.waiting import wait_until

LIMIT = scaled(40)
HOST = socket.gethostname()


@pytest.fixture
def refusals(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    return Refusals(folder)


def warnings_of(caplog, words):
    return [r.getMessage() for r in caplog.records if words in r.getMessage()]


# --------------------------------------------------------- a server that cannot start workers


def test_a_server_that_can_fork_no_worker_costs_nothing_beside_one_that_can(
    serve, refusals, caplog
):
    broken, healthy = serve(env=refusals.env), serve()
    with FarmExecutor(addresses=[broken.address, healthy.address]) as executor:
        executor.wait_for_workers(4, LIMIT)

        found = [executor.submit(tasks.square, i).result(LIMIT) for i in range(40)]
        many = list(executor.map(tasks.square, range(1000), timeout=LIMIT))
        left_out = wait_until(lambda: warnings_of(caplog, "is not used"), 30)

    assert found == [i * i for i in range(40)]
    assert many == [i * i for i in range(1000)]
    assert len(left_out) == 1
    assert broken.address in left_out[0]
    assert HOST in left_out[0]
    assert "EAGAIN" in left_out[0]
    assert "ulimit -u" in left_out[0]


def test_a_task_that_may_run_once_only_survives_a_server_that_never_began_it(serve, refusals):
    broken, healthy = serve(env=refusals.env), serve()
    with FarmExecutor(addresses=[broken.address], retries=0) as executor:
        executor.wait_for_workers(2, LIMIT)
        found = [executor.submit(tasks.square, i) for i in range(10)]
        executor.add_server(healthy.address)
        assert [future.result(LIMIT) for future in found] == [i * i for i in range(10)]


def test_only_where_no_server_is_left_the_farm_is_broken_and_says_why(serve, refusals):
    servers = [serve(env=refusals.env), serve(env=refusals.env)]
    with FarmExecutor(addresses=[server.address for server in servers]) as executor:
        futures = [executor.submit(tasks.square, i) for i in range(40)]
        errors = [future.exception(LIMIT) for future in futures]
        with pytest.raises(NoServerError, match="EAGAIN"):
            executor.submit(abs, 1)

    assert {type(error) for error in errors} == {NoServerError}
    assert len({id(error) for error in errors}) == len(errors)
    for error in errors:
        assert f"{HOST} can start no worker" in str(error)
        assert "EAGAIN: Resource temporarily unavailable" in str(error)


def test_a_shortage_that_passes_costs_nothing(serve, refusals):
    server = serve(env=refusals.env)
    with FarmExecutor(addresses=[server.address]) as executor:
        found = [executor.submit(tasks.square, i) for i in range(10)]
        wait_until(lambda: server.log.read_text().count("did not start") >= 3, 20)
        refusals.end()
        assert [future.result(LIMIT) for future in found] == [i * i for i in range(10)]


def test_while_one_worker_lives_others_that_cannot_be_made_end_nothing(serve, refusals):
    refusals.end()
    server = serve(env=refusals.env)
    with FarmExecutor(addresses=[server.address]) as executor:
        assert executor.submit(abs, -1).result(LIMIT) == 1
        (refusals.folder / "refuse").touch()
        futures = [executor.submit(tasks.nap, 0.1) for _ in range(30)]
        for future in futures:
            future.result(LIMIT)
        assert server.log.read_text().count("did not start") >= 2
        assert executor.submit(abs, -2).result(LIMIT) == 2


def test_a_server_of_our_own_that_can_fork_no_worker_says_so(refusals, monkeypatch):
    for name in ("PYTHONPATH", "REFUSE_FORKS"):
        monkeypatch.setenv(name, refusals.env[name])
    with FarmExecutor(2) as executor:
        error = executor.submit(abs, 1).exception(LIMIT)
    assert isinstance(error, NoServerError)
    assert "EAGAIN" in str(error)


def test_a_shortage_is_not_the_initializers_fault(serve, refusals):
    server = serve(env=refusals.env)
    addresses = [server.address]
    with FarmExecutor(addresses=addresses, initializer=tasks.nothing) as executor:
        error = executor.submit(abs, 1).exception(LIMIT)
    assert isinstance(error, NoServerError)


def test_workers_that_end_before_they_are_ready_are_told_with_their_last_words(serve, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        # For workers alone: what forks them needs it, too.
        "import os, sys\n"
        "real = os.dup2\n"
        "def dup2(*args, **kwargs):\n"
        "    if sys._getframe(1).f_globals['__name__'] == 'remote_executor.server.worker':\n"
        "        raise OSError(24, 'no more of that')\n"
        "    return real(*args, **kwargs)\n"
        "os.dup2 = dup2\n",
        encoding="utf-8",
    )
    path = os.pathsep.join([str(folder), str(ROOT)])
    server = serve(env={**os.environ, "PYTHONPATH": path})
    with FarmExecutor(addresses=[server.address]) as executor:
        error = executor.submit(abs, 1).exception(LIMIT)
    assert isinstance(error, NoServerError)
    assert "exit code 71" in str(error)


# ------------------------------------------------------------------------- an initializer


def need_licence(name):
    if os.environ.get("BROKEN_HOST"):
        raise ValueError(f"no {name} on this host")


def broken_host(serve):
    return serve(env={**os.environ, "PYTHONPATH": str(ROOT), "BROKEN_HOST": "1"})


def test_an_initializer_that_fails_on_one_host_of_three_leaves_that_one_out(serve, caplog):
    servers = [serve(), broken_host(serve), serve()]
    addresses = [server.address for server in servers]
    with FarmExecutor(
        addresses=addresses, initializer=need_licence, initargs=("licence",)
    ) as executor:
        executor.wait_for_workers(6, LIMIT)
        found = [executor.submit(tasks.square, i) for i in range(100)]
        assert [future.result(LIMIT) for future in found] == [i * i for i in range(100)]
        (words,) = wait_until(lambda: warnings_of(caplog, "is not used"), 20)
        assert executor.submit(abs, -1).result(LIMIT) == 1
    assert servers[1].address in words
    assert HOST in words
    assert "no licence on this host" in words


def test_an_initializer_that_fails_on_all_hosts_breaks_the_farm(serve):
    servers = [broken_host(serve), broken_host(serve)]
    addresses = [server.address for server in servers]
    with FarmExecutor(
        addresses=addresses, initializer=need_licence, initargs=("licence",)
    ) as executor:
        futures = [executor.submit(abs, i) for i in range(20)]
        errors = [future.exception(LIMIT) for future in futures]
    assert {type(error) for error in errors} == {InitializerFailed}
    assert all(isinstance(error.__cause__, ValueError) for error in errors)


def test_each_future_that_an_initializer_breaks_has_an_exception_of_its_own():
    with FarmExecutor(2, initializer=tasks.failing_initializer, initargs=("no",)) as executor:
        futures = [executor.submit(abs, i) for i in range(20)]
        errors = [future.exception(LIMIT) for future in futures]
        with pytest.raises(InitializerFailed):
            list(executor.map(abs, [1]))
    assert len({id(error) for error in errors}) == 20
    assert all(error.__cause__ is not None for error in errors)


def test_what_runs_when_a_later_initializer_fails_is_tried_elsewhere(serve, tmp_path, caplog):
    """A second worker fails, while the first one is in the middle of a task."""
    flag, gate, log = (str(tmp_path / name) for name in ("broken", "gate", "log"))
    first, second = broken_host(serve), serve(workers=1)
    with FarmExecutor(
        addresses=[first.address], initializer=fail_if_there, initargs=(flag,)
    ) as executor:
        executor.submit(abs, 1).result(LIMIT)
        long = executor.submit(wait_for, log, gate)
        wait_until(long.running, 10)
        executor.add_server(second.address)
        executor.wait_for_workers(3, LIMIT)
        tasks.touch(flag)
        futures = [executor.submit(tasks.nap, 0.05) for _ in range(20)]
        (words,) = wait_until(lambda: warnings_of(caplog, "is not used"), 20)
        tasks.touch(gate)
        for future in (long, *futures):
            future.result(LIMIT)
    assert "not twice" in words
    assert Path(log).read_text().split() == ["begun", "begun"]


def wait_for(log, gate):
    tasks.append(log, "begun")
    tasks.wait_for(gate)


def fail_if_there(path):
    if os.path.exists(path) and os.environ.get("BROKEN_HOST"):
        raise ValueError("not twice")
