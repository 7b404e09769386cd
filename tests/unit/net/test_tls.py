"""TLS streams over real sockets, without a shell: any size, any order, and what goes wrong."""

from __future__ import annotations

import random
import select
import socket
import ssl
import sys
from contextlib import closing

import pytest

from remote_executor.errors import AuthenticationFailed, ProtocolMismatch
from remote_executor.net.tls import (
    MOST_SHAKING,
    TLS,
    ServerTLS,
    TLSStream,
    client_context,
)
from remote_executor.wire.link import PREAMBLE
from tests.support.certificates import Authority
from tests.support.scale import scaled
from tests.support.tools import require_module
from tests.support.waiting import wait_until

require_module("cryptography", "the extra tls")

MB = 1024 * 1024


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


@pytest.fixture(scope="module")
def zero():
    """Return what a server has that made a certificate."""
    return ServerTLS(True, plain_locally=False)


class Ends:
    """A client's and a server's stream, driven by the test."""

    def __init__(self, server, tls=True, pair=socket.socketpair, host=""):
        one, two = pair()
        context, name = client_context(tls, host)
        self.client = TLSStream(one, context, "the server", host=name)
        self.server = server.stream(two, "the client")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        self.server.close()

    def shake(self):
        nothing = memoryview(bytearray(1))
        for _ in range(20):
            if not (self.client.waiting or self.server.waiting):
                return self
            assert self.server.receive(nothing) == -1
            assert self.client.receive(nothing) == -1
        raise AssertionError("no end of the handshake")

    def move(self, data, chance, sender=None, receiver=None):
        """Move bytes as shells would: small and large pieces, buffers of any size."""
        sender, receiver = sender or self.client, receiver or self.server
        left = [memoryview(data)]
        got = bytearray()
        until = scaled(20)
        while len(got) < len(data):
            if left:
                count = sender.send(left)
                while count:
                    part = left.pop(0)
                    if len(part) > count:
                        left.insert(0, part[count:])
                        break
                    count -= len(part)
            buffer = memoryview(bytearray(chance.choice([1, 100, 5000, 300_000])))
            count = receiver.receive(buffer)
            if count > 0:
                got += buffer[:count]
            elif not left:
                assert not receiver.holding
                assert select.select([receiver.fileno()], [], [], until)[0], "bytes were lost"
        return bytes(got)


def tcp():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


@pytest.mark.parametrize("pair", [socket.socketpair, tcp])
def test_bytes_arrive_whole_and_in_order(zero, pair):
    chance = random.Random(7)
    with Ends(zero, pair=pair).shake() as ends:
        for size in (1, 10, 16_384, 16_385, 100_000, 3 * MB + 17):
            data = chance.randbytes(size)
            assert ends.move(data, chance) == data
            assert ends.move(data, chance, ends.server, ends.client) == data


def test_what_is_held_counts_as_not_sent(zero):
    """So a shell that waits for room as long as something is left forgets nothing."""
    with Ends(zero).shake() as ends:
        data = random.Random(1).randbytes(8 * MB)
        left = memoryview(data)
        while count := ends.client.send([left]):
            left = left[count:]
        assert ends.client.send([left]) == 0
        assert not ends.client.waiting
        got = bytearray()
        buffer = memoryview(bytearray(MB))
        while len(got) < len(data):
            count = ends.server.receive(buffer)
            got += buffer[: max(0, count)]
            left = left[ends.client.send([left]) :]
        assert got == data


def test_many_pieces_in_one_chunk(zero):
    with Ends(zero).shake() as ends:
        assert ends.client.send([b"one ", bytearray(b"two "), memoryview(b"three")]) == 13
        buffer = memoryview(bytearray(100))
        wait_until(lambda: select.select([ends.server.fileno()], [], [], 0)[0], 5)
        assert ends.server.receive(buffer) == 13
        assert bytes(buffer[:13]) == b"one two three"


def test_a_small_buffer_leaves_the_rest_for_later_and_says_so(zero):
    with Ends(zero).shake() as ends:
        ends.client.send([b"abcdef"])
        wait_until(lambda: select.select([ends.server.fileno()], [], [], 0)[0], 5)
        buffer = memoryview(bytearray(4))
        assert ends.server.receive(buffer) == 4
        assert ends.server.holding
        assert ends.server.receive(buffer) == 2
        assert not ends.server.holding
        assert ends.server.receive(buffer) == -1


def test_both_ends_name_the_channel_alike_and_another_server_differently(zero):
    with Ends(zero).shake() as ends, Ends(ServerTLS(True, plain_locally=False)).shake() as others:
        assert ends.client.channel() == ends.server.channel()
        assert len(ends.client.channel()) > 32
        assert ends.client.channel() != others.client.channel()


def test_before_the_handshake_nothing_can_be_sent_and_nobody_spins(zero):
    with Ends(zero) as ends:
        assert ends.server.waiting
        assert ends.client.waiting
        assert ends.client.send([b"early"]) == 0
        assert ends.server.receive(memoryview(bytearray(10))) == -1
        assert "shaking hands" in repr(ends.client)
        ends.shake()
        assert "open" in repr(ends.client)
        assert not ends.client.is_local()


def test_the_end_of_the_stream(zero):
    with Ends(zero).shake() as ends:
        ends.client.send([b"last words"])
        ends.client.end_writing()
        buffer = memoryview(bytearray(100))
        wait_until(lambda: ends.server.receive(buffer) == 10, 5)
        wait_until(lambda: ends.server.receive(buffer) == 0, 5)


def test_a_peer_that_says_it_is_done(zero):
    """The closing alert of a peer that is not ours."""
    with Ends(zero).shake() as ends:
        ends.client.send([b"last words"])
        with pytest.raises(ssl.SSLWantReadError):
            ends.client._tls.unwrap()
        ends.client._write_out()
        buffer = memoryview(bytearray(100))
        wait_until(lambda: select.select([ends.server.fileno()], [], [], 0)[0], 5)
        assert ends.server.receive(buffer) == 10
        assert ends.server.receive(buffer) == 0


def test_a_changed_byte_is_an_error_of_the_stream_and_no_refusal(zero):
    one, two = socket.socketpair()
    three, four = socket.socketpair()
    context, _ = client_context(True, "")
    client, server = TLSStream(one, context, "the server"), zero.stream(four, "the client")
    buffer = memoryview(bytearray(1000))
    with two, three, closing(client), closing(server):
        for _ in range(6):
            for source, to in ((two, three), (three, two)):
                if select.select([source], [], [], 0)[0]:
                    to.sendall(source.recv(65536))
            client.receive(buffer)
            server.receive(buffer)
        client.send([b"a good message"])
        data = bytearray(two.recv(65536))
        data[-1] ^= 1
        three.sendall(data)
        # The last are OpenSSL's words from 3.2 on.
        with pytest.raises(OSError, match=r"(?i)decryption|mac|record.layer.failure"):
            server.receive(buffer)
        assert server.receive(buffer) == -1  # said once
        assert server.send([b"x"]) == 0
        assert server.waiting
        assert "failed" in repr(server)


# ---------------------------------------------------------------------- what does not fit


def refuse(ends):
    """Have both ends talk until each has said what is wrong; return both errors."""
    errors = {}
    buffer = memoryview(bytearray(1000))
    for _ in range(10):
        for name in ("server", "client"):
            try:
                getattr(ends, name).receive(buffer)
            except OSError as exc:
                errors.setdefault(name, exc)
    return errors


def test_a_certificate_that_is_not_trusted(zero, ca):
    with Ends(zero, TLS(ca=ca.path), host="localhost") as ends:
        errors = refuse(ends)

    assert isinstance(errors["client"], AuthenticationFailed)
    assert "certificate is not trusted" in str(errors["client"])
    assert isinstance(errors["server"], AuthenticationFailed)
    assert "does not accept our certificate" in str(errors["server"])


def test_a_server_that_asks_for_certificates(ca):
    server = ServerTLS(TLS(*ca.sign("server", "localhost"), ca=ca.path), plain_locally=False)
    with Ends(server, TLS(*ca.sign("client"), ca=ca.path), host="localhost").shake() as ends:
        assert ends.client.channel() == ends.server.channel()
    with Ends(server, TLS(ca=ca.path), host="localhost") as ends:
        errors = refuse(ends)
    assert "the client has no certificate" in str(errors["server"])
    assert "does not accept our certificate" in str(errors["client"])


def test_an_older_tls(zero):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with Ends(zero, old) as ends:
        errors = refuse(ends)
    assert isinstance(errors["client"], ProtocolMismatch)
    assert isinstance(errors["server"], ProtocolMismatch)


def test_a_context_that_allows_an_older_tls_is_held_to_the_new_one(ca):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ca.sign("both", "localhost"))
    server = ServerTLS(context, plain_locally=False)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with Ends(server, old) as ends:
        errors = refuse(ends)
    assert "TLSv1.2, and this end TLS 1.3 only" in str(errors["server"])


@pytest.mark.parametrize("plain_allowed", [False, True])
def test_plain_text_at_a_server(plain_allowed):
    server = ServerTLS(True, plain_locally=plain_allowed)
    one, two = socket.socketpair()
    stream = server.stream(two, "the client")
    buffer = memoryview(bytearray(1000))
    with one:
        one.sendall(PREAMBLE)
        if plain_allowed:
            assert stream.receive(buffer) == len(PREAMBLE)
            assert stream.send([b"hello"]) == 5
            assert one.recv(10) == b"hello"
            assert stream.receive(buffer) == -1
            assert (stream.waiting, stream.channel()) == (False, b"")
            assert "plain" in repr(stream)
        else:
            with pytest.raises(ProtocolMismatch, match="client speaks plain text"):
                stream.receive(buffer)
            assert one.recv(1000).startswith(PREAMBLE)
            one.sendall(b"x" * 5000)
            assert stream.receive(buffer) == -1  # dropped
    stream.close()


def test_plain_text_of_another_machine_is_refused(monkeypatch):
    server = ServerTLS(True, plain_locally=True)
    one, two = tcp()
    monkeypatch.setattr("remote_executor.net.tls._is_this_machine", lambda sock: False)
    stream = server.stream(two, "the client")
    with one:
        one.sendall(PREAMBLE)
        with pytest.raises(ProtocolMismatch, match="client speaks plain text"):
            stream.receive(memoryview(bytearray(100)))
    stream.close()


def test_plain_text_at_a_client():
    one, two = socket.socketpair()
    context, _ = client_context(True, "")
    stream = TLSStream(one, context, "the server")
    with two:
        two.sendall(PREAMBLE + b"and so on")
        with pytest.raises(ProtocolMismatch, match="server speaks plain text"):
            stream.receive(memoryview(bytearray(100)))
    stream.close()


def test_a_handshake_has_an_end(zero):
    one, two = socket.socketpair()
    one.setblocking(False)
    stream = zero.stream(two, "the babbler")
    record = b"\x16\x03\x01\x40\x00" + b"\x01\x00\xff\xff" + bytes(16380)  # of a long greeting
    error, sent = None, 0
    with one:
        while error is None and sent < 4 * MOST_SHAKING:
            try:
                sent += one.send(record)
            except BlockingIOError:
                pass
            try:
                stream.receive(memoryview(bytearray(100)))
            except ProtocolMismatch as exc:
                error = exc
    assert error is not None
    stream.close()


# -------------------------------------------------------------------------------- settings


def test_a_context_for_the_other_end_or_without_a_certificate(ca):
    with pytest.raises(ValueError, match="for servers"):
        client_context(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "node1")
    with pytest.raises(ValueError, match="cannot speak TLS"):
        ServerTLS(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), plain_locally=False)
    with pytest.raises(ValueError, match="cannot speak TLS"):
        ServerTLS(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), plain_locally=False)
    with pytest.raises(ValueError, match="which name"):
        client_context(TLS(ca=ca.path), "")
    assert client_context(TLS(ca=ca.path, server_name="here"), "")[1] == "here"
    assert client_context(ssl.create_default_context(), "node1")[1] == "node1"


def test_without_the_package_a_server_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ValueError, match=r"pip install 'cryptography>="):
        ServerTLS(True, plain_locally=False)
