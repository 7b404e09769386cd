"""Classes that travel by their statement: see also ``test_definitions.py``."""

from __future__ import annotations

import enum
import functools
import sys
import types

import pytest

from remote_executor.errors import CannotShip
from remote_executor.payload.code.rebuild import describe
from remote_executor.payload.code.statements import contents, is_of_script, needs_statement
from remote_executor.payload.pickles import dump
from tests.support.tools import require_module


class Plain:
    pass


class Level(enum.Enum):
    LOW = 1


def test_who_needs_a_statement():
    pydantic = require_module("pydantic")

    class Model(pydantic.BaseModel):
        x: int

    assert needs_statement(Model)
    assert not needs_statement(Plain)
    assert not needs_statement(Level)


def test_a_class_of_a_library_that_has_no_statement_is_refused():
    pydantic = require_module("pydantic")
    made = pydantic.create_model("Made", x=(int, 1))
    made.__module__ = __name__

    with pytest.raises(CannotShip, match=r"class Made .*pydantic.* makes something of its own"):
        dump(made)


def test_whose_a_decorator_is():
    space = {"own": Plain, "wraps": functools.wraps, "functools": functools, "none": 3}
    made_by_hand = types.ModuleType("by_hand")

    assert not is_of_script("wraps", space)
    assert not is_of_script("functools", space)
    assert is_of_script("none", space)
    assert is_of_script("", space)
    assert is_of_script("hand", {"hand": made_by_hand})
    assert not is_of_script("own", space)  # of a module that is imported there
    assert __name__ in sys.modules


def test_what_cells_hold():
    empty, full = types.CellType(), types.CellType(3)

    assert contents([empty, full]) == [(full, 3)]


def test_a_description_tells_values_apart_and_not_places():
    class One:
        x = 1
        names = {"a", "b", "c"}  # noqa: RUF012
        thing = Plain()

        def __init__(self, y=1):
            pass

    class Other:
        x = 2
        names = {"c", "b", "a"}  # noqa: RUF012
        thing = Plain()

        def __init__(self, y=2):
            pass

    one, other = describe(One), describe(Other)

    assert one != other
    assert sorted(name for name in one if one[name] != other[name]) == ["its parameters", "x"]
    assert one == describe(One)
    assert "x" not in describe(One, ["x"])
