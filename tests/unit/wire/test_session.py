"""Sessions: what was sent arrives once and in order, whatever happens to the links."""

from __future__ import annotations

import pytest

from remote_executor.errors import LocalProtocolError, RemoteProtocolError
from remote_executor.wire.frames import FrameReader, make_frame
from remote_executor.wire.messages import Kind
from remote_executor.wire.outbox import Outbox
from remote_executor.wire.session import ACK_BYTES, ACK_FRAMES, ACK_SECONDS, Session, SessionState
from tests.support.wires import drain, feed

GRACE = 60.0


def task(number, body=b""):
    return make_frame(Kind.TASK, number, body)


def written(outbox):
    """Return kind and id of what waits in an outbox, and empty it."""
    return [(frame.kind, frame.id) for frame in feed(FrameReader(1 << 20), drain(outbox))]


@pytest.fixture
def outbox():
    return Outbox()


@pytest.fixture
def session(outbox):
    """Return a session with a link, as of time 0."""
    session = Session(now=0.0, grace=GRACE)
    session.attach(outbox, 0)
    yield session
    session.check()


# ------------------------------------------------------------------------------- sending


def test_what_is_sent_is_written_and_kept(session, outbox):
    session.send(task(1))
    session.send(task(2))

    assert written(outbox) == [(Kind.TASK, 1), (Kind.TASK, 2)]
    assert session.unacked_bytes == 48


def test_many_are_sent_as_one_by_one(session, outbox):
    frames = [task(1), make_frame(Kind.TASK, 2, b"body", [b"buffer"]), task(3)]
    session.send_all(frames)
    session.send_all([])

    assert written(outbox) == [(Kind.TASK, 1), (Kind.TASK, 2), (Kind.TASK, 3)]
    assert session.unacked_bytes == sum(frame.size for frame in frames)
    assert session.acknowledged(3) == frames


def test_many_wait_for_a_link_and_are_dropped_after_the_end():
    session, outbox = Session(now=0.0, grace=GRACE), Outbox()
    session.send_all([task(1), task(2)])
    session.attach(outbox, 0)
    assert written(outbox) == [(Kind.TASK, 1), (Kind.TASK, 2)]
    session.link_lost(1.0)
    session.tick(1.0 + GRACE)
    session.send_all([task(3)])
    assert session.unacked_bytes == 0
    session.check()


def test_what_is_acknowledged_is_dropped_and_returned(session):
    frames = [task(number, b"x" * number) for number in range(3)]
    for frame in frames:
        session.send(frame)

    assert session.acknowledged(2) == frames[:2]
    assert session.acknowledged(2) == []
    assert session.unacked_bytes == 26
    assert session.acknowledged(3) == frames[2:]
    assert session.unacked_bytes == 0


@pytest.mark.parametrize("count", [0, 4, 2**64 - 1])
def test_an_acknowledgement_that_cannot_be_is_refused(session, count):
    """Neither of what was never sent, nor of less than before."""
    for number in range(3):
        session.send(task(number))
    session.acknowledged(1)

    with pytest.raises(RemoteProtocolError, match=f"acknowledges {count} frames of 3, 2 of them"):
        session.acknowledged(count)

    assert session.acknowledged(1) == []


def test_repr_tells_the_counts(session):
    session.send(task(1))
    session.received(2, 48, now=0.0)

    assert repr(session) == "<Session attached sent=1 unacked=1 received=2>"


# ----------------------------------------------------------------------------- receiving


def test_a_few_frames_are_acknowledged_after_a_moment(session, outbox):
    session.received(3, 100, now=1.0)

    assert written(outbox) == []
    assert session.deadline() == 1.0 + ACK_SECONDS
    session.tick(1.0 + ACK_SECONDS)
    assert written(outbox) == [(Kind.ACK, 3)]
    assert session.deadline() is None


def test_a_moment_is_counted_from_the_first_frame(session):
    session.received(1, 24, now=1.0)
    session.received(1, 24, now=1.2)

    assert session.deadline() == 1.0 + ACK_SECONDS


def test_nothing_is_acknowledged_too_early(session, outbox):
    session.tick(0.5)
    session.received(1, 24, now=1.0)
    session.tick(1.1)

    assert written(outbox) == []


def test_many_frames_are_acknowledged_at_once(session, outbox):
    session.received(ACK_FRAMES - 1, 24, now=1.0)
    assert written(outbox) == []

    session.received(1, 24, now=1.0)

    assert written(outbox) == [(Kind.ACK, ACK_FRAMES)]
    assert session.deadline() is None


def test_many_bytes_are_acknowledged_at_once(session, outbox):
    """So that the sender can drop them."""
    session.received(1, ACK_BYTES, now=1.0)
    session.received(1, ACK_BYTES - 1, now=1.0)

    assert written(outbox) == [(Kind.ACK, 1)]


# --------------------------------------------------------------------------------- links


def test_before_the_first_link_frames_are_kept():
    session, outbox = Session(0.0, GRACE), Outbox()
    session.send(task(1))
    assert session.state is SessionState.DETACHED

    session.attach(outbox, 0)

    assert written(outbox) == [(Kind.TASK, 1)]
    assert session.state is SessionState.ATTACHED


def test_a_new_link_carries_again_what_the_peer_has_not_had(session, outbox):
    for number in (1, 2, 3):
        session.send(task(number))
    session.link_lost(now=5.0)
    session.send(task(4))
    again = Outbox()

    session.attach(again, 2)

    assert written(again) == [(Kind.TASK, 3), (Kind.TASK, 4)]
    assert session.deadline() is None


def test_a_new_link_may_come_before_the_old_one_is_known_to_be_cut(session, outbox):
    session.send(task(1))
    again = Outbox()
    session.attach(again, 0)
    session.send(task(2))

    assert written(again) == [(Kind.TASK, 1), (Kind.TASK, 2)]
    assert written(outbox) == [(Kind.TASK, 1)]


def test_a_new_link_tells_the_count_so_no_acknowledgement_is_due(session):
    session.received(3, 100, now=1.0)
    session.link_lost(now=1.1)

    session.attach(Outbox(), 0)

    assert session.deadline() is None


def test_the_count_of_acknowledgements_goes_on_over_links(session):
    session.received(3, 100, now=1.0)
    session.link_lost(now=1.1)
    again = Outbox()
    session.attach(again, 0)

    session.received(ACK_FRAMES, 100, now=2.0)

    assert written(again) == [(Kind.ACK, ACK_FRAMES + 3)]


def test_frames_that_came_before_a_cut_was_seen_count(session):
    session.link_lost(now=1.0)

    session.received(ACK_FRAMES, 100, now=1.0)

    assert session.received_count == ACK_FRAMES


def test_a_peer_that_claims_too_much_at_a_new_link_gets_none(session):
    session.send(task(1))
    session.link_lost(now=1.0)

    with pytest.raises(RemoteProtocolError):
        session.attach(Outbox(), 2)

    assert session.state is SessionState.DETACHED


def test_a_link_can_be_lost_but_once(session):
    session.link_lost(now=1.0)
    session.link_lost(now=50.0)

    assert session.deadline() == 1.0 + GRACE


# ------------------------------------------------------------------------------- the end


def test_a_session_without_a_link_expires_after_the_grace(session):
    session.send(task(1))
    session.link_lost(now=5.0)
    session.tick(4.9 + GRACE)
    assert session.state is SessionState.DETACHED

    session.tick(5.0 + GRACE)

    assert session.state is SessionState.EXPIRED
    assert session.unacked_bytes == 0


def test_a_session_that_never_had_a_link_expires_too():
    session = Session(now=100.0, grace=GRACE)
    assert session.deadline() == 100.0 + GRACE

    session.tick(100.0 + GRACE)

    assert session.state is SessionState.EXPIRED
    session.check()


def test_nothing_moves_after_the_end(session, outbox):
    session.received(1, 24, now=0.0)
    session.link_lost(now=0.0)
    session.tick(GRACE)
    before = repr(session)

    session.send(task(1))
    session.received(ACK_FRAMES, ACK_BYTES, now=GRACE)
    session.link_lost(now=GRACE)
    session.tick(GRACE * 2)

    assert session.state is SessionState.EXPIRED
    assert repr(session) == before
    assert session.deadline() is None
    assert written(outbox) == []


def test_an_expired_session_takes_no_link(session):
    session.link_lost(now=0.0)
    session.tick(GRACE)

    with pytest.raises(LocalProtocolError, match="has expired"):
        session.attach(Outbox(), 0)


def test_a_wrong_state_is_noticed(session):
    session.outbox = None
    with pytest.raises(AssertionError):
        session.check()
    session.outbox = Outbox()


def test_a_frame_can_be_found_until_it_is_acknowledged():
    session = Session(0.0, 60.0)
    sent = [make_frame(64, number) for number in (1, 2, 1)]
    session.send_all(sent)

    assert session.find(64, 1) is sent[2]
    assert session.find(64, 2) is sent[1]
    assert session.find(65, 2) is None
    session.acknowledged(2)
    assert session.find(64, 2) is None
