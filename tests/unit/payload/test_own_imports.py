"""Our own late imports do not come from the user's folders."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from remote_executor.payload import own_imports
from remote_executor.payload.own_imports import load_own, use_own_path
from remote_executor.server.imports import OnImport

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Return two folders, ours and the user's, which is imported from."""
    ours, users = tmp_path / "ours", tmp_path / "users"
    for folder in (ours, users):
        folder.mkdir()
        (folder / "own_late.py").write_text(f"import own_needed\nwhere = {folder.name!r}\n")
        (folder / "own_needed.py").write_text(f"where = {folder.name!r}\n")
    (users / "own_helper.py").write_text("")
    monkeypatch.syspath_prepend(users)
    monkeypatch.setattr(own_imports._own, "path", None)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield ours, users
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def test_what_we_load_comes_from_our_folders_with_all_that_it_imports(folders):
    use_own_path([str(folders[0])])
    before = list(sys.meta_path)
    load_own("own_late")

    assert (sys.modules["own_late"].where, sys.modules["own_needed"].where) == ("ours", "ours")
    assert sys.meta_path == before


def test_who_waits_for_the_import_of_a_module_hears_of_it_all_the_same(folders):
    """As a worker waits for ``logging``: see server/imports.py."""
    called = []
    OnImport("own_needed", lambda: called.append(sys.modules["own_needed"].where))
    use_own_path([str(folders[0])])
    load_own("own_late")

    assert called == ["ours"]


def test_what_is_not_there_comes_from_the_users(folders):
    use_own_path([str(folders[0])])
    load_own("own_helper")

    assert "own_helper" in sys.modules


def test_where_no_path_was_named_nothing_is_loaded_ahead(folders):
    load_own("own_late")

    assert "own_late" not in sys.modules


def test_an_error_leaves_nothing_behind(folders):
    (folders[0] / "own_late.py").write_text("1 / 0")
    use_own_path([str(folders[0])])
    before = list(sys.meta_path)
    with pytest.raises(ZeroDivisionError):
        load_own("own_late")

    assert sys.meta_path == before


def test_what_a_pickle_names_comes_from_our_folders_too(folders, monkeypatch):
    for folder in folders:
        (folder / "own_pickler.py").write_text("from own_late import where\n")
    monkeypatch.setattr(own_imports, "PICKLES_NAME", ("own_pickler",))
    use_own_path([str(folders[0])])

    assert __import__("own_pickler").where == "ours"
    assert __import__("own_helper")


def test_it_loads_nothing_itself():
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
    code += "import remote_executor.payload.own_imports; "
    code += "print('dis' in sys.modules, 'logging' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_what_we_load_under_a_name_of_the_users_is_for_us_alone(folders, monkeypatch):
    monkeypatch.setattr(own_imports, "theirs", {"own_needed"})
    use_own_path([str(folders[0])])
    load_own("own_late")

    assert sys.modules["own_late"].where == "ours"
    assert "own_needed" not in sys.modules
    assert importlib.import_module("own_needed").where == "users"


def test_what_the_user_has_loaded_under_that_name_stays(folders, monkeypatch):
    monkeypatch.setattr(own_imports, "theirs", {"own_needed"})
    use_own_path([str(folders[0])])
    users = importlib.import_module("own_needed")
    with own_imports.own_first, own_imports.own_first:
        assert importlib.import_module("own_needed").where == "ours"
    load_own("own_late")

    assert sys.modules["own_needed"] is users
    assert sys.modules["own_late"].own_needed.where == "ours"
