"""
The tests on every supported Python of this machine: ``nox -f tests/noxfile.py``.

``nox -f tests/noxfile.py -s tests-3.12 -- tests/unit -x`` passes arguments to pytest.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.pythons import find_pythons  # noqa: E402

PYTHONS = find_pythons()
# Before the shims of a version manager, which may be set to other versions.
os.environ["PATH"] = os.pathsep.join(
    [*(str(Path(path).parent) for path in PYTHONS.values()), os.environ["PATH"]]
)

nox.needs_version = ">=2024.4"
nox.options.envdir = str(ROOT / ".nox")
nox.options.sessions = ["tests"]
nox.options.error_on_missing_interpreters = True


@nox.session(python=list(PYTHONS), venv_backend="venv")
def tests(session: nox.Session) -> None:
    """Run the whole suite, or what is given after ``--``."""
    session.chdir(ROOT)
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=list(PYTHONS)[-1:], venv_backend="venv")
def lint(session: nox.Session) -> None:
    """Run ruff and mypy."""
    session.chdir(ROOT)
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy", "--strict")
    session.run("mypy", "--strict", "--platform", "darwin")


@nox.session(python=list(PYTHONS)[-1:], venv_backend="venv")
def coverage(session: nox.Session) -> None:
    """Run the pure floors' tests and show which branches they miss."""
    session.chdir(ROOT)
    session.install("-e", ".[test]")
    tested = ["tests/unit", "tests/histories", "tests/fuzz"]
    session.run("coverage", "run", "-m", "pytest", "-n", "0", *(session.posargs or tested))
    pure = ",".join(f"remote_executor/{part}" for part in ("*.py", "wire/*", "payload/*", "core/*"))
    session.run("coverage", "report", f"--include={pure}")
