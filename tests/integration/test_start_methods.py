"""Twenty programs on fork, spawn, loky and a farm: the guide's table is what comes out."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.integration.conftest import ROOT, environment
from tests.support.scale import scaled

pytestmark = pytest.mark.slow

KINDS = ("fork", "spawn", "loky", "ours")
FOLDER = ROOT / "tests" / "projects" / "start_methods"


def table():
    """Return the guide's table: the outcomes of each program."""
    text = (ROOT / "examples" / "guides" / "code.md").read_text("utf-8")
    part = re.search(r"<!-- start methods -->(.*)<!-- /start methods -->", text, re.S)
    rows = [re.findall(r"[^|]+", line) for line in part[1].splitlines() if line.startswith("| `")]
    return {cells[0].strip().strip("`"): [cell.strip() for cell in cells[1:]] for cells in rows}


@pytest.mark.timeout(120)
def test_the_table(require_module):
    """Spawn's semantics of ``__main__`` are the comparison (issue's item 2; K7, K10, L13)."""
    require_module("loky")
    started = {
        kind: subprocess.Popen(
            [sys.executable, "-W", "ignore", "programs.py", kind],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # pools that break say so at length
            env=environment(),
            cwd=FOLDER,
        )
        for kind in KINDS
    }
    try:
        out = {
            kind: process.communicate(timeout=scaled(90))[0] for kind, process in started.items()
        }
    finally:
        for process in started.values():
            process.kill()
            process.wait()
    found = {kind: json.loads(text) for kind, text in out.items()}

    assert len(found["ours"]) == 20
    assert {name: [found[kind][name] for kind in KINDS] for name in found["ours"]} == table()
