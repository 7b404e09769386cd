"""Who has proved to be whom: a session is his who began it, and the log says who came."""

from __future__ import annotations

import contextlib
import os

import pytest

from remote_executor import TLS, ConnectionFailed, FarmExecutor, server_status, start_server
from remote_executor.client import peer as peers
from remote_executor.wire.messages import decode_fields
from tests.support import tasks
from tests.support.certificates import Authority
from tests.support.faults import Proxy
from tests.support.mechanisms import Users
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


def own_certificate(ca, name):
    """Return how a user of that name speaks TLS; each time with a new certificate."""
    return TLS(*ca.sign(name, name), ca=ca.path, check_name=False)


@pytest.fixture(params=["a mechanism", "certificates"])
def site(request, ca):
    """Return the address of a server and a function: the options of a user of that name."""
    if request.param == "a mechanism":
        with start_server(workers=2, auth=Users()) as server:
            yield server.address, lambda name: {"auth": Users(name)}
    else:
        tls = TLS(*ca.sign("server", "localhost", "127.0.0.1"), ca=ca.path)
        with start_server(workers=2, tls=tls) as server:
            yield server.address, lambda name: {"tls": own_certificate(ca, name)}


@pytest.fixture
def claim(monkeypatch):
    """
    Return a function: the next client to attach says an id that it has got to know.

    It returns a list, to which comes whether the server has let it resume.
    """

    def claim(id, resume):
        attach, attached = peers.Peer._attach, peers.Peer._attached
        answers = []

        def attach_as_another(self, _, now):
            monkeypatch.setattr(peers.Peer, "_attach", attach)
            self._new_session(now)
            self._session_id = id
            attach(self, resume, now)

        def attached_as_another(self, frame, now):
            monkeypatch.setattr(peers.Peer, "_attached", attached)
            answers.append(decode_fields(frame.body)["resumed"])
            self.session = None  # the next one is his own
            self._cut("that is all there was to find out")

        monkeypatch.setattr(peers.Peer, "_attach", attach_as_another)
        if resume:
            monkeypatch.setattr(peers.Peer, "_attached", attached_as_another)
        return answers

    return claim


def session_of(executor):
    ((peer, _),) = executor._driver.peers()
    return peer._session_id


@contextlib.contextmanager
def at_work(address, options, tmp_path):
    """Return an executor whose task waits for a file, the future of it, and that file."""
    with FarmExecutor(1, addresses=[address], **options) as executor:
        gate = tmp_path / "gate"
        executor.submit(abs, -1).result(LIMIT)
        path = str(gate)
        future = executor.submit(lambda: (tasks.wait_for(path), os.getpid())[1])
        wait_until(future.running, LIMIT)
        yield executor, future, gate
        gate.touch()


def test_another_user_cannot_resume_a_session(site, claim, tmp_path):
    """He gets what he would get for an id that nobody has."""
    address, options = site
    with at_work(address, options("alice"), tmp_path) as (alice, future, gate):
        answers = claim(session_of(alice), resume=True)
        with FarmExecutor(1, addresses=[address], **options("bob")) as bob:
            pid = bob.submit(os.getpid).result(LIMIT)  # in a session of his own, later
            assert answers == [False]
            assert session_of(bob) != session_of(alice)
            assert len(server_status(address, **options("bob"))["sessions"]) == 2
        assert not future.done()
        gate.touch()
        assert future.result(LIMIT) != pid
        assert alice.submit(abs, -2).result(LIMIT) == 2


def test_another_user_cannot_end_a_session_by_beginning_it_anew(site, claim, tmp_path):
    address, options = site
    with at_work(address, options("alice"), tmp_path) as (alice, future, gate):
        claim(session_of(alice), resume=False)
        with FarmExecutor(1, addresses=[address], **options("bob")) as bob:
            error = bob.submit(abs, -1).exception(LIMIT)
            assert isinstance(error, ConnectionFailed)
            assert "belongs to somebody else" in str(error)
        gate.touch()
        worker = future.result(LIMIT)
        assert alice.submit(os.getpid).result(LIMIT) == worker  # nothing was begun anew


def test_whose_it_is_may_resume_it_over_a_new_link(site, tmp_path):
    """Also with a certificate that was renewed meanwhile: the name counts."""
    address, options = site
    with Proxy(str(address)) as proxy:
        with at_work(proxy.address, options("alice"), tmp_path) as (alice, future, gate):
            ((peer, _),) = alice._driver.peers()
            renewed = options("alice").get("tls")
            if renewed is not None:
                peer.way._tls = renewed.client_context(), peer.way._tls[1]
            proxy.cut()
            gate.touch()
            worker = future.result(LIMIT)
            assert alice.submit(os.getpid).result(LIMIT) == worker


def test_who_came_stands_in_the_log_at_info(capfd):
    with start_server(workers=1, auth=Users(), log_level="info") as server:
        with FarmExecutor(addresses=[server.address], auth=Users("alice\x1b[2J")) as executor:
            executor.submit(abs, -1).result(LIMIT)
            id = session_of(executor)
    log = capfd.readouterr().err
    assert "is alice?[2J" in log
    assert f"began session {id[:8]}" in log
    assert "\x1b" not in log


def test_the_name_in_a_certificate_stands_in_the_log_at_info(ca, capfd):
    tls = TLS(*ca.sign("server", "localhost", "127.0.0.1"), ca=ca.path)
    with start_server(workers=1, tls=tls, log_level="info") as server:
        options = {"tls": own_certificate(ca, "alice")}
        with FarmExecutor(addresses=[server.address], **options) as executor:
            executor.submit(abs, -1).result(LIMIT)
    assert "commonName=alice" in capfd.readouterr().err


def test_refused_proofs_stand_in_the_log_at_the_default_level(capfd):
    with start_server(workers=1, auth=Users()) as server:
        with pytest.raises(ConnectionFailed, match="mallory is not let in"):
            server_status(server.address, auth=Users("mallory"))
    assert "was refused: mallory is not let in" in capfd.readouterr().err


def test_a_wrong_token_stands_in_the_log_at_the_default_level(capfd):
    with start_server(workers=1) as server:
        with pytest.raises(ConnectionFailed):
            server_status(server.address, auth="a wrong one in words")
    assert "was refused: the client's token is not the server's" in capfd.readouterr().err


def test_a_thousand_refused_proofs_do_not_fill_the_log(capfd):
    with start_server(workers=1, auth=Users()) as server:
        for _ in range(40):
            with pytest.raises(ConnectionFailed):
                server_status(server.address, auth=Users("mallory"))
    assert capfd.readouterr().err.count("was refused") == 10
