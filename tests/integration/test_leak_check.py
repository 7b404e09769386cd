"""The check that all tests of this folder undergo finds what is left behind, and only that."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from tests.support import leaks
from tests.support.waiting import wait_until

ORPHAN = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdout=2)
print(child.pid, flush=True)
"""


@pytest.fixture
def before():
    return leaks.snapshot()


def test_nothing_is_found_where_nothing_is_left(before):
    assert leaks.leaked(before) == []


def test_a_thread_is_found_with_its_stack(before):
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="left-behind")
    thread.start()
    try:
        lines = leaks.leaked(before, settle=0.05)
    finally:
        stop.set()
        thread.join()

    assert len(lines) == 1
    assert "left-behind" in lines[0]
    assert "wait" in lines[0]


def test_a_thread_that_is_about_to_end_is_no_leak(before):
    stop = threading.Event()
    threading.Thread(target=stop.wait, args=(0.2,)).start()

    assert leaks.leaked(before) == []


def test_descriptors_are_found(before):
    ends = os.pipe()
    try:
        lines = leaks.leaked(before, settle=0.05)
    finally:
        for end in ends:
            os.close(end)

    assert len(lines) == 2
    assert all("pipe:" in line for line in lines)


def test_a_process_and_a_zombie_are_found(before):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        alive = leaks.leaked(before, settle=0.05)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        dead = leaks.leaked(before, settle=0.05)
    finally:
        process.kill()
        process.communicate()

    assert [line for line in alive if line.startswith(f"process {process.pid} ")]
    assert [line for line in dead if line.startswith(f"process {process.pid} (zombie")]
    assert leaks.leaked(before) == []


def test_an_orphan_is_found_by_its_mark(before):
    reader, writer = os.pipe()
    with open(writer, "wb"):
        with open(reader, "rb") as stdin:
            out = subprocess.run(
                [sys.executable, "-c", ORPHAN], stdin=stdin, stdout=subprocess.PIPE, check=True
            ).stdout
        pid = int(out)
        lines = leaks.leaked(before, settle=0.05)

    assert [line for line in lines if line.startswith(f"process {pid} ")]
    wait_until(lambda: pid not in leaks.marked_processes(), what="the orphan's end")
