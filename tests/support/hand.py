"""
A client written by hand upon the wire alone: it shows what a server says, and when.

It reads only while a test waits for something, has no thread, and every wait has a limit.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from remote_executor.errors import RemoteProtocolError
from remote_executor.net.addresses import Address
from remote_executor.payload.failures import decode_failure
from remote_executor.payload.pickles import dump, load
from remote_executor.wire.auth import NoAuth, TokenAuth
from remote_executor.wire.frames import Frame, make_frame
from remote_executor.wire.link import Link, LinkState
from remote_executor.wire.messages import (
    FIRST_NUMBERED,
    Flag,
    Kind,
    decode_fields,
    decode_ids,
    encode_fields,
    encode_ids,
)
from remote_executor.wire.session import Session
from tests.support.house import ROOT
from tests.support.scale import scaled

__all__ = ["Hand", "embedded", "remote"]

BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from remote_executor.server.embedded import main; sys.exit(main(*sys.argv[1:]))"
)
LIMIT = 10.0


class Hand:
    """
    A client in the hand of a test.

    Attributes:
        frames: What has come and was not waited for yet, without the link's own frames.
        attached: What the server says of itself.
    """

    def __init__(
        self,
        dial: Callable[[], socket.socket],
        mechanism: Callable[[], Any],
        process: subprocess.Popen[bytes] | None = None,
        attach: bool = True,
        **fields: Any,
    ) -> None:
        self.process = process
        self.frames: list[Frame] = []
        self.acking = True
        self.place = ""
        self._dial = dial
        self._mechanism = mechanism
        self.fields: dict[str, Any] = {
            "session": os.urandom(16).hex(),
            "grace": 60.0,
            "workers": 0,
            "tasks_per_worker": None,
            "implementation": "cpython",
            "python": list(sys.version_info[:3]),
            "versions": {},
            "host": "here",
            "pid": os.getpid(),
            "sys_path": sys.path,
            "cwd": None,
            "initializer": False,
            **fields,
        }
        self.session = Session(time.monotonic(), 60.0)
        try:
            self.connect()
            if attach:
                self.attach(resume=False)
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------- the link

    def connect(self) -> None:
        """Connect and prove."""
        self.sock = self._dial()
        self.link = Link(
            "client",
            "the server",
            self._mechanism(),
            time.monotonic(),
            nonce=os.urandom(32),
            limit=1 << 40,
            place=self.place,
        )
        self.until(lambda: self.link.state is LinkState.OPEN)

    def attach(self, resume: bool = True) -> None:
        """Begin a session, or go on with it."""
        fields = dict(self.fields, resume=resume, received=self.session.received_count)
        self.put(Kind.ATTACH, body=encode_fields(fields))
        frame = self.wait(Kind.ATTACHED)
        self.attached = decode_fields(frame.body)
        if self.attached["resumed"] or not resume:
            self.session.attach(self.link.outbox, self.attached["received"])
        self.flush()

    def cut(self) -> None:
        """Lose the link, as a network would."""
        self.sock.close()
        self.session.link_lost(time.monotonic())

    def put(self, *args: Any, **kwargs: Any) -> None:
        """Send a frame that is not numbered."""
        self.link.outbox.put(make_frame(*args, **kwargs))
        self.flush()

    def send(self, *args: Any, **kwargs: Any) -> None:
        """Send a numbered frame."""
        self.session.send(make_frame(*args, **kwargs))
        self.flush()

    def flush(self) -> None:
        """Write all that is to be written, reading meanwhile."""
        outbox = self.link.outbox
        end = time.monotonic() + scaled(LIMIT)
        self.sock.setblocking(False)
        while outbox.size:
            assert time.monotonic() < end, "the server does not read"
            readable, writable, _ = select.select([self.sock], [self.sock], [], scaled(LIMIT))
            if readable:
                self._receive()
            if writable:
                outbox.sent(self.sock.sendmsg(outbox.chunk()))

    def _receive(self) -> None:
        count = self.sock.recv_into(self.link.get_buffer())
        if not count:
            raise EOFError("the server closed the connection")
        now = time.monotonic()
        numbered = size = 0
        for frame in self.link.received(count, now):
            if frame.kind == Kind.ACK:
                self.session.acknowledged(frame.id)
                continue
            if frame.kind >= FIRST_NUMBERED:
                numbered += 1
                size += frame.size
            self.frames.append(frame)
        if numbered:
            if self.acking:
                self.session.received(numbered, size, now)
            else:
                self.session.received_count += numbered

    def until(self, probe: Callable[[], Any], limit: float = LIMIT) -> Any:
        """Read until ``probe`` returns something true, and return that."""
        end = time.monotonic() + scaled(limit)
        while True:
            self.flush()
            found = probe()
            if found:
                return found
            left = end - time.monotonic()
            assert left > 0, f"waited in vain; came: {self.frames}"
            if select.select([self.sock], [], [], min(left, 0.05))[0]:
                self._receive()
            self.session.tick(time.monotonic())

    def wait(self, kind: int, id: int | None = None, limit: float = LIMIT) -> Frame:
        """Return the next frame of that kind, and id if one is given; others stay."""

        def probe() -> Frame | None:
            for frame in self.frames:
                if frame.kind == kind and id in (None, frame.id):
                    self.frames.remove(frame)
                    return frame
            return None

        found: Frame = self.until(probe, limit)
        return found

    def eof(self) -> None:
        """Wait until the server has closed the connection."""
        try:
            self.until(lambda: False)
        except (EOFError, ConnectionError, RemoteProtocolError):
            pass

    # ---------------------------------------------------------------------- tasks

    def blob(self, number: int, function: Callable[..., Any]) -> None:
        """Send a function."""
        body, buffers = dump(function)
        self.send(Kind.BLOB, 0, body, buffers, aux=number, flags=Flag.PURE)

    def setup(self, function: Callable[..., Any], *args: Any) -> None:
        """Send an initializer."""
        body, buffers = dump((function, args))
        self.send(Kind.SETUP, 0, body, buffers)

    def task(self, id: int, number: int, *args: Any, **kwargs: Any) -> None:
        """Send a task."""
        body, buffers = dump((args, kwargs))
        self.send(Kind.TASK, id, body, buffers, aux=number)

    def optioned(self, id: int, number: int, options: dict[str, Any], *args: Any) -> None:
        """Send a task with options."""
        body, buffers = dump((args, {}))
        self.send(Kind.OPTIONS, id, encode_fields(options))
        self.send(Kind.TASK, id, body, buffers, aux=number, flags=Flag.OPTIONED)

    def batch(self, id: int, number: int, items: list[Any], star: bool = False) -> None:
        """Send a batch."""
        body, buffers = dump(items)
        flags = Flag.BATCH | (Flag.STAR if star else 0)
        self.send(Kind.TASK, id, body, buffers, aux=number, flags=flags)

    def result(self, id: int, limit: float = LIMIT) -> Any:
        """Wait for a task's result."""
        frame = self.wait(Kind.RESULT, id, limit)
        return load(frame.body, frame.buffers)

    def failure(self, id: int) -> BaseException:
        """Wait for a task's failure."""
        frame = self.wait(Kind.FAILURE, id)
        return decode_failure(bytes(frame.body), frame.buffers[0])

    def died(self, id: int) -> dict[str, Any]:
        """Wait until a task is said to have died."""
        fields: dict[str, Any] = decode_fields(self.wait(Kind.DIED, id).body)
        return fields

    def take_back(self, request: int, ids: list[int], count: int = 0) -> list[int]:
        """Take tasks back."""
        self.send(Kind.TAKE_BACK, request, encode_ids(ids), aux=count)
        return list(decode_ids(self.wait(Kind.TAKEN_BACK, request).body))

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Send a function and a call of it, and wait for the result."""
        number = self.session._sent + 1_000_000
        self.blob(number, function)
        self.task(number, number, *args)
        return self.result(number)

    def admin(self, op: str) -> dict[str, Any]:
        """Ask as an administrator does; the connection must not be attached."""
        self.put(Kind.ADMIN, body=encode_fields({"op": op}))
        fields: dict[str, Any] = decode_fields(self.wait(Kind.REPLY).body)
        return fields

    # ------------------------------------------------------------------------ end

    def goodbye(self) -> None:
        """End the session properly and wait until the server has closed the connection."""
        self.link.say_goodbye()
        self.flush()
        self.eof()
        self.close()

    def close(self) -> None:
        """Let go of everything."""
        if hasattr(self, "sock"):
            self.sock.close()
        if self.process is not None:
            try:
                self.process.wait(scaled(LIMIT))
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise

    def __enter__(self) -> Hand:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def embedded(slots: int = 2, preload: str = "", **fields: Any) -> Hand:
    """Start an embedded server and return its client."""
    ours, theirs = socket.socketpair()
    with theirs:
        fd = str(theirs.fileno())
        process = subprocess.Popen(
            [sys.executable, "-c", BOOT, str(ROOT), fd, str(slots), preload],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    return Hand(lambda: ours, NoAuth, process, **fields)


def remote(address: Address, token: bytes, attach: bool = True, **fields: Any) -> Hand:
    """Connect to a server and return its client."""

    def dial() -> socket.socket:
        if address.kind == "unix":
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(address.path)
            except OSError:
                sock.close()
                raise
            return sock
        return socket.create_connection((address.host, address.port), scaled(LIMIT))

    return Hand(dial, lambda: TokenAuth("client", (token,)), attach=attach, **fields)
