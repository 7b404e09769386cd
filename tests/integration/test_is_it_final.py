"""
Words from a server, or from whoever has its port for a moment: a cut, or the end?

While no server has served, a refusal, a mismatch and an unknown name fail at once. A server that
has served is final only when the grace is over. One that refuses beside living ones is left out.
"""

from __future__ import annotations

import errno
import json
import socket
import struct
import time
from concurrent.futures import BrokenExecutor

import pytest

from remote_executor import (
    AuthenticationFailed,
    ConnectionFailed,
    FarmExecutor,
    NoServerError,
    ServerLost,
    Token,
)
from remote_executor.client.troubles import trouble_of
from remote_executor.server.serve import start_server
from remote_executor.wire.link import PREAMBLE
from remote_executor.wire.messages import Kind
from tests.support import tasks
from tests.support.faults import Proxy, end_process, free_port
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(25)
SECRET = "a secret of this test only"


def refused(error, reason="go away"):
    """Return what a server says that refuses: in plain text, as all comes before the proofs."""
    body = json.dumps({"error": error, "reason": reason}).encode()
    return PREAMBLE + struct.pack("<BBHIQQ", Kind.REFUSED, 0, 0, 0, 0, len(body)) + body


FORGERIES = {
    "a refusal": refused("auth"),
    "a mismatch": refused("protocol"),
    "HTTP 503": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    "a TLS alert": bytes.fromhex("15030300020228"),
    "noise": bytes(range(256)),
    "nothing": b"",
}


def lines(path):
    return path.read_text().split() if path.exists() else []


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def tls(request):
    return request.param


# ---------------------------------------------------------- a server that has served: a cut


@pytest.mark.parametrize("words", FORGERIES.values(), ids=FORGERIES)
def test_forged_words_during_a_blip_cost_nothing(tls, words, tmp_path):
    path, release = tmp_path / "ran", tmp_path / "release"
    with start_server(workers=2, tls=tls) as server, Proxy(str(server.address)) as proxy:
        with FarmExecutor(addresses=[proxy.address], tls=tls) as farm:
            farm.wait_for_workers(1, LIMIT)
            running = farm.submit(tasks.record_and_wait, path, 0, release)
            wait_until(lambda: lines(path), 20)
            waiting = [farm.submit(tasks.record, path, i) for i in range(1, 30)]
            proxy.answer(words)
            wait_until(lambda: proxy.answered >= 2, 20)
            release.touch()
            proxy.accept()

            assert running.result(LIMIT) == 0
            assert [each.result(LIMIT) for each in waiting] == list(range(1, 30))
    assert sorted(map(int, lines(path))) == list(range(30))


def test_a_refusal_is_final_when_the_grace_is_over(tmp_path):
    with start_server(workers=1) as server, Proxy(str(server.address)) as proxy:
        with FarmExecutor(addresses=[proxy.address], session_grace=0.5) as farm:
            farm.wait_for_workers(1, LIMIT)
            future = farm.submit(tasks.hold, tmp_path / "begun", tmp_path / "never")
            wait_until((tmp_path / "begun").exists, 20)
            proxy.answer(refused("auth", "the token has changed"))

            error = future.exception(LIMIT)

    assert isinstance(error, AuthenticationFailed)
    assert "the token has changed" in str(error)


def test_two_seconds_without_a_name_service_cost_nothing(monkeypatch):
    asked = []
    real = socket.getaddrinfo

    def away(host, *args, **kwargs):
        if len(asked) < 6:
            asked.append(host)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **kwargs)

    with start_server(workers=1) as server, Proxy(str(server.address)) as proxy:
        port = proxy.address.rpartition(":")[2]
        with FarmExecutor(addresses=[f"localhost:{port}"]) as farm:
            pid = farm.submit(tasks.pid).result(LIMIT)
            monkeypatch.setattr(socket, "getaddrinfo", away)
            proxy.cut()

            assert farm.submit(tasks.pid).result(LIMIT) == pid
    assert len(asked) == 6


class Flaky(Token):
    """A mechanism that cannot be made now and then, for the reasons given."""

    def __init__(self, *errors):
        super().__init__(SECRET)
        self.errors = list(errors)

    def client(self, host):
        if self.errors:
            raise self.errors.pop(0)
        return super().client(host)


PASSING = {
    "no descriptors": OSError(errno.EMFILE, "Too many open files"),
    "no memory": OSError(errno.ENOMEM, "Cannot allocate memory"),
    "no answer": TimeoutError("the realm does not answer"),
    "refused": ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
    "a stale folder": OSError(errno.ESTALE, "Stale file handle"),
}
LASTING = {
    "forbidden": PermissionError(errno.EACCES, "Permission denied"),
    "no file": FileNotFoundError(errno.ENOENT, "No such file or directory"),
    "nonsense": ValueError("the token file holds no token"),
    "a defect": KeyError("user"),
    "an exit": SystemExit(3),
}


@pytest.mark.parametrize("error", PASSING.values(), ids=PASSING)
def test_a_proof_that_cannot_be_made_just_now_is_made_later(error):
    auth = Flaky(error, error)
    with start_server(workers=1, auth=SECRET) as server:
        with FarmExecutor(addresses=[str(server.address)], auth=auth) as farm:
            assert farm.submit(abs, -1).result(LIMIT) == 1
    assert not auth.errors


@pytest.mark.parametrize("error", LASTING.values(), ids=LASTING)
def test_a_proof_that_cannot_be_made_fails_at_once_with_its_cause(error):
    with start_server(workers=1, auth=SECRET) as server:
        with FarmExecutor(addresses=[str(server.address)], auth=Flaky(error)) as farm:
            found = farm.submit(abs, -1).exception(LIMIT)

    assert isinstance(found, AuthenticationFailed)
    assert found.__cause__ is error


@pytest.mark.parametrize("error", [*PASSING.values(), *LASTING.values()])
def test_no_proof_for_a_moment_costs_nothing_once_a_server_has_served(error, tmp_path):
    auth = Flaky()
    path, release = tmp_path / "ran", tmp_path / "release"
    with start_server(workers=1, auth=SECRET) as server, Proxy(str(server.address)) as proxy:
        with FarmExecutor(addresses=[proxy.address], auth=auth) as farm:
            future = farm.submit(tasks.record_and_wait, path, 7, release)
            wait_until(lambda: lines(path), 20)
            auth.errors += [error] * 3
            proxy.cut()
            wait_until(lambda: not auth.errors, 20)
            release.touch()

            assert future.result(LIMIT) == 7
    assert lines(path) == ["7"]


def test_another_server_behind_the_same_name_is_not_taken_for_a_restart(tmp_path, caplog):
    """A load balancer leads to a server that does not have our session, and then back."""
    path, release = tmp_path / "ran", tmp_path / "release"
    with start_server(workers=1) as ours, start_server(workers=1) as other:
        with Proxy(str(ours.address)) as proxy, FarmExecutor(addresses=[proxy.address]) as farm:
            future = farm.submit(tasks.record_and_wait, path, 7, release)
            wait_until(lambda: lines(path), 20)
            links = proxy.links
            proxy.lead_to(str(other.address))
            wait_until(lambda: proxy.links >= links + 2, 20)
            proxy.lead_to(str(ours.address))
            release.touch()

            assert future.result(LIMIT) == 7
    assert lines(path) == ["7"]
    assert "is lost" not in caplog.text


def test_another_server_behind_the_same_name_is_used_when_the_grace_is_over():
    with start_server(workers=1) as ours, start_server(workers=1) as other:
        with Proxy(str(ours.address)) as proxy:
            with FarmExecutor(addresses=[proxy.address], session_grace=0.5) as farm:
                before = farm.submit(tasks.pids).result(LIMIT)[1]
                proxy.lead_to(str(other.address))

                assert farm.submit(tasks.pids).result(LIMIT)[1] != before


def test_a_server_that_was_started_anew_is_used_at_once(tmp_path):
    """With a grace of a minute: a restart is known by the place, and nobody waits for it."""
    address = f"127.0.0.1:{free_port()}"
    server = start_server(address=address, workers=1)
    with FarmExecutor(addresses=[address]) as farm:
        try:
            farm.submit(abs, -1).result(LIMIT)
            future = farm.submit(tasks.tell_and_hold, tmp_path / "begun", tmp_path / "release")
            wait_until((tmp_path / "begun").exists, 20)
            end_process(server.pid)
            server.stop()
            server = start_server(address=address, workers=1)
            begun = time.monotonic()
            (tmp_path / "release").touch()

            assert future.result(LIMIT)
            assert time.monotonic() - begun < scaled(15)
        finally:
            server.stop()


# --------------------------------------------------- no server has served yet: it fails at once


def test_a_refusal_fails_at_once_while_no_server_has_served(tls):
    with start_server(workers=1, auth=SECRET, tls=tls) as server:
        with FarmExecutor(
            addresses=[str(server.address)], auth="another secret, as long as that", tls=tls
        ) as farm:
            with pytest.raises(AuthenticationFailed):
                farm.submit(abs, -1).result(LIMIT)


def gone(name):
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_an_unknown_name_fails_at_once(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: gone("x"))
    with FarmExecutor(addresses=["node.invalid:11111"]) as farm:
        error = farm.submit(abs, -1).exception(LIMIT)

    assert isinstance(error, ConnectionFailed)
    assert "no host of that name" in str(error)
    assert isinstance(error.__cause__, socket.gaierror)


def test_an_unknown_name_is_asked_until_connect_timeout(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: gone("x"))
    begun = time.monotonic()
    with FarmExecutor(addresses=["node.invalid:11111"], connect_timeout=1.0) as farm:
        with pytest.raises((NoServerError, ConnectionFailed), match="no host of that name"):
            farm.submit(abs, -1).result(LIMIT)

    assert time.monotonic() - begun >= 1.0


def test_a_name_that_the_name_service_does_not_have_yet_is_asked_again(monkeypatch):
    asked = []
    real = socket.getaddrinfo

    def not_yet(host, *args, **kwargs):
        if host == "node.invalid":
            asked.append(host)
            if len(asked) < 5:
                gone(host)
            host = "127.0.0.1"
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", not_yet)
    with start_server(workers=1, auth=SECRET, tls=True) as server:
        address = f"node.invalid:{server.address.port}"
        with FarmExecutor(addresses=[address], auth=SECRET, connect_timeout=LIMIT) as farm:
            assert farm.submit(abs, -1).result(LIMIT) == 1


@pytest.mark.parametrize("number", [socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_MEMORY])
def test_a_name_service_that_is_away_is_asked_again(monkeypatch, number):
    asked = []
    real = socket.getaddrinfo

    def away(host, *args, **kwargs):
        asked.append(host)
        if len(asked) < 4:
            raise socket.gaierror(number, "away")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", away)
    with start_server(workers=1) as server:
        with FarmExecutor(addresses=[f"localhost:{server.address.port}"]) as farm:
            assert farm.submit(abs, -1).result(LIMIT) == 1


def test_what_cannot_be_a_hosts_name_fails_at_once(monkeypatch):
    """It was asked for without end: the codec of names raises no OSError."""

    def no_name(*_, **__):
        raise UnicodeError("encoding with 'idna' codec failed (UnicodeError: label too long)")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    with FarmExecutor(addresses=["node.invalid:11111"]) as farm:
        with pytest.raises(ConnectionFailed, match="label"):
            farm.submit(abs, -1).result(LIMIT)


def test_a_path_that_no_socket_can_have_fails_at_once(tmp_path):
    with FarmExecutor(addresses=[f"unix:{tmp_path}/{'x' * 200}"]) as farm:
        with pytest.raises(ConnectionFailed, match="too long"):
            farm.submit(abs, -1).result(LIMIT)


def test_too_many_threads_for_a_moment_cost_nothing(monkeypatch):
    """To connect takes a thread, and once the system had none to give that ended the executor."""
    import threading

    real, refusals = threading.Thread.start, []

    def start(thread):
        if thread.name.startswith("dial") and len(refusals) < 3:
            refusals.append(thread)
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with start_server(workers=1) as server:
        with FarmExecutor(addresses=[str(server.address)]) as farm:
            assert farm.submit(abs, -1).result(LIMIT) == 1
    assert len(refusals) == 3


# ------------------------------------------------------------- beside servers that live


def test_a_refused_server_beside_living_ones_is_left_out_with_a_warning(caplog):
    with start_server(workers=1) as kind, start_server(workers=1, auth=SECRET) as strict:
        with FarmExecutor(addresses=[str(kind.address), str(strict.address)]) as farm:
            farm.submit(abs, -1).result(LIMIT)
            wait_until(lambda: "refused" in {each.state for each in farm.status().servers}, 20)

            assert [each.result(LIMIT) for each in [farm.submit(abs, -i) for i in range(20)]]
    assert f"{strict.address} is not used" in caplog.text
    assert "token" in caplog.text


def test_an_unknown_name_beside_living_servers_is_left_out_with_a_warning(caplog, monkeypatch):
    real = socket.getaddrinfo

    def unknown(host, *args, **kwargs):
        return gone(host) if host == "nobody.invalid" else real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with start_server(workers=1) as kind:
        with FarmExecutor(addresses=[str(kind.address), "nobody.invalid:1"]) as farm:
            assert farm.submit(abs, -1).result(LIMIT) == 1
            wait_until(lambda: "refused" in {each.state for each in farm.status().servers}, 20)

            assert farm.submit(abs, -1).result(LIMIT) == 1
    assert "nobody.invalid:1 is not used" in caplog.text


def test_the_error_of_a_farm_without_servers_has_their_own_last_words():
    """The port is closed by the time that somebody asks; what the server said is not lost."""
    with start_server(workers=1) as server, Proxy(str(server.address)) as proxy:
        with FarmExecutor(
            addresses=[proxy.address], session_grace=60, connect_timeout=1, retries=0
        ) as farm:
            farm.submit(abs, -1).result(LIMIT)
            proxy.answer(refused("auth", "only users of the second floor"))
            wait_until(lambda: proxy.answered >= 2, 20)
            proxy.refuse()
            (peer, _), *_ = farm._driver.peers()
            wait_until(lambda: "refused" in peer.words or "reset" in peer.words, 20)

            assert "only users of the second floor" in peer.words


def test_every_kind_of_trouble_has_a_class():
    """Whatever is raised on the way: there is a verdict, words, and an error that has its cause."""
    from remote_executor.client.troubles import Step

    raised = [*PASSING.values(), *LASTING.values(), socket.gaierror(socket.EAI_FAIL, "failed")]
    raised += [MemoryError(), UnicodeError("label too long"), RuntimeError("can't start thread")]
    for exc in raised:
        for step in Step:
            failure = trouble_of(exc, step, "node")
            assert failure.reason
            assert isinstance(failure.error, ConnectionFailed)
            assert failure.error.__cause__ is exc
            assert "node" in str(failure.error)


def test_the_futures_of_a_lost_server_are_never_left_hanging(tmp_path):
    with start_server(workers=1) as server, Proxy(str(server.address)) as proxy:
        with FarmExecutor(addresses=[proxy.address], session_grace=0.3, retries=0) as farm:
            future = farm.submit(tasks.hold, tmp_path / "begun", tmp_path / "never")
            wait_until((tmp_path / "begun").exists, 20)
            proxy.answer(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")

            assert isinstance(future.exception(LIMIT), (ServerLost, BrokenExecutor))
