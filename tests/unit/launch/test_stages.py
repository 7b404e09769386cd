"""What the other side says, and what is made of it."""

from __future__ import annotations

import json
import pickle
import shlex

import pytest

from remote_executor.errors import LaunchFailed
from remote_executor.launch.hosts import SSHHost
from remote_executor.launch.stages import (
    MARK,
    STAGES,
    Dialogue,
    Progress,
    by_hand,
    read_complaint,
)

HOST = SSHHost("node1", user="me", port=2222)


@pytest.fixture
def progress():
    made = Progress(HOST)
    made.enter("boot")
    return made


@pytest.fixture
def dialogue(progress):
    return Dialogue(progress)


def line(**fields):
    return f"\n{MARK} {json.dumps(fields)}\n".encode()


def failed(dialogue, data):
    with pytest.raises(LaunchFailed) as caught:
        dialogue.received(data)
    return caught.value


@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_a_launch_that_goes_well(dialogue, progress, size):
    said = b"Welcome!\r\n\x1b[0m" + line(python=[3, 11, 7], has_zip=True) + line(at="import")
    said += line(at="port") + line(address="127.0.0.1:5", pid=7)
    for start in range(0, len(said), size):
        dialogue.received(said[start : start + size])

    assert dialogue.python == [3, 11, 7]
    assert dialogue.has_zip
    assert (dialogue.address, dialogue.pid) == ("127.0.0.1:5", 7)
    assert progress.stage == "port"
    assert dialogue.words("and more").startswith("and more Welcome!")


def test_a_banner_without_a_line_end(dialogue):
    dialogue.received(b"no end of line " + line(python=[3, 10, 0]).lstrip())

    assert dialogue.python == [3, 10, 0]
    assert not dialogue.has_zip
    assert dialogue.words() == "no end of line"


@pytest.mark.parametrize(
    ("words", "stage", "reason"),
    [
        ("none", "python not found", "no python3"),
        ("none ; python3: shim says no", "python not found", "shim says no"),
        ("none ; python3: False 3.6.8", "python too old", "3.6.8"),
        ("setup 5", "boot", "exit status 5"),
        ("gibberish", "boot", "gibberish"),
        ("[1]", "boot", "cannot be understood"),
    ],
)
def test_words_of_the_shell(dialogue, words, stage, reason):
    error = failed(dialogue, f"{MARK} {words}\n".encode())

    assert error.stage == stage
    assert reason in error.reason


@pytest.mark.parametrize("words", ["none", "none ; python3: False 3.6.8", "setup 5", "[1]"])
def test_what_the_host_wrote_beside_it_stands_in_the_error(progress, words):
    dialogue = Dialogue(progress, lambda: "module: not found")
    dialogue.received(b"Welcome to node1\n")

    error = failed(dialogue, f"{MARK} {words}\n".encode())

    assert error.stderr == "module: not found Welcome to node1"


@pytest.mark.parametrize("stage", ["boot", "import", "python not found", "python too old"])
def test_what_to_try_by_hand_has_the_setup_line_and_knows_where_home_is(stage):
    host = SSHHost("node1", setup="module load python", python="~/my bin/python3")
    command = shlex.split(by_hand(stage, host))[-1]

    assert command.startswith("module load python && ")
    assert "~/'my bin/python3'" in command
    plain = shlex.split(by_hand(stage, SSHHost("node1", python="/my bin/python3")))[-1]
    assert "'/my bin/python3'" in plain
    assert "&&  " not in plain


def test_errors_that_it_reports(dialogue):
    dialogue.received(b"some banner\n")
    error = failed(dialogue, line(error="no port left", at="port"))
    assert (error.stage, error.reason, error.stderr) == ("port", "no port left", "some banner")

    assert failed(dialogue, line(error="x", at="elsewhere")).stage == "boot"


def test_much_noise_is_not_kept(dialogue):
    for _ in range(40):
        dialogue.received(b"x" * 10_000)
    dialogue.received(b"\n" + b"y" * 10_000 + b"\n")

    assert len(dialogue.noise) <= 64 * 1024
    assert dialogue.words().endswith("y")
    error = dialogue.ended(1, "")
    assert len(error.stderr) < 700
    assert " ... " in error.stderr


def test_an_end_before_python(dialogue):
    dialogue.received(b"This account is not available.\n")
    error = dialogue.ended(1, "")

    assert "exit status 1" in error.reason
    assert "login shell" in error.reason
    assert "not available" in error.stderr


def test_an_end_after_python(dialogue):
    dialogue.received(line(python=[3, 11, 7]))
    error = dialogue.ended(None, "Traceback\n  more\x07")

    assert error.reason == "the server's process ended"
    assert error.stderr == "Traceback more?"


def test_no_answer_in_time(dialogue):
    assert "tmux" in dialogue.late(60.0, "").reason
    dialogue.received(line(python=[3, 11, 7]))
    assert dialogue.late(60.0, "").reason == "no answer within 60 s"


def test_the_error_says_all(progress):
    error = progress.failure("why", "what it wrote")

    assert str(error).startswith("no server on me@node1:2222: boot: why; it wrote: what it wrote;")
    assert error.command in str(error)
    assert str(LaunchFailed("a", "boot", "why")) == "no server on a: boot: why"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_progress_reports_and_cancels():
    stages, closed = [], []
    progress = Progress(HOST, None, stages.append)
    inner = Progress(SSHHost("jump"))
    progress.enter("resolve")
    progress.enter("resolve")
    progress.enter("connect")
    progress.hold(lambda: closed.append(1))
    progress.follow(inner)
    progress.cancel()

    assert stages == ["resolve", "connect"]
    assert (progress.cancelled, inner.cancelled, closed) == (True, True, [1])


@pytest.mark.parametrize("stage", STAGES)
def test_there_is_something_to_try_at_every_stage(stage):
    full = SSHHost("node1", "me", 22, key_filename="k", proxy="j", python="/opt/py thon")

    assert "node1" in by_hand(stage, full, "config")
    assert "node1" in by_hand(stage, SSHHost("node1"))


@pytest.mark.parametrize(
    ("stderr", "stage", "again"),
    [
        ("ssh: Could not resolve hostname x: Name or service not known", "resolve", False),
        ("ssh: connect to host a port 1: Connection refused", "connect", False),
        ("No ED25519 host key is known for a\r\nHost key verification failed.", "host key", False),
        ("banner\nme@a: Permission denied (publickey).", "authentication", False),
        ("kex_exchange_identification: Connection closed by remote host", "connect", True),
        (
            "c: line 2: Bad configuration option: x\nc: terminating, 1 bad configuration options",
            "configuration",
            False,
        ),
        ("something else", "connect", False),
        ("", "connect", False),
    ],
)
def test_what_ssh_complains_of(stderr, stage, again):
    found, reason, retry = read_complaint(stderr)

    assert (found, retry) == (stage, again)
    assert reason


@pytest.mark.parametrize(
    ("python", "reason"),
    [
        ("python3.99", "there is no program python3.99 in the PATH of a login there"),
        ("/opt/py/bin/python", "there is no program /opt/py/bin/python;"),
    ],
)
def test_a_python_that_was_asked_for_and_is_not_there_is_named(python, reason):
    dialogue = Dialogue(Progress(SSHHost("node1", python=python)))

    error = failed(dialogue, f"{MARK} none\n".encode())

    assert error.stage == "python not found"
    assert reason in error.reason
    assert "--python" in error.reason
