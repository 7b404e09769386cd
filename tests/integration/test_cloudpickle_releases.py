"""Functions of a script keep file and line in a worker, whatever cloudpickle either end has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.releases import release
from tests.support.scale import scaled

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, sys, traceback, warnings
import cloudpickle
from remote_executor import FarmExecutor

def fails(x):
    raise ValueError(x)  # the line that fails

def warns(x):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("careful")  # the line that warns
    return caught[0].filename, caught[0].lineno

def where():
    import inspect
    code = inspect.currentframe().f_code
    return code.co_filename, code.co_firstlineno, cloudpickle.__version__

exec(compile("\\n\\ndef made(): return 1 / 0", "/nowhere/made.py", "exec"))

with FarmExecutor(addresses=[sys.argv[1]]) as ex:
    error = ex.submit(fails, 3).exception(30)
    frames = traceback.extract_tb(error.__traceback__)
    made = ex.submit(made).exception(30)
    found = {
        "fails": [frames[-1].filename, frames[-1].lineno, str(error.__cause__)],
        "warns": ex.submit(warns, 1).result(30),
        "where": ex.submit(where).result(30),
        "lambda": ex.submit(lambda: sys._getframe().f_code.co_filename).result(30),
        "made": str(made.__cause__),
        "version": cloudpickle.__version__,
    }
print(json.dumps(found))
"""


def environment(folder):
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@pytest.mark.parametrize(
    ("ours", "theirs"), [("newest", "newest"), ("oldest", "newest"), ("newest", "oldest")]
)
def test_files_and_lines(ours, theirs, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    line = {
        text: 1 + PROGRAM[: PROGRAM.index(text)].count("\n")
        for text in ("# the line that fails", "# the line that warns", "def where")
    }
    (tmp_path / "there").mkdir()
    socket = str(tmp_path / "there" / "socket")
    with subprocess.Popen(
        [sys.executable, "-m", "remote_executor", "serve", "--unix", socket, "--workers", "1"],
        cwd=tmp_path / "there",
        env=environment(release("cloudpickle", theirs)),
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert "listening" in server.stdout.readline()
            done = subprocess.run(
                [sys.executable, str(program), f"unix:{socket}"],
                env=environment(release("cloudpickle", ours)),
                capture_output=True,
                text=True,
                timeout=scaled(60),
                check=False,
            )
        finally:
            server.terminate()
            server.stdout.read()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])

    filename, number, text = found["fails"]
    assert (filename, number) == (str(program), line["# the line that fails"])
    assert f'File "{program}", line {number}, in fails' in text
    assert "raise ValueError(x)  # the line that fails" in text
    assert found["warns"] == [str(program), line["# the line that warns"]]
    assert found["where"][:2] == [str(program), line["def where"]]
    assert found["lambda"] == str(program)
    assert 'File "/nowhere/made.py", line 3, in made' in found["made"]
    assert (found["where"][2] == found["version"]) is (ours == theirs)
