"""Who could receive from a channel."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from remote_executor.parallel import readers
from remote_executor.parallel.readers import DOUBTFUL_SECONDS, HOPELESS_SECONDS, Readers
from remote_executor.parallel.serial import SerialExecutor
from tests.support.scale import scaled


@contextlib.contextmanager
def thread(name="somebody", target=None):
    """Give a thread that lives as long as the block."""
    end = threading.Event()
    made = threading.Thread(target=target or end.wait, args=() if target else (scaled(30),))
    made.name = name
    made.start()
    try:
        yield made
    finally:
        end.set()
        made.join(scaled(30))


@pytest.fixture
def alone(monkeypatch):
    """Have this thread be the only one, whatever the tests' own tools have started."""
    before = list(threading.enumerate())
    monkeypatch.setattr(
        readers,
        "_threads",
        lambda: [
            each
            for each in threading.enumerate()
            if each not in before or each is threading.current_thread()
        ],
    )


def waiting(executor=None):
    """Return the readers of a channel, at which this thread waits for room."""
    made = Readers(executor or SerialExecutor())
    made.waits(True)
    return made


def test_where_nobody_else_is_there_is_no_hope(alone):
    assert waiting().patience() == HOPELESS_SECONDS


def test_a_thread_that_is_younger_than_the_channel_may_receive(alone):
    made = waiting()
    with thread():
        assert made.patience() is None
    assert made.patience() == HOPELESS_SECONDS


def test_one_that_is_older_may_have_other_things_to_do(alone):
    with thread():
        assert waiting().patience() == DOUBTFUL_SECONDS


def test_one_that_has_received_may_again(alone):
    received, end = threading.Event(), threading.Event()
    made = []

    def receive():
        while not made:
            end.wait(0.001)
        made[0].note()
        received.set()
        end.wait(scaled(30))

    each = threading.Thread(target=receive)
    each.start()
    made.append(waiting())
    assert received.wait(scaled(30))
    assert made[0].patience() is None
    end.set()
    each.join(scaled(30))
    assert made[0].patience() == HOPELESS_SECONDS


def test_a_librarys_own_thread_does_not_receive(alone):
    made = waiting()
    with thread("remote_executor timers"), thread("QueueFeederThread"):
        assert made.patience() == HOPELESS_SECONDS


def test_those_that_run_the_tasks_hardly_receive(alone):
    with ThreadPoolExecutor(1) as executor:
        made = waiting(executor)
        executor.submit(int).result()
        assert made.patience() == DOUBTFUL_SECONDS


def test_who_waits_for_room_as_well_does_not_receive(alone):
    made = waiting()
    waits, end = threading.Event(), threading.Event()

    def submit():
        made.waits(True)
        waits.set()
        end.wait(scaled(30))
        made.waits(False)

    each = threading.Thread(target=submit)
    each.start()
    assert waits.wait(scaled(30))
    assert made.patience() == HOPELESS_SECONDS
    end.set()
    each.join(scaled(30))


def test_python_keeps_its_threads_where_we_look():
    assert set(readers._threads()) >= set(threading.enumerate())


def test_a_program_of_one_thread_gets_an_error_soon():
    program = """
        from remote_executor.parallel import Channel, make_kernel
        with make_kernel(1):
            channel = Channel(maxsize=1)
            channel.submit(abs, -1)
            try:
                channel.submit(abs, -2)
            except RuntimeError as exc:
                print(exc)
            print(channel.receive())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=scaled(20),
    )

    assert done.stderr == ""
    words, value = done.stdout.splitlines()
    assert "1 of 1 results are there" in words
    assert value == "1"
