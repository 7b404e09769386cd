"""
Kerberos against a real MIT KDC, which the tests set up on loopback in a temporary folder.

A13, after lfarm-gss: mutual authentication, wrapped frames, allowed users, an overridden check.
"""

from __future__ import annotations

import socket
import time

import pytest

from remote_executor import (
    GSSAPI,
    AuthenticationFailed,
    ConnectionFailed,
    FarmExecutor,
    end_server,
    ping,
    server_status,
    start_server,
)
from remote_executor.errors import FarmError, RemoteProtocolError
from remote_executor.net.addresses import parse_address
from remote_executor.net.gssapi import MOST_BYTES
from remote_executor.net.security import is_exposed
from remote_executor.wire.frames import make_frame
from remote_executor.wire.link import Link, LinkState
from remote_executor.wire.messages import Kind
from remote_executor.wire.seals import MOST_SEALED
from tests.support import tasks
from tests.support.faults import Proxy
from tests.support.kerberos import REALM, Realm
from tests.support.scale import scaled
from tests.support.tools import require_extra
from tests.support.waiting import wait_until
from tests.support.wires import Talk, bytes_of, client_link, drain, feed, nonce_of, server_link

LIMIT = scaled(20)

require_extra("gssapi", "gssapi")


@pytest.fixture(scope="module")
def realm(_leak_baseline, tmp_path_factory):
    made = Realm(tmp_path_factory.mktemp("realm"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def keytab(realm):
    return realm.keytab("remote_executor/localhost")


@pytest.fixture
def as_user(realm, monkeypatch):
    """Return a function that makes this process a user's."""
    for name, value in realm.env.items():
        monkeypatch.setenv(name, value)

    def become(user, **options):
        monkeypatch.setenv("KRB5CCNAME", realm.ticket(user, **options))

    become("alice")
    return become


@pytest.fixture(scope="module")
def server(realm, keytab):
    """Return the address of a server that serves alice; KRB5_KTNAME leads to its keys."""
    patch = pytest.MonkeyPatch()
    for name, value in {**realm.env, "KRB5_KTNAME": keytab}.items():
        patch.setenv(name, value)
    try:
        handle = start_server(
            "localhost", 0, workers=1, auth=GSSAPI(allowed_users=[f"alice@{REALM}"])
        )
    finally:
        patch.undo()
    with handle:
        yield f"localhost:{handle.address.port}"


def refusal_of(address, auth):
    """Return the error of a task, and how long it took to come."""
    start = time.monotonic()
    with FarmExecutor(addresses=[address], auth=auth) as executor:
        error = executor.submit(pow, 2, 3).exception(LIMIT)
    assert isinstance(error, AuthenticationFailed)
    assert time.monotonic() - start < scaled(8)
    return str(error)


# -- who may


def test_A13_an_allowed_principal_is_served(server, as_user):
    with FarmExecutor(addresses=[server], auth=GSSAPI()) as executor:
        assert list(executor.map(pow, range(1000), [2] * 1000)) == [n * n for n in range(1000)]
        data = b"x" * 5_000_000
        assert executor.submit(tasks.same, data).result(LIMIT) == data
    assert ping(server, auth=GSSAPI())
    assert server_status(server, auth=GSSAPI())["slots"] == 1


def test_A7_another_principal_is_told_that_he_is_not_allowed(server, as_user):
    as_user("bob")

    assert f"bob@{REALM} is not allowed" in refusal_of(server, GSSAPI())
    as_user("alice")
    assert ping(server, auth=GSSAPI())  # A4: the next one is served


def test_a_ticket_that_has_expired_is_no_ticket(server, as_user):
    as_user("carol", life="1s")
    over = time.time() + 2.5  # whole seconds are what counts
    wait_until(lambda: time.time() > over, 10)

    assert "expired" in refusal_of(server, GSSAPI())


def test_a_realm_that_is_away_for_a_second_is_asked_again(tmp_path, monkeypatch):
    """No ticket for the service yet, and nobody to give one: that says nothing about who we are."""
    realm = Realm(tmp_path)
    try:
        for name, value in realm.env.items():
            monkeypatch.setenv(name, value)
        with monkeypatch.context() as patch:
            patch.setenv("KRB5_KTNAME", realm.keytab("remote_executor/localhost"))
            auth = GSSAPI(allowed_users=[f"alice@{REALM}"])
            handle = start_server("localhost", 0, workers=1, auth=auth)
        monkeypatch.setenv("KRB5CCNAME", realm.ticket("alice"))
        realm.stop()
        server = f"localhost:{handle.address.port}"
        with handle, FarmExecutor(addresses=[server], auth=GSSAPI()) as executor:
            future = executor.submit(pow, 2, 3)
            (peer, _), *_ = executor._driver.peers()
            wait_until(lambda: "realm cannot be asked" in peer.words, 20)
            realm.start()

            assert future.result(LIMIT) == 8
    finally:
        realm.stop()


def test_A10_another_service_has_no_such_principal(server, as_user):
    assert "not found" in refusal_of(server, GSSAPI("another_service"))


def test_A10_the_principal_of_another_host_is_another(server, as_user):
    assert "node1" in refusal_of(server, GSSAPI(host="node1"))


def test_no_ticket_at_all(server, as_user, monkeypatch, tmp_path):
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/nothing")

    assert "Kerberos says" in refusal_of(server, GSSAPI())


def test_a_server_that_cannot_decrypt_the_ticket(realm, as_user, monkeypatch):
    """An impostor on the server's host, with keys of its own."""
    monkeypatch.setenv("KRB5_KTNAME", realm.keytab("remote_executor/elsewhere"))
    with start_server("localhost", 0, workers=1, auth=Everybody()) as handle:
        words = refusal_of(f"localhost:{handle.address.port}", GSSAPI())
    assert "Kerberos says" in words


class Everybody(GSSAPI):
    """Lets in whom another program knows."""

    def name_accepted(self, name):
        group = {f"{user}@{REALM}" for user in ("alice", "dave")}
        return name in group


def test_A13_a_subclass_lets_a_group_in(keytab, as_user, monkeypatch):
    """lfarm's name-accepted."""
    monkeypatch.setenv("KRB5_KTNAME", keytab)
    with start_server("localhost", 0, workers=1, auth=Everybody()) as handle:
        address = f"localhost:{handle.address.port}"
        for user, allowed in (("alice", True), ("dave", True), ("bob", False)):
            as_user(user)
            assert ping(address, timeout=scaled(5), auth=GSSAPI()) is allowed
        as_user("dave")
        end_server(address, auth=GSSAPI())
        assert handle.join(scaled(10))


def test_a_token_is_no_ticket(server, as_user):
    assert "the client authenticates by 'token', the server by 'gssapi'" in refusal_of(
        server, "a secret of 16 bytes"
    )


# -- what travels


def test_all_that_travels_is_wrapped(server, as_user):
    secret = b"words that nobody else should read" * 1000
    with Proxy(f"127.0.0.1:{server.rpartition(':')[2]}") as proxy:
        address = f"localhost:{proxy.address.rpartition(':')[2]}"
        with FarmExecutor(addresses=[address], auth=GSSAPI()) as executor:
            assert executor.submit(tasks.same, secret).result(LIMIT) == secret
        said = bytes(proxy.sent[0]) + bytes(proxy.received[0])
    assert len(said) > len(secret)
    assert secret[:30] not in said
    assert b"session" not in said


def test_the_session_outlives_a_changed_byte(server, as_user):
    with Proxy(f"127.0.0.1:{server.rpartition(':')[2]}") as proxy:
        address = f"localhost:{proxy.address.rpartition(':')[2]}"
        with FarmExecutor(addresses=[address], auth=GSSAPI()) as executor:
            pid = executor.submit(tasks.pid).result(LIMIT)
            changed = []

            def flip(data):
                if len(data) > 1000 and not changed:
                    changed.append(1)
                    return data[:500] + bytes([data[500] ^ 1]) + data[501:]
                return data

            proxy.tamper = flip
            data = b"x" * 50_000
            assert executor.submit(tasks.same, data).result(LIMIT) == data
            assert executor.submit(tasks.pid).result(LIMIT) == pid
        assert changed
        assert proxy.links == 2


@pytest.fixture
def talk(keytab, as_user, monkeypatch):
    """Return a client's and a server's link in this process, both open."""
    monkeypatch.setenv("KRB5_KTNAME", keytab)
    done = Talk(*links()).run()
    assert done.is_open
    return done


def links(channels=(b"", b"")):
    auth = GSSAPI(allowed_users=[f"alice@{REALM}"])
    return (
        client_link(auth.client("localhost"), channel=lambda: channels[0]),
        server_link(auth.server()(), channel=lambda: channels[1]),
    )


def test_each_end_knows_who_the_other_is(talk):
    assert talk.server.peer_name == f"alice@{REALM}"
    assert talk.client.peer_name == f"remote_executor/localhost@{REALM}"


def record_of(link, frame):
    link.outbox.put(frame)
    return drain(link.outbox)


@pytest.mark.parametrize("what", ["replayed", "left out", "reordered", "changed", "from itself"])
def test_A13_bytes_replayed_or_left_out_cut_the_link(talk, what):
    one, two, three = (record_of(talk.client, make_frame(Kind.TASK, n)) for n in (1, 2, 3))
    assert [frame.id for frame in feed(talk.server, one)] == [1]
    wrong = {
        "replayed": one,
        "left out": three,
        "reordered": three + two,
        "changed": two[:-1] + bytes([two[-1] ^ 1]),
        "from itself": record_of(talk.server, make_frame(Kind.RESULT, 1)),
    }[what]

    with pytest.raises(ConnectionAbortedError, match="changed on the way"):
        feed(talk.server, wrong)

    assert talk.server.state is LinkState.CLOSED


def test_a_replayed_conversation_opens_nothing(talk, keytab):
    """Also with a replay cache that remembers nothing: the server's nonce is another one."""
    overheard = talk.said["client"]
    link = Link(
        "server",
        "the listener",
        GSSAPI(allowed_users=[f"alice@{REALM}"]).server()(),
        0.0,
        nonce=b"another nonce of thirty-two byte",
        limit=1 << 20,
    )
    assert nonce_of("server") != b"another nonce of thirty-two byte"

    with pytest.raises(AuthenticationFailed, match="Kerberos says"):
        feed(link, overheard)


def test_a_ticket_is_good_for_one_channel_alone(talk):
    """Within TLS, whoever stands in the middle shows another certificate."""
    both = Talk(*links((b"of the middle", b"of the server")))

    with pytest.raises(AuthenticationFailed, match="Kerberos says"):
        both.run()


def test_the_wrapped_length_is_looked_at_before_memory_is_taken(talk):
    with pytest.raises(RemoteProtocolError, match="the limit is"):
        feed(talk.server, (MOST_SEALED + 1).to_bytes(4, "little"))


def test_garbage_instead_of_a_ticket(server, keytab, as_user, monkeypatch):
    """Any bytes are refused, and a handshake has its limit."""
    monkeypatch.setenv("KRB5_KTNAME", keytab)
    for body in (b"", b"\0", b"garbage" * 1000, b"x" * MOST_BYTES):
        client, there = links()
        both = Talk(client, there)
        both.pass_on("client")
        both.pass_on("server")
        drain(client.outbox)
        with pytest.raises(FarmError):
            feed(there, bytes_of(make_frame(Kind.PROOF, body=body)))
    with socket.create_connection(("localhost", int(server.rpartition(":")[2])), LIMIT) as peer:
        peer.sendall(b"\x89rexec\r\n" + b"\xff" * 1000)
        while peer.recv(4096):
            pass
    assert ping(server, auth=GSSAPI())


# -- settings


def test_a_server_needs_keys_and_somebody_to_serve(as_user, keytab, monkeypatch):
    with pytest.raises(ConnectionFailed, match="no keys for the service remote_executor"):
        start_server("localhost", 0, workers=1, auth=Everybody())
    monkeypatch.setenv("KRB5_KTNAME", keytab)
    with pytest.raises(ConnectionFailed, match="nobody may use this server"):
        start_server("localhost", 0, workers=1, auth=GSSAPI())
    with pytest.raises(ValueError, match="names no realm"):
        GSSAPI(allowed_users="alice")
    assert "1 users" in repr(GSSAPI(allowed_users="alice@REALM"))


def test_it_encrypts_so_no_tls_is_needed_away_from_loopback(keytab, as_user, monkeypatch):
    """A14."""
    monkeypatch.setenv("KRB5_KTNAME", keytab)
    assert not is_exposed(parse_address("node1:1"), GSSAPI(), None)
    with start_server("0.0.0.0", 0, workers=1, auth=Everybody()) as handle:
        assert ping(f"localhost:{handle.address.port}", auth=GSSAPI())


def test_over_tls_as_well(keytab, as_user, monkeypatch):
    monkeypatch.setenv("KRB5_KTNAME", keytab)
    with start_server("localhost", 0, workers=1, auth=Everybody(), tls=True) as handle:
        address = f"localhost:{handle.address.port}"
        with FarmExecutor(addresses=[address], auth=GSSAPI(), tls=True) as executor:
            assert executor.submit(pow, 2, 3).result(LIMIT) == 8


def test_on_a_unix_socket_nothing_goes_round_the_wrapping(keytab, as_user, monkeypatch, tmp_path):
    """Descriptors of shared memory cannot be wrapped: large buffers travel as bytes."""
    monkeypatch.setenv("KRB5_KTNAME", keytab)
    place = f"unix:{tmp_path}/socket"
    with start_server(address=place, workers=1, auth=Everybody()):
        with FarmExecutor(addresses=[place], auth=GSSAPI(host="localhost")) as executor:
            data = bytearray(b"x" * 1_000_000)
            assert executor.submit(tasks.same, data).result(LIMIT) == data


def test_by_command_line_and_environment(serve, keytab, as_user, monkeypatch):
    from tests.integration.conftest import ServerProcess

    monkeypatch.setenv("KRB5_KTNAME", keytab)
    monkeypatch.setenv("REMOTE_EXECUTOR_AUTH", "gssapi")
    monkeypatch.setenv("REMOTE_EXECUTOR_GSSAPI_USERS", f"bob@{REALM} alice@{REALM}")

    class Server(ServerProcess):
        def _answers(self):
            assert self.process.poll() is None, self.log.read_text()
            return ping(f"localhost:{self.port}", timeout=scaled(1))

    for options in ([], ["--auth", "gssapi", "--gssapi-users", f"alice@{REALM},dave@{REALM}"]):
        server = Server(serve.folder, "--log-level", "info", *options)
        serve.started.append(server)
        assert f"is alice@{REALM}" in server.log.read_text()  # A7: the log names the peer
        server.stop()
    monkeypatch.setenv("REMOTE_EXECUTOR_AUTH", "password")
    with pytest.raises(ValueError, match="must be token or gssapi"):
        ping("localhost:1")
