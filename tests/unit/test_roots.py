"""The mirror that roots are made from is the one that apt uses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import roots

DEB822 = """
Types: deb
URIs: http://mirror.example/debian
Suites: trixie
"""


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([DEB822], "http://mirror.example/debian"),
        (["deb http://one.example/debian trixie main\n"], "http://one.example/debian"),
        (
            ["deb [signed-by=/x.gpg arch=amd64] https://two.example/d sid main"],
            "https://two.example/d",
        ),
        (["# deb http://no.example/debian sid main"], roots.USUAL_MIRROR),
        (
            ["deb http://security.example/debian-security trixie", DEB822],
            "http://mirror.example/debian",
        ),
        ([], roots.USUAL_MIRROR),
    ],
)
def test_mirror(texts, found):
    assert roots.mirror(texts) == found


def test_why_not_is_a_reason_or_nothing(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert roots.why_not() == "only root can make one"

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(roots.shutil, "which", lambda name: None)
    assert "debootstrap" in roots.why_not()


def test_without_arguments_it_says_how_it_is_used():
    done = subprocess.run(
        [sys.executable, roots.__file__], capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "roots.py trixie" in done.stderr


def test_a_root_that_was_begun_is_made_anew(monkeypatch, tmp_path):
    monkeypatch.setattr(roots, "PLACE", tmp_path)
    monkeypatch.setattr(roots.Root, "run", lambda *_: None)
    made = []

    def debootstrap(words, **_):
        place = Path(words[-2])
        made.append(place)
        (place / "etc/apt/apt.conf.d").mkdir(parents=True)
        if len(made) == 1:
            raise subprocess.TimeoutExpired(words, 1)

    monkeypatch.setattr(roots.subprocess, "run", debootstrap)
    root = roots.Root("trixie")
    with pytest.raises(subprocess.TimeoutExpired):
        root.make()
    assert not root.path.exists()

    root.make()
    root.make()

    assert len(made) == 2
    assert (root.path / "etc/resolv.conf").exists()


def test_a_copy_without_git_has_the_same_files(tmp_path):
    """As ``.ci/run`` has made one: with environments and caches beside the files."""
    for name in ("a.py", ".gitignore", ".ci/run", "b/c.py", ".venv/x.py", "b/__pycache__/c.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = {".ci/run", ".gitignore", "a.py", "b/c.py"}
    assert set(roots.files_of(tmp_path)) == expected
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text(".venv/\n__pycache__/\n")
    assert set(roots.files_of(tmp_path)) == expected
