"""Real servers, real executors and real scripts for the integration tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from remote_executor import FarmExecutor, ping
from tests.support import tasks
from tests.support.faults import end_process, free_port
from tests.support.scale import scaled
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


def environment(**extra):
    """Return the environment for a process of ours, whatever directory it runs in."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **extra}


class ServerProcess:
    """
    A server in a process of its own, started by the command line.

    Attributes:
        address: Where it listens.
        log: The file that holds what it wrote.
    """

    def __init__(
        self, folder, *options, workers=2, port=None, python=sys.executable, env=None, wrapped=None
    ):
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log = Path(folder) / f"server-{self.port}.log"
        how = ["-m", "remote_executor"] if wrapped is None else ["-c", wrapped]
        self._command = [python, *how, "serve", "--host", "127.0.0.1"]
        self._command += ["--port", str(self.port), *options]
        if workers is not None:
            self._command += ["--workers", str(workers)]
        self._env = env or environment()
        self._folder = folder
        self.start()

    def start(self):
        """Start it, or start it again on the same port, and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                cwd=self._folder,
                start_new_session=True,  # as a service: no terminal's ^C reaches it
            )
        wait_until(self._answers, 20, "a server that answers")

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended: {self.log.read_text()}")
        return ping(self.address, timeout=scaled(1))

    @property
    def pid(self):
        """Its process id."""
        return self.process.pid

    def kill(self):
        """End it as a power cut does."""
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(scaled(10))

    def stop(self):
        """End it as an administrator does."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(scaled(10))
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError("the server does not end at SIGTERM") from None

    def clean(self):
        """Make sure that it is gone."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(scaled(5))
            except subprocess.TimeoutExpired:
                self.kill()


@pytest.fixture
def serve(tmp_path):
    """Return a function that starts a server process, which ends with the test."""
    started = []

    def start(*options, **settings):
        server = ServerProcess(tmp_path, *options, **settings)
        started.append(server)
        return server

    start.folder, start.started = tmp_path, started
    yield start
    for server in started:
        server.clean()


@pytest.fixture
def server(serve):
    """Return a server process with two workers."""
    return serve()


@pytest.fixture(scope="session")
def _two_servers(_leak_baseline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("servers")
    servers = [ServerProcess(folder, workers=1) for _ in range(2)]
    yield servers
    for server in servers:
        server.clean()


@pytest.fixture(scope="session")
def addresses(_two_servers):
    """Return the addresses of two servers with one worker each, shared by all tests."""
    return [server.address for server in _two_servers]


def warmed_up(executor):
    """Return the executor once both of its workers have run a task."""
    executor.wait_for_workers(2, scaled(20))
    assert sorted(executor.map(abs, range(-3, 1))) == [0, 1, 2, 3]
    assert len(set(executor.broadcast(tasks.pid))) == 2  # else one starts under a test, as a leak
    executor._driver.answering.put(int, abs)  # so would its thread
    return executor


@pytest.fixture(scope="module")
def embedded(_leak_baseline):
    """Return an executor with two workers on a server of its own, shared by a module."""
    with FarmExecutor(2) as executor:
        yield warmed_up(executor)


@pytest.fixture
def own():
    """Return an executor of the test's own, some of whose workers it may end."""
    with FarmExecutor(2) as executor:
        yield executor


@pytest.fixture(scope="module")
def remote(_leak_baseline, addresses):
    """Return an executor with two workers on two servers, shared by a module."""
    with FarmExecutor(addresses=addresses) as executor:
        yield warmed_up(executor)


@pytest.fixture(scope="module", params=["embedded", "remote"])
def farm(request):
    """Return either of the two."""
    return request.getfixturevalue(request.param)


class Script:
    """
    A Python program of a test, in a process of its own.

    Attributes:
        process: The Popen object.
        folder: Its working directory.
    """

    def __init__(self, folder, source, *, how="file", args=(), env=None, **settings):
        self.folder = Path(folder)
        if how == "-c":
            command = ["-c", source]
        else:
            name = f"script_{len(list(self.folder.glob('script_*')))}"
            (self.folder / f"{name}.py").write_text(source, encoding="utf-8")
            command = [f"{name}.py"] if how == "file" else ["-m", name]
        self.process = subprocess.Popen(
            [sys.executable, *command, *map(str, args)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**(env or {})),
            cwd=self.folder,
            start_new_session=True,
            **settings,
        )

    def finish(self, limit=20.0):
        """Wait for its end; return exit code, output and errors."""
        try:
            out, err = self.process.communicate(timeout=scaled(limit))
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler prints where it stands
            out, err = self._ends()
            raise AssertionError(f"the script hangs\n{out}\n{err}") from None
        return self.process.returncode, out, err

    def _ends(self):
        try:
            return self.process.communicate(timeout=scaled(5))
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.communicate(timeout=scaled(5))


@pytest.fixture
def start_script(tmp_path):
    """Return a function that starts a program; it is ended with the test."""
    started = []

    def start(source, **settings):
        env = {"PYTHONFAULTHANDLER": "1", **settings.pop("env", {})}
        script = Script(tmp_path, source.strip("\n") + "\n", env=env, **settings)
        started.append(script)
        return script

    yield start
    for script in started:
        if script.process.poll() is None:
            end_process(script.process.pid)
        script.process.communicate()


@pytest.fixture
def run_script(start_script):
    """Return a function that runs a program to its end: exit code, output, errors."""

    def run(source, *, limit=20.0, **settings):
        return start_script(source, **settings).finish(limit)

    return run
