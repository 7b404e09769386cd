"""Which names code gets at, and by which operation."""

from __future__ import annotations

import dis
import sys

import pytest

from remote_executor.payload.code import steps
from remote_executor.payload.code.steps import named_steps


def outer(a):
    b = a

    def inner(c):
        nonlocal b
        global written
        written = len(b)
        b = c
        return a.attribute

    return inner


def test_names_of_cells_of_globals_and_of_attributes():
    found = set(named_steps(outer(1).__code__))

    assert {("STORE_GLOBAL", "written"), ("LOAD_GLOBAL", "len")} <= found
    assert {("STORE_DEREF", "b"), ("LOAD_DEREF", "a")} <= found
    assert ("LOAD_ATTR", "attribute") in found


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="steps have other sizes, as not on PyPy")
@pytest.mark.parametrize("function", [outer, outer(1), named_steps])
def test_the_way_for_pypy_finds_the_same(monkeypatch, function):
    usual = list(named_steps(function.__code__))
    monkeypatch.setattr(steps, "IS_CPYTHON", False)

    assert list(named_steps(function.__code__)) == usual


def test_many_names(monkeypatch):
    text = "\n".join(f"name{number} = other{number}" for number in range(400))
    code = compile(text, "many", "exec")

    assert ("LOAD_NAME", "other399") in set(named_steps(code))
    assert dis.EXTENDED_ARG in code.co_code
