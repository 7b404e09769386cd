"""What clients leave behind at a server: nothing, however many there were and however they went."""

from __future__ import annotations

import subprocess
import sys

import pytest

from remote_executor import FarmExecutor
from remote_executor.net.addresses import parse_address
from remote_executor.net.tokens import load_token
from remote_executor.wire.frames import HEADER
from tests.support import tasks
from tests.support.hand import remote
from tests.support.house import ROOT
from tests.support.inside import ENDINGS
from tests.support.scale import scaled

MEGABYTE = 1024 * 1024
LIMIT = scaled(20)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_session_that_has_ended_is_gone_without_the_garbage_collector(ending):
    command = [sys.executable, "-m", "tests.support.inside", ending]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("{}", "")


def memory_of(pid):
    """Return how much memory a process has for itself, in bytes."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file if ":" in line)
    return sum(int(lines[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")) * 1024


def come_and_go(server, count):
    """Have so many clients use a server, one after the other."""
    for index in range(count):
        with FarmExecutor(addresses=[server.address]) as executor:
            array = bytes([index % 256]) * 300_000
            futures = [executor.submit(tasks.same, array) for _ in range(4)]
            assert executor.submit(tasks.square, index).result(LIMIT) == index**2
            for future in futures:
                assert future.result(LIMIT) == array


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(
    "clients",
    [
        30,
        pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    ],
)
def test_memory_is_flat_whatever_number_of_clients_came_and_went(serve, clients):
    server = serve()
    come_and_go(server, 20)
    before = memory_of(server.pid)

    come_and_go(server, clients)

    grown = memory_of(server.pid) - before
    assert grown < 8 * MEGABYTE, f"{clients} clients have cost {grown / MEGABYTE:.1f} MB"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_frame_that_is_announced_and_does_not_come_costs_nothing(server, token_file):
    address, token = parse_address(server.address), load_token(token_file)
    with FarmExecutor(addresses=[server.address]) as executor:
        executor.submit(abs, 1).result(LIMIT)
        before = memory_of(server.pid)
        clients = [remote(address, token) for _ in range(8)]
        for client in clients:
            client.sock.sendall(HEADER.pack(35, 0, 0, 0, 1, 2 * 1024**3))
        assert executor.submit(tasks.square, 5).result(LIMIT) == 25
        grown = memory_of(server.pid) - before
        for client in clients:
            client.close()
    assert grown < 40 * MEGABYTE
