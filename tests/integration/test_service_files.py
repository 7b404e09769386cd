"""The files for service managers that stand in the examples: they are what these read."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess

import pytest
import yaml

from remote_executor.cli import _parser
from tests.support.house import ROOT
from tests.support.tools import missing

FILES = ROOT / "examples" / "services"


def commands(text):
    """Find the calls of our command line in a file of whatever kind."""
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        if "remote-executor serve" in line:
            call = line[line.index("remote-executor serve") :].rstrip("& ")
            call = re.sub(r'"?\$\{?(SLURM_CPUS_PER_TASK|port)\}?"?', "4", call)
            yield shlex.split(call)[1:]
        elif '"remote-executor", ' in line:
            yield re.findall(r'"([^"]*)"', line)[1:]


@pytest.mark.parametrize(
    ("name", "count"),
    [("remote-executor.service", 1), ("Dockerfile", 1), ("kubernetes.yaml", 2), ("slurm.sh", 1)],
)
def test_the_commands_are_ones_that_there_are(name, count):
    found = list(commands((FILES / name).read_text("utf-8")))

    assert len(found) == count
    for arguments in found:
        given = _parser().parse_args(arguments)
        assert given.run.__name__ in ("_serve", "_ping", "_drain")


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes.yaml"])
def test_yaml_is_yaml(name):
    documents = list(yaml.safe_load_all((FILES / name).read_text("utf-8")))
    if name == "compose.yaml":
        arguments = documents[0]["services"]["farm"]["command"]
    else:
        pod = documents[1]["spec"]["template"]["spec"]["containers"][0]
        arguments = pod["args"]
        assert pod["ports"][0]["containerPort"] == documents[0]["spec"]["ports"][0]["port"]
    assert _parser().parse_args(["serve", *arguments]).workers == 4


@pytest.mark.parametrize("name", ["remote-executor.service", "remote-executor.socket"])
def test_systemd_understands_its_units(tmp_path, name):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        missing("systemd-analyze")
    for each in FILES.glob("remote-executor.*"):
        text = each.read_text("utf-8").replace(
            "/opt/remote-executor/bin/remote-executor", "/bin/true"
        )
        (tmp_path / each.name).write_text(text, "utf-8")

    done = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / name)], capture_output=True, text=True
    )

    ours = [line for line in done.stderr.splitlines() if "remote-executor" in line]
    assert ours == []


def test_the_shell_script_is_one():
    assert subprocess.run(["sh", "-n", str(FILES / "slurm.sh")]).returncode == 0
