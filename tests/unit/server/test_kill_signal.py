"""The exception by which a task is told to stop, and where it may be raised."""

from __future__ import annotations

import os
import signal

import pytest

from remote_executor.server.kill_signal import KILL_SIGNAL, KillSignal, TaskKilled


@pytest.fixture
def kill():
    """Return a handler that is installed for the test."""
    before = signal.getsignal(KILL_SIGNAL)
    handler = KillSignal()
    handler.install()
    yield handler
    signal.signal(KILL_SIGNAL, before)


def send():
    os.kill(os.getpid(), KILL_SIGNAL)


def test_it_is_raised_in_a_task_once(kill):
    kill.open = True
    with pytest.raises(TaskKilled):
        send()
    send()
    assert kill.raised


def test_it_is_not_raised_in_our_own_code_and_not_lost_for_the_next_signal(kill):
    send()
    assert not kill.raised
    kill.open = True
    with pytest.raises(TaskKilled):
        send()


def test_it_is_no_exception_that_handlers_of_errors_would_take(kill):
    assert not issubclass(TaskKilled, Exception)


def caught(call):
    try:
        call()
    except BaseException as exc:
        return exc
    return None


def test_what_a_task_fails_with_since_it_was_told_to_stop(kill):
    def cleaned_up_badly():
        try:
            send()
        finally:
            raise ValueError("while it puts things in order")

    def translated():
        try:
            send()
        except BaseException as exc:
            raise RuntimeError("stopped") from exc

    for call in (send, cleaned_up_badly, translated):
        kill.raised, kill.open = False, True
        assert kill.is_cause_of(caught(call)), call


def test_what_it_fails_with_for_another_reason(kill):
    assert not kill.is_cause_of(ValueError())
    kill.open = True
    caught(send)
    assert not kill.is_cause_of(ValueError("of its own"))
    circle = ValueError()
    other = KeyError()
    circle.__context__, other.__context__ = other, circle
    assert not kill.is_cause_of(circle)
