"""How the program ssh is called."""

from __future__ import annotations

import pytest

from remote_executor.launch.hosts import SSHHost
from remote_executor.launch.openssh_client import ssh_command


def words(host, host_keys="strict", config=None):
    return ssh_command("/usr/bin/ssh", host, config, host_keys, "here:there")


def options(host, **settings):
    found = words(host, **settings)
    return {found[n + 1] for n, word in enumerate(found) if word == "-o"}


def test_a_plain_host():
    """PARITY S4: a list of arguments, which no shell of ours sees."""
    found = words(SSHHost("node1"))

    assert found[0] == "/usr/bin/ssh"
    assert found[-4:] == ["-L", "here:there", "--", "node1"]
    assert not {"-l", "-p", "-i", "-J", "-F"} & set(found)


def test_nothing_is_asked_and_a_dead_connection_is_found_out():
    """PARITY S4."""
    assert {"BatchMode=yes", "ServerAliveInterval=10", "ServerAliveCountMax=2"} <= options(
        SSHHost("node1")
    )


def test_neither_agent_nor_ticket_goes_along():
    """Whatever the user's configuration says: nothing there needs them."""
    assert "ForwardAgent=no" in options(SSHHost("node1"))
    assert "-k" in words(SSHHost("node1"))


@pytest.mark.parametrize(("host_keys", "value"), [("strict", "yes"), ("accept-new", "accept-new")])
def test_host_keys(host_keys, value):
    assert f"StrictHostKeyChecking={value}" in options(SSHHost("node1"), host_keys=host_keys)


def test_all_that_can_be_said_of_a_host():
    host = SSHHost("node1", "me", 2222, key_filename=("/k 1", "/k2"), proxy="a,b")
    found = " ".join(words(host, config="/c"))

    for part in ("-F /c", "-l me", "-p 2222", "-i /k 1", "-i /k2", "-J a,b"):
        assert f" {part} " in found


def test_no_jump_whatever_the_configuration_says():
    assert "ProxyJump=none" in options(SSHHost("node1", proxy="none"))
