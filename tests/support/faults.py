"""
Trouble on demand: a TCP proxy that cuts, stalls and trickles, peers that misbehave, processes.

The proxy stands between a client and a server::

    with Proxy(server.address) as proxy, FarmExecutor(addresses=[proxy.address]) as executor:
        ...
        proxy.cut()

It forwards bytes in one thread of its own and knows nothing of what they mean.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import signal
import socket
import struct
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from tests.support.scale import scaled
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "Babbler",
    "Proxy",
    "alive",
    "end_process",
    "free_port",
    "state_of",
    "wait_gone",
]

_CHUNK = 64 * 1024
_TRICKLE_TICK = 0.001
_MOST_KEPT = 4 * 1024 * 1024


class Proxy:
    """
    A TCP forwarder between clients and one server.

    Args:
        target: The server's address as text, ``host:port``.

    Attributes:
        address: Where clients connect, as text.
        links: How many connections it has accepted.
        sent: The bytes that clients sent, one bytearray a connection, in order of arrival.
        received: The bytes that the server sent, likewise.
        tamper: If set, called with the bytes that a client sent and returning others.
        tamper_back: The same for bytes that the server sent.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host.strip("[]"), int(port))
        self.links = 0
        self.sent: list[bytearray] = []
        self.received: list[bytearray] = []
        self.tamper: Callable[[bytes], bytes] | None = None
        self.tamper_back: Callable[[bytes], bytes] | None = None
        self._pairs: set[_Pair] = set()
        self._stranded: set[_Pair] = set()
        self._flowing = True
        self._refusing = False
        self._words: bytes | None = None
        self.answered = 0
        """How many connections were answered by somebody else; see :meth:`answer`."""
        self._trickle = 0
        self.delay_seconds = 0.0
        self._cut_at: int | None = None
        self._forwarded = 0
        self._closing = False
        self._commands: list[tuple[Callable[[], None], threading.Event]] = []
        self._mutex = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._waker, self._wakee = socket.socketpair()
        self._wakee.setblocking(False)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.setblocking(False)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._selector.register(self._wakee, selectors.EVENT_READ, None)
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        # What was said last is still to arrive: a goodbye above all.
        self.flow()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self._pairs, 2)
        self.close()

    # -- what a test asks for

    def cut(self) -> int:
        """Reset every connection, both ways, with what is in flight; return how many."""
        count = 0

        def work() -> None:
            nonlocal count
            count = len(self._pairs)
            self._drop_all()

        self._do(work)
        return count

    def cut_after(self, count: int) -> None:
        """Cut once `count` more bytes, of both ways together, have been forwarded."""

        def work() -> None:
            self._cut_at = self._forwarded + count

        self._do(work)

    def refuse(self) -> None:
        """Reset what is there, and every new connection at once, until :meth:`accept`."""

        def work() -> None:
            self._refusing = True
            self._drop_all()

        self._do(work)

    def answer(self, words: bytes) -> None:
        """Cut; from now on somebody else answers: says this and hangs up, until :meth:`accept`."""

        def work() -> None:
            self._words = words
            self._drop_all()

        self._do(work)

    def lead_to(self, target: str) -> None:
        """Cut; from now on lead to another server, as a load balancer may."""

        def work() -> None:
            host, _, port = target.rpartition(":")
            self._target = (host.strip("[]"), int(port))
            self._drop_all()

        self._do(work)

    def accept(self) -> None:
        """Take connections again."""

        def work() -> None:
            self._refusing = False
            self._words = None

        self._do(work)

    def stall(self) -> None:
        """Forward nothing more, and keep every connection, until :meth:`flow`."""

        def work() -> None:
            self._flowing = False

        self._do(work)

    def flow(self) -> None:
        """Forward again, at full speed."""

        def work() -> None:
            self._flowing, self._trickle = True, 0

        self._do(work)

    def strand(self) -> None:
        """Forward nothing more on the connections that are there now; new ones work."""

        def work() -> None:
            self._stranded |= self._pairs

        self._do(work)

    def trickle(self, count: int) -> None:
        """Forward at most `count` bytes a millisecond and direction, until :meth:`flow`."""

        def work() -> None:
            self._trickle = count

        self._do(work)

    def delay(self, seconds: float) -> None:
        """Keep what arrives from now on for so long before it goes on, each way."""

        def work() -> None:
            self.delay_seconds = seconds

        self._do(work)

    @property
    def open_links(self) -> int:
        """How many connections there are now."""
        return len(self._pairs)

    @property
    def forwarded(self) -> int:
        """How many bytes have been forwarded, both ways together."""
        return self._forwarded

    @property
    def cut_is_due(self) -> bool:
        """Whether the cut that :meth:`cut_after` asked for is still to come."""
        return self._cut_at is not None

    def close(self) -> None:
        """Cut everything and end."""
        if not self._closing:
            self._closing = True
            with contextlib.suppress(OSError):  # its thread has ended already
                self._waker.send(b"x")
        self._thread.join(scaled(10))

    # -- its thread

    def _do(self, work: Callable[[], None]) -> None:
        done = threading.Event()
        with self._mutex:
            self._commands.append((work, done))
        self._waker.send(b"x")
        if not done.wait(scaled(10)):
            raise AssertionError("the proxy's thread does not answer")

    def _run(self) -> None:
        try:
            while not self._closing:
                self._step()
        finally:
            self._drop_all()
            self._selector.close()
            for each in (self._listener, self._waker, self._wakee):
                each.close()

    def _step(self) -> None:
        for pair in self._pairs:
            flows = self._flowing and pair not in self._stranded
            pair.watch(self._selector, flows and not self._trickle)
        trickling = self._flowing and self._trickle
        for key, _ in self._selector.select(_TRICKLE_TICK if trickling else self._next_due()):
            if key.fileobj is self._wakee:
                with contextlib.suppress(BlockingIOError):
                    self._wakee.recv(4096)
            elif key.fileobj is self._listener:
                self._welcome()
        with self._mutex:
            commands, self._commands = self._commands, []
        for work, done in commands:
            work()
            done.set()
        if self._flowing:
            for pair in self._pairs - self._stranded:
                self._pump(pair)

    def _next_due(self) -> float | None:
        """Return for how many seconds nothing that is kept needs to go on; None for ever."""
        dues = [way.due[0][0] for pair in self._pairs for way in pair.ways if way.due]
        return max(0.0, min(dues) - time.monotonic()) if dues and self._flowing else None

    def _welcome(self) -> None:
        try:
            near, _ = self._listener.accept()
        except BlockingIOError:
            return
        if self._refusing:
            _reset(near)
            return
        if self._words is not None:
            with contextlib.suppress(OSError), near:
                near.settimeout(scaled(1))
                near.recv(4096)  # what is not read makes a reset of the end, and the words are lost
                near.sendall(self._words)
            self.answered += 1
            return
        try:
            far = socket.create_connection(self._target, timeout=scaled(5))
        except OSError:
            _reset(near)
            return
        for each in (near, far):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.links += 1
        out, back = bytearray(), bytearray()
        self.sent.append(out)
        self.received.append(back)
        self._pairs.add(_Pair(self, near, far, out, back))

    def _pump(self, pair: _Pair) -> None:
        try:
            for way in pair.ways:
                limit = self._trickle or _CHUNK
                if self._cut_at is not None:
                    limit = max(0, min(limit, self._cut_at - self._forwarded))
                self._forwarded += way.pump(limit)
        except OSError:
            self._drop(pair)
            return
        if self._cut_at is not None and self._forwarded >= self._cut_at:
            self._cut_at = None
            self._drop_all()
        elif all(way.ended for way in pair.ways):
            self._drop(pair)

    def _drop(self, pair: _Pair) -> None:
        self._pairs.discard(pair)
        self._stranded.discard(pair)
        pair.close(self._selector)

    def _drop_all(self) -> None:
        for pair in list(self._pairs):
            self._drop(pair)


class _Way:
    """One direction of a connection."""

    def __init__(
        self, source: socket.socket, sink: socket.socket, log: bytearray, proxy: Proxy, name: str
    ) -> None:
        self.source, self.sink, self.log, self.proxy, self.name = source, sink, log, proxy, name
        self.pending = bytearray()
        self.due: deque[tuple[float, int]] = deque()
        """What is kept for a while: when it is to go on, and how many bytes."""
        self.source_ended = False
        self.ended = False

    def pump(self, limit: int) -> int:
        """Read and write what can be, at most `limit` bytes each; return the bytes written."""
        if not limit:
            return 0
        if self.wants_more():
            try:
                data = self.source.recv(limit)
            except BlockingIOError:
                data = None
            if data is None:
                if not self.pending:
                    return 0
            elif data:
                change = getattr(self.proxy, self.name)
                if change is not None:
                    data = change(data)
                self.log += data
                self.pending += data
                if self.proxy.delay_seconds or self.due:
                    due = time.monotonic() + self.proxy.delay_seconds
                    self.due.append((due, len(data)))
            else:
                self.source_ended = True
        moved = 0
        ready = self._ready()
        if ready:
            try:
                moved = self.sink.send(self.pending[: min(limit, ready)])
            except BlockingIOError:
                return 0
            del self.pending[:moved]
            self._sent(moved)
        if self.source_ended and not self.pending and not self.ended:
            self.ended = True
            with contextlib.suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)
        return moved

    def wants_more(self) -> bool:
        """Whether to read: what is kept must not keep the rest, up to some limit."""
        return not self.source_ended and (
            not self.pending or (bool(self.due) and len(self.pending) < _MOST_KEPT)
        )

    def _ready(self) -> int:
        """Return how many bytes may go on now."""
        now = time.monotonic()
        return len(self.pending) - sum(count for due, count in self.due if due > now)

    def _sent(self, count: int) -> None:
        while count and self.due:
            due, size = self.due.popleft()
            if size > count:
                self.due.appendleft((due, size - count))
            count -= min(count, size)


class _Pair:
    """A client's connection and the one to the server."""

    def __init__(
        self,
        proxy: Proxy,
        near: socket.socket,
        far: socket.socket,
        out: bytearray,
        back: bytearray,
    ) -> None:
        self.near, self.far = near, far
        self.ways = (
            _Way(near, far, out, proxy, "tamper"),
            _Way(far, near, back, proxy, "tamper_back"),
        )

    def watch(self, selector: selectors.BaseSelector, wanted: bool) -> None:
        """Ask the selector for what either direction can do next."""
        for each in (self.near, self.far):
            mask = 0
            for way in self.ways:
                if way.source is each and way.wants_more():
                    mask |= selectors.EVENT_READ
                if way.sink is each and way._ready() > 0:
                    mask |= selectors.EVENT_WRITE
            if not wanted:
                mask = 0
            known = each in selector.get_map()
            if mask and known:
                selector.modify(each, mask)
            elif mask:
                selector.register(each, mask)
            elif known:
                selector.unregister(each)

    def close(self, selector: selectors.BaseSelector) -> None:
        """Reset both connections."""
        for each in (self.near, self.far):
            if each in selector.get_map():
                selector.unregister(each)
            _reset(each)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Babbler:
    """
    A peer on a port that is no server of ours.

    Args:
        words: What it says to everybody who connects; nothing at all if empty.
        closes: Whether it then hangs up.
        endless: Whether it repeats its words for as long as somebody listens.
    """

    def __init__(self, words: bytes = b"", *, closes: bool = False, endless: bool = False) -> None:
        self.words, self.closes, self.endless = words, closes, endless
        self.heard = bytearray()
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._closing = False
        self._thread = threading.Thread(target=self._accept, name="babbler", daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up everywhere and end."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._connections:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in [self._thread, *self._threads]:
            thread.join(scaled(10))
        for each in self._connections:
            each.close()

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _talk(self, connection: socket.socket) -> None:
        try:
            connection.sendall(self.words)
            while self.endless and not self._closing:
                connection.sendall(self.words)
            while not self.closes:
                data = connection.recv(_CHUNK)
                if not data:
                    return
                self.heard += data
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


# -- processes


def free_port() -> int:
    """
    Return a TCP port of the loopback interface that nobody listens on.

    It is none of those that systems give to connections, which could take it meanwhile.
    """
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def state_of(pid: int) -> str:
    """Return a process's state as one letter (Linux: R, S, T, Z ...), or nothing if it is gone."""
    import psutil

    try:
        status: str = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return ""
    return "Z" if status == psutil.STATUS_ZOMBIE else status[:1].upper()


def alive(pid: int) -> bool:
    """Tell whether a process runs: a zombie does not."""
    return state_of(pid) not in ("", "Z")


def wait_gone(pids: Iterable[int], limit: float = 5.0) -> None:
    """Wait until none of the processes runs any more: `limit` seconds, before scaling."""
    left = set(pids)
    wait_until(lambda: not any(map(alive, left)), limit, f"the end of the processes {left}")


def end_process(pid: int) -> None:
    """End a process that a test started, if it still runs."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
