"""The garbage collector is asked only where it can be."""

from __future__ import annotations

import gc
import os

import pytest

from remote_executor import garbage
from remote_executor.client import shares
from remote_executor.core.known import Functions
from remote_executor.net import segments
from remote_executor.payload import copies


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


def without_names(monkeypatch, module):
    """Do as the interpreter does at its end with a module that somebody still has."""
    for name in list(vars(module)):
        if name[:2] != "__":
            monkeypatch.setattr(module, name, None)


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_descriptors_go_in_silence_at_the_end_of_the_interpreter(monkeypatch):
    """More objects live so long in a free-threaded Python."""
    descriptor = segments.Descriptor(os.dup(0))
    private = copies.PrivateCopies([memoryview(bytes(1 << 21))])
    fds = descriptor.fd, private._fd
    without_names(monkeypatch, segments)
    without_names(monkeypatch, copies)

    descriptor.__del__()
    private.__del__()

    assert [is_open(fd) for fd in fds if fd >= 0] == [False] * len([fd for fd in fds if fd >= 0])
    assert (descriptor.fd, private._fd) == (-1, -1)


def test_at_the_end_of_the_interpreter_nobody_is_told_of_shared_objects(monkeypatch):
    told = []
    kept = shares.Shares(Functions(), told.append)
    shared = kept.share(bytearray(100))
    (blob,) = (each for each in gc.get_referents(shared) if isinstance(each, shares.Blob))
    without_names(monkeypatch, shares)

    blob.__del__(lambda: True)
    assert told == []
    blob.__del__(lambda: False)
    assert told == [blob.number]
    del shared
