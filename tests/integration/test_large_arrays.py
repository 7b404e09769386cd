"""Large buffers: in shared memory on one host, by the stream to others; always one's own."""

from __future__ import annotations

import os
import signal

import pytest

from remote_executor import FarmExecutor, WorkerDied, start_server
from tests.support.scale import scaled
from tests.support.tools import require_module
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

np = require_module("numpy")
LIMIT = scaled(30)
SIZE = 1 << 20


@pytest.fixture(scope="module")
def servers(_leak_baseline, tmp_path_factory):
    path = tmp_path_factory.mktemp("server") / "socket"
    with (
        start_server(address="127.0.0.1:0", workers=2) as tcp,
        start_server(address=f"unix:{path}", workers=2) as unix,
    ):
        yield {"tcp": [tcp.address], "unix": [unix.address]}


@pytest.fixture(params=["embedded", "tcp", "unix"])
def farm(request, servers):
    with FarmExecutor(2, addresses=servers.get(request.param)) as executor:
        yield executor


def test_an_array_there_and_back(farm):
    """K32: several MB each way, and what comes is writable."""
    sent = np.arange(SIZE, dtype=np.float64)

    back = farm.submit(lambda a: a[::-1] * 2, sent).result(LIMIT)

    assert (back == sent[::-1] * 2).all()
    back += 1
    assert (sent == np.arange(SIZE)).all()


def test_a_task_writes_to_its_own_copy(farm):
    sent = np.zeros(SIZE)

    def fill(a):
        before = a[0]
        a += 7
        return before, a[0]

    assert [farm.submit(fill, sent).result(LIMIT) for _ in range(5)] == [(0, 7)] * 5
    assert not sent.any()


def test_many_in_flight_are_not_mixed_up(farm):
    arrays = [np.full(SIZE // 4, i, dtype=np.float64) for i in range(40)]

    futures = [farm.submit(lambda a: (a[0], a * 2), array) for array in arrays]

    for i, future in enumerate(futures):
        first, doubled = future.result(LIMIT)
        assert first == i
        assert (doubled == 2 * i).all()


def test_results_that_are_kept_do_not_change(farm):
    """A segment is used again only when its last mapping is gone."""
    kept = [farm.submit(np.full, SIZE // 4, i).result(LIMIT) for i in range(12)]
    for i in range(12):
        farm.submit(np.full, SIZE // 4, -i).result(LIMIT)

    assert [int(a.min()) for a in kept] == [int(a.max()) for a in kept] == list(range(12))


def test_arguments_that_a_worker_keeps_do_not_change(farm):
    def keep(a):
        import builtins

        builtins.kept = [*getattr(builtins, "kept", []), a]
        return [(int(each.min()), int(each.max())) for each in builtins.kept]

    for i in range(10):
        seen = farm.submit(keep, np.full(SIZE // 4, i)).result(LIMIT)
        assert all(low == high for low, high in seen)
        assert len({low for low, _ in seen}) == len(seen)


def test_a_map_over_arrays(farm):
    arrays = [np.full(SIZE // 8, i) for i in range(20)]

    assert list(farm.map(np.sum, arrays)) == [i * (SIZE // 8) for i in range(20)]


def test_a_worker_that_dies_with_an_array(farm):
    array = np.ones(SIZE)

    def die(a):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerDied):
        farm.submit(die, array).result(LIMIT)

    assert farm.submit(np.sum, array).result(LIMIT) == SIZE


def test_cancelled_tasks_give_their_memory_back(farm, tmp_path):
    from tests.support import tasks

    array = np.ones(SIZE)
    started = [tmp_path / "a", tmp_path / "b"]
    held = [farm.submit(tasks.hold, path, tmp_path / "go", 1) for path in started]
    wait_until(lambda: all(path.exists() for path in started))
    waiting = [farm.submit(np.sum, array) for _ in range(10)]

    assert all(future.cancel() for future in waiting)
    (tmp_path / "go").touch()

    assert [future.result(LIMIT) for future in held] == [1, 1]
    assert farm.broadcast(np.sum, array) == [SIZE, SIZE], "each worker passes what it had"
    lent = [segment for peer, _ in farm._driver.peers() for segment in peer.lent.values()]
    wait_until(lambda: not any(peer.lent for peer, _ in farm._driver.peers()))
    assert len(lent) <= 12
