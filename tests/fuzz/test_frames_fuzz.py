"""Any bytes become frames or RemoteProtocolError, and take no more memory than the limit allows."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from remote_executor.errors import RemoteProtocolError
from remote_executor.wire.frames import HEADER, LARGE, FrameReader, make_frame
from remote_executor.wire.messages import decode_fields, decode_ids
from tests.support.wires import bytes_of, feed, plain

LIMIT = 200_000

bodies = st.one_of(
    st.binary(max_size=40), st.integers(0, LARGE + 100).map(lambda size: b"\x5a" * size)
)
frames = st.builds(
    make_frame,
    st.integers(0, 255),
    st.integers(0, 2**64 - 1),
    bodies,
    st.lists(bodies, max_size=3),
    aux=st.integers(0, 2**32 - 1),
    flags=st.integers(0, 255).map(lambda flags: flags & ~8),  # segments have no bytes here
).filter(lambda frame: frame.size <= LIMIT)
steps = st.one_of(st.none(), st.integers(1, 100), st.lists(st.integers(1, 5000), max_size=20))
# Headers that say all but the impossible, so that more than the first check is reached.
headers = st.builds(
    HEADER.pack,
    st.integers(0, 255),
    st.sampled_from([0, 1, 8, 255]),
    st.one_of(st.integers(0, 3), st.integers(0, 2**16 - 1)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.one_of(st.integers(0, 100), st.integers(0, LIMIT), st.integers(0, 2**64 - 1)),
)
babble = st.lists(st.one_of(headers, st.binary(max_size=100), frames.map(bytes_of)), max_size=5)


def reader_of(known):
    reader = FrameReader(LIMIT)
    if known:
        reader.open_up(LIMIT)
    return reader


def outcome(function, *args):
    """Return what a call returns, or the one error that it may raise."""
    try:
        return function(*args)
    except RemoteProtocolError as exc:
        return exc


def is_refusal(result):
    return isinstance(result, RemoteProtocolError) and len(str(result)) < 300


@settings(max_examples=150)
@given(st.lists(frames, max_size=4), steps, st.booleans())
def test_any_frames_come_out_as_they_went_in(sent, steps, known):
    received = feed(reader_of(known), bytes_of(*sent), steps)

    assert list(map(plain, received)) == list(map(plain, sent))
    assert bytes_of(*received) == bytes_of(*sent)


@settings(max_examples=200)
@given(babble.map(b"".join), steps, st.booleans())
@example(HEADER.pack(35, 8, 0, 0, 1, LARGE + 1), None, True)
@example(HEADER.pack(35, 8, 1, 0, 1, 0) + bytes(8), None, True)
@example(HEADER.pack(35, 0, 2**16 - 1, 0, 1, 0), None, True)
def test_any_bytes_become_frames_or_a_protocol_error(data, steps, known):
    received = outcome(feed, reader_of(known), data, steps)

    assert is_refusal(received) or data.startswith(bytes_of(*received))


@settings(max_examples=100)
@given(babble.map(b"".join), steps)
def test_how_the_bytes_are_cut_does_not_matter(data, steps):
    whole, pieces = (outcome(feed, reader_of(True), data, way) for way in (None, steps))

    if is_refusal(whole):
        assert str(whole) == str(pieces)
    else:
        assert list(map(plain, whole)) == list(map(plain, pieces))


@settings(max_examples=60)
@given(headers, st.binary(max_size=64), st.integers(100, 100_000))
def test_memory_is_bounded_by_the_limit(header, rest, limit):
    """Whatever a header says: one frame's memory, and what its small objects weigh."""
    tracemalloc.start()
    try:
        outcome(feed, FrameReader(limit), header + rest)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # Each of the 500 buffers that a stranger may announce weighs something, be it empty.
    assert peak < limit + 250_000


@settings(max_examples=100)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text('[]{}",:0123456789eE+-.ntfu\\x \ud800é', max_size=200).map(
            lambda text: text.encode("utf-8", "surrogatepass")
        ),
    )
)
def test_any_body_becomes_fields_and_ids_or_a_protocol_error(body):
    fields, ids = outcome(decode_fields, body), outcome(decode_ids, body)

    assert is_refusal(fields) or isinstance(fields, dict)
    assert is_refusal(ids) or len(ids) == len(body) / 8


@pytest.mark.parametrize("depth", [100, 990, 1000, 10_000, 100_000])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deeply_nested_fields_exhaust_no_stack(depth, opening):
    with pytest.raises(RemoteProtocolError):
        decode_fields(opening * depth)
