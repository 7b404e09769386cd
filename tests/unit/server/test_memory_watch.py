"""What workers have of memory, and what is known of those that the system has killed."""

from __future__ import annotations

import os
import sys

import pytest

from remote_executor.server.memory_watch import KilledForMemory, own_memory, size_words


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (150 * 2**20, "150 MiB"), (4.2 * 2**30, "4.2 GiB")],
)
def test_sizes_are_written_as_people_write_them(size, words):
    assert size_words(size) == words


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_what_a_process_has_for_itself_grows_with_what_it_takes():
    before = own_memory(os.getpid())
    taken = b"x" * (64 * 2**20)

    assert own_memory(os.getpid()) - before > 50 * 2**20
    del taken


def test_of_a_process_that_is_not_there_nothing_is_known():
    assert own_memory(2**22 + 1) == 0


def test_a_process_that_the_system_has_killed_shows_once(tmp_path):
    events = tmp_path / "memory.events"
    events.write_text("low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\n")
    killed = KilledForMemory(str(tmp_path))
    assert not killed.look()

    events.write_text("low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\n")
    assert killed.look()
    assert not killed.look()


def test_where_there_is_no_such_file_nobody_was_killed(tmp_path):
    assert not KilledForMemory(str(tmp_path)).look()
