"""Waits and turns that leave nothing behind, however they end."""

from __future__ import annotations

import queue
import signal
import threading
import time
from _thread import interrupt_main
from functools import partial

import pytest

from remote_executor.net import interruptible
from remote_executor.net.interruptible import Event, Gates, Turns, at_once, start_thread, take
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(10)


def beside(call, *args):
    """Call something in another thread, and return the thread and what comes of it."""
    got = []
    thread = threading.Thread(target=lambda: got.append(call(*args)))
    thread.start()
    return thread, got


def soon():
    return time.monotonic() + LIMIT


# ------------------------------------------------------------------------- at once


def test_the_steps_are_made_in_order_until_one_raises():
    made = []
    at_once(partial(made.append, 1), partial(made.append, 2))
    with pytest.raises(IndexError):
        at_once(partial(made.append, 3), partial([].pop), partial(made.append, 4))

    assert made == [1, 2, 3]


# --------------------------------------------------------------------------- gates


def test_what_holds_is_not_waited_for():
    gates = Gates()

    assert gates.wait(lambda: True)
    assert gates.wait(lambda: 1, until=0.0)
    assert not gates.wait(lambda: False, until=0.0)
    assert not len(gates)


def test_all_who_wait_are_told():
    gates, there = Gates(), []
    waiting = [beside(gates.wait, lambda: there) for _ in range(3)]
    wait_until(lambda: len(gates) == 3)

    gates.open(partial(there.append, 1))

    for thread, got in waiting:
        thread.join(LIMIT)
        assert got == [True]
    assert not len(gates)


def test_to_be_told_in_vain_is_to_wait_again():
    gates, there = Gates(), []
    thread, got = beside(gates.wait, lambda: there)
    for _ in range(3):
        wait_until(lambda: len(gates) == 1)
        gates.open()
    assert not got

    gates.open(partial(there.append, 1))

    thread.join(LIMIT)
    assert got == [True]


def test_the_time_is_kept():
    gates = Gates()
    begun = time.monotonic()

    assert not gates.wait(lambda: False, begun + 0.05)
    assert time.monotonic() - begun >= 0.05
    assert not len(gates)


def test_a_step_that_raises_tells_nobody():
    gates, there = Gates(), []
    thread, got = beside(gates.wait, lambda: there)
    wait_until(lambda: len(gates) == 1)

    with pytest.raises(IndexError):
        gates.open(partial([].pop))

    assert len(gates) == 1
    gates.open(partial(there.append, 1))
    thread.join(LIMIT)
    assert got == [True]


def test_a_gate_that_an_interrupted_waiter_left_harms_nobody():
    gates = Gates()

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gates.wait(interrupted)
    gates._closed.append(interruptible.allocate_lock())
    gates._closed[0].acquire()

    gates.open()

    assert not len(gates)


# -------------------------------------------------------------------------- events


class NotedError(Exception):
    """Raised by a handler."""


@pytest.fixture
def noted(monkeypatch):
    """
    Have a signal noted while this thread waits, without an end of the system call.

    That is what becomes of one that comes after CPython has last looked for signals, and before the
    system call has begun: some 1 in 100 of those that are sent to a busy program.
    """

    def handler(*_):
        raise NotedError

    def note(waits):
        wait_until(waits)
        interrupt_main(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    yield lambda waits: beside(note, waits)[0]
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_that_is_noted_just_before_the_wait_is_heard(noted):
    gates = Gates()
    for until in None, time.monotonic() + 3600:
        thread = noted(lambda: len(gates))
        begun = time.monotonic()
        with pytest.raises(NotedError):
            gates.wait(lambda: False, until)
        assert time.monotonic() - begun < LIMIT
        assert not len(gates)
        thread.join()


def test_a_signal_that_is_noted_later_is_heard_within_two_seconds(noted, monkeypatch):
    monkeypatch.setattr(interruptible, "FIRST_SLICE", 0.001)
    gates, looks = Gates(), []
    thread = noted(lambda: len(looks) > 8)
    with pytest.raises(NotedError):
        gates.wait(lambda: looks.append(1))
    thread.join()
    assert len(looks) < 20


def test_a_queue_is_waited_for_in_slices_too(noted):
    class Noticing(queue.SimpleQueue):
        def get(self, block=True, timeout=None):
            began.append(block)
            return super().get(block, timeout)

    began, source = [], Noticing()
    thread = noted(lambda: True in began)
    with pytest.raises(NotedError):
        take(source, None)
    thread.join()
    assert take(source, time.monotonic()) is None
    source.put(1)
    assert take(source, time.monotonic() - 1) == 1, "what is there is taken, however late it is"
    thread, got = beside(take, source, soon())
    source.put(2)
    thread.join()
    assert got == [2]


def test_other_threads_wait_without_slices():
    gates, looks, there = Gates(), [], []
    thread, got = beside(gates.wait, lambda: looks.append(1) or there)
    wait_until(lambda: len(looks) == 2)
    thread.join(3 * interruptible.FIRST_SLICE)
    assert len(looks) == 2
    gates.open(partial(there.append, 1))
    thread.join()
    assert got == [True]


def test_an_event_is_like_the_standard_one():
    event = Event()

    assert not event.is_set()
    assert not event.wait(0)
    assert not event.wait(0.01)
    thread, got = beside(event.wait)
    event.set()
    thread.join(LIMIT)
    assert got == [True]
    assert event.is_set()
    assert event.wait()
    event.clear()
    assert not event.wait(0)


# --------------------------------------------------------------------------- turns


def test_one_at_a_time_this_thread_included():
    turns = Turns()

    assert turns.attempt(lambda: (turns.attempt(lambda: "again"), turns.holder())) == (
        (None, threading.get_ident()),
    )
    assert turns.attempt(lambda: 5) == (5,)
    assert turns.holder() is None


def test_another_thread_waits_for_the_turn():
    turns, go = Turns(), Event()
    thread, got = beside(turns.attempt, partial(go.wait, LIMIT))
    wait_until(turns.holder)
    assert turns.attempt(lambda: 5) is None
    assert turns.holder() == thread.ident

    waiting, told = beside(turns.wait, soon())
    go.set()

    waiting.join(LIMIT)
    thread.join(LIMIT)
    assert told == [None]
    assert got == [(True,)]
    assert turns.attempt(lambda: 5) == (5,)


@pytest.mark.parametrize("error", [KeyError("k"), StopIteration(3), KeyboardInterrupt()])
def test_an_error_ends_the_turn_and_is_the_callers(error):
    turns = Turns()

    def fail():
        raise error

    with pytest.raises(type(error)) as found:
        turns.attempt(fail)

    assert found.value is error
    assert turns.holder() is None


def test_a_turn_that_nobody_has_given_back_is_over_with_its_code(monkeypatch):
    """As after an interrupt in the very line that would give it back."""
    turns = Turns()
    with monkeypatch.context() as patched:
        patched.setattr(Turns, "_forget", lambda *_: None)
        turns.attempt(lambda: 1)
        assert len(turns._queue) == 1

    assert turns.attempt(lambda: 2) == (2,)
    assert not turns._queue


def test_a_turn_that_did_not_begin_keeps_nobody_out():
    turns = Turns()
    turns._steps(lambda: 1, [])  # interrupted before it was started

    assert turns.attempt(lambda: 2) == (2,)


# ------------------------------------------------------------------------- threads


def test_a_thread_is_started():
    started = Event()
    thread = threading.Thread(target=started.set)

    start_thread(thread)

    assert started.wait(LIMIT)
    thread.join(LIMIT)


def test_a_thread_that_cannot_be_started_is_an_error():
    thread = threading.Thread(target=int)
    start_thread(thread)
    thread.join(LIMIT)

    with pytest.raises(RuntimeError, match="once"):
        start_thread(thread)
