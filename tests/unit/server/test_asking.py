"""Questions for modules, from a worker's thread by way of the supervisor to the client and back."""

from __future__ import annotations

import os
import socket
import sys
import threading

import pytest

from remote_executor.errors import RemoteProtocolError
from remote_executor.net.loop import Loop
from remote_executor.net.segments import WORTH
from remote_executor.server.asker import Asker, make_finder
from remote_executor.server.asking import QUESTION_LIMIT, Asking
from remote_executor.server.sharing import Incoming, Memory
from remote_executor.server.worker import LateFinder
from remote_executor.wire.frames import FrameReader, make_frame
from remote_executor.wire.messages import Kind, decode_fields, encode_fields
from tests.support.scale import scaled
from tests.support.waiting import wait_until


class Desk:
    """A supervisor's loop, and a client that is played."""

    def __init__(self):
        self.loop = Loop()
        self.incoming = Incoming(Memory())
        self.asked = []
        self.asking = Asking(self.loop, self.incoming, self.asked.append)
        self.askers = []

    def worker(self):
        process = object()
        return process, self.asking.open(process)

    def asker(self, fd):
        self.askers.append(Asker(fd))
        return self.askers[-1]

    def run(self, until):
        for _ in range(200):
            if until():
                return
            self.loop.run_once(0.05)
        raise AssertionError("nothing happens")

    def answer(self, frame, contents=(), sent=None, drop=(), **fields):
        fields.update(contents=list(contents), sent=list(sent or {}), drop=list(drop))
        answer = make_frame(
            Kind.MODULES, frame.id, encode_fields(fields), list((sent or {}).values())
        )
        self.asking.answered(answer)

    def close(self):
        self.asking.close()
        for asker in self.askers:
            asker.close()
        self.loop.close()


@pytest.fixture
def desk():
    desk = Desk()
    yield desk
    desk.close()


class Thread(threading.Thread):
    """Asks, as a thread of a task does."""

    def __init__(self, asker, *questions):
        super().__init__(daemon=True)
        self.asker = asker
        self.questions = questions
        self.answers = []
        self.start()

    def run(self):
        for question in self.questions:
            answer = self.asker.ask(question)
            if answer is not None:
                answer = answer[0], list(map(bytes, answer[1]))
            self.answers.append(answer)

    def result(self):
        self.join(scaled(10))
        assert not self.is_alive()
        return self.answers


def test_a_content_comes_from_the_client_once(desk):
    _, one = desk.worker()
    _, two = desk.worker()
    first = Thread(desk.asker(one), {"q": 1})
    desk.run(lambda: desk.asked)
    second = Thread(desk.asker(two), {"q": 2})
    desk.run(lambda: len(desk.asked) == 2)
    assert [decode_fields(frame.body) for frame in desk.asked] == [{"q": 1}, {"q": 2}]
    assert [frame.kind for frame in desk.asked] == [Kind.WANT] * 2
    assert desk.asked[0].id != desk.asked[1].id

    desk.answer(desk.asked[1], ["d"], {"d": b"source"}, it="two")
    desk.answer(desk.asked[0], ["d"], it="one")

    ((fields, contents),) = first.result()
    assert (fields["it"], contents) == ("one", [b"source"])
    ((fields, contents),) = second.result()
    assert (fields["it"], contents) == ("two", [b"source"])


def test_one_question_after_the_other(desk):
    _, fd = desk.worker()
    thread = Thread(desk.asker(fd), {"q": 1}, {"q": 2})
    for _ in range(2):
        desk.run(lambda: desk.asked)
        desk.answer(desk.asked.pop(), it=1)

    assert len(thread.result()) == 2


def test_an_answer_larger_than_a_socket_takes(desk):
    _, fd = desk.worker()
    thread = Thread(desk.asker(fd), {"q": 1})
    desk.run(lambda: desk.asked)

    content = bytes(8 * 1024 * 1024)
    desk.answer(desk.asked[0], ["d"], {"d": content})
    desk.run(lambda: not thread.is_alive())

    assert thread.result()[0][1] == [content]


def test_memory_of_a_large_frame_is_given_back(desk):
    if not sys.platform.startswith("linux"):
        pytest.skip("memfd is Linux's")
    _, fd = desk.worker()
    thread = Thread(desk.asker(fd), {"q": 1})
    desk.run(lambda: desk.asked)
    fields = {"contents": ["d"], "sent": ["d"], "drop": []}
    reader = FrameReader(1 << 30, desk.incoming.allocate)
    reader.open_up(1 << 30)
    data = b"".join(
        make_frame(Kind.MODULES, desk.asked[0].id, encode_fields(fields), [b"x" * WORTH]).parts()
    )
    frames = []
    while data:
        buffer = reader.get_buffer()
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        data = data[count:]
        frames += reader.filled(count)

    desk.asking.answered(frames[0])
    desk.run(lambda: not thread.is_alive())

    assert thread.result()[0][1] == [b"x" * WORTH]
    (segment, _) = desk.incoming.pool.lend_empty([WORTH])
    assert segment is frames[0].segment
    desk.incoming.pool.back(segment)
    desk.incoming.pool.close()


def test_what_the_client_drops_is_gone(desk):
    desk.worker()
    desk.answer(make_frame(Kind.MODULES, 9), [], {"d": b"1", "e": b"2"})
    desk.answer(make_frame(Kind.MODULES, 9), [], drop=["d"])
    _, fd = desk.worker()
    thread = Thread(desk.asker(fd), {"q": 1})
    desk.run(lambda: desk.asked)

    with pytest.raises(RemoteProtocolError, match="never came"):
        desk.answer(desk.asked[0], ["d"])

    desk.close()
    assert thread.result() == [None]


def test_a_worker_that_ends_meanwhile(desk):
    _, fd = desk.worker()
    asker = desk.asker(fd)
    thread = Thread(asker, {"q": 1})
    desk.run(lambda: desk.asked)
    asker._sock.shutdown(socket.SHUT_RDWR)
    assert thread.result() == [None]
    desk.run(lambda: not desk.asking._lines)

    desk.answer(desk.asked[0], ["d"], {"d": b"1"})

    assert desk.asking.sources.questions == 0


def test_a_worker_that_is_gone_when_it_is_written_to(desk):
    _, fd = desk.worker()
    sock = socket.socket(fileno=fd)
    sock.sendall(make_frame(Kind.WANT, 1, b"{}").raw)
    desk.run(lambda: desk.asked)
    sock.close()

    desk.answer(desk.asked[0])

    assert not desk.asking._lines


@pytest.mark.parametrize(
    "nonsense", [make_frame(1, 1, b"x" * (QUESTION_LIMIT + 1)).parts(), [b"\xff" * 64]]
)
def test_nonsense_from_a_worker(desk, nonsense):
    process, fd = desk.worker()
    with socket.socket(fileno=fd) as sock:
        for part in nonsense:
            try:
                sock.sendall(part)
            except OSError:
                break
            desk.loop.run_once(0)
        desk.run(lambda: not desk.asking._lines)
    desk.asking.worker_gone(process)


def test_nobody_is_asked_after_the_end(desk):
    _, fd = desk.worker()
    asker = desk.asker(fd)
    desk.asking.close()

    assert asker.ask({"q": 1}) is None
    assert asker.ask({"q": 1}) is None


def test_a_finder_asks_by_the_socket(desk):
    _, fd = desk.worker()
    finder, asker = make_finder(fd)
    found = []
    thread = threading.Thread(target=lambda: found.append(finder.find_spec("far_away")))
    thread.start()
    desk.run(lambda: desk.asked)
    desk.answer(desk.asked[0], modules=[["far_away", "/x/far_away.py", None, None]])
    thread.join(scaled(10))

    assert found[0].origin == "/x/far_away.py"
    asker.close()


def test_the_late_finder_loads_the_other_when_it_is_asked(desk, monkeypatch):
    monkeypatch.setattr(sys, "path_hooks", list(sys.path_hooks))
    _, fd = desk.worker()
    finder = LateFinder(fd)
    finder.invalidate_caches()
    desk.asking.close()

    assert finder.find_spec("far_away") is None
    finder.invalidate_caches()
    finder.close_in_child()
    assert finder.find_spec("far_away") is None


def test_a_child_does_not_wait_for_a_thread_of_its_parent(desk):
    _, fd = desk.worker()
    asker = desk.asker(fd)
    go = threading.Event()
    thread = threading.Thread(target=asker._turns.attempt, args=(go.wait,))
    thread.start()
    wait_until(asker._turns.holder)

    asker.close_in_child()

    assert asker.ask({"q": 1}) is None
    go.set()
    thread.join()


def test_a_finalizer_in_the_middle_of_a_question_does_not_wait_for_its_own_thread(desk):
    _, fd = desk.worker()
    asker = desk.asker(fd)

    assert asker._turns.attempt(lambda: asker.ask({"q": 1})) == (None,)


def test_a_child_does_not_ask():
    ours, theirs = socket.socketpair()
    with ours:
        finder = LateFinder(theirs.detach())
        finder.close_in_child()

        assert ours.recv(1) == b""
        assert finder.find_spec("far_away") is None
        finder.close_in_child()


def test_what_the_other_finder_needs_is_not_asked_for():
    read, write = os.pipe()
    finder = LateFinder(read)
    finder._loading = True

    assert finder.find_spec("far_away") is None
    os.close(read)
    os.close(write)
