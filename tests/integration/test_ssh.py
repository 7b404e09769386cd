"""``FarmExecutor.spawn_over_ssh`` against a real OpenSSH server on the loopback (PARITY S1-S12)."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import pickle
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import pytest

from remote_executor import (
    AddressError,
    AuthenticationFailed,
    ConnectionFailed,
    FarmExecutor,
    LaunchFailed,
    PayloadError,
    SSHHost,
    end_remote_servers,
    ping,
    server_status,
    start_remote_servers,
)
from remote_executor.launch import openssh_client
from remote_executor.launch.bootstrap import bundle
from remote_executor.net.tokens import load_token
from tests.support import tasks
from tests.support.faults import alive, free_port, wait_gone
from tests.support.pythons import find_pythons
from tests.support.scale import scaled
from tests.support.ssh_tasks import append_and_nap, stay_and_leave
from tests.support.sshd import Keys, SSHServer
from tests.support.tools import missing, require, require_module
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

require_module("paramiko", "pip install 'paramiko>=3.4'")
require("sshd", "Debian's package openssh-server")

CLIENTS = ["paramiko", "openssh"]


@pytest.fixture(scope="module")
def keys(_leak_baseline, tmp_path_factory):
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def node(_leak_baseline, keys, tmp_path_factory):
    """A host, shared by the tests that do it no harm."""
    with SSHServer(tmp_path_factory.mktemp("node"), keys) as server:
        yield server


@pytest.fixture
def another(keys, tmp_path):
    """Return a function that starts an SSH server of the test's own."""
    started = []

    def start(*options, **settings):
        server = SSHServer(tmp_path / f"node{len(started)}", keys, *options, **settings)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(params=CLIENTS)
def client(request):
    if request.param == "openssh":
        require("ssh", "Debian's package openssh-client")
    return request.param


def spawn(server, workers=1, *, hosts=None, **options):
    options.setdefault("ssh_config", str(server.config))
    options.setdefault("connect_timeout", scaled(40))
    return FarmExecutor.spawn_over_ssh(hosts or [server.alias], workers, **options)


def failure(server, **options):
    """Return why nothing can be started there."""
    with pytest.raises(LaunchFailed) as caught:
        spawn(server, **options)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    return caught.value


def processes_of(executor):
    """Return the pids of the servers of an executor and of all that they have started."""
    import psutil

    pids = set()
    for server in executor.status().servers:
        root = psutil.Process(server.pid)
        pids |= {root.pid, *(each.pid for each in root.children(recursive=True))}
    return pids


def write_script(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


# ------------------------------------------------------------------------ what it gives


def test_tasks_run_there_with_nothing_installed(node, client):
    with spawn(node, 2, client=client) as executor:
        assert executor.submit(pow, 2, 10).result(scaled(20)) == 1024
        assert executor.submit(lambda x: x + 1, 1).result(scaled(20)) == 2
        assert executor.submit(tasks.add, 1, 2).result(scaled(20)) == 3
        assert list(executor.map(tasks.square, range(100))) == [n * n for n in range(100)]
        blob = bytes(range(256)) * 40_000
        assert executor.submit(tasks.same, blob).result(scaled(20)) == blob
        with pytest.raises(RuntimeError, match="foo"):
            executor.submit(tasks.fail).result(scaled(20))
        (server,) = executor.status().servers
        assert (server.address, server.slots) == (node.alias, 2)
        library = executor.submit(eval, "__import__('remote_executor').__file__").result(scaled(20))
        assert library.startswith(str(node.cache))
        # pmap's own parts are there, too.
        from remote_executor.parallel import pmap

        with executor.as_kernel():
            assert pmap(tasks.square, [1, 2, 3]) == [1, 4, 9]


def test_the_zip_travels_once_and_is_private(another, client):
    """A umask of 000 there does not open it to others."""
    server = another()
    with spawn(server, client=client, setup="umask 000") as executor:
        assert executor.submit(os.umask, 0).result(scaled(20)) == 0
    (kept,) = (server.cache / "remote_executor").iterdir()
    assert kept.name == f"{bundle().digest}.zip"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    before = kept.stat().st_mtime_ns

    with spawn(server, client=client):
        assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["bytes", "mode", "link"])
def test_a_zip_that_others_may_have_written_is_not_used(another, damage):
    server = another()
    folder = server.cache / "remote_executor"
    folder.mkdir(parents=True, mode=0o700)
    kept = folder / f"{bundle().digest}.zip"
    kept.write_bytes(bundle().data[:-1] if damage == "bytes" else bundle().data)
    kept.chmod(0o666 if damage == "mode" else 0o600)
    if damage == "link":
        kept.rename(server.folder / "elsewhere")
        kept.symlink_to(server.folder / "elsewhere")

    with spawn(server) as executor:
        assert executor.submit(abs, -1).result(scaled(20)) == 1

    assert kept.read_bytes() == bundle().data
    assert not kept.is_symlink()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_home_without_room_is_no_hindrance(another, tmp_path):
    """A temporary folder takes its place, and is gone afterwards."""
    here = tmp_path / "temporary"
    here.mkdir()
    server = another(environment={"XDG_CACHE_HOME": "/dev/null/cache", "TMPDIR": str(here)})

    with spawn(server) as executor:
        library = executor.submit(eval, "__import__('remote_executor').__file__").result(scaled(20))
        assert library.startswith(str(here))

    wait_until(lambda: not list(here.iterdir()), 5, "the end of the temporary folder")


def test_a_full_home_is_no_hindrance(another, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", full], capture_output=True
        ).returncode
    ):
        pytest.skip("no right to mount a small file system")
    try:
        server = another(environment={"XDG_CACHE_HOME": str(full)})
        with spawn(server) as executor:
            assert executor.submit(abs, -1).result(scaled(20)) == 1
        assert [each for each in full.rglob("*") if each.is_file()] == []
    finally:
        subprocess.run(["umount", full], check=True)


def test_the_secret_is_in_no_argv_no_environment_and_no_file(node, client):
    with spawn(node, client=client) as executor:
        assert executor.submit(abs, -1).result(scaled(20)) == 1
        (peer, _), *_ = executor._driver.peers()
        secret = peer.way._secret
        assert len(secret) == 64
        for pid in processes_of(executor):
            for what in ("cmdline", "environ"):
                assert secret not in Path(f"/proc/{pid}/{what}").read_bytes()
        for path in [*node.folder.rglob("*"), *Path("/tmp").glob("remote_executor-*/*")]:
            if path.is_file():
                assert secret not in path.read_bytes()


def test_env_setup_and_log_file(node, tmp_path):
    """PARITY S8, S12: what is run first, and a log a server."""
    log = tmp_path / "a 'log' file"
    host = SSHHost(
        node.alias, env={"COLOUR": "blue $HOME"}, setup="SIZE='big one'; export SIZE", workers=1
    )
    with spawn(node, hosts=[host], log_file=str(log)) as executor:
        look = executor.submit(eval, "[__import__('os').environ[x] for x in ('COLOUR', 'SIZE')]")
        assert look.result(scaled(20)) == ["blue $HOME", "big one"]
    wait_until(lambda: "goodbye" in log.read_text(), 5, "the log's last line")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_python_in_a_path_with_blanks_and_quotes(node, tmp_path):
    """PARITY S7: two shells, and what they make of it."""
    folder = tmp_path / "a 'b' \"c\" $d !e \\f"
    folder.mkdir()
    path = write_script(folder / "python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')

    with spawn(node, python=path) as executor:
        assert executor.submit(abs, -1).result(scaled(20)) == 1


@pytest.mark.parametrize("shell", ["bash", "tcsh"])
def test_a_login_shell_that_greets(another, shell):
    """PARITY S7; others are tried in tests/unit/launch."""
    program = require(shell, f"Debian's package {shell}")
    server = another(f'ForceCommand echo Welcome!; exec {program} -c "$SSH_ORIGINAL_COMMAND"')

    with spawn(server, setup="true 'a b' && : \"$HOME\"") as executor:
        assert executor.submit(abs, -1).result(scaled(20)) == 1


def test_a_python3_that_is_a_shim_is_passed_over(node, another, tmp_path):
    """It exists, and does not run."""
    write_script(
        tmp_path / "python3", "#!/bin/sh\necho 'pyenv: python3: not found' >&2; exit 127\n"
    )
    os.symlink(sys.executable, tmp_path / "python3.12")
    server = another(environment={"PATH": f"{tmp_path}:/usr/bin:/bin"})

    with spawn(server) as executor:
        assert executor.submit(abs, -1).result(scaled(20)) == 1


def other_python():
    mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found = [path for version, path in find_pythons().items() if version != mine]
    return found[-1] if found else missing("another Python from 3.10 on")


def test_another_python(node):
    """Functions go by reference or as source; what cannot go says why before anything is sent."""
    namespace = {}
    exec("def without_source(): return 1", namespace)
    with spawn(node, python=other_python()) as executor:
        assert executor.submit(pow, 2, 10).result(scaled(20)) == 1024
        assert list(executor.map(abs, range(-50, 0))) == list(range(50, 0, -1))
        assert executor.submit(sorted, [3, 1, 2], reverse=True).result(scaled(20)) == [3, 2, 1]
        (server,) = executor.status().servers
        assert executor.submit(lambda: server.python).result(scaled(20)) == server.python
        with pytest.raises(PayloadError, match=server.python):
            executor.submit(namespace["without_source"]).result(scaled(20))


# ----------------------------------------------------------------------------- the end


def test_all_is_gone_soon_after_shutdown(node, client, tmp_path):
    """PARITY S9, S11: server, workers and grandchildren."""
    with spawn(node, 2, client=client) as executor:
        executor.submit(stay_and_leave, str(tmp_path / "pid"))
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), 20)
        pids = processes_of(executor) | {int((tmp_path / "pid").read_text())}
        assert all(map(alive, pids))
        executor.terminate_workers()

    wait_gone(pids, 5)


SCRIPT = """
import sys, time
from pathlib import Path
from remote_executor import FarmExecutor
from tests.integration.test_ssh import processes_of
from tests.support.ssh_tasks import stay_and_leave

if __name__ == "__main__":
    config, client, path, grace = sys.argv[1:]
    executor = FarmExecutor.spawn_over_ssh(
        ["node"], 1, ssh_config=config, client=client, session_grace=float(grace)
    )
    executor.submit(stay_and_leave, path)
    while not Path(path).exists() or not Path(path).read_text():
        time.sleep(0.01)
    print(*processes_of(executor), Path(path).read_text(), flush=True)
    time.sleep(60)
"""


def test_all_is_gone_soon_after_the_client_is_killed(node, client, tmp_path, start_script):
    """PARITY S9: nobody says goodbye; the grace of a cut network does not matter."""
    script = start_script(SCRIPT, args=[node.config, client, tmp_path / "pid", 60])
    pids = set(map(int, script.process.stdout.readline().split()))
    assert len(pids) >= 4, script.process.stderr.read()

    script.process.kill()

    wait_gone(pids, 5)


FORK = SCRIPT.replace(
    "    time.sleep(60)",
    """
    import os
    if not os.fork():
        os.close(1), os.close(2)
        time.sleep(20)
        os._exit(0)
    print("forked", flush=True)
    time.sleep(60)
""",
)


def test_a_forked_child_does_not_keep_it_alive(node, client, tmp_path, start_script):
    """It holds copies of the parent's descriptors, and lets go of them."""
    script = start_script(FORK, args=[node.config, client, tmp_path / "pid", 60])
    pids = set(map(int, script.process.stdout.readline().split()))
    assert script.process.stdout.readline() == "forked\n"
    (child,) = _children_named_python(script.process.pid)

    script.process.kill()

    try:
        wait_gone(pids, 5)
        assert alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def _children_named_python(pid):
    import psutil

    return [each.pid for each in psutil.Process(pid).children() if "script_" in str(each.cmdline())]


def test_a_cut_connection_is_resumed_over_a_new_one(another, client, tmp_path):
    """The same server, the same workers; no task runs twice."""
    server = another()
    log = tmp_path / "log"
    with spawn(server, 1, client=client, session_grace=scaled(20)) as executor:
        executor.submit(abs, -1).result(scaled(20))
        before = processes_of(executor)
        futures = [executor.submit(append_and_nap, str(log), n, 0.1) for n in range(12)]
        wait_until(lambda: log.exists() and len(log.read_text().split()) > 2, 10)

        server.cut()

        assert [future.result(scaled(30)) for future in futures] == list(range(12))
        assert log.read_text().split() == [str(n) for n in range(12)]
        assert processes_of(executor) == before


def test_a_server_that_is_gone_is_started_again(another, client):
    """As lfarm's obstinacy has it: its tasks run on the next one."""
    server = another()
    with spawn(server, client=client) as executor:
        first = executor.submit(os.getppid).result(scaled(20))
        (status,) = executor.status().servers

        os.kill(status.pid, signal.SIGKILL)

        assert executor.submit(os.getppid).result(scaled(40)) != first


# ------------------------------------------------------------------------- what failed


def test_stage_resolve(node, client):
    error = failure(node, client=client, hosts=["no-such-host.invalid"])

    assert (error.stage, error.address) == ("resolve", "no-such-host.invalid")
    assert "getent" in error.command


def test_stage_connect(node, client):
    port = free_port()
    error = failure(node, client=client, port=port)

    assert error.stage == "connect"
    assert "refused" in error.reason
    assert str(port) in error.command


def test_stage_host_key_of_a_stranger(node, client):
    node.known_hosts.rename(node.folder / "away")
    try:
        error = failure(node, client=client)
    finally:
        (node.folder / "away").rename(node.known_hosts)

    assert error.stage == "host key"
    assert "known" in error.reason or "verification" in error.reason


def test_stage_host_key_that_has_changed(another, keys, client):
    server = another()
    name = f"[127.0.0.1]:{server.port}"
    server.known_hosts.write_text(keys.known_hosts(name, key=keys.other_host))

    for host_keys in ("strict", "accept-new"):
        error = failure(server, client=client, host_keys=host_keys)
        assert error.stage == "host key"
        assert "changed" in f"{error.reason} {error.stderr}".lower()


def test_a_new_host_key_is_added_if_asked_for(another, keys, client):
    server = another()
    server.known_hosts.write_text("# mine\n")

    with spawn(server, client=client, host_keys="accept-new"):
        pass

    text = server.known_hosts.read_text()
    assert text.startswith("# mine\n")
    assert keys.public(keys.host).split()[1] in text
    with spawn(server, client=client):
        pass


def test_stage_authentication(node, keys, client):
    text = node.config.read_text().replace(str(keys.user), str(keys.stranger))
    config = node.folder / "stranger_config"
    config.write_text(text)

    error = failure(node, client=client, ssh_config=str(config))

    assert error.stage == "authentication"
    assert "ssh" in error.command


def test_a_key_that_cannot_be_used_is_named(node, keys, tmp_path):
    text = node.config.read_text().replace(str(keys.user), str(tmp_path / "none"))
    config = node.folder / "no_key_config"
    config.write_text(text)
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("this is no key\n")

    for key, words in (
        (tmp_path / "missing", "No such file"),
        (tmp_path, "directory"),
        (rubbish, "rubbish cannot be used"),
        (keys.encrypted, "encrypted"),
    ):
        error = failure(node, ssh_config=str(config), key_filename=str(key))
        assert error.stage == "authentication"
        assert words in error.reason
        assert str(key) in error.reason


def test_an_agent_has_the_key(node, keys, tmp_path, monkeypatch):
    """The passphrase is the agent's business, and so is the private key."""
    agent, add = require("ssh-agent", "openssh-client"), require("ssh-add", "openssh-client")
    path = tmp_path / "agent"
    process = subprocess.Popen([agent, "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        wait_until(path.exists, 10, "the agent")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        subprocess.run([add, "-q", keys.user], check=True, timeout=scaled(20), capture_output=True)
        shutil.copy(f"{keys.user}.pub", tmp_path / "key.pub")
        config = tmp_path / "config"
        for only in ("IdentitiesOnly no", "IdentitiesOnly yes"):
            text = node.config.read_text().replace("IdentitiesOnly yes", only)
            config.write_text(text.replace(str(keys.user), str(tmp_path / "key")))
            with spawn(node, ssh_config=str(config)) as executor:
                assert executor.submit(abs, -1).result(scaled(20)) == 1
        (tmp_path / "key.pub").unlink()
        assert failure(node, ssh_config=str(config)).stage == "authentication"
    finally:
        process.terminate()
        process.wait(scaled(10))


def test_a_password(keys):
    """Against paramiko's own server, since sshd's would ask the system."""
    with PasswordServer("let me in") as server:
        options = {"port": server.port, "user": "me", "host_keys": "accept-new"}
        for password, stage in (("let me in", "boot"), ("open sesame", "authentication")):
            error = failure(server, password=password, **options)
            assert error.stage == stage  # it runs no commands
            assert password not in str(error)
        error = failure(server, **options)
    assert error.stage == "authentication"
    assert "password" in error.reason


class PasswordServer:
    """An SSH server in a thread that knows one password, and does nothing for who knows it."""

    def __init__(self, password):
        import paramiko

        class Gate(paramiko.ServerInterface):
            def get_allowed_auths(self, username):
                return "password"

            def check_auth_password(self, username, given):
                right = given == password
                return paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED

        self._gate = Gate
        self._key = paramiko.RSAKey.generate(2048)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.alias = "127.0.0.1"
        self._folder = tempfile.TemporaryDirectory()
        self.config = Path(self._folder.name) / "config"
        self.config.write_text(
            f"UserKnownHostsFile {self._folder.name}/known_hosts\n"
            "GlobalKnownHostsFile none\nIdentityFile none\nIdentityAgent none\n"
        )
        self._transports = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self):
        import paramiko

        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(sock)
            transport.add_server_key(self._key)
            transport.start_server(event=threading.Event(), server=self._gate())
            self._transports.append(transport)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(scaled(10))
        for transport in self._transports:
            transport.close()
        self._folder.cleanup()


def test_an_encrypted_key_opens_with_its_passphrase(node, keys, tmp_path):
    text = node.config.read_text().replace(str(keys.user), str(tmp_path / "none"))
    config = node.folder / "encrypted_config"
    config.write_text(text)
    key = str(keys.encrypted)

    with spawn(node, ssh_config=str(config), key_filename=key, password="secret") as executor:
        assert "secret" not in repr(executor._driver.peers()[0][0].way.host)
    error = failure(node, ssh_config=str(config), key_filename=key, password="wrong")
    assert error.stage == "authentication"


def test_openssh_says_that_it_takes_no_password(node):
    error = failure(node, client="openssh", password="x")

    assert error.stage == "authentication"


def test_stage_python_not_found(another, tmp_path):
    server = another(environment={"PATH": str(tmp_path)})
    write_script(tmp_path / "sh", '#!/bin/sh\nexec /bin/sh "$@"\n')

    assert failure(server).stage == "python not found"
    error = failure(server, python="/no/such python")
    assert error.stage == "python not found"


def test_stage_python_too_old(node, tmp_path):
    old = write_script(tmp_path / "old", "#!/bin/sh\necho False 3.6.8\n")

    error = failure(node, python=old)

    assert error.stage == "python too old"
    assert "3.6.8" in error.reason


def test_stage_boot_of_a_login_shell_that_ends(another):
    server = another("ForceCommand echo This account is not available; exit 3")

    error = failure(server)

    assert error.stage == "boot"
    assert "exit status 3" in error.reason
    assert "not available" in error.stderr


def test_stage_boot_of_a_login_shell_that_waits(another, client):
    """Such as one that runs tmux; this one shows what it is sent."""
    server = another("ForceCommand echo tmux says hello; exec cat")

    error = failure(server, client=client, connect_timeout=scaled(10))

    assert error.stage == "boot"
    assert "tmux" in error.reason
    assert "tmux says hello" in error.stderr


def test_stage_boot_of_a_setup_line_that_fails(node):
    error = failure(node, setup="echo no such module >&2; exit 5; true")
    assert error.stage == "boot"

    error = failure(node, setup="echo no such module >&2; (exit 5)")
    assert error.stage == "boot"
    assert "exit status 5" in error.reason


def test_stage_import(node, tmp_path):
    (tmp_path / "signal.py").write_text("raise ImportError('a broken module is in the way')\n")

    error = failure(node, env={"PYTHONPATH": str(tmp_path)})

    assert error.stage == "import"
    assert "a broken module is in the way" in error.stderr


def test_stage_port(another, client):
    server = another("AllowTcpForwarding no", "AllowStreamLocalForwarding no")

    error = failure(server, client=client)

    assert error.stage == "port"
    assert "forward" in error.reason


def test_a_log_file_that_cannot_be_written(node):
    error = failure(node, log_file="/dev/null/log")

    assert error.stage == "boot"
    assert "/dev/null/log" in error.reason


def test_one_bad_host_is_a_warning(node, client, caplog):
    """By default; with ``min_servers`` it is an error."""
    hosts = [node.alias, "no-such-host.invalid"]
    with caplog.at_level(logging.WARNING, "remote_executor"):
        with spawn(node, hosts=hosts, client=client) as executor:
            assert executor.submit(abs, -1).result(scaled(20)) == 1
            wait_until(lambda: "no-such-host.invalid: resolve" in caplog.text, 10)
    error = failure(node, hosts=hosts, client=client, min_servers=2)
    assert error.address == "no-such-host.invalid"


def test_all_bad_hosts_are_an_error_that_names_them(node):
    error = failure(node, hosts=["a.invalid", "b.invalid"])

    assert {error.address, *(note.split()[3] for note in error.__notes__)} >= {error.address}
    assert "invalid" in error.__notes__[0]


@pytest.mark.parametrize(
    ("hosts", "error"),
    [
        ([], AddressError),
        (["a", "a"], AddressError),
        ("node", TypeError),
        ([5], TypeError),
        (["user@"], AddressError),
        (["-oProxyCommand=touch"], AddressError),
    ],
)
def test_hosts_that_cannot_be_meant(node, hosts, error):
    """PARITY S6: before anything is started."""
    with pytest.raises(error):
        FarmExecutor.spawn_over_ssh(hosts, ssh_config=str(node.config))


def test_arguments_that_cannot_be_meant(node, tmp_path):
    for options in (
        {"client": "telnet"},
        {"host_keys": "no"},
        {"ssh_config": str(tmp_path / "none")},
        {"min_servers": 2},
        {"min_servers": 0},
    ):
        with pytest.raises(ValueError, match=next(iter(options)) + "|ssh_config"):
            spawn(node, **options)


# ----------------------------------------------------------------------- configuration


def test_a_configuration_that_cannot_be_read(node, client, tmp_path):
    config = tmp_path / "config"
    config.write_text("Host node\nThisIsNoSetting\n")

    error = failure(node, client=client, ssh_config=str(config))

    assert error.stage == "configuration"


def test_include_and_match(node, client, tmp_path):
    """Files that are included, from a block and from none, one within the other."""
    (tmp_path / "more").write_text(f"Match host 127.0.0.1\n  User {node.user}\n")
    (tmp_path / "most").write_text(f"Include {tmp_path}/mo*re\n" + node.client_lines())
    config = tmp_path / "config"
    config.write_text(
        f"Host other\n  Include {tmp_path}/never\n  Port 1\n"
        f"Match originalhost {node.alias}\n  Include {tmp_path}/most\nHost *\n  Port 1\n"
    )
    (tmp_path / "never").write_text("Host *\n  Port 2\n")

    with spawn(node, ssh_config=str(config), client=client) as executor:
        assert executor.submit(abs, -1).result(scaled(20)) == 1


@pytest.mark.parametrize("how", ["option", "config"])
def test_jump_hosts(node, another, client, tmp_path, how):
    first, second = another(alias="jump1"), another(alias="jump2")
    lines = first.client_lines() + second.client_lines()
    lines += node.client_lines(*["ProxyJump jump1,jump2"] if how == "config" else [])
    config = tmp_path / "config"
    config.write_text(lines)
    options = {"proxy": "jump1,jump2"} if how == "option" else {}

    with spawn(node, ssh_config=str(config), client=client, **options) as executor:
        assert executor.submit(abs, -1).result(scaled(20)) == 1
        assert first.sessions()
        assert second.sessions()


def test_proxy_command(node, client, tmp_path):
    relay = write_script(
        tmp_path / "relay",
        f"#!{sys.executable}\n"
        "import socket, sys, threading, os\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while data := os.read(0, 65536): s.sendall(data)\n"
        "    s.shutdown(1)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536): os.write(1, data)\n",
    )
    config = tmp_path / "config"
    config.write_text(node.client_lines(f"ProxyCommand {relay} %h %p"))

    with spawn(node, ssh_config=str(config), client=client) as executor:
        assert executor.submit(abs, -1).result(scaled(20)) == 1


def test_options_that_would_take_away_our_end_do_no_harm(node, tmp_path):
    require("ssh", "Debian's package openssh-client")
    lines = ["ClearAllForwardings yes", "StdinNull yes", "ForkAfterAuthentication yes"]
    lines += ["SessionType none", "LocalForward 127.0.0.1:1 127.0.0.1:1", "RemoteCommand true"]
    config = tmp_path / "config"
    config.write_text(node.client_lines("IgnoreUnknown *", *lines))

    with spawn(node, ssh_config=str(config), client="openssh") as executor:
        assert executor.submit(abs, -1).result(scaled(20)) == 1


def test_sockets_are_where_there_is_room_for_them_at_both_ends(node, tmp_path, monkeypatch):
    require("ssh", "Debian's package openssh-client")
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(openssh_client, "PLACES", ("/proc", "/dev/shm", "/tmp"))

    with spawn(node, client="openssh") as executor:
        assert executor.submit(abs, -1).result(scaled(20)) == 1
    monkeypatch.setattr(openssh_client, "PLACES", ("/proc", "/sys"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(node.folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    error = failure(node, client="openssh")
    assert error.stage == "port"
    assert "no folder for a socket can be made (/proc: " in error.reason


def test_the_client_is_chosen_by_what_a_host_wants(node, tmp_path, caplog):
    """An authority of host keys is known to ssh alone; else paramiko does."""
    require("ssh", "Debian's package openssh-client")
    caplog.set_level("INFO", "remote_executor.client")
    with spawn(node, client="auto") as executor:
        assert executor.submit(abs, -1).result(scaled(20)) == 1
    assert "the program ssh is used" not in caplog.text
    config = tmp_path / "config"
    config.write_text(node.client_lines("HostKeyAlgorithms ssh-ed25519-cert-v01@openssh.com"))
    error = failure(node, ssh_config=str(config), client="paramiko")
    assert error.reason.endswith("client='openssh' does")
    with contextlib.suppress(LaunchFailed):
        spawn(node, ssh_config=str(config), client="auto")
    assert f"{node.alias}: the program ssh is used: paramiko knows none" in caplog.text


def test_without_paramiko_the_program_ssh_is_used(node, monkeypatch, caplog):
    require("ssh", "Debian's package openssh-client")
    caplog.set_level("INFO", "remote_executor.client")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with spawn(node) as executor:
        assert executor.submit(abs, -1).result(scaled(20)) == 1
    assert "the program ssh is used, since paramiko is not installed" in caplog.text


def test_a_control_master_is_used_and_left_alone(node, tmp_path):
    ssh = require("ssh", "Debian's package openssh-client")
    config = tmp_path / "config"
    config.write_text(node.client_lines("ControlMaster auto", f"ControlPath {tmp_path}/master"))
    master = subprocess.Popen(
        [ssh, "-F", config, "-N", node.alias], stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until((tmp_path / "master").exists, 10, "the master")
        logins = len(node.sessions())
        with spawn(node, ssh_config=str(config), client="openssh") as executor:
            assert executor.submit(abs, -1).result(scaled(20)) == 1
            assert len(node.sessions()) == logins
        assert master.poll() is None
    finally:
        master.terminate()
        master.wait(scaled(10))


# ---------------------------------------------------------- launcher and command line


def test_remote_servers(node, another, client):
    """PARITY S1, S3, S10: several with one call; other processes reach them from here."""
    other = another(alias="other")
    config = other.folder / "both"
    config.write_text(node.client_lines() + other.client_lines())
    with start_remote_servers(
        [node.alias, "other"], workers=1, client=client, ssh_config=str(config)
    ) as servers:
        assert len(servers) == 2
        assert all(ping(address, scaled(5)) for address in servers.addresses)
        with FarmExecutor(addresses=servers.addresses) as executor:
            executor.wait_for_workers(2, scaled(20))
            assert list(executor.map(abs, range(-9, 0))) == list(range(9, 0, -1))
            pids = processes_of(executor)
        # Each host has a secret of its own, which is not the user's token.
        ways = [peer.way for peer, _ in servers._executor._driver.peers()]
        secrets = [load_token(), *(way._secret for way in ways)]
        assert len(set(secrets)) == 3
        with pytest.raises(AuthenticationFailed):
            server_status(servers.addresses[0], auth=secrets[1])
        if client == "paramiko":
            with pytest.raises(AuthenticationFailed):
                server_status(ways[0]._address, auth=secrets[0])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            end_remote_servers(servers)

    wait_gone(pids, 5)


def test_remote_servers_all_or_nothing(node):
    """PARITY S2, S5: the caller hears of the ssh that failed, and nothing of the others is left."""
    before = set(node.sessions())
    with pytest.raises(LaunchFailed) as caught:
        start_remote_servers([node.alias, "no.invalid"], ssh_config=str(node.config), workers=1)
    assert (caught.value.address, caught.value.stage) == ("no.invalid", "resolve")
    assert "no.invalid" in caught.value.command
    wait_until(lambda: set(node.sessions()) <= before, 10, "the end of the one that had started")


def test_a_server_that_cannot_be_reached_is_a_warning_at_the_end(another):
    """PARITY S3."""
    server = another()
    servers = start_remote_servers(
        [server.alias], workers=1, ssh_config=str(server.config), session_grace=1
    )
    server.cut(for_good=True)
    wait_until(servers._lost, 20, "the loss")

    with pytest.warns(RuntimeWarning, match="cannot be reached"):
        end_remote_servers(servers)


def command(*arguments, **settings):
    return subprocess.Popen(
        [sys.executable, "-m", "remote_executor", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
        **settings,
    )


def test_doctor(node, client):
    process = command(
        "doctor", "--ssh-config", node.config, "--client", client, node.alias, "no.invalid"
    )
    out, err = process.communicate(timeout=scaled(40))

    assert process.returncode == 1, err
    good, bad = out.split("no.invalid\n", 1)
    for stage in ("connect", "boot", "import", "port", "a task"):
        assert stage in good
    assert "all is well" in good
    assert "ms" in good
    assert "resolve" in bad
    assert "try by hand" in bad


def test_launch(node, client):
    """Prints addresses; ^C ends the servers (PARITY S9)."""
    process = command(
        "launch", "--ssh-config", node.config, "--client", client, "--workers", 1, node.alias
    )
    try:
        address, host = process.stdout.readline().split()
        assert host == node.alias
        with FarmExecutor(addresses=[address]) as executor:
            assert executor.submit(abs, -1).result(scaled(20)) == 1
            pids = processes_of(executor)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=scaled(20))
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    wait_gone(pids, 5)


# ----------------------------------------------------------------- straight to the host


def test_without_a_tunnel(node, client):
    """Tasks go over TLS to a port of the host; the SSH connection starts the server and ends it."""
    with spawn(node, 2, client=client, tunnel=False) as executor:
        assert list(executor.map(tasks.square, range(100))) == [n * n for n in range(100)]
        ((peer, _),) = executor._driver.peers()
        assert type(peer.stream).__name__ == "TLSStream"
        assert peer.stream.channel().startswith(b"tls-server-end-point:")
        pids = processes_of(executor)
        for pid in pids:
            assert b"PRIVATE KEY" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    wait_gone(pids, 5)


def test_without_a_tunnel_all_is_gone_after_the_client_is_killed(node, tmp_path, start_script):
    script = start_script(
        SCRIPT.replace("session_grace", "tunnel=False, session_grace"),
        args=[node.config, "paramiko", tmp_path / "pid", 60],
    )
    pids = set(map(int, script.process.stdout.readline().split()))
    assert len(pids) >= 4, script.process.stderr.read()

    script.process.kill()

    wait_gone(pids, 5)


def test_without_a_tunnel_a_cut_ssh_connection_alone_is_nothing(another):
    server = another()
    with spawn(server, tunnel=False) as executor:
        before = executor.submit(os.getpid).result(scaled(20))
        server.cut(for_good=True)
        assert executor.submit(tasks.nap, 4, os.getpid()).result(scaled(20))
        assert executor.submit(os.getpid).result(scaled(20)) == before


def test_without_a_tunnel_a_stranger_at_the_port_is_refused(node):
    """The secret was agreed through SSH."""
    with spawn(node, tunnel=False) as executor:
        ((peer, _),) = executor._driver.peers()
        address = peer.way._address
        with FarmExecutor(addresses=[address], auth="another one in words", tls=True) as stranger:
            with pytest.raises(AuthenticationFailed):
                stranger.submit(abs, -1).result(scaled(20))
        with FarmExecutor(addresses=[address], auth="another one in words", tls=False) as stranger:
            with pytest.raises(ConnectionFailed):
                stranger.submit(abs, -1).result(scaled(20))
