"""Which modules a program has of its own."""

from __future__ import annotations

import importlib
import sys

import pytest

from remote_executor.modules.claims import Claims
from remote_executor.payload.modules import Modules


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    folder.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]


def names(claims):
    claims.look()
    fields = claims.fields()
    return set(fields["own"]), set(fields["found"])


def test_what_is_loaded_is_claimed_and_what_is_installed_is_not(project):
    (project / "own_claimed.py").write_text("")
    importlib.import_module("own_claimed")
    own, _ = names(Claims(Modules()))

    assert "own_claimed" in own
    assert not own & {"pytest", "json", "os", "__main__", "remote_executor"}


def test_what_is_loaded_later_is_claimed_then(project):
    (project / "own_later.py").write_text("")
    claims = Claims(Modules())
    assert "own_later" not in names(claims)[0]
    before = claims.version
    importlib.import_module("own_later")
    assert claims.may_have_changed()
    assert "own_later" in names(claims)[0]
    assert claims.version != before
    assert not claims.may_have_changed()


def test_what_an_import_would_find_is_told_apart(project):
    (project / "own_found.py").write_text("")
    (project / "own_package").mkdir()
    (project / "own_package" / "__init__.py").write_text("")
    (project / "own_data").mkdir()
    (project / "wave.py").write_text("")
    (project / "sys.py").write_text("")
    (project / "os.py").write_text("")
    own, found = names(Claims(Modules()))

    assert {"own_found", "own_package", "wave"} <= found
    assert not own & {"own_found", "wave"}
    assert not found & {"own_data", "sys", "os"}, "an import here would find others"


def test_python_s_own_comes_first_if_it_does_here(tmp_path, monkeypatch):
    (tmp_path / "wave.py").write_text("")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    importlib.invalidate_caches()

    assert "wave" not in names(Claims(Modules()))[1]


def test_a_package_with_compiled_parts_is_not_claimed(project):
    folder = project / "own_compiled"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    importlib.import_module("own_compiled")
    assert "own_compiled" in names(Claims(Modules()))[0]
    (folder / "deep" / "fast.abi3.so").write_bytes(b"")

    assert "own_compiled" not in names(Claims(Modules()))[0]


def test_what_each_machine_has_of_its_own_is_not_claimed(project):
    (project / "sitecustomize.py").write_text("")
    (project / "usercustomize.py").write_text("")
    own, found = names(Claims(Modules()))

    assert not (own | found) & {"sitecustomize", "usercustomize"}


def test_only_what_may_be_served_is_claimed(project):
    for name in ("own_a", "own_b"):
        (project / f"{name}.py").write_text("")
        importlib.import_module(name)

    assert names(Claims(Modules(["own_a"])))[0] & {"own_a", "own_b"} == {"own_a"}
    assert names(Claims(Modules("never"))) == (set(), set())


def test_an_embedded_server_hears_only_what_it_may_have_of_python_s_own(project, monkeypatch):
    (project / "own_beside.py").write_text("")
    (project / "wave.py").write_text("")
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    for name in ("own_beside", "wave"):
        importlib.import_module(name)
    for elsewhere in (True, False):
        claims = Claims(Modules(), elsewhere=elsewhere)
        claims.look()

        assert claims.fields(elsewhere=False) == {"own": ["wave"], "found": []}
    assert claims.version == 1
