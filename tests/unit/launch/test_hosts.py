"""Which hosts are meant (PARITY S6)."""

from __future__ import annotations

import pytest

from remote_executor.errors import AddressError
from remote_executor.launch.hosts import (
    SSHHost,
    parse_host,
    parse_hosts,
    split_jumps,
    why_unfit_for_shell,
)

NOTHING = SSHHost("default")


@pytest.mark.parametrize(
    ("text", "user", "name", "port", "again"),
    [
        ("node1", None, "node1", None, "node1"),
        (" node1 ", None, "node1", None, "node1"),
        ("me@node1", "me", "node1", None, "me@node1"),
        ("me@node1:2222", "me", "node1", 2222, "me@node1:2222"),
        ("node1:2222", None, "node1", 2222, "node1:2222"),
        ("::1", None, "::1", None, "[::1]"),
        ("me@[::1]:22", "me", "::1", 22, "me@[::1]:22"),
        ("[fe80::1]", None, "fe80::1", None, "[fe80::1]"),
        ("fe80::1%eth0", None, "fe80::1%eth0", None, "[fe80::1%eth0]"),
        ("me@corp@node1", "me@corp", "node1", None, "me@corp@node1"),
        ("ssh://node1", None, "node1", None, "node1"),
        ("ssh://me@node1:2222/", "me", "node1", 2222, "me@node1:2222"),
        ("ssh://me@[::1]:22", "me", "::1", 22, "me@[::1]:22"),
    ],
)
def test_hosts_that_can_be_meant(text, user, name, port, again):
    host = parse_host(text)

    assert (host.user, host.name, host.port) == (user, name, port)
    assert str(host) == again
    assert parse_host(again) == host
    assert parse_host(host) is host


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@node1",
        "me@",
        "node1:",
        "node1:ssh",
        "node1:0",
        "node1:65536",
        "node1:1234567890",
        "[::1",
        "[::1]22",
        "-oProxyCommand=x",
        "a b",
        "a,b",
        "a/b",
        "a\nb",
        "-x@node1",
        "a b@node1",
        "ssh://",
        "ssh://a/b",
        "http://node1",
    ],
)
def test_hosts_that_cannot_be_meant(text):
    with pytest.raises(AddressError):
        parse_host(text)


SIGNS = "'\"`$\\;&<>|(){}*?!#~^"


@pytest.mark.parametrize("sign", [*SIGNS, "\n", "\x1b", "\0", " "])
def test_what_a_shell_would_act_upon_is_in_no_name(sign):
    """ssh_config puts names into commands, unquoted: ProxyCommand, Match exec."""
    for given in (f"a{sign}b", f"{sign}b"):
        with pytest.raises(AddressError):
            SSHHost(given)
        with pytest.raises(AddressError):
            SSHHost("node1", proxy=f"jump,x{given}")
        if sign not in "\\$":  # which have their places in users; see below
            with pytest.raises(AddressError):
                SSHHost("node1", user=given)
    assert why_unfit_for_shell(f"a{sign}b", None) is not None


@pytest.mark.parametrize("user", ["me", "DOMAIN\\me", "node1$", "a.b-c_d+e", "jürgen"])
def test_users_that_are_met(user):
    assert SSHHost("node1", user=user).user == user


@pytest.mark.parametrize("user", ["-oX", "a\\", "$HOME", "$(id)", "a$b"])
def test_users_that_a_shell_would_act_upon(user):
    with pytest.raises(AddressError):
        SSHHost("node1", user=user)
    assert why_unfit_for_shell("node1", user) is not None


@pytest.mark.parametrize("proxy", ["-oProxyCommand=x", "a,,b", "me@", "a b", "a;id"])
def test_a_proxy_is_a_list_of_hosts_before_anything_is_started(proxy):
    with pytest.raises(AddressError, match="proxy cannot be"):
        SSHHost("node1", proxy=proxy)
    for fine in ("none", "a", "me@a:22,b", "ssh://me@a:22"):
        assert SSHHost("node1", proxy=fine).proxy == fine


@pytest.mark.parametrize("given", [5, None, b"node1", ("node1", 22)])
def test_a_host_is_text(given):
    with pytest.raises(TypeError):
        parse_host(given)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"name": 5}, TypeError),
        ({"user": 5}, TypeError),
        ({"user": ""}, AddressError),
        ({"setup": "a\nb"}, AddressError),
        ({"port": "22"}, TypeError),
        ({"port": True}, TypeError),
        ({"workers": 0}, AddressError),
        ({"key_filename": ("a", 5)}, TypeError),
        ({"key_filename": ""}, TypeError),
        ({"env": {"A": 5}}, TypeError),
        ({"env": {"A": "\0"}}, TypeError),
    ],
)
def test_fields_that_cannot_be_meant(fields, error):
    with pytest.raises(error):
        SSHHost(**{"name": "node1", **fields})


def test_a_password_may_hold_anything_and_is_not_shown():
    host = SSHHost("node1", password="a\nb")

    assert "a\\nb" not in repr(host)


def test_keys():
    assert SSHHost("a").keys == ()
    assert SSHHost("a", key_filename="k").keys == ("k",)
    assert SSHHost("a", key_filename=("k", "l")).keys == ("k", "l")
    assert SSHHost("a", env={"A": "b"}).env == {"A": "b"}


def test_defaults_are_for_what_a_host_leaves_open():
    defaults = SSHHost("default", user="me", port=22, workers=4)
    one, two = parse_hosts(["you@node1", SSHHost("node2", workers=2)], defaults)

    assert (one.user, one.port, one.workers) == ("you", 22, 4)
    assert (two.user, two.port, two.workers) == ("me", 22, 2)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("node1", TypeError, "list"),
        (b"node1", TypeError, "list"),
        (SSHHost("node1"), TypeError, "list"),
        (5, TypeError, "list"),
        ([], AddressError, "at least one"),
        (["a", "b", "a"], AddressError, "twice"),
    ],
)
def test_lists_that_cannot_be_meant(given, error, words):
    with pytest.raises(error, match=words):
        parse_hosts(given, NOTHING)


def test_one_machine_twice_by_other_logins():
    assert len(parse_hosts(["a", "me@a", "a:2222"], NOTHING)) == 3


def test_jumps():
    assert split_jumps(None) == split_jumps("none") == []
    first, second = split_jumps("me@a:22, ssh://b")
    assert (str(first), str(second)) == ("me@a:22", "b")
    with pytest.raises(AddressError):
        split_jumps("a,,b")
