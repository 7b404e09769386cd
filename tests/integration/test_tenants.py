"""Several users at one server: what a task of one must not find out about the server and others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from remote_executor import FarmExecutor, ping, start_server
from remote_executor.net.tokens import load_token
from tests.support import tenants
from tests.support.certificates import Authority
from tests.support.faults import end_process, free_port
from tests.support.scale import scaled
from tests.support.tools import missing
from tests.support.waiting import wait_until

from .conftest import environment

LIMIT = scaled(30)
HALVES = ("words that nobody ", "else should ever read")
SECRET = "".join(HALVES)
NOBODY = 65534

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")


@pytest.fixture
def serve_as():
    """Return a function that starts a server: of nobody's, or of ours with ``own=True``."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    token = folder / "token"
    token.write_bytes(load_token())
    token.chmod(0o600)
    started = []

    def start(*options, own=False, tls=None, **env):
        address = f"127.0.0.1:{free_port()}"
        line = [sys.executable, "-m", "remote_executor", "serve", "--workers", "2", *options]
        line += ["--port", address.partition(":")[2]]
        who = {}
        if os.geteuid() == 0 and not own:  # for root nothing is closed
            for path in (folder, token):
                os.chown(path, NOBODY, NOBODY)
            who = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            try:
                subprocess.run([sys.executable, "-c", ""], check=True, **who)
            except PermissionError:
                missing("a Python in a folder that other users can enter", "chmod o+x")
        env = environment(REMOTE_EXECUTOR_TOKEN_FILE=str(token), HOME=str(folder), **env)
        started.append(subprocess.Popen(line, cwd=folder, env=env, start_new_session=True, **who))
        wait_until(lambda: ping(address, timeout=scaled(5), tls=tls), 30)
        return address, started[-1].pid

    yield start
    for process in started:
        process.terminate()
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            end_process(process.pid)
    shutil.rmtree(folder, ignore_errors=True)


def what_is_open(address, server):
    """Return what a task finds open of another session's worker, the server, and the zygote."""
    with (
        FarmExecutor(1, addresses=[address]) as alice,
        FarmExecutor(1, addresses=[address]) as mallory,
    ):
        victim = alice.submit(os.getpid).result(LIMIT)
        zygote = alice.submit(tenants.parent).result(LIMIT)
        assert len({victim, zygote, server, mallory.submit(os.getpid).result(LIMIT)}) == 4
        found = [
            mallory.submit(tenants.look_into, pid).result(LIMIT) for pid in (victim, server, zygote)
        ]
        assert alice.submit(os.getpid).result(LIMIT) == victim
        return found


def test_a_task_cannot_look_into_another_users_worker_nor_into_the_server(serve_as):
    """Whoever writes to another's worker runs code at the other's client: results are pickles."""
    assert what_is_open(*serve_as()) == [[], [], []]


def test_who_debugs_may_look_into_them(serve_as):
    assert what_is_open(*serve_as("--debuggable"))[0] != []


def test_tasks_work_as_they_do_elsewhere_in_a_closed_worker(serve_as):
    """Shared arrays without the pagemap, children, large arguments and results."""
    numpy = pytest.importorskip("numpy")
    address, _ = serve_as()
    with FarmExecutor(addresses=[address]) as executor:
        shared = executor.share(numpy.arange(1_000_000))
        total = int(numpy.arange(1_000_000).sum())
        assert executor.submit(lambda array: int(array.sum()), shared).result(LIMIT) == total
        assert executor.submit(writes_to, shared).result(LIMIT) == total + 1
        assert executor.submit(lambda array: int(array.sum()), shared).result(LIMIT) == total
        block = bytes(5_000_000)
        assert executor.submit(bytes, block).result(LIMIT) == block
        assert executor.submit(has_child).result(LIMIT) == b"a child\n"


def writes_to(array):
    array[0] += 1
    return int(array.sum())


def has_child():
    return subprocess.run(["echo", "a child"], stdout=subprocess.PIPE).stdout


@pytest.fixture(scope="module")
def encrypted_key(tmp_path_factory):
    """Return certificate and key of a server; the key opens with the secret."""
    ca = Authority(tmp_path_factory.mktemp("ca"), "authority")
    return ca.sign("server", "localhost", "127.0.0.1", password=SECRET)


def test_the_servers_secrets_are_in_no_environment_and_no_memory_of_a_task(serve_as, encrypted_key):
    certificate, key = encrypted_key
    secrets = {
        "REMOTE_EXECUTOR_TLS_PASSWORD": SECRET,
        "REMOTE_EXECUTOR_TLS_KEY": key,
        "REMOTE_EXECUTOR_TLS_CERTIFICATE": certificate,
        "KRB5_KTNAME": "/etc/keytab-of-the-farm",
    }
    address, _ = serve_as(own=True, tls=True, **secrets, FOR_TASKS="this stays")
    with FarmExecutor(addresses=[address], tls=True) as executor:
        now, began = executor.submit(tenants.environment_of).result(LIMIT)
        assert now["FOR_TASKS"] == "this stays"
        for name, value in {**secrets, "REMOTE_EXECUTOR_TOKEN_FILE": "/token"}.items():
            assert name not in now
            assert name.encode() not in began
            assert value.encode() not in began
        assert b"FOR_TASKS" in began
        assert executor.submit(tenants.finds, *HALVES).result(LIMIT) is False


def test_a_secret_that_the_server_was_started_with_is_in_no_memory_of_a_task():
    with start_server(workers=1, auth=SECRET) as server:
        with FarmExecutor(addresses=[server.address], auth=SECRET) as executor:
            assert executor.submit(tenants.finds, *HALVES).result(LIMIT) is False
            # It finds what there is to be found.
            assert executor.submit(keeps_and_finds, SECRET, *HALVES).result(LIMIT) is True


def keeps_and_finds(secret, *halves):
    return tenants.finds(*halves) and bool(secret)
