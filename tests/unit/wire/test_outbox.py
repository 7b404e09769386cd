"""The outbox: what is put in comes out, in order, however much each write takes."""

from __future__ import annotations

import pytest

from remote_executor.wire.frames import LARGE, make_frame
from remote_executor.wire.messages import Flag
from remote_executor.wire.outbox import CROWD, JOIN, STRIDE, TINY, Outbox, WithSegment
from tests.support.wires import bytes_of, drain

SMALL = [make_frame(35, number, b"x" * number) for number in range(5)]
LARGE_ONE = make_frame(35, 9, b"l" * (LARGE + 1), [b"a" * JOIN, b"", b"b"])


def outbox_with(*frames):
    outbox = Outbox()
    for frame in frames:
        outbox.put(frame)
    return outbox


def test_an_empty_outbox_has_nothing_to_write():
    outbox = Outbox()

    assert outbox.size == 0
    assert outbox.chunk() == []


def test_one_frame_is_given_as_it_is():
    outbox = outbox_with(SMALL[0])

    (part,) = outbox.chunk()

    assert part is SMALL[0].raw
    assert outbox.size == 24


def test_small_frames_are_joined_into_one_write():
    outbox = outbox_with(*SMALL)

    assert outbox.chunk() == [bytes_of(*SMALL)]


def test_large_buffers_are_not_copied_and_those_between_are_joined():
    outbox = outbox_with(SMALL[0], SMALL[1], LARGE_ONE, SMALL[2])

    first, body, buffer, last = outbox.chunk()

    assert first == bytes_of(*SMALL[:2]) + LARGE_ONE.raw
    assert body is LARGE_ONE.tail
    assert buffer is LARGE_ONE.buffers[0]
    assert last == b"b" + bytes_of(SMALL[2])


def test_a_lone_small_piece_between_large_ones_is_not_copied():
    large = make_frame(35, 1, b"", [b"a" * JOIN, b"b", b"c" * JOIN])
    outbox = outbox_with(large)

    head, first, between, last = outbox.chunk()

    assert head is large.raw
    assert [first, between, last] == list(large.buffers)
    assert between is large.buffers[1]


def test_frames_put_in_together_come_out_as_if_one_by_one():
    with_segment = make_frame(35, 8, b"body", [b"b" * 10])
    with_segment.set_segment("segment")
    frames = [*SMALL, LARGE_ONE, *SMALL, with_segment, make_frame(35, 7, bytes(TINY)), *SMALL[:1]]
    together = Outbox()

    together.put_all(frames)

    one_by_one = outbox_with(*frames)
    assert together.size == one_by_one.size
    assert drain(together) == drain(one_by_one)


def test_tiny_frames_put_in_together_are_joined_but_not_without_limit():
    frames = [make_frame(35, number) for number in range(CROWD + 1)]
    outbox = Outbox()

    outbox.put_all(frames)
    outbox.put_all([])

    assert list(outbox._parts) == [bytes_of(*frames[:CROWD]), bytes_of(frames[CROWD])]


def test_one_write_takes_a_stride_and_leaves_the_rest():
    frames = [make_frame(35, number, b"x" * 1000) for number in range(1000)]
    outbox = outbox_with(*frames)

    written = sum(map(len, outbox.chunk()))

    assert STRIDE <= written < STRIDE + 1024 + JOIN
    assert outbox.size == len(bytes_of(*frames))


def test_a_chunk_stays_short_however_the_pieces_alternate():
    frame = make_frame(35, 1, b"", [b"a" * JOIN, b"b"] * 500)
    outbox = outbox_with(frame)

    assert len(outbox.chunk()) <= 64  # the smallest that POSIX lets sendmsg take is 16, Linux 1024


@pytest.mark.parametrize("most", [1, 7, 24, 25, 10_000, None])
def test_all_comes_out_in_order_however_much_a_write_takes(most):
    frames = [*SMALL, *([] if most == 1 else [LARGE_ONE]), *SMALL]

    assert drain(outbox_with(*frames), most) == bytes_of(*frames)


def test_what_was_not_written_is_given_again():
    outbox = outbox_with(*SMALL)
    outbox.chunk()

    outbox.sent(30)

    assert b"".join(outbox.chunk()) == bytes_of(*SMALL)[30:]
    assert outbox.size == len(bytes_of(*SMALL)) - 30


def test_frames_put_after_a_short_write_come_after_it():
    outbox = outbox_with(SMALL[3])
    outbox.chunk()
    outbox.sent(5)

    outbox.put(SMALL[4])

    assert drain(outbox) == bytes_of(SMALL[3], SMALL[4])[5:]


def test_the_senders_buffer_is_not_changed_by_a_short_write():
    buffer = bytearray(b"b" * 100)
    outbox = outbox_with(make_frame(35, 1, b"", [buffer]))

    drain(outbox, 3)

    assert buffer == b"b" * 100


# ------------------------------------------------------------------------------ segments


def with_segment(number, body=b"body"):
    frame = make_frame(35, number, body, [b"not sent"], flags=Flag.SEGMENT)
    frame.segment = "what has the descriptor"
    return frame


@pytest.mark.parametrize("before", [[], SMALL[:1], SMALL], ids=["first", "second", "last"])
def test_a_frame_whose_descriptor_goes_along_has_a_chunk_of_its_own(before):
    frame = with_segment(1)
    outbox = outbox_with(*before, frame, SMALL[0], SMALL[1])
    if before:
        written = b"".join(outbox.chunk())
        assert written == bytes_of(*before)
        outbox.sent(len(written))

    (part,) = outbox.chunk()

    assert type(part) is WithSegment
    assert part == frame.raw
    assert part.segment is frame.segment
    assert outbox.chunk() == [part]  # nothing was written, so it is given again
    outbox.sent(len(part))
    assert outbox.chunk() == [bytes_of(*SMALL[:2])]


def test_a_descriptor_goes_along_but_once():
    frame = with_segment(1)
    outbox = outbox_with(frame, SMALL[0])
    outbox.chunk()

    outbox.sent(1)

    assert type(outbox.chunk()[0]) is not WithSegment
    assert drain(outbox) == bytes_of(frame, SMALL[0])[1:]


@pytest.mark.parametrize("most", [7, None])
def test_a_large_body_follows_the_descriptor(most):
    frames = [with_segment(1, b"l" * (LARGE + 1)), with_segment(2)]
    outbox = outbox_with(*frames)

    assert outbox.size == len(bytes_of(*frames))
    assert drain(outbox, most) == bytes_of(*frames)


def test_a_frame_that_names_a_segment_and_has_none_is_written_as_it_is():
    """What a peer sent without buffers is passed on."""
    frame = make_frame(35, 1, b"body", flags=Flag.SEGMENT)

    (part,) = outbox_with(frame).chunk()

    assert type(part) is not WithSegment


def test_clear_forgets_all():
    outbox = outbox_with(LARGE_ONE, *SMALL)

    outbox.clear()

    assert (outbox.size, outbox.chunk()) == (0, [])
