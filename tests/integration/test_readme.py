"""The programs in README.md and in the guides do what they say, in a folder where nothing is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.scale import scaled

ROOT = Path(__file__).parents[2]
TEXTS = [ROOT / "README.md", *sorted(ROOT.glob("examples/guides/*.md"))]
BLOCKS = [
    block
    for text in TEXTS
    for block in re.findall(r"^```python\n(.*?)^```", text.read_text("utf-8"), re.M | re.S)
]
RUN = ("with p.make_kernel", "(Mechanism)", "if __name__ == ")
HERE = [block for block in BLOCKS if any(part in block for part in RUN)]


def run(block, folder):
    program = folder / "program.py"
    program.write_text(block, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=scaled(40),
    )


def test_the_programs_are_found():
    assert len(HERE) >= 4


@pytest.mark.parametrize("block", HERE, ids=range(len(HERE)))
def test_a_program_runs(block, tmp_path):
    done = run(block, tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    if "(Mechanism)" in block:
        assert done.stdout == "1024\n"


@pytest.mark.parametrize("block", [block for block in HERE if "  # 14\n" in block])
def test_the_comments_are_true(block, tmp_path):
    lines = []
    for line in block.splitlines():
        found = re.match(r"    (p\.p\w+\(.*\))  # (.*)", line)
        if found and "all or nothing" not in line:
            value = re.search(r'\d+$|\[.*\]|"\w+"', found[2])[0]
            line = f"    assert {found[1]} == {value}"
            lines.append(line)
        else:
            lines.append(line)
    assert sum("assert" in line for line in lines) == 5

    done = run("\n".join(lines), tmp_path)

    assert (done.returncode, done.stderr) == (0, "")


KEPT = (ROOT / "examples/guides/results-that-last.md").read_text("utf-8")


@pytest.mark.parametrize("block", re.findall(r"^```python\n(.*?)^```", KEPT, re.M | re.S))
def test_what_is_printed_stands_behind_it(block, tmp_path):
    done = run(block, tmp_path)

    assert done.stderr == ""
    assert done.stdout.splitlines() == re.findall(r"print\(.*\)  # (.*)", block)
