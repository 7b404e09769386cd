"""
Cut links between living ends: nothing is lost, nothing runs twice.

A proxy stands between client and server. Each task leaves a line in a file, so a second run of it
would be seen.
"""

from __future__ import annotations

import socket
import threading
from concurrent import futures

import pytest

from remote_executor import FarmExecutor, ServerLost
from tests.support import tasks
from tests.support.faults import Proxy, alive, wait_gone
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(25)


@pytest.fixture
def proxy(addresses):
    """Return a proxy to a shared server with one worker."""
    with Proxy(addresses[0]) as proxy:
        yield proxy


@pytest.fixture
def farm(proxy):
    """Return an executor whose only way to its server is the proxy."""
    with FarmExecutor(addresses=[proxy.address]) as executor:
        executor.wait_for_workers(1, LIMIT)
        yield executor


def lines(path):
    return path.read_text().split() if path.exists() else []


def once_each(path, count):
    return sorted(map(int, lines(path))) == [*range(count)]


def test_cut_between_tasks(farm, proxy):
    """K28: the next submit works, and the worker is the same."""
    pid = farm.submit(tasks.pid).result(LIMIT)

    assert proxy.cut() == 1

    assert farm.submit(tasks.pid).result(LIMIT) == pid
    assert proxy.links == 2


def test_cut_under_a_running_task(farm, proxy, tmp_path):
    """K28, K58: it goes on, and its result comes over the next link."""
    path, release = tmp_path / "ran", tmp_path / "release"
    future = farm.submit(tasks.record_and_wait, path, 7, release)
    wait_until(lambda: lines(path), 20)
    proxy.cut()
    release.touch()

    assert future.result(LIMIT) == 7
    assert lines(path) == ["7"]


def test_many_cuts_under_many_tasks(farm, proxy, tmp_path):
    """K58: three hundred tasks through a dozen cuts run once each."""
    path = tmp_path / "ran"
    found = [farm.submit(tasks.record, path, i) for i in range(100)]

    def farm_is_idle():
        return all(future.done() for future in found)

    for _ in range(12):
        links = proxy.links
        proxy.cut_after(3000)
        found += [farm.submit(tasks.record, path, len(found) + i) for i in range(20)]
        wait_until(lambda links=links: proxy.links > links or farm_is_idle(), 20)

    assert [future.result(LIMIT) for future in found] == [*range(len(found))]
    assert once_each(path, len(found))
    assert proxy.links > 3


def test_cut_in_the_middle_of_a_large_argument(farm, proxy, tmp_path):
    """What was half sent is sent again, and the task runs once."""
    path = tmp_path / "ran"
    block = bytes(20 << 20)
    proxy.cut_after(5 << 20)
    future = farm.submit(lambda data: (tasks.append(path, "run"), len(data))[1], block)

    assert future.result(LIMIT) == len(block)
    assert not proxy.cut_is_due
    assert lines(path) == ["run"]


def test_cut_in_the_middle_of_a_large_result(farm, proxy, tmp_path):
    path = tmp_path / "ran"
    proxy.cut_after(5 << 20)

    found = farm.submit(lambda: (tasks.append(path, "run"), bytes(20 << 20))[1]).result(LIMIT)

    assert len(found) == 20 << 20
    assert not proxy.cut_is_due
    assert lines(path) == ["run"]


@pytest.mark.parametrize("count", [1, 10, 40, 60, 100, 150, 200, 300, 400, 500])
def test_cut_in_the_handshake(addresses, count):
    """Wherever it is cut, the next try succeeds."""
    with Proxy(addresses[1]) as proxy:
        proxy.cut_after(count)
        with FarmExecutor(addresses=[proxy.address]) as executor:
            assert executor.submit(pow, 2, 3).result(LIMIT) == 8
            assert not proxy.cut_is_due


def test_stall(farm, proxy, tmp_path):
    """A link that stands still for a while loses nothing."""
    path = tmp_path / "ran"
    proxy.stall()
    found = [farm.submit(tasks.record, path, i) for i in range(50)]
    with pytest.raises(futures.TimeoutError):
        found[0].result(scaled(0.3))
    assert lines(path) == []
    proxy.flow()

    assert [future.result(LIMIT) for future in found] == [*range(50)]
    assert once_each(path, 50)
    assert proxy.links == 1


def test_stall_and_cut(farm, proxy, tmp_path):
    """K58: what the network took and never delivered is sent again, in both directions."""
    path, release = tmp_path / "ran", tmp_path / "release"
    held = farm.submit(tasks.record_and_wait, path, 0, release)
    wait_until(lambda: lines(path), 20)
    proxy.stall()
    found = [held] + [farm.submit(tasks.record, path, i) for i in range(1, 30)]
    release.touch()  # the first result is on its way, and stands in the proxy
    with pytest.raises(futures.TimeoutError):
        held.result(scaled(0.2))
    proxy.cut()
    proxy.flow()

    assert [future.result(LIMIT) for future in found] == [*range(30)]
    assert once_each(path, 30)


def test_trickle(farm, proxy, tmp_path):
    """Bytes that come a few at a time."""
    path = tmp_path / "ran"
    proxy.trickle(7)
    found = [farm.submit(tasks.record, path, i) for i in range(10)]

    assert [future.result(LIMIT) for future in found] == [*range(10)]
    assert once_each(path, 10)


def test_map_through_cuts(farm, proxy, tmp_path):
    """Batches too run once each, and the order stays."""
    path = tmp_path / "ran"
    proxy.cut_after(4000)
    results = []
    for value in farm.map(tasks.record, [path] * 300, range(300)):
        results.append(value)
        if value in (100, 200):
            proxy.cut()

    assert results == [*range(300)]
    assert once_each(path, 300)


def test_cancel_and_kill_through_a_cut(farm, proxy, tmp_path):
    """What is asked for while the link is down is done when it is back."""
    running = farm.submit(tasks.spin, tmp_path / "started")
    waiting = [farm.submit(tasks.record, tmp_path / "ran", i) for i in range(5)]
    wait_until((tmp_path / "started").exists, 20)
    proxy.refuse()
    cancelled = waiting[-1].cancel()
    killing = threading.Thread(target=farm.kill, args=(running,))
    killing.start()
    proxy.accept()
    killing.join(LIMIT)

    assert isinstance(running.exception(LIMIT), futures.BrokenExecutor)
    assert [future.result(LIMIT) for future in waiting[:-1]] == [*range(4)]
    assert cancelled == waiting[-1].cancelled()
    assert ("4" in lines(tmp_path / "ran")) != cancelled


def test_shutdown_while_the_link_is_down(proxy, tmp_path):
    """It waits for what runs, as it says, and the link comes back meanwhile."""
    path = tmp_path / "ran"
    executor = FarmExecutor(addresses=[proxy.address])
    found = [executor.submit(tasks.record_and_nap, path, i, 0.01) for i in range(10)]
    wait_until(lambda: lines(path), 20)
    proxy.refuse()
    ending = threading.Thread(target=executor.shutdown)
    ending.start()
    proxy.accept()
    ending.join(LIMIT)

    assert not ending.is_alive()
    assert [future.result(0) for future in found] == [*range(10)]
    assert once_each(path, 10)


def test_link_away_for_longer_than_the_grace(server, tmp_path):
    """K59: the server ends the session; the tasks run again when it can be reached."""
    path, release = tmp_path / "ran", tmp_path / "release"
    with (
        Proxy(server.address) as proxy,
        FarmExecutor(addresses=[proxy.address], session_grace=0.5) as executor,
    ):
        pid = executor.submit(tasks.pid).result(LIMIT)
        future = executor.submit(tasks.record_and_wait, path, "run", release)
        wait_until(lambda: lines(path), 20)
        proxy.refuse()
        wait_gone([pid], 5)  # its workers end with the session
        release.touch()
        proxy.accept()

        assert future.result(LIMIT) == "run"
        assert lines(path) == ["run"] * 2
        assert executor.submit(tasks.pid).result(LIMIT) != pid


def test_link_away_for_longer_than_the_grace_at_most_once(server, tmp_path):
    """K58: with ``retries=0`` it is ServerLost, while the server is still away."""
    path = tmp_path / "ran"
    with (
        Proxy(server.address) as proxy,
        FarmExecutor(addresses=[proxy.address], session_grace=0.5) as executor,
    ):
        executor.wait_for_workers(1, LIMIT)
        future = executor.options(retries=0).submit(
            tasks.record_and_wait, path, "run", tmp_path / "never"
        )
        wait_until(lambda: lines(path), 20)
        proxy.refuse()

        assert isinstance(future.exception(LIMIT), ServerLost)
        assert lines(path) == ["run"]
        proxy.accept()
        assert executor.submit(pow, 2, 3).result(LIMIT) == 8


def test_one_link_of_two_is_cut(addresses, tmp_path):
    """The other server's tasks do not notice."""
    path = tmp_path / "ran"
    with (
        Proxy(addresses[0]) as proxy,
        FarmExecutor(addresses=[proxy.address, addresses[1]]) as executor,
    ):
        executor.wait_for_workers(2, LIMIT)
        found = [executor.submit(tasks.record_and_nap, path, i, 0.002) for i in range(200)]
        for count in (20, 60, 120):
            wait_until(lambda count=count: len(lines(path)) > count, 20)
            proxy.cut()

        assert [future.result(LIMIT) for future in found] == [*range(200)]
        assert once_each(path, 200)


def test_corrupted_bytes_end_that_link_only(farm, proxy, tmp_path, addresses):
    """K63: the frame is refused, the link is taken up anew, and nothing runs twice."""
    path = tmp_path / "ran"
    hit = []

    def spoil(data):
        proxy.tamper = None
        hit.append(len(data))
        return b"\xff" * len(data)

    proxy.tamper = spoil
    found = [farm.submit(tasks.record, path, i) for i in range(20)]

    try:
        assert [future.result(LIMIT) for future in found] == [*range(20)]
        assert once_each(path, 20)
    except ServerLost:
        pass  # also an honest answer; what must not be is a hang, or a second run
    assert hit
    assert len(lines(path)) == len(set(lines(path)))
    with FarmExecutor(addresses=[addresses[0]]) as other:
        assert other.submit(pow, 2, 3).result(LIMIT) == 8


def test_replayed_bytes_do_nothing(proxy, farm, tmp_path):
    """A recorded conversation, sent again by somebody else, is refused at the first proof."""
    path = tmp_path / "ran"
    assert farm.submit(tasks.record, path, 1).result(LIMIT) == 1
    recorded = bytes(proxy.sent[0])
    for part in (recorded, recorded[: len(recorded) // 2], recorded[:-1]):
        with socket.create_connection(("127.0.0.1", proxy._target[1]), scaled(10)) as peer:
            peer.sendall(part)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(65536):
                pass

    assert farm.submit(tasks.record, path, 2).result(LIMIT) == 2
    assert lines(path) == ["1", "2"]


def test_dead_link_to_a_living_worker(farm, proxy, tmp_path):
    """The worker is the same before and after any number of cuts."""
    pid = farm.submit(tasks.pid).result(LIMIT)
    for _ in range(10):
        proxy.cut()
        assert farm.submit(tasks.pid).result(LIMIT) == pid
    assert alive(pid)
