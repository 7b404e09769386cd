"""
A Jupyter kernel runs the notebook of examples/ on a farm that has nothing of it.

It needs the extra ``notebook``, for which .ci/run has a step of its own.
"""

from __future__ import annotations

import shutil

import pytest

from tests.integration.conftest import ROOT
from tests.support.tools import require_extra

RUN = """
import sys
import nbclient, nbformat

notebook = nbformat.read("notebook.ipynb", 4)
nbclient.NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
print(notebook.cells[-1].outputs[0]["text"])
"""


@pytest.mark.timeout(150)
@pytest.mark.parametrize("where", ["servers", "embedded"])
def test_the_notebook(where, run_script, tmp_path, serve):
    """K7: cells, changed cells, classes, a module beside it, and autoreload."""
    require_extra("notebook", "nbclient", "ipykernel")
    folder = tmp_path / "notebook"
    folder.mkdir()
    shutil.copy(ROOT / "examples" / "notebook.ipynb", folder)
    env = {"JUPYTER_PLATFORM_DIRS": "1", "IPYTHONDIR": str(tmp_path / "ipython")}
    if where == "servers":
        env["REMOTE_EXECUTOR_ADDRESSES"] = serve(workers=2).address

    source = f"import os; os.chdir({str(folder)!r})\n" + RUN
    code, out, err = run_script(source, env=env, limit=120)

    assert (code, out) == (0, "all is well\n\n"), err
