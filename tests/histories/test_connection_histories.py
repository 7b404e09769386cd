"""
Any history of a client's connection to one server: cuts, refusals, strangers, restarts, time.

What must hold at each step: a session begins once and is lost at most once; it is lost of nothing
but the grace, the server itself, or the user; what is final has a reason to be; what is not is
tried again, and comes up when the server is there.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from remote_executor.core.connection import (
    MOST_NONSENSE,
    MOST_STARTS,
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
from tests.support.scale import tries

GRACE = 10.0
UNDER_WAY = (
    ConnectionState.CONNECTING,
    ConnectionState.SHAKING,
    ConnectionState.ATTACHING,
    ConnectionState.UP,
)
OVER = (ConnectionState.REFUSED, ConnectionState.CLOSED)
failures = st.builds(Failure, st.sampled_from(list(Lasts)), st.sampled_from(["this", "that"]))


def in_state(*states):
    return precondition(lambda self: self.core.state in states)


class ConnectionHistory(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.now = 100.0

    @initialize(
        own=st.sampled_from([False, False, False, True]),
        launched=st.sampled_from([False, False, True]),
        patience=st.sampled_from([None, None, 0.0, 5.0]),
        served=st.sampled_from([True, True, False]),
    )
    def begin(self, own, launched, patience, served):
        self.own = own
        self.patience = patience
        self.core = Connection(GRACE, patience=patience, own=own, launched=launched)
        self.begun = self.now
        self.session = False
        self.asked = None
        self.last_up = None
        self.failed_in_a_row = 0
        self.nonsense = []
        self.may_lose = False
        self.may_refuse = False
        self.incarnation = 0
        self.act(self.core.start(self.now))
        if served:
            self.it_comes_up()

    # ------------------------------------------------------------- the shell's part

    def act(self, actions):
        for action in actions:
            kind = type(action)
            if kind is Drop:
                self.asked = None
                self.failed_in_a_row += 1
            elif kind is Lose:
                assert self.session, "a session is lost once"
                assert self.may_lose, "it is lost of nothing but what may cost it"
                self.session = False
            elif kind is Attach:
                assert action.resume == self.session
                self.asked = action.resume
            elif kind is Use:
                assert action.resumed == self.session, "it begins once"
                self.session = True
                self.last_up = None
                if not self.own:
                    self.failed_in_a_row = 0
            elif kind is Refuse:
                assert self.may_refuse, f"why is that final: {action.failure}"
            else:
                assert kind is Open
        self.may_lose = self.may_refuse = False
        self.core.check()

    def is_served_within_the_grace(self):
        return self.core.served and (self.last_up is None or self.now < self.last_up + GRACE)

    def note_end_of_link(self):
        if self.core.state is ConnectionState.UP:
            self.last_up = self.now

    # ------------------------------------------------------------------------ rules

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.5, 3.0, GRACE / 2, GRACE]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule()
    def a_timer_is_due(self):
        when = self.core.deadline()
        if when is not None:
            self.now = max(self.now, when)
        over = self.last_up is not None and self.now >= self.last_up + GRACE
        self.may_lose = over
        self.act(self.core.tick(self.now))

    @in_state(ConnectionState.CONNECTING)
    @rule()
    def it_comes_up(self):
        self.a_stream_is_there()
        self.both_have_proved_who_they_are()
        self.the_server_answers("the same")

    @in_state(ConnectionState.CONNECTING)
    @rule(who=st.sampled_from(["another", "anew", "forgetful"]))
    def it_comes_up_differently(self, who):
        self.a_stream_is_there()
        self.both_have_proved_who_they_are()
        self.the_server_answers(who)

    @in_state(ConnectionState.WAITING)
    @rule()
    def it_is_tried_again(self):
        self.now = max(self.now, self.core.retry_at)
        self.a_timer_is_due()

    @in_state(*UNDER_WAY)
    @rule(failure=failures)
    def something_fails_at_the_very_end_of_the_grace(self, failure):
        if self.core.has_session and self.last_up is not None:
            self.now = max(self.now, self.last_up + GRACE)
        self.something_fails(failure)

    @in_state(ConnectionState.UP)
    @rule()
    def it_talks_nonsense_again_and_again(self):
        for _ in range(MOST_NONSENSE):
            self.it_talks_nonsense()
            if self.core.state is ConnectionState.REFUSED:
                return
            self.it_is_tried_again()
            self.it_comes_up()
        raise AssertionError("it is never left out")

    @in_state(ConnectionState.CONNECTING)
    @rule()
    def a_stream_is_there(self):
        self.act(self.core.opened())

    @in_state(ConnectionState.SHAKING)
    @rule()
    def both_have_proved_who_they_are(self):
        self.act(self.core.proved())

    @in_state(ConnectionState.ATTACHING)
    @rule(who=st.sampled_from(["the same", "the same", "forgetful", "anew", "another", "unnamed"]))
    def the_server_answers(self, who):
        known = self.session
        if who == "anew":
            self.incarnation += 1
        names = f"s{self.incarnation}", "a:1"
        if who == "another":
            names = "t0", "b:1"
        elif who == "unnamed":
            names = "", ""
        resumed = known and who == "the same"
        sure = not (self.core.launched or self.core.own)
        stranger = who == "another" and known and sure and self.first[0] not in ("", "t0")
        if known and not resumed and not stranger:
            self.may_lose = True
        if not known and not stranger:
            self.first = names
        self.act(self.core.attached(resumed, *names, self.now))
        if stranger:
            assert self.session, "another server says nothing about our session"

    first = ("", "")

    @in_state(*UNDER_WAY)
    @rule(failure=failures)
    def something_fails(self, failure):
        self.note_end_of_link()
        patient = failure.lasts is Lasts.NAME and self.patience is not None
        if self.own:
            lasts = failure.lasts is Lasts.YES and not self.core.served
            self.may_refuse = lasts or self.failed_in_a_row + 1 >= MOST_STARTS
            self.may_lose = True
        elif failure.lasts is Lasts.OURS:
            self.may_refuse = self.may_lose = True
        elif failure.lasts is not Lasts.NO and not self.is_served_within_the_grace():
            over = self.now >= self.begun + (self.patience or 0.0)
            self.may_refuse = self.core.served or not patient or over
            self.may_lose = self.may_refuse
            assert self.may_refuse or patient
        self.act(self.core.failed(failure, self.now))
        if failure.lasts is Lasts.NO and not self.own:
            assert self.core.state is ConnectionState.WAITING
        if failure.lasts is Lasts.OURS and not self.own:
            assert self.core.state is ConnectionState.REFUSED
        if self.own and self.failed_in_a_row >= MOST_STARTS:
            assert self.core.state is ConnectionState.REFUSED

    @in_state(ConnectionState.UP)
    @rule()
    def it_says_goodbye(self):
        self.note_end_of_link()
        self.may_lose = True
        self.act(self.core.goodbye(self.now))
        assert not self.session

    @in_state(ConnectionState.UP)
    @rule()
    def it_talks_nonsense(self):
        self.note_end_of_link()
        self.may_lose = True
        recent = [when for when in self.nonsense if self.now - when < NONSENSE_SECONDS]
        self.nonsense = [*recent, self.now]
        self.may_refuse = len(self.nonsense) >= MOST_NONSENSE
        self.act(self.core.talked_nonsense(Failure(Lasts.YES, "nonsense"), self.now))
        assert not self.session

    @in_state(ConnectionState.UP)
    @rule()
    def it_has_done_a_task(self):
        self.core.worked()
        self.failed_in_a_row = 0

    @rule(chance=st.integers(0, 40))
    def its_owner_does_without_it(self, chance):
        if chance == 33:
            self.may_refuse = True
            self.act(self.core.leave_out(Failure(Lasts.YES, "the owner says so"), self.now))
            self.session = False

    @rule(chance=st.integers(0, 40))
    def it_is_closed(self, chance):
        if chance == 33:
            self.core.close()
            self.session = False

    @in_state(*OVER)
    @rule(failure=failures)
    def news_come_too_late(self, failure):
        assert self.core.failed(failure, self.now) == []
        assert self.core.goodbye(self.now) == []
        assert self.core.talked_nonsense(failure, self.now) == []
        assert self.core.tick(self.now + 1e9) == []
        assert self.core.deadline() is None

    # ------------------------------------------------------------------- what must hold

    @invariant()
    def the_core_and_the_model_agree(self):
        if not hasattr(self, "core"):
            return
        self.core.check()
        assert self.core.has_session == self.session
        if self.core.state is ConnectionState.WAITING:
            assert self.core.deadline() is not None

    def teardown(self):
        """The server is there from now on: whatever was before, it comes up, or it was final."""
        if not hasattr(self, "core") or self.core.state in OVER:
            return
        for _ in range(10):
            state = self.core.state
            if state is ConnectionState.UP:
                break
            if state is ConnectionState.CONNECTING:
                self.a_stream_is_there()
            elif state is ConnectionState.SHAKING:
                self.both_have_proved_who_they_are()
            elif state is ConnectionState.ATTACHING:
                self.the_server_answers("the same")
            else:
                self.it_is_tried_again()
        assert self.core.state is ConnectionState.UP


ConnectionHistory.TestCase.settings = settings(max_examples=tries(100), stateful_step_count=50)
TestConnectionHistory = ConnectionHistory.TestCase
TestConnectionHistory.pytestmark = [pytest.mark.timeout(120)]
