"""How a Python of ours starts: what it imports from, and in which order."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

from remote_executor.net.start import ROOT, START, UsersFolders, add_folder

LIBRARY = os.path.dirname(os.__file__)


def test_our_folder_stands_behind_the_standard_library():
    path = [
        "/of/PYTHONPATH",
        "/z.zip",
        LIBRARY,
        f"{LIBRARY}/lib-dynload",
        f"{LIBRARY}/site-packages",
    ]
    add_folder("/ours", path)

    assert path.index("/ours") == 4
    add_folder("/ours", path)
    assert path.count("/ours") == 1


def test_where_the_standard_library_is_not_seen_it_is_the_last():
    path = ["/a", "/b"]
    add_folder("/ours", path)

    assert path == ["/a", "/b", "/ours"]


def start(folder, *lines, options=(), **env):
    """Return what a Python says that starts as ours do, in a folder."""
    code = START + "\n".join(lines)
    done = subprocess.run(
        [sys.executable, *options, "-c", code, ROOT, "first", "second"],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_current_folder_is_gone_and_pythonpath_stays(tmp_path):
    said = start(tmp_path, "print(here, *sys.path)", PYTHONPATH="/of/PYTHONPATH")

    assert said[0] == "True"
    assert "/of/PYTHONPATH" in said[1:]
    assert str(tmp_path) not in said[1:]
    assert said.index(ROOT) > said.index(LIBRARY)


def test_a_current_folder_that_pythonpath_names_is_meant(tmp_path):
    said = start(tmp_path, "print(*sys.path)", PYTHONPATH=str(tmp_path))

    assert said.count(str(tmp_path)) == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="-P is not in Python 3.10")
def test_where_python_leaves_it_out_it_was_not_there(tmp_path):
    assert start(tmp_path, "print(here)", options=["-P"]) == ["False"]


def test_the_other_arguments_stay(tmp_path):
    assert start(tmp_path, "print(*sys.argv[1:])") == ["first", "second"]


def test_our_package_is_the_one_of_who_starts_us(tmp_path):
    """Whatever PYTHONPATH has under that name."""
    (tmp_path / "remote_executor").mkdir()
    (tmp_path / "remote_executor" / "__init__.py").write_text("raise SystemExit('another one')")
    said = start(tmp_path, "print(remote_executor.__file__)", PYTHONPATH=str(tmp_path))

    assert said == [os.path.join(ROOT, "remote_executor", "__init__.py")]


def test_nothing_is_left_behind_in_the_import_system(tmp_path):
    assert start(tmp_path, "print(Ours in sys.meta_path)") == ["False"]


def test_the_users_folders_hold_no_module_of_pythons_own(tmp_path, monkeypatch):
    for name in ("own_mechanism", "msvcrt", "winreg"):
        (tmp_path / f"{name}.py").write_text("")
    finder = UsersFolders([str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder])
    importlib.invalidate_caches()

    assert importlib.import_module("own_mechanism").__file__ == str(tmp_path / "own_mechanism.py")
    del sys.modules["own_mechanism"]
    for name in ("msvcrt", "winreg"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
    assert finder.find_spec("own_mechanism.part", ["/x"]) is None
