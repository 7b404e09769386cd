"""Shared memory: what is lent comes back, what is mapped is one's own."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import pickle
import resource

import pytest

from remote_executor.net import segments
from remote_executor.net.segments import AVAILABLE, Descriptor, Mappings, SegmentPool
from tests.support.shortage import descriptors

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="this system has no memfd_create")

BUFFERS = [b"a" * 100, b"", b"b" * 5000]
SIZES = [len(buffer) for buffer in BUFFERS]


@pytest.fixture
def pool():
    pool = SegmentPool()
    yield pool
    pool.close()


def test_what_is_lent_can_be_mapped(pool):
    segment = pool.lend(BUFFERS)
    mappings = Mappings()

    assert [bytes(buffer) for buffer in mappings.map("key", segment.fd, SIZES)] == BUFFERS


def test_a_mapping_is_private(pool):
    segment = pool.lend(BUFFERS)
    mappings = Mappings()

    mine = mappings.map(1, segment.fd, SIZES)
    mine[0][:] = b"x" * 100

    other = mappings.map(2, segment.fd, SIZES)
    assert bytes(other[0]) == BUFFERS[0]
    assert bytes(mine[0]) == b"x" * 100


def test_a_mapping_is_released_when_nothing_lives_on_it(pool):
    segment = pool.lend([bytearray(1000)])
    mappings = Mappings()
    whole = pickle.loads(
        pickle.dumps(pickle.PickleBuffer(bytearray(1000)), 5, buffer_callback=lambda _: False),
        buffers=mappings.map("key", segment.fd, [1000]),
    )

    assert mappings.released() == []
    assert len(mappings) == 1
    del whole

    assert mappings.released() == ["key"]
    assert mappings.released() == []
    assert len(mappings) == 0


def test_a_segment_that_came_back_is_lent_again(pool):
    first = pool.lend(BUFFERS)
    pool.back(first)

    assert pool.lend([b"c" * 200]) is first
    assert pool.lend([b"c" * 200]) is not first


def test_a_small_buffer_does_not_take_a_large_segment(pool):
    large = pool.lend([bytes(64 << 20)])
    pool.back(large)

    assert pool.lend([b"small"]) is not large


def test_free_segments_are_bounded():
    pool = SegmentPool(most_free=2 << 20)
    lent = [pool.lend([bytes(1 << 20)]) for _ in range(4)]
    for segment in lent:
        pool.back(segment)

    assert sum(segment.capacity for segment in pool._free) == 2 << 20


def test_a_closed_pool_keeps_nothing():
    pool = SegmentPool()
    early, late = pool.lend(BUFFERS), pool.lend(BUFFERS)
    pool.back(early)

    pool.close()
    pool.back(late)

    assert pool._free == []


def test_room_for_what_is_still_to_come(pool):
    segment, parts = pool.lend_empty([10, 20])
    parts[0][:] = b"0" * 10
    parts[1][:] = b"1" * 20

    mapped = Mappings().map("key", segment.fd, [10, 20])
    assert [bytes(buffer) for buffer in mapped] == [b"0" * 10, b"1" * 20]


def test_with_many_mappings_buffers_are_copied(pool, monkeypatch):
    """Each mapping holds a descriptor, and there are only so many."""
    monkeypatch.setattr(segments, "MOST_OPEN", 1)
    segment = pool.lend(BUFFERS)
    mappings = Mappings()
    held = mappings.map(1, segment.fd, SIZES)

    copied = mappings.map(2, segment.fd, SIZES)

    assert [bytes(buffer) for buffer in copied] == BUFFERS
    assert mappings.released() == [2], "a copy needs the segment no longer"
    del held


def test_without_memory_there_is_no_segment(pool, monkeypatch):
    def full(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "memfd_create", full)

    assert pool.lend(BUFFERS) is None
    assert pool.lend_empty(SIZES) is None


def test_a_segment_that_is_too_short_is_refused(pool):
    segment = pool.lend([b"short"])

    with pytest.raises(ValueError, match="shorter"):
        Mappings().map("key", segment.fd, [2 << 20])


def test_a_segment_that_could_be_cut_short_is_refused():
    fd = os.memfd_create("unsealed")
    os.ftruncate(fd, 4096)
    owned = Descriptor(fd)

    with pytest.raises(ValueError, match="cut short"):
        Mappings().map("key", owned.fd, [4096])


def test_ours_cannot_be_cut_short(pool):
    segment = pool.lend(BUFFERS)

    assert fcntl.fcntl(segment.fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(segment.fd, 0)


def test_a_descriptor_is_closed_with_its_last_reference():
    fd = os.memfd_create("mine")
    owned = Descriptor(fd)
    del owned

    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)


# -- one session, one pool


def test_a_segment_of_another_pool_is_not_taken_back(pool):
    """Somebody else may have kept its descriptor."""
    other = SegmentPool()
    segment = other.lend(BUFFERS)
    assert other.owns(segment)
    assert not pool.owns(segment)

    pool.back(segment)

    assert pool.free_bytes == 0
    other.back(segment)
    assert other.free_bytes == segment.capacity
    other.drop_oldest()
    other.drop_oldest()
    assert other.free_bytes == 0


def test_nobody_writes_to_what_is_sealed(pool):
    segment = pool.lend(BUFFERS)
    segments.seal(segment)

    with pytest.raises(PermissionError):
        os.pwrite(segment.fd, b"x", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(segment.fd, segment.capacity)
    with pytest.raises(PermissionError):
        os.ftruncate(segment.fd, 2 * segment.capacity)
    mine = Mappings().map("key", segment.fd, SIZES)
    mine[0][:1] = b"x"  # a copy of one's own
    assert os.pread(segment.fd, 1, 0) == b"a"


# -- few descriptors


def test_free_segments_hold_few_descriptors():
    pool = SegmentPool()
    lent = [pool.lend([b"x" * 1000]) for _ in range(100)]
    for segment in lent:
        pool.back(segment)
    assert len(pool._free) == segments.MOST_FREE_SEGMENTS


def test_the_last_descriptors_are_not_for_segments(pool):
    taken = [os.dup(0) for _ in range(100)]  # no number below is free
    with descriptors(0, max(taken) + 10):
        assert pool.lend(BUFFERS) is None
        assert pool.lend_empty(SIZES) is None
    for fd in taken:
        os.close(fd)
    assert pool.lend(BUFFERS) is not None


def test_where_no_mapping_can_be_had_buffers_are_copied(pool, monkeypatch):
    def refuse(fd, size):
        raise OSError(errno.ENOMEM, "no room for one more mapping")

    monkeypatch.setattr(segments, "map_file", refuse)
    segment = pool.lend(BUFFERS)
    mappings = Mappings()

    assert [bytes(buffer) for buffer in mappings.map("key", segment.fd, SIZES)] == BUFFERS
    assert mappings.released() == ["key"]


def test_the_limit_of_descriptors_is_raised_as_far_as_is_allowed():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with descriptors(0, 512):
        segments.raise_descriptor_limit(1000)
        assert segments.most_descriptors() == min(1000, before[1])
        segments.raise_descriptor_limit(700)
        assert segments.most_descriptors() == min(1000, before[1])
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
