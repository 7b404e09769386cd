"""Functions with all that they need of ``__main__``."""

from __future__ import annotations

import sys
import types

import pytest

from remote_executor.payload.code.bundles import function_bundle, wrapped
from remote_executor.payload.functions import FunctionCache
from remote_executor.payload.pickles import dump, dump_copied


@pytest.fixture
def main(monkeypatch):
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def test_a_function_without_names_needs_no_bundle(main):
    body, buffers, captures = function_bundle(lambda x: x + 1)

    assert b"open_bundle" not in body
    assert buffers == []
    assert captures.pure


def test_a_large_value_travels_apart(main):
    main.table = "x" * 300_000
    exec("def f(): return table\ndef g(): return table, 1", vars(main))
    cache = FunctionCache()
    f, g = cache.encode(main.f), cache.encode(main.g)

    assert len(f.body) < 2000
    assert f.parts[0].key == g.parts[0].key


def test_to_look_again_makes_nothing_new(main):
    exec("a = [1]\ndef f(): return a", vars(main))
    cache = FunctionCache()
    first = cache.encode(main.f)

    assert cache.encode(main.f) is first
    main.b = 3
    assert cache.encode(main.f) is first
    main.a = [2]
    assert cache.encode(main.f) is not first


def test_what_arguments_need_is_another_bundle_of_the_function(main):
    exec("class P: pass\ndef f(p): pass", vars(main))
    cache = FunctionCache()
    plain = cache.encode(main.f)
    with_class, _, _ = cache.pack(main.f, ((main.P(),), {}))

    assert with_class is not plain
    assert with_class.extra == ("P",)
    assert cache.pack(main.f, ((main.P(),), {}))[0] is with_class
    assert cache.encode(main.f) is plain


def test_what_is_copied_brings_what_it_needs(main):
    exec("class P: pass", vars(main))
    body, buffers, needs = dump_copied([main.P()])

    assert b"open_bundle" in wrapped(body, buffers, needs, "it")[0]
    assert b"open_bundle" in dump([main.P()])[0]
    assert b"open_bundle" not in dump([1])[0]
