"""
Tools that a test needs and a machine may lack.

A test whose tool is missing is skipped, and says which tool. With
``REMOTE_EXECUTOR_REQUIRE_ALL=1`` (set by ``.ci/run``) it fails instead.

What the extra ``test`` does not bring, since it is large or needs a compiler, has a step of its own
in ``.ci/run``. Tests of it run wherever it is installed, and are insisted on by name alone. Tests
that take long have the marker ``slow``, and run only where that is named:
``REMOTE_EXECUTOR_TEST_EXTRAS=gssapi,notebook,slow``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["INSISTED", "REQUIRE_ALL", "missing", "require", "require_extra", "require_module"]

INSISTED = os.environ.get("REMOTE_EXECUTOR_TEST_EXTRAS", "").split(",")
REQUIRE_ALL = os.environ.get("REMOTE_EXECUTOR_REQUIRE_ALL", "") not in ("", "0")


def missing(tool: str, hint: str = "") -> NoReturn:
    """
    Skip the running test (or module, while it is collected) for want of ``tool``.

    Args:
        tool: Its name, as one would look for it.
        hint: How to get it.
    """
    __tracebackhide__ = True
    words = f"{tool} is missing" + (f" ({hint})" if hint else "")
    if REQUIRE_ALL:
        pytest.fail(f"{words}, and REMOTE_EXECUTOR_REQUIRE_ALL=1 asks for it", pytrace=False)
    pytest.skip(words, allow_module_level=True)


def require(tool: str, hint: str = "") -> str:
    """
    Return the path of a program, or skip the test and name the program.

    Args:
        tool: A program's name, such as ``"sshd"``; looked for in PATH and in the sbin folders.
        hint: How to get it, such as the name of a package.
    """
    __tracebackhide__ = True
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    return shutil.which(tool, path=places) or missing(tool, hint)


def require_module(name: str, hint: str = "") -> ModuleType:
    """
    Return an imported module, or skip the test and name the module.

    Args:
        name: A module's dotted name, such as ``"numpy"``.
        hint: How to get it, such as the name of a package.

    Raises:
        ImportError: If the module is there but cannot be imported, since that is no lack.
    """
    __tracebackhide__ = True
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # a parent package is missing
        spec = None
    if spec is None:
        missing(f"the module {name}", hint)
    return importlib.import_module(name)


def require_extra(extra: str, *modules: str) -> None:
    """
    Skip the test (or module) if an extra that has a step of its own is not installed.

    Args:
        extra: Its name in pyproject.toml.
        modules: What it brings.
    """
    __tracebackhide__ = True
    lacking = [name for name in modules if importlib.util.find_spec(name) is None]
    if lacking:
        words = f"not installed: {', '.join(lacking)} (pip install '.[{extra}]')"
        if extra in INSISTED:
            pytest.fail(f"{words}, and REMOTE_EXECUTOR_TEST_EXTRAS asks for it", pytrace=False)
        pytest.skip(words, allow_module_level=True)
