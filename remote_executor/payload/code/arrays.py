"""
Arrays of numpy that look at the memory of another.

``part = data[2:5]``: what is written to the one shows in the other. numpy pickles each as an
array of its own. Where something else than the view has the array behind it, as far as the
reference count tells, the view travels as what it is: that array, and where in it the view begins.
Of a view that is alone only what it shows travels.
"""

from __future__ import annotations

import sys
from typing import Any

from remote_executor.payload.code.steps import IS_CPYTHON

__all__ = ["is_array", "make_view", "reduce_view"]


def is_array(kind: type) -> bool:
    """Tell the type of numpy's plain arrays, without importing numpy."""
    return kind.__name__ == "ndarray" and kind.__module__ == "numpy"


class _Holder:
    __slots__ = ("base",)

    def __init__(self, base: object) -> None:
        self.base = base


def _count_of_base(view: Any) -> int:
    base = view.base
    return sys.getrefcount(base)


_ALONE = _count_of_base(_Holder(object())) if IS_CPYTHON else sys.maxsize
"""What a base is counted to that only its view refers to."""


def reduce_view(array: Any) -> Any:
    """
    Tell how to make a view of an array that something else has, too.

    Args:
        array: An array of exactly numpy's own type.

    Returns:
        What makes it of the array behind it; NotImplemented if it can travel by itself.
    """
    if not IS_CPYTHON or _count_of_base(array) <= _ALONE:
        return NotImplemented
    base = array.base
    if type(base) is not type(array) or not array.size or base.base is not None:
        return NotImplemented
    if not base.flags.forc:  # in one piece
        return NotImplemented
    offset = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    dtype = array.dtype
    if dtype.hasobject and (dtype != base.dtype or offset % dtype.itemsize):
        return NotImplemented
    args = base, dtype, array.shape, offset, array.strides, array.flags.writeable
    return make_view, args


def make_view(
    base: Any, dtype: Any, shape: tuple[int, ...], offset: int, strides: Any, writeable: bool
) -> Any:
    """
    Make a view of an array.

    Args:
        base: The array behind it, in one piece.
        dtype: What its items are taken for.
        shape: Its shape.
        offset: Bytes from where the array behind it begins.
        strides: Bytes from one item to the next, for each dimension.
        writeable: Whether it may be written to.
    """
    flat = (base if base.flags.c_contiguous else base.T).reshape(-1)
    if dtype.hasobject:
        from numpy.lib.stride_tricks import as_strided

        view = as_strided(flat[offset // dtype.itemsize :], shape, strides)
    else:
        view = type(base)(shape, dtype, flat.view("u1"), offset, strides)
    if not writeable:
        view.flags.writeable = False
    return view
