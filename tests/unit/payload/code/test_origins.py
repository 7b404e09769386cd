"""Which module a global came from."""

from __future__ import annotations

import linecache
import os
import random
import sys
import types
from importlib.machinery import ModuleSpec

import pytest

from remote_executor.payload.code import origins
from remote_executor.payload.code.origins import find_origin, is_environment, is_importable


@pytest.fixture
def settings(monkeypatch):
    """Return a module that counts as imported."""
    module = types.ModuleType("own_settings")
    module.__spec__ = ModuleSpec("own_settings", None)
    module.lock, module.table, module.level = object(), {"a": [1]}, 3
    monkeypatch.setitem(sys.modules, "own_settings", module)
    monkeypatch.setattr(origins, "_loaded", 0)
    return module


def program(text, **names):
    """Return the globals of a program with that text."""
    file = f"<program {hash(text)}>"
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    return {"__name__": "__main__", "__file__": file, **names}


def test_what_the_text_imports(settings):
    space = program(
        "from own_settings import lock as mine, table", mine=settings.lock, table=settings.table
    )

    assert find_origin("mine", settings.lock, space) == ("own_settings", "lock")
    assert find_origin("table", settings.table, space) == ("own_settings", "table")


def test_what_a_star_imports(settings):
    space = program("from own_settings import *", table=settings.table)

    assert find_origin("table", settings.table, space) == ("own_settings", "table")


def test_without_a_text_identity_tells(settings):
    space = {"__name__": "__main__"}

    assert find_origin("table", settings.table, space) == ("own_settings", "table")
    assert find_origin("other", settings.table, space) == ("own_settings", "table")
    assert find_origin("draw", random.random, space) == ("random", "random")
    assert find_origin("table", {"a": [1]}, space) is None


def test_what_the_program_made_is_its_own(settings):
    """Also if it has put it into a module, or a module has imported it from there."""
    config = {}
    settings.config = settings.other = config
    made = program("config = dict()\nimport own_settings\nown_settings.config = config")
    put = program("import own_settings\nfrom elsewhere import x as config\n"
                  "own_settings.config = config")  # fmt: skip

    assert find_origin("config", config, made) is None
    assert find_origin("config", config, put) is None


def test_an_alias_of_what_a_module_has(settings):
    space = program("import own_settings\nmine = own_settings.table")

    assert find_origin("mine", settings.table, space) == ("own_settings", "table")


def test_what_a_module_has_no_more_is_a_value(settings):
    space = program("from own_settings import table")
    before, settings.table = settings.table, {}

    assert find_origin("table", before, space) is None


def test_numbers_code_and_modules_have_no_origin(settings):
    space = program("from own_settings import level")
    exec("def f(): pass", space)

    assert find_origin("level", 3, space) is None
    assert find_origin("f", space["f"], space) is None
    assert find_origin("own_settings", settings, space) is None


def test_a_text_that_cannot_be_parsed_says_nothing(settings):
    assert find_origin("table", settings.table, program("def")) == ("own_settings", "table")


def test_modules_that_can_be_imported(settings):
    assert is_importable("own_settings")
    assert is_importable("os")
    assert not is_importable("__main__")
    assert not is_importable("no_such_module")
    assert not is_importable(None)


def test_methods_of_what_a_module_keeps():
    assert origins.origin_of_method(random.random) == ("random", "random")
    assert origins.origin_of_method(len) is None
    assert origins.origin_of_method([].append) is None


def test_the_environment_is_known():
    assert is_environment(os.environ)
    assert not is_environment(dict(os.environ))


def test_globals_of_modules():
    assert origins.module_of_globals(vars(random)) is random
    assert origins.module_of_globals({"__name__": "random"}) is None
    assert origins.module_of_globals(vars(sys.modules["__main__"])) is None
