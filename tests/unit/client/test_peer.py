"""What a peer does when its server is in trouble: try again, or say that there is no use."""

from __future__ import annotations

import socket
import threading

import pytest

from remote_executor.client.peer import Peer, PeerState
from remote_executor.client.ways import Embedded, Remote
from remote_executor.core.connection import MOST_STARTS
from remote_executor.errors import ConnectionFailed, RemoteProtocolError
from remote_executor.net.addresses import parse_address
from remote_executor.net.loop import Loop
from remote_executor.net.streams import SocketStream
from remote_executor.wire.auth import NoAuth
from remote_executor.wire.frames import make_frame
from remote_executor.wire.link import PREAMBLE, Link, LinkState
from remote_executor.wire.messages import Kind, encode_fields

REFUSAL = PREAMBLE + bytes(
    make_frame(Kind.REFUSED, body=encode_fields({"error": "auth", "reason": "go away"})).raw
)


class Owner:
    """Keeps what it is told."""

    nonsense = None

    def __init__(self):
        self.told = []

    def peer_up(self, peer, fields):
        self.told.append("up")

    def peer_lost(self, peer, reason):
        self.told.append("lost")

    def peer_failed(self, peer):
        pass

    def peer_refused(self, peer, error):
        self.told.append(error)

    def peer_frames(self, peer, frames):
        if self.nonsense is not None:
            raise self.nonsense
        self.told += frames


class Pairs:
    """A way that leads to the test itself."""

    name = "the test"

    def __init__(self):
        self.ends = []

    def open(self, loop, done):
        ours, theirs = socket.socketpair()
        self.ends.append(theirs)
        done(ours)

    def stream(self, sock):
        return SocketStream(sock)

    def mechanism(self):
        return NoAuth()

    def wishes(self):
        return {}

    def close(self):
        for end in self.ends:
            end.close()


class Failing(Embedded):
    """A server of our own that ends as soon as it is started."""

    def __init__(self):
        super().__init__(1, ())
        self.opened = 0

    def open(self, loop, done):
        self.opened += 1
        ours, theirs = socket.socketpair()
        theirs.close()
        done(ours)


class Hand:
    """The server's end of a pair."""

    def __init__(self, peer, loop):
        self.peer = peer
        self.sock = peer.way.ends[-1]
        self.sock.setblocking(False)
        self.loop = loop
        self.link = Link("server", "client", NoAuth(), 0.0, nonce=bytes(32), limit=1 << 22)

    def write(self):
        while self.link.outbox.size:
            self.link.outbox.sent(self.sock.send(self.link.outbox.chunk()[0]))

    def read(self):
        """Let the peer act, and return the frames that it sent."""
        self.write()
        self.loop.run_once(0.1)
        self.peer.flush()  # as the driver does after each round
        try:
            count = self.sock.recv_into(self.link.get_buffer())
        except BlockingIOError:
            return []
        return self.link.received(count, 0.0)

    def until_attach(self):
        frames = []
        while not frames:
            frames = self.read()
        assert self.link.state is LinkState.OPEN
        assert frames[0].kind == Kind.ATTACH

    def answer(self, kind, **fields):
        self.link.outbox.put(make_frame(kind, body=encode_fields(fields)))
        self.write()
        self.loop.run_once(0.1)


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def make(loop):
    peers = []

    def peer(way):
        owner = Owner()
        config = {"implementation": "cpython", "python": [3, 11, 1]}
        peers.append(Peer(way, loop, owner, config, 60.0))
        return peers[-1], owner

    yield peer
    for peer in peers:
        peer.close()
        peer.way.close()


def attached(peer, loop, **more):
    peer.connect()
    hand = Hand(peer, loop)
    hand.until_attach()
    hand.answer(Kind.ATTACHED, resumed=False, received=0, slots=2, python=[3, 11], **more)
    assert peer.state is PeerState.UP
    return hand


def test_an_embedded_server_that_never_comes_up_is_given_up(make, loop):
    peer, owner = make(Failing())
    peer.connect()
    while peer.state is not PeerState.REFUSED:
        loop.run_once(1.0)

    assert peer.way.opened == MOST_STARTS
    assert "before it had done anything" in str(owner.told[0])


def test_a_server_that_is_ending_is_tried_again(make, loop):
    """The next one at that address may be there soon."""
    peer, owner = make(Pairs())
    peer.connect()
    hand = Hand(peer, loop)
    hand.until_attach()
    hand.answer(Kind.REPLY, error="ending")

    assert peer.state is PeerState.WAITING
    assert not owner.told


def test_a_server_that_refuses_is_not_tried_again(make, loop):
    peer, owner = make(Pairs())
    peer.connect()
    hand = Hand(peer, loop)
    hand.until_attach()
    hand.answer(Kind.REPLY, error="no room")

    assert peer.state is PeerState.REFUSED
    assert "no room" in str(owner.told[0])


def test_a_stranger_at_the_address_is_not_tried_again(make, loop):
    peer, owner = make(Pairs())
    peer.connect()
    peer.way.ends[-1].send(b"HTTP/1.1 400 Bad Request")
    loop.run_once(0.1)

    assert peer.state is PeerState.REFUSED
    assert len(owner.told) == 1


def test_a_stranger_who_answers_for_a_known_server_is_waited_out(make, loop):
    """A proxy says that the server behind it is away: the session lives on."""
    peer, owner = make(Pairs())
    attached(peer, loop).sock.close()
    while len(peer.way.ends) < 2:
        loop.run_once(1.0)
    peer.way.ends[-1].send(b"HTTP/1.1 502 Bad Gateway")
    loop.run_once(0.1)

    assert peer.state is PeerState.WAITING
    assert owner.told == ["up"]


@pytest.mark.parametrize("words", [b"HTTP/1.1 503 Busy", b"\x15\x03\x03\x00\x02\x02\x28", REFUSAL])
def test_what_a_stranger_says_at_the_port_of_a_known_server_is_a_cut(make, loop, words):
    peer, owner = make(Pairs())
    attached(peer, loop).sock.close()
    while len(peer.way.ends) < 2:
        loop.run_once(1.0)
    peer.way.ends[-1].send(words)
    loop.run_once(0.1)

    assert peer.state is PeerState.WAITING
    assert owner.told == ["up"]


@pytest.mark.parametrize(
    "odd", [{"python": 3}, {"slots": "2"}, {"resumed": 0}, {"versions": [1]}, {"pid": "x"}]
)
def test_one_odd_field_of_attached_costs_that_server_only(make, loop, odd):
    peer, owner = make(Pairs())
    peer.connect()
    hand = Hand(peer, loop)
    hand.until_attach()
    fields = {"resumed": False, "received": 0, "slots": 2, "python": [3, 11], **odd}
    hand.answer(Kind.ATTACHED, **fields)

    assert peer.state is PeerState.REFUSED
    (error,) = owner.told
    assert isinstance(error, ConnectionFailed)
    assert next(iter(odd)) in str(error)


def test_a_message_that_makes_no_sense_costs_the_session(make, loop):
    peer, owner = make(Pairs())
    hand = attached(peer, loop)
    owner.nonsense = RemoteProtocolError("DIED has an odd field 'pid': 'x'")
    hand.answer(Kind.DIED, reason="died", pid="x")

    assert peer.state is PeerState.WAITING
    assert owner.told == ["up", "lost"]
    assert "DIED has an odd field" in peer.trouble


def test_a_defect_of_ours_costs_that_server_only(make, loop, caplog):
    peer, owner = make(Pairs())
    hand = attached(peer, loop)
    owner.nonsense = KeyError("a defect")
    hand.answer(Kind.LOG, name="x")

    assert peer.state is PeerState.WAITING
    assert owner.told == ["up", "lost"]
    assert "could not be taken" in caplog.text


@pytest.mark.parametrize("kind", [Kind.ATTACHED, Kind.REPLY, Kind.ADMIN])
def test_a_message_that_is_of_no_session_costs_it(make, loop, kind):
    peer, owner = make(Pairs())
    attached(peer, loop).answer(kind, error="x")

    assert owner.told == ["up", "lost"]


def test_an_acknowledgement_of_what_was_never_sent_costs_the_session(make, loop):
    peer, owner = make(Pairs())
    hand = attached(peer, loop)
    hand.link.outbox.put(make_frame(Kind.ACK, 99))
    hand.write()
    loop.run_once(0.1)

    assert owner.told == ["up", "lost"]


def test_another_server_behind_the_name_does_not_cost_the_session(make, loop):
    peer, owner = make(Pairs())
    attached(peer, loop, server="ours", place="host a:1").sock.close()
    while len(peer.way.ends) < 2:
        loop.run_once(1.0)
    hand = Hand(peer, loop)
    hand.until_attach()
    hand.answer(
        Kind.ATTACHED, resumed=False, received=0, slots=0, server="theirs", place="host b:1"
    )

    assert peer.state is PeerState.WAITING
    assert owner.told == ["up"]


class Unable(Pairs):
    """A way that cannot even begin."""

    def open(self, loop, done):
        raise RuntimeError("can't start new thread")


def test_a_way_that_cannot_begin_now_is_tried_again(make, loop):
    peer, owner = make(Unable())
    peer.connect()

    assert peer.state is PeerState.WAITING
    assert not owner.told


def test_the_error_of_an_embedded_server_has_what_it_wrote(make, loop, monkeypatch, capfd):
    """As if it had ended at once for want of a module."""
    monkeypatch.setattr(
        "remote_executor.client.ways.BOOT", "import sys; sys.exit('no module named xyz')"
    )
    peer, owner = make(Embedded(1, ()))
    peer.connect()
    while peer.state is not PeerState.REFUSED:
        loop.run_once(1.0)

    assert "no module named xyz" in str(owner.told[0])
    assert "exit code 1" in str(owner.told[0])
    capfd.readouterr()


def test_the_goodbye_is_written_behind_whatever_is_on_its_way(make, loop):
    """Else the server would keep the session, and its workers, for the whole grace."""
    peer, _ = make(Pairs())
    hand = attached(peer, loop)
    peer.session.send(make_frame(Kind.TASK, 1, bytes(2_000_000)))
    hand.sock.setblocking(True)
    reader = threading.Thread(target=read_all, args=(hand,))
    reader.start()
    peer.close()
    reader.join()

    assert hand.link.state is LinkState.CLOSED


def read_all(hand):
    while count := hand.sock.recv_into(hand.link.get_buffer()):
        hand.link.received(count, 0.0)


def test_a_connection_that_comes_after_the_end_is_closed():
    """A look-up or a connect may take longer than the executor lives."""
    loop = Loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        way = Remote(parse_address(listener.getsockname()[:2]), b"x" * 32)
        way.close()
        loop.close()
        way._connect(loop, lambda outcome: None)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(5)
            assert connection.recv(1) == b""


def test_a_connection_that_nobody_took_is_closed_with_its_way():
    """The executor ended between the connect and the next round of its loop."""
    loop = Loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        way = Remote(parse_address(listener.getsockname()[:2]), b"x" * 32)
        way._connect(loop, lambda outcome: None)
        connection, _ = listener.accept()
        way.close()
        loop.run_once(0)  # too late
        loop.close()
        with connection:
            connection.settimeout(5)
            assert connection.recv(1) == b""
