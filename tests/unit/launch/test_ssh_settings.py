"""
What a configuration of SSH means: as ``ssh -G`` says, or refused by name.

Each configuration of the table is read twice. With the program ssh, what comes out must be what ssh
says, paths and tokens filled in. Without it, paramiko's reader must find the same or refuse the
line: never something else.
"""

from __future__ import annotations

import itertools
import os
import pwd
import socket

import pytest

from remote_executor.launch.hosts import SSHHost
from remote_executor.launch.ssh_settings import ask_ssh, make_settings
from tests.support.tools import require

paramiko_client = pytest.importorskip("remote_executor.launch.paramiko_client")

HOME = "/where/one/lives"
COMPARED = (
    "name",
    "port",
    "user",
    "proxy_jump",
    "proxy_command",
    "identities",
    "identities_only",
    "agent",
    "known_name",
    "known_files",
    "family",
)


@pytest.fixture(scope="module")
def ssh():
    return require("ssh", "Debian's package openssh-client")


BLOCKS = [
    "Host *",
    "Host web",
    "Host w*",
    "Host * !db",
    "Host * !web",
    "Host db web",
    "Host WEB",
    'Host "web"',
    "Host=web",
    "Match all",
    "Match host web",
    "Match host=web",
    "Match originalhost web",
    "Match originalhost w?b",
    "Match !host db",
    "Match user nobody",
    "Match localuser root",
    "Match final all",
    "Match canonical",
    "Match host web,db",
    'Match exec "true"',
    'Match exec "false"',
    "Match exec true host web",
]

LINES = [
    "User bob",
    "User bob # me",
    'User "bob"',
    "User=bob",
    "Port 2222",
    "Port = 2222",
    "HostName %h.example.com",
    "HostName 10.1.2.3",
    "HostName fe80::1%%lo",
    "ProxyJump gate",
    "ProxyJump a@gate:22,[fe80::1]:33",
    "ProxyJump none",
    "ProxyCommand nc %h %p",
    "ProxyCommand nc -x %r@%n %h:%p",
    "ProxyCommand none",
    "IdentityFile ~/.ssh/special",
    "IdentityFile %d/.ssh/%h_%r",
    'IdentityFile "~/with blank"',
    "IdentityFile none",
    "IdentitiesOnly yes",
    "IdentityAgent none",
    "IdentityAgent ~/agent",
    "IdentityAgent SSH_AUTH_SOCK",
    "IdentityAgent $OTHER_AGENT",
    "UserKnownHostsFile ~/kh1 ~/kh2",
    "UserKnownHostsFile %d/kh",
    "UserKnownHostsFile ${SOMEWHERE}/kh",
    "UserKnownHostsFile none",
    "GlobalKnownHostsFile /etc/kh",
    "HostKeyAlias other",
    "AddressFamily inet6",
    "ControlMaster auto",
    "ForwardAgent yes",
    "# User nobody",
]

WHOLE = [
    # Which of two lines counts.
    "ProxyCommand nc %h %p\nProxyJump gate\n",
    "ProxyJump gate\nProxyCommand nc %h %p\n",
    "ProxyCommand none\nProxyJump gate\n",
    "ProxyJump none\nProxyCommand nc %h %p\n",
    "Host web\n  ProxyJump gate\nHost *\n  ProxyCommand nc %h %p\n",
    "Host web\n  User a\nHost *\n  User b\n",
    "Host *\n  User b\nHost web\n  User a\n",
    "User a\nUser b\n",
    "IdentityFile ~/a\nIdentityFile ~/b\n",
    "IdentityFile ~/a\nHost web\nIdentityFile ~/b\n",
    "Host web\n  HostName db\nMatch host db\n  User a\nMatch originalhost web\n  Port 7\n",
    "Host web\n  HostName db\nMatch final host db\n  User a\n",
    "Match final all\n  CASignatureAlgorithms ^ssh-rsa\n  User a\n",
    "Host web\r\n  User a\r\n",
    "\tHost\tweb\n\t\tUser\ta\n",
    "Host web # the server\n  User a\n",
    "HostName web.example.com\nHostKeyAlias web\nPort 2222\n",
    'UserKnownHostsFile "~/a b" ~/c\n',
    "UserKnownHostsFile ~/a%%b\n",
    "IdentityFile ~/%u/%L\n",
    "IdentityFile ${SOMEWHERE}/key\n",
    "IdentityFile ~/a%%b\n",
    "NoSuchSetting 1\n",
    "Port zwei\n",
    "Host\n",
    "Match\n",
    "Match nonsense web\n  User a\n",
    "IgnoreUnknown NoSuch*\nNoSuchSetting 1\nUser a\n",
    "CanonicalizeHostname no\nUser a\n",
    "Tag special\nUser a\n",
    "Match host web user bob\n  Port 7\nUser bob\n",
    "User bob\nMatch user bob\n  Port 7\n",
    "ConnectTimeout 7\nBindAddress 127.0.0.1\n",
    "PubkeyAuthentication no\nPasswordAuthentication no\n",
    "",
]

GENERATED = [
    *(f"{block}\n  {line}\n" for block, line in itertools.product(BLOCKS[:12], LINES[::3])),
    *(f"{block}\n  User a\n  Port 7\n" for block in BLOCKS),
    *(f"{line}\n" for line in LINES),
    *(f"Host other\n  User x\nHost web\n  {line}\nHost *\n  Port 99\n" for line in LINES),
    *WHOLE,
]
HOSTS = [SSHHost("web"), SSHHost("web", user="carol"), SSHHost("web", port=443)]


def test_the_table_is_large():
    assert len(GENERATED) >= 150


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.setenv("OTHER_AGENT", "/run/other")
    monkeypatch.setenv("SOMEWHERE", "/some/where")
    return os.environ


def read_without(host, path):
    client = paramiko_client.ParamikoClient("strict", path)
    client._ssh = None
    return client._lookup(host)


def compare(found, wanted):
    """Tell what of the settings is not as ssh says."""
    proxies = found.proxy_jump or "none", found.proxy_command is None
    theirs = wanted.get("proxyjump", ["none"])[0], "proxycommand" not in wanted
    checks = {
        "name": found.name == wanted["hostname"][0],
        "port": found.port == int(wanted["port"][0]),
        "user": found.user == wanted["user"][0],
        "proxies": proxies == theirs,
        "identities": not any("~" in path or "%d" in path for path in found.identities),
        "files": bool(found.known_files) or "none" in wanted["userknownhostsfile"][0],
    }
    return [name for name, holds in checks.items() if not holds]


@pytest.mark.parametrize("chunk", range(4))
def test_settings_are_those_of_ssh_or_refused(chunk, ssh, environment, tmp_path):
    config = tmp_path / "config"
    same = refused = 0
    wrong = []
    for number in range(chunk, len(GENERATED), 4):
        text, host = GENERATED[number], HOSTS[number // 4 % len(HOSTS)]
        config.write_bytes(text.encode())
        try:
            wanted = ask_ssh(ssh, host, str(config))
        except ValueError:
            continue  # ssh refuses it, and so do we
        found = make_settings(host, wanted, os.environ, pwd.getpwuid(os.getuid()).pw_dir)
        wrong += [(each, "with ssh", text) for each in compare(found, wanted)]
        # And without the program: the same, or the line is named.
        try:
            without = read_without(host, str(config))
        except ValueError as error:
            refused += 1
            wrong += [] if "cannot be followed here" in str(error) else [(str(error), text)]
        else:
            same += 1
            for each in COMPARED:
                mine, theirs = getattr(without, each), getattr(found, each)
                if each == "identities" and len(theirs) > 4:
                    continue  # ssh tries more kinds than paramiko knows
                if each == "known_files":
                    mine, theirs = mine[:1], theirs[:1]
                if mine != theirs:
                    wrong.append((each, "without ssh", host, text, mine, theirs))
    assert wrong == []
    assert same > refused > 0


def test_what_ssh_cannot_be_asked(tmp_path):
    with pytest.raises(ValueError, match="exit status 3"):
        ask_ssh(script(tmp_path, "exit 3"), SSHHost("web"), None)
    with pytest.raises(ValueError, match="no good"):
        ask_ssh(script(tmp_path, "echo no good >&2; exit 255"), SSHHost("web"), None)
    with pytest.raises(OSError, match="none"):
        ask_ssh(str(tmp_path / "none"), SSHHost("web"), None)


def script(folder, text):
    path = folder / "ssh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


# -- what is filled in here


def settings(home=HOME, environment=None, **words):
    found = {key: value if isinstance(value, list) else [value] for key, value in words.items()}
    return make_settings(SSHHost("web", user="carol"), found, environment or {}, home)


def test_nothing_is_said():
    found = settings()

    assert (found.name, found.port, found.user) == ("web", 22, found.user)
    kinds = ("ed25519", "ecdsa", "rsa")
    assert found.identities == tuple(f"{HOME}/.ssh/id_{kind}" for kind in kinds)
    assert found.agent == ""
    assert found.known_files[0] == f"{HOME}/.ssh/known_hosts"
    assert found.family is socket.AF_UNSPEC
    assert found.public_keys
    assert found.passwords


def test_tokens_and_variables():
    found = settings(
        hostname="10.0.0.1",
        port="2222",
        user="bob",
        identityfile=["%d/a-%h-%p-%r-%n-%%", "${X}/b"],
        environment={"X": "/x"},
        proxycommand="nc %h %p %n %k",
    )

    assert found.identities == (f"{HOME}/a-10.0.0.1-2222-bob-web-%", "/x/b")
    assert found.proxy_command == "nc 10.0.0.1 2222 web 10.0.0.1"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ({"identityfile": "%q/x"}, "%q"),
        ({"identityfile": "${NOWHERE}/x"}, "NOWHERE"),
        ({"port": "ssh"}, "Port"),
        ({"proxycommand": "nc %"}, "%"),
    ],
)
def test_what_cannot_be_filled_in_is_refused(words, what):
    with pytest.raises(ValueError, match=what):
        settings(**words)


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("/a /b", ("/a", "/b")),
        ("/a b/kh /c", ("/a b/kh", "/c")),
        ('"/a b" /c', ("/a b", "/c")),
        ("none", ()),
    ],
)
def test_known_hosts_files(text, files):
    found = settings(userknownhostsfile=text, globalknownhostsfile="none")

    assert found.known_files == files


@pytest.mark.parametrize(
    ("said", "agent"),
    [("none", ""), ("SSH_AUTH_SOCK", "/s"), ("$OTHER", "/o"), ("~/a", f"{HOME}/a"), ("/b", "/b")],
)
def test_agents(said, agent):
    environment = {"SSH_AUTH_SOCK": "/s", "OTHER": "/o"}

    assert settings(identityagent=said, environment=environment).agent == agent
    assert settings(environment=environment).agent == "/s"
