"""Servers as a service manager runs them: signals, drains, sockets that it made, exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent import futures
from pathlib import Path

import pytest

from remote_executor import FarmExecutor, WorkerDied, drain_server, ping, server_status
from tests.support.faults import free_port
from tests.support.house import ROOT
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(30)
LINUX = sys.platform == "linux"


class Service:
    """A server that the command line runs, at a port of its own."""

    def __init__(self, tmp_path, *options, port=None, **kwargs):
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log = tmp_path / f"{self.port}-{time.monotonic_ns()}.err"
        command = [sys.executable, "-m", "remote_executor", "serve", "--port", str(self.port)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **kwargs.pop("env", {})}
        with self.log.open("wb") as err:
            self.process = subprocess.Popen(
                [*command, "--workers", "2", "--log-level", "info", *options],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=err,
                start_new_session=True,
                **kwargs,
            )
        assert b"listening" in self.process.stdout.readline(), self.log.read_text()

    def said(self):
        return self.log.read_text()

    def kill_group(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(LIMIT)
        self.process.stdout.close()


@pytest.fixture
def service(tmp_path):
    made = []

    def make(*options, **kwargs):
        made.append(Service(tmp_path, *options, **kwargs))
        return made[-1]

    yield make
    for each in made:
        each.kill_group()


def wait_for_file(path, name):
    path.joinpath(f"{name} begun {os.getpid()}").touch()
    while not path.joinpath("go").exists():
        time.sleep(0.01)
    return name


def begun(path):
    return sorted(each.name.split(" ")[0] for each in path.glob("* begun *"))


def descendants(pid):
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == pid:
                    found += [int(name), *descendants(int(name))]
    return found


# --------------------------------------------------------------------------- draining


def drained_by(how, server):
    if how == "command":
        command = [sys.executable, "-m", "remote_executor", "drain", server.address, "--wait"]
        return subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
        )
    if how == "signal":
        server.process.send_signal(signal.SIGUSR1)
    else:
        drain_server(server.address)
    return None


@pytest.mark.parametrize("how", ["command", "signal", "call"])
def test_a_server_that_drains_finishes_what_has_begun_and_gives_back_the_rest(
    service, tmp_path, how
):
    one = service()
    with FarmExecutor(addresses=[one.address]) as ex:
        once = ex.options(retries=0)  # none of them may count as lost
        tasks = [once.submit(wait_for_file, tmp_path, f"t{number}") for number in range(12)]
        wait_until(lambda: len(begun(tmp_path)) == 2, LIMIT)
        before = begun(tmp_path)

        command = drained_by(how, one)
        wait_until(lambda: ex.status().servers[0].state == "draining", LIMIT)
        two = service()
        ex.add_server(two.address)
        wait_until(lambda: len(begun(tmp_path)) == 4, LIMIT)
        assert one.process.poll() is None  # it has yet to finish two
        (tmp_path / "go").touch()

        assert [each.result(LIMIT) for each in tasks] == [f"t{number}" for number in range(12)]
        assert one.process.wait(LIMIT) == 0
        if command is not None:
            out, _ = command.communicate(timeout=LIMIT)
            assert command.returncode == 0
            assert b"has ended" in out
    names = [each.name.split(" ")[0] for each in tmp_path.glob("* begun *")]
    assert len(names) == len(set(names)) == 12  # each once
    assert set(before) <= set(names)


def test_tasks_that_are_sent_while_a_server_drains_run_elsewhere_each_once(service, tmp_path):
    one, two = service(), service()
    marks = tmp_path / "marks"
    marks.mkdir()
    with FarmExecutor(addresses=[one.address, two.address]) as ex:
        once = ex.options(retries=0)
        ex.wait_for_workers(4, LIMIT)
        tasks = []
        for number in range(600):
            tasks.append(once.submit(mark, marks, number))
            if number == 200:
                drain_server(one.address)
        assert [each.result(LIMIT) for each in tasks] == list(range(600))
        assert one.process.wait(LIMIT) == 0
    assert len(list(marks.iterdir())) == 600


def mark(path, number):
    with open(path / str(number), "x"):  # it fails if it runs a second time
        pass
    return number


def test_a_single_caller_notices_nothing_of_a_drain(service):
    one, two = service(), service()
    with FarmExecutor(addresses=[one.address, two.address]) as ex:
        once = ex.options(retries=0)
        ex.wait_for_workers(4, LIMIT)
        for number in range(300):
            if number == 100:
                drain_server(one.address)
            assert once.submit(abs, -number).result(LIMIT) == number
        assert one.process.wait(LIMIT) == 0


def test_a_drain_has_an_end(service, tmp_path):
    one = service()
    with FarmExecutor(addresses=[one.address], connect_timeout=LIMIT) as ex:
        ex.options(retries=0).submit(wait_for_file, tmp_path, "long")
        wait_until(lambda: begun(tmp_path), LIMIT)

        assert drain_server(one.address, 0.3, wait=True)

        assert one.process.wait(LIMIT) == 0
        ex.shutdown(wait=False, cancel_futures=True)


def test_a_server_that_drains_takes_nobody_new_and_says_so(service, tmp_path):
    one = service()
    with FarmExecutor(addresses=[one.address]) as ex:
        task = ex.submit(wait_for_file, tmp_path, "long")
        wait_until(lambda: begun(tmp_path), LIMIT)
        one.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: not ping(one.address, 0.1), LIMIT)
        (tmp_path / "go").touch()
        assert task.result(LIMIT) == "long"


def test_a_service_that_is_started_again_is_used_again(service, tmp_path):
    """A rolling restart of the only server: the tasks wait for the new one."""
    one = service()
    with FarmExecutor(addresses=[one.address]) as ex:
        assert ex.submit(abs, -1).result(LIMIT) == 1
        drain_server(one.address, wait=True)
        waits = ex.submit(abs, -2)
        service(port=one.port)
        assert waits.result(LIMIT) == 2


# ---------------------------------------------------------------------------- signals


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_whole_control_group_that_is_ended_costs_no_task(service, tmp_path, number):
    """systemd and scancel send the signal to all processes: no worker may die of it first."""
    one, two = service(), service()
    with FarmExecutor(addresses=[one.address, two.address]) as ex:
        tasks = [ex.submit(wait_for_file, tmp_path, f"t{n}") for n in range(4)]
        wait_until(lambda: len(begun(tmp_path)) == 4, LIMIT)
        family = descendants(one.process.pid)
        assert len(family) >= 3

        for pid in [*family, one.process.pid]:  # the server last, as it happens
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

        assert one.process.wait(LIMIT) == 0
        (tmp_path / "go").touch()
        assert [each.result(LIMIT) for each in tasks] == ["t0", "t1", "t2", "t3"]
    wait_until(lambda: not any(map(is_alive, family)), LIMIT)


def name_of(pid):
    return Path(f"/proc/{pid}/comm").read_text().strip()


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_a_whole_control_group_that_is_told_to_drain_finishes_what_it_has_begun(service, tmp_path):
    """Slurm's --signal reaches all processes of a step."""
    one = service()
    with FarmExecutor(addresses=[one.address]) as ex:
        tasks = [ex.options(retries=0).submit(wait_for_file, tmp_path, f"t{n}") for n in range(2)]
        wait_until(lambda: len(begun(tmp_path)) == 2, LIMIT)
        for pid in [*descendants(one.process.pid), one.process.pid]:
            os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: ex.status().servers[0].state == "draining", LIMIT)
        (tmp_path / "go").touch()
        assert [each.result(LIMIT) for each in tasks] == ["t0", "t1"]
        assert one.process.wait(LIMIT) == 0


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def end_at_once(how):
    """Start something and end it right away, before it has done anything at all."""
    if how == "fork":
        pid = os.fork()
        if not pid:
            time.sleep(600)
            os._exit(0)
    else:
        pid = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid
    os.kill(pid, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("how", ["fork", "program"])
def test_what_a_task_starts_ends_at_sigterm_as_ever(how):
    """A signal that comes between a fork and the first line of Python is not lost either."""
    with FarmExecutor(1) as ex:
        tasks = [ex.options(timeout=LIMIT).submit(end_at_once, how) for _ in range(100)]
        assert {each.result(LIMIT) for each in tasks} == {-signal.SIGTERM}


def test_a_worker_alone_that_gets_sigterm_dies_of_it():
    with FarmExecutor(1) as ex:
        with pytest.raises(WorkerDied, match=r"SIGTERM|signal 15"):
            ex.submit(os.kill, ex.submit(os.getpid).result(LIMIT), signal.SIGTERM).result(LIMIT)
        assert ex.submit(abs, -1).result(LIMIT) == 1


def test_the_log_is_opened_anew_at_sighup_and_the_server_goes_on(service, tmp_path):
    log = tmp_path / "server.log"
    one = service("--log-file", str(log))
    with FarmExecutor(addresses=[one.address]) as ex:
        assert ex.submit(abs, -1).result(LIMIT) == 1
        log.rename(tmp_path / "server.log.1")
        one.process.send_signal(signal.SIGHUP)
        wait_until(lambda: log.exists() and "opened anew" in log.read_text(), LIMIT)
        assert ex.submit(abs, -2).result(LIMIT) == 2
    assert "began session" in (tmp_path / "server.log.1").read_text()
    wait_until(lambda: "ends: goodbye" in log.read_text(), LIMIT)


def test_sighup_does_not_end_a_server_without_a_terminal(service):
    one = service(stdin=subprocess.DEVNULL)
    one.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "SIGHUP" in one.said(), LIMIT)
    assert ping(one.address, LIMIT)


def test_a_log_that_cannot_be_opened_anew_ends_nothing(service, tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    one = service("--log-file", str(folder / "server.log"))
    moved = folder.rename(tmp_path / "moved") / "server.log"
    one.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "cannot be opened" in moved.read_text(), LIMIT)
    assert ping(one.address, LIMIT)
    assert server_status(one.address)["slots"] == 2


def test_a_closed_terminal_ends_a_server(tmp_path):
    pty = pytest.importorskip("pty")
    port = free_port()
    pid, terminal = pty.fork()
    if not pid:
        os.environ["PYTHONPATH"] = str(ROOT)
        command = ["-m", "remote_executor", "serve", "--port", str(port), "--workers", "1"]
        os.execv(sys.executable, [sys.executable, *command])
    try:
        assert ping(f"127.0.0.1:{port}", LIMIT)
    finally:
        os.close(terminal)  # the kernel sends SIGHUP
    deadline = time.monotonic() + LIMIT
    while os.waitpid(pid, os.WNOHANG)[0] != pid:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ------------------------------------------------------------------------- exit codes


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_a_server_whose_zygote_dies_ends_by_a_failure(service):
    one = service()
    wait_until(lambda: "farm-zygote" in map(name_of, descendants(one.process.pid)), LIMIT)
    zygotes = [pid for pid in descendants(one.process.pid) if name_of(pid) == "farm-zygote"]
    os.kill(zygotes[0], signal.SIGKILL)

    assert one.process.wait(LIMIT) == 3
    assert "the process that makes workers has died" in one.said()


def test_a_server_that_cannot_start_says_so_by_another_code(service):
    one = service()
    command = [sys.executable, "-m", "remote_executor", "serve", "--port", str(one.port)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=LIMIT
    )
    assert done.returncode == 1
    assert b"cannot listen" in done.stderr


# ----------------------------------------------------------------------------- systemd


def test_the_service_manager_hears_when_it_is_ready_and_when_it_ends(service, tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(LIMIT)
        one = service(env={"NOTIFY_SOCKET": path})
        assert manager.recv(100) == b"READY=1"
        one.process.send_signal(signal.SIGTERM)
        assert manager.recv(100) == b"STOPPING=1"
        assert one.process.wait(LIMIT) == 0


ACTIVATED = """
import os, socket, sys
sock = socket.socket(fileno=int(sys.argv[1]))
os.dup2(sock.fileno(), 3, inheritable=True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = "1"
os.execv(sys.executable, [sys.executable, "-m", "remote_executor", "serve", "--workers", "1"])
"""


def test_a_socket_that_the_service_manager_made_is_used(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        sock.set_inheritable(True)
        with subprocess.Popen(
            [sys.executable, "-c", ACTIVATED, str(sock.fileno())],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            close_fds=False,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout.readline() == f"listening on {address}\n".encode()
            with FarmExecutor(addresses=[address]) as ex:
                done, _ = futures.wait([ex.submit(os.environ.get, "LISTEN_FDS")], LIMIT)
                assert done.pop().result() is None  # tasks do not take it for theirs
            process.terminate()
            assert process.wait(LIMIT) == 0
        # The next one finds those waiting that have come meanwhile.
        with socket.create_connection(sock.getsockname(), LIMIT):
            pass


# --------------------------------------------------------------------------- processes


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_ps_shows_what_each_process_is(service):
    one = service()
    with FarmExecutor(addresses=[one.address]) as ex:
        ex.submit(abs, 1).result(LIMIT)
        names = [name_of(pid) for pid in descendants(one.process.pid)]
    assert name_of(one.process.pid) == "farm-server"
    assert {"farm-zygote", "farm-worker-0"} <= set(names)


def crash_in_here():
    import ctypes

    ctypes.string_at(0)


def test_a_crash_says_where_in_python_it_was():
    with FarmExecutor(1) as ex, pytest.raises(WorkerDied) as caught:
        ex.submit(crash_in_here).result(LIMIT)

    assert "crash_in_here" in str(caught.value)
    assert "test_services.py" in str(caught.value)


# ------------------------------------------------------------------------------ memory

MB = 1024 * 1024
kept = []


def fill(size, seconds=0.0):
    kept.append(b"x" * size)
    time.sleep(seconds)
    return os.getpid()


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_a_worker_that_takes_more_memory_than_it_may_is_ended_and_it_says_so(service):
    one = service("--memory-per-worker", "150M")
    with FarmExecutor(addresses=[one.address]) as ex:
        small = ex.submit(fill, 20 * MB, 1.0)
        large = ex.submit(fill, 400 * MB, LIMIT)

        with pytest.raises(WorkerDied, match=r"it had \d+ MiB of memory.*may have 150 MiB"):
            large.result(LIMIT)
        assert small.result(LIMIT)
        assert ex.submit(abs, -1).result(LIMIT) == 1


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_a_worker_that_has_grown_is_replaced_after_its_task():
    with FarmExecutor(1, max_memory_per_child=150 * MB) as ex:
        first = ex.submit(fill, 10 * MB, 0.6).result(LIMIT)
        assert ex.submit(os.getpid).result(LIMIT) == first
        assert ex.submit(fill, 300 * MB, 0.6).result(LIMIT) == first  # it finishes that
        wait_until(lambda: ex.submit(os.getpid).result(LIMIT) != first, LIMIT)


@pytest.mark.parametrize("size", [0, -1, "4G", 1.5])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises((TypeError, ValueError), match="max_memory_per_child"):
        FarmExecutor(1, max_memory_per_child=size)
