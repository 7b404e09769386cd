"""Socket streams: they never block, and say plainly what they could do. The sockets are real."""

from __future__ import annotations

import errno
import os
import select
import socket
import sys

import pytest

from remote_executor.net.addresses import Address, parse_address
from remote_executor.net.segments import Descriptor
from remote_executor.net.streams import (
    SocketStream,
    listen,
    listen_everywhere,
    receive_with_fds,
    send_with_fd,
)
from remote_executor.wire.outbox import WithSegment
from tests.support.scale import scaled
from tests.support.shortage import descriptors

SECONDS = scaled(10.0)


@pytest.fixture
def pair():
    one, other = map(SocketStream, socket.socketpair())
    yield one, other
    one.close()
    other.close()


@pytest.fixture
def tcp_pair():
    with listen(parse_address("127.0.0.1:0")) as server:
        one = socket.create_connection(server.getsockname(), SECONDS)
        select.select([server], [], [], SECONDS)
        other, _ = server.accept()
    with one, other:
        yield one, other


def receive(stream, size=100):
    buffer = bytearray(size)
    count = stream.receive(memoryview(buffer))
    return bytes(buffer[:count]) if count >= 0 else count


def test_bytes_go_through(pair):
    one, other = pair

    assert one.send([b"one buffer"]) == 10
    assert receive(other) == b"one buffer"
    assert other.send([b"several ", memoryview(b"buffers"), bytearray(b"!")]) == 16
    assert receive(one) == b"several buffers!"


def test_nothing_there_is_minus_one_and_no_wait(pair):
    assert receive(pair[0]) == -1


def test_the_end_of_the_stream_is_zero_bytes(pair):
    one, other = pair
    one.send([b"last"])
    one.close()

    assert receive(other) == b"last"
    assert receive(other) == b""


@pytest.mark.parametrize("buffers", [1, 2])
def test_a_full_stream_takes_nothing_and_does_not_wait(pair, buffers):
    one, _ = pair
    chunk = [b"x" * 100_000] * buffers

    while one.send(chunk):
        pass

    assert one.send(chunk) == 0


@pytest.mark.parametrize("buffers", [1, 2])
def test_writing_to_nobody_is_an_os_error(pair, buffers):
    one, other = pair
    other.close()

    with pytest.raises(OSError, match="Broken pipe"):
        one.send([b"x"] * buffers)


def test_K64_a_peer_that_goes_away_with_unread_bytes_is_an_os_error(tcp_pair):
    ours, theirs = tcp_pair
    stream = SocketStream(ours)
    stream.send([b"x" * 1000])
    select.select([theirs], [], [], SECONDS)
    theirs.close()
    select.select([ours], [], [], SECONDS)

    with pytest.raises(ConnectionResetError):
        receive(stream)


def test_fileno_is_what_a_selector_waits_for(pair):
    one, other = pair
    assert select.select([one], [], [], 0)[0] == []

    other.send([b"x"])

    assert select.select([one], [], [], SECONDS)[0] == [one]


def test_tcp_sends_small_frames_at_once_and_notices_dead_hosts(tcp_pair):
    sock, _ = tcp_pair
    SocketStream(sock)

    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert not sock.getblocking()


# ---------------------------------------------------------------------------- descriptors


def test_only_a_unix_socket_passes_descriptors(pair, tcp_pair):
    assert pair[0].is_local()
    assert not SocketStream(tcp_pair[0]).is_local()


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def with_descriptor(data, fd):
    part = WithSegment(data)
    part.segment = Descriptor(os.dup(fd))
    return part


def test_a_descriptor_goes_along_and_is_another_one_of_the_same_file(pair, pipe):
    one, other = pair
    other.fds = taken = []

    assert one.send([with_descriptor(b"frame", pipe[0])]) == 5
    assert one.send([b"another"]) == 7
    received = [receive(other, 3) for _ in range(6)]

    assert b"".join(data for data in received if data != -1) == b"frameanother"
    (descriptor,) = taken
    assert os.path.sameopenfile(descriptor.fd, pipe[0])
    assert not os.get_inheritable(descriptor.fd)


def test_a_descriptor_that_nobody_takes_is_closed(pair, pipe):
    one, other = pair
    other.fds = []
    one.send([with_descriptor(b"frame", pipe[0])])
    receive(other)
    fd = other.fds[0].fd

    other.fds.clear()

    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_a_stream_that_expects_no_descriptors_gets_none(pair, pipe):
    one, other = pair
    one.send([with_descriptor(b"frame", pipe[1])])

    assert receive(other) == b"frame"
    assert other.fds is None


def test_other_ancillary_messages_are_no_descriptors(pair):
    if sys.platform != "linux":
        pytest.skip("there is no SO_PASSCRED here")
    one, other = pair
    with socket.socket(fileno=os.dup(other.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    other.fds = taken = []
    one.send([b"frame"])

    assert receive(other) == b"frame"
    assert taken == []


# ------------------------------------------------------------------------------ listening


def test_listening_on_port_0_takes_any_free_one():
    with listen(parse_address("127.0.0.1:0")) as server:
        assert server.getsockname()[1] > 0
        assert not server.getblocking()
        with pytest.raises(BlockingIOError):
            server.accept()


def test_listening_on_ipv6():
    try:
        server = listen(parse_address("[::1]:0"))
    except OSError as exc:
        pytest.skip(f"there is no IPv6 here: {exc}")
    with server:
        assert server.family == socket.AF_INET6


def test_listening_on_all_numbers_of_a_name_with_one_port(monkeypatch):
    numbers = ["127.0.0.1", "192.0.2.1", "127.0.0.2", "127.0.0.1"]  # the second one is not ours

    def look_up(host, port, *_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in numbers]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    servers = listen_everywhere(parse_address("node1:0"))
    names = [server.getsockname() for server in servers]
    for server in servers:
        with server, socket.socket() as client:
            client.connect(server.getsockname())
    assert [number for number, _ in names] == ["127.0.0.1", "127.0.0.2"]
    assert len({port for _, port in names}) == 1
    numbers[:] = ["192.0.2.1"]
    with pytest.raises(OSError, match="assign") as caught:
        listen_everywhere(parse_address("node1:0"))
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_port_that_is_taken_at_one_of_the_numbers(monkeypatch):
    def look_up(host, port, *_, **__):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in ("127.0.0.1", "127.0.0.2")
        ]

    with listen(parse_address("127.0.0.2:0")) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        with pytest.raises(OSError, match="in use"):
            listen_everywhere(parse_address(f"node1:{port}"))
        first = [port, 0]  # a port that is free at the first number only

        def bind(self, where, _bind=socket.socket.bind):
            if where[1] == 0 and first:
                where = (where[0], first.pop(0))
            _bind(self, where)

        monkeypatch.setattr(socket.socket, "bind", bind)
        servers = listen_everywhere(parse_address("node1:0"))
        assert {server.getsockname()[1] for server in servers}.isdisjoint({port})
    for server in servers:
        server.close()


def test_listening_on_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of the folder may be longer than an address may be
    with listen(parse_address("unix:sock")), socket.socket(socket.AF_UNIX) as client:
        client.connect("sock")

    with pytest.raises(OSError, match="in use"):
        listen(parse_address("unix:sock"))


def test_a_port_that_is_taken_is_an_os_error_and_leaks_nothing(recwarn):
    """Both where bind refuses and where listen does."""
    with listen(parse_address("127.0.0.1:0")) as server:
        port = server.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            listen(parse_address(("127.0.0.1", port)))
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        listen(parse_address(("127.0.0.1", port))).close()

    assert list(recwarn) == []


def test_D5_a_port_is_free_again_at_once():
    with listen(parse_address("127.0.0.1:0")) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
            select.select([server], [], [], SECONDS)
            server.accept()[0].close()  # this end waits in TIME_WAIT
            assert client.recv(1) == b""

    listen(parse_address(("127.0.0.1", port))).close()


@pytest.mark.parametrize(
    "address", [Address("tcp", "host.invalid", 1), Address("unix", path="/nowhere/at/all")], ids=str
)
def test_an_address_that_cannot_be_had_is_an_os_error(address):
    before = os.dup(0)
    os.close(before)

    with pytest.raises(OSError, match=r"."):
        listen(address)

    after = os.dup(0)
    os.close(after)
    assert after == before


# -------------------------------------------------------------------------- single steps


def test_steps_send_and_receive_and_what_was_received_can_be_put_back(pair):
    one, other = pair
    send, _ = one.steps()
    _, receive_some = other.steps()

    assert [*send(b"some bytes")] == [10]
    got = [*receive_some()]
    assert [each[0] for each in got] == [b"some bytes"]
    assert [*send(b", more")] == [6]
    other.put_back([*got, *receive_some()])
    assert [*send(b" from the socket")] == [16]
    assert receive(other, 4) == b"some"
    assert receive(other) == b" bytes, more"
    assert receive(other) == b" from the socket"


def test_steps_never_wait(pair):
    _, receive_some = pair[0].steps()

    with pytest.raises(BlockingIOError):
        [*receive_some()]


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memfd_create")
def test_descriptors_that_a_step_received_are_put_back_too(pair):
    one, other = pair
    other.fds = []
    part = WithSegment(b"with one")
    part.segment = Descriptor(os.memfd_create("test"))
    one.send([part])
    _, receive_some = other.steps()
    other.put_back([*receive_some()])

    assert receive(other) == b"with one"
    (found,) = other.fds
    assert os.fstat(found.fd).st_ino == os.fstat(part.segment.fd).st_ino


def test_a_descriptor_for_which_there_is_no_room_is_known_to_be_lost():
    """The bytes come all the same, and each frame has what belongs to it, or nothing."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        parts = []
        for letter in (b"a", b"b", b"c"):
            part = WithSegment(letter)
            part.segment = Descriptor(os.memfd_create("test"))
            parts.append(part)
        found = []
        buffer = memoryview(bytearray(10))
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        taken = []
        send_with_fd(ours, parts[0])
        receive_with_fds(theirs, buffer, found)
        send_with_fd(ours, parts[1])
        with descriptors(0, highest + 1):
            try:
                while True:
                    taken.append(os.dup(0))
            except OSError:
                pass
            assert receive_with_fds(theirs, buffer, found) == 1
            for fd in taken:
                os.close(fd)
        send_with_fd(ours, parts[2])
        receive_with_fds(theirs, buffer, found)

    assert [each.fd >= 0 for each in found] == [True, False, True]
