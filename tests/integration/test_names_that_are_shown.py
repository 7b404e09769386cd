"""Names that tasks and servers give themselves are shown without what a terminal would act upon."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

from remote_executor import (
    CannotShip,
    FarmExecutor,
    InitializerFailed,
    PayloadError,
    ServerLost,
    TaskKilled,
    TaskTimeout,
    WorkerDied,
    start_server,
)
from remote_executor.client.driver import Driver
from remote_executor.launch.hosts import SSHHost
from remote_executor.launch.stages import MARK, Dialogue, Progress
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

from .conftest import environment
from .test_output import records, streams

LIMIT = scaled(20)
HOSTILE = "\x1b]0;mine\x07\x1b[2J\r\nroot logged in\u202e"


def is_harmless(text):
    return all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize(
    "error",
    [
        WorkerDied(HOSTILE, 1, -9, HOSTILE, stderr=HOSTILE),
        InitializerFailed(HOSTILE, "ValueError()"),
        ServerLost(HOSTILE, ["node1:11111"]),
        TaskKilled(HOSTILE, HOSTILE, 1),
        TaskTimeout(HOSTILE, 1.0),
        PayloadError(HOSTILE, "no"),
        CannotShip(HOSTILE, "no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors(error):
    assert is_harmless(str(error))


@pytest.fixture(scope="module")
def executor(_leak_baseline):
    with start_server(workers=1) as server:
        with FarmExecutor(addresses=[server.address]) as executor:
            # Else what it starts looks like a test's leak: a worker, and who answers for modules.
            executor.submit(nothing).result(LIMIT)
            yield executor


def nothing():
    """Be of this module, for which the server asks."""


def test_the_mark_before_what_a_task_prints(executor):
    with streams() as (out, _):
        executor.options(name=HOSTILE).submit(print, "said").result(LIMIT)
        wait_until(lambda: "said" in out.getvalue())
    assert is_harmless(out.getvalue())
    assert "root logged in" in out.getvalue()


def test_the_name_in_what_a_task_logs(executor):
    with records("app") as found:
        executor.options(name=HOSTILE).submit(log_a_line).result(LIMIT)
        wait_until(lambda: found)
    (record,) = found
    assert is_harmless(record.remote_task if hasattr(record, "remote_task") else record.task)


def log_a_line():
    logging.getLogger("app").warning("a line")


def test_a_function_may_call_itself_anything(executor):
    def function():
        os._exit(3)

    function.__qualname__ = function.__name__ = HOSTILE
    error = executor.submit(function).exception(LIMIT)
    assert isinstance(error, WorkerDied)
    assert is_harmless(str(error))


def test_a_server_may_call_its_host_anything(executor, monkeypatch):
    ((peer, _),) = executor._driver.peers()
    monkeypatch.setitem(peer.fields, "host", HOSTILE)
    assert is_harmless(executor.status().servers[0].host)
    assert is_harmless(Driver._label(executor._driver, peer, 1, None))


def test_status_and_the_log_of_a_server(capfd):
    from remote_executor import server_status
    from remote_executor.net.tokens import load_token
    from tests.support.hand import remote

    with start_server(workers=1, log_level="debug") as server:
        with remote(server.address, load_token(), host=HOSTILE) as client:
            client.run(tasks.add, 1, 1)
            (session,) = server_status(server.address)["sessions"]
            assert is_harmless(session["client"])
            line = [sys.executable, "-m", "remote_executor", "status", str(server.address)]
            said = subprocess.run(line, env=environment(), capture_output=True, text=True)
            assert json.loads(said.stdout)["sessions"][0]["workers"] == 1
            assert is_harmless(said.stdout)
            client.goodbye()
    assert is_harmless(capfd.readouterr().err)


def test_what_a_host_says_while_a_server_is_launched():
    progress = Progress(SSHHost("node1"))
    said = json.dumps({"error": HOSTILE, "at": "boot"})
    with pytest.raises(Exception, match="root logged in") as caught:
        Dialogue(progress).received(f"{MARK} {said}\n".encode())
    assert is_harmless(str(caught.value))
    assert is_harmless(str(progress.failure("why", HOSTILE)))


def test_modules_that_were_served_stand_in_both_logs_at_info(tmp_path, monkeypatch, capfd, caplog):
    (tmp_path / "own_served.py").write_text("def f():\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import own_served

    caplog.set_level(logging.INFO, "remote_executor.client")
    # Not where the server could find it itself.
    line = [sys.executable, "-m", "remote_executor", "serve", "--port", "0", "--workers", "1"]
    with subprocess.Popen(
        [*line, "--log-level", "info"],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path.parent,
    ) as server:
        address = server.stdout.readline().split()[-1]
        with FarmExecutor(addresses=[address]) as executor:
            assert executor.submit(own_served.f).result(LIMIT) == 1
        server.terminate()
        server.wait(LIMIT)
    del sys.modules["own_served"]
    assert f"> {address} is served the module own_served" in caplog.text
    assert "is served the modules own_served" in capfd.readouterr().err
