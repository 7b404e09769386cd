"""Any bytes at a TLS port, or in a wrapped stream, are refused or waited for, and nothing else."""

from __future__ import annotations

import select
import socket

from hypothesis import example, given, settings
from hypothesis import strategies as st

from remote_executor.errors import AuthenticationFailed, ProtocolMismatch, RemoteProtocolError
from remote_executor.net.tls import ServerTLS, TLSStream, client_context
from remote_executor.wire.frames import FrameReader, make_frame
from remote_executor.wire.link import PREAMBLE
from remote_executor.wire.seals import MOST_SEALED, SealedReader
from tests.support.tools import require_module
from tests.support.wires import bytes_of, feed

require_module("cryptography", "the extra tls")

SERVER = ServerTLS(True, plain_locally=False)
CONTEXT, _ = client_context(True, "")

records = st.builds(
    lambda kind, version, body: bytes([kind]) + version + len(body).to_bytes(2, "big") + body,
    st.sampled_from([20, 21, 22, 23, 24, 0]),
    st.sampled_from([b"\x03\x01", b"\x03\x03", b"\x03\x04", b"\x02\x00"]),
    st.binary(max_size=300),
)
babble = st.lists(st.one_of(records, st.binary(max_size=100), st.just(PREAMBLE)), max_size=5)


def ends():
    one, two = socket.socketpair()
    return SERVER.stream(one, "the client"), two


def receive_all(stream, most=200):
    """Receive until there is nothing, an end or an error; what a shell would do."""
    buffer, got = memoryview(bytearray(4096)), b""
    for _ in range(most):
        try:
            count = stream.receive(buffer)
        except (AuthenticationFailed, ProtocolMismatch, OSError) as exc:
            return got, exc
        if count == 0:
            return got, EOFError()
        if count < 0 and not select.select([stream.fileno()], [], [], 0)[0]:
            return got, None
        got += bytes(buffer[: max(0, count)])
    raise AssertionError("it goes on for ever")


@settings(max_examples=150)
@given(babble, st.booleans())
def test_A11_no_bytes_of_a_stranger_get_through_a_servers_tls(said, ends_it):
    stream, peer = ends()
    with peer:
        peer.sendall(b"".join(said))
        if ends_it:
            peer.shutdown(socket.SHUT_WR)
        got, _ = receive_all(stream)
        assert got == b""
        assert stream.send([b"secret"]) == 0
        receive_all(stream)
    stream.close()


@settings(max_examples=100)
@given(babble)
def test_D4_no_bytes_of_another_program_get_through_a_clients_tls(said):
    one, two = socket.socketpair()
    stream = TLSStream(one, CONTEXT, "the server")
    with two:
        two.sendall(b"".join(said))
        got, _ = receive_all(stream)
        assert got == b""
    stream.close()


@settings(max_examples=100)
@given(st.data())
def test_a_mutated_conversation_gives_no_wrong_byte(data):
    """Whatever is changed on the way: what comes out is what went in, up to some point."""
    stream, peer = ends()
    one, two = socket.socketpair()
    client = TLSStream(one, CONTEXT, "the server")
    message = b"a message of some length " * 20
    place, sent, passed = data.draw(st.integers(0, 2500), "place"), False, 0
    got = b""
    try:
        for _ in range(8):
            if not client.waiting and not sent:
                sent = client.send([message]) == len(message)
            for source, to, mutates in ((two, peer, True), (peer, two, False)):
                if not select.select([source], [], [], 0)[0]:
                    continue
                piece = bytearray(source.recv(65536))
                if mutates and passed <= place < passed + len(piece):
                    piece[place - passed] ^= data.draw(st.integers(1, 255), "change")
                passed += len(piece) if mutates else 0
                to.sendall(piece)
            some, error = receive_all(stream)
            got += some
            if error is None:
                _, error = receive_all(client)
            if error is not None:
                break
    except OSError:
        pass
    finally:
        for each in (stream, client, peer, two):
            each.close()
    assert got in (b"", message)


@settings(max_examples=200)
@given(
    st.lists(st.one_of(st.binary(max_size=50), st.integers(0, 2**32 - 1)), max_size=5),
    st.sampled_from([None, 1, 5]),
)
@example([MOST_SEALED], None)
def test_a_wrapped_stream_gives_frames_or_says_why_not(said, steps):
    data = b""
    for each in said:
        if isinstance(each, int):
            data += each.to_bytes(4, "little")
        else:
            data += len(each).to_bytes(4, "little") + each
    whole = bytes_of(make_frame(35, 1, b"x"))
    data = len(whole).to_bytes(4, "little") + whole + data
    reader = SealedReader("the peer", bytes, FrameReader(1000))
    frames = []
    try:
        frames = feed(reader, data, steps)
    except RemoteProtocolError:
        return
    assert frames[0].id == 1
