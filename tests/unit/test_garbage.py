"""The garbage collector is asked only where it can be."""

from __future__ import annotations

import gc

import pytest

from remote_executor import garbage


@pytest.fixture
def _as_it_was():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("_as_it_was")
@pytest.mark.skipif(not hasattr(gc, "freeze"), reason="this collector has other ways")
def test_what_cpython_can_is_done():
    garbage.set_threshold(1234, 5, 6)
    garbage.freeze()

    assert gc.get_threshold()[0] == 1234
    assert gc.get_freeze_count() > 0


def test_what_pypy_cannot_is_left_out(monkeypatch):
    monkeypatch.setattr(garbage, "_freeze", None)
    monkeypatch.setattr(garbage, "_set_threshold", None)

    garbage.freeze()
    garbage.set_threshold(1, 2, 3)
