"""Tokens: each is either with the supervisor or with the worker."""

from __future__ import annotations

import os
import select
from types import SimpleNamespace

import pytest

from remote_executor.core.pool import Pool, PoolSession, PoolWorker
from remote_executor.server import token_pipe
from remote_executor.server.token_pipe import ALONG, MARK, MOST_ALONG, TokenPipe, TokenPipes
from remote_executor.wire.frames import make_frame
from remote_executor.wire.messages import Kind


def task(id):
    return make_frame(Kind.TASK, id, b"the call", aux=1)


TASK = task(7)


class Pipe(TokenPipe):
    """A pipe and its worker, who reads step by step."""

    def __init__(self):
        super().__init__()
        self.theirs = self.open()
        os.set_blocking(self.theirs, False)

    def claim(self):
        return int.from_bytes(os.read(self.theirs, 8), "little")

    def read_rest(self):
        """Read what comes after a token with a frame: the mark and the frame."""
        rest = os.read(self.theirs, MARK.size + len(TASK.raw))
        return MARK.unpack(rest[: MARK.size])[0], rest[MARK.size :]

    def is_empty(self):
        return not select.select([self.theirs], [], [], 0)[0]


@pytest.fixture
def pipe():
    pipe = Pipe()
    yield pipe
    pipe.close()
    os.close(pipe.theirs)


@pytest.fixture
def worker(pipe):
    worker = PoolWorker(PoolSession("s", 1, None), 0, 0.0)
    worker.shell = SimpleNamespace(tokens=pipe)
    return worker


def test_a_token_is_either_here_or_there(pipe, worker):
    pipes = TokenPipes()
    worker.assigned = dict.fromkeys([1, 2, 3, 2**62])
    pipe.write([1, 2, 3, 2**62])
    assert pipes.unread(worker) == 4
    assert pipe.claim() == 1
    assert pipes.reclaim(worker) == [2, 3, 2**62]
    assert pipes.reclaim(worker) == []
    assert pipes.unread(worker) == 0
    pipes.restore(worker, [2, 3])
    pipes.restore(worker, [])
    assert pipe.claim() == 2
    assert pipes.reclaim(worker) == [3]


def test_the_worker_waits_for_tokens_and_sees_their_end(pipe, worker):
    assert pipe.is_empty()
    pipe.write([5])
    pipe.close_writing()
    pipe.close_writing()
    assert pipe.claim() == 5
    assert os.read(pipe.theirs, 8) == b""
    pipe.write([6])  # nobody takes it any more
    assert not pipe.write_along(TASK, 0)
    assert pipe.reclaim() == []


def test_what_a_worker_was_not_assigned_is_not_taken_back_from_it(pipe, worker):
    """Its task has forged answers: for one that came along, and for one that did not."""
    worker.assigned = dict.fromkeys([9])
    pipe.write([6])
    pipe.write_along(TASK, 0)
    pipe.write([8, 9])
    pipe.answered(8)
    assert TokenPipes().reclaim(worker) == [9]
    assert pipe.reclaim() == []


def test_a_worker_without_a_process_has_no_tokens(pipe, worker):
    nobody = PoolWorker(PoolSession("s", 1, None), 0, 0.0)
    assert TokenPipes().reclaim(nobody) == []
    assert TokenPipes().unread(nobody) == 0
    pipe.close()
    assert TokenPipes().reclaim(worker) == []
    assert TokenPipes().unread(worker) == 0


def test_the_pool_works_upon_the_pipes(pipe):
    pool = Pool(1, TokenPipes())
    session = pool.open("s", 1)
    pool.queue(session, [1, 2, 3])
    (start,) = pool.assign(0.0)
    start.worker.shell = SimpleNamespace(tokens=pipe)
    pool.ready(start.worker)
    (give,) = pool.assign(0.0)
    pipe.write(give.ids)
    assert pipe.claim() == 1
    assert pool.take_back(session, [1, 2]) == [2]
    assert pool.gone(start.worker) == [1]
    pool.check()


def test_where_a_pipe_cannot_be_opened_twice_the_worker_polls(monkeypatch):
    def refuse(*_):
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(token_pipe.os, "open", refuse)
        pipe = Pipe()
    pipe.write([1])
    assert not os.get_blocking(pipe.theirs)
    assert pipe.reclaim() == [1]
    pipe.close()
    os.close(pipe.theirs)


# ---------------------------------------------------------- tasks that come with their token


def test_a_small_task_comes_along_with_the_mark_of_the_wire(pipe):
    assert pipe.write_along(TASK, 5)
    assert pipe.unread() == 1
    assert pipe.claim() == ALONG + len(TASK.raw)
    assert pipe.unread() == 0
    assert pipe.read_rest() == (5, TASK.raw)
    assert pipe.unread() == 0
    assert pipe.reclaim() == []


def frame_with_segment():
    frame = make_frame(Kind.TASK, 7, b"body")
    frame.segment = "segment"
    return frame


@pytest.mark.parametrize(
    "frame",
    [
        make_frame(Kind.TASK, 7, bytes(MOST_ALONG - 39)),
        make_frame(Kind.TASK, 7, bytes(MOST_ALONG)),
        make_frame(Kind.TASK, 7, bytes(100_000)),
        make_frame(Kind.TASK, 7, b"body", [b"buffer"]),
        frame_with_segment(),
    ],
)
def test_what_is_large_or_in_pieces_goes_by_the_wire(pipe, frame):
    assert not pipe.write_along(frame, 0)
    assert pipe.is_empty()


def test_only_so_much_comes_along_at_a_time(pipe):
    count = 0
    while pipe.write_along(task(count), 0):
        count += 1
    size = 16 + len(task(0).raw)
    assert count * size <= MOST_ALONG < (count + 1) * size
    pipe.write(list(range(count, count + 256)))
    assert pipe.unread() == count + 256
    for id in range(2):
        assert pipe.claim() == ALONG + len(task(id).raw)
        assert pipe.read_rest() == (0, task(id).raw)
    pipe.answered(1)
    assert pipe.write_along(task(count), 0)
    assert pipe.reclaim() == [*range(2, count + 256), count]


def test_answers_make_room_and_nothing_else_does(pipe):
    """What an answer tells of others, and an answer to what came by the wire."""
    pipe.write([1])
    pipe.write_along(task(2), 0)
    pipe.write([3])
    pipe.write_along(task(4), 0)
    assert pipe.claim() == 1
    assert pipe.claim() == ALONG + len(TASK.raw)
    pipe.read_rest()
    pipe.answered(1)
    assert pipe.unread() == 2
    pipe.answered(2)
    assert pipe.unread() == 2
    assert pipe.claim() == 3
    pipe.answered(3)
    assert pipe.reclaim() == [4]
    pipe.answered(4)
    pipe.write([5, 6])
    assert pipe.unread() == 2
    assert pipe.reclaim() == [5, 6]


@pytest.mark.parametrize("before", [(), (1,), (1, 2)])
@pytest.mark.parametrize("behind", [(), (8,), (8, 9)])
def test_all_is_taken_back_and_restored_in_order(pipe, before, behind):
    ids = [*before, 7, *behind]
    if before:
        pipe.write(before)
    pipe.write_along(TASK, 3)
    if behind:
        pipe.write(behind)
    assert pipe.unread() == len(ids)
    assert pipe.reclaim() == ids
    assert pipe.is_empty()
    pipe.restore(ids)
    assert pipe.unread() == len(ids)
    for id in before:
        assert pipe.claim() == id
    assert pipe.claim() == ALONG + len(TASK.raw)
    assert pipe.read_rest() == (3, TASK.raw)
    assert pipe.reclaim() == [*behind]


def test_what_is_not_restored_is_gone(pipe):
    pipe.write_along(TASK, 0)
    pipe.write([8])
    pipe.write_along(task(9), 0)
    assert pipe.reclaim() == [7, 8, 9]
    pipe.restore([8, 9])
    assert pipe.reclaim() == [8, 9]
    pipe.restore([8])
    assert pipe.claim() == 8
    assert pipe.is_empty()
    assert pipe.reclaim() == []


@pytest.mark.parametrize("read", [0, 5, 8, 20])
def test_the_rest_of_one_that_is_being_read_stays_with_the_worker(pipe, read):
    pipe.write([1])
    pipe.write_along(TASK, 3)
    pipe.write([8, 9])
    assert pipe.claim() == 1
    assert pipe.claim() == ALONG + len(TASK.raw)
    begun = os.read(pipe.theirs, read) if read else b""
    assert pipe.unread() == 2
    assert pipe.reclaim() == [8, 9]
    pipe.restore([9])
    assert pipe.unread() == 1
    assert pipe.reclaim() == [9]
    assert pipe.unread() == 0
    assert pipe.reclaim() == []
    assert begun + os.read(pipe.theirs, 4096) == MARK.pack(3) + TASK.raw
    assert pipe.is_empty()
    pipe.write([10])
    assert pipe.reclaim() == [10]


def test_one_after_the_other_keeps_nothing(pipe):
    for id in range(100):
        assert pipe.write_along(task(id), id)
        pipe.claim()
        assert pipe.read_rest() == (id, task(id).raw)
        pipe.answered(id)
        assert not pipe._recent
        assert not pipe._along
