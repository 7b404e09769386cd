"""The log of a server, with a loop whose time is set by hand."""

from __future__ import annotations

import io
import sys
import time

import pytest

from remote_executor.net.loop import Loop
from remote_executor.server.server_log import MOST_REFUSALS, REFUSALS_SECONDS, ServerLog


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def test_what_is_less_important_than_asked_for_is_not_written(loop, capsys):
    log = ServerLog(loop, "warning")

    log.write("info", "= a client came")
    log.write("error", "! all is lost")

    assert "a client" not in (said := capsys.readouterr().err)
    assert "! all is lost" in said


def test_control_characters_of_a_peer_do_not_reach_the_terminal(loop, capsys):
    ServerLog(loop, "debug").write("info", "= \x1b[2Jsomebody\nforged a line")

    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert said.count("\n") == 1


def test_refusals_have_a_line_each_until_they_are_many_and_are_counted_then(loop, capsys):
    log = ServerLog(loop, "warning")
    loop.now = time.monotonic() - REFUSALS_SECONDS - 1  # so its period is over now

    for number in range(MOST_REFUSALS + 25):
        log.refusal(f"! peer {number} was refused")
    assert capsys.readouterr().err.count("was refused") == MOST_REFUSALS

    loop.dispatch(loop.poll(0.0))
    assert "25 more peers were refused" in capsys.readouterr().err
    log.refusal("! one more was refused")
    assert "one more was refused" in capsys.readouterr().err


def test_a_log_that_cannot_be_written_stops_nothing(loop, monkeypatch):
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())

    ServerLog(loop, "debug").write("error", "! nobody reads this")


def test_an_exception_is_written_with_its_traceback(loop, capsys):
    try:
        raise ValueError("odd")
    except ValueError:
        ServerLog(loop, "error").exception("! something could not be handled")

    said = capsys.readouterr().err
    assert "! something could not be handled" in said
    assert "ValueError: odd" in said
