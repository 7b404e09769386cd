"""Any bytes make a link say no in one of three ways, and only a right proof opens it."""

from __future__ import annotations

import json
import tracemalloc

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from remote_executor.errors import AuthenticationFailed, ProtocolMismatch, RemoteProtocolError
from remote_executor.wire.frames import make_frame
from remote_executor.wire.link import PREAMBLE, LinkState
from remote_executor.wire.messages import Kind
from tests.support.wires import (
    LIMIT,
    Talk,
    bytes_of,
    client_link,
    feed,
    nonce_of,
    plain,
    server_link,
)

REFUSALS = (RemoteProtocolError, AuthenticationFailed, ProtocolMismatch)
NONCE = st.binary(min_size=32, max_size=32)

roles = st.sampled_from(["client", "server"])
steps = st.one_of(st.none(), st.integers(1, 50), st.lists(st.integers(1, 200), max_size=20))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 3), st.integers(), st.floats(), st.text(max_size=70)
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
fields = st.fixed_dictionaries(
    {},
    optional={
        "protocols": st.one_of(st.just([1, 1]), values),
        "auth": st.one_of(st.just("token"), values),
        "nonce": st.one_of(st.just("ab" * 32), values),
        "reason": values,
        "error": st.one_of(st.sampled_from(["auth", "protocol"]), values),
    },
)
bodies = st.one_of(fields.map(lambda it: json.dumps(it).encode()), st.binary(max_size=60))
messages = st.builds(
    make_frame,
    st.one_of(
        st.sampled_from([Kind.HELLO, Kind.PROOF, Kind.REFUSED]),
        st.sampled_from(list(Kind)),
        st.integers(0, 255),
    ),
    st.integers(0, 2**64 - 1),
    bodies,
    st.lists(st.binary(max_size=10), max_size=2),
    aux=st.integers(0, 2),
    flags=st.one_of(st.just(0), st.integers(0, 255)),
)
CONVERSATION = Talk().run().said
"""What the two ends of :func:`link_of` say to each other when all is well."""


def link_of(role, nonce=None):
    make = client_link if role == "client" else server_link
    return make(nonce=nonce or nonce_of(role))


def proof_in(said):
    """Return the proof, which ends the handshake."""
    return said[-32:]


def babble_at(link, data, steps=None):
    """Feed bytes to a link; return what its session hears, which is nothing after a refusal."""
    refusal = None
    try:
        heard = feed(link, data, steps)
    except REFUSALS as exc:
        refusal, heard = exc, []
    assert refusal is None or link.state is LinkState.CLOSED
    assert len(str(refusal)) < 1000
    return heard


@settings(max_examples=200)
@given(roles, st.lists(messages, max_size=5), st.binary(max_size=40), st.booleans(), steps)
def test_A11_no_bytes_without_the_secret_open_a_link(role, said, rest, opens_well, steps):
    link = link_of(role)
    data = (PREAMBLE if opens_well else b"") + bytes_of(*said) + rest

    heard = babble_at(link, data, steps)

    assert heard == []
    assert link.state is not LinkState.OPEN


@settings(max_examples=60)
@given(roles, st.binary(max_size=200))
def test_D4_any_other_program_is_refused(role, data):
    assume(not PREAMBLE.startswith(data[: len(PREAMBLE)]))
    link = link_of(role)

    assert babble_at(link, data) == []

    assert link.state is LinkState.CLOSED


@settings(max_examples=200)
@given(roles, st.data(), steps)
def test_a_mutated_conversation_opens_nothing_it_should_not(role, data, steps):
    """One byte changed, dropped, doubled or added, or the rest cut off."""
    other = "server" if role == "client" else "client"
    said = bytearray(CONVERSATION[other])
    place = data.draw(st.integers(0, len(said) - 1), "place")
    change = data.draw(st.sampled_from(["set", "drop", "double", "add", "cut"]), "change")
    byte = data.draw(st.integers(0, 255), "byte")
    if change == "set":
        assume(said[place] != byte)
        said[place] = byte
    elif change == "drop":
        del said[place]
    elif change == "double":
        said.insert(place, said[place])
    elif change == "add":
        said.insert(place, byte)
    else:
        del said[place:]
    link = link_of(role)

    heard = babble_at(link, bytes(said), steps)

    assert heard == []
    if link.state is LinkState.OPEN:
        # What was changed means nothing: the id of a HELLO, say, or its aux. What counts is whole.
        right = CONVERSATION[other]
        assert proof_in(right) in said
        assert json.dumps(nonce_of(other).hex()).encode() in said


@settings(max_examples=60)
@given(NONCE, NONCE)
def test_a_replayed_proof_of_another_conversation_is_refused(here, there):
    """Whatever a listener has heard, to either end, it cannot answer another nonce with it."""
    for role, other in (("client", "server"), ("server", "client")):
        assume(here != there)
        overheard = Talk(**{role: link_of(role, there), other: link_of(other)}).run().said[other]
        link = link_of(role, here)

        babble_at(link, overheard)

        assert link.state is LinkState.CLOSED


@settings(max_examples=100)
@given(st.lists(st.tuples(st.booleans(), messages), max_size=6), steps)
@example([(True, make_frame(Kind.GOODBYE)), (True, make_frame(Kind.TASK))], None)
def test_a_known_peer_may_babble_too(said, steps):
    """Frames come out whole and in order until the first that the link forbids."""
    link = Talk().run().server
    sent = [make_frame(Kind.TASK, n) if plainly else m for n, (plainly, m) in enumerate(said)]

    for_session = [
        plain(frame)
        for frame in sent
        if frame.kind > Kind.GOODBYE or frame.kind in (Kind.ATTACH, Kind.ATTACHED, Kind.ACK)
    ]

    heard = list(map(plain, babble_at(link, bytes_of(*sent), steps)))

    assert heard == for_session[: len(heard)]
    assert link.state is LinkState.CLOSED or len(heard) == len(for_session)


@settings(max_examples=40)
@given(roles, st.lists(messages, max_size=3), st.integers(0, 2**64 - 1), st.integers(0, 2**16 - 1))
def test_memory_taken_for_a_stranger_is_bounded(role, said, size, count):
    """However large the frame is that a stranger announces: some 16 KiB, and small change."""
    head = bytearray(make_frame(Kind.PROOF, 1).raw)
    head[16:24] = size.to_bytes(8, "little")
    head[2:4] = count.to_bytes(2, "little")
    data = PREAMBLE + bytes_of(*said) + bytes(head) + bytes(5000)
    link = link_of(role)

    tracemalloc.start()
    try:
        babble_at(link, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 512 * 1024 < LIMIT
