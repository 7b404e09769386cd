"""What a service manager hands over and is told."""

from __future__ import annotations

import os
import socket

import pytest

from remote_executor.server import service_manager
from remote_executor.server.service_manager import address_of, inherited_sockets, notify


def test_nobody_is_told_where_there_is_no_service_manager(tmp_path):
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": "vsock:2:1"})
    assert not notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "nobody listens")})


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(tmp_path, abstract):
    name = f"re-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        try:
            manager.bind("\0" + name if abstract else name)
        except OSError:
            pytest.skip("this system has no abstract sockets")
        assert notify("READY=1", {"NOTIFY_SOCKET": "@" + name if abstract else name})
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"},
    ],
)
def test_sockets_for_somebody_else_are_left_alone_and_not_inherited_further(environ):
    assert inherited_sockets(environ) == []
    assert environ == {}


def test_a_socket_that_listens_is_taken(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        fd = os.dup(sock.fileno())
        monkeypatch.setattr(service_manager, "FIRST_FD", fd)
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}

        (taken,) = inherited_sockets(environ)

        with taken:
            assert str(address_of(taken)) == f"127.0.0.1:{sock.getsockname()[1]}"
            assert not os.get_inheritable(taken.fileno())
        assert environ == {}


def test_a_unix_socket_has_its_path_for_an_address(tmp_path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        assert str(address_of(sock)) == f"unix:{tmp_path / 's'}"


@pytest.mark.parametrize("kind", ["pipe", "connected", "datagram"])
def test_what_is_no_socket_that_listens_is_refused_by_its_number(monkeypatch, kind):
    ends = []
    if kind == "pipe":
        fd, other = os.pipe()
    else:
        type = socket.SOCK_STREAM if kind == "connected" else socket.SOCK_DGRAM
        ends = list(socket.socketpair(type=type))
        fd, other = (each.detach() for each in ends)
    monkeypatch.setattr(service_manager, "FIRST_FD", fd)

    with pytest.raises(ValueError, match=f"descriptor {fd} of LISTEN_FDS"):
        inherited_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})

    for each in (fd, other):
        try:
            os.close(each)
        except OSError:
            pass  # the refused socket was closed with its object
