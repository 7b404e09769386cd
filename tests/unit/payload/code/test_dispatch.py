"""Methods of ``functools.singledispatchmethod``, by what they were got from."""

from __future__ import annotations

import functools

import pytest

from remote_executor.payload.code.dispatch import (
    method_by_dispatch,
    parts_by_dispatch,
    reduce_method_by_dispatch,
)


class Shape:
    @functools.singledispatchmethod
    def area(self, by):
        return "any"

    by_another_name = area


def _method():
    return "no method at all"


def test_where_a_method_by_dispatch_was_got_from():
    shape = Shape()

    assert method_by_dispatch(shape.area) == (shape, "area")
    assert method_by_dispatch(Shape.area) == (Shape, "area")
    assert method_by_dispatch(_method) is None
    assert method_by_dispatch(Shape) is None


def test_a_method_by_dispatch_that_cannot_be_got_by_name():
    class Local(Shape):
        @functools.singledispatchmethod
        def volume(self, by):
            return "any"

        @functools.singledispatchmethod
        def area(self, by):
            return "other"

        def above(self):
            return super().area

    local = Local()
    method = local.volume
    del Local.volume

    assert method_by_dispatch(method) is None
    assert method_by_dispatch(local.area) == (local, "area")
    assert method_by_dispatch(local.above()) == (local, "by_another_name")
    Local.by_another_name = None
    assert method_by_dispatch(local.above()) is None


@pytest.mark.parametrize("value", [3, "area", len, Shape, _method, Shape().__init__])
def test_what_is_something_else_has_no_parts(value):
    assert parts_by_dispatch(value) is None
    assert reduce_method_by_dispatch(value) is None


def test_a_method_is_got_again_by_its_name_and_else_by_its_descriptor():
    shape = Shape()
    how, arguments = reduce_method_by_dispatch(shape.area)
    assert (how, arguments) == (getattr, (shape, "area"))

    method = shape.area
    del Shape.area, Shape.by_another_name
    try:
        how, arguments = reduce_method_by_dispatch(method)
        assert how(*arguments)(1) == "any"
        assert parts_by_dispatch(method)[0] is shape
    finally:
        Shape.area = Shape.by_another_name = arguments[0]
