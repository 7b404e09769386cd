"""Reloaded modules are noticed, whoever reloads them."""

from __future__ import annotations

import importlib
import json
import os
import sys
import types

import pytest

from remote_executor.client.reloads import ReloadWatch


@pytest.fixture
def watch(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    watch = ReloadWatch()
    watch.start()
    watch.start()
    assert sys.meta_path.count(watch) == 1
    return watch


def test_a_reload_of_an_own_module_is_noted(watch, tmp_path, monkeypatch):
    (tmp_path / "own_again.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("own_again")
    assert watch.names == [], "an import is no reload"

    importlib.reload(module)
    importlib.reload(module)

    assert watch.names == ["own_again", "own_again"]
    del sys.modules["own_again"]


def test_a_reload_of_another_is_not(watch):
    importlib.reload(json.scanner)
    watch.find_spec("made_by_hand", None, types.ModuleType("made_by_hand"))
    watch.find_spec("missing")

    assert watch.names == []


def test_files_that_autoreload_may_have_reloaded(watch, tmp_path, monkeypatch):
    """Once a cell, since it reloads before a cell is run."""
    file = tmp_path / "own_again.py"
    file.write_text("X = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("own_again")
    watch.look()
    os.utime(file, ns=(1, 1))
    watch.look()
    assert watch.names == [], "there is no IPython"

    shell = types.SimpleNamespace(execution_count=1)
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.extensions.autoreload", types.ModuleType("x"))
    watch.look()
    os.utime(file, ns=(2, 2))
    watch.look()
    assert watch.names == [], "it is the same cell"
    shell.execution_count = 2
    watch.look()
    watch.look()
    assert watch.names == ["own_again"]
    shell.execution_count = 3
    file.unlink()
    watch.look()
    assert watch.names == ["own_again"]
    del sys.modules["own_again"]
