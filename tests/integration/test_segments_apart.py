"""Shared memory that one session has had never comes to another."""

from __future__ import annotations

import os

import pytest

from remote_executor import FarmExecutor, start_server
from remote_executor.net.segments import AVAILABLE
from tests.support.scale import scaled

LIMIT = scaled(30)
MB = 1024 * 1024
MARK = b"what nobody else is to read "

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="needs memfd_create")


def keep(block):
    """Keep the segments that this task's argument came in, as a hostile one does."""
    import builtins

    kept = builtins.__dict__.setdefault("kept_segments", {})
    # What is mapped needs no descriptor of its own.
    for folder in ("/proc/self/fd", "/proc/self/map_files"):
        for name in os.listdir(folder):
            try:
                if "memfd:remote_executor" in os.readlink(f"{folder}/{name}"):
                    inode = os.stat(f"{folder}/{name}").st_ino
                    if inode not in kept:
                        kept[inode] = os.open(f"{folder}/{name}", os.O_RDONLY)
            except OSError:
                pass
    return os.getppid(), len(block), set(kept)


def look(mark):
    """Return how many of them hold what somebody else has sent."""
    import builtins

    kept = builtins.__dict__.get("kept_segments", {})
    return sum(mark in os.pread(fd, 4 * MB, 0) for fd in kept.values())


def blocks(count, text=b"."):
    import numpy

    whole = text * (MB // len(text))
    return [numpy.frombuffer(bytearray(whole), "u1") for _ in range(count)]


def test_a_server_gives_no_segment_of_one_session_to_another():
    with start_server(workers=2) as server:
        with (
            FarmExecutor(1, addresses=[server.address]) as mallory,
            FarmExecutor(1, addresses=[server.address]) as alice,
        ):
            alice.submit(abs, -1).result(LIMIT)
            kept = [mallory.submit(keep, block).result(LIMIT)[2] for block in blocks(5)]
            assert kept[-1], "its arguments came in no segment"
            for block in blocks(20, MARK):
                assert alice.submit(len, block).result(LIMIT) == len(block)
            assert mallory.submit(look, MARK).result(LIMIT) == 0
            for block in blocks(5, MARK):
                mallory.submit(len, block).result(LIMIT)
            assert mallory.submit(look, MARK).result(LIMIT) > 0  # it would find it


def test_a_client_sends_no_segment_to_two_servers(tmp_path):
    """Of which one may be another user's, on the same host."""
    places = [f"unix:{tmp_path}/{name}" for name in "ab"]
    with start_server(address=places[0], workers=1), start_server(address=places[1], workers=1):
        with FarmExecutor(addresses=places) as executor:
            executor.wait_for_workers(2, LIMIT)
            found = {}
            for _ in range(4):
                for future in [executor.submit(keep, block) for block in blocks(10)]:
                    server, _, inodes = future.result(LIMIT)
                    found.setdefault(server, set()).update(inodes)
            one, two = found.values()
            assert one
            assert two
            assert not one & two


def test_what_is_shared_with_two_servers_neither_of_them_can_change(tmp_path):
    places = [f"unix:{tmp_path}/{name}" for name in "ab"]
    with start_server(address=places[0], workers=1), start_server(address=places[1], workers=1):
        with FarmExecutor(addresses=places) as executor:
            executor.wait_for_workers(2, LIMIT)
            numpy = pytest.importorskip("numpy")
            shared = executor.share(numpy.ones(MB))
            found = list(executor.map(overwrite, [shared] * 8, chunksize=1))
            assert found == [MB] * 8


def overwrite(array):
    for name in os.listdir("/proc/self/fd"):
        try:
            if "memfd:remote_executor" in os.readlink(f"/proc/self/fd/{name}"):
                os.pwrite(int(name), bytes(8 * MB), 0)
        except OSError:
            pass
    return int(array.sum())
