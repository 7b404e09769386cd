"""Servers looked after: start, ping, status, end, tokens; in Python and by the command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures

import pytest

from remote_executor import (
    AuthenticationFailed,
    CannotShip,
    FarmError,
    FarmExecutor,
    NoServerError,
    end_local_servers,
    end_server,
    ping,
    server_status,
    start_local_servers,
    start_server,
)
from remote_executor.net.tokens import renew_token
from tests.support import tasks
from tests.support.faults import Babbler, Proxy, free_port
from tests.support.scale import scaled
from tests.support.waiting import wait_until

from .conftest import ROOT, environment

LIMIT = scaled(20)
OTHER_TOKEN = b"another secret of at least 32 bytes"


def command(*args, **settings):
    """Run ``remote-executor`` with arguments; return exit code, output, errors."""
    done = subprocess.run(
        [sys.executable, "-m", "remote_executor", *args],
        capture_output=True,
        text=True,
        timeout=scaled(20),
        env=environment(**settings.pop("env", {})),
        check=False,
        **settings,
    )
    return done.returncode, done.stdout, done.stderr


def refused(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), scaled(5)).close()
    except ConnectionRefusedError:
        return True
    return False


# -- ping


def test_ping_a_server(addresses):
    """D1: also given as a pair."""
    host, _, port = addresses[0].rpartition(":")

    assert ping(addresses[0]) is True
    assert ping((host, int(port)), timeout=scaled(3)) is True


def test_ping_nobody():
    """D2: a refused port; False within the time, and no exception."""
    start = time.monotonic()

    assert ping(f"127.0.0.1:{free_port()}", timeout=0.4) is False
    assert 0.3 < time.monotonic() - start < scaled(2)


@pytest.mark.parametrize("words", [b"", b"SSH-2.0-x\r\n", b"\x00" * 100, b"HTTP/1.1 400\r\n\r\n"])
def test_ping_some_other_program(words):
    """D2, D4: silent or talkative: False, in time."""
    with Babbler(words) as babbler:
        start = time.monotonic()

        assert ping(babbler.address, timeout=0.4) is False
        assert time.monotonic() - start < scaled(2)


def test_ping_tries_again(serve):
    """D3: a server that comes up within the time is found."""
    port = free_port()
    found = []
    thread = threading.Thread(
        target=lambda: found.append(ping(f"127.0.0.1:{port}", timeout=scaled(20)))
    )
    thread.start()
    serve(port=port)
    thread.join(LIMIT)

    assert found == [True]


def test_ping_a_bad_address():
    """K67."""
    with pytest.raises(ValueError, match="address"):
        ping("host:port")


def test_ping_while_all_workers_are_busy(server, tmp_path):
    """D9: control never waits behind tasks, nor behind megabytes."""
    with FarmExecutor(addresses=[server.address]) as executor:
        executor.wait_for_workers(2, LIMIT)
        marks = [tmp_path / "a", tmp_path / "b"]
        running = [executor.submit(tasks.spin, mark) for mark in marks]
        wait_until(lambda: all(mark.exists() for mark in marks), 20)
        waiting = [executor.submit(len, bytes(1 << 20)) for _ in range(20)]

        start = time.monotonic()
        assert ping(server.address, timeout=scaled(3))
        assert server_status(server.address)
        assert time.monotonic() - start < scaled(3)
        assert executor.kill(running[0])
        assert executor.kill(running[1])
        assert [future.result(LIMIT) for future in waiting] == [1 << 20] * 20


# -- start and end


def test_servers_in_the_background():
    """K61, D8: several in one process, each on a port of its own, with handle and address."""
    with (
        start_server(workers=1) as one,
        start_server(workers=2) as two,
        FarmExecutor(addresses=[one.address, two.address]) as executor,
    ):
        assert one.address != two.address
        assert ping(one.address)
        assert ping(two.address)
        executor.wait_for_workers(3, LIMIT)
        assert list(executor.map(tasks.square, range(20))) == [i * i for i in range(20)]
        assert len(set(executor.broadcast(tasks.pid))) == 3
    assert refused(str(one.address))
    assert refused(str(two.address))


def test_stop_a_background_server():
    """D8: stop() and join(); twice is no error."""
    handle = start_server(workers=1)
    handle.stop()
    handle.join()
    handle.stop()

    assert refused(str(handle.address))


def test_port_is_free_again_at_once(tmp_path):
    """D5: also after connections were open."""
    port = free_port()
    for _ in range(3):
        with start_server(port=port, workers=1) as handle:
            assert str(handle.address).endswith(f":{port}")
            with FarmExecutor(addresses=[handle.address]) as executor:
                assert executor.submit(pow, 2, 3).result(LIMIT) == 8


def test_port_in_use(addresses):
    """D5: an error that names the address, at once."""
    port = int(addresses[0].rpartition(":")[2])

    with pytest.raises(OSError, match=r"(?i)in use"):
        start_server(port=port)
    code, _, err = command("serve", "--port", str(port))
    assert code != 0
    assert "in use" in err.lower()
    assert "Traceback" not in err


def test_end_server(serve, tmp_path):
    """D5, D6: new clients are refused; running and queued tasks of the old ones are finished."""
    server = serve(workers=1)
    release = tmp_path / "release"
    with FarmExecutor(addresses=[server.address]) as executor:
        running = executor.submit(tasks.hold, tmp_path / "started", release, "done")
        waiting = [executor.submit(tasks.same, i) for i in range(20)]
        wait_until((tmp_path / "started").exists, 20)

        end_server(server.address)

        wait_until(lambda: refused(server.address) or not ping(server.address, timeout=0.2))
        with FarmExecutor(addresses=[server.address], connect_timeout=0.3) as late:
            assert isinstance(late.submit(abs, 1).exception(LIMIT), FarmError)
        release.touch()
        assert running.result(LIMIT) == "done"
        assert [future.result(LIMIT) for future in waiting] == [*range(20)]
    assert server.process.wait(scaled(10)) == 0
    assert refused(server.address)


def test_cut_while_the_server_ends(serve, tmp_path):
    """D6, K28: a client of old can come back, and nobody else comes in meanwhile."""
    server = serve(workers=1)
    ran, release = tmp_path / "ran", tmp_path / "release"
    with Proxy(server.address) as proxy, FarmExecutor(addresses=[proxy.address]) as executor:
        running = executor.submit(tasks.hold, tmp_path / "started", release, "done")
        waiting = [executor.submit(tasks.record, ran, i) for i in range(20)]
        wait_until((tmp_path / "started").exists, 20)
        end_server(server.address)
        wait_until(lambda: refused(server.address))

        proxy.refuse()
        wait_until(lambda: not refused(server.address))
        assert server_status(server.address)["ending"]
        began = time.monotonic()
        assert not ping(server.address, timeout=scaled(10))
        assert time.monotonic() - began < scaled(2)
        with FarmExecutor(addresses=[server.address], connect_timeout=0.3) as late:
            assert "the server is ending" in str(late.submit(abs, 1).exception(LIMIT))
        proxy.accept()

        wait_until(lambda: refused(server.address), scaled(10))
        release.touch()
        assert running.result(LIMIT) == "done"
        assert [future.result(LIMIT) for future in waiting] == [*range(20)]
    assert sorted(map(int, ran.read_text().split())) == [*range(20)]
    assert server.process.wait(scaled(10)) == 0


def test_a_successor_takes_the_port_while_the_server_ends(serve, tmp_path):
    """D5, K59: what was under way for a client that is cut then is done by the new one."""
    old = serve(workers=1)
    with Proxy(old.address) as proxy, FarmExecutor(addresses=[proxy.address]) as executor:
        future = executor.submit(tasks.hold, tmp_path / "started", tmp_path / "release", "done")
        wait_until((tmp_path / "started").exists, 20)
        end_server(old.address)
        wait_until(lambda: refused(old.address))
        new = serve(workers=1, port=old.port)
        (tmp_path / "started").unlink()

        proxy.cut()

        wait_until((tmp_path / "started").exists, 20)
        (tmp_path / "release").touch()
        assert future.result(LIMIT) == "done"
        old.kill()
        assert ping(new.address)


def test_end_an_idle_server(serve):
    """D5, D8: in the foreground it returns."""
    server = serve()
    end_server(server.address)

    assert server.process.wait(scaled(10)) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_end_by_a_signal(serve, number):
    """As a service manager or a terminal does it: quietly."""
    server = serve()
    server.process.send_signal(number)
    server.process.wait(scaled(10))

    assert "Traceback" not in server.log.read_text()


def test_server_status(addresses):
    """What it is, and what it does for whom."""
    with FarmExecutor(addresses=[addresses[0]]) as executor:
        executor.submit(abs, 1).result(LIMIT)
        status = server_status(addresses[0])

        assert status["slots"] == 1
        assert status["pid"] > 0
        assert any(session["connected"] for session in status["sessions"])
        json.dumps(status)


def test_status_of_nobody():
    with pytest.raises(FarmError, match=r"127\.0\.0\.1"):
        server_status(f"127.0.0.1:{free_port()}", timeout=0.3)


# -- local servers by the number


def test_local_servers():
    """S1: several in the background, one call, one with statement."""
    with start_local_servers(2) as servers:
        addresses = [str(address) for address in servers.addresses]
        assert len(set(addresses)) == 2
        with FarmExecutor(addresses=addresses) as executor:
            assert executor.submit(pow, 2, 3).result(LIMIT) == 8
    assert all(map(refused, addresses))


def test_local_servers_all_or_none(addresses):
    """S2: if one cannot start, those that were started are ended."""
    port = free_port()
    with pytest.raises(OSError, match=r"(?i)in use"):
        start_local_servers([f"127.0.0.1:{port}", addresses[0]])

    wait_until(lambda: refused(f"127.0.0.1:{port}"))


def test_end_local_servers(serve):
    """S3: one that cannot be reached is a warning, the others are ended."""
    server = serve()
    nobody = f"127.0.0.1:{free_port()}"

    with pytest.warns(RuntimeWarning, match=nobody):
        end_local_servers([nobody, server.address])

    assert server.process.wait(scaled(10)) == 0


# -- before there is a server


def test_no_server_yet(serve, caplog):
    """K29, K30, S10: submit works, tasks wait, and run once the server is up."""
    port = free_port()
    with FarmExecutor(addresses=[f"127.0.0.1:{port}"]) as executor:
        future = executor.submit(pow, 2, 3)
        with pytest.raises(futures.TimeoutError):
            future.result(0.2)
        serve(port=port)

        assert future.result(LIMIT) == 8


def test_warning_about_a_server_that_does_not_come(caplog):
    """K29: after 3 s, once, with address and reason."""
    address = f"127.0.0.1:{free_port()}"
    with caplog.at_level("WARNING", "remote_executor"):
        with FarmExecutor(addresses=[address]) as executor:
            future = executor.submit(pow, 2, 3)
            wait_until(lambda: address in caplog.text, 6)
            assert "refused" in caplog.text.lower()
            assert future.cancel()


def test_connect_timeout():
    """K29: an end to the waiting, of the user's choice."""
    address = f"127.0.0.1:{free_port()}"
    start = time.monotonic()
    with FarmExecutor(addresses=[address], connect_timeout=0.4) as executor:
        error = executor.submit(pow, 2, 3).exception(LIMIT)

    assert isinstance(error, FarmError)
    assert isinstance(error, (futures.BrokenExecutor, ConnectionError))
    assert address in str(error)
    assert 0.3 < time.monotonic() - start < scaled(3)


@pytest.mark.parametrize("end", ["kill", "end"])
def test_connect_timeout_counts_from_the_loss_of_the_last_server(serve, end):
    """However long there was one before."""
    server = serve()
    options = {"connect_timeout": 0.5, "session_grace": 0.5}
    with FarmExecutor(addresses=[server.address], **options) as executor:
        started = time.monotonic()
        assert executor.submit(pow, 2, 3).result(LIMIT) == 8
        wait_until(lambda: time.monotonic() > started + 0.6, 5, "the time of the start to be over")
        lost = time.monotonic()  # soon
        if end == "kill":
            server.process.kill()
        else:
            server.process.terminate()
        server.process.wait(scaled(10))
        error = executor.submit(pow, 2, 3).exception(LIMIT)

        assert isinstance(error, NoServerError)
        assert server.address in str(error)
        assert time.monotonic() - lost > 0.4


def test_a_server_that_is_back_in_time_is_no_error(serve):
    server = serve()
    options = {"connect_timeout": scaled(10), "session_grace": 0.3}
    with FarmExecutor(addresses=[server.address], **options) as executor:
        assert executor.submit(pow, 2, 3).result(LIMIT) == 8
        server.process.kill()
        server.process.wait(scaled(10))
        future = executor.submit(pow, 2, 4)
        server.start()

        assert future.result(LIMIT) == 16


def test_shutdown_before_there_is_a_server():
    """What never began is given up when nobody can wait for it: cancelled, not hung."""
    executor = FarmExecutor(addresses=[f"127.0.0.1:{free_port()}"])
    future = executor.submit(pow, 2, 3)
    executor.shutdown(cancel_futures=True)

    assert future.cancelled()


def test_a_host_that_does_not_exist():
    """A wrong name fails at once: waiting does not mend it."""
    with FarmExecutor(addresses=["no-such-host.invalid:1"]) as executor:
        error = executor.submit(pow, 2, 3).exception(LIMIT)

    assert isinstance(error, FarmError)
    assert "no-such-host.invalid" in str(error)


def test_one_server_of_two_is_away(addresses):
    """The other one does the work."""
    nobody = f"127.0.0.1:{free_port()}"
    with FarmExecutor(addresses=[nobody, addresses[0]]) as executor:
        assert list(executor.map(tasks.square, range(20))) == [i * i for i in range(20)]
        executor.shutdown(cancel_futures=True)


# -- several clients


def test_several_clients(server):
    """K62: at a time, each with workers of its own, and a fair share of the slots."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(FarmExecutor(addresses=[server.address])) for _ in range(3)]
        found = [client.map(tasks.square, range(100)) for client in clients]
        assert [list(each) for each in found] == [[i * i for i in range(100)]] * 3
        pids = [set(client.broadcast(tasks.pid)) for client in clients]
        assert not pids[0] & pids[1]
        assert not pids[1] & pids[2]


def test_clients_share_the_slots(serve, tmp_path):
    """K62: one with thousands of tasks does not keep another one waiting."""
    server = serve(workers=1)
    path = tmp_path / "ran"
    with (
        FarmExecutor(addresses=[server.address]) as big,
        FarmExecutor(addresses=[server.address]) as small,
    ):
        small.submit(abs, 1).result(LIMIT)
        many = [big.submit(tasks.record_and_nap, path, "big", 0.005) for _ in range(200)]
        wait_until(path.exists, 20)
        few = [small.submit(tasks.record_and_nap, path, "small", 0.005) for _ in range(5)]
        futures.wait(few, LIMIT)
        before = path.read_text().split().count("big")
        for future in many:
            future.cancel()

    assert before < 150


def test_client_that_goes_away_is_no_error(serve, run_script):
    """K64: an end of file between tasks is not worth a word in the log."""
    server = serve()
    for end in ("", "import os; os._exit(0)"):
        code, out, err = run_script(
            f"""
from remote_executor import FarmExecutor
executor = FarmExecutor(addresses=[{server.address!r}], session_grace=0.3)
print(executor.submit(pow, 2, 3).result(20), flush=True)
{end}
"""
        )
        assert (code, out, err) == (0, "8\n", "")
    end_server(server.address)
    server.process.wait(scaled(15))

    log = server.log.read_text().lower()
    assert "traceback" not in log
    assert "error" not in log


# -- tokens


@pytest.fixture(scope="module")
def guarded(_leak_baseline):
    """Return the address of a server with a secret of its own."""
    with start_server(workers=1, auth=OTHER_TOKEN) as handle:
        yield str(handle.address)


def test_right_token(guarded):
    """A1, A3: given to the executor, it wins over the user's file."""
    with FarmExecutor(addresses=[guarded], auth=OTHER_TOKEN) as executor:
        assert executor.submit(pow, 2, 3).result(LIMIT) == 8
    assert ping(guarded, auth=OTHER_TOKEN)


def test_token_as_text():
    """Wherever a token is taken, text will do."""
    with start_server(workers=1, auth="a secret in words") as handle:
        assert ping(handle.address, auth="a secret in words")
        assert ping(handle.address, auth=b"a secret in words")
        with FarmExecutor(addresses=[handle.address], auth="a secret in words") as executor:
            assert executor.submit(pow, 2, 3).result(LIMIT) == 8


@pytest.mark.parametrize(
    "token", [None, "a wrong one in words", "x" * 1000], ids=["none", "wrong", "long"]
)
def test_wrong_token(guarded, token):
    """A2, A4, A7: an AuthenticationFailed in bounded time, no retry for ever, in clear words."""
    start = time.monotonic()
    with FarmExecutor(addresses=[guarded], auth=token) as executor:
        error = executor.submit(pow, 2, 3).exception(LIMIT)
    took = time.monotonic() - start

    chain = [error, error.__cause__]
    assert any(isinstance(each, AuthenticationFailed) for each in chain)
    assert "token" in str(error)
    assert took < scaled(3)
    with FarmExecutor(addresses=[guarded], auth=OTHER_TOKEN) as executor:
        assert executor.submit(pow, 2, 3).result(LIMIT) == 8


def test_admin_needs_the_token_too(guarded):
    """A11: no ping, no status, no end for a stranger."""
    assert ping(guarded, timeout=0.5) is False
    with pytest.raises(AuthenticationFailed):
        server_status(guarded)
    with pytest.raises(AuthenticationFailed):
        end_server(guarded)
    assert ping(guarded, auth=OTHER_TOKEN)


def test_token_file(tmp_path):
    """A2: made at first use with mode 0600, the same for client and server."""
    path = tmp_path / "remote_executor" / "token"
    env = {"REMOTE_EXECUTOR_TOKEN_FILE": "", "XDG_CONFIG_HOME": str(tmp_path)}
    code, out, err = command("token", "show", env=env)

    assert (code, err) == (0, "")
    assert len(out.strip()) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert command("token", "show", env=env) == (0, out, "")
    assert command("token", "path", env=env) == (0, f"{path}\n", "")


@pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
def test_token_file_that_others_can_read(tmp_path):
    """It is refused: it is no secret."""
    path = tmp_path / "token"
    path.write_text("x" * 64)
    path.chmod(0o644)
    code, _, err = command("token", "show", env={"REMOTE_EXECUTOR_TOKEN_FILE": str(path)})

    assert code == 1
    assert str(path) in err
    assert "Traceback" not in err


def test_a_token_file_that_is_not_there_is_an_error_not_a_new_token(tmp_path):
    """Of a path with a slip nobody would know why the two ends do not know each other."""
    missing = str(tmp_path / "tokne")
    env = {"REMOTE_EXECUTOR_TOKEN_FILE": missing}
    for line in (
        ["token", "show"],
        ["serve", "--port", "0"],
        ["ping", "127.0.0.1:1"],
        ["status", "127.0.0.1:1"],
    ):
        code, out, err = command(*line, env=env)
        assert code == 1
        if line[0] in ("token", "serve"):
            assert f"no token file {missing}" in err
        assert "Traceback" not in out + err
        assert not os.path.exists(missing)


def test_token_file_at_once_from_many_processes(tmp_path):
    """All see the same secret, whoever was first."""
    env = environment(REMOTE_EXECUTOR_TOKEN_FILE="", XDG_CONFIG_HOME=str(tmp_path))
    line = [sys.executable, "-m", "remote_executor", "token", "show"]
    running = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=env) for _ in range(6)]
    found = {each.communicate(timeout=scaled(20))[0] for each in running}

    assert len(found) == 1
    assert len(found.pop().strip()) >= 32


def test_a_token_is_changed_while_farms_are_in_use(tmp_path, monkeypatch):
    """A server that starts afterwards takes both, the one before and the new one."""
    path = tmp_path / "token"
    env = {"REMOTE_EXECUTOR_TOKEN_FILE": str(path)}
    monkeypatch.setenv("REMOTE_EXECUTOR_TOKEN_FILE", str(path))
    secrets = []
    for _ in range(3):
        code, out, err = command("token", "new", env=env)
        assert (code, err) == (0, "")
        assert str(path) in out
        secrets.append(path.read_bytes().split()[0])
    oldest, before, new = secrets

    with start_server(workers=1) as handle:
        assert ping(handle.address)  # by the file, which has both
        with FarmExecutor(addresses=[handle.address], auth=before) as executor:
            assert executor.submit(pow, 2, 3).result(LIMIT) == 8
        assert ping(handle.address, auth=new)
        assert ping(handle.address, timeout=0.5, auth=oldest) is False
    with start_server(workers=1, auth=[new, oldest]) as handle:
        assert ping(handle.address, auth=oldest)
        assert ping(handle.address, auth=new)
        assert ping(handle.address, timeout=0.5, auth=before) is False


def test_settings_are_those_of_the_start(tmp_path, monkeypatch):
    """A9: what changes afterwards does not touch a server that runs."""
    path = tmp_path / "token"
    monkeypatch.setenv("REMOTE_EXECUTOR_TOKEN_FILE", str(path))
    renew_token()
    with start_server(workers=1) as handle:
        secret = path.read_bytes().strip()
        path.unlink()
        monkeypatch.setenv("REMOTE_EXECUTOR_TOKEN_FILE", str(tmp_path / "other"))

        assert ping(handle.address, timeout=0.5) is False
        with FarmExecutor(addresses=[handle.address], auth=secret) as executor:
            assert executor.submit(pow, 2, 3).result(LIMIT) == 8


def test_secret_never_travels(addresses, token_file):
    """A1: challenge and response; the token is not among the bytes of a conversation."""
    from tests.support.faults import Proxy

    secret = token_file.read_bytes().strip()
    with Proxy(addresses[0]) as proxy:
        with FarmExecutor(addresses=[proxy.address]) as executor:
            assert executor.submit(pow, 2, 3).result(LIMIT) == 8
        assert secret not in bytes(proxy.sent[0])
        assert secret not in bytes(proxy.received[0])


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_public_address_is_refused(host):
    """A14: away from loopback the stream must be confidential, or --insecure says so aloud."""
    with pytest.raises(ValueError, match="insecure"):
        start_server(host, 0, workers=1, tls=False)
    code, _, err = command("serve", "--host", host, "--port", "0", "--no-tls")
    assert code == 1
    assert "--insecure" in err
    assert "Traceback" not in err


def test_public_address_on_request():
    """A14."""
    with start_server("0.0.0.0", 0, workers=1, insecure=True) as handle:
        port = str(handle.address).rpartition(":")[2]
        assert ping(f"127.0.0.1:{port}")


def test_errors_name_the_address(guarded):
    """A10: whoever proves himself knows to whom."""
    with FarmExecutor(addresses=[guarded], auth="a wrong one in words") as executor:
        assert guarded in str(executor.submit(pow, 2, 3).exception(LIMIT))


# -- other kinds of address


def test_unix_socket(tmp_path, serve):
    """A path in place of host and port, only its owner may use it."""
    path = tmp_path / "s"
    line = [sys.executable, "-m", "remote_executor", "serve", "--unix", str(path), "--workers", "1"]
    with subprocess.Popen(line, env=environment(), start_new_session=True) as process:
        try:
            assert ping(f"unix:{path}", timeout=scaled(20))
            assert path.stat().st_mode & 0o077 == 0
            with FarmExecutor(addresses=f"unix:{path}") as executor:
                assert executor.submit(pow, 2, 3).result(LIMIT) == 8
        finally:
            process.terminate()
            process.wait(scaled(10))
    assert not path.exists()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ipv6():
    """K67: with brackets."""
    try:
        handle = start_server("::1", 0, workers=1)
    except OSError as error:
        pytest.skip(f"this machine has no ::1: {error}")
    with handle:
        assert str(handle.address).startswith("[::1]:")
        with FarmExecutor(addresses=[str(handle.address)]) as executor:
            assert executor.submit(pow, 2, 3).result(LIMIT) == 8


def test_addresses_in_every_form(addresses):
    """K67: one text, several in a text, pairs, what a handle says."""
    host, _, port = addresses[0].rpartition(":")
    for form in (
        addresses[0],
        [addresses[0]],
        (host, int(port)),
        [(host, int(port))],
        ",".join(addresses),
    ):
        with FarmExecutor(addresses=form) as executor:
            assert executor.submit(pow, 2, 3).result(LIMIT) == 8


# -- the command line


def test_command_ping_status_end(serve):
    """D1, D5: the same by the shell; exit codes say what was found."""
    server = serve()

    assert command("ping", server.address)[0] == 0
    code, out, _ = command("status", server.address)
    assert code == 0
    assert json.loads(out)["slots"] == 2
    assert command("end", server.address)[0] == 0
    assert server.process.wait(scaled(10)) == 0
    code, out, err = command("ping", server.address, "--timeout", "0.3")
    assert (code, out) == (1, "")
    assert "refused" in err
    code, _, err = command("status", server.address)
    assert code == 1
    assert server.address in err
    assert "Traceback" not in err


def test_command_ping_says_why_a_server_will_not_have_us(server, tmp_path):
    other = tmp_path / "token"
    other.write_bytes(OTHER_TOKEN)
    other.chmod(0o600)
    code, out, err = command("ping", server.address, env={"REMOTE_EXECUTOR_TOKEN_FILE": str(other)})

    assert (code, out) == (1, "")
    assert "token" in err


def test_command_serve_says_what_to_do_about_a_port_in_use(server):
    code, _, err = command("serve", "--port", str(server.port))

    assert code == 1
    assert server.address in err
    assert "port 0" in err


def test_the_folder_that_a_server_is_started_in_is_not_imported_from(serve, tmp_path):
    """``python -m`` puts it first."""
    (tmp_path / "of_the_server.py").write_text("X = 1\n")
    server = serve()
    with FarmExecutor(addresses=[server.address]) as executor:
        error = executor.submit(__import__, "of_the_server").exception(LIMIT)

    assert isinstance(error, ModuleNotFoundError)


@pytest.mark.parametrize(
    "args", [[], ["no-such-command"], ["serve", "--port", "x"], ["serve", "--workers", "0"]]
)
def test_command_used_wrongly(args):
    code, _, err = command(*args)

    assert code == 2
    assert err
    assert "Traceback" not in err


def test_command_help_and_version():
    for args in (["--help"], ["serve", "--help"], ["--version"]):
        code, out, err = command(*args)
        assert (code, err) == (0, "")
        assert out


def test_command_runs_anywhere(tmp_path):
    """From any directory, and with preloaded modules."""
    port = free_port()
    line = [sys.executable, "-m", "remote_executor", "serve", "--port", str(port)]
    with subprocess.Popen(
        [*line, "--workers", "1", "--preload", "json,decimal"],
        env=environment(),
        cwd=tmp_path,
        start_new_session=True,
    ) as process:
        try:
            assert ping(f"127.0.0.1:{port}", timeout=scaled(20))
            with FarmExecutor(addresses=[f"127.0.0.1:{port}"]) as executor:
                loaded = executor.submit(lambda: sorted(__import__("sys").modules)).result(LIMIT)
        finally:
            process.terminate()
            process.wait(scaled(10))
    assert {"json", "decimal"} <= set(loaded)
    assert ROOT.is_dir()


# -- other Pythons


def test_other_python_at_the_server(serve, tmp_path):
    """K68: data passes between Python versions, and code as source or not at all."""
    from tests.support.pythons import find_pythons
    from tests.support.tools import missing

    mine = "{}.{}".format(*sys.version_info)
    others = [path for version, path in find_pythons().items() if version != mine]
    if not others:
        missing(f"another CPython than {mine}", "3.10 to 3.15, in PATH or by pyenv")
    import cloudpickle
    import tblib

    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    for package in (cloudpickle, tblib):
        folder = os.path.dirname(package.__file__)
        (borrowed / os.path.basename(folder)).symlink_to(folder)
    env = environment()
    env["PYTHONPATH"] = f"{ROOT}{os.pathsep}{borrowed}"
    server = serve(workers=1, python=others[-1], env=env)
    with FarmExecutor(addresses=[server.address]) as executor:
        assert executor.submit(pow, 2, 100).result(LIMIT) == 2**100
        assert executor.submit(sorted, {"b": [1], "a": [2]}).result(LIMIT) == ["a", "b"]
        assert executor.submit(lambda: 5).result(LIMIT) == 5
        error = executor.submit(eval("lambda: 5")).exception(LIMIT)
        assert isinstance(error, CannotShip)
        assert mine in str(error)
        assert executor.submit(pow, 2, 3).result(LIMIT) == 8
