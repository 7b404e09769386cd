"""
A server within this process, in a thread of its own: its objects can be counted.

To be imported by a program of its own, before that has any thread: the server's zygote is a fork of
it. ``python -m tests.support.inside ENDING`` runs some sessions that end so, and prints which
objects of them are left although nobody has collected garbage.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pickle import PickleBuffer

from remote_executor.errors import AuthenticationFailed
from remote_executor.net.addresses import Address
from remote_executor.server.zygote import await_zygote, fork_zygote
from remote_executor.wire.auth import TokenAuth
from remote_executor.wire.frames import HEADER
from remote_executor.wire.link import PREAMBLE
from remote_executor.wire.messages import Kind, encode_fields
from tests.support import tasks
from tests.support.hand import Hand, remote
from tests.support.waiting import wait_until

__all__ = ["ENDINGS", "InsideServer"]

TOKEN = b"s" * 32
CLASSES = {"ClientSession", "Connection", "Link", "PoolSession", "PoolWorker"}
CLASSES |= {"TLSStream", "WorkerProcess"}
LARGE = 300_000
CLIENT_HELLO = bytes.fromhex("1603010200010001fc0303")
"""How a TLS client begins."""


class InsideServer:
    """
    A server with two slots at a free port of the loopback interface.

    Attributes:
        address: Where it listens.
    """

    def __init__(self) -> None:
        self._zygote, control = fork_zygote(2, [])
        # Only now, as a server does: the zygote is to be small.
        from remote_executor.net.loop import Loop
        from remote_executor.server.door import Door
        from remote_executor.server.supervisor import Supervisor

        self._loop = Loop()
        self.supervisor = Supervisor(
            self._loop, 2, control, lambda: TokenAuth("server", (TOKEN,)), "error"
        )
        door = Door(Address("tcp", "127.0.0.1", 0))
        door.open()
        self.supervisor.listen(door)
        self.address = door.address
        self._thread = threading.Thread(target=self.supervisor.run)
        self._thread.start()

    def client(self, **fields: object) -> Hand:
        """Return a client with a session."""
        return remote(self.address, TOKEN, **fields)

    def close(self) -> None:
        """End it."""
        self.supervisor.stop()
        self._thread.join()
        self._loop.close()
        await_zygote(self._zygote)


def _goodbye(server: InsideServer) -> None:
    client = server.client()
    client.run(tasks.square, 3)
    client.goodbye()


def _cut(server: InsideServer) -> None:
    client = server.client(grace=0.2)
    client.run(tasks.square, 3)
    client.cut()


def _begun_anew(server: InsideServer) -> None:
    client = server.client()
    client.run(tasks.square, 3)
    client.cut()
    client.connect()
    client.attach(resume=False)
    client.goodbye()


def _nonsense(server: InsideServer) -> None:
    client = server.client()
    client.run(tasks.square, 3)
    client.put(99)
    client.eof()
    client.close()


def _while_tasks_run(server: InsideServer) -> None:
    client = server.client()
    client.blob(1, time.sleep)
    for id in range(20):
        client.optioned(id, 1, {"timeout": 1000, "blobs": [1]}, 100)
    client.wait(Kind.BEGUN)
    client.goodbye()


def _a_worker_dies(server: InsideServer) -> None:
    client = server.client()
    client.blob(1, tasks.die)
    client.task(1, 1)
    client.died(1)
    client.goodbye()


def _a_broken_initializer(server: InsideServer) -> None:
    client = server.client(initializer=True)
    client.setup(tasks.failing_initializer, "no")
    client.blob(1, tasks.square)
    client.task(1, 1, 3)
    client.wait(Kind.BROKEN)
    client.goodbye()


def _large_buffers(server: InsideServer) -> None:
    client = server.client()
    for _ in range(4):
        client.run(len, PickleBuffer(bytes(LARGE)))
        client.run(make_buffer, LARGE)
    client.goodbye()


def make_buffer(size: int) -> object:
    """Return a value that travels out of band."""
    return PickleBuffer(bytes(size))


def _half_a_frame(server: InsideServer) -> None:
    client = server.client(grace=0.2)
    client.sock.sendall(HEADER.pack(35, 0, 0, 0, 1, 1 << 31) + bytes(100_000))
    client.cut()


def _with_modules(server: InsideServer) -> None:
    client = server.client(modules=True)
    client.blob(1, __import__)
    client.task(1, 1, "no_such_module_anywhere")
    frame = client.wait(Kind.WANT)
    fields = {"modules": [], "contents": [], "sent": [], "drop": []}
    client.send(Kind.MODULES, frame.id, encode_fields(fields))
    client.failure(1)
    client.goodbye()


def _strangers(server: InsideServer) -> None:
    for said in (b"", b"GET / HTTP/1.0\r\n\r\n"):
        with socket.create_connection((server.address.host, server.address.port)) as sock:
            sock.sendall(said)
    client = remote(server.address, TOKEN, attach=False)
    client.admin("status")
    client.close()


def _tls_strangers(server: InsideServer) -> None:
    from remote_executor.net.tls import ServerTLS

    tls = ServerTLS(True, plain_locally=False)
    for said in (b"", CLIENT_HELLO, CLIENT_HELLO + b"x" * 4096, PREAMBLE, b"GET / HTTP/1.0\r\n"):
        server.supervisor.tls = tls
        with socket.create_connection((server.address.host, server.address.port)) as sock:
            sock.sendall(said)
            sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while sock.recv(65536):
                    pass


def _wrong_proofs(server: InsideServer) -> None:
    for token in (b"x" * 32, b"y" * 32):
        with contextlib.suppress(AuthenticationFailed):
            remote(server.address, token)


def _refused_mechanisms(server: InsideServer) -> None:
    """The server's own mechanism is broken."""

    class Broken(TokenAuth):
        def step(self, said: bytes, binding: bytes) -> bytes:
            raise RuntimeError("the realm is away")

    mechanism, server.supervisor.mechanism = (
        server.supervisor.mechanism,
        lambda: Broken("server", (TOKEN,)),
    )
    with contextlib.suppress(AuthenticationFailed):
        remote(server.address, TOKEN)
    server.supervisor.mechanism = mechanism


ENDINGS: dict[str, Callable[[InsideServer], None]] = {
    "goodbye": _goodbye,
    "cut": _cut,
    "begun anew": _begun_anew,
    "nonsense": _nonsense,
    "while tasks run": _while_tasks_run,
    "a worker dies": _a_worker_dies,
    "a broken initializer": _a_broken_initializer,
    "large buffers": _large_buffers,
    "half a frame": _half_a_frame,
    "with modules": _with_modules,
    "strangers": _strangers,
    "TLS strangers": _tls_strangers,
    "wrong proofs": _wrong_proofs,
    "refused mechanisms": _refused_mechanisms,
}


def left_over(ending: str) -> dict[str, int]:
    """Run sessions that end so; return how many objects of them are left, by class."""
    server = InsideServer()
    try:
        gc.collect()
        gc.disable()  # what has no cycles is gone without it
        for _ in range(3):
            ENDINGS[ending](server)
        with contextlib.suppress(AssertionError):
            # Not before the workers are gone, which a session that ends gives some seconds.
            wait_until(lambda: not (server.supervisor.connections or _count()), 5)
        return _count()
    finally:
        gc.enable()
        server.close()


def _count() -> dict[str, int]:
    names = (type(each).__name__ for each in gc.get_objects() if _is_ours(each))
    return dict(collections.Counter(name for name in names if name in CLASSES))


def _is_ours(each: object) -> bool:
    return type(each).__module__.startswith("remote_executor.")


if __name__ == "__main__":
    print(left_over(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)
