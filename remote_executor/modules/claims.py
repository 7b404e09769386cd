"""
Which modules the client has of its own, so that servers do not take others of the same names.

A server may have another module of a name that the program has: Python's own ``statistics``, an
installed package, or an older copy of the program's. One module comes from one place, the client:
workers hear the names (:class:`Claims`) before the tasks that use them, and ask the client first
(see :mod:`remote_executor.modules.own`). Only where a server's copy is the same, file for file (see
:mod:`remote_executor.payload.copy_digests`), it is taken, since what lies beside it is of use.

A package with compiled parts cannot be sent, so its name is not claimed: a server must have it.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from typing import TYPE_CHECKING, Any

from remote_executor.payload.modules import is_installed, is_module_name

if TYPE_CHECKING:
    from remote_executor.payload.modules import Modules

__all__ = ["Claims"]

OF_THE_MACHINE = frozenset({"sitecustomize", "usercustomize"})
"""What Python loads at its start, where there is such a thing: each machine has its own."""

MAX_NAMES = 1000
"""Names that are claimed at most, of modules that nobody has loaded yet."""

MAX_FILES = 2000
"""Files of a package that are looked at for compiled ones at most."""


class Claims:
    """
    The names of top-level modules that are this program's own.

    Args:
        modules: Answers servers, and says what may be served.
        elsewhere: Whether there are servers elsewhere. An embedded one has our ``sys.path``, and so
            only what it may have loaded before, of Python's own, is of interest.

    Attributes:
        version: Another number whenever there are new names.
    """

    def __init__(self, modules: Modules, *, elsewhere: bool = True) -> None:
        self._modules = modules
        self._elsewhere = elsewhere
        self.version = 0
        self._count = -1
        self._path: list[str] = []
        self._seen: set[str] = set()
        self._loaded: dict[str, None] = {}
        self._found: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"<Claims {len(self._loaded)} loaded, {len(self._found)} found>"

    def may_have_changed(self) -> bool:
        """Whether modules were loaded, or ``sys.path`` was changed, since the last look. Cheap."""
        return len(sys.modules) != self._count or sys.path != self._path

    def look(self) -> None:
        """Bring the names up to date."""
        self._count = len(sys.modules)
        for name in list(sys.modules):
            if "." not in name and name not in self._seen:
                self._seen.add(name)
                if name in OF_THE_MACHINE:
                    continue
                if not self._elsewhere and name not in sys.stdlib_module_names:
                    continue
                if self._is_own(name, getattr(sys.modules.get(name), "__spec__", None)):
                    self._loaded[name] = None
        if sys.path != self._path:
            known = set(self._path)
            self._path = list(sys.path)
            for folder in self._path:
                if self._elsewhere and folder not in known:
                    self._look_into(folder)
        # It only grows, and by whatever thread: the last one to look sees all.
        self.version = len(self._loaded) + len(self._found)

    def fields(self, *, elsewhere: bool = True) -> dict[str, Any]:
        """
        Return what workers are told.

        Args:
            elsewhere: Whether they are on a server elsewhere.

        ``"own"`` are names of modules that are loaded here, ``"found"`` of those that a task would
        find if it imported them here.
        """
        if not elsewhere:
            shadowing = [name for name in self._loaded if name in sys.stdlib_module_names]
            return {"own": shadowing, "found": []}
        return {"own": list(self._loaded), "found": list(self._found)}

    def _look_into(self, folder: str) -> None:
        """Note which modules are in a folder of ``sys.path``."""
        try:
            folder = os.path.realpath(folder or os.getcwd())
            if is_installed(os.path.join(folder, "any.py")):
                return
            with os.scandir(folder) as entries:
                for entry in entries:
                    if len(self._found) >= MAX_NAMES:
                        return
                    name = _module_in(entry)
                    if name and name not in self._found and self._would_be_found(name):
                        self._found[name] = None
        except OSError:  # it is a zip file, or not there
            return

    def _would_be_found(self, name: str) -> bool:
        """Whether an import would find the user's module here, and not another of its name."""
        if name in OF_THE_MACHINE or not self._modules.may_serve(name):
            return False
        if name in sys.modules:
            return name in self._loaded
        if name not in sys.stdlib_module_names:
            return True  # the client itself says so once it is asked
        return name not in sys.builtin_module_names and self._is_own(
            name, PathFinder.find_spec(name)
        )

    def _is_own(self, name: str, spec: Any) -> bool:
        file = getattr(spec, "origin", None)
        if not getattr(spec, "has_location", False) or not isinstance(file, str):
            return False
        if not file.endswith(".py") or not self._modules.may_serve(name):
            return False
        if is_installed(file) or is_installed(os.path.realpath(file)):  # to follow links costs more
            return False
        folders = spec.submodule_search_locations
        return folders is None or not any(_has_compiled_parts(str(each)) for each in folders)


def _module_in(entry: os.DirEntry[str]) -> str:
    """Return the name of the module that an entry of a folder is; empty if it is none."""
    name = entry.name
    if name.endswith(".py"):
        name = name[:-3]
    elif not entry.is_dir() or not os.path.exists(os.path.join(entry.path, "__init__.py")):
        return ""
    return name if is_module_name(name) and "." not in name else ""


def _has_compiled_parts(folder: str) -> bool:
    """Whether there are compiled modules in a package's folder."""
    suffixes = tuple(EXTENSION_SUFFIXES)
    count = 0
    for _, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith((".", "__pycache__"))]
        for file in files:
            count += 1
            if count > MAX_FILES:
                return False
            if file.endswith(suffixes):
                return True
    return False
