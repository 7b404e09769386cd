"""
The Pythons on this machine that the project supports: ``python3 tests/support/pythons.py``.

Prints a line for each minor version, oldest first: the version and the path. ``--ends`` prints
the oldest and the newest only. A pyenv shim whose version is not installed does not run, and one
that cannot make virtual environments is of no use; neither counts.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["MINORS", "environment", "find_pypy", "find_pythons"]

ROOT = Path(__file__).parents[2]

MINORS = range(10, 16)
_QUESTION = """
import ensurepip, sys, sysconfig, venv
if sys.implementation.name == "cpython" and sys.version_info.releaselevel == "final":
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        print(*sys.version_info[:3], sys.executable)
"""


def find_pythons() -> dict[str, str]:
    """Return the path of one CPython for each minor version found, oldest first."""
    found: dict[tuple[int, int, int], str] = {}
    for candidate in _candidates():
        try:
            done = subprocess.run(
                [candidate, "-I", "-c", _QUESTION],
                capture_output=True,
                text=True,
                timeout=30,
                check=True,
            )
            major, minor, micro, path = done.stdout.strip().split(" ", 3)
        except (OSError, ValueError, subprocess.SubprocessError):
            continue
        version = int(major), int(minor), int(micro)
        if version[0] == 3 and version[1] in MINORS:
            found.setdefault(version, path)
    # The latest patch of each minor version comes last and stays.
    return {f"{version[0]}.{version[1]}": found[version] for version in sorted(found)}


def find_pypy() -> tuple[str, tuple[int, int]] | None:
    """Return the path of Debian's pypy3 and the version of Python that it is, if it is there."""
    path = shutil.which("pypy3")
    if path is None:
        return None
    question = "import sys; print(*sys.version_info[:2])"
    done = subprocess.run([path, "-c", question], capture_output=True, text=True, check=True)
    major, minor = map(int, done.stdout.split())
    return path, (major, minor)


def environment(folder: Path) -> dict[str, str]:
    """
    Return an environment in which any Python finds this package and what it needs.

    What it needs is written in Python alone, so it is taken from here, whatever version that is.

    Args:
        folder: Where to put links to it; an empty one.
    """
    for name in ("cloudpickle", "tblib"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        metadata = [*package.parent.glob(f"{name}-*.dist-info")]
        for path in (package, *metadata):
            (folder / path.name).symlink_to(path)
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONHOME"},
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _candidates() -> list[str]:
    names = ["python3", *(f"python3.{minor}" for minor in MINORS)]
    paths = [path for name in names if (path := shutil.which(name))]
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    paths += [str(path) for path in sorted(root.glob("versions/3.*/bin/python3"))]
    paths += [str(path) for path in sorted(Path("/usr/bin").glob("python3.[0-9][0-9]"))]
    return list(dict.fromkeys(paths))


def main() -> int:
    """Print what was found; fail if that is nothing."""
    lines = [f"{version} {path}" for version, path in find_pythons().items()]
    if "--ends" in sys.argv[1:]:
        lines = list(dict.fromkeys([*lines[:1], *lines[-1:]]))
    print("\n".join(lines))
    return 0 if lines else 1


if __name__ == "__main__":
    sys.exit(main())
