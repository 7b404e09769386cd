"""Annotations, which Python 3.14 and later make when they are asked for."""

from __future__ import annotations

import sys
from types import FunctionType

import pytest

from remote_executor.payload.code.annotations import (
    MADE_LATE,
    annotations_of,
    with_plain_annotations,
)

late = pytest.mark.skipif(sys.version_info < (3, 14), reason="they are made at once")


def defined(text):
    space = {}
    exec(compile(text, "<test>", "exec", dont_inherit=True), space)
    return space


def test_of_functions_and_classes():
    space = defined("def f(x: int) -> str: ...\nclass A:\n    x: int\nclass B(A): pass\n")

    assert annotations_of(space["f"]) == {"x": int, "return": str}
    assert annotations_of(space["A"]) == {"x": int}
    assert annotations_of(space["B"]) == {}
    assert annotations_of(test_of_functions_and_classes) == {}


def test_a_class_stays_as_it_is():
    """Else it would count as changed, and be sent again."""
    cls = defined("class A:\n    x: int\n    def get(self): pass\n")["A"]
    before = dict(vars(cls))

    assert annotations_of(cls) == {"x": int}
    assert dict(vars(cls)) == before


def test_a_function_that_can_be_asked_is_the_same():
    assert with_plain_annotations(defined) is defined


@late
def test_what_names_something_that_is_not_there_is_text():
    space = defined("def f(x: Missing, y: int): ...\nclass A:\n    x: list[Missing]\n")

    assert annotations_of(space["f"]) == {"x": "Missing", "y": "int"}
    assert annotations_of(space["A"]) == {"x": "list[Missing]"}
    assert not MADE_LATE.isdisjoint(vars(space["A"]))


@late
def test_a_function_that_cannot_be_asked_has_a_twin_that_can():
    f = defined("def f(x: Missing = 3, *, y=4):\n    'Says.'\n    return x, y\n")["f"]
    f.note = 1

    twin = with_plain_annotations(f)

    assert type(twin) is FunctionType
    assert (twin(), twin.__doc__, twin.note, twin.__qualname__) == ((3, 4), "Says.", 1, "f")
    assert twin.__annotations__ == {"x": "Missing"}
    with pytest.raises(NameError):
        _ = f.__annotations__
