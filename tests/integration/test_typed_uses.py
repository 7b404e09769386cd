"""Type checkers know what each use gives. ``mypy --strict`` checks the file with the library."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.scale import scaled

ROOT = Path(__file__).parents[2]
USES = ROOT / "tests" / "typed_uses.py"


def check(*command):
    done = subprocess.run(
        [*command, str(USES)], cwd=ROOT, capture_output=True, text=True, timeout=scaled(100)
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_there_are_enough_of_them():
    assert USES.read_text(encoding="utf-8").count("    assert_type(") >= 60


def test_mypy_is_told_of_them():
    """It takes a minute where it knows nothing of numpy yet: that is a step of its own."""
    assert '"tests/typed_uses.py"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.timeout(scaled(120))
def test_pyright_agrees():
    program = shutil.which("pyright")
    if program is None:
        pytest.skip("pyright is not installed (npm install --global pyright)")
    check(program, "--pythonpath", sys.executable)
