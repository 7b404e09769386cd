"""Workers' processes, with a socket in the place of the zygote."""

from __future__ import annotations

import json
import socket

import pytest

from remote_executor.core.service import StartStage
from remote_executor.server import processes as module
from remote_executor.server.exit_codes import NOT_PREPARED
from remote_executor.server.outputs import Outputs, Throttle
from remote_executor.server.processes import Processes, failed_start


class Events:
    def __init__(self) -> None:
        self.exited: list = []
        self.not_made: list = []

    def worker_exited(self, process, status) -> None:
        self.exited.append((process.number, status))

    def worker_not_made(self, worker, error) -> None:
        self.not_made.append(error.errno)


class Zygote:
    """The other end of the control socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fds: list[int] = []

    def heard(self) -> list[dict]:
        data, fds, _, _ = socket.recv_fds(self.sock, 65536, 32)
        self.fds += fds
        return [json.loads(line) for line in data.splitlines()]

    def says(self, **message) -> None:
        self.sock.sendall(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        for fd in self.fds:
            socket.close(fd)
        self.sock.close()


@pytest.fixture
def events():
    return Events()


@pytest.fixture
def zygote_and_processes(parts, events):
    ours, theirs = socket.socketpair()
    zygote = Zygote(theirs)
    outputs = Outputs(parts.context, Throttle(parts.context))
    processes = Processes(parts.context, ours, outputs, events)
    yield zygote, processes
    for process in list(processes.by_pid.values()):
        for output in process.outputs:
            parts.loop.forget(output.fd)
        processes.forget(process)
    processes.close()
    zygote.close()


def start(parts, processes):
    (action,) = parts.start_workers(1)
    processes.start(action.worker)
    return action.worker.shell


def test_a_worker_is_asked_for_with_its_descriptors_and_known_by_its_pid(
    parts, zygote_and_processes
):
    zygote, processes = zygote_and_processes

    process = start(parts, processes)
    (message,) = zygote.heard()
    zygote.says(started=message["start"], pid=4711)
    parts.pass_time(0)

    assert message["index"] == process.pool.index
    assert len(zygote.fds) == 5  # wire, tokens, answers, output, error
    assert processes.by_pid == {4711: process}
    assert processes


def test_one_that_is_killed_before_it_has_a_pid_is_killed_when_it_has_one(
    parts, zygote_and_processes
):
    zygote, processes = zygote_and_processes
    process = start(parts, processes)
    zygote.heard()

    processes.kill(process)
    zygote.says(started=process.number, pid=4711)
    parts.pass_time(0)

    assert zygote.heard() == [{"kill": 4711}]
    processes.kill(process)  # once is enough
    with pytest.raises(BlockingIOError):
        zygote.heard()


def test_one_that_is_to_stop_and_does_not_is_killed(parts, zygote_and_processes, monkeypatch):
    zygote, processes = zygote_and_processes
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.05)
    process = start(parts, processes)
    zygote.heard()
    zygote.says(started=process.number, pid=4711)
    parts.pass_time(0)

    processes.stop(process.pool)
    parts.pass_time(0.1)

    assert zygote.heard() == [{"kill": 4711}]


def test_the_end_of_one_and_a_refused_one_are_told(parts, events, zygote_and_processes):
    zygote, processes = zygote_and_processes
    process = start(parts, processes)
    zygote.says(started=process.number, pid=4711)
    zygote.says(gone=4711, status=-9)
    parts.pass_time(0)
    assert events.exited == [(process.number, -9)]

    zygote.says(started=process.number, pid=0, errno=11)
    parts.pass_time(0)
    assert events.exited[-1] == (process.number, None)
    assert process.errno == 11


def test_without_a_zygote_the_server_is_over(parts, zygote_and_processes):
    zygote, _ = zygote_and_processes

    zygote.sock.close()
    parts.pass_time(0)

    assert parts.context.over


@pytest.mark.parametrize(
    ("status", "number", "said", "stage", "words"),
    [
        (None, 11, "", StartStage.MADE, "no process can be made"),
        (3, None, "Killed by a rule", StartStage.INITIALIZED, "exit code 3\nKilled by a rule"),
        (-9, None, "", StartStage.INITIALIZED, "signal 9"),
        (NOT_PREPARED, None, "", StartStage.PREPARED, f"exit code {NOT_PREPARED}"),
    ],
)
def test_a_failed_start_says_what_is_known(status, number, said, stage, words):
    failure = failed_start(status, number, said)

    assert failure.stage is stage
    assert words in failure.reason
