"""Private, writable copies of buffers."""

from __future__ import annotations

import errno
import os

import pytest

from remote_executor.payload.copies import MAPPED, PrivateCopies

SMALL = [b"abc", b"", bytes(range(256)) * 40]
LARGE = [b"x" * MAPPED, b"tail"]
needs_memfd = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memfd_create")


@pytest.mark.parametrize("memory_file", [getattr(os, "memfd_create", None), None])
@pytest.mark.parametrize("buffers", [SMALL, LARGE, []], ids=["small", "large", "none"])
def test_each_copy_is_its_own(buffers, memory_file):
    copies = PrivateCopies(buffers, memory_file)

    first = copies.fresh()
    for view in first:
        view[:] = b"\xff" * len(view)
    second = copies.fresh()

    assert buffers == [bytes(view) for view in second]
    assert all(set(view) <= {255} for view in first)


@needs_memfd
def test_copies_outlive_their_source_and_the_descriptor_is_closed():
    before = len(os.listdir("/proc/self/fd"))
    copies = PrivateCopies(LARGE)
    view = copies.fresh()[1]
    assert len(os.listdir("/proc/self/fd")) > before

    del copies
    assert bytes(view) == b"tail"
    del view
    assert len(os.listdir("/proc/self/fd")) == before


@needs_memfd
def test_copies_that_were_only_read_are_kept_for_the_next_call():
    copies = PrivateCopies(LARGE)
    views = copies.fresh()
    first = id(copies._last)  # a reference would look like a user
    assert bytes(views[1]) == b"tail"
    del views

    copies.rest()
    assert id(copies._last) == first

    assert bytes(copies.fresh()[1]) == b"tail"
    assert id(copies._last) == first


@needs_memfd
def test_copies_that_were_written_to_are_let_go_of_when_the_call_is_over():
    copies = PrivateCopies(LARGE)
    (view, _) = copies.fresh()
    assert copies._last is not None
    view[0] = 1
    del view, _

    copies.rest()

    assert copies._last is None
    copies.rest()
    assert bytes(copies.fresh()[1]) == b"tail"


@needs_memfd
def test_a_task_may_close_the_descriptor_and_reuse_its_number():
    made = []

    def memory_file(name):
        made.append(os.memfd_create(name))
        return made[0]

    copies = PrivateCopies(LARGE, memory_file)
    os.close(made[0])
    assert [bytes(view) for view in copies.fresh()] == LARGE
    reader, writer = os.pipe()
    assert reader == made[0]

    assert [bytes(view) for view in copies.fresh()] == LARGE
    del copies
    os.close(reader)  # still ours, so it was not closed
    os.close(writer)


@needs_memfd
def test_copies_of_a_file_that_others_share():
    fd = os.memfd_create("test")
    os.pwrite(fd, b"abc", 0)
    os.pwrite(fd, b"defg", 64)
    shared = os.dup(fd)

    copies = PrivateCopies.of_file(fd, [(0, 3), (64, 68)])
    first = copies.fresh()
    first[1][:] = b"XXXX"

    assert [bytes(view) for view in first] == [b"abc", b"XXXX"]
    assert [bytes(view) for view in copies.fresh()] == [b"abc", b"defg"]
    assert os.pread(shared, 4, 64) == b"defg"
    os.close(shared)
    del copies
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert bytes(first[0]) == b"abc"


@needs_memfd
def test_a_task_may_close_the_descriptor_of_such_a_file():
    fd = os.memfd_create("test")
    os.pwrite(fd, b"abc", 0)
    copies = PrivateCopies.of_file(fd, [(0, 3)])

    os.close(fd)
    (view,) = copies.fresh()
    view[:] = b"XXX"

    assert bytes(copies.fresh()[0]) == b"abc"


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EMFILE])
def test_where_files_in_memory_are_refused_there_are_copies(number):
    def refused(name):
        raise OSError(number, os.strerror(number))

    copies = PrivateCopies([bytes(MAPPED)], refused)

    assert [bytes(view) for view in copies.fresh()] == [bytes(MAPPED)]


def test_where_files_must_be_small_there_are_copies(tmp_path):
    opened = []

    def readonly(name):
        path = tmp_path / name
        path.touch()
        opened.append(os.open(path, os.O_RDONLY))  # cannot be made longer either
        return opened[-1]

    copies = PrivateCopies([b"x" * MAPPED], readonly)

    assert [bytes(view) for view in copies.fresh()] == [b"x" * MAPPED]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])
