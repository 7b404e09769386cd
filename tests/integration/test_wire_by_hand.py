"""What a server says to a client that speaks the wire itself (K24), and what it leaves behind."""

from __future__ import annotations

import hashlib
import hmac
import json
import operator
import os
import pickle
import random
import signal
import socket
import struct
import sys
import time

import pytest

from remote_executor import server_status
from remote_executor.net.tokens import load_token
from remote_executor.payload.pickles import dump, load
from remote_executor.server.serve import start_server
from remote_executor.server.worker import Worker
from remote_executor.wire.frames import make_frame
from remote_executor.wire.messages import (
    Flag,
    Kind,
    decode_fields,
    decode_ids,
    encode_fields,
    encode_ids,
)
from tests.support import tasks
from tests.support.hand import embedded, remote
from tests.support.leaks import marked_processes
from tests.support.scale import scaled
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="servers need fork")


@pytest.fixture
def client():
    with embedded() as hand:
        yield hand


@pytest.fixture
def server():
    with start_server(workers=2) as handle:
        yield handle


# ---------------------------------------------------------------- the protocol itself (K24)


def receive(sock, size):
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        assert chunk, "the server closed the connection"
        data += chunk
    return data


def receive_frame(sock):
    kind, flags, count, aux, id, size = struct.unpack("<BBHIQQ", receive(sock, 24))
    sizes = struct.unpack(f"<{count}Q", receive(sock, 8 * count))
    return kind, flags, aux, id, receive(sock, size), [receive(sock, n) for n in sizes]


def send_frame(sock, kind, id=0, body=b"", aux=0, flags=0):
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    sock.sendall(struct.pack("<BBHIQQ", kind, flags, 0, aux, id, len(body)) + body)


def test_k24_a_client_needs_only_struct_json_hmac_and_pickle(server):
    token = load_token()
    with socket.create_connection((server.address.host, server.address.port), 10) as sock:
        nonce = os.urandom(32).hex()
        ours = json.dumps({"protocols": [1, 1], "auth": "token", "nonce": nonce}).encode()
        sock.sendall(b"\x89rexec\r\n")
        send_frame(sock, 1, body=ours)
        assert receive(sock, 8) == b"\x89rexec\r\n"
        kind, _, _, _, theirs, _ = receive_frame(sock)
        assert (kind, json.loads(theirs)["auth"]) == (1, "token")

        def proof(role):
            text = role + b"\0remote_executor 1\0" + struct.pack("<II", 0, len(ours)) + ours
            text += struct.pack("<I", len(theirs)) + theirs
            return hmac.new(token, text, hashlib.sha256).digest()

        send_frame(sock, 2, body=proof(b"client"))
        kind, _, aux, _, body, _ = receive_frame(sock)
        assert (kind, aux, body) == (2, 1, proof(b"server"))

        send_frame(
            sock,
            4,
            body={
                "session": os.urandom(16).hex(),
                "received": 0,
                "resume": False,
                "grace": 5,
                "workers": 1,
            },
        )
        kind, _, _, _, body, _ = receive_frame(sock)
        assert kind == 5
        assert json.loads(body)["slots"] == 1

        send_frame(sock, 33, aux=1, flags=4, body=b"cmath\nsqrt\n.".join([b"c", b""]))
        send_frame(sock, 35, id=17, aux=1, body=pickle.dumps(((-4,), {})))
        while True:
            kind, _, _, id, body, _ = receive_frame(sock)
            if kind == 64:
                break
        assert (id, pickle.loads(body)) == (17, 2j)
        send_frame(sock, 9)
        # The end, an ACK or GOODBYE; a PING where its worker took so long to start that an ACK came
        # before the result.
        assert sock.recv(1000)[:1] in (b"", b"\x06", b"\x08", b"\x09")


def test_attached_says_what_the_server_is(client):
    fields = client.attached
    assert fields["resumed"] is False
    assert fields["received"] == 0
    assert fields["slots"] == 2
    assert fields["pid"] == client.process.pid
    assert len(bytes.fromhex(fields["server"])) == 16


def test_results_and_failures(client):
    client.blob(1, operator.add)
    for id in range(100):
        client.task(id, 1, id, 1)
    client.task(100, 1, "a", 1)
    assert [client.result(id) for id in range(100)] == list(range(1, 101))
    error = client.failure(100)
    assert type(error) is TypeError
    assert "can only concatenate str" in str(error.__cause__)


def test_large_arguments_and_results_go_out_of_band(client):
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(3_000_000, dtype=float)
    client.blob(1, numpy.multiply)
    client.task(1, 1, array, 2)
    frame = client.wait(Kind.RESULT, 1)
    assert len(frame.body) < 1000
    assert numpy.array_equal(load(frame.body, frame.buffers), array * 2)


def test_batches(client):
    client.blob(1, tasks.square)
    client.blob(2, tasks.add)
    client.batch(1, 1, [1, 2, 3])
    client.batch(2, 2, [(1, 2), (3, 4)], star=True)
    assert client.result(1) == [1, 4, 9]
    assert client.result(2) == [3, 7]


def reciprocal(x):
    return 1 / x


def test_a_batch_that_fails_says_how_far_it_came(client):
    client.blob(1, reciprocal)
    client.batch(1, 1, [1, 2, 0, 4])
    frame = client.wait(Kind.FAILURE, 1)
    assert frame.flags & Flag.BATCH
    assert type(pickle.loads(frame.buffers[0])) is ZeroDivisionError
    assert load(frame.buffers[1], frame.buffers[2:]) == [1.0, 0.5]


def stop_at(x):
    if x == 2:
        raise StopIteration("enough")
    return x


def test_stop_iteration_in_a_batch_is_an_error_like_any_other(client):
    client.blob(1, stop_at)
    client.batch(1, 1, [0, 1, 2, 3])
    frame = client.wait(Kind.FAILURE, 1)
    assert type(pickle.loads(frame.buffers[0])) is StopIteration
    assert load(frame.buffers[1]) == [0, 1]


def lock_at(x):
    return tasks.make_lock() if x == 2 else x


def test_k65_a_result_that_cannot_be_pickled_is_an_error_of_that_task(client):
    client.blob(1, tasks.make_lock)
    client.task(1, 1)
    assert "pickle" in str(client.failure(1))
    client.blob(2, lock_at)
    client.batch(2, 2, [0, 1, 2, 3])
    frame = client.wait(Kind.FAILURE, 2)
    assert load(frame.buffers[1]) == [0, 1]
    assert client.run(tasks.add, 1, 2) == 3


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt("by the task")])
def test_a_task_cannot_end_its_worker_by_an_exception(client, error):
    pid = client.run(tasks.pid)
    client.blob(1, tasks.raise_it)
    client.task(1, 1, error)
    assert type(client.failure(1)) is type(error)
    assert client.run(tasks.pid) == pid


def test_unknown_functions_and_bad_pickles_are_failures(client):
    client.task(1, 99, 1)
    client.failure(1)
    client.send(Kind.BLOB, 0, b"cno_such_module\nf\n.", aux=2)
    client.task(2, 2)
    assert type(client.failure(2)) is ModuleNotFoundError
    client.blob(3, tasks.add)
    client.send(Kind.TASK, 3, b"nonsense", aux=3)
    client.failure(3)
    assert client.run(tasks.add, 1, 2) == 3


def test_a_forgotten_function_is_gone_once_earlier_tasks_have_run(client):
    client.blob(1, tasks.nap)
    for id in range(4):
        client.task(id, 1, 0.02, id)
    assert [client.result(id) for id in range(4)] == [0, 1, 2, 3]
    client.send(Kind.FORGET, aux=1)
    client.task(10, 1, 0)
    client.failure(10)


def test_shared_objects_that_make_no_sense_fail_their_tasks_alone(client):
    client.blob(1, tasks.add)
    client.send(Kind.BLOB, 0, b"token", [b"nonsense"], aux=7, flags=Flag.SHARED)
    client.send(Kind.BLOB, 0, b"a token without a pickle", aux=8, flags=Flag.SHARED)
    client.send(Kind.BLOB, 0, b"", aux=9, flags=Flag.PART)
    client.send(Kind.BLOB, 1, b"cbuiltins\nabs\n.", [encode_ids([99])], aux=10)
    client.send(Kind.BLOB, 1, b"cbuiltins\nabs\n.", [b"odd"], aux=11)

    for id, blobs in enumerate([[7, 8, 9], [[], {}, "7", None, 1e9, -1, 2**80], {"a": 7}, 7], 1):
        client.optioned(id, 1, {"blobs": blobs}, id, 1)
        assert client.result(id) == id + 1
    client.task(10, 10, 1)
    client.failure(10)
    client.task(11, 11, 1)
    client.wait(Kind.DIED, 11)
    assert client.run(tasks.add, 1, 2) == 3


# ------------------------------------------------------------------------ deaths and kills


def test_a_worker_that_dies_takes_one_task_along(client, tmp_path):
    client.blob(1, tasks.die)
    client.blob(2, tasks.add)
    client.task(1, 1, 7, "last words\n")
    for id in range(2, 40):
        client.task(id, 2, id, 1)
    fields = client.died(1)
    assert fields["reason"] == "died"
    assert fields["exitcode"] == 7
    assert fields["stderr"] == "last words\n"
    assert [client.result(id) for id in range(2, 40)] == list(range(3, 41))


def test_a_signal_is_a_negative_exit_code(client):
    client.blob(1, tasks.kill_self)
    client.task(1, 1, int(signal.SIGKILL))
    assert client.died(1)["exitcode"] == -signal.SIGKILL
    assert client.run(tasks.add, 1, 1) == 2


def test_kill_ends_a_running_task_and_no_other(client, tmp_path):
    client.blob(1, tasks.hold)
    client.blob(2, tasks.add)
    client.task(1, 1, str(tmp_path / "begun"), str(tmp_path / "never"))
    wait_until((tmp_path / "begun").exists)
    for id in range(2, 30):
        client.task(id, 2, id, 0)
    client.send(Kind.KILL, 1)
    fields = client.died(1)
    assert fields["reason"] == "killed"
    assert fields["exitcode"] == -signal.SIGKILL
    assert [client.result(id) for id in range(2, 30)] == list(range(2, 30))


def test_kill_of_a_waiting_task_kills_no_worker(tmp_path):
    with embedded(1) as client:
        client.blob(1, tasks.hold)
        client.task(1, 1, str(tmp_path / "begun"), str(tmp_path / "go"), "held")
        client.task(2, 1, str(tmp_path / "no"), str(tmp_path / "go"))
        wait_until((tmp_path / "begun").exists)
        client.send(Kind.KILL, 2)
        assert client.died(2)["reason"] == "killed"
        tasks.touch(tmp_path / "go")
        assert client.result(1) == "held"
        assert not (tmp_path / "no").exists()
        client.send(Kind.KILL, 1)  # too late: nothing comes
        assert client.run(tasks.add, 1, 1) == 2
        assert [f for f in client.frames if f.kind == Kind.DIED] == []


def test_a_task_that_blocks_signals_is_killed_too(client, tmp_path):
    client.blob(1, tasks.block_signals)
    client.task(1, 1, str(tmp_path / "begun"))
    wait_until((tmp_path / "begun").exists)
    client.send(Kind.KILL, 1)
    assert client.died(1)["reason"] == "killed"


def test_timeout(client):
    client.blob(1, tasks.nap)
    start = time.monotonic()
    client.optioned(1, 1, {"timeout": 0.2}, 30)
    client.optioned(2, 1, {"timeout": 10}, 0.01, "done")
    assert client.result(2) == "done"
    assert client.died(1)["reason"] == "timeout"
    assert 0.2 <= time.monotonic() - start < scaled(2)


def begun(client):
    return [
        id for f in client.frames if f.kind == Kind.BEGUN for id in decode_ids(f.body) if id < 1000
    ]


def test_begun_is_told_soon_and_once(client, tmp_path):
    client.blob(1, tasks.hold)
    client.run(tasks.add, 1, 1)  # a worker is there
    client.task(1, 1, str(tmp_path / "begun"), str(tmp_path / "go"))
    client.until((tmp_path / "begun").exists)
    start = time.monotonic()
    client.until(lambda: begun(client))
    assert time.monotonic() - start < scaled(0.06)
    tasks.touch(tmp_path / "go")
    client.result(1)
    assert begun(client) == [1]


def test_what_has_not_begun_can_be_taken_back(tmp_path):
    with embedded(1) as client:
        client.blob(1, tasks.hold)
        client.blob(2, tasks.record)
        client.task(1, 1, str(tmp_path / "begun"), str(tmp_path / "go"), "held")
        for id in range(2, 10):
            client.task(id, 2, str(tmp_path / "runs"), id)
        wait_until((tmp_path / "begun").exists)
        assert sorted(client.take_back(1, [1, 2, 5, 77])) == [2, 5]
        assert sorted(client.take_back(2, [], 3)) == [7, 8, 9]
        assert client.take_back(3, []) == []
        tasks.touch(tmp_path / "go")
        assert client.result(1) == "held"
        assert [client.result(id) for id in (3, 4, 6)] == [3, 4, 6]
        assert (tmp_path / "runs").read_text().split() == ["3", "4", "6"]


# ------------------------------------------------------------------------- workers


def test_workers_start_on_demand_and_run_in_turn(client):
    first = client.run(tasks.pid)
    assert [client.run(tasks.pid) for _ in range(5)] == [first] * 5
    client.blob(1, tasks.nap)
    client.blob(2, tasks.pid)
    client.task(1, 1, 0.3)
    client.task(2, 2)
    assert client.result(2) != first


def test_tasks_for_a_certain_worker(client):
    client.blob(1, tasks.pid)
    for id in range(6):
        client.optioned(id, 1, {"worker": id % 2})
    pids = [client.result(id) for id in range(6)]
    assert pids[:2] * 3 == pids
    assert pids[0] != pids[1]


def worker_index():
    from remote_executor.server.worker import current

    return current.index, current.task


def test_k100_a_worker_knows_its_index_and_its_task(client):
    client.blob(1, worker_index)
    for id in range(10, 12):
        client.optioned(id, 1, {"worker": id - 10})
    assert client.result(10) == (0, 10)
    assert client.result(11) == (1, 11)
    assert worker_index() == (None, None)


def test_a_worker_is_replaced_after_so_many_tasks():
    with embedded(1, tasks_per_worker=2) as client:
        client.blob(1, tasks.pid)
        for id in range(6):
            client.task(id, 1)
        pids = [client.result(id) for id in range(6)]
        assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4] == pids[5]


def test_an_initializer_runs_first_in_every_worker():
    with embedded(2, initializer=True) as client:
        client.setup(tasks.set_state, "key", 17)
        client.blob(1, tasks.get_state)
        client.blob(2, tasks.die)
        for id in range(2):
            client.optioned(id, 1, {"worker": id}, "key")
        assert [client.result(id) for id in range(2)] == [17, 17]
        client.optioned(5, 2, {"worker": 0})
        client.died(5)
        client.optioned(6, 1, {"worker": 0}, "key")
        assert client.result(6) == 17


@pytest.mark.parametrize(
    ("initializer", "words"),
    [(tasks.failing_initializer, "error in initializer"), (tasks.dying_initializer, "exit code 5")],
)
def test_a_failing_initializer_breaks_the_session(initializer, words):
    with embedded(2, initializer=True) as client:
        client.setup(initializer)
        client.blob(1, tasks.add)
        client.task(1, 1, 1, 2)
        client.task(2, 1, 1, 2)
        frame = client.wait(Kind.BROKEN)
        assert words in decode_fields(frame.body)["message"]
        client.task(3, 1, 1, 2)
        with pytest.raises(AssertionError):
            client.until(lambda: client.frames, limit=0.2)


def is_of_libffi(number):
    """Newer releases of it hold their own file open, once ctypes has been imported."""
    try:
        return "libffi" in os.readlink(f"/dev/fd/{number}")
    except OSError:  # of the folder itself, which is closed by now
        return False


def environment():
    import sys

    return {
        "threads": os.environ["OMP_NUM_THREADS"],
        "stdin": os.path.samestat(os.fstat(0), os.stat(os.devnull)),
        "session": os.getsid(0) == os.getpid(),
        "sigint": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
        "sigterm": getattr(signal.getsignal(signal.SIGTERM), "__name__", "") == "_wait_for_word",
        "low": [n for n in os.listdir("/dev/fd") if 2 < int(n) < 200 and not is_of_libffi(n)],
        "main": sys.modules["__main__"].__name__,
        "argv": sys.argv,
    }


def test_a_worker_is_a_clean_process(client):
    found = client.run(environment)
    assert int(found.pop("threads")) >= 1
    assert len(found.pop("low")) <= 1  # the folder itself
    assert found == {
        "stdin": True,
        "session": True,
        "sigint": True,
        "sigterm": True,
        "main": "__main__",
        "argv": [""],
    }


def test_a_task_may_close_low_descriptors(client):
    pid = client.run(tasks.pid)
    assert client.run(tasks.close_descriptors) == "closed"
    assert client.run(tasks.pid) == pid


def close_all():
    os.closerange(3, 4096)
    return "closed"


def test_a_task_that_closes_all_descriptors_kills_its_worker_alone(client):
    client.blob(1, close_all)
    client.task(1, 1)
    assert client.died(1)["reason"] == "died"
    assert client.run(tasks.add, 1, 1) == 2


def misuse_the_wire(descriptors):
    """Find the worker's own wire, and send descriptors that belong to no frame, then go."""
    frame = sys._getframe()
    while not isinstance(frame.f_locals.get("self"), Worker):
        frame = frame.f_back
    wire = frame.f_locals["self"]._sock
    wire.send(make_frame(Kind.RESULT, 7, bytes(1000)).raw[:24])
    for _ in range(descriptors):
        socket.send_fds(wire, [b"x"], [0])
    os._exit(3)


def babble():
    """Find the way of the answers, and send what is none for as long as it is open."""
    frame = sys._getframe()
    while not isinstance(frame.f_locals.get("self"), Worker):
        frame = frame.f_back
    while True:
        os.write(frame.f_locals["self"]._answers, b"\xff" * 4096)


@pytest.mark.parametrize(("task", "args"), [(misuse_the_wire, (80,)), (babble, ())])
def test_a_task_that_misuses_its_workers_descriptors_ends_that_worker_alone(task, args):
    with embedded(2) as client:
        client.blob(1, task)
        client.blob(2, tasks.nap)
        client.task(1, 1, *args)
        client.task(2, 2, 0.5)
        assert client.died(1)["reason"] == "died"
        assert client.result(2) is None
        assert client.run(tasks.add, 1, 1) == 2
        client.goodbye()


def test_a_task_may_fork(client):
    child = client.run(tasks.fork_grandchild, 0.0)
    assert child > 0
    assert client.run(tasks.add, 1, 1) == 2


def test_preloaded_modules_are_there(tmp_path):
    with embedded(1, preload="colorsys,no_such_module_here") as client:
        assert client.run(loaded, "colorsys")
        assert client.run(tasks.add, 1, 1) == 2


def loaded(name):
    import sys

    return name in sys.modules


def test_the_clients_path_and_folder(tmp_path):
    (tmp_path / "only_here_module.py").write_text("def f(): return 41\n")
    import sys

    with embedded(1, sys_path=[*sys.path, str(tmp_path)], cwd=str(tmp_path)) as client:
        client.send(Kind.BLOB, 0, b"conly_here_module\nf\n.", aux=1)
        client.task(1, 1)
        assert client.result(1) == 41
        assert client.run(os.getcwd) == os.path.realpath(tmp_path)


# -------------------------------------------------------------------------- output


def output(client, fd):
    return b"".join(
        bytes(f.body) for f in client.frames if f.kind == Kind.OUTPUT and f.aux % 4 == fd
    )


def test_output_comes_along(client):
    pid = client.run(tasks.pid)
    client.run(tasks.print_words, "hello", "world")
    client.until(lambda: output(client, 2))
    assert output(client, 1) == b"hello\n"
    assert output(client, 2) == b"world\n"
    assert {f.aux // 4 for f in client.frames if f.kind == Kind.OUTPUT} == {pid}


def test_the_beginning_of_a_line_comes_after_a_moment(client):
    client.run(tasks.print_raw, b"no end")
    client.until(lambda: output(client, 1) == b"no end")


def test_output_precedes_the_result_of_its_task(client):
    client.blob(1, tasks.print_words)
    for id in range(50):
        client.task(id, 1, f"task {id}")
        client.result(id)
        assert f"task {id}\n".encode() in output(client, 1)


def test_output_precedes_its_result_also_between_large_results(client):
    client.blob(1, tasks.print_words)
    client.blob(2, bytes)
    for start in range(0, 400, 20):
        for id in range(start, start + 20, 2):
            client.task(id, 1, f"task {id}")
            client.task(id + 1, 2, 40_000)
        for id in range(start, start + 20, 2):
            client.until(lambda id=id: (Kind.RESULT, id) in [(f.kind, f.id) for f in client.frames])
    said = b""
    for frame in client.frames:
        if frame.kind == Kind.OUTPUT:
            said += frame.body
        elif frame.kind == Kind.RESULT and frame.id % 2 == 0:
            assert f"task {frame.id}\n".encode() in said


def test_much_output_neither_fills_memory_nor_stops_anything():
    with embedded(2) as client:
        client.acking = False
        pid = client.process.pid
        client.blob(1, tasks.print_much)
        client.task(1, 1, 100_000, 1000)
        seen = 0
        start = time.monotonic()
        while seen < 100_000_000:
            frame = client.wait(Kind.OUTPUT, limit=30)
            seen += len(frame.body)
            if client.session.received_count % 16 == 0:
                client.put(Kind.ACK, client.session.received_count)
        assert client.result(1) == 100_000_000
        assert time.monotonic() - start < scaled(30)
        with open(f"/proc/{pid}/status") as file:
            peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
        assert peak < 200_000


def test_output_that_nobody_acknowledges_waits_and_holds_up_nobody(tmp_path):
    with embedded(2) as client:
        client.acking = False
        client.blob(1, tasks.print_much)
        client.blob(2, tasks.add)
        client.task(1, 1, 100_000, 1000)
        client.until(lambda: client.session.received_count > 200)
        client.task(2, 2, 1, 2)
        assert client.result(2) == 3
        for _ in range(10):
            with pytest.raises(AssertionError):
                client.until(lambda: False, limit=0.05)
            size = sum(len(f.body) for f in client.frames if f.kind == Kind.OUTPUT)
            if size > 64 << 20:
                break
        assert size < 70 << 20
        client.task(3, 2, 1, 2)
        assert client.result(3) == 3


# ---------------------------------------------------------------------- what is left behind


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", ["goodbye", "cut", "kill"])
def test_an_embedded_server_leaves_nothing_behind(how):
    before = marked_processes()
    client = embedded()
    grandchild = client.run(tasks.leave_grandchild, 60)
    child = client.run(tasks.fork_grandchild, 60)
    client.blob(1, tasks.nap)
    client.task(1, 1, 60)
    worker = client.run(tasks.pid)
    if how == "goodbye":
        client.goodbye()
    elif how == "cut":
        client.close()
    else:
        client.process.kill()
        client.close()
    assert client.process.returncode == (-signal.SIGKILL if how == "kill" else 0)
    for pid in (worker, grandchild, child):
        wait_until(lambda pid=pid: not alive(pid), timeout=5)
    wait_until(lambda: marked_processes() <= before, timeout=5)


def daemon(seconds):
    """Leave a process behind that has left our session and group."""
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(write, str(os.getpid()).encode())
            time.sleep(seconds)
        os._exit(0)
    os.wait()
    return int(os.read(read, 100))


def test_even_a_daemon_ends_with_its_session(client):
    pid = client.run(daemon, 60)  # by the first task of all
    assert alive(pid)
    client.goodbye()
    wait_until(lambda: not alive(pid), timeout=5)


def fork_twice():
    """Open files in a forked child, and return whether they are open in its child as well."""
    read, write = os.pipe()
    if os.fork() == 0:
        files = [os.open(os.devnull, os.O_RDONLY)]
        while files[-1] < 300:  # the worker's own were moved up, and closed in this process
            files.append(os.open(os.devnull, os.O_RDONLY))
        if os.fork() == 0:
            try:
                for fd in files:
                    os.fstat(fd)
            except OSError as exc:
                os.write(write, str(exc).encode())
        else:
            os.wait()
        os._exit(0)
    os.wait()
    os.close(write)
    with open(read) as file:
        return file.read()


def test_a_task_that_forks_twice_keeps_the_files_that_it_opened(client):
    assert client.run(fork_twice) == ""


def test_a_grandchild_ends_with_its_worker(client):
    pid = client.run(tasks.leave_grandchild, 60)
    worker = client.run(tasks.pid)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not alive(pid), timeout=5)
    assert client.run(tasks.add, 1, 1) == 2


def at_exit(path):
    import atexit

    atexit.register(tasks.touch, path)


def test_idle_workers_end_properly_at_a_goodbye(client, tmp_path):
    client.run(at_exit, str(tmp_path / "end"))
    client.goodbye()
    assert (tmp_path / "end").exists()


def test_the_process_that_makes_workers_may_die(client):
    """The server ends, and so do its workers and what their tasks have left behind."""
    worker, daemons = client.run(tasks.pid), [client.run(daemon, 60), client.run(daemon, 60)]
    with open(f"/proc/{client.process.pid}/task/{client.process.pid}/children") as file:
        zygote = int(file.read())
    os.kill(zygote, signal.SIGKILL)
    client.eof()
    client.close()
    wait_until(lambda: not any(map(alive, [worker, *daemons])), timeout=5)


# -------------------------------------------------------------------- sessions and links


def test_a_session_survives_a_cut(server, tmp_path):
    with remote(server.address, load_token()) as client:
        client.blob(1, tasks.record)
        client.blob(2, tasks.hold)
        client.task(1, 2, str(tmp_path / "begun"), str(tmp_path / "go"), "held")
        wait_until((tmp_path / "begun").exists)
        client.cut()
        for id in range(2, 30):
            body, _ = dump(((str(tmp_path / "runs"), id), {}))
            client.session.send(make_frame(Kind.TASK, id, body, aux=1))
        tasks.touch(tmp_path / "go")
        client.connect()
        client.attach()
        assert client.attached["resumed"] is True
        assert client.result(1) == "held"
        assert [client.result(id) for id in range(2, 30)] == list(range(2, 30))
        assert sorted(map(int, (tmp_path / "runs").read_text().split())) == list(range(2, 30))
        client.goodbye()


def test_a_second_link_replaces_the_first(server):
    with remote(server.address, load_token()) as client:
        old = client.sock
        client.run(tasks.add, 1, 1)
        client.session.link_lost(time.monotonic())
        client.connect()
        client.attach()
        assert client.attached["resumed"] is True
        assert client.run(tasks.add, 1, 1) == 2
        old.settimeout(scaled(5))
        while old.recv(65536):
            pass
        old.close()
        client.goodbye()


def test_a_session_ends_when_its_grace_is_over(server):
    with remote(server.address, load_token(), grace=0.2) as client:
        worker = client.run(tasks.pid)
        grandchild = client.run(tasks.leave_grandchild, 60)
        client.cut()
        wait_until(lambda: not alive(worker) and not alive(grandchild))
        client.connect()
        client.session = type(client.session)(time.monotonic(), 60)
        client.attach()
        assert client.attached["resumed"] is False, "and nothing was made"
        client.attach(resume=False)
        assert client.run(tasks.pid) != worker
        client.goodbye()


@pytest.mark.parametrize("id", ["", "\udc80", "x" * 1000, "a\nb"])
def test_a_session_of_an_odd_id_is_never_made(server, id):
    """Of one that was made by half, nobody would ever see the end."""
    client = remote(server.address, load_token(), attach=False)
    fields = {**client.fields, "session": id, "resume": False, "received": 0}
    client.put(Kind.ATTACH, body=encode_fields(fields))
    client.sock.settimeout(scaled(10))
    while client.sock.recv(65536):
        pass
    client.sock.close()

    assert server_status(server.address)["sessions"] == []


def test_two_sessions_share_the_slots(server):
    with remote(server.address, load_token()) as one, remote(server.address, load_token()) as two:
        one.blob(1, tasks.nap)
        for id in range(400):
            one.task(id, 1, 0.01, id)
        one.result(5)
        start = time.monotonic()
        assert two.run(tasks.add, 1, 1) == 2
        assert time.monotonic() - start < scaled(0.5)
        one.goodbye()
        two.goodbye()


def test_administration(server):
    token = load_token()
    with remote(server.address, token, attach=False) as admin:
        assert admin.admin("ping") == {"ok": True}
        with remote(server.address, token) as client:
            client.run(tasks.add, 1, 1)
            status = admin.admin("status")
            assert status["slots"] == 2
            assert status["pid"] == server.pid
            (session,) = status["sessions"]
            assert session["workers"] == 1
            assert "error" in admin.admin("nonsense")
            client.goodbye()
        wait_until(lambda: admin.admin("status")["sessions"] == [])


def test_an_ended_server_finishes_what_it_has(server):
    token = load_token()
    with remote(server.address, token) as client, remote(server.address, token, False) as other:
        with remote(server.address, token, False) as admin:
            assert admin.admin("end")["ok"]
        with pytest.raises(ConnectionRefusedError):
            wait_until(
                lambda: socket.create_connection(
                    (server.address.host, server.address.port), 1
                ).close()
            )
        other.put(
            Kind.ATTACH, body=json.dumps(dict(other.fields, resume=False, received=0)).encode()
        )
        assert decode_fields(other.wait(Kind.REPLY).body) == {"error": "ending"}
        assert client.run(tasks.add, 1, 1) == 2
        assert not server.join(0.1)
        client.goodbye()
    assert server.join(scaled(5))


# ------------------------------------------------------------------------ strangers


def connect(server):
    return socket.create_connection((server.address.host, server.address.port), scaled(10))


@pytest.mark.parametrize(
    "words",
    [b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000), b"\x89rexec\r\n" + b"\xff" * 100, b"\x89"],
)
def test_strangers_are_turned_away(server, words):
    with connect(server) as sock:
        sock.sendall(words)
        sock.shutdown(socket.SHUT_WR)
        try:
            while sock.recv(65536):
                pass
        except ConnectionError:
            pass
    with remote(server.address, load_token()) as client:
        assert client.run(tasks.add, 1, 1) == 2
        client.goodbye()


def test_a_wrong_token_is_refused(server):
    from remote_executor.errors import AuthenticationFailed

    with pytest.raises(AuthenticationFailed, match="token"):
        remote(server.address, b"0" * 64)


def test_not_all_descriptors_are_for_strangers(server):
    silent = [connect(server) for _ in range(80)]
    with remote(server.address, load_token()) as client:
        assert client.run(tasks.add, 1, 1) == 2
        client.goodbye()
    for sock in silent:
        sock.close()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.TASK, b""),
        (Kind.ATTACH, b"{}"),
        (Kind.ATTACH, b"[1"),
        (Kind.ADMIN, b"{}"),
        (200, b""),
    ],
)
def test_nonsense_from_a_client_costs_it_its_link(server, kind, body):
    token = load_token()
    with remote(server.address, token, attach=False) as client:
        client.put(kind, body=body)
        client.eof()
    with remote(server.address, token) as client:
        client.blob(1, tasks.add)
        client.task(1, 1, 1, 1)
        client.task(1, 1, 1, 1)
        client.eof()
    with remote(server.address, token) as client:
        client.blob(1, tasks.add)
        client.task(1 << 63, 1, 1, 1)
        client.eof()
    with remote(server.address, token) as client:
        assert client.run(tasks.add, 1, 1) == 2
        client.goodbye()


# ------------------------------------------------------------------------------ chaos


@pytest.mark.parametrize("seed", range(3))
def test_each_task_settles_once_whatever_dies(tmp_path, seed):
    chance = random.Random(seed)
    total = 3000
    with embedded(3) as client:
        client.blob(1, tasks.record)
        client.blob(2, tasks.pid)
        outcomes = {}
        taken = set()
        sent = 0

        def look():
            for frame in client.frames:
                if frame.kind in (Kind.RESULT, Kind.DIED, Kind.FAILURE):
                    assert frame.id not in outcomes
                    outcomes[frame.id] = frame.kind
                elif frame.kind == Kind.TAKEN_BACK:
                    taken.update(decode_ids(frame.body))
            client.frames.clear()
            return True

        pids = set()
        while sent < total:
            for _ in range(chance.randrange(1, 200)):
                sent += 1
                client.task(sent, 1, str(tmp_path / "runs"), sent)
            action = chance.random()
            if action < 0.4:
                pids = {int(p) for p in children_of_zygote(client)}
                if pids:
                    try:
                        os.kill(chance.choice(sorted(pids)), signal.SIGKILL)
                    except ProcessLookupError:
                        pass
            elif action < 0.6:
                client.send(Kind.TAKE_BACK, sent, aux=chance.randrange(1, 50))
            elif action < 0.8:
                client.send(Kind.KILL, chance.randrange(1, sent + 1))
            client.until(look)
        client.until(lambda: look() and len(outcomes) + len(taken) >= sent, limit=30)
        with pytest.raises(AssertionError):
            client.until(lambda: client.frames, limit=0.1)
    assert not taken & outcomes.keys()
    assert taken | outcomes.keys() == set(range(1, sent + 1))
    runs = [int(line) for line in (tmp_path / "runs").read_text().split()]
    assert len(runs) == len(set(runs))
    assert not taken & set(runs)
    assert {id for id, kind in outcomes.items() if kind == Kind.RESULT} <= set(runs)
    assert list(outcomes.values()).count(Kind.FAILURE) == 0


def children_of_zygote(client):
    def children(pid):
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return file.read().split()

    (zygote,) = children(client.process.pid)
    return children(zygote)
