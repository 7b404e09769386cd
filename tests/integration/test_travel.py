"""
Functions travel to other versions of Python, and results back.

By default between the newest and the oldest Python on this machine, both ways. All pairs::

    REMOTE_EXECUTOR_ALL_PARAMETERS=1 python -m pytest tests/integration/test_travel.py
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.pythons import MINORS, environment, find_pypy, find_pythons
from tests.support.scale import scaled
from tests.support.tools import missing

KINDS = Path(__file__).parents[1] / "support" / "kinds.py"
ALL = bool(os.environ.get("REMOTE_EXECUTOR_ALL_PARAMETERS"))
ENDS = ["oldest", "newest"]
CPYTHONS = [f"3.{minor}" for minor in MINORS] if ALL else ENDS
PAIRS = [(ours, theirs) for ours in CPYTHONS for theirs in CPYTHONS if ALL or ours != theirs]
PAIRS += [("newest", "pypy3")] if not ALL else [(ours, "pypy3") for ours in CPYTHONS]


@pytest.fixture(scope="session")
def pythons():
    """Return the CPythons of this machine, also as "oldest" and "newest"."""
    found = find_pythons()
    paths = list(found.values())
    return {**found, "oldest": paths[0], "newest": paths[-1]}


@pytest.fixture(scope="session")
def travelling(tmp_path_factory):
    """Return an environment for any Python."""
    return environment(tmp_path_factory.mktemp("site"))


def choose(pythons, name):
    if name == "pypy3":
        found = find_pypy()
        if found is None:
            missing("pypy3", "Debian: apt-get install pypy3")
        path, version = found
        if version < (3, MINORS[0]):
            pytest.skip(f"pypy3 is Python {version[0]}.{version[1]}, which is too old")
        return path
    if name not in pythons:
        pytest.skip(f"Python {name} is not on this machine")
    return pythons[name]


@contextlib.contextmanager
def serving(python, folder, env):
    """Run a server, in an empty folder, and give its address."""
    folder.mkdir()
    address = f"unix:{folder / 'socket'}"
    command = [python, "-m", "remote_executor", "serve", "--unix", str(folder / "socket")]
    with subprocess.Popen(
        [*command, "--workers", "1"], cwd=folder, env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert "listening" in process.stdout.readline()
            yield address
        finally:
            process.terminate()
            process.stdout.read()


def run(python, script, *arguments, env):
    done = subprocess.run(
        [python, str(script), *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=scaled(50),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_kinds_of_function(ours, theirs, pythons, travelling, tmp_path):
    """K6, K7, K8, K10, K11, K12, K68, L1, L3-L8, L11, L16: right, or CannotShip, never else."""
    client, server = choose(pythons, ours), choose(pythons, theirs)
    if not ALL and client == server:
        pytest.skip("there is only one Python on this machine")

    with serving(server, tmp_path / "there", travelling) as address:
        found = run(client, KINDS, address, env=travelling)

    outcomes = found["outcomes"]
    wrong = {name: words for name, words in outcomes.items() if words != "right"}
    wrong = {name: words for name, words in wrong.items() if not words.startswith("CannotShip: ")}
    assert wrong == {}
    assert found["foreign"] is (client != server)
    assert len([words for words in outcomes.values() if words == "right"]) >= 60
