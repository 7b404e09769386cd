"""The shortcut: what callers do is in the journal, whatever comes between. Sockets are real."""

from __future__ import annotations

import contextvars
import pickle
import socket
from types import SimpleNamespace

import pytest

from remote_executor.client.futures import FarmFuture
from remote_executor.client.shortcut import LARGEST, MOST, Shortcut
from remote_executor.client.waits import IN_A_STEP, check_may_wait
from remote_executor.core.known import Functions
from remote_executor.core.tasks import Task
from remote_executor.net.loop import Loop
from remote_executor.net.streams import SocketStream
from remote_executor.wire.frames import make_frame
from remote_executor.wire.messages import Kind


class Unpickling:
    """Raises something when it is unpickled."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        return _raise, (self.error,)


def _raise(error):
    raise error


@pytest.fixture
def loop():
    loop = Loop()
    if not loop.can_be_shared:
        pytest.skip("needs epoll")
    yield loop
    loop.close()


@pytest.fixture
def functions():
    return Functions()


@pytest.fixture
def server(loop):
    """The other end, and the client's stream to it, which the loop watches."""
    ours, theirs = socket.socketpair()
    stream = SocketStream(ours)
    stream.fds = []
    loop.watch(stream.fileno(), lambda: None)
    theirs.settimeout(5)
    yield SimpleNamespace(sock=theirs, stream=stream)
    loop.forget(stream.fileno())
    stream.close()
    theirs.close()


@pytest.fixture
def encoded():
    return SimpleNamespace(key=b"f", body=b"f", buffers=(), parts=(), pure=True)


@pytest.fixture
def peer(server, functions, encoded):
    return SimpleNamespace(stream=server.stream, known={functions.number(encoded).number})


@pytest.fixture
def shortcut(loop, functions, peer):
    shortcut = Shortcut(loop, functions)
    assert shortcut.open(peer)
    return shortcut


@pytest.fixture
def new(shortcut, encoded):
    """Make a task, and its future as submit() leaves it."""
    numbers = iter(range(1, 1000))

    def make(body=b"call"):
        future = FarmFuture()
        task = Task(next(numbers), future, encoded, body)
        task.size = len(body)
        future._task, future._shortcut = task, shortcut
        return task

    return make


def answer(server, task, value):
    frame = make_frame(Kind.RESULT, task.id, pickle.dumps(value))
    server.sock.sendall(frame.raw)


def woken(loop):
    return loop.nap(0)


# ------------------------------------------------------------------------- callers


def test_a_task_goes_and_its_answer_settles_its_future(shortcut, new, server, loop):
    task = new()

    assert shortcut.send(task)
    frame = make_frame(Kind.TASK, task.id, b"call", aux=1)
    assert server.sock.recv(1000) == bytes(frame.raw)
    answer(server, task, "value")

    assert task.sink.result(5) == "value"
    assert not woken(loop)
    sent, received = shortcut.take(True)
    assert [(each, count) for each, _, count in sent] == [(task, len(frame.raw))]
    assert len(received) == 1
    assert shortcut.is_open()


def test_one_task_at_a_time(shortcut, new, server):
    first, second = new(), new()

    assert shortcut.send(first)
    assert not shortcut.send(second)
    answer(server, first, 1)
    assert first.sink.result(5) == 1
    assert shortcut.send(second)


@pytest.mark.parametrize(
    "unusual",
    [
        {"size": LARGEST + 1},
        {"buffers": (b"",)},
        {"timeout": 1.0},
        {"encoded": SimpleNamespace(key=b"other")},
    ],
    ids=lambda each: next(iter(each)),
)
def test_what_is_unusual_goes_the_usual_way(shortcut, new, unusual):
    task = new()
    for name, value in unusual.items():
        setattr(task, name, value)

    assert not shortcut.send(task)
    assert shortcut.take(False) == ([], [])


def test_a_function_that_the_server_does_not_know_goes_the_usual_way(shortcut, new, peer):
    peer.known.clear()

    assert not shortcut.send(new())


def test_nothing_goes_while_it_is_closed(shortcut, new):
    shortcut.take(False)

    assert not shortcut.send(new())


def test_a_stream_that_takes_nothing_is_left_to_the_io_thread(shortcut, new, server):
    while server.stream.send([b"x" * 100_000]):
        pass

    assert not shortcut.send(new())
    assert shortcut.take(False) == ([], [])


def test_a_long_journal_is_left_to_the_io_thread(shortcut, new, server):
    for _ in range(MOST + 1):
        task = new()
        assert shortcut.send(task)
        answer(server, task, None)
        task.sink.result(5)

    assert not shortcut.send(new())


def test_who_waits_too_long_tells_the_io_thread(shortcut, new, loop):
    task = new()
    shortcut.send(task)
    shortcut.fetch(task, task.sink)

    assert woken(loop)
    assert not task.sink.is_settled()


def test_who_waits_in_vain_for_what_was_closed_tells_nobody(shortcut, new, loop):
    task = new()
    shortcut.send(task)
    shortcut.take(False)
    shortcut.fetch(task, task.sink)

    assert not woken(loop)


def test_a_short_timeout_is_kept(shortcut, new, loop):
    from concurrent.futures import TimeoutError

    task = new()
    shortcut.send(task)
    with pytest.raises(TimeoutError):
        task.sink.result(0)

    assert woken(loop)


@pytest.mark.parametrize(
    "frames",
    [
        [make_frame(Kind.ACK, 1)],
        [make_frame(Kind.RESULT, 999, b"of another")],
        [make_frame(Kind.RESULT, 1, b"body"), make_frame(Kind.PING)],
        [make_frame(Kind.RESULT, 1, b"body", [b"buffer"])],
        [make_frame(Kind.FAILURE, 1, b"{}")],
    ],
    ids=["other kind", "other task", "more", "buffers", "failure"],
)
def test_another_message_than_the_answer_is_the_io_threads(shortcut, new, server, loop, frames):
    task = new()
    shortcut.send(task)
    data = b"".join(bytes(part) for frame in frames for part in frame.parts())
    server.sock.sendall(data)
    shortcut.fetch(task, task.sink)

    assert woken(loop)
    assert not task.sink.is_settled()
    sent, received = shortcut.take(True)
    assert not shortcut.is_open()
    assert len(sent) == 1
    server.stream.put_back(received)
    buffer = bytearray(1000)
    assert buffer[: server.stream.receive(memoryview(buffer))] == data


def test_half_a_header_and_the_end_of_the_stream_are_the_io_threads(shortcut, new, server, loop):
    task = new()
    shortcut.send(task)
    server.sock.sendall(b"half")
    shortcut.fetch(task, task.sink)
    assert woken(loop)
    assert not task.sink.is_settled()
    sent, received = shortcut.take(True)

    assert len(sent) == 1
    assert [each[0] for each in received] == [b"half"]


def test_the_answer_of_another_caller_is_not_taken(shortcut, new, server, loop):
    task, other = new(), new()
    shortcut.send(task)
    answer(server, task, 1)
    shortcut.fetch(other, other.sink)

    assert woken(loop)
    sent, received = shortcut.take(False)
    assert ([each[0] for each in sent], received) == ([task], [])


def test_bytes_that_somebody_else_took_are_not_waited_for(shortcut, new, loop, server, monkeypatch):
    task = new()
    shortcut.send(task)
    monkeypatch.setattr(loop, "look", lambda _: [(server.stream.fileno(), 1)])
    shortcut.fetch(task, task.sink)

    assert woken(loop)


def test_what_cannot_be_unpickled_is_the_io_threads(shortcut, new, server, loop):
    task = new()
    shortcut.send(task)
    answer(server, task, Unpickling(ValueError("no")))
    shortcut.fetch(task, task.sink)

    assert woken(loop)
    assert not task.sink.is_settled()


def test_an_interrupt_while_it_is_unpickled_is_the_callers(shortcut, new, server):
    task = new()
    shortcut.send(task)
    answer(server, task, Unpickling(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        shortcut.fetch(task, task.sink)

    sent, received = shortcut.take(True)
    assert len(sent) == len(received) == 1


@pytest.mark.parametrize(
    "look",
    [lambda f: f.done(), lambda f: f.running(), lambda f: f.add_done_callback(print)],
    ids=["done", "running", "callback"],
)
def test_who_looks_in_another_way_ends_it(shortcut, new, loop, look):
    task = new()
    shortcut.send(task)
    look(task.sink)

    assert woken(loop)


def test_a_result_that_the_io_thread_has_set_stays(shortcut, new):
    future = new().sink
    future.set_result(1)
    future.settle(2)

    assert future.result() == 1


# ------------------------------------------------------------------- the I/O thread


def test_it_closes_when_nobody_uses_it(shortcut):
    assert shortcut.take(True) == ([], [])
    assert not shortcut.is_open()


def test_a_task_under_way_stays_in_the_journal_for_once(shortcut, new):
    task = new()
    shortcut.send(task)

    assert shortcut.take(True) == ([], [])
    assert shortcut.is_open()
    sent, _ = shortcut.take(True)
    assert [each[0] for each in sent] == [task]
    assert not shortcut.is_open()


def test_the_answer_comes_after_a_look_at_the_journal(shortcut, new, server):
    first, second = new(), new()
    shortcut.send(first)
    answer(server, first, 1)
    first.sink.result(5)
    shortcut.send(second)

    sent, received = shortcut.take(True)
    assert [each[0] for each in sent] == [first]
    assert len(received) == 1
    answer(server, second, 2)
    assert second.sink.result(5) == 2
    sent, received = shortcut.take(True)
    assert [each[0] for each in sent] == [second]
    assert len(received) == 1
    assert shortcut.is_open()


def test_a_stream_that_cannot_be_shared_is_not_opened(loop, functions):
    shortcut = Shortcut(loop, functions)

    assert not shortcut.open(SimpleNamespace(stream=None))
    assert not shortcut.open(SimpleNamespace(stream=SimpleNamespace(steps=lambda: None)))
    assert not shortcut.is_open()


def test_a_forked_child_has_none(shortcut, new):
    shortcut.alone(shortcut.forget)  # forked while another thread has the journal

    assert not shortcut.send(new())
    assert shortcut.alone(lambda: shortcut.take(True)) == ([], [])
    assert "closed" in repr(shortcut)


def test_a_closed_loop_is_nobodys_fault(shortcut, new, loop, server):
    task = new()
    shortcut.send(task)
    loop.forget(server.stream.fileno())
    loop.close()
    try:
        shortcut.fetch(task, task.sink)
    finally:
        loop.watch = lambda *_: None
        loop.forget = lambda *_: None

    assert not task.sink.is_settled()


def test_a_finalizer_in_the_middle_of_a_step_does_not_wait():
    """It would wait for the I/O thread, which waits for the step to be over."""
    context = contextvars.copy_context()
    context.run(IN_A_STEP.set, True)
    with pytest.raises(RuntimeError, match="finalizer in the middle of a submit"):
        context.run(check_may_wait)
    check_may_wait()
