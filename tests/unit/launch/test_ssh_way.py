"""What a way over SSH hands on when no server can be reached: always an error that has a class."""

from __future__ import annotations

import errno
import socket
from types import SimpleNamespace

import pytest

from remote_executor.client.peer import Peer, PeerState
from remote_executor.client.troubles import Step, trouble_of
from remote_executor.core.connection import Lasts
from remote_executor.errors import LaunchFailed
from remote_executor.launch.hosts import SSHHost
from remote_executor.launch.ssh import Plan, SSHWay, Together, _as_seen_from_here
from remote_executor.net.loop import Loop
from tests.support.scale import scaled

NODE = SimpleNamespace(name="node1", port=22, family=0, connect_seconds=1, bind_address=None)
"""Settings of paramiko's client, as far as they matter for a connect."""


class Client:
    """A way to make SSH connections that fails as it is told."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.asked = 0

    def connect(self, host, progress, address, command):
        self.asked += 1
        progress.enter("authentication")
        error = self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]
        if isinstance(error, str):
            raise progress.failure(error)
        raise error


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


@pytest.mark.parametrize(
    ("number", "name", "seen"),
    [
        ("fe80::1%eth0", "fe80::1%wlan0", "fe80::1%wlan0"),
        ("fe80::1", "fe80::1%3", "fe80::1%3"),
        ("fe80::1", "node1", "fe80::1"),
        ("192.0.2.1", "fe80::1%3", "192.0.2.1"),
        ("2001:db8::1", "fe80::1%3", "2001:db8::1"),
    ],
)
def test_a_link_local_number_has_the_zone_of_whoever_connects(number, name, seen):
    assert _as_seen_from_here(number, name) == seen


def outcome_of(loop, *errors):
    way = SSHWay(SSHHost("node1"), Client(*errors), Plan(), Together())
    found = []
    way.open(loop, found.append)
    while not found:
        loop.run_once(1.0)
    way.close()
    return found[0]


@pytest.mark.parametrize(
    ("error", "lasts"),
    [
        (KeyError("getpwuid(): uid not found: 4711"), Lasts.YES),
        (OSError(errno.EAFNOSUPPORT, "Address family not supported"), Lasts.YES),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found"), Lasts.YES),
        (AttributeError("a defect"), Lasts.YES),
        (OSError(errno.EMFILE, "Too many open files"), Lasts.NO),
        (ConnectionResetError(errno.ECONNRESET, "reset"), Lasts.NO),
        (MemoryError(), Lasts.NO),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, BaseException) else each.name,
)
def test_whatever_is_raised_is_a_failed_launch_that_lasts_or_may_pass(loop, error, lasts):
    """What was no LaunchFailed was tried again without end, and its cause was lost."""
    found = outcome_of(loop, error)

    assert isinstance(found, LaunchFailed)
    assert found.stage == "authentication"
    assert found.__cause__ is error
    assert str(error) in str(found)
    assert trouble_of(found, Step.LAUNCH, "node1").lasts is lasts


def test_an_exit_in_the_thread_that_dials_is_handed_on(loop):
    assert isinstance(outcome_of(loop, SystemExit(3)), SystemExit)


class Owner:
    def __init__(self):
        self.refused = []

    def peer_up(self, peer, fields):
        pass

    def peer_lost(self, peer, reason):
        pass

    def peer_failed(self, peer):
        pass

    def peer_refused(self, peer, error):
        self.refused.append(error)

    def peer_frames(self, peer, frames):
        pass


def peer_of(loop, *errors):
    way = SSHWay(SSHHost("node1"), Client(*errors), Plan(), Together())
    owner = Owner()
    return Peer(way, loop, owner, {}, 60.0), owner


def test_an_agent_that_is_locked_for_a_while_is_asked_again_once_a_server_has_served(loop):
    peer, owner = peer_of(loop, "the agent is locked", "the agent is locked")
    peer.core.served = peer.core.has_session = True  # as after a blip
    peer.connect()
    peer.core.grace_ends = loop.now + scaled(1000)
    while peer.way._client.asked < 3:
        loop.run_once(1.0)

    assert peer.state in (PeerState.WAITING, PeerState.CONNECTING)
    assert not owner.refused
    peer.close()
    peer.way.close()


def test_an_agent_that_is_locked_fails_a_first_launch_at_once(loop):
    peer, owner = peer_of(loop, "the agent is locked")
    peer.connect()
    while not owner.refused:
        loop.run_once(1.0)

    assert "the agent is locked" in str(owner.refused[0])
    assert peer.way._client.asked == 1
    peer.way.close()


def test_a_name_service_that_is_away_at_a_launch_is_asked_again(monkeypatch, loop):
    paramiko_client = pytest.importorskip("remote_executor.launch.paramiko_client")
    from remote_executor.launch.stages import Progress

    def away(*_, **__):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", away)
    progress = Progress(SSHHost("node1"))
    with pytest.raises(LaunchFailed, match="cannot be looked up") as caught:
        paramiko_client._connect(NODE, progress)

    assert trouble_of(caught.value, Step.LAUNCH, "node1").lasts is Lasts.NO


def test_a_name_that_nobody_knows_fails_a_launch(monkeypatch):
    paramiko_client = pytest.importorskip("remote_executor.launch.paramiko_client")
    from remote_executor.launch.stages import Progress

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(LaunchFailed, match="there is no host") as caught:
        paramiko_client._connect(NODE, Progress(SSHHost("node1")))

    assert trouble_of(caught.value, Step.LAUNCH, "node1").lasts is Lasts.YES
