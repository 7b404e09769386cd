"""Which client makes a connection."""

from __future__ import annotations

import pytest

from remote_executor.errors import LaunchFailed
from remote_executor.launch.auto_client import AutoClient
from remote_executor.launch.clients import TRY_OPENSSH
from remote_executor.launch.hosts import SSHHost


class ByHand:
    """A client that fails for a reason."""

    def __init__(self, name, reason=None):
        self.name, self.reason, self.asked = name, reason, 0

    def connect(self, host, progress, address, command):
        self.asked += 1
        if self.reason is not None:
            raise LaunchFailed(str(host), "host key", self.reason)
        return self.name


@pytest.fixture
def auto(monkeypatch):
    def make(reason=None):
        client = AutoClient.__new__(AutoClient)
        client._paramiko, client._openssh = ByHand("paramiko", reason), ByHand("openssh")
        client._hosts_of_openssh = set()
        return client

    return make


def test_paramiko_is_tried_first(auto):
    client = auto()
    assert client.connect(SSHHost("a"), None, None, None) == "paramiko"
    assert client._openssh.asked == 0


def test_what_it_cannot_do_is_done_by_ssh_from_then_on(auto):
    client = auto(f"a FIDO key; {TRY_OPENSSH}")
    host = SSHHost("a", env={"A": "1"})
    assert [client.connect(host, None, None, None) for _ in range(2)] == ["openssh"] * 2
    assert client._paramiko.asked == 1
    client._paramiko.reason = None
    assert client.connect(SSHHost("b"), None, None, None) == "paramiko"


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (SSHHost("a"), "the password is wrong"),
        (SSHHost("a", password="x"), f"a FIDO key; {TRY_OPENSSH}"),
    ],
    ids=["another reason", "ssh takes no password"],
)
def test_other_failures_are_final(auto, host, reason):
    client = auto(reason)
    with pytest.raises(LaunchFailed, match=reason.split(";")[0]):
        client.connect(host, None, None, None)
    assert client._openssh.asked == 0
