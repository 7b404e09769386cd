"""
Nothing that lies in the current folder runs in what we start, unless user code imports it.

The folder here has a file for each module of the standard library, and of what we need besides. It
takes note of being imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from remote_executor import FarmExecutor, end_server, ping
from remote_executor.launch.bootstrap import bundle, first_stage
from remote_executor.launch.stages import MARK
from tests.support.faults import free_port
from tests.support.scale import scaled
from tests.support.waiting import wait_until

from .conftest import environment

LIMIT = scaled(60)
NEEDED = ("cloudpickle", "tblib", "cryptography", "numpy", "gssapi", "paramiko", "zipimport")
NAMES = sorted({*sys.stdlib_module_names, *NEEDED} - set(sys.builtin_module_names))
SECRET = "a secret of the test's own"

CLIENT = """
import json, os, sys
from remote_executor import FarmExecutor, start_server

def loaded(executor):
    # A function by value, an error, a result that is no plain value: what is loaded for these?
    assert executor.submit(lambda: 1).result(60) == 1
    assert isinstance(executor.submit(eval, "1 / 0").exception(60), ZeroDivisionError)
    return executor.submit(eval, "sorted(__import__('sys').modules)").result(60)

def use_helper(executor):
    return executor.submit(eval, "__import__('helper').__file__").result(60)

planted, how = sys.argv[1:]
if how.startswith("warm "):
    # It has loaded all that it needs before it gets there, as a notebook has.
    with FarmExecutor(1) as executor:
        loaded(executor)
    with start_server(workers=1) as server, FarmExecutor(addresses=[server.address]) as executor:
        loaded(executor)
    os.chdir(planted)
    sys.path.insert(0, "")
options = {"preload": ["helper"]} if "preload" in how else {}
found = {}
if "embedded" in how:
    with FarmExecutor(1, **options) as executor:
        found["modules"] = loaded(executor)
        if sys.path[0] == "":
            found["helper"] = use_helper(executor)
else:
    with start_server(workers=1, **options) as server:
        with FarmExecutor(addresses=[server.address]) as executor:
            found["modules"] = loaded(executor)
            if sys.path[0] == "":
                found["helper"] = use_helper(executor)
print(json.dumps(found))
"""


class Planted:
    """A folder full of traps."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.log = self.folder.parent / "imported"
        self.folder.mkdir()
        trap = f"with open({str(self.log)!r}, 'a') as log: log.write(__name__ + '\\n')\n"
        for name in NAMES:
            (self.folder / f"{name}.py").write_text(trap)
        (self.folder / "helper.py").write_text("")

    def imported(self):
        """Return which of them were imported."""
        return set(self.log.read_text().split()) if self.log.exists() else set()


@pytest.fixture
def planted(tmp_path):
    return Planted(tmp_path / "planted")


def run_client(planted, tmp_path, how):
    """Run the client; return what it has found out."""
    script = tmp_path / "elsewhere" / "client.py"
    script.parent.mkdir()
    script.write_text(CLIENT)
    done = subprocess.run(
        [sys.executable, str(script), str(planted.folder), how],
        cwd=script.parent if how.startswith("warm ") else planted.folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert planted.imported() == set()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("how", ["embedded", "local"])
def test_servers_that_are_started_import_nothing_from_the_current_folder(planted, tmp_path, how):
    found = run_client(planted, tmp_path, how)

    # All that a worker has loaded is among the names that were planted.
    tops = {name.partition(".")[0] for name in found["modules"]} - set(sys.builtin_module_names)
    assert len(tops & set(NAMES)) > 40
    assert {name for name in tops if name in sys.stdlib_module_names} <= set(NAMES)


@pytest.mark.parametrize("how", ["warm embedded", "warm local"])
def test_the_current_folder_is_back_before_user_code_runs(planted, tmp_path, how):
    """``import helper`` means what it means in the program; the start still imports nothing."""
    found = run_client(planted, tmp_path, how)

    assert Path(found["helper"]) == planted.folder / "helper.py"


@pytest.mark.parametrize("how", ["warm embedded preload", "warm local preload", "embedded preload"])
def test_modules_to_be_preloaded_may_be_in_the_current_folder(planted, tmp_path, how):
    found = run_client(planted, tmp_path, how)

    assert "helper" in found["modules"]


@pytest.fixture
def planted_for_m(planted, tmp_path):
    """Return the folder without what ``python -m`` takes from there itself, before we are there."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "trivial.py").write_text("")
    path = os.pathsep.join(filter(None, [str(elsewhere), os.environ.get("PYTHONPATH")]))
    for _ in range(len(NAMES)):
        done = subprocess.run(
            [sys.executable, "-m", "trivial"],
            cwd=planted.folder,
            env=environment(PYTHONPATH=path),
            capture_output=True,
            timeout=LIMIT,
        )
        taken = planted.imported()
        if not taken:
            break
        for name in taken:
            (planted.folder / f"{name}.py").unlink()
        planted.log.unlink()
    assert done.returncode == 0
    assert len(list(planted.folder.iterdir())) > len(NAMES) - 40
    return planted


def commands(*words):
    """Return the ways to call our program, and of each how it is called."""
    beside = Path(sys.executable).parent / "remote-executor"
    yield [sys.executable, "-m", "remote_executor", *words]
    if beside.exists():
        yield [str(beside), *words]


@pytest.mark.parametrize(
    "words", [["--version"], ["token", "path"], ["ping", "127.0.0.1:1"]], ids=str
)
def test_the_command_line_imports_nothing_from_the_current_folder(planted_for_m, words):
    for line in commands(*words):
        subprocess.run(
            line, cwd=planted_for_m.folder, env=environment(), capture_output=True, timeout=LIMIT
        )
        assert planted_for_m.imported() == set(), line


def test_serve_imports_nothing_from_the_current_folder(planted_for_m):
    for line in commands("serve", "--workers", "1", "--port"):
        address = f"127.0.0.1:{free_port()}"
        line.append(address.partition(":")[2])
        with subprocess.Popen(line, cwd=planted_for_m.folder, env=environment()) as server:
            wait_until(lambda: ping(address, timeout=scaled(5)), 30)  # noqa: B023
            with FarmExecutor(addresses=[address]) as executor:
                assert executor.submit(abs, -1).result(LIMIT) == 1
            end_server(address)
            server.wait(LIMIT)
        assert planted_for_m.imported() == set(), line


def test_a_launched_server_imports_nothing_from_the_folder_that_it_starts_in(planted, tmp_path):
    """As over SSH, from the first stage on: the folder is the user's home there."""
    library = bundle()
    config = {"mark": MARK, "secret": SECRET, "places": ["127.0.0.1:0"], "workers": 1, "env": {}}
    config |= {"preload": [], "grace": 5.0, "log_file": None, "log_level": "warning"}
    config |= {"zip_size": len(library.data), "certificate": None}
    boot = "import sys;stdin=sys.stdin.buffer;exec(stdin.read(int(stdin.readline())))"
    env = environment(XDG_CACHE_HOME=str(tmp_path / "cache"))
    del env["PYTHONPATH"]
    said = first_stage(library.digest) + json.dumps(config).encode() + b"\n" + library.data
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", boot],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=planted.folder,
        env=env,
    ) as server:
        server.stdin.write(said)
        server.stdin.flush()
        for line in server.stdout:
            if b'"address"' in line:
                address = json.loads(line.partition(MARK.encode())[2])["address"]
                break
        with FarmExecutor(addresses=[address], auth=SECRET) as executor:
            found = executor.submit(eval, "__import__('remote_executor').__file__").result(LIMIT)
            assert found.startswith(str(tmp_path / "cache"))
            assert executor.submit(lambda: 1).result(LIMIT) == 1
        server.stdin.close()
        server.wait(LIMIT)
    assert planted.imported() == set()
