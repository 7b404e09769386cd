"""Private mappings tell whether they were written to, where the kernel does."""

from __future__ import annotations

import mmap
import os
import sys

import pytest

from remote_executor.payload import writes
from remote_executor.payload.copies import PrivateCopies
from remote_executor.payload.writes import faults, unwritten

PAGE = mmap.PAGESIZE
SIZE = 2 << 20

if not hasattr(os, "memfd_create"):
    pytest.skip("needs memfd_create", allow_module_level=True)


@pytest.fixture
def file():
    fd = os.memfd_create("test")
    os.ftruncate(fd, SIZE)
    os.pwrite(fd, b"\1" * SIZE, 0)
    yield fd
    os.close(fd)


def private(fd):
    return mmap.mmap(fd, SIZE, access=mmap.ACCESS_COPY)


def kernel_tells():
    """Whether PAGEMAP_SCAN is there: an untouched mapping counts as written to otherwise."""
    fd = os.memfd_create("test")
    os.ftruncate(fd, SIZE)
    with private(fd) as mapping:
        os.close(fd)
        return unwritten(mapping)


tells = pytest.mark.skipif(not kernel_tells(), reason="needs PAGEMAP_SCAN, of Linux 6.7")


@tells
def test_what_was_merely_read_is_unwritten(file):
    mapping = private(file)

    assert unwritten(mapping)
    assert sum(mapping[::PAGE]) == SIZE // PAGE
    assert unwritten(mapping)


@tells
@pytest.mark.parametrize("at", [0, SIZE // 2 + 7, SIZE - 1])
def test_one_byte_is_enough(file, at):
    mapping = private(file)
    sum(mapping[::PAGE])

    mapping[at] = 1

    assert not unwritten(mapping)


@tells
def test_to_look_does_not_count_as_use(file):
    mapping = private(file)

    assert unwritten(mapping)

    mapping.close()


def test_where_the_kernel_does_not_tell_it_may_have_been_written_to(file, monkeypatch):
    mapping = private(file)

    monkeypatch.setattr(writes, "_SCAN", 1)
    assert not unwritten(mapping)
    monkeypatch.setattr(sys, "platform", "other")
    assert not unwritten(mapping)


def test_a_write_is_a_fault(file):
    mapping = private(file)
    sum(mapping[::PAGE])
    before = faults()

    mapping[5] = 1

    assert faults() > before


# ------------------------------------------------------------------- what copies make of it


@pytest.fixture
def copies():
    return PrivateCopies([b"a" * SIZE])


def address(view):
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(view))


@tells
def test_a_copy_that_was_merely_read_is_handed_out_again(copies):
    (view,) = copies.fresh()
    assert sum(view[::PAGE]) == 97 * (SIZE // PAGE)
    mapped = view.obj
    first = address(view)
    del view, mapped

    assert address(copies.fresh()[0]) == first


def test_a_copy_that_was_written_to_is_not(copies):
    for _ in range(3):
        (view,) = copies.fresh()
        assert set(view[::PAGE]) == {97}
        view[SIZE // 2] = 1
        assert view[SIZE // 2] == 1
        del view


def test_a_copy_that_is_in_use_is_not(copies):
    (kept,) = copies.fresh()
    part = memoryview(bytearray(b"x"))
    for _ in range(3):
        (view,) = copies.fresh()
        assert view[0] == 97
        view[0] = 1
        assert kept[0] == 97
        part = view[:1]
        del view
    assert part[0] == 1
