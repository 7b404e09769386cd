"""
What SSH costs.

The bars are for the tunnel, through which a farm's link goes, against a bare connection of the same
program as it comes. The numbers of whole farms (which also have a worker read what was sent) stand
beside them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tests.bench import tasks
from tests.bench.bars import Bar, Measure
from tests.bench.measures import noop
from tests.bench.ssh_peers import SSH_PEERS, Bare
from tests.bench.tasks import warm

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tests.bench.bars import Factory

__all__ = ["SSH"]

MEGABYTES = 50


def ssh_bytes(factory: Factory, size: int) -> dict[str, float]:
    """Move so many blocks of 50 MB there, all at once, and then as many back."""
    numbers = {}
    with factory() as peer:
        count = MEGABYTES * 1_000_000
        blob = bytearray(count)

        def there(blocks: int) -> None:
            if isinstance(peer, Bare):
                peer.move(blocks * count, 0)
            else:
                _wait([peer.submit(tasks.size_of, blob) for _ in range(blocks)])

        def back(blocks: int) -> None:
            if isinstance(peer, Bare):
                peer.move(0, blocks * count)
            else:
                _wait([peer.submit(bytearray, count) for _ in range(blocks)])

        if not isinstance(peer, Bare):
            warm(peer)
        for name, move in (("there", there), ("back", back)):
            move(1)
            start = time.perf_counter()
            move(size)
            numbers[name] = size * count / 1e6 / (time.perf_counter() - start)
    return numbers


def _wait(futures: list[Future[Any]]) -> None:
    # Drop each as it comes: to keep them all would measure the memory.
    while futures:
        futures.pop(0).result()


def ssh_first_result(factory: Factory, size: int) -> dict[str, float]:
    """Spawn, wait for the first result; the zip is there already."""
    from remote_executor import FarmExecutor

    hosts = {"one-host": ["node0"], "four-hosts": [f"node{number}" for number in range(4)]}
    names = hosts[next(name for name, each in SSH_PEERS.items() if each is factory)]
    times = []
    with factory() as server:
        for _ in range(size + 1):
            start = time.perf_counter()
            with FarmExecutor.spawn_over_ssh(names, 1, ssh_config=str(server.config)) as executor:
                assert executor.submit(abs, -1).result() == 1
                times.append(time.perf_counter() - start)
    return {"seconds": sorted(times[1:])[size // 2]}


def _against(client: str, number: str, what: str) -> Bar:
    ours, bare = f"tunnel-{client}", f"bare-{client}"
    return Bar(number, f"blocks of 50 MB {what}", "MB/s", "ratio", 0.9, True, (bare,), ours)


SSH: dict[str, Measure] = {
    "ssh-bytes": Measure(
        ssh_bytes,
        (
            *("tunnel-paramiko", "bare-paramiko", "farm-paramiko"),
            *("tunnel-openssh", "bare-openssh", "farm-openssh", "farm-direct"),
        ),
        6,
        2,
        3,
        (
            _against("paramiko", "there", "to the host through paramiko"),
            _against("paramiko", "back", "from the host through paramiko"),
            _against("openssh", "there", "to the host through ssh"),
            _against("openssh", "back", "from the host through ssh"),
        ),
    ),
    "ssh-noop": Measure(
        noop,
        ("farm-paramiko", "farm-openssh", "farm-direct"),
        20_000,
        2_000,
        3,
        (
            Bar(
                "rate", "no-ops through paramiko", "/s", "plain", 20_000, True, (), "farm-paramiko"
            ),
            Bar("rate", "no-ops through ssh", "/s", "plain", 20_000, True, (), "farm-openssh"),
        ),
    ),
    "ssh-first-result": Measure(
        ssh_first_result,
        ("four-hosts", "one-host"),
        5,
        1,
        3,
        (
            Bar(
                "seconds",
                "first result of 4 hosts, against 1",
                "s",
                "ratio",
                1.5,
                False,
                ("one-host",),
                "four-hosts",
            ),
        ),
    ),
}
