"""Servers behind commands that run things elsewhere: frames go over their pipes."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np
import pytest

from remote_executor import (
    AddressError,
    CommandHost,
    FarmExecutor,
    LaunchFailed,
    NoServerError,
    WorkerDied,
)
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(60)
ENV = ("env", "MARK=1")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of its own: the zip is sent, as to a new host."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def as_ssh_does(tmp_path):
    """Make a program that has a shell read what is put behind it, as ssh does."""
    path = tmp_path / "ssh"
    path.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    path.chmod(0o755)
    return str(path)


def test_tasks_run_behind_a_command_and_all_ends_with_the_executor(home):
    with FarmExecutor.spawn([ENV], workers=2, connect_timeout=LIMIT) as ex:
        assert ex.submit(os.environ.get, "MARK").result(LIMIT) == "1"
        assert list(ex.map(abs, range(-500, 0))) == list(range(500, 0, -1))
        assert ex.submit(lambda x: x + 1, 1).result(LIMIT) == 2
        pids = {ex.submit(os.getpid).result(LIMIT), ex.status().servers[0].pid}
        with pytest.raises(ZeroDivisionError):
            ex.submit(divmod, 1, 0).result(LIMIT)
    wait_until(lambda: not any(map(is_alive, pids)), LIMIT)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_large_arrays_go_both_ways_whole(home):
    array = np.arange(4_000_000, dtype=np.float64)
    host = CommandHost(ENV, python=sys.executable, workers=1)  # it has numpy
    with FarmExecutor.spawn([host], connect_timeout=LIMIT) as ex:
        back = ex.submit(np.negative, array).result(LIMIT)
    assert np.array_equal(back, -array)


def test_what_a_task_prints_and_what_a_login_prints_disturb_no_frame(home, capfd):
    noisy = CommandHost(
        ["sh", "-c", 'echo welcome; echo also here >&2; exec "$@"', "sh"], workers=1
    )
    with FarmExecutor.spawn([noisy], connect_timeout=LIMIT) as ex:
        ex.submit(print, "from a task").result(LIMIT)
        ex.submit(os.system, "echo from its child; echo and its error >&2").result(LIMIT)
        assert ex.submit(abs, -1).result(LIMIT) == 1
    assert "from a task" in capfd.readouterr().out


def test_a_command_that_has_a_shell_read_the_rest_is_quoted_for_it(home, tmp_path):
    host = CommandHost([as_ssh_does(tmp_path), "node1"], workers=1, env={"WORDS": "a 'b' $c"})
    assert host.goes_through_a_shell
    with FarmExecutor.spawn([host], connect_timeout=LIMIT) as ex:
        assert ex.submit(os.environ.get, "WORDS").result(LIMIT) == "a 'b' $c"


def test_a_setup_line_and_a_python_of_ones_own(home):
    host = CommandHost(
        "env", python=sys.executable, setup="export SET=up", workers=1, env={"GIVEN": "too"}
    )
    with FarmExecutor.spawn([host], connect_timeout=LIMIT) as ex:
        assert ex.submit(os.environ.get, "SET").result(LIMIT) == "up"
        assert ex.submit(os.environ.get, "GIVEN").result(LIMIT) == "too"
        assert ex.submit(getattr, sys, "version").result(LIMIT) == sys.version


def test_several_commands_are_one_farm(home):
    commands = [ENV, ("env", "MARK=2"), "nice -n 1"]
    with FarmExecutor.spawn(commands, 1, min_servers=3, connect_timeout=LIMIT) as ex:
        assert set(ex.broadcast(os.environ.get, "MARK")) == {"1", "2", None}


def test_a_broken_pipe_is_a_lost_server_and_the_command_is_run_again(home):
    with FarmExecutor.spawn([ENV], workers=1, connect_timeout=LIMIT) as ex:
        first = ex.status().servers[0].pid
        os.killpg(os.getpgid(first), signal.SIGKILL)
        assert ex.submit(abs, -2).result(LIMIT) == 2
        assert ex.status().servers[0].pid != first


def test_a_worker_that_dies_costs_its_own_task(home):
    with FarmExecutor.spawn([ENV], workers=1, connect_timeout=LIMIT) as ex:
        with pytest.raises(WorkerDied):
            ex.submit(os._exit, 3).result(LIMIT)
        assert ex.submit(abs, -3).result(LIMIT) == 3


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/no/such/program x", "No such file or directory"),
        (["sh", "-c", "echo no such container >&2; exit 7", "sh"], "no such container"),
        (["sh", "-c", "echo not for us; exit 0", "sh"], "not for us"),
    ],
)
def test_a_command_that_fails_says_why_and_what_to_try(home, command, words):
    with pytest.raises(LaunchFailed) as caught:
        FarmExecutor.spawn([command], workers=1, connect_timeout=LIMIT)

    assert words in str(caught.value)
    assert "try by hand" in str(caught.value)


def test_no_python_there_is_said(home):
    with pytest.raises(LaunchFailed, match="python not found"):
        FarmExecutor.spawn([CommandHost("env", python="python3.99")], connect_timeout=LIMIT)


def test_a_command_that_says_nothing_is_not_waited_for_without_end(home):
    began = time.monotonic()
    with pytest.raises((LaunchFailed, NoServerError)):
        FarmExecutor.spawn([["sleep", "600"]], connect_timeout=scaled(2))
    assert time.monotonic() - began < LIMIT


@pytest.mark.parametrize(
    ("commands", "error"),
    [
        ("docker exec -i c1", TypeError),
        ([], AddressError),
        ([""], AddressError),
        (["docker 'exec"], AddressError),
        ([["docker", 7]], TypeError),
        (["env", "env"], AddressError),
        ([CommandHost("env")], None),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_started(commands, error):
    from remote_executor.launch.hosts import parse_commands

    defaults = CommandHost("default", workers=3)
    if error is None:
        assert parse_commands(commands, defaults)[0].workers == 3
    else:
        with pytest.raises(error):
            parse_commands(commands, defaults)
