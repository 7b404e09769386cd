"""The kinds of message, and bodies that are not pickles."""

from __future__ import annotations

import json

import pytest

from remote_executor.errors import RemoteProtocolError
from remote_executor.wire import messages
from remote_executor.wire.messages import (
    FIRST_NUMBERED,
    MAX_SLOTS,
    Flag,
    Kind,
    aux_of_grace,
    check_slots,
    decode_fields,
    decode_ids,
    encode_fields,
    encode_ids,
    fields_for_client,
    grace_of_aux,
)


def test_kinds_and_flags_fit_their_byte_and_differ():
    assert all(0 < kind < 256 for kind in Kind)
    assert all(0 <= flag < 256 and flag & (flag - 1) == 0 for flag in Flag)
    assert len(set(map(int, Kind))) == len(Kind.__members__)
    assert len({int(flag) for flag in Flag.__members__.values()}) == len(Flag.__members__)


def test_what_belongs_to_the_link_is_not_numbered():
    assert {kind.name for kind in Kind if kind < FIRST_NUMBERED} == {
        *("HELLO", "PROOF", "REFUSED", "ATTACH", "ATTACHED"),
        *("PING", "PONG", "ACK", "GOODBYE", "ADMIN", "REPLY"),
    }


def test_the_drawing_shows_every_kind():
    assert [kind.name for kind in Kind if kind.name not in messages.__doc__] == []


# ------------------------------------------------------------------------------- fields


def test_fields_come_back():
    fields = {"a": 1, "b": "text, ünicode, \ud800", "c": [1, None], "d": {"e": 1.5}, "f": True}

    assert decode_fields(encode_fields(fields)) == fields


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_fields_are_read_from_any_buffer(kind):
    assert decode_fields(kind(b'{"a":1}'), a=int) == {"a": 1}


def test_fields_are_short_ascii():
    assert encode_fields({"a": 1, "b": "ü"}) == b'{"a":1,"b":"\\u00fc"}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"\xff\xff\xff\xff",
        b"{} {}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\x80\x04N.",
    ],
    ids=repr,
)
def test_what_is_no_json_is_refused_in_few_words(body):
    with pytest.raises(RemoteProtocolError, match="is not JSON") as caught:
        decode_fields(body)

    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [[], 1, "text", None, True])
def test_what_is_no_object_is_refused(value):
    with pytest.raises(RemoteProtocolError, match="not a JSON object"):
        decode_fields(json.dumps(value).encode())


def test_a_huge_number_is_a_number_or_refused():
    """Python limits the digits of what it parses; either way nothing else comes out."""
    try:
        fields = decode_fields(b'{"a":' + b"9" * 16_000 + b"}", a=int)
    except RemoteProtocolError:
        return

    assert fields["a"] > 0


def test_a_missing_field_is_refused():
    with pytest.raises(RemoteProtocolError, match="'b' of a control message"):
        decode_fields(b'{"a":1}', a=int, b=int)


@pytest.mark.parametrize("wanted", [str, list, dict, (str, list)])
def test_a_field_of_another_type_is_refused(wanted):
    with pytest.raises(RemoteProtocolError, match="'a' of a control message"):
        decode_fields(b'{"a":1}', a=wanted)


def test_a_field_may_have_one_of_several_types():
    assert decode_fields(b'{"a":null}', a=(int, type(None))) == {"a": None}


# ---------------------------------------------------------------------------------- ids


@pytest.mark.parametrize("ids", [[], [0], [1, 2**64 - 1, 7]])
def test_ids_come_back(ids):
    assert decode_ids(memoryview(encode_ids(ids))) == tuple(ids)


@pytest.mark.parametrize("length", [1, 7, 9])
def test_half_an_id_is_refused(length):
    with pytest.raises(RemoteProtocolError, match=f"has {length} bytes"):
        decode_ids(bytes(length))


# -------------------------------------------------------- what a client takes from a server

ATTACHED = {
    "resumed": False,
    "received": 0,
    "slots": 2,
    "segments": True,
    "host": "node1",
    "pid": 7,
    "server": "ab",
    "place": "node1 0.0.0.0:1",
    "implementation": "cpython",
    "python": [3, 11, 2],
    "versions": {"numpy": "1.26"},
}
DIED = {"reason": "died", "host": "node1", "pid": 7, "exitcode": -9, "stderr": "last words"}
LOG = {
    "name": "x",
    "levelno": 20,
    "msg": "m",
    "process": 7,
    "lineno": None,
    "created": 1.5,
    "exc_text": "Traceback",
}
REPLY = {"error": "no room"}
MESSAGES = {
    Kind.ATTACHED: ATTACHED,
    Kind.DIED: DIED,
    Kind.LOG: LOG,
    Kind.REPLY: REPLY,
}
NEVER = [[[]], {"a": [1]}]
"""No field of any of them may be this."""


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_client_takes_all_fields_of_a_right_message(kind):
    assert fields_for_client(kind, encode_fields(MESSAGES[kind])) == MESSAGES[kind]


@pytest.mark.parametrize("kind", MESSAGES)
def test_what_a_later_version_may_add_is_left_out(kind):
    body = encode_fields({**MESSAGES[kind], "mood": "good"})

    assert fields_for_client(kind, body) == MESSAGES[kind]


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, fields in MESSAGES.items() for name in fields],
)
def test_one_odd_field_makes_a_message_nonsense(kind, name):
    for odd in NEVER:
        with pytest.raises(RemoteProtocolError, match=f"{kind.name} has an odd field '{name}'"):
            fields_for_client(kind, encode_fields({**MESSAGES[kind], name: odd}))


@pytest.mark.parametrize(
    ("kind", "name", "odd"),
    [
        (Kind.ATTACHED, "python", 3),
        (Kind.ATTACHED, "python", [3]),
        (Kind.ATTACHED, "python", [3, "11"]),
        (Kind.ATTACHED, "slots", True),
        (Kind.ATTACHED, "slots", -1),
        (Kind.ATTACHED, "slots", 2**30),
        (Kind.ATTACHED, "received", 1.0),
        (Kind.ATTACHED, "resumed", 1),
        (Kind.ATTACHED, "versions", {"numpy": 1}),
        (Kind.ATTACHED, "host", None),
        (Kind.DIED, "pid", "x"),
        (Kind.DIED, "exitcode", "9"),
        (Kind.DIED, "exitcode", 1.5),
        (Kind.DIED, "stderr", ["x"]),
        (Kind.LOG, "levelno", "20"),
        (Kind.LOG, "process", None),
    ],
)
def test_odd_fields_that_were_met(kind, name, odd):
    with pytest.raises(RemoteProtocolError, match=name):
        fields_for_client(kind, encode_fields({**MESSAGES[kind], name: odd}))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Kind.ATTACHED, "resumed"),
        (Kind.ATTACHED, "received"),
        (Kind.ATTACHED, "slots"),
        (Kind.DIED, "reason"),
        (Kind.LOG, "name"),
        (Kind.REPLY, "error"),
    ],
)
def test_a_field_that_must_be_there(kind, name):
    fields = {key: value for key, value in MESSAGES[kind].items() if key != name}

    with pytest.raises(RemoteProtocolError, match=f"has no field '{name}'"):
        fields_for_client(kind, encode_fields(fields))


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("body", [b"", b"x", b"3", b"[]", b"null", b"[" * 100_000, b"\xff"])
def test_a_body_that_is_no_object_is_nonsense(kind, body):
    with pytest.raises(RemoteProtocolError, match=kind.name):
        fields_for_client(kind, body)


def test_no_server_has_a_million_slots():
    assert check_slots(MAX_SLOTS) == MAX_SLOTS
    with pytest.raises(RemoteProtocolError, match="no server has so many"):
        check_slots(MAX_SLOTS + 1)


@pytest.mark.parametrize("grace", [0.0, 0.001, 0.5, 30.0])
def test_a_grace_travels_as_a_number(grace):
    assert grace_of_aux(aux_of_grace(grace)) == pytest.approx(grace)


def test_a_grace_beyond_all_measure_is_a_long_one():
    assert aux_of_grace(float("1e300")) < 1 << 32
    assert aux_of_grace(-1.0) == 0
