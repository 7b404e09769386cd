"""Tokens: each is either with the supervisor or with the worker."""

from __future__ import annotations

import os
import select
from types import SimpleNamespace

import pytest

from remote_executor.core.pool import Pool, PoolSession, PoolWorker
from remote_executor.server import token_pipe
from remote_executor.server.token_pipe import LONE, TokenPipe, TokenPipes
from remote_executor.wire.frames import make_frame
from remote_executor.wire.messages import Kind

LONE_TASK = make_frame(Kind.TASK, 7, b"the call", aux=1)


class Pipe(TokenPipe):
    """A pipe and its worker, who reads step by step."""

    def __init__(self):
        super().__init__()
        self.theirs = self.open()
        os.set_blocking(self.theirs, False)

    def claim(self):
        return int.from_bytes(os.read(self.theirs, 8), "little")

    def read_lone(self):
        return os.read(self.theirs, len(LONE_TASK.raw))

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
    pipe.write_lone(LONE_TASK)
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


# -------------------------------------------------------------------------- lone tasks


def test_a_lone_task_takes_its_frame_along(pipe):
    pipe.write_lone(LONE_TASK)
    assert pipe.unread() == 1
    assert pipe.claim() == LONE + len(LONE_TASK.raw)
    assert pipe.unread() == 0
    assert pipe.read_lone() == LONE_TASK.raw
    assert pipe.unread() == 0
    assert pipe.reclaim() == []


@pytest.mark.parametrize("behind", [(), (8,), (8, 9)])
def test_a_lone_task_is_taken_back_and_restored_before_those_behind_it(pipe, behind):
    pipe.write_lone(LONE_TASK)
    pipe.write(behind or [3])
    ids = [7, *(behind or [3])]
    assert pipe.unread() == len(ids)
    assert pipe.reclaim() == ids
    assert pipe.is_empty()
    pipe.restore(ids)
    assert pipe.unread() == len(ids)
    assert pipe.claim() == LONE + len(LONE_TASK.raw)
    assert pipe.read_lone() == LONE_TASK.raw
    assert pipe.reclaim() == ids[1:]


def test_a_lone_task_that_is_not_restored_is_gone(pipe):
    pipe.write_lone(LONE_TASK)
    pipe.write([8, 9])
    assert pipe.reclaim() == [7, 8, 9]
    pipe.restore([8])
    assert pipe.reclaim() == [8]
    pipe.restore([8])
    assert pipe.claim() == 8
    assert pipe.is_empty()


def test_a_lone_task_that_the_worker_begins_to_read_stays_with_it(pipe):
    pipe.write_lone(LONE_TASK)
    pipe.write([8, 9])
    assert pipe.claim() == LONE + len(LONE_TASK.raw)
    assert pipe.unread() == 2
    assert pipe.reclaim() == [8, 9]
    pipe.restore([9])
    assert pipe.unread() == 1
    assert pipe.reclaim() == [9]
    assert pipe.unread() == 0
    assert pipe.reclaim() == []
    assert pipe.read_lone() == LONE_TASK.raw
    assert pipe.is_empty()
    pipe.write([10])
    assert pipe.reclaim() == [10]


def test_the_rest_of_a_lone_task_stays_with_who_has_read_a_part(pipe):
    pipe.write_lone(LONE_TASK)
    pipe.claim()
    begun = os.read(pipe.theirs, 5)
    assert pipe.unread() == 0
    assert pipe.reclaim() == []
    assert begun + os.read(pipe.theirs, 4096) == LONE_TASK.raw


def test_one_lone_task_after_the_other(pipe):
    for behind in ((), (8,)):
        pipe.write_lone(LONE_TASK)
        for id in behind:
            pipe.write([id])
        pipe.claim()
        pipe.read_lone()
        for id in behind:
            assert pipe.claim() == id
    pipe.write_lone(LONE_TASK)
    assert pipe.reclaim() == [7]
