"""What workers print, and clients that fall behind: pipes and a loop, no process."""

from __future__ import annotations

import os

import pytest

from remote_executor.server import outputs as module
from remote_executor.server.outputs import Outputs, Throttle
from remote_executor.wire.frames import make_frame
from remote_executor.wire.messages import Kind


@pytest.fixture
def throttle(parts):
    return Throttle(parts.context)


@pytest.fixture
def outputs(parts, throttle):
    return Outputs(parts.context, throttle)


@pytest.fixture
def process(parts, outputs):
    for action in parts.start_workers(1):
        process = parts.start(action.worker)
    for output in process.outputs:
        outputs.watch(output)
    return process


def prints(process, text, which=1):
    os.write(process.theirs()[2 + which], text)


def test_whole_lines_are_passed_on_with_their_worker(parts, outputs, process):
    prints(process, b"one\ntwo\nthr")
    outputs.read(process.outputs[0])

    (frame,) = parts.sent()
    assert frame.kind == Kind.OUTPUT
    assert bytes(frame.body) == b"one\ntwo\n"
    assert divmod(frame.aux, 4) == (process.pid, 1)
    assert list(outputs.rests) == [process.outputs[0]]


def test_the_beginning_of_a_line_waits_for_its_end_only_for_so_long(parts, outputs, process):
    prints(process, b"almost")
    outputs.read(process.outputs[0])
    assert parts.sent() == []

    parts.pass_time(module.OUTPUT_SECONDS * 2)

    assert [bytes(frame.body) for frame in parts.sent()] == [b"almost"]
    assert not outputs.rests


def test_the_last_words_of_some_workers_are_passed_on_at_once(parts, outputs, process):
    prints(process, b"almost")
    outputs.read(process.outputs[0])

    outputs.end_lines([])
    assert parts.sent() == []
    outputs.end_lines([process])
    assert [bytes(frame.body) for frame in parts.sent()] == [b"almost"]


def test_what_is_left_of_a_worker_that_has_ended_is_read_and_closed(parts, outputs, process):
    prints(process, b"a line\nand more", which=2)
    process.close_theirs()
    output = process.outputs[1]

    outputs.drain(output)

    assert b"".join(bytes(frame.body) for frame in parts.sent()) == b"a line\nand more"
    assert output.fd == -1
    outputs.drain(output)  # once more, which is nothing
    outputs.read(output)
    assert parts.sent() == []


def test_output_waits_while_its_client_is_far_behind_and_is_read_again_then(
    parts, throttle, outputs, process, monkeypatch
):
    monkeypatch.setattr(module, "MOST_OUTPUT_UNACKED", 100)
    parts.client.send(make_frame(Kind.LOG, body=b"x" * 200))
    parts.sent()
    prints(process, b"one\n")
    output = process.outputs[0]

    outputs.read(output)
    assert parts.sent() == []
    assert list(parts.client.paused_outputs) == [output]
    throttle.resume()
    assert throttle  # its client is as far behind as before

    parts.client.wire.acknowledged(1)
    throttle.resume()
    assert not throttle
    outputs.read(output)
    assert [bytes(frame.body) for frame in parts.sent()] == [b"one\n"]


def test_answers_wait_later_than_output_does(parts, throttle, process, monkeypatch):
    monkeypatch.setattr(module, "MOST_UNACKED", 1000)
    client = parts.client
    client.send(make_frame(Kind.LOG, body=b"x" * 500))
    assert not throttle.must_wait(client, process)
    client.send(make_frame(Kind.LOG, body=b"x" * 600))

    assert throttle.must_wait(client, process)
    assert process.paused
    client.wire.acknowledged(2)
    throttle.resume()

    assert not process.paused
    assert not throttle
