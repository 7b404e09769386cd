"""The loop of a worker, run in this process: frames and tokens in, frames out."""

from __future__ import annotations

import functools
import operator
import os
import pickle
import socket
from types import SimpleNamespace

import pytest

from remote_executor.payload import shared
from remote_executor.payload.pickles import dump, load
from remote_executor.server.token_pipe import ALONG, MARK
from remote_executor.server.worker import PIPED, Worker, current
from remote_executor.wire.frames import FrameReader, make_frame
from remote_executor.wire.messages import Flag, Kind, decode_fields, encode_ids


class Desk:
    """The supervisor's side of a worker."""

    def __init__(self):
        self.sock, theirs = socket.socketpair()
        self.token_read, self.token_write = os.pipe()
        self.answers, answers = os.pipe()
        os.set_blocking(self.answers, False)
        self.by_wire = []
        self.worker = Worker(theirs.detach(), self.token_read, answers)
        self.reader = FrameReader(1 << 30)
        self.reader.open_up(1 << 30)

    def send(self, *args, **kwargs):
        for part in make_frame(*args, **kwargs).parts():
            self.sock.sendall(part)

    def blob(self, number, function, pure=True):
        body, buffers = dump(function)
        flags = Flag.PURE if pure else 0
        self.send(Kind.BLOB, 0, body, buffers, aux=number, flags=flags)

    def task(self, id, number, *args, flags=0, **kwargs):
        body, buffers = dump((args, kwargs))
        self.send(Kind.TASK, id, body, buffers, aux=number, flags=flags)

    def batch(self, id, number, items, flags=0):
        body, buffers = dump(items)
        self.send(Kind.TASK, id, body, buffers, aux=number, flags=Flag.BATCH | flags)

    def run(self, *ids):
        """Let the worker begin these tasks, and return the frames it sends."""
        for id in ids:
            os.write(self.token_write, id.to_bytes(8, "little"))
        os.close(self.token_write)
        self.token_write = -1
        self.worker.serve()
        return self.frames()

    def frames(self):
        self.sock.setblocking(False)
        reader = FrameReader(1 << 30)
        reader.open_up(1 << 30)
        frames = self._read(self.reader, lambda buffer: os.readv(self.answers, [buffer]))
        self.by_wire = self._read(reader, self.sock.recv_into)
        return frames

    def _read(self, reader, receive):
        frames = []
        while True:
            try:
                frames += reader.filled(receive(reader.get_buffer()))
            except BlockingIOError:
                return frames

    def close(self):
        self.sock.close()
        self.worker._sock.close()
        os.close(self.worker._answers)
        os.close(self.answers)
        os.close(self.token_read)
        if self.token_write >= 0:
            os.close(self.token_write)


@pytest.fixture
def desk():
    desk = Desk()
    yield desk
    desk.close()


def what():
    return current.task


def test_tasks_run_in_the_order_of_their_tokens(desk):
    desk.blob(1, operator.add)
    desk.task(5, 1, 1, 2)
    desk.task(6, 1, "a", "b")
    one, two = desk.run(5, 6)
    assert (one.kind, one.id, load(one.body)) == (Kind.RESULT, 5, 3)
    assert (two.kind, two.id, load(two.body)) == (Kind.RESULT, 6, "ab")


def test_a_task_without_a_token_is_dropped(desk):
    desk.blob(1, operator.neg)
    for id in range(6):
        desk.task(id, 1, id)
    frames = desk.run(1, 4)
    assert [(frame.id, load(frame.body)) for frame in frames] == [(1, -1), (4, -4)]


def test_a_task_that_came_twice_runs_once(desk):
    desk.blob(1, operator.neg)
    for id in (1, 2, 1, 3):
        desk.task(id, 1, id)
    assert [frame.id for frame in desk.run(1, 3)] == [1, 3]


def along(frame, mark):
    """Return a token that takes its task along."""
    return (ALONG + len(frame.raw)).to_bytes(8, "little") + MARK.pack(mark) + frame.raw


def call(id, number, *args):
    return make_frame(Kind.TASK, id, dump((args, {}))[0], aux=number)


def test_a_task_may_come_with_its_token(desk):
    desk.blob(1, operator.neg)
    desk.task(1, 1, 1)
    os.write(desk.token_write, (1).to_bytes(8, "little") + along(call(2, 1, 5), 2))
    desk.task(3, 1, 3)
    frames = desk.run(3)
    assert [(frame.id, load(frame.body)) for frame in frames] == [(1, -1), (2, -5), (3, -3)]


def test_what_was_on_the_wire_before_its_mark_comes_first_and_nothing_else(desk):
    desk.blob(1, operator.neg)
    desk.task(2, 1, 1)  # taken back: there is no token for it
    desk.blob(1, operator.pos)
    os.write(desk.token_write, along(call(5, 1, 7), 3))
    desk.blob(1, abs)
    desk.task(6, 1, -8)
    frames = desk.run(6)
    assert [(frame.id, load(frame.body)) for frame in frames] == [(5, 7), (6, 8)]


def test_it_waits_for_what_is_still_to_come_by_the_wire(desk, monkeypatch):
    receive = Worker._receive

    def receive_late(worker):
        desk.blob(1, operator.neg)
        receive(worker)

    monkeypatch.setattr(Worker, "_receive", receive_late)
    os.write(desk.token_write, along(call(5, 1, 7), 1))
    (frame,) = desk.run()
    assert load(frame.body) == -7


def test_the_second_half_of_a_token_may_be_in_the_supervisors_hands_for_a_moment(desk):
    """The supervisor has read the pipe to see who has begun, and puts it back."""
    token = along(make_frame(Kind.TASK, 2, b"body", aux=1), 0)
    pieces = [token[8:20], token[20:]]

    class Waiter:
        def poll(self):
            os.write(desk.token_write, pieces.pop(0))

    desk.worker._waiter = Waiter()
    frame = desk.worker._read_along(len(token) - 16)
    assert (frame.kind, frame.id, frame.aux, frame.body) == (Kind.TASK, 2, 1, b"body")
    assert not pieces


def test_no_tokens_no_tasks(desk):
    desk.blob(1, operator.neg)
    desk.task(1, 1, 1)
    assert desk.run() == []


def test_where_the_token_pipe_cannot_block_it_is_polled(desk):
    os.set_blocking(desk.token_read, False)
    desk.blob(1, operator.neg)
    desk.task(1, 1, 1)
    assert [frame.id for frame in desk.run(1)] == [1]


def test_keyword_arguments_and_the_current_task(desk):
    desk.blob(1, dict)
    desk.blob(2, what)
    desk.task(1, 1, a=1, b=2)
    desk.task(2, 2)
    one, two = desk.run(1, 2)
    assert load(one.body) == {"a": 1, "b": 2}
    assert load(two.body) == 2
    assert current.task is None


def test_functions_are_forgotten_in_their_turn(desk):
    desk.blob(1, operator.neg)
    desk.task(1, 1, 1)
    desk.send(Kind.FORGET, aux=1)
    desk.task(2, 1, 1)
    one, two = desk.run(1, 2)
    assert (one.kind, two.kind) == (Kind.RESULT, Kind.FAILURE)


@pytest.mark.parametrize("size", [PIPED + 1, 100_000])
def test_a_large_result_goes_by_the_wire(desk, size):
    desk.blob(1, operator.mul)
    desk.task(1, 1, "x", size)
    assert desk.run(1) == []
    (frame,) = desk.by_wire
    assert load(frame.body) == "x" * size


@pytest.mark.parametrize(
    ("function", "args", "error"),
    [
        (operator.truediv, (1, 0), ZeroDivisionError),
        (exit, (3,), SystemExit),
        (operator.add, (), TypeError),
    ],
)
def test_failures(desk, function, args, error):
    desk.blob(1, function)
    desk.task(1, 1, *args)
    (frame,) = desk.run(1)
    assert frame.kind == Kind.FAILURE
    assert decode_fields(frame.body)["type"] == error.__name__
    assert type(pickle.loads(frame.buffers[0])) is error


def make_generator(*_):
    return (i for i in range(3))


def generator_at_two(x):
    return make_generator() if x == 2 else x


def test_a_result_that_cannot_be_pickled(desk):
    desk.blob(1, make_generator)
    desk.task(1, 1)
    (frame,) = desk.run(1)
    assert frame.kind == Kind.FAILURE
    assert "pickle" in decode_fields(frame.body)["message"]


def test_batches(desk):
    desk.blob(1, operator.neg)
    desk.blob(2, operator.add)
    desk.batch(1, 1, [1, 2, 3])
    desk.batch(2, 2, [(1, 2), ("a", "b")], Flag.STAR)
    desk.batch(3, 1, [])
    assert [load(frame.body) for frame in desk.run(1, 2, 3)] == [[-1, -2, -3], [3, "ab"], []]


def reciprocal(x):
    return 1 / x


def stop_at_two(x):
    if x == 2:
        raise StopIteration
    return x


@pytest.mark.parametrize(
    ("function", "items", "error", "values"),
    [
        (reciprocal, [1, 2, 0, 4], ZeroDivisionError, [1.0, 0.5]),
        (stop_at_two, [0, 1, 2, 3], StopIteration, [0, 1]),
        (reciprocal, 7, TypeError, []),
    ],
)
def test_a_batch_that_fails(desk, function, items, error, values):
    desk.blob(1, function)
    desk.batch(1, 1, items)
    (frame,) = desk.run(1)
    assert frame.kind == Kind.FAILURE
    assert frame.flags & Flag.BATCH
    assert type(pickle.loads(frame.buffers[0])) is error
    assert load(frame.buffers[1], frame.buffers[2:]) == values


def test_a_batch_with_a_result_that_cannot_be_pickled(desk):
    desk.blob(1, generator_at_two)
    desk.batch(1, 1, [0, 1, 2, 3])
    (frame,) = desk.run(1)
    assert "pickle" in decode_fields(frame.body)["message"]
    assert load(frame.buffers[1], frame.buffers[2:]) == [0, 1]


box = []


def fill(*args):
    box.extend(args)


def test_the_initializer(desk):
    box.clear()
    body, buffers = dump((fill, (1, 2)))
    desk.send(Kind.SETUP, 0, body, buffers)
    assert desk.worker.set_up(1)
    desk.worker.say_ready()
    (frame,) = desk.frames()
    assert (frame.kind, frame.id) == (Kind.READY, os.getpid())
    assert box == [1, 2]


@pytest.mark.parametrize("function", [operator.truediv, exit])
def test_an_initializer_that_fails(desk, function):
    body, buffers = dump((function, (1, 0) if function is operator.truediv else (1,)))
    desk.blob(1, operator.neg)
    desk.send(Kind.SETUP, 0, body, buffers)
    assert not desk.worker.set_up(1)
    (frame,) = desk.frames()
    assert frame.kind == Kind.BROKEN
    assert decode_fields(frame.body)["type"] in ("ZeroDivisionError", "SystemExit")
    assert pickle.loads(frame.buffers[0]).args in (("division by zero",), (1,))


def share(desk, number, obj):
    """Send a shared object, and return what stands for it in calls."""
    token = shared.make_token(b"an owner", number)
    body, buffers = dump(obj)
    desk.send(Kind.BLOB, 0, token, [body, *buffers], aux=number, flags=Flag.SHARED)
    return shared.Shared(SimpleNamespace(token=token))


def change(items):
    before = list(items)
    items.append(len(items))
    return before


def test_a_shared_object_is_new_for_each_task(desk):
    """L13."""
    desk.blob(1, change)
    handle = share(desk, 2, [7])
    for id in range(3):
        desk.task(id, 1, handle)

    assert [load(frame.body) for frame in desk.run(0, 1, 2)] == [[7]] * 3


def test_a_batch_has_a_shared_object_together(desk):
    desk.blob(1, change)
    desk.batch(5, 1, [share(desk, 2, [7])] * 2)

    assert [load(frame.body) for frame in desk.run(5)] == [[[7], [7, 1]]]


def test_a_shared_object_is_forgotten(desk):
    desk.blob(1, change)
    handle = share(desk, 2, [7])
    desk.send(Kind.FORGET, aux=2)
    desk.task(5, 1, handle)

    (frame,) = desk.run(5)
    assert (frame.kind, frame.flags & Flag.UNLOADED) == (Kind.FAILURE, Flag.UNLOADED)
    assert decode_fields(frame.body)["type"] == "PayloadError"


def test_parts_of_functions_come_apart(desk):
    large = pickle.PickleBuffer(bytearray(100_000))
    body, (buffer,) = dump(functools.partial(operator.getitem, large))
    desk.send(Kind.BLOB, 0, b"", [b"x" * len(buffer)], aux=4, flags=Flag.PART)
    for number, part in ((1, 4), (2, 9)):
        desk.send(Kind.BLOB, 1, body, [encode_ids([part])], aux=number)
        desk.task(number, number, 5)

    one, two = desk.run(1, 2)

    assert load(one.body) == ord("x")
    assert two.kind == Kind.FAILURE, "there is no part of that number"
