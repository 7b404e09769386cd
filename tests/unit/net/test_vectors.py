"""Reading into buffers and writing several, with and without the system's own calls."""

from __future__ import annotations

import os

import pytest

from remote_executor.net import vectors

WAYS = [
    pytest.param(vectors.read_into, vectors.write_some, id="as-it-is-here"),
    pytest.param(vectors._read_into, vectors._write_some, id="as-on-pypy"),
]


@pytest.fixture
def pipe():
    """Return the two ends of a pipe that do not block."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize(("read_into", "write_some"), WAYS)
def test_what_is_written_is_read(pipe, read_into, write_some):
    count = write_some(pipe[1], [b"abc", memoryview(b"defg"), bytearray(b"h")])
    buffer = bytearray(b"." * 10)

    assert count == 8
    assert read_into(pipe[0], [memoryview(buffer)[1:6]]) == 5
    assert buffer == b".abcde...."
    assert read_into(pipe[0], [memoryview(buffer)]) == 3
    assert buffer == b"fghcde...."


@pytest.mark.parametrize(("read_into", "write_some"), WAYS)
def test_nothing_to_read_and_no_room_to_write(pipe, read_into, write_some):
    with pytest.raises(BlockingIOError):
        read_into(pipe[0], [memoryview(bytearray(1))])
    assert 0 < write_some(pipe[1], [bytes(1 << 20), bytes(1 << 20)]) < 1 << 21
    with pytest.raises(BlockingIOError):
        write_some(pipe[1], [bytes(1 << 20)])


@pytest.mark.parametrize(("read_into", "write_some"), WAYS)
def test_the_end_is_nothing(read_into, write_some):
    read, write = os.pipe()
    os.close(write)
    try:
        assert read_into(read, [memoryview(bytearray(4))]) == 0
    finally:
        os.close(read)
