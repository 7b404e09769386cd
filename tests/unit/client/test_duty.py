"""Who is on duty: one thread, and another one if that is held up."""

from __future__ import annotations

import threading
import time

import pytest

from remote_executor.client import duty as module
from remote_executor.client.duty import Duty
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(10)


class Shift:
    """Threads that note who takes over, and then wait."""

    def __init__(self):
        self.taken = []
        self.duty = Duty(self.on_duty)

    def on_duty(self, first):
        if self.duty.watch():
            self.taken.append(threading.current_thread())

    def end(self):
        self.duty.end()
        for thread in self.duty.threads:
            thread.join(LIMIT)


@pytest.fixture
def shift():
    shift = Shift()
    yield shift
    shift.end()


def me():
    return threading.current_thread()


def test_an_offer_is_taken_back(shift):
    duty = shift.duty
    duty.offer(me())

    assert duty.step(me())
    assert duty.take_back(me())
    assert not duty.take_back(me())
    assert not duty.step(me())


def test_who_is_held_up_loses_the_duty(shift):
    duty = shift.duty
    duty.offer(me())

    wait_until(lambda: shift.taken)

    assert not duty.step(me())
    assert not duty.take_back(me())
    assert shift.taken[0].name == "remote_executor I/O watch"


def test_the_offer_of_another_is_not_taken_back(shift):
    duty = shift.duty
    duty.offer(me())
    wait_until(lambda: shift.taken)
    other = threading.Thread()
    duty.offer(other)

    assert not duty.take_back(me())
    assert duty.take_back(other)


def test_who_goes_on_keeps_it(shift):
    duty = shift.duty
    duty.offer(me())
    until, looks = time.monotonic() + 0.4, threading.Event()
    while time.monotonic() < until:
        looks.wait(0.005)
        assert duty.step(me())

    assert duty.take_back(me())
    assert not shift.taken


def test_the_watch_sleeps_when_nothing_happens_and_is_woken(shift, monkeypatch):
    duty = shift.duty
    duty.offer(me())
    assert duty.take_back(me())
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.002)
    wait_until(lambda: duty._asleep)

    duty.offer(me())

    wait_until(lambda: shift.taken)
    assert not duty.take_back(me())


def test_one_is_on_the_watch(shift):
    duty = shift.duty
    duty.offer(me())
    assert duty.take_back(me())
    wait_until(lambda: not duty._posts)

    assert not duty.watch()
    assert len(duty.threads) == 1


def test_the_end_ends_the_watch(shift):
    duty = shift.duty
    duty.offer(me())
    assert duty.take_back(me())
    shift.end()

    assert not any(thread.is_alive() for thread in duty.threads)
    assert not duty.watch()
    duty.offer(me())
    assert len(duty.threads) == 1, "nobody watches over what is over"


def test_too_many_that_are_held_up_are_not_relieved(shift, monkeypatch):
    monkeypatch.setattr(module, "MOST_THREADS", -1)
    shift.duty.offer(me())

    assert not shift.duty.threads
    assert shift.duty.take_back(me())


def test_it_knows_its_threads(shift):
    assert not shift.duty.is_of_ours()
    found = []
    shift.duty._on_duty = lambda first: found.append((first, shift.duty.is_of_ours()))
    thread = shift.duty.thread(on_duty=True)
    thread.start()
    thread.join(LIMIT)

    assert found == [(True, True)]
