"""Streams in memory behave as sockets do, and break exactly when they are told to."""

from __future__ import annotations

import errno
import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_executor.net.memory import Pipe
from remote_executor.wire.auth import NoAuth
from tests.support.wires import Talk, client_link, server_link


def receive(pipe, size=100):
    buffer = bytearray(size)
    count = pipe.receive(memoryview(buffer))
    return bytes(buffer[:count]) if count >= 0 else count


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_bytes_go_both_ways():
    one, other = Pipe.pair()

    assert one.send([b"several ", memoryview(b"buffers"), bytearray(b"!")]) == 16
    assert other.send([b"back"]) == 4

    assert receive(other) == b"several buffers!"
    assert receive(one) == b"back"


def test_nothing_there_is_minus_one():
    one, other = Pipe.pair()

    assert receive(one) == -1
    assert not one.readable
    other.send([])
    assert not one.readable
    other.send([b"x"])
    assert one.readable


def test_a_short_buffer_leaves_the_rest():
    one, other = Pipe.pair()
    one.send([b"abc"])
    one.send([b"def"])

    assert [receive(other, 2), receive(other, 3), receive(other)] == [b"ab", b"cde", b"f"]


def test_the_senders_buffer_may_change_afterwards():
    one, other = Pipe.pair()
    buffer = bytearray(b"abc")
    one.send([buffer])

    buffer[:] = b"xyz"

    assert receive(other) == b"abc"


def test_a_full_pipe_takes_no_more_than_fits():
    one, other = Pipe.pair(capacity=5)

    assert one.send([b"abc", b"def"]) == 5
    assert not one.writable
    assert one.send([b"f"]) == 0
    assert receive(other, 2) == b"ab"
    assert one.writable
    assert one.send([b"fgh"]) == 2
    assert receive(other) == b"cdefg"


def test_a_stride_makes_short_reads_and_writes():
    one, other = Pipe.pair(stride=2)

    assert one.send([b"abc", b"d"]) == 2
    assert one.send([b"cd"]) == 2
    assert [receive(other), receive(other), receive(other)] == [b"ab", b"cd", -1]


def test_strides_may_come_from_a_seeded_generator():
    def lengths(seed):
        dice = random.Random(seed)
        one, _ = Pipe.pair(stride=lambda: dice.randint(0, 9))
        return [one.send([b"x" * 100]) for _ in range(20)]

    assert lengths(1) == lengths(1) != lengths(2)
    assert min(lengths(1)) >= 1


# --------------------------------------------------------------------------- time and stalls


def test_a_delay_is_by_the_given_clock():
    clock = Clock()
    one, other = Pipe.pair(delay=0.5, clock=clock)
    one.send([b"first"])
    clock.now = 0.3
    one.send([b"second"])

    assert other.deadline() == 0.5
    assert receive(other) == -1
    clock.now = 0.5
    assert receive(other) == b"first"
    assert other.deadline() == 0.8
    clock.now = 0.8
    assert receive(other) == b"second"
    assert other.deadline() is None


def test_the_end_of_the_stream_is_delayed_too():
    clock = Clock()
    one, other = Pipe.pair(delay=0.5, clock=clock)
    one.close()

    assert receive(other) == -1
    assert other.deadline() == 0.5
    clock.now = 0.5
    assert receive(other) == b""


def test_a_delay_needs_a_clock():
    with pytest.raises(ValueError, match="needs a clock"):
        Pipe.pair(delay=0.5)


def test_a_stall_holds_everything_up_and_loses_nothing():
    one, other = Pipe.pair(capacity=4)
    one.send([b"ab"])

    other.stall()
    assert one.send([b"cdef"]) == 2
    one.close()
    assert (receive(other), other.readable, other.deadline()) == (-1, False, None)
    one.resume()

    assert [receive(other), receive(other)] == [b"abcd", b""]


# -------------------------------------------------------------------------------- the end


def test_closing_lets_the_other_end_read_what_is_under_way():
    one, other = Pipe.pair()
    one.send([b"last"])
    one.close()
    one.close()

    assert [receive(other), receive(other), receive(other)] == [b"last", b"", b""]
    assert other.readable


def test_closing_is_noticed_by_who_writes():
    one, other = Pipe.pair(capacity=0)
    assert not other.writable
    one.close()

    assert other.writable
    with pytest.raises(BrokenPipeError):
        other.send([b"x"])


def test_a_closed_end_is_of_no_use():
    one, _ = Pipe.pair()
    one.close()

    assert one.readable
    assert one.writable
    with pytest.raises(OSError, match="this end") as caught:
        receive(one)
    assert caught.value.errno == errno.EBADF
    with pytest.raises(OSError, match="this end"):
        one.send([b"x"])


def test_a_cut_loses_what_is_under_way_and_both_ends_know():
    one, other = Pipe.pair()
    one.send([b"lost"])

    other.cut()

    for end in (one, other):
        assert end.readable
        assert end.writable
        with pytest.raises(ConnectionResetError):
            receive(end)
        with pytest.raises(ConnectionResetError):
            end.send([b"x"])


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_cut_may_come_after_so_many_bytes(size):
    one, other = Pipe.pair()
    one.send([b"abc"])
    one.cut(after=5)
    assert one.send([b"defgh"]) == 5
    assert other.send([b"the other way is not counted"]) > 5

    received = b""
    while len(received) < 5:
        received += receive(other, size)

    assert received == b"abcde"
    with pytest.raises(ConnectionResetError):
        receive(other)
    with pytest.raises(ConnectionResetError):
        one.send([b"x"])


def test_a_stream_in_memory_has_no_descriptor():
    one, _ = Pipe.pair()

    with pytest.raises(io.UnsupportedOperation, match="no descriptor"):
        one.fileno()


def test_repr_tells_the_state():
    one, other = Pipe.pair()
    one.send([b"abc"])
    assert repr(one) == "<Pipe open sent=3 waiting=0>"
    assert repr(other) == "<Pipe open sent=0 waiting=3>"

    one.stall()
    assert repr(one) == "<Pipe open stalled sent=3 waiting=0>"
    one.resume()
    one.cut()
    assert repr(one) == "<Pipe cut sent=3 waiting=0>"
    one.close()
    assert repr(one) == "<Pipe closed sent=3 waiting=0>"


@given(
    data=st.binary(min_size=1, max_size=300),
    capacity=st.integers(1, 50),
    stride=st.one_of(st.none(), st.integers(1, 20)),
    size=st.integers(1, 40),
    cut=st.one_of(st.none(), st.integers(1, 320)),
)
def test_what_arrives_is_what_was_sent_up_to_the_cut(data, capacity, stride, size, cut):
    one, other = Pipe.pair(capacity=capacity, stride=stride)
    if cut is not None:
        one.cut(after=cut)
    sent, received = 0, b""

    try:
        while len(received) < len(data):
            sent += one.send([data[sent:]])
            received += receive(other, size)
    except ConnectionResetError:
        assert cut is not None

    assert received == data[:cut]


def test_two_links_talk_over_a_pipe():
    """How a simulation uses it: carry bytes from outboxes to pipes and from pipes to links."""
    dice = random.Random(7)
    talk = Talk(client_link(NoAuth()), server_link(NoAuth()))
    ends = dict(
        zip(("client", "server"), Pipe.pair(stride=lambda: dice.randint(1, 9)), strict=True)
    )

    while not talk.is_open:
        for role, pipe in ends.items():
            link = talk.ends[role]
            if link.outbox.size:
                link.outbox.sent(pipe.send(link.outbox.chunk()))
            count = pipe.receive(link.get_buffer())
            if count > 0:
                link.received(count, now=0.0)
