"""The supervisor's end of a worker: pipes, no process."""

from __future__ import annotations

import os
import socket

import pytest

from remote_executor.core.pool import PoolSession, PoolWorker
from remote_executor.net.streams import MOST_FDS
from remote_executor.server.token_pipe import LONE, LONE_MOST
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


def alone(process, frame):
    """Offer a task to an idle worker; return what is in its token pipe, if it was taken."""
    if not process.give_alone(frame):
        return None
    token = int.from_bytes(os.read(process.theirs()[1], 8), "little")
    return os.read(process.theirs()[1], token - LONE)


def put(process, *ids):
    process.put_tasks([make_frame(Kind.TASK, id) for id in ids], ids)


def test_an_answer_to_a_task_that_was_here_before_does_not_say_what_has_been_read(process):
    put(process, 4, 5)
    process.put(make_frame(Kind.RELOAD, 0, b"modules"))
    put(process, 5)  # it was taken back, and comes once more
    process.answered(5)
    assert not process.settled
    put(process, 6, 3)
    process.answered(3)
    assert not process.settled
    put(process, 7)
    process.answered(7)
    assert process.settled


def test_no_id_stands_for_something_else(process):
    put(process, 0)
    process.answered(0)
    assert process.settled
    process.put(make_frame(Kind.FORGET, 0))
    process.answered(0)
    assert not process.settled


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


def test_an_idle_worker_that_has_read_the_wire_is_given_a_task_past_it(process):
    lone = make_frame(Kind.TASK, 9, b"call", aux=3)
    process.known.add(3)
    assert alone(process, lone) is None  # nothing is known of what it has read
    put(process, 1, 2)
    process.answered(1)
    assert alone(process, lone) is None
    process.answered(2)
    assert alone(process, lone) == lone.raw
    process.answered(9)
    assert alone(process, lone) == lone.raw
    process.put(make_frame(Kind.RELOAD, 0, b"modules"))
    process.answered(9)
    assert alone(process, lone) is None


def test_only_a_small_plain_task_of_a_known_function_goes_alone(process):
    process.known.add(3)
    put(process, 1)
    process.answered(1)
    room = LONE_MOST - 24
    with_segment = make_frame(Kind.TASK, 2, b"", aux=3)
    with_segment.segment = "segment"
    assert alone(process, make_frame(Kind.TASK, 2, bytes(room), aux=3)) is not None
    assert alone(process, make_frame(Kind.TASK, 2, bytes(room + 1), aux=3)) is None
    assert alone(process, make_frame(Kind.TASK, 2, bytes(100_000), aux=3)) is None
    assert alone(process, make_frame(Kind.TASK, 2, b"", [b"buffer"], aux=3)) is None
    assert alone(process, make_frame(Kind.TASK, 2, b"", aux=4)) is None
    assert alone(process, with_segment) is None
