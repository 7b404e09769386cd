"""Odd places to run in: no folder, no /proc, refused calls, small files, odd signals, FIPS."""

from __future__ import annotations

import os
import platform
import resource
import signal
import subprocess
import sys

import pytest

from remote_executor import FarmExecutor, WorkerDied, start_server
from tests.integration.conftest import environment
from tests.support import sandbox, tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)

PROGRAM = """
import os, signal, sys
from remote_executor import FarmExecutor, WorkerDied, start_server

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def big(array):
    return int(array.sum())

def use(executor):
    add = 1
    assert executor.submit(lambda x: x + add, 1).result() == 2
    try:
        executor.submit(die).result()
    except WorkerDied as exc:
        assert "SIGKILL" in str(exc), exc
    else:
        raise AssertionError("it lives")
    assert list(executor.map(abs, range(-20, 0))) == list(range(20, 0, -1))
    try:
        executor.submit(int, "x").result()
    except ValueError:
        pass

def main():
    before()
    with FarmExecutor(2) as executor:
        use(executor)
        after()
        use(executor)
        use(executor)
        arrays(executor)
    with start_server(workers=1) as server:
        with FarmExecutor(addresses=[server.address]) as executor:
            use(executor)
    print("fine")

def before():
    pass

def after():
    pass

def arrays(executor):
    pass
"""

MAIN = """
if __name__ == "__main__":
    main()
"""

GONE = """
def leave():
    folder = os.path.join(sys.argv[1], "gone")
    os.mkdir(folder)
    os.chdir(folder)
    if when == "before":
        os.rmdir(folder)

before = leave

def after():
    if when == "after":
        os.rmdir(os.path.join(sys.argv[1], "gone"))
"""

ARRAYS = """
def arrays(executor):
    import numpy
    array = numpy.ones(4_000_000)
    shared = executor.share(array)
    assert list(executor.map(big, [shared] * 3)) == [4_000_000] * 3
    assert executor.submit(big, array).result() == 4_000_000
    assert executor.submit(lambda: big(array)).result() == 4_000_000
    assert executor.submit(numpy.ones, 4_000_000).result().sum() == 4_000_000
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_current_folder_is_gone(run_script, tmp_path, when):
    code, out, err = run_script(PROGRAM + f"when = {when!r}\n" + GONE + MAIN, args=[tmp_path])

    assert (code, out) == (0, "fine\n"), err
    if when == "after":
        assert f"cannot enter {tmp_path}/gone" in err


def test_a_server_is_started_where_no_folder_is(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    lines = [
        f"cd {folder} && rmdir {folder}",
        f"exec {sys.executable} -m remote_executor serve --port 0 --workers 1",
    ]
    process = subprocess.Popen(
        ["sh", "-c", "; ".join(lines)],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=environment(),
        text=True,
    )
    with process:
        try:
            address = process.stdout.readline().split()[-1]
            with FarmExecutor(addresses=[address]) as executor:
                assert executor.submit(lambda: 7).result(LIMIT) == 7
        finally:
            process.terminate()


def ignore():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def block():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD, signal.SIGTERM])


@pytest.mark.parametrize("prepare", [ignore, block])
def test_a_parent_that_ignores_or_blocks_signals(run_script, prepare):
    code, out, err = run_script(PROGRAM + MAIN, preexec_fn=prepare)

    assert (code, out, err) == (0, "fine\n", "")


@pytest.mark.parametrize("how", ["SIG_IGN", "SIG_DFL"])
def test_a_module_that_is_preloaded_may_not_hide_how_workers_end(tmp_path, monkeypatch, how):
    line = f"import signal; signal.signal(signal.SIGCHLD, signal.{how})"
    (tmp_path / "odd_preload.py").write_text(line)
    monkeypatch.syspath_prepend(str(tmp_path))
    with (
        start_server(workers=1, preload=["odd_preload"]) as server,
        FarmExecutor(addresses=[server.address]) as executor,
        pytest.raises(WorkerDied),
    ):
        executor.submit(tasks.kill_self).result(LIMIT)


def test_without_proc(run_script, require, tmp_path):
    unshare = require("unshare", "Debian's package util-linux")
    hide = "mount -t tmpfs none /proc"
    tried = subprocess.run([unshare, "--mount", "sh", "-c", hide], capture_output=True, check=False)
    if tried.returncode:
        # No tool is missing, so this is no failure in any case: not every machine allows it.
        pytest.skip(f"no right to hide /proc ({tried.stderr.decode().strip()})")
    script = tmp_path / "script.py"
    script.write_text(PROGRAM + ARRAYS + MAIN)
    done = subprocess.run(
        [unshare, "--mount", "sh", "-c", f'{hide} && exec "$@"', "sh", sys.executable, str(script)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=scaled(40),
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


@pytest.mark.linux("seccomp")
@pytest.mark.skipif(platform.machine() not in sandbox.NUMBERS, reason="numbers of calls unknown")
@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_calls_that_a_sandbox_refuses(tmp_path, error):
    script = tmp_path / "script.py"
    script.write_text(PROGRAM + ARRAYS + MAIN)
    calls = "waitid,sched_getaffinity,memfd_create"
    done = subprocess.run(
        [sys.executable, sandbox.__file__, error, calls, sys.executable, str(script)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=scaled(40),
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def small_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


def test_files_must_be_small(run_script):
    code, out, err = run_script(PROGRAM + ARRAYS + MAIN, limit=40, preexec_fn=small_files)

    assert (code, out, err) == (0, "fine\n", "")


FIPS = """
import hashlib

def refused(*_, **__):
    raise ValueError("[digital envelope routines] unsupported")

for name in ("md5", "sha1", "blake2b", "blake2s"):
    setattr(hashlib, name, refused)
"""


def test_hashes_that_fips_does_not_allow_are_not_needed(run_script, serve, tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(FIPS)
    travels = """
def is_fips():
    import hashlib
    return hashlib.blake2b is hashlib.md5

def arrays(executor):
    import of_ours
    assert executor.submit(is_fips).result()
    with FarmExecutor(addresses=sys.argv[1]) as elsewhere:
        assert elsewhere.submit(is_fips).result()
        assert elsewhere.submit(of_ours.double, 4).result() == 8
"""
    (tmp_path / "of_ours.py").write_text("def double(x):\n    return 2 * x\n")
    path = f"{folder}{os.pathsep}{environment()['PYTHONPATH']}"

    server = serve(env=environment(PYTHONPATH=path))  # which lacks of_ours: its source travels

    code, out, err = run_script(
        PROGRAM + travels + MAIN, args=[server.address], env={"PYTHONPATH": path}, limit=40
    )

    assert (code, out, err) == (0, "fine\n", "")


@pytest.mark.parametrize("error", ["RuntimeError('no')", "SystemExit(3)", "ImportError('no')"])
def test_what_cannot_be_loaded_ahead_ends_no_server(serve, tmp_path, error):
    package = tmp_path / "packages" / "tblib"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"raise {error}")
    path = f"{package.parent}{os.pathsep}{environment()['PYTHONPATH']}"
    server = serve(env=environment(PYTHONPATH=path))
    with FarmExecutor(addresses=[server.address]) as executor:
        pid = executor.submit(os.getpid).result(LIMIT)
        if error[0] != "I":
            wait_until(
                lambda: "cannot load tblib" in server.log.read_text(), 10, "a line in the log"
            )
        assert executor.submit(os.getpid).result(LIMIT) == pid
        with pytest.raises(ValueError, match="invalid literal"):
            executor.submit(int, "x").result(LIMIT)
    assert server.process.poll() is None
