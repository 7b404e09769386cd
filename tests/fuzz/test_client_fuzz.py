"""
A hostile client, after its proof, against a real server that serves a good one meanwhile.

``REMOTE_EXECUTOR_FUZZ_SECONDS=600`` has it go on for that long, and prints its seed.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import subprocess
import sys
import time

import pytest

from remote_executor import FarmExecutor, ping
from remote_executor.errors import FarmError
from remote_executor.net.addresses import parse_address
from remote_executor.net.tokens import load_token
from remote_executor.wire.frames import HEADER, make_frame
from remote_executor.wire.messages import Kind, encode_fields, encode_ids
from tests.support import tasks
from tests.support.faults import free_port
from tests.support.hand import remote
from tests.support.house import ROOT
from tests.support.scale import scaled
from tests.support.waiting import wait_until

SECONDS = float(os.environ.get("REMOTE_EXECUTOR_FUZZ_SECONDS", "5"))
SEED = int(os.environ.get("REMOTE_EXECUTOR_FUZZ_SEED", "0")) or random.SystemRandom().getrandbits(
    32
)
LIMIT = scaled(30)
ODD_IDS = [0, 1, 2, 7, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
ODD_SIZES = [0, 1, 7, 65536, 2**20, 2**31, 2**34 - 100, 2**40, 2**64 - 1]
ODD_VALUES = [None, True, -1, 0, 1e308, float("nan"), "x" * 1000, [], [[]], {}, {"a": {}}, "\udc80"]
NAMES = ["session", "resume", "received", "grace", "workers", "tasks_per_worker", "python", "host"]
NAMES += ["timeout", "worker", "blobs", "contents", "sent", "drop", "modules", "op", "segments"]

pytestmark = pytest.mark.timeout(SECONDS + 120)


class Hostile:
    """Says one thing after the other that no client of ours says."""

    def __init__(self, address, token, rng):
        self.address, self.token, self.rng = address, token, rng

    def round(self):
        """Connect, prove, attach as a rule, and misbehave until the server has had enough."""
        rng = self.rng
        fields = {"grace": rng.choice([0.0, 0.05, 0.2])}
        if rng.random() < 0.3:
            fields[rng.choice(NAMES)] = rng.choice(ODD_VALUES)
        if fields["grace"] == 1e308:
            fields["grace"] = 0.2  # it would be granted, and the session stay
        try:
            client = remote(self.address, self.token, attach=False)
        except (OSError, EOFError, FarmError):
            return
        with contextlib.suppress(OSError, EOFError, FarmError, AssertionError):
            client.fields.update(fields)
            body = encode_fields({**client.fields, "resume": False, "received": 0, **fields})
            if rng.random() < 0.9:
                client.put(Kind.ATTACH, body=body)
            client.sock.setblocking(True)
            client.sock.settimeout(0.2)
            for _ in range(rng.randrange(1, 30)):
                client.sock.sendall(self.bytes())
        client.sock.close()

    def bytes(self):
        rng = self.rng
        frame = b"".join(bytes(part) for part in self.frame().parts())
        how = rng.random()
        if how < 0.5:
            return frame
        if how < 0.6:  # half of one
            return frame[: rng.randrange(len(frame))]
        if how < 0.8:  # some bytes of it are others
            data = bytearray(frame)
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            return bytes(data)
        if how < 0.9:  # what it announces never comes
            count = rng.choice([0, 0, 1, 3, 16_384, 65_535])
            head = HEADER.pack(
                rng.randrange(80), rng.randrange(256), count, 1, 1, rng.choice(ODD_SIZES)
            )
            sizes = [rng.choice(ODD_SIZES) for _ in range(min(count, 20))]
            return head + struct.pack(f"<{len(sizes)}Q", *sizes) + rng.randbytes(50)
        return rng.randbytes(rng.randrange(200))

    def frame(self):
        rng = self.rng
        kind = rng.choice([*Kind, *Kind, rng.randrange(256)])
        body = rng.choice(
            [
                b"",
                rng.randbytes(rng.randrange(60)),
                encode_ids([rng.choice(ODD_IDS) for _ in range(rng.randrange(4))]),
                encode_fields({rng.choice(NAMES): rng.choice(ODD_VALUES) for _ in range(3)}),
                b"[" * 5000,
                b"\x80\x05]\x94.",
            ]
        )
        buffers = [
            rng.randbytes(rng.choice([0, 5, 300_000])) for _ in range(rng.choice([0, 0, 1, 3]))
        ]
        flags = rng.choice([0, 0, 0, 8, 16, rng.randrange(256)])
        return make_frame(
            kind,
            rng.choice(ODD_IDS),
            body,
            buffers,
            aux=rng.choice([0, 1, 2, 3, 2**32 - 1]),
            flags=flags,
        )


@pytest.fixture
def served(tmp_path):
    """Return the address of a server, its process and its log."""
    port, log = free_port(), tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "remote_executor",
                "serve",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                "--workers",
                "2",
            ],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=ROOT,
            start_new_session=True,
        )
    address = f"127.0.0.1:{port}"
    try:
        wait_until(lambda: ping(address, timeout=scaled(1)), 20)
        yield address, process, log
    finally:
        process.terminate()
        process.wait(scaled(20))


def memory_of(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
def test_a_hostile_client_harms_nobody_else_and_leaves_nothing(served, token_file):
    address, process, log = served
    rng = random.Random(SEED)
    hostile = Hostile(parse_address(address), load_token(token_file), rng)
    began, rounds = time.monotonic(), 0
    warm = None
    with FarmExecutor(addresses=[address]) as executor:
        worker = executor.submit(tasks.pid).result(LIMIT)
        while time.monotonic() - began < SECONDS:
            hostile.round()
            rounds += 1
            if rounds % 10 == 0:
                assert executor.submit(tasks.square, rounds).result(LIMIT) == rounds**2, SEED
            if warm is None and time.monotonic() - began > SECONDS / 3:
                warm = memory_of(process.pid)
        assert process.poll() is None, f"seed {SEED}"
        assert worker in executor.broadcast(tasks.pid)
        wait_until(lambda: sessions_of(address) == 1, 20, "the end of all other sessions")
    said = log.read_text(errors="replace")
    assert rounds > 10 * min(SECONDS, 5)
    assert "Traceback" not in said, f"seed {SEED}: {said[-3000:]}"
    assert "could not be handled" not in said
    grown = memory_of(process.pid) - warm
    assert grown < 64 * 1024 * 1024, f"seed {SEED}: {rounds} rounds have cost {grown >> 20} MB"


def sessions_of(address):
    from remote_executor import server_status

    with contextlib.suppress(OSError, socket.timeout):
        return len(server_status(address)["sessions"])
    return -1
