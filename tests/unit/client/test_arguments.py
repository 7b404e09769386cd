"""Futures among arguments: what the pickler meets, and what becomes of an error."""

from __future__ import annotations

from functools import partial

import pytest

from remote_executor.client.arguments import forget_met, in_the_call, met, passed_on, take_met
from remote_executor.client.futures import FarmFuture
from remote_executor.errors import PayloadError
from remote_executor.payload.pickles import dump, dump_copied


@pytest.fixture(autouse=True)
def _forget():
    yield
    forget_met()


def test_the_pickler_tells_which_futures_it_has_met():
    one, two = FarmFuture(), FarmFuture()
    dump_copied((([one, {"k": two}, one],), {}), "call")

    assert list(take_met().values()) == [one, two]
    assert not met


def test_nothing_but_a_call_may_have_futures():
    with pytest.raises(PayloadError, match="give it to submit"):
        dump([FarmFuture()])
    assert not met


def test_plain_arguments_meet_nothing():
    dump_copied(((1, "a", [2]), {}), "call")

    assert not met


def test_futures_in_a_partial_become_arguments():
    one = FarmFuture()

    fn, call = in_the_call(partial(pow, one, mod=3), ((2,), {"exp": 5}))

    assert (fn, call) == (pow, ((one, 2), {"mod": 3, "exp": 5}))
    plain = partial(pow, 2)
    assert in_the_call(plain, ((), {})) == (plain, ((), {}))


class Awkward(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} {b}")
        self.a = a


@pytest.mark.parametrize("error", [OSError(2, "No such file"), Awkward(1, 2), KeyError("k")])
def test_an_error_that_passes_on_is_another_of_the_same_kind(error):
    error.__dict__["__notes__"] = ["first"]

    made = passed_on(error, "sum", "task load")

    assert made is not error
    assert type(made) is type(error)
    assert str(made) == str(error)
    assert made.__notes__ == [
        "first",
        "task sum did not run: it takes the result of task load, which failed",
    ]
    assert error.__notes__ == ["first"]
