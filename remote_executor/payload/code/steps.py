"""
The steps of compiled code that get at names, on every Python.

PyPy's :mod:`dis` fails on functions with cells (of PyPy 7.3.19, "tuple index out of range").
"""

from __future__ import annotations

import dis
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

__all__ = ["IS_CPYTHON", "named_steps"]

IS_CPYTHON: bool = sys.implementation.name == "cpython"
_HAS_NAME = frozenset(dis.hasname)
# CPython 3.14 leaves LOAD_DEREF out of that list.
_HAS_FREE = frozenset({*dis.hasfree, dis.opmap["LOAD_DEREF"]})


def named_steps(code: CodeType) -> Iterator[tuple[str, str]]:
    """
    Return the name of each operation that has to do with a name, and that name.

    Args:
        code: Not that of functions within it.
    """
    if not (code.co_names or code.co_freevars or code.co_cellvars):
        return
    if IS_CPYTHON:
        for step in dis.get_instructions(code):
            if step.opcode in _HAS_NAME or step.opcode in _HAS_FREE:
                yield step.opname, step.argval
        return
    cells = code.co_cellvars + code.co_freevars
    raw = code.co_code
    more = 0
    for at in range(0, len(raw) - 1, 2):
        operation, argument = raw[at], raw[at + 1] | more
        more = argument << 8 if operation == dis.EXTENDED_ARG else 0
        if operation in _HAS_NAME:
            yield dis.opname[operation], code.co_names[argument]
        elif operation in _HAS_FREE:
            yield dis.opname[operation], cells[argument]
