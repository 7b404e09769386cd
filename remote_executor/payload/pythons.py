"""Which Python is at the other end, where it is another one."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["Abroad", "abroad", "alias_renamed", "python_words", "reduce_timezone"]

_RENAMED = {"pathlib._local": "pathlib"}
"""Modules of Python that pickles of newer versions name, and where older ones have the same."""


class Abroad:
    """
    What a worker knows of a client that runs another Python.

    Attributes:
        client: The client's Python, in words; empty if it is the same as here.
    """

    __slots__ = ("client",)

    def __init__(self) -> None:
        self.client = ""

    def settle(self, implementation: str, version: tuple[int, ...]) -> None:
        """
        Take note of the client's Python. Call it before any pickle is loaded.

        Args:
            implementation: As ``sys.implementation.name``.
            version: Major, minor and micro.
        """
        here = sys.implementation.name, tuple(sys.version_info[:2])
        if (implementation, version[:2]) != here:
            self.client = python_words(implementation, version)
            alias_renamed()


abroad = Abroad()


def python_words(implementation: str = "", version: tuple[int, ...] = ()) -> str:
    """
    Name a Python, such as ``CPython 3.12.1``.

    Args:
        implementation: As ``sys.implementation.name``; by default this one's.
        version: Numbers; by default this one's.
    """
    implementation = implementation or sys.implementation.name
    words = {"cpython": "CPython", "pypy": "PyPy"}.get(implementation, implementation)
    return f"{words} {'.'.join(map(str, version or sys.version_info[:3]))}"


def alias_renamed() -> None:
    """
    Let each Python load what the other pickles of its own library.

    Modules that newer ones have renamed are found, and PyPy pickles time zones as CPython does.
    """
    from importlib import import_module

    if sys.implementation.name == "pypy":
        import copyreg
        import datetime

        copyreg.pickle(datetime.timezone, reduce_timezone)

    for name, home in _RENAMED.items():
        try:
            import_module(name)
        except ImportError:
            sys.modules[name] = import_module(home)


def reduce_timezone(zone: Any) -> tuple[Any, ...]:
    """Say how to make a time zone. PyPy's own way tells what is in it there, and not in CPython."""
    return type(zone), zone.__getinitargs__()
