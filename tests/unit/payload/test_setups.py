"""What is done once in a process, whichever way it is told."""

from __future__ import annotations

import pytest

from remote_executor.payload import setups


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(setups, "_done", set())
    monkeypatch.setattr(setups, "_finalizers", [])


def test_what_was_done_as_a_task_is_not_done_as_a_setup():
    seen = []

    assert setups.call_kept(1, lambda x: seen.append(x) or x, (5,), {}) == 5
    setups.set_up_kept(1, seen.append, (6,), {})
    assert setups.is_done(1)
    assert seen == [5]


def test_a_setup_is_done_once_each():
    seen = []

    for number in (1, 2, 1, 2):
        setups.set_up_kept(number, seen.append, (number,), {})
    assert seen == [1, 2]


def test_what_has_failed_is_not_done():
    with pytest.raises(ZeroDivisionError):
        setups.call_kept(1, divmod, (1, 0), {})
    assert not setups.is_done(1)


def test_the_finalizer_is_called_once_and_after_the_initializer_only():
    seen = []

    setups.set_up(seen.append, ("begin",), seen.append, ("end",))
    assert seen == ["begin"]
    setups.finish()
    setups.finish()
    assert seen == ["begin", "end"]


def test_after_a_failed_initializer_there_is_no_finalizer():
    seen = []

    with pytest.raises(ZeroDivisionError):
        setups.set_up(divmod, (1, 0), seen.append, ("end",))
    setups.finish()
    assert seen == []
