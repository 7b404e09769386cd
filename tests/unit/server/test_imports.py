"""Something is done once a module is loaded."""

from __future__ import annotations

import sys

import pytest

from remote_executor.server.imports import OnImport

NAME = "a_module_that_comes_late"


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / f"{NAME}.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)
    yield
    sys.modules.pop(NAME, None)
    sys.meta_path[:] = finders


def test_it_is_done_after_the_first_import(module):
    seen = []
    OnImport(NAME, lambda: seen.append(sys.modules[NAME].value))
    import json.tool  # noqa: F401 - another one

    assert seen == []
    __import__(NAME)
    assert seen == [1]
    assert not any(isinstance(finder, OnImport) for finder in sys.meta_path)
    del sys.modules[NAME]
    __import__(NAME)
    assert seen == [1]


def test_it_is_done_at_once_if_the_module_is_there(module):
    __import__(NAME)
    seen = []
    OnImport(NAME, lambda: seen.append(1))
    assert seen == [1]
    assert not any(isinstance(finder, OnImport) for finder in sys.meta_path)


def test_a_module_that_there_is_not_is_none(module):
    OnImport("there_is_no_such_module", lambda: None)
    with pytest.raises(ModuleNotFoundError):
        __import__("there_is_no_such_module")
