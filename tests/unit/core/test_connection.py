"""One question, "is this final?", and one answer to each case: no socket, no clock."""

from __future__ import annotations

import pytest

from remote_executor.core.connection import (
    FIRST_PAUSE,
    LAST_PAUSE,
    MOST_NONSENSE,
    MOST_STARTS,
    MOVES,
    NONSENSE_SECONDS,
    Attach,
    Connection,
    ConnectionState,
    Drop,
    Failure,
    Lasts,
    Lose,
    Open,
    Refuse,
    Use,
)
from remote_executor.errors import AuthenticationFailed

GRACE = 60.0
PASSES = Failure(Lasts.NO, "connection refused")
NO_NAME = Failure(Lasts.NAME, "there is no host of that name")
REFUSED = Failure(Lasts.YES, "wrong token", AuthenticationFailed("node", "wrong token"))


def climb(connection, now, *, resumed=False, server="s1", place="host a:1"):
    """Let a connection that is being opened come up; return what the last step called for."""
    assert connection.state is ConnectionState.CONNECTING
    assert connection.opened() == []
    resume = connection.has_session
    assert connection.proved() == [Attach(resume)]
    return connection.attached(resumed, server, place, now)


def up(now=0.0, **options):
    """Return a connection that is up."""
    connection = Connection(GRACE, **options)
    assert connection.start(now) == [Open()]
    assert climb(connection, now) == [Use(False)]
    return connection


def retry(connection):
    """Wait until it is tried again; return when that was."""
    when = connection.retry_at
    assert connection.tick(when) == [Open()]
    return when


def kinds(actions):
    return [type(action) for action in actions]


# ------------------------------------------------------------------------------- the way up


def test_the_way_up():
    connection = up()

    assert connection.state is ConnectionState.UP
    assert connection.served
    assert connection.deadline() is None
    connection.check()


@pytest.mark.parametrize("state", list(ConnectionState))
def test_every_state_has_its_moves(state):
    assert state in MOVES
    assert state not in MOVES[state]


def test_an_impossible_move_is_a_defect():
    with pytest.raises(AssertionError, match="idle cannot become up"):
        Connection(GRACE)._move(ConnectionState.UP)


def test_a_server_that_resumes_what_never_began_is_refused():
    connection = Connection(GRACE)
    connection.start(0.0)

    actions = climb(connection, 0.0, resumed=True)

    assert kinds(actions) == [Drop, Refuse]
    connection.check()


# ------------------------------------------------- a server that has never served this client


@pytest.mark.parametrize("failure", [REFUSED, NO_NAME], ids=["refused", "no such name"])
def test_what_lasts_is_final_at_once_from_a_server_that_never_served(failure):
    connection = Connection(GRACE)
    connection.start(0.0)

    assert connection.failed(failure, 0.1) == [Drop(failure.reason), Refuse(failure)]
    assert connection.state is ConnectionState.REFUSED
    assert connection.trouble == failure.reason
    connection.check()


def test_what_may_pass_is_tried_again_without_end():
    connection = Connection(GRACE)
    now = 0.0
    connection.start(now)
    pauses = []
    for _ in range(100):
        assert connection.failed(PASSES, now) == [Drop(PASSES.reason)]
        assert connection.state is ConnectionState.WAITING
        pauses.append(connection.retry_at - now)
        now = retry(connection)
        connection.check()

    assert pauses[0] == FIRST_PAUSE
    assert sorted(pauses) == pytest.approx(pauses)
    assert pauses[-1] == LAST_PAUSE


def test_a_name_is_asked_until_the_patience_is_over():
    connection = Connection(GRACE, patience=10.0)
    connection.start(5.0)
    now = 5.0
    while connection.failed(NO_NAME, now) == [Drop(NO_NAME.reason)]:
        assert now < 15.0
        now = retry(connection)

    assert 15.0 <= now <= 15.0 + LAST_PAUSE
    assert connection.state is ConnectionState.REFUSED


def test_patience_is_for_names_alone():
    connection = Connection(GRACE, patience=10.0)
    connection.start(0.0)

    assert Refuse(REFUSED) in connection.failed(REFUSED, 0.1)


def test_a_name_that_appears_in_time_is_used():
    connection = Connection(GRACE, patience=10.0)
    connection.start(0.0)
    connection.failed(NO_NAME, 0.1)
    now = retry(connection)

    assert climb(connection, now) == [Use(False)]


# ---------------------------------------------------------- a server that has served this client


@pytest.mark.parametrize("failure", [PASSES, REFUSED, NO_NAME])
def test_nothing_is_final_within_the_grace_from_a_server_that_has_served(failure):
    connection = up()
    connection.failed(PASSES, 10.0)
    now = retry(connection)
    while now < 10.0 + GRACE - LAST_PAUSE:
        assert connection.failed(failure, now) == [Drop(failure.reason)]
        connection.check()
        now = retry(connection)

    assert climb(connection, now, resumed=True) == [Use(True)]
    assert connection.state is ConnectionState.UP


@pytest.mark.parametrize("failure", [REFUSED, NO_NAME])
def test_when_the_grace_is_over_the_session_is_lost_and_a_refusal_is_final(failure):
    connection = up()
    connection.failed(PASSES, 10.0)
    now = 10.0
    actions = []
    while Lose not in kinds(actions):
        now = connection.deadline()
        actions = connection.tick(now)
        if connection.state is ConnectionState.CONNECTING:
            actions += connection.failed(failure, now)
        connection.check()

    assert now == 10.0 + GRACE
    assert "no link for 60 s" in next(each.reason for each in actions if type(each) is Lose)
    while connection.state is ConnectionState.WAITING:
        now = retry(connection)
        actions = connection.failed(failure, now)
    assert actions[-1] == Refuse(failure)
    assert now <= 10.0 + GRACE + LAST_PAUSE


def test_a_refusal_at_the_very_end_of_the_grace_loses_the_session_as_well():
    connection = up()
    connection.failed(PASSES, 10.0)
    retry(connection)

    assert kinds(connection.failed(REFUSED, 10.0 + GRACE)) == [Drop, Lose, Refuse]
    connection.check()


def test_a_refusal_that_comes_over_the_link_itself_is_a_cut():
    """Forged words in plain text reach the link that is up as well as the next one."""
    connection = up()

    assert connection.failed(REFUSED, 1.0) == [Drop(REFUSED.reason)]
    assert connection.has_session


def test_a_grace_of_nothing_makes_a_refusal_final_at_once():
    connection = Connection(0.0)
    connection.start(0.0)
    climb(connection, 0.0)
    connection.failed(PASSES, 1.0)
    now = connection.deadline()
    assert kinds(connection.tick(now)) == [Lose]

    now = retry(connection)
    assert kinds(connection.failed(REFUSED, now)) == [Drop, Refuse]


def test_the_grace_runs_anew_from_each_cut():
    connection = up()
    connection.failed(PASSES, 10.0)
    climb(connection, retry(connection), resumed=True)
    connection.failed(PASSES, 100.0)

    assert connection.grace_ends == 100.0 + GRACE


def test_the_grace_ends_while_it_is_shaking_hands():
    """What answers now must not resume a session that is given up."""
    connection = up()
    connection.failed(PASSES, 10.0)
    connection.tick(connection.retry_at)
    connection.opened()

    assert kinds(connection.tick(10.0 + GRACE)) == [Drop, Lose]
    assert connection.state is ConnectionState.WAITING
    connection.check()


def test_the_grace_ends_while_it_connects():
    """One look-up is under way, and another one beside it would be of no use."""
    connection = up()
    connection.failed(PASSES, 10.0)
    connection.tick(connection.retry_at)

    assert kinds(connection.tick(10.0 + GRACE)) == [Lose]
    assert connection.state is ConnectionState.CONNECTING
    connection.opened()
    assert connection.proved() == [Attach(False)]


# ------------------------------------------------------------------------- whose session it is


def cut_and_back(connection, now=10.0):
    connection.failed(PASSES, now)
    return retry(connection)


def test_the_same_server_that_has_forgotten_the_session_has_lost_it():
    connection = up()
    now = cut_and_back(connection)

    actions = climb(connection, now)

    assert actions == [Lose("it does not know our session"), Attach(False)]
    assert connection.attached(False, "s1", "host a:1", now) == [Use(False)]


def test_a_server_that_was_started_anew_in_its_place_has_lost_the_session():
    connection = up()
    now = cut_and_back(connection)

    actions = climb(connection, now, server="s2")

    assert actions == [Lose("it does not know our session: it was started anew"), Attach(False)]


def test_another_server_behind_the_same_name_says_nothing_about_our_session():
    connection = up()
    now = cut_and_back(connection)

    actions = climb(connection, now, server="s2", place="host b:1")

    assert kinds(actions) == [Drop]
    assert "another server answers there (host b:1)" in actions[0].reason
    assert connection.has_session
    now = retry(connection)
    assert climb(connection, now, resumed=True) == [Use(True)]


def test_another_server_is_used_when_the_grace_is_over():
    connection = up()
    now = cut_and_back(connection)
    while now < 10.0 + GRACE - LAST_PAUSE:
        assert kinds(climb(connection, now, server="s2", place="host b:1")) == [Drop]
        now = retry(connection)
    climb(connection, now, server="s2", place="host b:1")
    assert kinds(connection.tick(10.0 + GRACE)[:1]) == [Lose]
    if connection.state is ConnectionState.WAITING:
        now = retry(connection)

    assert climb(connection, now, server="s2", place="host b:1") == [Use(False)]


@pytest.mark.parametrize("options", [{"launched": True}, {}], ids=["launched", "says nothing"])
def test_who_cannot_be_another_was_started_anew(options):
    connection = up(**options)
    now = cut_and_back(connection)
    server, place = ("s2", "host b:2") if options else ("", "")

    assert kinds(climb(connection, now, server=server, place=place)) == [Lose, Attach]


# ------------------------------------------------------------------------ goodbye and nonsense


def test_a_goodbye_loses_the_session_at_once():
    connection = up()

    assert kinds(connection.goodbye(1.0)) == [Drop, Lose]
    assert connection.state is ConnectionState.WAITING
    assert connection.goodbye(1.0) == []
    connection.check()


def test_nonsense_costs_the_session_and_in_the_end_the_server():
    connection = up()
    failure = Failure(Lasts.YES, "it talks nonsense")
    now = 1.0
    for _ in range(MOST_NONSENSE - 1):
        assert kinds(connection.talked_nonsense(failure, now)) == [Drop, Lose]
        assert connection.retry_at == now + LAST_PAUSE, "others may have its tasks meanwhile"
        now = retry(connection)
        climb(connection, now)
        connection.check()

    assert kinds(connection.talked_nonsense(failure, now)) == [Drop, Lose, Refuse]
    connection.check()


def test_nonsense_now_and_then_is_forgiven():
    connection = up()
    now = 1.0
    for _ in range(3 * MOST_NONSENSE):
        actions = connection.talked_nonsense(Failure(Lasts.YES, "nonsense"), now)
        assert kinds(actions) == [Drop, Lose]
        now = retry(connection)
        climb(connection, now)
        now += NONSENSE_SECONDS


def test_its_owner_may_leave_it_out():
    connection = up()

    assert kinds(connection.leave_out(REFUSED, 1.0)) == [Drop, Refuse]
    assert connection.leave_out(REFUSED, 1.0) == []
    connection.check()


def test_a_server_that_waits_may_be_left_out():
    connection = up()
    connection.failed(PASSES, 1.0)

    assert connection.leave_out(REFUSED, 2.0) == [Refuse(REFUSED)]
    connection.check()


# ----------------------------------------------------------------------- a server of our own


def test_a_server_of_our_own_ends_with_its_link():
    connection = up(own=True)

    assert kinds(connection.failed(PASSES, 1.0)) == [Drop, Lose]
    assert connection.state is ConnectionState.WAITING


def test_a_server_of_our_own_that_never_does_anything_is_given_up():
    connection = Connection(GRACE, own=True)
    now = 0.0
    connection.start(now)
    for _ in range(MOST_STARTS - 1):
        climb(connection, now)
        assert kinds(connection.failed(PASSES, now)) == [Drop, Lose]
        now = retry(connection)

    assert kinds(connection.failed(PASSES, now)) == [Drop, Refuse]


def test_what_lasts_is_not_tried_with_a_server_of_our_own_that_never_served():
    """Such as: what is to be started is no Python."""
    connection = Connection(GRACE, own=True)
    connection.start(0.0)

    assert kinds(connection.failed(REFUSED, 0.0)) == [Drop, Refuse]


def test_a_server_of_our_own_that_has_worked_is_started_again_and_again():
    connection = Connection(GRACE, own=True)
    now = 0.0
    connection.start(now)
    for _ in range(3 * MOST_STARTS):
        climb(connection, now)
        connection.worked()
        assert kinds(connection.failed(REFUSED, now)) == [Drop, Lose]
        now = retry(connection)


# ------------------------------------------------------------------------------------ the end


def test_what_comes_after_the_end_is_nothing():
    connection = up()
    connection.close()

    assert connection.failed(PASSES, 1.0) == []
    assert connection.goodbye(1.0) == []
    assert connection.talked_nonsense(REFUSED, 1.0) == []
    assert connection.leave_out(REFUSED, 1.0) == []
    assert connection.tick(1e9) == []
    connection.close()
    connection.check()


def test_it_tells_its_state():
    connection = up()
    connection.failed(PASSES, 10.0)

    status = connection.status()

    assert status.state is ConnectionState.WAITING
    assert status.trouble == PASSES.reason
    assert status.grace_ends == 10.0 + GRACE
    assert "waiting to try again, connection refused" in repr(connection)
