"""The supervisor's end of a worker: pipes, no process."""

from __future__ import annotations

import os
import socket

import pytest

from remote_executor.core.pool import PoolSession, PoolWorker
from remote_executor.net.streams import MOST_FDS
from remote_executor.server.token_pipe import ALONG, MARK
from remote_executor.server.workers import LONGEST_LINE, WorkerProcess
from remote_executor.wire.frames import make_frame
from remote_executor.wire.messages import Kind


@pytest.fixture
def process():
    pool = PoolWorker(PoolSession("s", 1, None), 0, 0.0)
    pool.shell = process = WorkerProcess(pool, 1)
    yield process
    process.close()


def test_output_is_cut_at_line_ends(process):
    output = process.outputs[0]
    write = process.theirs()[3]
    assert output.read() == b""
    assert output.empty
    os.write(write, b"one\ntwo\nthr")
    assert output.read() == b"one\ntwo\n"
    assert not output.empty
    os.write(write, b"ee\nfour")
    assert output.read() == b"three\n"
    assert output.take_rest() == b"four"
    assert output.take_rest() == b""
    os.write(write, b"x" * (LONGEST_LINE + 1))
    assert output.read() == b"x" * (LONGEST_LINE + 1)
    process.close_theirs()
    assert output.read() is None
    assert output.empty


def test_the_last_words_on_standard_error_are_kept(process):
    os.write(process.theirs()[3], b"out\n")
    os.write(process.theirs()[4], b"first\n" + b"\xff last\n")
    for output in process.outputs:
        output.read()
    assert process.stderr(7) == "\ufffd last\n"
    assert process.stderr(100) == "first\n\ufffd last\n"


def test_the_wire(process):
    wire = process.theirs()[0]
    assert process.receive() == []
    assert process.drained
    process.outbox.put(make_frame(Kind.TASK, 7, b"body"))
    assert process.flush()
    data = os.read(wire, 1000)
    os.write(wire, data)
    (frame,) = process.receive()
    assert (frame.kind, frame.id, bytes(frame.body)) == (Kind.TASK, 7, b"body")
    process.outbox.put(make_frame(Kind.TASK, 8, bytes(4_000_000)))
    assert not process.flush()
    process.close_theirs()
    assert process.flush()  # there is nobody to write to any more
    assert not process.outbox.size
    assert process.receive() is None
    assert process.receive() is None
    assert "WorkerProcess" in repr(process)


def ids(frames):
    return [frame.id for frame in frames]


def say(fd, *numbers):
    for number in numbers:
        os.write(fd, make_frame(Kind.RESULT, number, b"value").raw)


def test_what_was_said_by_the_pipe_before_a_frame_of_the_wire_comes_before_it(process):
    wire, answers = process.theirs()[0], process.theirs()[2]
    say(answers, 1)
    say(wire, 3)
    assert ids(process.receive()) == [1, 3]

    class Beside:
        """The worker goes on while we look: it prints, too."""

        def poll(self, timeout):
            found = kept.poll(timeout)
            if not found:
                say(wire, 7)
                os.write(process.theirs()[3], b"words")
                say(answers, 5)
                say(wire, 6)
                found = kept.poll(timeout)
            return found[:1]

    say(answers, 4)
    process.beside, kept = Beside(), process.beside
    assert ids(process.receive()) == [4, 5, 7, 6]
    assert process.printed
    process.beside = kept
    assert process.receive() == []


@pytest.mark.parametrize("closed", [0, 2])
def test_a_worker_that_closes_one_of_its_ends_is_at_its_end_once_all_is_read(process, closed):
    wire, answers = process.theirs()[0], process.theirs()[2]
    say(answers, 1)
    say(wire, 2)
    os.close(process.theirs().pop(closed))
    assert ids(process.receive()) == [1, 2]
    assert not process.drained
    assert process.receive() is None
    assert process.drained
    assert process.receive() is None


def test_it_is_known_whether_there_was_output_when_an_answer_came(process):
    answers, out = process.theirs()[2], process.theirs()[3]
    say(answers, 1)
    assert ids(process.receive()) == [1]
    assert not process.printed
    os.write(out, b"words")
    say(answers, 2)
    assert ids(process.receive()) == [2]
    assert process.printed
    process.outputs[0].read()
    say(answers, 3)
    assert ids(process.receive()) == [3]
    assert not process.printed


def test_the_end_waits_for_the_rest_of_a_large_answer(process):
    answers = process.theirs()[2]
    parts = make_frame(Kind.FAILURE, 1, bytes(100_000)).parts()
    os.write(answers, parts[0] + parts[1][:60_000])
    assert process.receive() == []
    assert not process.drained
    assert process.receive() == []
    assert process.drained
    os.write(answers, parts[1][60_000:])
    process.close_theirs()
    while not (frames := process.receive()):
        assert frames == []
    assert ids(frames) == [1]
    assert process.receive() is None


def given(process):
    """Return what a worker finds in its token pipe: ids, and of tasks that come along the mark."""
    data = os.read(process.theirs()[1], 4096)
    found = []
    while data:
        token = int.from_bytes(data[:8], "little")
        data = data[8:]
        if token >= ALONG:
            size = token - ALONG
            found.append((*MARK.unpack(data[: MARK.size]), data[MARK.size :][:size]))
            data = data[MARK.size + size :]
        else:
            found.append(token)
    return found


def test_a_task_that_is_given_singly_goes_along_with_its_token(process):
    wire = process.theirs()[0]
    first, one, two, lone = (make_frame(Kind.TASK, id, b"call", aux=3) for id in (1, 2, 3, 4))
    blob = make_frame(Kind.BLOB, 0, b"function", aux=3)
    process.put(blob)
    assert process.give([first])
    assert given(process) == [(1, first.raw)]
    assert os.read(wire, 1000) == blob.raw  # and what it needs has gone before
    assert process.give([one, two])
    assert process.give([lone])
    assert given(process) == [2, 3, (3, lone.raw)]
    assert os.read(wire, 1000) == one.raw + two.raw


def test_a_large_task_goes_by_the_wire_also_singly(process):
    wire = process.theirs()[0]
    large = make_frame(Kind.TASK, 5, bytes(4000))
    assert process.give([large])
    assert given(process) == [5]
    assert os.read(wire, 10_000) == large.raw


def test_the_rest_of_what_a_task_needs_is_to_be_written_later(process):
    process.put(make_frame(Kind.BLOB, 0, bytes(4_000_000), aux=3))
    assert not process.give([make_frame(Kind.TASK, 1, b"call", aux=3)])
    assert process.outbox.size


def test_a_wire_that_brings_descriptors_and_no_frames_is_at_its_end(process):
    wire, answers = process.theirs()[0], process.theirs()[2]
    os.write(wire, make_frame(Kind.RESULT, 2, bytes(10_000)).raw[:24])
    with socket.socket(fileno=os.dup(wire)) as sock:
        for _ in range(MOST_FDS + 2):
            socket.send_fds(sock, [b"x"], [wire])
    say(answers, 1)
    found = []
    while (frames := process.receive()) is not None:
        found += ids(frames)
    assert found == [1]
    assert process.drained
