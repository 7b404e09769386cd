"""Five hundred peers that mean no good, and a client at work that does not notice them."""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from pathlib import Path

import psutil
import pytest

from remote_executor import FarmExecutor, ping, start_server
from remote_executor.server.strangers import MOST_FROM_ONE, MOST_STRANGERS
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)
PEERS = 700
SECONDS = 4.0
PREAMBLE = b"\x89rexec\r\n"
CLIENT_HELLO = bytes.fromhex("1603010200010001fc0303")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc"),
]


class Crowd:
    """
    Peers that connect again and again, some from one address, some from many.

    A third is silent, a third sends a byte now and then, a third sends garbage as fast as it can.
    """

    def __init__(self, port, begins):
        self.port = port
        self.begins = begins
        self.selector = selectors.DefaultSelector()
        self.connected = 0
        self.refused = 0
        self.over = threading.Event()
        self.full = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join(LIMIT)
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()

    def connect(self, number):
        sock = socket.socket()
        sock.setblocking(False)
        host = "127.0.0.1" if number % 2 else f"127.0.0.{2 + number % 50}"
        try:
            sock.bind((host, 0))
            sock.connect_ex(("127.0.0.1", self.port))
        except OSError:
            sock.close()
            return
        self.connected += 1
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if number % 3 == 2 else 0)
        self.selector.register(sock, wanted, [number, 0])

    def run(self):
        for number in range(PEERS):
            self.connect(number)
        self.full.set()
        while not self.over.is_set():
            for key, events in self.selector.select(0.02):
                self.act(key, events)
            for key in list(self.selector.get_map().values()):
                if key.data[0] % 3 == 1 and key.data[1] < len(self.begins):
                    self.say(key, self.begins[key.data[1] : key.data[1] + 1])

    def act(self, key, events):
        try:
            if events & selectors.EVENT_READ and not key.fileobj.recv(65536):
                raise ConnectionResetError
        except BlockingIOError:
            pass
        except OSError:
            self.again(key)
            return
        if events & selectors.EVENT_WRITE:
            self.say(key, (self.begins if key.data[1] == 0 else b"") + b"\xff" * 4096)

    def say(self, key, data):
        try:
            key.data[1] += key.fileobj.send(data)
        except BlockingIOError:
            pass
        except OSError:
            self.again(key)

    def again(self, key):
        self.refused += 1
        self.selector.unregister(key.fileobj)
        key.fileobj.close()
        if self.connected < 5 * PEERS:  # bounded
            self.connect(key.data[0])


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_crowd_of_strangers_disturbs_nobody(tls):
    """A11, K63: bounded bytes, seconds and connections for whoever has proved nothing."""
    start = time.monotonic()
    options = {"tls": True} if tls else {}
    with start_server(workers=1, **options) as server:
        process = psutil.Process(server.pid)
        with FarmExecutor(addresses=[server.address], **options) as executor:
            worker = executor.submit(tasks.pid).result(LIMIT)
            before = process.memory_info().rss
            with Crowd(server.address.port, CLIENT_HELLO if tls else PREAMBLE) as crowd:
                assert crowd.full.wait(LIMIT)
                until = time.monotonic() + SECONDS
                done, slowest, most = 0, 0.0, 0
                while time.monotonic() < until:
                    asked = time.monotonic()
                    assert executor.submit(tasks.same, done).result(LIMIT) == done
                    slowest = max(slowest, time.monotonic() - asked)
                    done += 1
                    if done % 50 == 1:
                        most = max(most, len(os.listdir(f"/proc/{server.pid}/fd")))
                assert ping(server.address, timeout=scaled(10), **options)  # also who comes anew
                assert crowd.refused > PEERS - MOST_STRANGERS
            assert executor.submit(tasks.pid).result(LIMIT) == worker
            assert executor.status().servers[0].trouble is None
            grown = process.memory_info().rss - before

    assert slowest < scaled(2)
    assert done > 20
    assert most < MOST_STRANGERS + 40
    assert grown < 64 * 1024 * 1024
    assert time.monotonic() - start < scaled(15)


def test_one_address_has_so_many_connections_and_no_more():
    """The oldest of them goes; whoever comes from elsewhere keeps his."""
    with start_server(workers=1) as server:
        other = socket.create_connection(
            ("127.0.0.1", server.address.port), LIMIT, source_address=("127.0.0.9", 0)
        )
        peers = [
            socket.create_connection(("127.0.0.1", server.address.port), LIMIT)
            for _ in range(MOST_FROM_ONE + 20)
        ]
        assert ping(server.address)
        wait_until(lambda: is_closed(peers[0]), 10)
        wait_until(lambda: is_closed(peers[19]), 10)
        assert not is_closed(peers[-1])
        assert not is_closed(other)
        for peer in (other, *peers):
            peer.close()


def is_closed(peer):
    peer.setblocking(False)
    try:
        while data := peer.recv(65536):
            assert data
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
