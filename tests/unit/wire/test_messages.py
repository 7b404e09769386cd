"""The kinds of message, and bodies that are not pickles."""

from __future__ import annotations

import json

import pytest

from remote_executor.errors import RemoteProtocolError
from remote_executor.wire import messages
from remote_executor.wire.messages import (
    FIRST_NUMBERED,
    Flag,
    Kind,
    decode_fields,
    decode_ids,
    encode_fields,
    encode_ids,
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
