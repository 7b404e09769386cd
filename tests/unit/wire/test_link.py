"""Links: the handshake and the upkeep of one byte stream, however its bytes are cut."""

from __future__ import annotations

import pytest

from remote_executor.errors import (
    AuthenticationFailed,
    ProtocolMismatch,
    Refused,
    RemoteProtocolError,
)
from remote_executor.wire.auth import Mechanism, NoAuth, binding_of
from remote_executor.wire.frames import make_frame
from remote_executor.wire.link import (
    ACCEPTED,
    HANDSHAKE_SECONDS,
    MOST_ROUNDS,
    PING_SECONDS,
    PREAMBLE,
    STRANGER_WORDS,
    LinkState,
    place_of,
)
from remote_executor.wire.messages import PROTOCOL, Flag, Kind, decode_fields, encode_fields
from tests.support.wires import (
    LIMIT,
    Talk,
    bytes_of,
    client_link,
    drain,
    feed,
    nonce_of,
    plain,
    server_link,
    spoken,
    token_of,
)

WRONG = b"w" * 32
WAYS = pytest.mark.parametrize("steps", [None, 1, 7], ids=["whole", "byte by byte", "by 7"])
BOTH = pytest.mark.parametrize("role", ["client", "server"])
SHAKING = pytest.mark.parametrize("state", [LinkState.HELLO, LinkState.PROOF])


def link_of(role, mechanism=None, **options):
    make = client_link if role == "client" else server_link
    return make(mechanism, **options)


def hello(auth="token", nonce="00" * 32, protocols=(PROTOCOL, PROTOCOL)):
    fields = {"protocols": list(protocols), "auth": auth, "nonce": nonce}
    return make_frame(Kind.HELLO, body=encode_fields(fields))


def proof(said=b"0" * 32, aux=0):
    return make_frame(Kind.PROOF, body=said, aux=aux)


def refused(error="auth", reason="we do not know you"):
    return make_frame(Kind.REFUSED, body=encode_fields({"error": error, "reason": reason}))


def link_in(role, state):
    """Return a link in a state of the handshake."""
    link = link_of(role)
    if state is LinkState.PROOF:
        feed(link, spoken(hello()))
    assert link.state is state
    return link


def open_link(role, now=0.0, **options):
    """Return a link whose handshake is done and whose outbox is empty."""
    talk = Talk(client_link(now=now, **options), server_link(now=now, **options)).run(now=now)
    assert talk.is_open
    return talk.ends[role]


def last_of(outbox):
    """Return the fields of the last message in an outbox that holds a handshake's messages."""
    talk = feed(server_link().reader, drain(outbox)[len(PREAMBLE) :])
    body = talk[-1].body
    return Kind(talk[-1].kind), decode_fields(body) if body[:1] == b"{" else body


# ------------------------------------------------------------------------- the handshake


@WAYS
def test_A1_peers_with_the_same_secret_open_the_link(steps):
    talk = Talk().run(steps)

    assert talk.is_open
    assert talk.heard == {"client": [], "server": []}


def test_a_link_tells_when_it_last_heard_something():
    link = client_link(now=3.0)
    before = link.heard

    feed(link, PREAMBLE, now=5.0)

    assert (before, link.heard) == (3.0, 5.0)


@WAYS
def test_peers_at_the_ends_of_an_inherited_pair_open_the_link(steps):
    assert Talk(client_link(NoAuth()), server_link(NoAuth())).run(steps).is_open


@WAYS
def test_what_is_said_right_after_the_proof_gets_through(steps):
    talk = Talk()
    for role in ("client", "server", "client"):
        talk.pass_on(role)
    talk.server.outbox.put(make_frame(Kind.RESULT, 1, b"x" * 2000))

    talk.run(steps)

    assert talk.heard["client"] == [plain(make_frame(Kind.RESULT, 1, b"x" * 2000))]


@BOTH
def test_both_ends_open_with_preamble_and_hello(role):
    kind, fields = last_of(link_of(role).outbox)

    assert kind is Kind.HELLO
    assert fields == {"protocols": [1, 1], "auth": "token", "nonce": nonce_of(role).hex()}


def test_A2_A7_a_wrong_secret_is_refused_in_words_and_both_ends_know():
    """In bounded time: three short messages, and no word of ours before the peer's proof."""
    talk = Talk(client_link(token_of("client", WRONG)))
    talk.pass_on("client")
    talk.pass_on("server")

    with pytest.raises(AuthenticationFailed, match=r"192\.0\.2\.7:40000.*compare the token files"):
        talk.pass_on("client")
    with pytest.raises(AuthenticationFailed, match=r"server\.example:11111.*compare the token"):
        talk.pass_on("server")

    assert talk.client.state is talk.server.state is LinkState.CLOSED
    assert b"PROOF" not in talk.said["server"]
    assert len(talk.said["server"]) < 600


def test_A3_the_secret_is_that_of_the_link_and_not_of_the_process():
    right, wrong = client_link(), client_link(token_of("client", WRONG))

    assert Talk(right).run().is_open
    with pytest.raises(AuthenticationFailed):
        Talk(wrong).run()


def test_A4_K63_one_bad_peer_leaves_the_other_links_alone():
    good = Talk()
    good.pass_on("client")
    with pytest.raises(AuthenticationFailed):
        Talk(client_link(token_of("client", WRONG))).run()
    with pytest.raises(RemoteProtocolError):
        feed(server_link(), b"GET / HTTP/1.1\r\n\r\n")

    assert good.run().is_open


def test_A10_errors_name_the_server_as_the_user_did():
    link = client_link()

    with pytest.raises(AuthenticationFailed) as caught:
        feed(link, spoken(refused()))

    assert caught.value.address == "server.example:11111"


def test_an_impostor_that_does_not_know_the_secret_is_found_out():
    talk = Talk(server=server_link(token_of("server", WRONG)))
    talk.server._mechanism._matching = lambda role, said, binding: WRONG

    with pytest.raises(AuthenticationFailed, match="impostor"):
        talk.run()

    assert talk.client.outbox.size == 0  # what is wrong is no business of an impostor


def test_an_impostor_that_echoes_is_found_out():
    """Reflection: all that the client says comes back to it."""
    link = client_link()
    feed(link, drain(link.outbox))  # preamble and HELLO
    echo = drain(link.outbox)  # PROOF

    with pytest.raises(AuthenticationFailed, match="impostor"):
        feed(link, echo)


def test_a_proof_of_another_conversation_is_refused():
    """Replay: the listener says again what a good client said."""
    overheard = Talk().run().said["client"]
    fresh = server_link(nonce=b"t" * 32)

    with pytest.raises(AuthenticationFailed):
        feed(fresh, overheard)


@BOTH
def test_ends_that_authenticate_differently_part(role):
    link = link_of(role, NoAuth())

    with pytest.raises(AuthenticationFailed, match=f"the {role} authenticates by 'none', the "):
        feed(link, spoken(hello(auth="token")))

    assert link.state is LinkState.CLOSED
    kind, _ = last_of(link.outbox)
    assert kind is (Kind.REFUSED if role == "server" else Kind.HELLO)


@BOTH
@pytest.mark.parametrize("protocols", [(PROTOCOL + 1, PROTOCOL + 9), (-3, 0), (), (PROTOCOL,)])
def test_ends_that_speak_no_common_protocol_part(role, protocols):
    link = link_of(role)

    with pytest.raises(ProtocolMismatch, match="install versions"):
        feed(link, spoken(hello(protocols=protocols)))

    kind, fields = last_of(link.outbox)
    if role == "server":
        assert (kind, fields["error"]) == (Kind.REFUSED, "protocol")


@BOTH
def test_a_later_protocol_that_includes_ours_is_spoken(role):
    link = link_of(role)

    feed(link, spoken(hello(protocols=(PROTOCOL, PROTOCOL + 1, "and later additions"))))

    assert link.state is LinkState.PROOF


def test_a_refusal_for_another_reason_than_the_secret_is_a_mismatch():
    with pytest.raises(ProtocolMismatch, match="too old"):
        feed(client_link(), spoken(refused("protocol", "too old")))


@SHAKING
def test_A7_a_client_takes_a_refusal_at_any_time_of_the_handshake(state):
    link = link_in("client", state)

    with pytest.raises(AuthenticationFailed, match="we do not know you"):
        feed(link, spoken(refused()) if state is LinkState.HELLO else bytes_of(refused()))

    assert link.state is LinkState.CLOSED


# ------------------------------------------------------------------ mechanisms of several rounds


class Counting(Mechanism):
    """Each end says a number, one more than it heard, until it is satisfied."""

    name = "counting"

    def __init__(self, enough, wraps=False):
        self.enough = enough
        self.wraps = wraps

    def step(self, said, binding):
        number = int(said or b"0")
        if number < 0:
            raise Refused("negative\x1b numbers are not allowed")
        self.done = number >= self.enough
        self.peer_name = f"who says \x1b{number}"
        return b"%d" % (number + 1)

    def wrap(self, data):
        return bytes(byte ^ 0x55 for byte in data)

    unwrap = wrap


@WAYS
@pytest.mark.parametrize(("enough", "proofs"), [((2, 1), 1), ((4, 3), 2), ((6, 3), 2)])
def test_A13_a_handshake_takes_as_many_rounds_as_its_mechanism_needs(enough, proofs, steps):
    talk = Talk(client_link(Counting(enough[0])), server_link(Counting(enough[1])))
    if enough == (6, 3):
        # The server is satisfied before the client has had all it wants.
        with pytest.raises(AuthenticationFailed, match="before it has proved"):
            talk.run(steps)
        return

    assert talk.run(steps).is_open

    assert talk.said["client"].count(bytes_of(proof(b"1"))[:2]) >= proofs
    assert talk.server.peer_name.startswith("who says ?")


def test_a_handshake_without_end_is_ended():
    talk = Talk(client_link(Counting(1000)), server_link(Counting(1000)))

    with pytest.raises(RemoteProtocolError, match="no end"):
        talk.run()

    assert talk.said["client"].count(bytes([Kind.PROOF]) + bytes(15)) == MOST_ROUNDS + 1


def test_A7_the_reason_of_a_mechanism_reaches_the_client():
    talk = Talk(client_link(Counting(9)), server_link(Counting(9)))
    talk.client._mechanism.step = lambda said, binding: b"-5"
    talk.pass_on("client")
    talk.pass_on("server")

    with pytest.raises(AuthenticationFailed, match=r"negative\? numbers"):
        talk.pass_on("client")
    with pytest.raises(AuthenticationFailed, match=r"server\.example.*negative\? numbers"):
        talk.pass_on("server")


@BOTH
def test_K63_a_mechanism_that_fails_is_a_refusal_and_no_crash(role):
    """What it does is the user's business, and its errors are those of this link alone."""
    link = link_of(role, Counting(1))
    link._mechanism.step = lambda said, binding: 1 // 0

    with pytest.raises(
        AuthenticationFailed, match="mechanism 'counting' failed: ZeroDiv"
    ) as caught:
        feed(link, spoken(hello("counting"), proof()))

    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert link.state is LinkState.CLOSED


def test_both_ends_bind_their_proofs_to_channel_and_greetings():
    seen = {}

    class Looks(Counting):
        def step(self, said, binding):
            seen[self.enough] = binding
            return super().step(said, binding)

    client = client_link(Looks(2), channel=lambda: b"channel")
    server = server_link(Looks(1), channel=lambda: b"channel")

    assert Talk(client, server).run().is_open

    hellos = [
        encode_fields({"protocols": [1, 1], "auth": "counting", "nonce": nonce_of(role).hex()})
        for role in ("client", "server")
    ]
    assert seen == dict.fromkeys((1, 2), binding_of(b"channel", *hellos))


def test_whoever_stands_between_two_tls_streams_is_found_out():
    """Each end sees the certificate of the one it talks to: they differ."""
    talk = Talk(client_link(channel=lambda: b"of the middle"), server_link(channel=lambda: b"ours"))

    with pytest.raises(AuthenticationFailed, match="compare the token files"):
        talk.run()
    with pytest.raises(AuthenticationFailed):
        talk.pass_on("server")


def test_a_greeting_that_was_changed_on_the_way_is_found_out():
    """So nobody can talk the two ends down to less than both can do."""
    talk = Talk()
    data = drain(talk.client.outbox)
    feed(talk.server, data.replace(b'"protocols":[1,1]', b'"protocols":[0,1]'))
    talk.pass_on("server")

    with pytest.raises(AuthenticationFailed):
        talk.pass_on("client")


@WAYS
def test_A5_a_mechanism_may_change_all_that_travels(steps):
    """Also what comes in one read with the end of the handshake."""
    talk = Talk(client_link(Counting(2, True)), server_link(Counting(1, True)))
    for role in ("client", "server", "client"):
        talk.pass_on(role)
    talk.server.outbox.put(make_frame(Kind.RESULT, 1, b"secret " * 100))
    talk.run(steps)
    talk.client.outbox.put(make_frame(Kind.TASK, 2, b"secret", [b"secret " * 100_000]))

    talk.run(steps and 10_007)

    assert talk.is_open
    assert talk.client.wraps
    assert talk.heard["client"] == [plain(make_frame(Kind.RESULT, 1, b"secret " * 100))]
    assert talk.heard["server"] == [
        plain(make_frame(Kind.TASK, 2, b"secret", [b"secret " * 100_000]))
    ]
    assert not any(b"secret" in said for said in talk.said.values())


@pytest.mark.parametrize("wraps", [False, True])
def test_a_goodbye_right_after_the_handshake_ends_it(wraps):
    talk = Talk(client_link(Counting(2, wraps)), server_link(Counting(1, wraps)))
    for role in ("client", "server", "client"):
        talk.pass_on(role)
    said = drain(talk.server.outbox)
    talk.server.outbox.put(make_frame(Kind.GOODBYE))
    said += drain(talk.server.outbox)
    talk.server.outbox.put(make_frame(Kind.RESULT, 1, b"x" * 1000))

    assert feed(talk.client, said + drain(talk.server.outbox)) == []

    assert talk.client.state is LinkState.CLOSED
    assert talk.client.segments == []


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_nonce_has_32_bytes(length):
    with pytest.raises(ValueError, match=f"32 bytes, not {length}"):
        client_link(nonce=bytes(length))


def test_an_acceptance_alone_proves_nothing():
    link = link_in("client", LinkState.PROOF)

    with pytest.raises(AuthenticationFailed, match="impostor"):
        feed(link, bytes_of(proof(b"", ACCEPTED)))


# ------------------------------------------------------------------------------ strangers


@BOTH
def test_D4_one_end_that_speaks_tls_and_another_that_does_not(role):
    with pytest.raises(RemoteProtocolError, match=f"speaks TLS, and the {role} plain text"):
        feed(link_of(role), bytes.fromhex("1603010200010001fc0303"))


@WAYS
@BOTH
@pytest.mark.parametrize("start", [b"HTTP/1.1 400 Bad Request\r\n", b"SSH-2.0-x\r\n", bytes(20)])
def test_D4_another_program_at_that_port_is_named_for_what_it_says(role, start, steps):
    link = link_of(role)

    with pytest.raises(RemoteProtocolError, match="is not a remote_executor") as caught:
        feed(link, start, steps)

    assert repr(start[: 16 if steps is None else 1])[1:-1] in str(caught.value)


@pytest.mark.parametrize("length", range(1, len(PREAMBLE) + 1))
def test_a_preamble_is_waited_for(length):
    link = server_link()

    assert feed(link, PREAMBLE[:length]) == []
    assert link.state is LinkState.HELLO


def test_a_preamble_that_goes_wrong_late_shows_all_of_its_start():
    link = server_link()
    feed(link, PREAMBLE[:4])

    with pytest.raises(RemoteProtocolError, match=r"x89rexXYZ"):
        feed(link, b"XYZ")


@pytest.mark.parametrize(
    "kind", [kind for kind in Kind if kind not in (Kind.HELLO, Kind.PROOF)] + [0, 31, 73, 255]
)
@pytest.mark.parametrize("state", [LinkState.HELLO, LinkState.PROOF])
def test_A11_a_stranger_can_do_nothing_at_all(kind, state):
    """Not even ping, let alone ATTACH, ADMIN or a task."""
    link = link_in("server", state)
    data = bytes_of(make_frame(kind, 1, b"{}"))

    with pytest.raises(RemoteProtocolError, match=f"kind {int(kind)} in the handshake"):
        feed(link, data if state is LinkState.PROOF else PREAMBLE + data)

    assert last_of(link.outbox)[0] is Kind.HELLO  # which was there before


@BOTH
def test_A11_no_proof_is_taken_before_a_hello_and_no_second_hello_after(role):
    with pytest.raises(RemoteProtocolError):
        feed(link_of(role), spoken(proof()))
    with pytest.raises(RemoteProtocolError):
        feed(link_of(role), spoken(hello(), hello()))


@WAYS
@BOTH
@SHAKING
def test_a_stranger_gets_no_memory(role, state, steps):
    link = link_in(role, state)
    data = bytes_of(make_frame(Kind.PROOF, 1, b"x" * Mechanism.most_bytes))

    with pytest.raises(RemoteProtocolError, match="the limit is 16384"):
        feed(link, data if state is LinkState.PROOF else PREAMBLE + data, steps)


def test_no_shared_memory_is_made_for_a_stranger():
    link = server_link(allocate=lambda sizes: pytest.fail("asked for memory"))

    with pytest.raises(RemoteProtocolError):
        feed(link, spoken(make_frame(Kind.TASK, 1, b"body", [b"buffer"])))


def test_a_stranger_cannot_name_a_segment():
    data = spoken(make_frame(Kind.HELLO, 1, b"{}", [b"b"], flags=Flag.SEGMENT))

    with pytest.raises(RemoteProtocolError, match="1 buffers: the limit is 16384, and none"):
        feed(server_link(), data)


@BOTH
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\x80\x05N.",
        b'{"protocols":[1,1],"auth":"token"}',
        b'{"protocols":1,"auth":"token","nonce":""}',
        b'{"protocols":["1","1"],"auth":"token","nonce":""}',
        b'{"protocols":[1,1.5],"auth":"token","nonce":""}',
        b'{"protocols":[[],{}],"auth":"token","nonce":""}',
        b'{"protocols":[true,true],"auth":"token","nonce":""}',
        b'{"protocols":[1,1],"auth":1,"nonce":""}',
        b'{"protocols":[1,1],"auth":"token","nonce":null}',
    ],
    ids=repr,
)
def test_a_hello_that_is_none_is_refused(role, body):
    link = link_of(role)

    with pytest.raises(RemoteProtocolError):
        feed(link, spoken(make_frame(Kind.HELLO, body=body)))

    assert link.state is LinkState.CLOSED


@pytest.mark.parametrize("body", [b"", b"{}", b'{"reason":1,"error":"auth"}', b'{"reason":"x"}'])
def test_a_refusal_that_is_none_is_refused(body):
    with pytest.raises(RemoteProtocolError):
        feed(client_link(), spoken(make_frame(Kind.REFUSED, body=body)))


@pytest.mark.parametrize(
    "said",
    [
        refused("auth", "\x1b[2J\x07\r\n" + "x" * 10_000),
        refused("other", "\x1b[2J\x07\r\n" + "x" * 10_000),
        hello(auth="\x1b[2J\x07\r\n" + "x" * 10_000),
        hello(protocols=(2, 10**4000)),
    ],
    ids=["refusal", "other refusal", "mechanism", "protocols"],
)
def test_what_a_stranger_says_is_shown_short_and_clean(said):
    with pytest.raises((AuthenticationFailed, ProtocolMismatch)) as caught:
        feed(client_link(), spoken(said))

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < STRANGER_WORDS + 300


# ------------------------------------------------------------------------- the open link


@WAYS
def test_frames_of_the_session_are_passed_on(steps):
    talk = Talk().run()
    frames = [make_frame(kind, 1, b"body") for kind in (Kind.ATTACH, Kind.TASK, Kind.ACK)]
    frames.append(make_frame(Kind.TASK, 2, b"x" * 100_000, [b"y" * 100_000]))
    for frame in frames:
        talk.client.outbox.put(frame)

    talk.run(steps)

    assert talk.heard["server"] == list(map(plain, frames))


@WAYS
def test_numbered_frames_alone_are_passed_on(steps):
    link = open_link("client")
    frames = [make_frame(Kind.RESULT, number) for number in range(10)]

    assert [frame.id for frame in feed(link, bytes_of(*frames), steps)] == list(range(10))


@WAYS
def test_the_limit_of_a_known_peer_is_the_given_one(steps):
    link = open_link("server", limit=50_000)
    assert len(feed(link, bytes_of(make_frame(Kind.TASK, 1, b"x" * 49_976)), 1000)) == 1

    with pytest.raises(RemoteProtocolError, match="the limit is 50000"):
        feed(link, bytes_of(make_frame(Kind.TASK, 1, b"x" * 49_977)), steps)


def test_a_known_peers_buffers_go_where_the_owner_says():
    link = open_link("server", allocate=lambda sizes: ([bytearray(*sizes)], "segment"))

    (frame,) = feed(link, bytes_of(make_frame(Kind.TASK, 1, b"body", [b"buffer"])))

    assert frame.segment == "segment"


@BOTH
@pytest.mark.parametrize("frame", [hello(), proof(), refused(), make_frame(0)], ids=repr)
def test_there_is_no_second_handshake(role, frame):
    link = open_link(role)

    with pytest.raises(RemoteProtocolError, match="a second handshake"):
        feed(link, bytes_of(frame))


def test_K63_after_an_error_nothing_more_is_taken():
    link = open_link("server")
    with pytest.raises(RemoteProtocolError):
        feed(link, bytes_of(make_frame(Kind.TASK, 1, b"x" * LIMIT)))

    assert link.state is LinkState.CLOSED
    assert feed(link, bytes_of(make_frame(Kind.TASK, 2))) == []


@WAYS
def test_K64_a_goodbye_is_quiet(steps):
    talk = Talk().run()
    talk.client.outbox.put(make_frame(Kind.TASK, 1))
    talk.client.say_goodbye()
    talk.client.say_goodbye()

    talk.run(steps)

    assert [frame[0] for frame in talk.heard["server"]] == [Kind.TASK]
    assert talk.server.state is talk.client.state is LinkState.CLOSED


@WAYS
def test_what_comes_after_either_sides_goodbye_is_dropped(steps):
    """The peer may have written before it heard ours."""
    data = bytes_of(make_frame(Kind.TASK, 1), make_frame(Kind.PING))
    ours, theirs = open_link("client"), open_link("client")
    ours.say_goodbye()

    assert feed(ours, data, steps) == []
    assert feed(theirs, bytes_of(make_frame(Kind.GOODBYE)) + data, steps) == []
    assert theirs.outbox.size == 0


@SHAKING
def test_before_the_link_is_open_there_is_nobody_to_say_goodbye_to(state):
    link = link_in("client", state)
    before = link.outbox.size

    link.say_goodbye()

    assert (link.state, link.outbox.size) == (state, before)


def test_repr_tells_the_state():
    assert repr(client_link()) == "<Link client to server.example:11111: hello>"


# --------------------------------------------------------------------------------- time


@SHAKING
def test_a_handshake_has_its_time_however_much_the_stranger_babbles(state):
    link = link_in("server", state)
    feed(link, b"" if state is LinkState.PROOF else PREAMBLE, 1, now=HANDSHAKE_SECONDS - 0.1)

    assert link.deadline() == HANDSHAKE_SECONDS
    assert link.tick(HANDSHAKE_SECONDS - 0.1) is None
    assert link.tick(HANDSHAKE_SECONDS) == "no handshake within 10 s"


@BOTH
def test_an_open_link_pings_and_measures(role):
    link = open_link(role, now=100.0)
    assert link.deadline() == 100.0 + PING_SECONDS
    assert link.tick(103.9) is None
    assert link.outbox.size == 0

    assert link.tick(104.0) is None
    (ping,) = feed(client_link().reader, drain(link.outbox))
    feed(link, bytes_of(make_frame(Kind.PONG, ping.id)), now=104.25)

    assert ping.kind == Kind.PING
    assert link.round_trip == pytest.approx(0.25)
    assert link.deadline() == 104.0 + PING_SECONDS


def test_a_client_measures_before_the_first_ping():
    client, server = client_link(now=10.0), server_link(now=10.0)
    feed(server, drain(client.outbox), now=10.1)
    feed(client, drain(server.outbox), now=10.2)
    feed(server, drain(client.outbox), now=10.3)

    feed(client, drain(server.outbox), now=10.4)

    assert client.state is LinkState.OPEN
    assert client.round_trip == pytest.approx(0.2)


def test_a_ping_that_waited_behind_a_large_frame_changes_little():
    link = open_link("client", now=100.0)
    for sent, answered in (100.0, 100.1), (104.0, 107.0), (108.0, 108.05):
        feed(link, bytes_of(make_frame(Kind.PONG, int(sent * 1e6))), now=answered)
        if sent == 104.0:
            assert link.round_trip == pytest.approx(0.2)

    assert link.round_trip == pytest.approx(0.05)


@WAYS
def test_a_ping_is_answered(steps):
    link = open_link("server")

    assert feed(link, bytes_of(make_frame(Kind.PING, 17)), steps) == []

    assert drain(link.outbox) == bytes_of(make_frame(Kind.PONG, 17))


def test_a_pong_of_the_future_takes_no_negative_time():
    link = open_link("client")

    feed(link, bytes_of(make_frame(Kind.PONG, 2**64 - 1)))

    assert link.round_trip == 0.0


@BOTH
def test_a_silent_peer_counts_as_dead(role):
    link = open_link(role, silence=15.0)
    for now in (4.0, 8.0, 12.0):
        assert link.tick(now) is None

    assert link.deadline() == 15.0
    assert link.tick(15.0) == "nothing heard for 15 s"


def test_any_byte_is_a_sign_of_life():
    link = open_link("client", silence=15.0)

    feed(link, bytes_of(make_frame(Kind.RESULT, 1))[:1], now=14.0)

    assert link.tick(28.9) is None
    assert link.tick(29.0) is not None


def test_a_short_silence_is_pinged_for_in_time():
    link = open_link("client", silence=0.3)

    assert link.deadline() == pytest.approx(0.1)


def test_no_ping_is_added_to_what_waits_to_be_written():
    link = open_link("client")
    link.outbox.put(make_frame(Kind.TASK, 1))
    before = link.outbox.size

    link.tick(PING_SECONDS)

    assert link.outbox.size == before
    assert link.deadline() == 2 * PING_SECONDS


def test_a_frame_may_take_minutes_to_get_through():
    """Its sender hears nothing of it meanwhile, save that the receiver lives."""
    talk = Talk(client_link(silence=15.0), server_link(silence=15.0)).run()
    talk.server.outbox.put(make_frame(Kind.RESULT, 1, b"x" * 100_000, [b"y" * 100_000]))
    data = drain(talk.server.outbox)

    for second in range(200):
        feed(talk.client, data[second * 1001 : (second + 1) * 1001], now=float(second))
        for link in (talk.client, talk.server):
            assert link.tick(float(second)) is None
        talk.pass_on("client", now=float(second))

    assert talk.is_open


def test_a_link_that_ends_waits_only_so_long_for_its_last_bytes_to_be_taken():
    link = open_link("client", silence=15.0)
    link.say_goodbye()

    assert link.tick(14.9) is None
    assert link.deadline() == 15.0
    feed(link, bytes_of(make_frame(Kind.RESULT, 1)), now=14.9)
    assert link.tick(15.0) == "nothing heard for 15 s"


# ------------------------------------------------------------------ a place for who comes back


def test_a_client_that_comes_back_says_to_which_session_before_it_proves_anything():
    place = place_of("ab" * 16)
    talk = Talk(client=client_link(place=place))
    talk.pass_on("client")

    assert talk.server.place == place
    assert talk.server.state is not LinkState.OPEN


def test_who_does_not_come_back_names_no_place():
    talk = Talk()
    talk.run()

    assert talk.server.place == ""
    assert talk.server.state is LinkState.OPEN


@pytest.mark.parametrize("place", [None, 5, ["x"], {}])
def test_an_odd_place_is_none(place):
    link = server_link()
    fields = {"protocols": [PROTOCOL, PROTOCOL], "auth": "token", "nonce": "00" * 32}
    feed(link, spoken(make_frame(Kind.HELLO, body=encode_fields({**fields, "place": place}))))

    assert link.place == ""
    assert link.state is LinkState.PROOF


def test_the_name_of_a_place_does_not_tell_the_session():
    assert place_of("ab" * 16) != place_of("ac" * 16)
    assert "abab" not in place_of("ab" * 16)
    assert len(place_of("x" * 10_000)) == 32
