"""Servers in processes of their own: how they begin, and that they end."""

from __future__ import annotations

import gc
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest

from remote_executor.errors import AddressError, ConnectionFailed
from remote_executor.net.addresses import parse_address
from remote_executor.net.tokens import load_token
from remote_executor.server.serve import serve, start_server
from tests.support import tasks
from tests.support.hand import remote
from tests.support.house import ROOT
from tests.support.scale import scaled
from tests.support.waiting import wait_until


def answers(address):
    try:
        with remote(address, load_token(), attach=False) as admin:
            return admin.admin("ping") == {"ok": True}
    except (OSError, EOFError):
        return False


def test_a_unix_socket_is_for_its_owner_and_goes_with_the_server(tmp_path):
    path = tmp_path / "socket"
    with start_server(address=f"unix:{path}", workers=1) as server:
        assert str(server.address) == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with remote(server.address, load_token()) as client:
            assert client.run(tasks.add, 1, 2) == 3
            client.goodbye()
    assert not path.exists()


def test_a_socket_that_a_dead_server_left_is_replaced(tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with start_server(address=f"unix:{path}", workers=1) as server:
        assert answers(server.address)


def test_a_server_that_ends_leaves_its_path_to_the_next(tmp_path):
    """D5: at once, although it still has a client."""
    path = tmp_path / "socket"
    with start_server(address=f"unix:{path}", workers=1) as old:
        with remote(old.address, load_token()) as client:
            with remote(old.address, load_token(), attach=False) as admin:
                assert admin.admin("end")["ok"]
                assert admin.admin("ping") == {"error": "ending"}
            wait_until(lambda: not path.exists())
            with start_server(address=f"unix:{path}", workers=1) as new:
                assert client.run(tasks.add, 1, 2) == 3
                client.goodbye()
                assert old.join(scaled(10))
                assert answers(new.address)
    assert not path.exists()


def test_a_socket_that_a_living_server_uses_is_not(tmp_path):
    path = tmp_path / "socket"
    with start_server(address=f"unix:{path}", workers=1) as server:
        with pytest.raises(ConnectionFailed, match=f"listen on unix:{path}: .* in use"):
            start_server(address=f"unix:{path}", workers=1)
        assert answers(server.address)


def test_a_server_ends_with_the_process_that_started_it():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from remote_executor.server.serve import start_server\n"
        "server = start_server(workers=1)\n"
        "print(server.address, server.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(ROOT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        address, _ = process.stdout.readline().decode().split()
        assert answers(parse_address(address))
        process.kill()
        process.wait()
    wait_until(lambda: not answers(parse_address(address)))


def test_a_server_that_nobody_stopped_ends_in_silence_at_the_exit():
    """Not so in a forked child: there the server is its parent's."""
    code = (
        "import atexit, os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from remote_executor import ping, start_server\n"
        "server = start_server(workers=1)\n"
        "if os.fork() == 0:\n"
        "    atexit._run_exitfuncs()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "assert ping(server.address)\n"
        "print(server.address)\n"
    )
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(ROOT)],
        capture_output=True,
        text=True,
        timeout=scaled(20),
    )
    assert process.stderr == ""
    assert not answers(parse_address(process.stdout.strip()))


def test_a_server_does_not_end_because_nobody_keeps_its_handle():
    address = start_server(workers=1).address
    gc.collect()
    assert answers(address)
    with remote(address, load_token(), attach=False) as admin:
        pid = admin.admin("status")["pid"]
    from remote_executor.server import serve as module

    (handle,) = (each for each in module._running if each.pid == pid)
    handle.stop()


def test_stop_twice_and_join():
    server = start_server(workers=1)
    assert "running" in repr(server)
    assert not server.join(0.01)
    server.stop()
    server.stop()
    assert server.join()
    assert "stopped" in repr(server)
    assert not answers(server.address)


def test_a_server_that_does_not_stop_is_killed():
    server = start_server(workers=1)
    os.kill(server.pid, signal.SIGSTOP)
    start = time.monotonic()
    server.stop(timeout=0.2)
    assert time.monotonic() - start < scaled(4)


def test_in_the_foreground_it_returns_when_the_server_has_ended(tmp_path):
    address = parse_address(f"unix:{tmp_path / 'socket'}")
    handles = []
    thread = threading.Thread(
        target=lambda: handles.append(start_server(address=address, workers=1, background=False))
    )
    thread.start()
    wait_until(lambda: answers(address))
    with remote(address, load_token(), attach=False) as admin:
        admin.admin("end")
    thread.join(scaled(10))
    assert "stopped" in repr(handles[0])


def test_what_cannot_be_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(ValueError, match="insecure"):
        start_server("0.0.0.0", tls=False)
    with pytest.raises(ValueError, match="workers"):
        start_server(workers=0)
    with pytest.raises(AddressError):
        start_server(port=70000)
    with pytest.raises(ValueError, match="insecure"):
        serve("0.0.0.0", tls=False)
    with pytest.raises(ValueError, match="workers"):
        serve(workers=0)
    with pytest.raises(ConnectionFailed, match="did not start"):
        start_server(address=f"unix:{tmp_path}/no/such/folder/socket")


def test_a_module_that_hangs_while_it_is_preloaded_does_not_keep_the_server(tmp_path, monkeypatch):
    (tmp_path / "hangs_at_import.py").write_text("import time; time.sleep(60)")
    monkeypatch.syspath_prepend(str(tmp_path))
    server = start_server(workers=1, preload=["hangs_at_import"])
    assert answers(server.address)
    start = time.monotonic()
    server.stop(timeout=10)
    assert time.monotonic() - start < scaled(6)


def test_end_by_a_signal_says_goodbye():
    server = start_server(workers=1)
    with remote(server.address, load_token()) as client:
        client.run(tasks.add, 1, 1)
        os.kill(server.pid, signal.SIGTERM)
        client.eof()
        assert client.link.state.value == "closed"
    assert server.join(scaled(5))
