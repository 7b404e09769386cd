"""Which modules travel by value when a server lacks them (PARITY K7)."""

from __future__ import annotations

import sys
import types

import cloudpickle
import pytest

from remote_executor.payload.modules import travels_by_value


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Import a module or package of the user's own; its functions travel by value at most here."""
    names = []

    def make(name, files):
        for path, text in files.items():
            place = tmp_path / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        names.append(name)
        return __import__(name)

    yield make
    for name in names:
        module = sys.modules.pop(name)
        if name in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.unregister_pickle_by_value(module)


def test_a_script_s_neighbour_travels(imported):
    imported("my_neighbour", {"my_neighbour.py": "X = 1\n"})

    assert travels_by_value("my_neighbour")
    assert travels_by_value("my_neighbour"), "also when asked again"
    assert "my_neighbour" in cloudpickle.list_registry_pickle_by_value()


def test_a_submodule_takes_its_whole_package_along(imported):
    imported("my_package", {"my_package/__init__.py": "", "my_package/part.py": ""})

    assert travels_by_value("my_package.part")
    assert "my_package" in cloudpickle.list_registry_pickle_by_value()


def test_a_package_without_an_init_file_travels(imported):
    imported("my_namespace", {"my_namespace/part.py": ""})

    assert travels_by_value("my_namespace")


@pytest.mark.parametrize("name", ["json", "cloudpickle", "sys", "remote_executor", "not_loaded"])
def test_what_is_not_the_user_s_own_does_not(name):
    assert not travels_by_value(name)


def test_what_has_no_source_does_not(imported, tmp_path, monkeypatch):
    compiled = types.ModuleType("my_compiled")
    compiled.__file__ = str(tmp_path / "my_compiled.so")
    monkeypatch.setitem(sys.modules, "my_compiled", compiled)

    assert not travels_by_value("my_compiled")
