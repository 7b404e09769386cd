"""What a running task and its client say to each other, byte for byte."""

from __future__ import annotations

import pytest

from remote_executor.errors import RemoteProtocolError
from remote_executor.wire.frames import FrameReader, make_frame
from remote_executor.wire.messages import Flag, Kind
from remote_executor.wire.nested import (
    Said,
    Spawn,
    child_frame,
    said_in,
    spawn_frame,
    submit_frame,
    submitted,
)


def travelled(frame):
    """Return a frame as it comes out at the other end."""
    reader = FrameReader(1 << 20)
    data = b"".join(frame.parts())
    found = []
    while data:
        room = reader.get_buffer()
        size = min(len(room), len(data))
        room[:size], data = data[:size], data[size:]
        found += reader.filled(size)
    (one,) = found
    return one


@pytest.mark.parametrize("what", Spawn)
def test_what_a_task_says_arrives(what):
    frame = travelled(spawn_frame(what, 7, 3, b"body", (b"buffer",)))

    assert (frame.kind, frame.id, frame.aux, said_in(frame)) == (Kind.SPAWN, 7, 3, what)
    assert (frame.body, [bytes(each) for each in frame.buffers]) == (b"body", [b"buffer"])


@pytest.mark.parametrize("said", Said)
def test_what_a_client_says_arrives(said):
    frame = travelled(child_frame(said, 7, 3, b"body"))

    assert (frame.kind, frame.id, frame.aux, said_in(frame)) == (Kind.CHILD, 7, 3, said)
    assert frame.body == b"body"


def test_nothing_that_is_said_is_taken_for_a_segment():
    assert not any(each & Flag.SEGMENT for each in (*Spawn, *Said))


@pytest.mark.parametrize("options", [{}, {"priority": 1, "category": "etl"}])
@pytest.mark.parametrize("body", [b"", b"pickle", b"x" * 100_000])
def test_a_submit_has_function_options_and_arguments(options, body):
    frame = travelled(submit_frame(7, 3, 5, options, body, (b"one", b"two")))

    assert said_in(frame) == Spawn.SUBMIT
    function, said, pickled = submitted(frame)
    assert (function, said, bytes(pickled)) == (5, options, body)
    assert [bytes(each) for each in frame.buffers] == [b"one", b"two"]


@pytest.mark.parametrize(
    "body", [b"", b"12345", b"\1\0\0\0\3\0[1]", b"\1\0\0\0\x09\0{}", b"\1\0\0\0\2\0xx"]
)
def test_a_submit_that_makes_no_sense_is_refused(body):
    with pytest.raises(RemoteProtocolError):
        submitted(make_frame(Kind.SPAWN, 7, body, aux=3, flags=Spawn.SUBMIT))
