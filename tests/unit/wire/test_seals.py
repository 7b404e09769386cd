"""Wrapped streams: whole or byte by byte, bounded, and cut when something was changed."""

from __future__ import annotations

import pytest

from remote_executor.errors import AuthenticationFailed, RemoteProtocolError
from remote_executor.wire.frames import FrameReader, make_frame
from remote_executor.wire.messages import Kind
from remote_executor.wire.seals import MOST_SEALED, RECORD, SealedOutbox, SealedReader
from tests.support.wires import bytes_of, drain, feed, plain

LIMIT = 1 << 24


def flip(data):
    return bytes(byte ^ 0x55 for byte in data)


def outbox_of(wrap=flip, before=b""):
    return SealedOutbox("the peer", wrap, before)


def reader_of(unwrap=flip):
    return SealedReader("the peer", unwrap, FrameReader(LIMIT))


FRAMES = [
    make_frame(Kind.TASK, 1, b"body"),
    make_frame(Kind.TASK, 2, b"x" * 100_000, [b"y" * 300_000, b"", b"z" * 10]),
    make_frame(Kind.GOODBYE),
]


@pytest.mark.parametrize("steps", [None, 1, 7, 70_000])
@pytest.mark.parametrize("written", [None, 1000])
def test_A5_what_goes_in_comes_out(steps, written):
    outbox = outbox_of()
    for frame in FRAMES:
        outbox.put(frame)

    data = drain(outbox, written)

    assert b"yyy" not in data
    assert list(map(plain, feed(reader_of(), data, steps))) == list(map(plain, FRAMES))
    assert outbox.size == 0


def test_many_small_frames_are_one_record():
    outbox = outbox_of()
    for number in range(100):
        outbox.put(make_frame(Kind.TASK, number))

    (record,) = outbox.chunk()

    assert len(record) == 4 + 100 * 24


def test_what_came_before_goes_first_and_as_it_is():
    outbox = outbox_of(before=b"the end of the handshake")
    outbox.put(FRAMES[0])
    assert outbox.size == 24 + len(bytes_of(FRAMES[0]))

    assert outbox.chunk() == [b"the end of the handshake"]
    outbox.sent(4)
    assert outbox.chunk() == [b"end of the handshake"]
    outbox.sent(20)

    assert bytes(outbox.chunk()[0]) == (28).to_bytes(4, "little") + flip(bytes_of(FRAMES[0]))


def test_the_rest_of_a_record_is_not_wrapped_again():
    """A mechanism counts what it wraps."""
    calls = []
    outbox = outbox_of(lambda data: calls.append(1) or flip(data))
    outbox.put(FRAMES[0])

    first = outbox.chunk()
    assert outbox.chunk() == first
    outbox.sent(3)
    outbox.put(FRAMES[2])
    drain(outbox)

    assert len(calls) == 2


def test_a_cleared_outbox_is_empty():
    outbox = outbox_of(before=b"x")
    outbox.put(FRAMES[0])

    outbox.clear()

    assert outbox.size == 0
    assert bytes(outbox.chunk()[0]) == b""


@pytest.mark.parametrize(
    ("wrap", "words"),
    [(lambda data: 1 // 0, "ZeroDivisionError"), (lambda data: data * 3, "became 786432")],
)
def test_A6_what_cannot_be_wrapped_is_an_error_with_words(wrap, words):
    outbox = outbox_of(wrap)
    outbox.put(make_frame(Kind.RESULT, 1, b"x" * RECORD))

    with pytest.raises(AuthenticationFailed, match=words):
        drain(outbox)


@pytest.mark.parametrize("size", [0, MOST_SEALED + 1, 0xFFFFFFFF])
def test_the_length_is_looked_at_before_memory_is_taken(size):
    reader = reader_of()

    with pytest.raises(RemoteProtocolError, match=f"record of {size} bytes"):
        feed(reader, size.to_bytes(4, "little"))


def test_a_record_that_was_changed_cuts_the_link_and_ends_no_session():
    def fails(data):
        raise ValueError("the sum is wrong")

    with pytest.raises(ConnectionAbortedError, match="changed on the way: the sum is wrong"):
        feed(reader_of(fails), b"\1\0\0\0x")


def test_an_empty_record_is_nothing():
    assert feed(reader_of(lambda data: b""), b"\1\0\0\0x") == []


def test_frames_in_a_record_are_checked_as_any():
    with pytest.raises(RemoteProtocolError, match="the limit"):
        feed(reader_of(bytes), (24).to_bytes(4, "little") + b"\x23" + b"\xff" * 23)
