"""
Peers that misbehave, and tasks that do: none hangs, none loses another task's result.

Exceptions and pickles are in ``test_exceptions.py``, cut links in ``test_blips.py``, dead processes
in ``test_death.py``, floods of output in ``test_output.py``.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import signal
import socket
import struct
import sys
import threading
import time
import warnings
from concurrent import futures

import pytest

from remote_executor import FarmError, FarmExecutor, ping
from remote_executor.wire.link import HANDSHAKE_SECONDS
from tests.support import tasks
from tests.support.faults import Babbler, alive
from tests.support.scale import scaled
from tests.support.tools import REQUIRE_ALL
from tests.support.waiting import wait_until

LIMIT = scaled(20)


# -- peers at a server's port


def connect(address):
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), scaled(15))


def hangs_up(peer):
    """Read until the server hangs up; return what it said."""
    said = bytearray()
    with contextlib.suppress(ConnectionError):
        while data := peer.recv(65536):
            said += data
    return bytes(said)


class HandMade:
    """
    K24: a client of the documented protocol, written by hand from its description.

    Frames have a header of kind, flags, buffer count, aux, id and body size, little-endian; control
    bodies are JSON; both ends prove the token by HMAC-SHA256 over role and greetings.
    """

    HEADER = struct.Struct("<BBHIQQ")
    PREAMBLE = b"\x89rexec\r\n"
    HELLO, PROOF, REFUSED, PING, PONG = 1, 2, 3, 6, 7

    def __init__(self, address, token):
        self.peer = connect(address)
        self.token = token
        self.nonce = secrets.token_hex(32)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.peer.close()

    def frame(self, kind, body=b"", *, size=None, count=0, id=0):
        return self.HEADER.pack(kind, 0, count, 0, id, len(body) if size is None else size) + body

    def send(self, *parts):
        self.peer.sendall(b"".join(parts))

    def hello(self, protocols=(1, 1), auth="token"):
        fields = {"protocols": list(protocols), "auth": auth, "nonce": self.nonce}
        self.ours = json.dumps(fields).encode()
        self.send(self.PREAMBLE, self.frame(self.HELLO, self.ours))

    def proof(self, role, theirs, token=None):
        text = role + b"\0remote_executor 1\0"
        for part in (b"", self.ours, theirs):
            text += struct.pack("<I", len(part)) + part
        return hmac.new(token or self.token, text, "sha256").digest()

    def prove(self, theirs, token=None):
        self.send(self.frame(self.PROOF, self.proof(b"client", theirs, token)))

    def read(self):
        kind, _, count, _, id, size = self.HEADER.unpack(self._exactly(self.HEADER.size))
        assert count == 0
        return kind, self._exactly(size), id

    def read_fields(self):
        kind, body, _ = self.read()
        return kind, json.loads(body)

    def read_preamble(self):
        assert self._exactly(len(self.PREAMBLE)) == self.PREAMBLE

    def _exactly(self, count):
        data = bytearray()
        while len(data) < count:
            more = self.peer.recv(count - len(data))
            if not more:
                raise EOFError(bytes(data))
            data += more
        return bytes(data)


@pytest.fixture
def token(token_file, addresses):
    """Return the secret of this run, as the file holds it."""
    from remote_executor.net.tokens import load_token

    return load_token(token_file)


@pytest.fixture
def still_serves(addresses):
    """Check, after the test, that the server lives and serves others."""
    with FarmExecutor(addresses=[addresses[0]]) as executor:
        pid = executor.submit(tasks.pid).result(LIMIT)
        yield executor
        assert executor.submit(tasks.pid).result(LIMIT) == pid
    assert ping(addresses[0], timeout=scaled(5))


@pytest.fixture(scope="module", autouse=True)
def silent(addresses):
    """Return a connection that said next to nothing, and when: it is as old as this module."""
    with connect(addresses[0]) as peer:
        peer.sendall(b"\x89re")
        yield peer, time.monotonic()


GARBAGE = {
    "nothing": b"",
    "http": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    "tls": bytes.fromhex("1603010200010001fc0303") + bytes(500),
    "zeros": bytes(100_000),
    "ones": b"\xff" * 100_000,
    "pickle": b"\x80\x05cos\nsystem\n(S'echo harm'\ntR.",
    "half a preamble": b"\x89rex",
    "preamble and garbage": b"\x89rexec\r\n" + b"\xfe" * 10_000,
    "huge body": b"\x89rexec\r\n" + struct.pack("<BBHIQQ", 1, 0, 0, 0, 0, 1 << 62),
    "many buffers": b"\x89rexec\r\n"
    + struct.pack("<BBHIQQ", 1, 0, 65535, 0, 0, 0)
    + bytes(1 << 19),
    "not json": b"\x89rexec\r\n" + struct.pack("<BBHIQQ", 1, 0, 0, 0, 0, 4) + b"\xff\xfe{}",
    "deep json": b"\x89rexec\r\n" + struct.pack("<BBHIQQ", 1, 0, 0, 0, 0, 15000) + b"[" * 15000,
    "task first": b"\x89rexec\r\n" + struct.pack("<BBHIQQ", 35, 0, 0, 1, 1, 3) + b"abc",
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_at_the_port(addresses, still_serves, garbage):
    """K63, K64, D7: that connection ends, soon; the server and the others do not notice."""
    with connect(addresses[0]) as peer:
        with contextlib.suppress(ConnectionError):
            peer.sendall(GARBAGE[garbage])
            peer.shutdown(socket.SHUT_WR)
        hangs_up(peer)


def test_silent_peers(addresses, still_serves):
    """Fifty that connect and say nothing hold nobody up (and are hung up on in the end)."""
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(connect(addresses[0])) for _ in range(50)]
        with FarmExecutor(addresses=[addresses[0]]) as other:
            assert other.submit(pow, 2, 3).result(LIMIT) == 8
        assert ping(addresses[0], timeout=scaled(5))
        assert len(peers) == 50


def test_babbling_peers_cost_no_memory(addresses, still_serves):
    """Each is cut off at its first bad bytes."""
    for _ in range(20):
        with connect(addresses[0]) as peer, contextlib.suppress(ConnectionError):
            for _ in range(100):
                peer.sendall(b"x" * 65536)


def test_hand_made_client(addresses, still_serves, token):
    """K24, A1: what the description says is enough to be let in, and to be answered."""
    with HandMade(addresses[0], token) as client:
        client.hello()
        client.read_preamble()
        kind, hello, _ = client.read()
        assert kind == client.HELLO
        assert json.loads(hello)["auth"] == "token"
        client.prove(hello)
        kind, proof, _ = client.read()
        assert kind == client.PROOF
        assert proof == client.proof(b"server", hello)
        client.send(client.frame(client.PING, id=4711))
        assert client.read() == (client.PONG, b"", 4711)


def test_wrong_protocol_version(addresses, still_serves, token):
    """The server says so, names both versions, and hangs up."""
    with HandMade(addresses[0], token) as client:
        client.hello(protocols=(98, 99))
        client.read_preamble()
        kinds = [client.read_fields(), client.read_fields()]
        kind, refusal = kinds[-1]

        assert kind == client.REFUSED
        assert "98" in refusal["reason"]
        assert refusal["error"] == "protocol"
        hangs_up(client.peer)


@pytest.mark.parametrize("wrong", ["token", "empty", "own hello", "no proof", "other kind"])
def test_wrong_proof(addresses, still_serves, token, wrong):
    """A2, A4, A7: refused with a reason; nothing else is answered, the next one is served."""
    with HandMade(addresses[0], token) as client:
        client.hello(auth="none" if wrong == "other kind" else "token")
        client.read_preamble()
        _, hello, _ = client.read()
        if wrong == "token":
            client.prove(hello, token=b"another token of 32 bytes length")
        elif wrong == "empty":
            client.send(client.frame(client.PROOF))
        elif wrong == "own hello":
            client.prove(client.ours)
        elif wrong == "no proof":
            client.send(client.frame(35, b"harm"))  # a task, before any proof
        said = hangs_up(client.peer)

        if wrong != "no proof":
            assert b"token" in said or b"auth" in said
        assert (
            client.proof(b"server", hello) not in said
        )  # it does not prove anything to a stranger


def test_truncated_conversations(addresses, still_serves, token):
    """An authenticated client that goes away at any byte of a frame."""
    for count in range(0, 40, 3):
        with HandMade(addresses[0], token) as client:
            client.hello()
            client.read_preamble()
            client.prove(client.read()[1])
            client.read()
            client.send(client.frame(4, b'{"session": "x", "grace": 1}')[:count])


def test_authenticated_garbage(addresses, still_serves, token):
    """K63: also a friend's frames are checked."""
    bodies = [b"", b"{}", b"[]", b"null", b"\xff", b'{"session": 5}', b'{"session": "a"}' * 1000]
    for kind in (1, 2, 3, 4, 5, 8, 10, 11, 32, 35, 38, 64, 200):
        for body in bodies:
            with HandMade(addresses[0], token) as client:
                client.hello()
                client.read_preamble()
                client.prove(client.read()[1])
                client.read()
                with contextlib.suppress(ConnectionError):
                    client.send(client.frame(kind, body), client.frame(kind, body, size=1 << 61))
                    client.peer.shutdown(socket.SHUT_WR)
                hangs_up(client.peer)


# -- peers at a client's address


BABBLERS = {
    "http": {"words": b"HTTP/1.1 400 Bad Request\r\n\r\n", "closes": True},
    "ssh": {"words": b"SSH-2.0-OpenSSH_9.2\r\n"},
    "endless": {"words": b"x" * 1000, "endless": True},
    "hangs up": {"closes": True},
    "huge": {"words": b"\x89rexec\r\n" + struct.pack("<BBHIQQ", 1, 0, 0, 0, 0, 1 << 62)},
    "bad json": {
        "words": b"\x89rexec\r\n" + struct.pack("<BBHIQQ", 1, 0, 0, 0, 0, 4) + b"\xff" * 4
    },
}


@pytest.mark.parametrize("kind", BABBLERS)
def test_client_of_what_is_no_server(kind):
    """D4: an error in bounded time; ping is False."""
    with Babbler(**BABBLERS[kind]) as babbler:
        start = time.monotonic()
        assert not ping(babbler.address, timeout=0.5)
        assert time.monotonic() - start < scaled(5)
        with FarmExecutor(addresses=[babbler.address], connect_timeout=0.5) as executor:
            error = executor.submit(pow, 2, 3).exception(LIMIT)

            assert isinstance(error, FarmError)
            assert isinstance(error, (futures.BrokenExecutor, ConnectionError))
            assert babbler.address in str(error)


def test_client_of_a_silent_port():
    """D2: nothing is said; connect_timeout ends it."""
    with Babbler() as babbler:
        start = time.monotonic()
        assert not ping(babbler.address, timeout=0.3)
        with FarmExecutor(addresses=[babbler.address], connect_timeout=0.5) as executor:
            error = executor.submit(pow, 2, 3).exception(LIMIT)

        assert isinstance(error, FarmError)
        assert time.monotonic() - start < scaled(6)


def test_server_that_does_not_know_the_token(addresses):
    """A1: the client proves first, and believes nobody who cannot answer with a proof."""

    def impostor():
        connection, _ = listener.accept()
        with connection:
            hello = json.dumps({"protocols": [1, 1], "auth": "token", "nonce": "ab" * 32})
            body = hello.encode()
            connection.sendall(HandMade.PREAMBLE + HandMade.HEADER.pack(1, 0, 0, 0, 0, len(body)))
            connection.sendall(body)
            connection.sendall(HandMade.HEADER.pack(2, 0, 0, 1, 0, 32) + bytes(32))
            with contextlib.suppress(OSError):
                while connection.recv(65536):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=impostor)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with FarmExecutor(addresses=[address]) as executor:
            error = executor.submit(pow, 2, 3).exception(LIMIT)
        thread.join(LIMIT)

    assert isinstance(error, FarmError)
    assert "token" in str(error) or "token" in str(error.__cause__)


# -- tasks that misbehave


@pytest.fixture
def own():
    """Return an executor with two workers that may be spoilt."""
    with FarmExecutor(2) as executor:
        yield executor


def test_task_that_closes_descriptors(own):
    """0 to 20: the protocol has descriptors that no task can guess, or the worker is replaced."""
    others = [own.submit(tasks.same, i) for i in range(10)]
    future = own.submit(tasks.close_descriptors)
    error = future.exception(LIMIT)

    assert error is None or isinstance(error, futures.BrokenExecutor)
    assert [other.result(LIMIT) for other in others] == [*range(10)]
    assert [own.submit(tasks.same, i).result(LIMIT) for i in range(10)] == [*range(10)]
    assert len(own.broadcast(tasks.pid)) == 2


@pytest.mark.parametrize("task", [tasks.leave_grandchild, tasks.fork_grandchild])
def test_grandchild_that_holds_the_streams(own, task):
    """The result comes at once, and shutdown does not wait for the grandchild."""
    start = time.monotonic()
    pid = own.submit(task, 60).result(LIMIT)
    assert own.submit(pow, 2, 3).result(LIMIT) == 8
    own.shutdown()

    assert time.monotonic() - start < scaled(10)
    wait_until(lambda: not alive(pid), 5)


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc")
def test_task_that_exhausts_memory(own):
    """A MemoryError comes back as one; so does the next result."""
    with pytest.raises(MemoryError):
        own.submit(tasks.exhaust_memory, 64 << 20).result(LIMIT)
    assert own.submit(pow, 2, 3).result(LIMIT) == 8


def test_task_that_the_kernel_kills_for_its_memory(own):
    """What the memory killer does is a SIGKILL: WorkerDied, and the rest goes on."""
    others = [own.submit(tasks.same, i) for i in range(10)]
    error = own.submit(tasks.eat_memory_until_killed, 32 << 20).exception(LIMIT)

    assert error.exitcode == -signal.SIGKILL
    assert "SIGKILL" in str(error)
    assert [other.result(LIMIT) for other in others] == [*range(10)]


def test_task_that_blocks_signals(own, tmp_path):
    """It can be killed, and shutdown of what it left behind does not hang."""
    running = own.submit(tasks.block_signals, tmp_path / "started")
    wait_until((tmp_path / "started").exists, 20)

    assert own.kill(running)
    assert isinstance(running.exception(LIMIT), futures.BrokenExecutor)


def test_task_that_blocked_signals_and_returned():
    def block():
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
        return os.getpid()

    with FarmExecutor(1) as executor:
        pid = executor.submit(block).result(LIMIT)
    wait_until(lambda: not alive(pid), 5)


@pytest.mark.timeout(120)
def test_task_that_holds_the_gil(serve, tmp_path):
    """
    In one C call, for longer than any heartbeat of a tight setting.

    The server answers by itself, so neither it nor the worker is declared dead; other tasks run.
    """
    seconds = 30 if REQUIRE_ALL else 2  # a link counts as dead after 15
    server = serve(workers=2)
    with FarmExecutor(addresses=[server.address], session_grace=1) as executor:
        executor.wait_for_workers(2, LIMIT)
        future = executor.submit(tasks.hold_gil, tmp_path / "started", seconds)
        wait_until((tmp_path / "started").exists, 20)
        done = 0
        while not future.done():
            assert executor.submit(tasks.same, done).result(LIMIT) == done
            assert ping(server.address, timeout=scaled(2))
            done += 1

        assert future.result(LIMIT) == seconds
        assert done > 5


def test_client_that_holds_its_gil(own, tmp_path):
    """Its own threads stand still meanwhile; afterwards everything is as it was."""
    waiting = [own.submit(tasks.record, tmp_path / "ran", i) for i in range(10)]
    tasks.hold_gil(tmp_path / "started", 1)

    assert [future.result(LIMIT) for future in waiting] == [*range(10)]
    assert len((tmp_path / "ran").read_text().split()) == 10


def test_task_that_leaves_a_thread(own):
    """Its worker ends with the session all the same."""
    assert own.submit(tasks.thread_left_running, 60).result(LIMIT) == "left"
    start = time.monotonic()
    own.shutdown()

    assert time.monotonic() - start < scaled(10)


def test_task_that_changes_directory(own, tmp_path):
    """Importable tasks are found afterwards, too."""
    assert own.submit(tasks.change_directory, tmp_path).result(LIMIT) == str(tmp_path)
    assert list(own.map(tasks.square, range(10))) == [i * i for i in range(10)]


def test_task_that_installs_signal_handlers(own, tmp_path):
    """An alarm's handler runs in the main thread, as it must, and harms no protocol."""

    def alarm():
        seen = []
        signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            pass
        return len(seen)

    assert own.submit(alarm).result(LIMIT) > 5
    assert [own.submit(tasks.same, i).result(LIMIT) for i in range(200)] == [*range(200)]


def test_task_that_forks_and_returns_in_the_child(own):
    """The child that falls out of the task must not speak for the worker."""

    def fork():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return "child" if os.fork() == 0 else "parent"

    assert own.submit(fork).result(LIMIT) == "parent"
    assert [own.submit(tasks.same, i).result(LIMIT) for i in range(50)] == [*range(50)]


def test_recursion_in_a_task_that_never_ends(own):
    def forever():
        return forever()

    with pytest.raises(RecursionError):
        own.submit(forever).result(LIMIT)


def test_silent_peer_is_hung_up_on(silent):
    """Its deadline is some ten seconds; this test stands last because they began with the first."""
    peer, since = silent
    hangs_up(peer)

    assert time.monotonic() - since < scaled(60)
    assert HANDSHAKE_SECONDS < 15
