"""Frames: bytes in, the same frames out, however the bytes are cut."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from remote_executor.errors import LocalProtocolError, RemoteProtocolError
from remote_executor.wire.frames import (
    FIRST_ROOM,
    HEADER,
    LARGE,
    MAX_BUFFERS,
    SEGMENT_BIT,
    SMALL_STAGING,
    STAGING,
    FrameReader,
    _Room,
    make_frame,
    segment_is_lost,
)
from remote_executor.wire.messages import Flag
from tests.support.wires import bytes_of, feed, plain

LIMIT = 1024 * 1024
WAYS = pytest.mark.parametrize("steps", [None, 1, 23, 5000], ids=lambda n: f"by {n or 'all'}")


def some_frames():
    """Return one of each shape: they differ in what is small, large, empty, and there at all."""
    return [
        make_frame(35),
        make_frame(35, 7, b"body", aux=9, flags=1),
        make_frame(64, 2**64 - 1, b"x" * 100, aux=2**32 - 1, flags=255 & ~SEGMENT_BIT),
        make_frame(35, 1, b"small body", [b"first", bytearray(b"second"), memoryview(b"third")]),
        make_frame(35, 2, b"", [b"", b"one", b"", b""]),
        make_frame(35, 3, b"l" * (LARGE + 1)),
        make_frame(35, 4, b"l" * (LARGE + 1), [b"a" * 70_000, b"b"]),
        make_frame(35, 5, b"s", [b"c" * 70_000]),
        make_frame(35, 6, memoryview(b"a view")),
        make_frame(35, 7, bytearray(b"an array")),
        make_frame(35, 8, b"m" * LARGE),
        make_frame(35, 9, b"m" * (LARGE - 24)),
    ]


# ------------------------------------------------------------------------------ a frame


def test_a_small_frame_is_one_piece():
    frame = make_frame(35, 7, b"body", aux=9, flags=1)

    assert frame.parts() == [struct.pack("<BBHIQQ", 35, 1, 0, 9, 7, 4) + b"body"]
    assert bytes(frame.body) == b"body"
    assert frame.size == 28
    assert frame.sizes() == ()


def test_a_large_body_is_referred_to_and_not_copied():
    body = b"l" * (LARGE + 1)
    frame = make_frame(35, 7, body)

    assert frame.body is body
    assert frame.parts()[1] is body
    assert frame.size == 24 + len(body)


def test_buffers_are_referred_to_and_not_copied():
    buffers = [b"first", bytearray(b"second")]
    frame = make_frame(35, 7, b"body", buffers)

    assert list(map(id, frame.parts()[1:])) == list(map(id, buffers))
    assert frame.sizes() == (5, 6)
    assert frame.size == 24 + 16 + 4 + 11
    assert bytes(frame.body) == b"body"


def test_a_large_body_may_have_buffers_too():
    body = b"l" * (LARGE + 1)
    frame = make_frame(35, 7, body, [b"buffer"])

    assert frame.parts()[1] is body
    assert frame.sizes() == (6,)
    assert frame.size == 24 + 8 + len(body) + 6


def test_buffers_in_a_segment_do_not_go_into_the_stream():
    frame = make_frame(35, 7, b"body", [b"buffer"], flags=Flag.SEGMENT)

    assert bytes_of(frame).endswith(b"body")
    assert frame.sizes() == (6,)


@pytest.mark.parametrize("size", [4, LARGE + 1])
def test_a_frame_may_be_given_a_segment_later(size):
    body = b"x" * size
    frame = make_frame(35, 7, body, [b"buffer"], aux=9, flags=1)

    frame.set_segment("the segment")

    expected = make_frame(35, 7, body, [b"buffer"], aux=9, flags=1 | Flag.SEGMENT)
    assert bytes_of(frame) == bytes_of(expected)
    assert plain(frame) == plain(expected)
    assert frame.segment == "the segment"
    assert frame.sizes() == (6,)


def test_K66_a_frame_that_cannot_be_made_fails_before_a_byte_of_it_exists():
    with pytest.raises(LocalProtocolError, match="16385 buffers in one frame"):
        make_frame(35, 7, b"body", [b""] * (MAX_BUFFERS + 1))


def test_repr_tells_what_it_is():
    frame = make_frame(35, 7, b"body", [b"buffer"], aux=9, flags=1)

    assert repr(frame) == "<Frame kind=35 id=7 aux=9 flags=1 bytes=42 buffers=1>"


def test_the_segment_bit_is_that_of_the_flags():
    assert SEGMENT_BIT == Flag.SEGMENT


# ------------------------------------------------------------------------------ reading


@WAYS
@pytest.mark.parametrize("known", [False, True], ids=["stranger", "known"])
def test_every_frame_comes_out_as_it_went_in(steps, known):
    sent = some_frames()
    reader = FrameReader(LIMIT)
    if known:
        reader.open_up(LIMIT)

    received = feed(reader, bytes_of(*sent), steps)

    assert list(map(plain, received)) == list(map(plain, sent))


@pytest.mark.parametrize("frame", some_frames(), ids=repr)
def test_a_frame_that_came_in_goes_out_as_the_same_bytes(frame):
    data = bytes_of(frame)

    (received,) = feed(FrameReader(LIMIT), data)

    assert bytes_of(received) == data
    assert received.size == frame.size
    assert received.sizes() == frame.sizes()


def test_hundreds_of_small_frames_come_from_one_read():
    reader = FrameReader(LIMIT)
    reader.open_up(LIMIT)
    data = bytes_of(*[make_frame(35, number, b"x" * 8) for number in range(1000)])
    reader.get_buffer()[: len(data)] = data

    frames = reader.filled(len(data))

    assert [frame.id for frame in frames] == list(range(1000))


def test_a_large_frame_is_received_into_its_final_place():
    reader = FrameReader(LIMIT)
    frame = make_frame(35, 1, b"body", [b"x" * 100_000])
    head, rest = bytes_of(frame)[:28], bytes_of(frame)[28:]
    assert feed(reader, head) == []
    assert feed(reader, rest[:10]) == []

    buffer = reader.get_buffer()
    buffer[: len(rest) - 10] = rest[10:]
    (received,) = reader.filled(len(rest) - 10)

    assert len(buffer) == len(rest) - 10
    assert buffer.obj is received.buffers[0]


def test_frames_that_straddle_the_staging_area_are_moved_to_its_start():
    reader = FrameReader(LIMIT)
    frames = [make_frame(35, number, b"x" * 700) for number in range(40)]

    received = feed(reader, bytes_of(*frames), 1000)

    assert [frame.id for frame in received] == list(range(40))


def test_opening_up_keeps_what_is_half_read():
    reader = FrameReader(100)
    data = bytes_of(make_frame(35, 1, b"before"), make_frame(35, 2, b"after"))
    assert [frame.id for frame in feed(reader, data[:40])] == [1]

    reader.open_up(LIMIT)

    assert [frame.id for frame in feed(reader, data[40:])] == [2]
    assert len(reader.get_buffer()) == STAGING


def test_opening_up_keeps_a_large_frame_that_is_half_read():
    reader = FrameReader(10_000)
    frame = make_frame(35, 1, b"x" * 5000)
    data = bytes_of(frame)
    assert feed(reader, data[:1000]) == []

    reader.open_up(LIMIT)

    assert list(map(plain, feed(reader, data[1000:]))) == [plain(frame)]


# ------------------------------------------------------------------- memory of one's own


def test_the_owner_says_where_buffers_go():
    asked, memory = [], bytearray(9)

    def allocate(sizes):
        asked.append(tuple(sizes))
        view = memoryview(memory)
        return [view[:5], view[5:]], "the segment"

    reader = FrameReader(LIMIT, allocate)

    (frame,) = feed(reader, bytes_of(make_frame(35, 1, b"body", [b"12345", b"6789"])), 1)

    assert asked == [(5, 4)]
    assert memory == b"123456789"
    assert frame.segment == "the segment"


def test_opening_up_may_change_where_buffers_go():
    reader = FrameReader(LIMIT)
    reader.open_up(LIMIT, lambda sizes: ([bytearray(size) for size in sizes], "mine"))

    (frame,) = feed(reader, bytes_of(make_frame(35, 1, b"body", [b"12345"])))

    assert frame.segment == "mine"
    assert frame.buffers == [b"12345"]


def test_a_segment_that_came_along_belongs_to_the_frame_that_names_it():
    reader = FrameReader(LIMIT)
    reader.segments += ["first", "second"]
    sent = [make_frame(35, number, b"body", [b"not sent"], flags=Flag.SEGMENT) for number in (1, 2)]

    received = feed(reader, bytes_of(*sent), 1)

    assert [frame.segment for frame in received] == ["first", "second"]
    assert [frame.sizes() for frame in received] == [(8,), (8,)]
    assert [bytes(frame.body) for frame in received] == [b"body", b"body"]
    assert reader.segments == []


@pytest.mark.parametrize("size", [0, LARGE + 1])
def test_a_frame_without_buffers_takes_no_segment(size):
    reader = FrameReader(LIMIT)
    reader.segments.append("of another frame")

    (frame,) = feed(reader, bytes_of(make_frame(35, 1, b"x" * size, flags=Flag.SEGMENT)))

    assert frame.segment is None
    assert reader.segments == ["of another frame"]


# ----------------------------------------------------------------------------- bad input


def header(kind=35, flags=0, count=0, size=0):
    return HEADER.pack(kind, flags, count, 0, 1, size)


BAD = {
    "body above the limit": header(size=LIMIT),
    "body of 16 EiB": header(size=2**64 - 1),
    "buffers above the limit": header(count=2) + struct.pack("<QQ", LIMIT, 0),
    "buffers of 16 EiB each": header(count=2) + struct.pack("<QQ", 2**64 - 1, 2**64 - 1),
    "too many buffers": header(count=MAX_BUFFERS + 1),
    "more buffers than a stranger's staging holds": header(count=SMALL_STAGING // 8),
    "a segment that did not come": header(flags=SEGMENT_BIT, count=1) + struct.pack("<Q", 10),
}


@WAYS
@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_K63_what_cannot_be_a_frame_is_refused(data, steps):
    reader = FrameReader(LIMIT)

    with pytest.raises(RemoteProtocolError):
        feed(reader, data, steps)


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_memory_is_taken_only_after_the_limits_were_looked_at(data):
    reader = FrameReader(LIMIT, lambda sizes: pytest.fail("asked for memory"))
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            feed(reader, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 64 * 1024


@pytest.mark.parametrize(("size", "fits"), [(100 - 24, True), (101 - 24, False)])
@pytest.mark.parametrize("count", [0, 1])
def test_the_limit_is_that_of_the_whole_frame(size, fits, count):
    reader = FrameReader(100)
    frame = make_frame(35, 1, b"x" * (size - 8 * count), [b""] * count)

    if fits:
        assert len(feed(reader, bytes_of(frame))) == 1
    else:
        with pytest.raises(RemoteProtocolError, match="says 101 bytes, the limit is 100"):
            feed(reader, bytes_of(frame))


def test_a_truncated_frame_is_no_frame():
    data = bytes_of(make_frame(35, 1, b"body"))
    for length in range(len(data)):
        assert feed(FrameReader(LIMIT), data[:length]) == []


# ------------------------------------------------------------- memory grows with what arrives


@pytest.fixture
def traced():
    """Return a function that tells how many bytes were taken at most since the last call."""
    tracemalloc.start()

    def peak():
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        return most

    peak()
    yield peak
    tracemalloc.stop()


HUGE = 2 * 1024**3


@pytest.mark.parametrize(
    "head",
    [
        HEADER.pack(35, 0, 0, 0, 1, HUGE),
        HEADER.pack(35, 0, 1, 0, 1, 10) + HUGE.to_bytes(8, "little"),
        HEADER.pack(35, 0, 2, 0, 1, HUGE) + 2 * HUGE.to_bytes(8, "little"),
        HEADER.pack(35, 0, 16_000, 0, 1, 10) + 16_000 * (10**6).to_bytes(8, "little"),
    ],
    ids=["a body", "a buffer", "all", "many buffers"],
)
def test_what_is_only_announced_takes_no_memory(traced, head):
    reader = FrameReader(1 << 60)
    reader.open_up(1 << 60)

    assert feed(reader, head + b"x" * 100) == []

    assert traced() < 4 * 1024 * 1024


def test_memory_is_never_much_more_than_twice_of_what_has_come(traced):
    reader = FrameReader(1 << 60)
    reader.open_up(1 << 60)
    feed(reader, HEADER.pack(35, 0, 1, 0, 1, HUGE) + HUGE.to_bytes(8, "little"))

    for megabytes in range(1, 40):
        assert feed(reader, bytes(1024 * 1024)) == []
        assert traced() < (2 * megabytes + 4) * 1024 * 1024


@pytest.mark.parametrize("size", [FIRST_ROOM - 1, FIRST_ROOM, FIRST_ROOM + 1, 5_000_001])
@pytest.mark.parametrize("buffers", [(), (0, 3, 0), (FIRST_ROOM + 7, 0, 3_000_001)])
@pytest.mark.parametrize("step", [70_000, 1 << 30])
def test_what_came_into_growing_memory_is_what_was_sent(size, buffers, step):
    noise = bytes(range(251))
    parts = [(noise * (each // 251 + 1))[:each] for each in (size, *buffers)]
    sent = make_frame(35, 7, parts[0], parts[1:], aux=3)

    (first, second) = feed(opened(), bytes_of(sent, make_frame(36, 8)), step)

    assert plain(first) == plain(sent)
    assert (second.kind, second.id) == (36, 8)


def opened():
    reader = FrameReader(1 << 40)
    reader.open_up(1 << 40)
    return reader


def test_memory_can_grow_although_somebody_holds_an_old_view_of_it():
    sent = make_frame(35, 7, b"x" * (3 * FIRST_ROOM))
    data = memoryview(bytes_of(sent))
    reader = opened()
    held, frames = [], []
    while data:
        held.append(reader.get_buffer())
        size = min(len(held[-1]), len(data))
        held[-1][:size] = data[:size]
        data = data[size:]
        frames += reader.filled(size)
    assert list(map(plain, frames)) == [plain(sent)]


def test_no_memory_for_a_frame_is_an_error_of_the_protocol(monkeypatch):
    class NoMemory(_Room):
        def filled(self, count):
            raise MemoryError

    monkeypatch.setattr("remote_executor.wire.frames._Room", NoMemory)
    with pytest.raises(RemoteProtocolError, match="2147483672 bytes, and there is no memory"):
        feed(opened(), HEADER.pack(35, 0, 0, 0, 1, HUGE) + bytes(300_000))


def test_who_has_no_memory_for_buffers_leaves_it_to_the_reader():
    reader = FrameReader(LIMIT, lambda sizes: None)
    sent = make_frame(35, 1, b"body", [b"12345", b"6789"])

    (frame,) = feed(reader, bytes_of(sent))

    assert frame.segment is None
    assert plain(frame) == plain(sent)


def test_a_frame_without_its_segment_says_the_same():
    frame = make_frame(35, 7, b"body", [b"12345", b""], aux=3, flags=Flag.BATCH)
    frame.set_segment("a segment")
    frame.buffers = ()

    inline = frame.inline([bytearray(b"12345"), bytearray()])

    assert plain(inline) == (35, Flag.BATCH, 3, 7, b"body", [b"12345", b""])
    assert inline.segment is None


def test_frames_whose_segments_were_lost_are_counted():
    class Lost:
        fd = -1

    reader = FrameReader(LIMIT)
    reader.segments += ["here", Lost()]
    data = [make_frame(35, number, b"body", [b"not sent"], flags=Flag.SEGMENT) for number in (1, 2)]

    frames = feed(reader, bytes_of(*data))

    assert [segment_is_lost(frame.segment) for frame in frames] == [False, True]
    assert reader.lost == 1
    assert not segment_is_lost(None)
