"""The executor inside a task."""

from __future__ import annotations

import pickle

import pytest

from remote_executor.parallel.serial import SerialExecutor, in_serial
from tests.support.parallel_tasks import fail, square


def test_it_runs_in_submit():
    future = SerialExecutor().submit(square, 3)

    assert future.done()
    assert future.result() == 9


def test_an_error_is_in_the_future():
    assert isinstance(SerialExecutor().submit(fail, 1).exception(), ValueError)


def test_an_interrupt_is_the_callers():
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SerialExecutor().submit(interrupt)


def test_what_is_not_callable_is_refused():
    with pytest.raises(TypeError, match="callable"):
        SerialExecutor().submit(42)


def test_it_travels_since_it_has_nothing():
    assert isinstance(pickle.loads(pickle.dumps(SerialExecutor())), SerialExecutor)


def test_map_and_the_block():
    with in_serial() as executor:
        assert list(executor.map(square, range(3))) == [0, 1, 4]
