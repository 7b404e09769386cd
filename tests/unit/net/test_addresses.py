"""Addresses: read, shown and read again, with every mistake found before anything is connected."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_executor.errors import AddressError
from remote_executor.net.addresses import DEFAULT_PORT, Address, parse_address, parse_addresses

TCP = [
    ("h:111", "h", 111, "h:111"),
    ("h", "h", DEFAULT_PORT, "h:11111"),
    (" node1.example:1 ", "node1.example", 1, "node1.example:1"),
    ("h.:0", "h.", 0, "h.:0"),
    ("127.0.0.1:65535", "127.0.0.1", 65535, "127.0.0.1:65535"),
    ("[::1]:333", "::1", 333, "[::1]:333"),
    ("[fe80::1%eth0]", "fe80::1%eth0", DEFAULT_PORT, "[fe80::1%eth0]:11111"),
    ("[h]:7", "h", 7, "h:7"),
    ("bücher.example:1", "bücher.example", 1, "bücher.example:1"),
    (("h", 111), "h", 111, "h:111"),
    (["h", 111], "h", 111, "h:111"),
    (("h", "111"), "h", 111, "h:111"),
    (("::1", 1), "::1", 1, "[::1]:1"),
    (("unix", 5), "unix", 5, "[unix]:5"),
]


@pytest.mark.parametrize(("given", "host", "port", "shown"), TCP, ids=lambda value: repr(value))
def test_K67_a_host_and_a_port(given, host, port, shown):
    address = parse_address(given)

    assert (address.kind, address.host, address.port, address.path) == ("tcp", host, port, "")
    assert str(address) == shown
    assert parse_address(shown) == address


@pytest.mark.parametrize("path", ["/run/me/sock", "relative", "/with blank", "/with:colon", "5"])
def test_K67_a_unix_socket(path):
    address = parse_address(f"unix:{path}")

    assert (address.kind, address.host, address.port, address.path) == ("unix", "", 0, path)
    assert str(address) == f"unix:{path}"
    assert parse_address(str(address)) == address


BAD = [
    *("", " ", ":", ":1", "h:", "h:x", "h:-1", "h:+1", "h:1.0", "h:65536", "h:99999999999"),
    *("h:" + "1" * 5000, "h:\u0661", "::1", "::1:80", "h:1:2"),
    *("[::1", "[]:1", "[::1]x", "[::1]:", "[::1]:x", "a b:1", "a/b:1", "user@h:1", "a,b:1"),
    *("a\0b:1", "a\x07b:1", "a..b:1", "x" * 64 + ":1", "unix:", "unix:/a\0b", "http://h:1"),
    *((), ("h",), ("h", 1, 2), ("h", -1), ("h", 65536), ("h", 1.0), ("h", True), ("h", None)),
    *((1, "h"), (None, 1), (b"h", 1), ("", 1), ("[::1]", 1), ("h", ""), ("a,b", 1)),
    *(None, 5, 1.5, b"h:1", {"h": 1}, object),
]


@pytest.mark.parametrize("given", BAD, ids=repr)
def test_K67_a_mistake_is_a_value_error_before_any_connect(given):
    with pytest.raises(AddressError) as caught:
        parse_address(given)

    assert isinstance(caught.value, ValueError)
    assert caught.value.address == (given if isinstance(given, str) else repr(given))


def test_an_ipv6_number_without_brackets_is_told_how_to_write_it():
    with pytest.raises(AddressError, match=r"write IPv6 as '\[fe80::1\]:port'"):
        parse_address("fe80::1")


@given(st.one_of(st.text(max_size=40), st.text("[]:.,/@ux1h-é\0", max_size=12)))
def test_any_text_is_an_address_or_an_address_error(text):
    try:
        address = parse_address(text)
    except AddressError:
        return

    assert parse_address(str(address)) == address


@given(st.tuples(st.text(min_size=1, max_size=12), st.integers(-1, 65536)))
def test_any_pair_is_an_address_or_an_address_error(pair):
    try:
        address = parse_address(pair)
    except AddressError:
        return

    assert (address.host, address.port) == pair
    assert parse_address(str(address)) == address


def test_addresses_are_values():
    one, other = parse_address("h:1"), parse_address(("h", 1))

    assert one == other
    assert hash(one) == hash(other)
    assert one != parse_address("h:2")
    assert one != "h:1"
    assert parse_address(one) is one
    assert pickle.loads(pickle.dumps(one)) == copy.copy(one) == one
    assert repr(one) == "<Address h:1>"


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("LocalHost", True),
        ("[::1]", True),
        ("unix:/x", True),
        ("127.example.com", False),
        ("0.0.0.0", False),
        ("[::]", False),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
        ("h", False),
    ],
)
def test_A14_it_is_known_whether_others_can_reach_it(text, inside):
    """In doubt they can: a server asks for more then."""
    assert parse_address(text).is_loopback is inside


@pytest.mark.parametrize("text", ["a:1,b:2", "a:1 b:2", " a:1 ,\tb:2,\n", "a:1,,b:2"])
def test_several_addresses(text):
    assert list(map(str, parse_addresses(text))) == ["a:1", "b:2"]


def test_no_addresses():
    assert parse_addresses(" ,, ") == []


def test_K67_one_bad_address_of_several_is_an_error():
    with pytest.raises(AddressError, match="'b:x'"):
        parse_addresses("a:1,b:x")


def test_an_address_can_be_made_of_its_parts():
    assert Address("tcp", "h", 1) == parse_address("h:1")
