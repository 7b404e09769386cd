"""Mappings of memory files: private, the file's bytes, and without a descriptor."""

from __future__ import annotations

import errno
import os
import sys

import pytest

from remote_executor.payload import file_mappings
from remote_executor.payload.file_mappings import map_file

pytestmark = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="this system has no memfd_create"
)

SIZE = 3 * 4096 + 17


@pytest.fixture
def file():
    fd = os.memfd_create("test")
    os.write(fd, bytes(range(256)) * 100)
    yield fd
    os.close(fd)


@pytest.fixture(params=["untracked", "by the system's call", "tracked"])
def way(request, monkeypatch):
    """Each way to map, as far as this Python has it."""
    if request.param == "untracked":
        if sys.version_info < (3, 13):
            pytest.skip("mmap has no trackfd before Python 3.13")
    else:
        monkeypatch.setattr(file_mappings, "_untracked", False)
        if request.param == "tracked":
            monkeypatch.setattr(file_mappings, "_c_mmap", False)
    return request.param


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_it_has_the_files_bytes_and_what_is_written_stays_here(file, way):
    one, two = map_file(file, SIZE), map_file(file, SIZE)
    one[:3] = b"xyz"

    assert one[:5] == b"xyz\3\4"
    assert two[:SIZE] == (bytes(range(256)) * 100)[:SIZE]
    assert os.pread(file, 3, 0) == b"\0\1\2"
    assert len(one) == SIZE


def test_it_holds_no_descriptor(file, way):
    before = descriptors()
    kept = [map_file(file, SIZE) for _ in range(300)]

    grown = descriptors() - before

    assert grown == (300 if way == "tracked" else 0)
    for mapping in kept:
        mapping.close()


def test_it_lives_on_when_the_file_is_closed(way):
    fd = os.memfd_create("test")
    os.write(fd, b"a" * SIZE)
    mapping = map_file(fd, SIZE)
    os.close(fd)

    assert mapping[SIZE - 1 : SIZE] == b"a"
    mapping.close()


def test_it_can_be_closed_once_nothing_lives_on_it(file, way):
    mapping = map_file(file, SIZE)
    view = memoryview(mapping)[100:200]
    with pytest.raises(BufferError):
        mapping.close()
    view.release()
    mapping.close()


def test_a_file_that_is_shorter_is_refused(file, way):
    with pytest.raises(ValueError, match="greater than file size"):
        map_file(file, 1 << 20)


def test_what_the_system_refuses_is_an_error_with_its_number(file, monkeypatch):
    monkeypatch.setattr(file_mappings, "_untracked", False)
    closed = os.dup(file)
    os.close(closed)
    with pytest.raises(OSError, match="descriptor") as caught:
        map_file(closed, SIZE)
    assert caught.value.errno == errno.EBADF
