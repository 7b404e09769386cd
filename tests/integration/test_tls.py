"""TLS on real sockets: with the user's certificates, with one made at the start, with none."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
import time

import pytest

from remote_executor import (
    TLS,
    AuthenticationFailed,
    ConnectionFailed,
    FarmExecutor,
    ProtocolMismatch,
    end_server,
    ping,
    server_status,
    start_server,
)
from remote_executor.client.ways import Remote
from remote_executor.net.addresses import parse_address
from remote_executor.net.tls import ServerTLS, TLSStream, client_context
from tests.support import tasks
from tests.support.certificates import Authority
from tests.support.faults import Proxy
from tests.support.scale import scaled
from tests.support.tools import require_module
from tests.support.waiting import wait_until

LIMIT = scaled(20)
MB = 1024 * 1024

require_module("cryptography", "the extra tls")


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("other"), "stranger")


@pytest.fixture(scope="module")
def certificate(ca):
    return ca.sign("server", "localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def encrypted(_leak_baseline):
    """Return a server that has made a certificate for itself."""
    with start_server(workers=2, tls=True) as handle:
        yield handle


@pytest.fixture(scope="module")
def mutual(_leak_baseline, ca, certificate):
    """Return a server that shows a certificate and asks for one."""
    tls = TLS(*certificate, ca=ca.path)
    with start_server(workers=1, tls=tls) as handle:
        yield handle


def refusal_of(address, **options):
    """Return the error of a task that a server will not have, and how long that took."""
    start = time.monotonic()
    with FarmExecutor(addresses=[address], **options) as executor:
        error = executor.submit(pow, 2, 3).exception(LIMIT)
    return error, time.monotonic() - start


# -- nothing to configure


def test_everything_works_over_tls(encrypted):
    """A12: tasks, large arguments and results, and the calls that need no executor."""
    with FarmExecutor(addresses=[encrypted.address], tls=True) as executor:
        assert list(executor.map(pow, range(2000), [2] * 2000)) == [n * n for n in range(2000)]
        data = os.urandom(20 * MB)
        assert executor.submit(tasks.same, data).result(LIMIT) == data
        futures = [executor.submit(tasks.same, data[:MB]) for _ in range(10)]
        assert all(future.result(LIMIT) == data[:MB] for future in futures)
    assert ping(encrypted.address, tls=True)
    assert server_status(encrypted.address, tls=True)["slots"] == 2


def test_what_travels_cannot_be_read(encrypted):
    secret = b"words that nobody else should read" * 100
    with Proxy(str(encrypted.address)) as proxy:
        with FarmExecutor(addresses=[proxy.address], tls=True) as executor:
            assert executor.submit(tasks.same, secret).result(LIMIT) == secret
        said = bytes(proxy.sent[0]) + bytes(proxy.received[0])
    assert len(said) > len(secret)
    assert secret[:30] not in said
    assert b"rexec" not in said


def test_one_flipped_bit_cuts_the_link_and_the_session_goes_on(encrypted):
    """The task that was under way is neither lost nor run twice."""
    with Proxy(str(encrypted.address)) as proxy:
        with FarmExecutor(addresses=[proxy.address], tls=True) as executor:
            pid = executor.submit(os.getpid).result(LIMIT)
            changed = []

            def flip(data):
                if len(data) > 1000 and not changed:
                    changed.append(1)
                    return data[:500] + bytes([data[500] ^ 1]) + data[501:]
                return data

            proxy.tamper = flip
            data = b"x" * 100_000
            assert executor.submit(tasks.same, data).result(LIMIT) == data
            assert executor.submit(os.getpid).result(LIMIT) == pid or proxy.links > 1
        assert changed
        assert proxy.links == 2


class Middle:
    """Somebody who takes a client's TLS and speaks TLS with the server himself."""

    def __init__(self, target):
        self.target = target
        self.tls = ServerTLS(True, plain_locally=False)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        self.thread.join(LIMIT)

    def run(self):
        import select

        client, _ = self.listener.accept()
        here = self.tls.stream(client, "the victim")
        context, _ = client_context(True, "")
        there = TLSStream(
            socket.create_connection((self.target.host, self.target.port)), context, "the server"
        )
        until = time.monotonic() + LIMIT
        buffer = memoryview(bytearray(65536))
        waiting = {here: b"", there: b""}
        try:
            while time.monotonic() < until:
                select.select([here.fileno(), there.fileno()], [], [], 0.05)
                for one, other in ((here, there), (there, here)):
                    count = one.receive(buffer)
                    if not count:
                        return
                    waiting[other] += bytes(buffer[: max(0, count)])
                    if waiting[other]:
                        waiting[other] = waiting[other][other.send([waiting[other]]) :]
        except OSError:
            pass
        finally:
            here.close()
            there.close()


def test_a_man_in_the_middle_is_detected_with_nothing_configured(encrypted):
    """The proofs cover the certificate that each end sees, and he has another one."""
    with Middle(encrypted.address) as middle:
        error, took = refusal_of(middle.address, tls=True)

    assert isinstance(error, AuthenticationFailed)
    assert took < scaled(8)


def test_away_from_loopback_it_is_the_default_and_nearby_plain_text_will_do():
    """A14: a server on all interfaces makes a certificate; who is on its machine may do without."""
    with start_server("0.0.0.0", 0, workers=1) as handle:
        near = f"127.0.0.1:{handle.address.port}"
        assert ping(near)
        assert ping(near, tls=True)
        assert ping(f"0.0.0.0:{handle.address.port}")  # by TLS: that is no loopback address
        with FarmExecutor(addresses=[handle.address]) as executor:
            assert executor.submit(pow, 2, 3).result(LIMIT) == 8


def test_which_way_a_client_goes(caplog):
    for address, tls, encrypts in (
        ("127.0.0.1:1", None, False),
        ("unix:/tmp/x", None, False),
        ("node1:1", None, True),
        ("node1:1", False, False),
        ("127.0.0.1:1", True, True),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "remote_executor.client"):
            way = Remote(parse_address(address), "a secret in words", tls)
        assert (way._tls is not None) == encrypts
        assert ("plain text" in caplog.text) == (address == "node1:1" and tls is False)


def test_plain_text_on_request_is_said_aloud(serve):
    """--insecure warns in the server's log, tls=False in the client's."""
    server = serve("--host", "0.0.0.0", "--insecure")
    assert "served in plain text" in server.log.read_text()
    assert ping(server.address)


def test_who_speaks_plain_text_does_not_load_tls(run_script):
    """It takes longer to load than all the rest: not in a client, and not in a worker."""
    code, out, err = run_script(
        """
import sys
from remote_executor import FarmExecutor, start_server
def loaded():
    import sys
    names = ("ssl", "cryptography", "gssapi", "remote_executor.net.tls")
    return [name for name in names if name in sys.modules]
with FarmExecutor(1) as executor:
    print(executor.submit(loaded).result())
with start_server(workers=1) as server, FarmExecutor(addresses=[server.address]) as executor:
    print(executor.submit(loaded).result())
print(loaded())
"""
    )
    assert (code, out, err) == (0, "[]\n" * 3, "")


# -- two ends that were told different things


def test_a_client_that_speaks_plain_text_is_told_so_at_once(encrypted):
    error, took = refusal_of(encrypted.address)

    assert isinstance(error, ProtocolMismatch)
    assert "the client speaks plain text, and this server TLS" in str(error)
    assert "tls=True" in str(error)
    assert took < scaled(5)
    assert not ping(encrypted.address, timeout=scaled(5))


def test_a_client_that_speaks_tls_with_a_plain_server_is_told_so_at_once(addresses):
    error, took = refusal_of(addresses[0], tls=True)

    assert isinstance(error, ProtocolMismatch)
    assert "the server speaks plain text, and this client TLS" in str(error)
    assert took < scaled(5)
    assert not ping(addresses[0], timeout=scaled(5), tls=True)


def test_other_programs_at_either_end(encrypted):
    """D4: what is no TLS is refused soon; an old TLS too."""
    with socket.create_connection((encrypted.address.host, encrypted.address.port), LIMIT) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while peer.recv(4096):
            pass
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection((encrypted.address.host, encrypted.address.port), LIMIT) as peer:
        with pytest.raises(ssl.SSLError, match=r"(?i)version"):
            old.wrap_socket(peer)
    assert ping(encrypted.address, tls=True)


def test_a_server_that_speaks_something_else():
    from tests.support.faults import Babbler

    with Babbler(words=b"SSH-2.0-OpenSSH_9.2\r\n") as babbler:
        error, took = refusal_of(babbler.address, tls=True, connect_timeout=scaled(5))
    assert isinstance(error, ConnectionFailed)
    assert "TLS 1.3" in str(error)
    assert took < scaled(5)


# -- certificates


def test_both_ends_check_each_others_certificate(mutual, ca):
    """A10, A12: the name is that of the address."""
    tls = TLS(*ca.sign("client"), ca=ca.path)
    assert ping(mutual.address, tls=tls)
    with FarmExecutor(addresses=[mutual.address], tls=tls) as executor:
        assert executor.submit(pow, 2, 3).result(LIMIT) == 8


def test_a_client_without_a_certificate_is_told_to_bring_one(mutual, ca):
    error, took = refusal_of(mutual.address, tls=TLS(ca=ca.path))

    assert isinstance(error, AuthenticationFailed)
    assert "does not accept our certificate" in str(error)
    assert took < scaled(5)


def test_a_client_whose_certificate_is_not_trusted(mutual, ca, stranger):
    error, _ = refusal_of(mutual.address, tls=TLS(*stranger.sign("client"), ca=ca.path))

    assert isinstance(error, AuthenticationFailed)
    assert "does not accept our certificate" in str(error)


def test_a_client_whose_certificate_is_no_longer_valid(mutual, ca):
    error, _ = refusal_of(mutual.address, tls=TLS(*ca.sign("late", days=-1), ca=ca.path))

    assert isinstance(error, AuthenticationFailed)
    assert "expired" in str(error)


def test_A7_a_server_whose_certificate_is_not_trusted(encrypted, mutual, ca, stranger):
    client = ca.sign("client2")
    for handle, tls in (
        (mutual, TLS(*client, ca=stranger.path)),
        (encrypted, TLS(ca=ca.path)),
    ):
        error, took = refusal_of(handle.address, tls=tls)

        assert isinstance(error, AuthenticationFailed)
        assert "the server's certificate is not trusted" in str(error)
        assert took < scaled(5)


def test_A10_a_server_of_another_name(mutual, ca):
    client = ca.sign("client3")
    error, _ = refusal_of(mutual.address, tls=TLS(*client, ca=ca.path, server_name="node1"))

    assert isinstance(error, AuthenticationFailed)
    assert "node1" in str(error)
    assert ping(mutual.address, tls=TLS(*client, ca=ca.path, server_name="localhost"))
    unchecked = TLS(*client, ca=ca.path, server_name="node1", check_name=False)
    assert ping(mutual.address, tls=unchecked)


def test_what_the_server_logs_names_the_peer(tmp_path, serve, ca, certificate):
    server = serve_tls(serve, "--tls-certificate", certificate[0], "--tls-key", certificate[1])
    refusal_of(server.address)
    refusal_of(server.address, tls=TLS(ca=ca.path, server_name="node1"))

    def logged():
        lines = [line for line in server.log.read_text().splitlines() if " ! 127.0.0.1:" in line]
        return any("the client speaks plain text" in line for line in lines) and any(
            "does not accept our certificate" in line for line in lines
        )

    wait_until(logged, 10, "both refusals in the log")


def serve_tls(serve, *options):
    """Start a server by the command line that the usual ping does not reach."""
    from tests.integration import conftest

    class Server(conftest.ServerProcess):
        def _answers(self):
            assert self.process.poll() is None, self.log.read_text()
            return ping(self.address, timeout=scaled(1), tls=True)

    server = Server(serve.folder, "--log-level", "info", "--tls", *options)
    serve.started.append(server)
    return server


def test_the_users_own_contexts(ca, certificate):
    """A12: an ssl.SSLContext at a client; one cannot go to the process of another server."""
    context = ssl.create_default_context(cafile=ca.path)
    with start_server(workers=1, tls=TLS(*certificate)) as handle:
        assert ping(handle.address, tls=context)
        with FarmExecutor(addresses=[handle.address], tls=context) as executor:
            assert executor.submit(pow, 2, 3).result(LIMIT) == 8
    with pytest.raises(TypeError, match="SSLContext"):
        start_server(workers=1, tls=context)


def test_one_context_of_the_users_in_the_servers_process(ca, certificate, start_script):
    script = start_script(
        f"""
import ssl
from remote_executor.server.serve import serve
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain({certificate[0]!r}, {certificate[1]!r})
serve(port=0, workers=1, tls=context, ready=lambda address: print(address, flush=True))
"""
    )
    address = script.process.stdout.readline().strip()
    assert ping(address, tls=TLS(ca=ca.path))
    end_server(address, tls=TLS(ca=ca.path))
    assert script.finish()[0] == 0


def command(*arguments):
    """Run the command line in this process; return its exit code."""
    from remote_executor.cli import main

    return main([str(each) for each in arguments])


def test_settings_by_the_command_line(mutual, encrypted, ca, capsys):
    client = ca.sign("client4")
    options = ["--tls-certificate", client[0], "--tls-key", client[1], "--tls-ca", ca.path]

    assert command("ping", mutual.address, *options) == 0
    assert command("status", mutual.address, *options) == 0
    assert '"slots": 1' in capsys.readouterr().out
    assert command("ping", mutual.address, *options, "--tls-name", "node1") == 1
    assert command("ping", encrypted.address, "--tls", "--auth", "token") == 0
    assert command("ping", encrypted.address, "--no-tls") == 1
    assert command("ping", encrypted.address, "--tls-key", client[1]) == 1
    assert "to which certificate" in capsys.readouterr().err
    with start_server(workers=1, tls=True) as handle:
        assert command("end", handle.address, "--tls") == 0
        assert handle.join(scaled(10))


def test_settings_by_the_environment(monkeypatch, ca, certificate):
    monkeypatch.setenv("REMOTE_EXECUTOR_TLS_CERTIFICATE", certificate[0])
    monkeypatch.setenv("REMOTE_EXECUTOR_TLS_KEY", certificate[1])
    with start_server(workers=1) as handle:
        monkeypatch.delenv("REMOTE_EXECUTOR_TLS_CERTIFICATE")
        monkeypatch.delenv("REMOTE_EXECUTOR_TLS_KEY")
        assert not ping(handle.address, timeout=scaled(5))
        monkeypatch.setenv("REMOTE_EXECUTOR_TLS", "on")
        assert ping(handle.address)
        monkeypatch.setenv("REMOTE_EXECUTOR_TLS_CA", ca.path)
        assert ping(handle.address)
        monkeypatch.setenv("REMOTE_EXECUTOR_TLS_NAME", "node1")
        assert not ping(handle.address, timeout=scaled(5))


# -- wrong input


def test_files_that_are_missing_or_wrong(tmp_path, ca, certificate):
    """K67: said when the executor or the server is made, and no prompt for a password."""
    locked = ca.sign("locked", "localhost", "127.0.0.1", password="open sesame")
    (tmp_path / "no.pem").write_text("nothing")
    for tls, words in (
        (TLS(ca=str(tmp_path / "missing")), "authorities in .*missing"),
        (TLS(ca=str(tmp_path / "no.pem")), "authorities"),
        (TLS(str(tmp_path / "missing")), "certificate and key in .*missing"),
        (TLS(certificate[0], locked[1]), "password"),
        (TLS(*locked), "perhaps it needs a password"),
        (TLS(*locked, password="wrong"), "cannot use"),
    ):
        with pytest.raises(ValueError, match=words):
            FarmExecutor(addresses=["127.0.0.1:1"], tls=tls)
        if "authorities" not in words:
            with pytest.raises(ConnectionFailed, match=words):
                start_server(workers=1, tls=tls)
    with start_server(workers=1, tls=TLS(*locked, password="open sesame")) as handle:
        assert ping(handle.address, tls=TLS(ca=ca.path))


def test_values_that_cannot_be_meant():
    with pytest.raises(TypeError, match="tls must be"):
        FarmExecutor(addresses=["127.0.0.1:1"], tls="yes")
    with pytest.raises(TypeError, match="auth must be"):
        FarmExecutor(addresses=["127.0.0.1:1"], auth=5)
    with pytest.raises(TypeError, match="tls must be"):
        start_server(workers=1, tls=5)
    with pytest.raises(ValueError, match="for servers"):
        ping("127.0.0.1:1", tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


def test_a_stream_that_takes_a_part_only_is_torn_and_the_session_goes_on(encrypted):
    """By the shortcut: a record that is cut off is found out by the server."""
    with FarmExecutor(addresses=[encrypted.address], tls=True) as executor:
        for _ in range(20):
            executor.submit(abs, 1).result(LIMIT)
        peer = next(iter(executor._driver._peers))
        stream = peer.stream
        sock, stream._sock = stream._sock, HalfSocket(stream._sock)
        wait_until(lambda: _sends_half(executor, stream), LIMIT)

        assert executor.submit(abs, -2).result(LIMIT) == 2
        assert sock.fileno() == -1
        assert peer.stream is not stream


class HalfSocket:
    """A socket whose ``sendall`` is full after half of the bytes, as a real one may be."""

    def __init__(self, sock):
        self._sock = sock
        self.halves = 0

    def sendall(self, data):
        self._sock.sendall(data[: len(data) // 2])
        self.halves += 1
        raise BlockingIOError

    def __getattr__(self, name):
        return getattr(self._sock, name)


def _sends_half(executor, stream):
    for _ in range(100):  # in quick succession
        assert executor.submit(abs, -3).result(LIMIT) == 3
    return stream._sock.halves
