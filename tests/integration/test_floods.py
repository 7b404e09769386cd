"""Many connections a second that say nothing, or little, shut out nobody who is far away."""

from __future__ import annotations

import collections
import contextlib
import socket
import threading
import time

import pytest

from remote_executor import FarmExecutor, ping, start_server
from remote_executor.wire.frames import make_frame
from remote_executor.wire.link import PREAMBLE
from remote_executor.wire.messages import PROTOCOL, Kind, encode_fields
from tests.support import tasks
from tests.support.delay import DelayedLink
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)
AWAY = 0.02
"""Seconds each way."""

A_SECOND = 1500
HELD = 800
"""So many of its connections a flood leaves open."""


def greeting():
    fields = {"protocols": [PROTOCOL, PROTOCOL], "auth": "token", "nonce": "00" * 32}
    frame = make_frame(Kind.HELLO, body=encode_fields(fields))
    return PREAMBLE + b"".join(bytes(part) for part in frame.parts())


class Flood:
    """
    Opens connections to a server as fast as agreed, and leaves them open.

    Args:
        port: The server's.
        hosts: Where they come from, in turn.
        says: What each says.
    """

    def __init__(self, port, hosts, says):
        self.port, self.hosts, self.says = port, hosts, says
        self.opened = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._held = collections.deque()

    def __enter__(self):
        self._thread.start()
        wait_until(lambda: self.opened > HELD, 20)
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(LIMIT)
        for sock in self._held:
            sock.close()

    def _run(self):
        began = time.monotonic()
        while not self._over.is_set():
            if self.opened < (time.monotonic() - began) * A_SECOND:
                self._open()
            else:
                self._over.wait(0.001)

    def _open(self):
        sock = socket.socket()
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.bind((self.hosts[self.opened % len(self.hosts)], 0))
            sock.connect_ex(("127.0.0.1", self.port))
        if self.says:
            wait = time.monotonic() + 0.002
            while time.monotonic() < wait:
                with contextlib.suppress(OSError):
                    sock.send(self.says)
                    break
        self._held.append(sock)
        if len(self._held) > HELD:
            self._held.popleft().close()
        self.opened += 1


FLOODS = pytest.mark.parametrize(
    ("hosts", "says"),
    [
        (["127.0.0.1"], b""),
        ([f"127.0.0.{n}" for n in range(2, 200)], b""),
        (["127.0.0.1"], greeting()),
        (["127.0.0.1"], PREAMBLE),
    ],
    ids=["silent, of one address", "silent, of many", "with a greeting", "with a beginning"],
)


@FLOODS
def test_a_client_far_away_gets_in_while_others_flood(hosts, says):
    with start_server(workers=1) as server, DelayedLink(str(server.address), AWAY) as link:
        assert ping(link.address, timeout=LIMIT)
        with Flood(server.address.port, hosts, says):
            answered = sum(ping(link.address, timeout=scaled(3)) for _ in range(10))
            with FarmExecutor(addresses=[link.address]) as executor:
                assert executor.submit(tasks.square, 5).result(LIMIT) == 25
    assert answered >= 9


@FLOODS
def test_a_session_that_is_cut_is_resumed_while_others_flood(hosts, says):
    with start_server(workers=1) as server, DelayedLink(str(server.address), AWAY) as link:
        with FarmExecutor(addresses=[link.address]) as executor:
            worker = executor.submit(tasks.pid).result(LIMIT)
            with Flood(server.address.port, hosts, says):
                for number in range(5):
                    link.cut()
                    assert executor.submit(tasks.same, number).result(LIMIT) == number
            assert executor.submit(tasks.pid).result(LIMIT) == worker
