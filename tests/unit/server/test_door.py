"""Where clients come in: what a server takes, and above all what it does not delete."""

from __future__ import annotations

import os
import socket

import pytest

from remote_executor.net.addresses import Address
from remote_executor.server.door import Door


def door_at(path):
    return Door(Address("unix", path=str(path)))


def leave_a_socket(path):
    """Do what a server does that is killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
        dead.listen()


def test_the_socket_of_a_dead_server_is_replaced(tmp_path):
    path = tmp_path / "socket"
    leave_a_socket(path)
    door = door_at(path)
    door.open()

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    door.close()
    door.close()
    assert not os.path.lexists(path)


@pytest.mark.parametrize("kind", ["file", "empty file", "pipe", "folder", "link", "dead link"])
def test_what_is_no_socket_is_never_deleted(tmp_path, kind):
    path, other = tmp_path / "precious", tmp_path / "other"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif "link" in kind:
        if kind == "link":
            leave_a_socket(other)
        path.symlink_to(other)
    else:
        path.write_bytes(b"" if kind == "empty file" else b"years of work")
    before = os.lstat(path)

    with pytest.raises(OSError, match=f"listen on unix:{path}: .* name another path"):
        door_at(path).open()

    assert os.lstat(path) == before
    if kind == "file":
        assert path.read_bytes() == b"years of work"


def test_a_server_that_lives_keeps_its_socket(tmp_path):
    path = tmp_path / "socket"
    door = door_at(path)
    door.open()
    with pytest.raises(OSError, match="another program listens there"):
        door_at(path).open()
    assert path.exists()
    door.close()


@pytest.mark.parametrize("now", ["a file", "another socket", "nothing"])
def test_at_its_end_a_server_deletes_its_own_socket_only(tmp_path, now):
    path = tmp_path / "socket"
    door = door_at(path)
    door.open()
    path.rename(tmp_path / "aside")  # so that its inode is not given away
    if now == "a file":
        path.write_bytes(b"years of work")
    elif now == "another socket":
        leave_a_socket(path)
    door.close()

    assert os.path.lexists(path) == (now != "nothing")
