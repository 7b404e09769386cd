"""Who is waited for, how long, and who is missing then."""

from __future__ import annotations

import pytest

from remote_executor.core.roll_call import Presence, RollCall, Standing

UP = Standing("a", Presence.UP)
UNHEARD = Standing("b", Presence.UNHEARD, 10.0, "connecting")
AWAY = Standing("c", Presence.AWAY, 10.0, "connection refused")
LEFT_OUT = Standing("d", Presence.LEFT_OUT, 10.0, "a wrong secret")


def test_an_address_that_has_not_answered_is_waited_for():
    assert not RollCall(None).is_settled([UP, UNHEARD], 1000.0)
    assert not RollCall(5.0).is_settled([UP, UNHEARD], 14.9)


def test_but_no_longer_than_the_farm_has_patience():
    assert RollCall(5.0).is_settled([UP, UNHEARD], 15.0)
    assert RollCall(5.0).deadline([UP, UNHEARD, AWAY], 11.0) == 15.0
    assert RollCall(5.0).deadline([UP, AWAY, LEFT_OUT], 11.0) is None
    assert RollCall(None).deadline([UP, UNHEARD], 11.0) is None


def test_a_failed_try_is_an_answer():
    assert RollCall(None).is_settled([UP, AWAY], 11.0)
    assert RollCall(5.0).is_settled([UP, AWAY], 11.0)


def test_unless_it_is_waited_for_obstinately():
    assert not RollCall(None, obstinate=True).is_settled([UP, AWAY], 1000.0)
    assert not RollCall(5.0, obstinate=True).is_settled([UP, AWAY], 11.0)
    assert RollCall(5.0, obstinate=True).is_settled([UP, AWAY], 15.0)
    assert RollCall(5.0, obstinate=True).deadline([UP, AWAY], 11.0) == 15.0


@pytest.mark.parametrize("obstinate", [True, False])
def test_who_is_left_out_for_good_is_not_waited_for(obstinate):
    assert RollCall(None, obstinate=obstinate).is_settled([UP, LEFT_OUT], 11.0)


def test_without_any_server_nothing_is_settled():
    assert not RollCall(None).is_settled([AWAY, LEFT_OUT], 11.0)
    assert not RollCall(5.0).is_settled([AWAY], 1000.0)
    assert not RollCall(5.0).is_settled([], 1000.0)


def test_who_is_missing_and_why():
    assert RollCall.missing([AWAY, UP, LEFT_OUT]) == {
        "c": "connection refused",
        "d": "a wrong secret",
    }
    assert RollCall.missing([UP]) == {}
    assert RollCall.words({"c": "refused", "d": "secret"}) == "c: refused; d: secret"
