"""What is taken from paramiko's inside: an agent at a socket of our choice."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.support.tools import require

paramiko_client = pytest.importorskip("remote_executor.launch.paramiko_client")


@pytest.fixture
def agent(tmp_path):
    program = require("ssh-agent", "Debian's package openssh-client")
    path = str(tmp_path / "agent")
    process = subprocess.Popen([program, "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        from tests.support.waiting import wait_until

        wait_until(lambda: os.path.exists(path))
        yield path
    finally:
        process.terminate()
        process.wait()


def test_an_agent_tells_its_keys(agent, tmp_path):
    key = tmp_path / "key"
    keygen = require("ssh-keygen", "Debian's package openssh-client")
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    add = require("ssh-add", "Debian's package openssh-client")
    environment = {**os.environ, "SSH_AUTH_SOCK": agent}
    subprocess.run([add, "-q", str(key)], check=True, env=environment, capture_output=True)

    troubles = []
    found = paramiko_client._Agent(agent, troubles)

    assert [each.get_name() for each in found.get_keys()] == ["ssh-ed25519"]
    assert troubles == []
    found.close()


def test_an_agent_that_is_not_there_is_named(tmp_path):
    troubles = []

    found = paramiko_client._Agent(str(tmp_path / "none"), troubles)

    assert list(found.get_keys()) == []
    assert len(troubles) == 1
    assert str(tmp_path / "none") in troubles[0]


def test_no_agent_is_asked_for():
    troubles = []

    assert list(paramiko_client._Agent("", troubles).get_keys()) == []
    assert troubles == []
