"""Blobs in segments: kept as such while there are not too many, and let go of."""

from __future__ import annotations

import os

import pytest

from remote_executor import RemoteProtocolError
from remote_executor.net.segments import AVAILABLE, Descriptor, SegmentPool
from remote_executor.server import sharing as module
from remote_executor.server.sharing import Incoming, Memory, Room, Sharing
from remote_executor.wire.frames import make_frame
from remote_executor.wire.messages import Flag, Kind

if not AVAILABLE:
    pytest.skip("needs memfd_create", allow_module_level=True)

DATA = [b"a" * 300_000, b"b" * 100]


@pytest.fixture
def incoming():
    return Incoming(Memory())


@pytest.fixture
def sharing(incoming):
    return Sharing(incoming, print, print)


def received(incoming):
    """Return a blob as it is after its bytes came in by a stream."""
    frame = make_frame(Kind.BLOB, 0, b"body", DATA, aux=1)
    buffers, frame.segment = incoming.allocate([len(data) for data in DATA])
    for buffer, data in zip(buffers, DATA, strict=True):
        buffer[:] = data
    frame.buffers = buffers
    return frame


def lent():
    """Return a blob as it is after its descriptor came from a client of this host."""
    segment = SegmentPool(0).lend(DATA)
    frame = make_frame(Kind.BLOB, 0, b"body", DATA, aux=1)
    frame.set_segment(Descriptor(os.dup(segment.fd)))
    frame.buffers = ()
    return frame


def test_a_blob_that_came_by_a_stream_goes_on_as_a_segment(sharing, incoming):
    frame = received(incoming)

    sharing.keep(frame)

    assert frame.flags & Flag.SEGMENT
    assert frame.raw[1] & Flag.SEGMENT
    assert frame.segment.mapping is None
    assert os.pread(frame.segment.fd, 3, 0) == b"aaa"
    assert incoming.memory.kept == 1
    sharing.drop(frame)
    assert incoming.memory.kept == 0


@pytest.mark.parametrize("how", ["stream", "descriptor"])
def test_beyond_so_many_they_are_copies(sharing, incoming, monkeypatch, how):
    monkeypatch.setattr(module, "MOST_KEPT", 1)
    first = received(incoming)
    sharing.keep(first)
    frame = received(incoming) if how == "stream" else lent()

    sharing.keep(frame)

    assert [bytes(buffer) for buffer in frame.buffers] == DATA
    assert frame.segment is None
    assert not frame.flags & Flag.SEGMENT
    assert not frame.raw[1] & Flag.SEGMENT
    sharing.drop(frame)
    assert incoming.memory.kept == 1


def test_a_small_blob_stays_as_it_is(sharing, incoming):
    frame = make_frame(Kind.BLOB, 0, b"body", [b"x"])

    sharing.keep(frame)
    sharing.drop(frame)

    assert (frame.segment, incoming.memory.kept) == (None, 0)


def test_a_segment_that_could_be_cut_short_is_refused(sharing, incoming):
    frame = lent()
    fd = os.memfd_create("test")
    os.ftruncate(fd, 1 << 20)
    frame.segment = Descriptor(fd)

    with pytest.raises(RemoteProtocolError, match="cut short"):
        sharing.keep(frame)
    assert incoming.memory.kept == 0


# -- sessions apart


def test_a_session_takes_no_segment_of_another(monkeypatch):
    memory = Memory()
    one, two = Incoming(memory), Incoming(memory)
    _, segment = one.allocate([300_000])
    two.back(segment)
    assert two.pool.free_bytes == 0
    one.back(segment)

    assert one.pool.free_bytes == segment.capacity
    assert two.allocate([300_000])[1] is not segment
    assert one.allocate([300_000])[1] is segment


def test_all_sessions_together_keep_no_more_than_one_did(monkeypatch):
    monkeypatch.setattr(module, "MOST_FREE", 4 << 20)
    memory = Memory()
    sessions = [Incoming(memory) for _ in range(3)]
    for session in sessions:
        for segment in [session.allocate([1 << 20])[1] for _ in range(3)]:
            session.back(segment)

    assert sum(session.pool.free_bytes for session in sessions) == 4 << 20
    assert all(session.pool.free_bytes for session in sessions)
    for session in sessions:
        session.close()
    assert not memory.pools
    assert sum(session.pool.free_bytes for session in sessions) == 0


def test_before_its_session_a_connection_has_no_segments():
    room = Room()
    assert room.allocate([300_000]) is None
    room.incoming = Incoming(Memory())
    assert room.allocate([300_000])[1] is not None
