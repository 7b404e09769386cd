"""Other releases of what the library depends on, each in a folder of its own."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.tools import missing

__all__ = ["oldest_admitted", "release"]

ROOT = Path(__file__).parents[2]


def oldest_admitted(library: str) -> str:
    """Return the oldest version of a library that ``pyproject.toml`` admits, such as "3.0"."""
    text = (ROOT / "pyproject.toml").read_text()
    dependencies = re.search(r"^dependencies = \[(.*)\]$", text, re.MULTILINE)
    assert dependencies is not None
    for version, sign, minor in re.findall(
        rf'"{library}>=([\d.]+)(?:; python_version(<|>=)\'3\.(\d+)\')?"', dependencies[1]
    ):
        if not sign or (sign == "<") is (sys.version_info < (3, int(minor))):
            return str(version)
    raise LookupError(f"no dependency on {library} for this Python")


@functools.cache
def release(library: str, which: str) -> Path:
    """
    Return a folder for ``PYTHONPATH`` that holds one release of a library, and nothing else.

    Args:
        library: Its name.
        which: ``"oldest"`` that is admitted, or ``"newest"`` that there is.
    """
    wanted = f"{library}=={oldest_admitted(library)}.*" if which == "oldest" else library
    if wanted.count(".") == 1:
        wanted = wanted.replace(".*", ".0.*")
    folder = tempfile.TemporaryDirectory(prefix=f"{library}-{which}-")
    _kept.append(folder)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--no-deps", "--target", folder.name, wanted],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        missing(f"{wanted} from pip", done.stderr.strip().splitlines()[-1][:200])
    return Path(folder.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []
