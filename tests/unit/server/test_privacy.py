"""What a process shows to others of its account, and what of the environment tasks get."""

from __future__ import annotations

import os
import sys

import pytest

from remote_executor.server import privacy
from remote_executor.server.privacy import environment_of_tasks, is_closed, set_closed

linux = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux'")


def in_child(call):
    """Return what a call prints in a child, which is no process of root's."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.write(write, repr(call()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        said = file.read()
    os.waitpid(pid, 0)
    return eval(said)


@linux
def test_a_process_is_closed_and_opened_again():
    def both():
        found = [is_closed()]
        set_closed(False)
        found += [set_closed(True), is_closed(), set_closed(False), is_closed()]
        return found[1:]

    assert in_child(both) == [False, True, True, False]


@linux
@pytest.mark.parametrize("closed", [True, False])
def test_nobody_else_looks_into_a_closed_process(closed):
    def look():
        parent = os.getpid()
        read, write = os.pipe()
        set_closed(closed)
        pid = os.fork()
        if not pid:
            found = []
            for name in ("mem", "environ", "maps"):
                try:
                    with open(f"/proc/{parent}/{name}", "rb"):
                        found.append(True)
                except PermissionError:
                    found.append(False)
            os.write(write, repr(found).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        return eval(os.read(read, 1000))

    assert in_child(look) == [not closed] * 3


@linux
def test_a_closed_process_does_without_the_pagemap():
    """Whether a mapping was written to cannot be told then, so it counts as written to."""
    import mmap

    from remote_executor.payload.writes import unwritten

    fd = os.memfd_create("test")
    os.ftruncate(fd, 8192)

    def look():
        mapping = mmap.mmap(fd, 8192, flags=mmap.MAP_PRIVATE)
        set_closed(True)
        try:
            os.close(os.open("/proc/self/pagemap", os.O_RDONLY))
            open_ = True
        except OSError:
            open_ = False
        return open_, unwritten(mapping), bytes(mapping[:3])

    try:
        assert in_child(look) == (False, False, b"\0\0\0")
    finally:
        os.close(fd)


def test_where_there_is_no_prctl_nothing_is_closed(monkeypatch):
    monkeypatch.setattr(privacy, "LINUX", False)

    assert set_closed(True) is False
    assert is_closed() is False


def test_what_a_server_knows_its_clients_by_is_in_no_environment_of_a_task():
    secret = {
        "KRB5_KTNAME": "/etc/farm.keytab",
        "KRB5_CLIENT_KTNAME": "/etc/farm.keytab",
        "REMOTE_EXECUTOR_TOKEN_FILE": "/etc/farm/token",
        "REMOTE_EXECUTOR_TLS_PASSWORD": "x",
        "REMOTE_EXECUTOR_TLS_KEY": "/etc/farm/key.pem",
        "REMOTE_EXECUTOR_TLS": "on",
        "REMOTE_EXECUTOR_AUTH": "gssapi",
        "REMOTE_EXECUTOR_GSSAPI_USERS": "alice@EXAMPLE.ORG",
        "REMOTE_EXECUTOR_SECRET": "x",
        "Remote_Executor_Token": "x",
        "CREDENTIALS_DIRECTORY": "/run/credentials/farm",
    }
    plain = {"PATH": "/bin", "HOME": "/var/farm", "REMOTE_EXECUTOR_ADDRESSES": "node1:11111"}

    assert environment_of_tasks(secret | plain) == plain
