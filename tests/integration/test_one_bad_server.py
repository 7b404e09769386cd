"""What one server says, or cannot do, costs that server only: the rest of the farm goes on."""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import socket
import threading
import time
import traceback
from concurrent import futures

import pytest

from remote_executor import ConnectionFailed, FarmError, FarmExecutor
from remote_executor.server.serve import start_server
from remote_executor.wire.auth import TokenAuth
from remote_executor.wire.frames import make_frame
from remote_executor.wire.link import Link
from remote_executor.wire.messages import Kind
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="servers need fork")

LIMIT = scaled(25)
SECRET = b"a secret of this test only"


def fail_under(parent: int, pause: float) -> int:
    """Take some time; raise on one server, as if its disk was full."""
    time.sleep(pause)  # on both, so that either gets its share of the tasks
    if os.getppid() == parent:
        raise OSError(28, "No space left on device")
    return os.getppid()


@pytest.fixture
def two_servers():
    with start_server(workers=1) as one, start_server(workers=1) as other:
        yield str(one.address), str(other.address)


def parent_at(address):
    with FarmExecutor(addresses=[address]) as farm:
        return farm.submit(tasks.pids).result(LIMIT)[1]


class Hundred:
    """A hundred tasks on two servers, all of which fail on the second one."""

    def __init__(self, farm, bad):
        self.found = [farm.submit(fail_under, bad, 0.01) for _ in range(100)]
        futures.wait(self.found, LIMIT)
        self.errors = [each.exception() for each in self.found if each.exception() is not None]
        self.done = len(self.found) - len(self.errors)


def test_errors_name_the_server_and_status_counts_what_failed_there(two_servers, caplog):
    good, bad = two_servers
    parent = parent_at(bad)
    with FarmExecutor(addresses=[good, bad]) as farm:
        farm.wait_for_workers(2, LIMIT)
        hundred = Hundred(farm, parent)
        status = {server.address: server for server in farm.status().servers}

    assert len(hundred.errors) >= 10
    host = socket.gethostname()
    for error in hundred.errors:
        (note,) = error.__notes__
        assert re.fullmatch(r"task \w+, attempt 1, ran in worker \d+ on (.+)", note)[1] == (
            f"{host} ({bad})"
        )
        assert bad in "".join(traceback.format_exception(error)) or not hasattr(error, "add_note")
    assert (status[bad].done, status[bad].failed) == (0, len(hundred.errors))
    assert (status[good].done, status[good].failed) == (hundred.done, 0)
    (warning,) = [each for each in caplog.messages if "tasks have failed on" in each]
    assert bad in warning
    assert host in warning


def test_the_note_travels_with_its_error(two_servers):
    with FarmExecutor(addresses=[two_servers[0]]) as farm:
        error = farm.submit(tasks.fail, "again").exception(LIMIT)

    assert pickle.loads(pickle.dumps(error)).__notes__ == error.__notes__


def test_errors_of_a_map_name_the_server_too(two_servers):
    with FarmExecutor(addresses=[two_servers[0]]) as farm:
        with pytest.raises(ZeroDivisionError) as caught:
            list(farm.map(divmod, [1, 2, 3], [1, 0, 1]))

    assert two_servers[0] in caught.value.__notes__[0]


def test_a_dead_worker_counts_as_a_failure_of_its_server(two_servers):
    with FarmExecutor(addresses=[two_servers[0]]) as farm:
        error = farm.submit(tasks.die, 7).exception(LIMIT)
        (server,) = farm.status().servers

    assert two_servers[0] in error.__notes__[0]
    assert (server.done, server.failed) == (0, 1)


# ------------------------------------------------------- a server that says something odd


class Odd:
    """A server that knows the secret, and says one odd thing of each task."""

    def __init__(self, path, attached=None, answer=b"", kind=Kind.DIED):
        self.attached, self.answer, self.kind = attached or {}, answer, kind
        self.links = 0
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(8)
        self.address = f"unix:{path}"
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(scaled(10))
        self.listener.close()

    def run(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.links += 1
            with sock:
                self.talk(sock)

    def talk(self, sock):
        nonce = random.randbytes(32)
        link = Link("server", "x", TokenAuth("server", (SECRET,)), 0.0, nonce=nonce, limit=1 << 28)
        sock.settimeout(scaled(20))
        try:
            while count := sock.recv_into(link.get_buffer()):
                for frame in link.received(count, 0.0):
                    self.hear(link, frame)
                while link.outbox.size:
                    link.outbox.sent(sock.send(link.outbox.chunk()[0]))
        except (OSError, FarmError):
            pass

    def hear(self, link, frame):
        if frame.kind == Kind.ATTACH:
            asked = json.loads(bytes(frame.body))
            fields = {"resumed": False, "received": 0, "slots": 4, "server": "odd", "place": "odd"}
            fields |= {key: asked[key] for key in ("python", "implementation")}
            body = json.dumps({**fields, **self.attached}).encode()
            link.outbox.put(make_frame(Kind.ATTACHED, body=body))
        elif frame.kind == Kind.TASK:
            link.outbox.put(make_frame(self.kind, frame.id, self.answer))


SAID = {
    "no JSON": b"it died",
    "an odd pid": b'{"reason": "died", "pid": "x"}',
    "an odd exit code": b'{"reason": "died", "exitcode": "SIGKILL"}',
    "no reason": b"{}",
    "a list": b"[1, 2]",
}


@pytest.fixture
def honest():
    with start_server(workers=1, auth=SECRET) as server:
        yield str(server.address)


@pytest.mark.parametrize("answer", SAID.values(), ids=SAID)
def test_a_death_that_makes_no_sense_costs_that_server_only(tmp_path, honest, answer, caplog):
    with Odd(tmp_path / "odd", answer=answer) as odd:
        with FarmExecutor(addresses=[odd.address, honest], auth=SECRET) as farm:
            found = [farm.submit(abs, -number) for number in range(30)]

            assert [each.result(LIMIT) for each in found] == list(range(30))
            assert list(farm.map(abs, range(50), timeout=LIMIT)) == list(range(50))
    assert "talks nonsense" in caplog.text
    assert odd.address in caplog.text


@pytest.mark.parametrize("kind", [Kind.BEGUN, Kind.TAKEN_BACK])
def test_ids_that_are_none_cost_that_server_only(tmp_path, honest, kind):
    with Odd(tmp_path / "odd", answer=b"odd", kind=kind) as odd:
        with FarmExecutor(addresses=[odd.address, honest], auth=SECRET) as farm:
            found = [farm.submit(abs, -number) for number in range(30)]

            assert [each.result(LIMIT) for each in found] == list(range(30))


@pytest.mark.parametrize(
    "attached", [{"python": 3}, {"slots": None}, {"received": -1}, {"versions": 7}, {"host": []}]
)
def test_one_odd_field_of_attached_leaves_that_server_out(tmp_path, honest, attached, caplog):
    with Odd(tmp_path / "odd", attached=attached) as odd:
        with FarmExecutor(addresses=[odd.address, honest], auth=SECRET) as farm:
            assert farm.submit(abs, -1).result(LIMIT) == 1
            wait_until(lambda: "refused" in {each.state for each in farm.status().servers}, 20)
    assert f"{odd.address} is not used" in caplog.text
    assert next(iter(attached)) in caplog.text


def test_a_server_that_always_talks_nonsense_is_left_out_in_the_end(tmp_path, honest):
    """Three times: a task survives three lost servers, and others have been tried meanwhile."""
    with Odd(tmp_path / "odd", answer=b"nonsense") as odd:
        with FarmExecutor(addresses=[odd.address], auth=SECRET, retries=10) as farm:
            error = farm.submit(abs, -1).exception(LIMIT)
            links = odd.links

            assert isinstance(error, ConnectionFailed)
            assert "nonsense" in str(error)
            assert links == 3
            farm.add_server(honest)
            assert farm.submit(abs, -1).result(LIMIT) == 1
