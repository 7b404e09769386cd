"""How the program ssh is called."""

from __future__ import annotations

import os
import stat

import pytest

from remote_executor.launch.hosts import SSHHost
from remote_executor.launch.openssh_client import (
    MAX_PATH,
    PLACES,
    OpenSSHClient,
    options_of,
    socket_folder,
    ssh_command,
)
from remote_executor.launch.stages import Progress
from tests.support.tools import require


def words(host, host_keys="strict", config=None, known=()):
    return ssh_command("/usr/bin/ssh", host, config, host_keys, {"there": "here"}, known)


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


def test_what_a_configuration_may_say_does_no_harm():
    """It would take away our forwarding, our command, or our end of the connection."""
    assert "ClearAllForwardings=no" in options(SSHHost("node1"))
    newer = {"ForkAfterAuthentication=no", "SessionType=default", "StdinNull=no"}
    assert newer <= options(SSHHost("node1"), known={each.split("=")[0].lower() for each in newer})
    assert not newer & options(SSHHost("node1")), "an older ssh refuses what it does not know"


def test_an_ssh_says_which_options_it_knows(tmp_path):
    known = options_of(require("ssh", "Debian's package openssh-client"))
    assert {"forwardagent", "clearallforwardings"} <= known
    old = tmp_path / "ssh"
    old.write_text("#!/bin/sh\nexit 255\n")
    old.chmod(0o755)
    assert options_of(str(old)) == options_of(str(tmp_path / "none")) == frozenset()


def test_a_socket_is_where_its_path_is_short_enough_and_one_may_write(tmp_path):
    long = tmp_path / ("x" * MAX_PATH)
    long.mkdir()
    short = tmp_path / "s"
    short.mkdir()
    runtime = {"XDG_RUNTIME_DIR": str(short)}
    made = [
        socket_folder(str(short), {}),
        socket_folder(str(long), {}),
        socket_folder(None, runtime),
        socket_folder(str(tmp_path / "none"), runtime),
    ]
    parents = [os.path.dirname(each) for each in made]
    for each in made:
        assert stat.S_IMODE(os.stat(each).st_mode) == 0o700
        os.rmdir(each)
    fits = len(os.fsencode(short)) < MAX_PATH - 30
    assert parents[2:] == ([str(short)] * 2 if fits else [PLACES[0]] * 2)
    assert parents[1] == PLACES[0]


def test_without_any_place_for_a_socket(tmp_path, monkeypatch):
    monkeypatch.setattr("remote_executor.launch.openssh_client.PLACES", ("/proc",))
    with pytest.raises(OSError, match=r"/proc|none"):
        socket_folder(str(tmp_path / "none"), {})
    monkeypatch.setattr("remote_executor.launch.openssh_client.PLACES", ())
    with pytest.raises(OSError, match="too long"):
        socket_folder("/" + "x" * 200, {})


def test_a_login_that_nobody_wants_any_more_or_that_cannot_begin_leaves_no_folder(
    tmp_path, monkeypatch
):
    require("ssh", "Debian's package openssh-client")
    made = tmp_path / "s"
    made.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(made))
    monkeypatch.setattr("remote_executor.launch.openssh_client.MAX_PATH", 1000)
    config = tmp_path / "config"
    config.touch()
    client = OpenSSHClient("strict", str(config))
    progress = Progress(SSHHost("node1"))
    progress.cancel()
    with pytest.raises(ConnectionAbortedError):
        client.connect(SSHHost("node1"), progress, None, None)
    monkeypatch.setattr(client, "_program", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        client.connect(SSHHost("node1"), Progress(SSHHost("node1")), None, None)
    assert not list(made.iterdir())


def test_no_jump_whatever_the_configuration_says():
    assert "ProxyJump=none" in options(SSHHost("node1", proxy="none"))
