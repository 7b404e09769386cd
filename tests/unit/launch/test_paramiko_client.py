"""SSH by paramiko, as far as it goes without a server."""

from __future__ import annotations

import logging

import pytest

from remote_executor.errors import LaunchFailed
from remote_executor.launch.clients import Logins, Unsteady
from remote_executor.launch.hosts import SSHHost
from remote_executor.launch.stages import Progress
from tests.support.tools import require_module


@pytest.fixture
def connect(tmp_path):
    """Return a function that connects to a host as a configuration says."""
    require_module("paramiko")
    from remote_executor.launch.paramiko_client import ParamikoClient

    def connect(host, config):
        path = tmp_path / "config"
        path.write_text(config)
        return ParamikoClient("strict", str(path)).connect(host, Progress(host), None, None)

    return connect


@pytest.mark.parametrize(
    "lines",
    [
        "HostName x;touch${IFS}{mark}",
        "HostName %h$(touch${IFS}{mark})",
        "HostName `touch${IFS}{mark}`",
        "HostName x|tee${IFS}{mark}",
        "HostName -oProxyCommand",
        "User me;touch${IFS}{mark};",
        "User $(touch${IFS}{mark})",
    ],
)
def test_names_that_a_shell_would_act_upon_reach_no_proxy_command(connect, tmp_path, lines):
    """It is run by sh, and its %h, %r and %p are put in unquoted."""
    mark, ran = tmp_path / "mark", tmp_path / "ran"
    lines = lines.replace("{mark}", str(mark))
    config = f"Host node1\n  {lines}\n  ProxyCommand touch {ran}; echo %h %r %p\n"

    # OpenSSH 10 itself refuses some of them.
    refusals = r"ProxyCommand is not run: .*shell|not the name|environment variable expansion"
    with pytest.raises(LaunchFailed, match=refusals) as e:
        connect(SSHHost("node1"), config)

    assert e.value.stage == "configuration"
    assert not mark.exists()
    assert not ran.exists()


def test_what_a_proxy_command_wrote_stands_in_the_error(connect):
    config = "Host node1\n  ProxyCommand echo no route to the moon >&2\n"

    with pytest.raises(Unsteady, match="the ProxyCommand wrote: no route to the moon"):
        connect(SSHHost("node1"), config)


def test_what_paramiko_calls_an_error_is_for_debugging(caplog):
    require_module("paramiko")
    from remote_executor.launch import paramiko_client

    logger = logging.getLogger("remote_executor.paramiko")
    caplog.set_level("INFO", "remote_executor.paramiko")
    logger.error("Exception: Error reading SSH protocol banner")
    assert not caplog.records
    caplog.set_level("DEBUG", "remote_executor.paramiko")
    logger.error("Exception: Error reading SSH protocol banner")
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert paramiko_client._log is logger


def test_a_few_log_in_at_a_time_at_each_server():
    logins = Logins()
    for place in ("a:22", "b:22"):
        held = [logins.at(place).acquire(blocking=False) for _ in range(9)]
        assert held == [True] * 8 + [False]


def test_a_proxy_command_with_names_that_are_fit_is_run(connect, tmp_path):
    ran = tmp_path / "ran"
    config = f"Host node1\n  ProxyCommand echo %h %r %p > {ran}\n"

    with pytest.raises(Exception, match="SSH"):  # what it says is no banner
        connect(SSHHost("node1", user="DOM-me", port=2222), config)

    assert ran.read_text().split() == ["node1", "DOM-me", "2222"]
