"""Which functions travel by their definition alone."""

from __future__ import annotations

import gc

from remote_executor.payload.code import alone


def test_a_function_that_was_marked_goes_alone_and_others_do_not():
    def one():
        return 1

    def other():
        return 2

    alone.send_alone(one)
    assert alone.goes_alone(one)
    assert not alone.goes_alone(other)
    assert not alone.goes_alone([1])
    assert not alone.goes_alone(5)


def test_a_mark_keeps_nothing_alive():
    def one():
        return 1

    before = len(alone._alone)
    alone.send_alone(one)
    del one
    gc.collect()
    assert len(alone._alone) <= before
