"""Servers over SSH on networks that are far, bad, or cut."""

from __future__ import annotations

import threading
import time

import pytest

from remote_executor import FarmExecutor, LaunchFailed
from tests.integration.test_ssh import CLIENTS, processes_of
from tests.support.faults import Proxy, alive, wait_gone
from tests.support.namespaces import Chain
from tests.support.scale import scaled
from tests.support.ssh_tasks import append_and_nap, stay_the_first_time
from tests.support.sshd import Keys, SSHServer
from tests.support.tools import require, require_module
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

require_module("paramiko", "pip install 'paramiko>=3.4'")
require("sshd", "Debian's package openssh-server")


@pytest.fixture(scope="module")
def keys(_leak_baseline, tmp_path_factory):
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def chain(_leak_baseline):
    """Two jump hosts, and a host behind both."""
    with Chain(3) as made:
        yield made


@pytest.fixture(scope="module")
def servers(chain, keys, tmp_path_factory):
    made = []
    try:
        for number, alias in enumerate(["jump1", "jump2", "behind"]):
            folder = tmp_path_factory.mktemp(alias)
            wrapper, address = chain.inside(number), chain.addresses[number]
            made.append(SSHServer(folder, keys, alias=alias, wrapper=wrapper, address=address))
        yield made
    finally:
        for each in made:
            each.stop()


@pytest.fixture(params=CLIENTS)
def client(request):
    return request.param


@pytest.fixture
def config(servers, tmp_path):
    path = tmp_path / "config"
    first, second, behind = servers
    path.write_text(
        first.client_lines() + second.client_lines() + behind.client_lines("ProxyJump jump1,jump2")
    )
    return str(path)


def spawn(host, config, **options):
    options.setdefault("connect_timeout", scaled(40))
    return FarmExecutor.spawn_over_ssh([host], 1, ssh_config=config, **options)


def test_a_host_behind_two_others(config, client):
    with spawn("behind", config, client=client) as executor:
        assert executor.submit(pow, 2, 10).result(scaled(20)) == 1024
        pids = processes_of(executor)
    wait_gone(pids, 5)


def test_a_short_cut_is_nothing(chain, config, client, tmp_path):
    """3 seconds: no task is lost and none runs twice."""
    log = tmp_path / "log"
    with spawn("jump1", config, client=client) as executor:
        executor.submit(abs, -1).result(scaled(20))
        before = processes_of(executor)
        futures = [executor.submit(append_and_nap, str(log), n, 0.3) for n in range(15)]
        wait_until(lambda: log.exists() and len(log.read_text().split()) > 2, 10)
        chain.unplug()
        try:
            time.sleep(3)
        finally:
            chain.plug()
        assert [future.result(scaled(40)) for future in futures] == list(range(15))
        assert log.read_text().split() == [str(n) for n in range(15)]
        assert processes_of(executor) == before


def test_a_cut_past_the_grace_ends_the_server(chain, config, client, tmp_path):
    """PARITY S9: and its tasks run again on the next."""
    log = tmp_path / "log"
    with spawn("jump1", config, client=client, session_grace=2) as executor:
        executor.submit(abs, -1).result(scaled(20))
        pids = processes_of(executor)
        future = executor.submit(stay_the_first_time, str(log))
        wait_until(log.exists, 10)
        chain.unplug()
        try:
            wait_gone(pids, 3 + 5)  # no link counts as silent before 3 s
        finally:
            chain.plug()
        assert future.result(scaled(60)) == "again"
        assert not any(map(alive, pids))


# ------------------------------------------------------------------ lines that are bad


@pytest.fixture
def near(keys, tmp_path):
    """An SSH server behind a proxy, and the client's configuration to go through that."""
    with SSHServer(tmp_path / "node", keys) as server:
        with Proxy(f"127.0.0.1:{server.port}") as proxy:
            port = proxy.address.rpartition(":")[2]
            path = tmp_path / "config"
            path.write_text(server.client_lines().replace(str(server.port), port))
            server.known_hosts.write_text(keys.known_hosts(f"[127.0.0.1]:{port}"))
            yield proxy, server, str(path)


def later(seconds, call):
    timer = threading.Timer(seconds, call)
    timer.start()
    return timer


def test_far_away(near, client):
    """50 ms there and 50 ms back."""
    proxy, _, config = near
    proxy.delay(0.05)
    with spawn("node", config, client=client) as executor:
        assert list(executor.map(abs, range(-2000, 0))) == list(range(2000, 0, -1))
        blob = bytes(2_000_000)
        assert executor.submit(len, blob).result(scaled(20)) == len(blob)


def test_a_server_that_is_slow_to_greet(near, client):
    proxy, _, config = near
    proxy.stall()
    timer = later(1.5, proxy.flow)
    try:
        with spawn("node", config, client=client) as executor:
            assert executor.submit(abs, -1).result(scaled(20)) == 1
    finally:
        timer.join()


def test_a_server_that_drops_connections_is_tried_again(near, client):
    """As one does that has too many logins under way (MaxStartups)."""
    proxy, _, config = near
    proxy.refuse()
    timer = later(0.5, proxy.accept)
    try:
        with spawn("node", config, client=client) as executor:
            assert executor.submit(abs, -1).result(scaled(20)) == 1
    finally:
        timer.join()


def test_a_server_that_drops_all_connections(near, client):
    proxy, _, config = near
    proxy.refuse()
    with pytest.raises(LaunchFailed) as caught:
        spawn("node", config, client=client)
    assert caught.value.stage == "connect"
    assert "5 times" in caught.value.reason


def test_a_server_that_runs_no_commands(keys, tmp_path, client):
    with SSHServer(tmp_path / "node", keys, "MaxSessions 0") as server:
        with pytest.raises(LaunchFailed) as caught:
            spawn("node", str(server.config), client=client)
    assert caught.value.stage in ("boot", "connect")


def test_many_hosts_are_not_too_many_at_once(keys, tmp_path):
    """No more than eight log in at a time, so an SSH server drops none of them."""
    with SSHServer(tmp_path / "node", keys, "MaxStartups 8:100:8") as server:
        lines = [server.client_lines()]
        lines += [
            server.client_lines().replace(f"Host {server.alias}", f"Host node{number}")
            for number in range(11)
        ]
        config = tmp_path / "config"
        config.write_text("".join(lines))
        hosts = [f"node{number}" for number in range(11)]
        with FarmExecutor.spawn_over_ssh(
            hosts, 1, ssh_config=str(config), min_servers=11, connect_timeout=scaled(60)
        ) as executor:
            assert len(executor.broadcast(abs, -1)) == 11
        assert "drop connection" not in server.log.read_text()
