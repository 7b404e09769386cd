"""
How a Python that we start begins: it imports from no folder that is not meant.

``python -c`` puts the current folder before the standard library. A file that lies there and is
called ``signal.py`` or ``json.py`` would run in every server that is started in that folder, as the
user; folders for downloads, or that others may write to, hold such files. (``-P`` prevents it from
Python 3.11 on, and would prevent it for tasks as well.) The folder of our own package is no better
than another: it may be a clone of a repository.

So the text that ``-c`` is given begins with :data:`START`. What user code imports from, the current
folder included, is put back before user code runs: in a worker, and while modules are preloaded.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["ROOT", "START", "UsersFolders", "add_folder"]

START = """\
import sys
here = sys.path[:1] == [""]
if here:
    del sys.path[0]
root = sys.argv.pop(1)
class Ours:
    def find_spec(name, path=None, target=None):
        if name == "remote_executor":
            from importlib.machinery import PathFinder
            return PathFinder.find_spec(name, [root])
sys.meta_path.insert(0, Ours)
import remote_executor.net.start
sys.meta_path.remove(Ours)
remote_executor.net.start.add_folder(root)
"""
"""
Takes the folder of our package as the first argument, from which that package alone is imported in
this way: the same one as in the process that starts us. Leaves ``here``: whether user code would
import from the current folder.
"""

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""Where our package is found: a folder, or a zip file."""


def add_folder(root: str, path: list[str] | None = None) -> None:
    """
    Put the folder of our package behind the standard library, if it is not there anyhow.

    Args:
        root: The folder.
        path: What is changed: ``sys.path``, unless it is something else.
    """
    path = sys.path if path is None else path
    if root in path:
        return
    library = os.path.dirname(os.__file__)
    last = len(path)
    for index, each in enumerate(path):
        if each == library or (os.path.dirname(each) == library and "-packages" not in each):
            last = index + 1
    path.insert(last, root)


class UsersFolders:
    """
    Finds the user's modules for a server, behind all else, and none in the place of Python's own.

    A server's own imports come late, too: ``hmac`` with the first client, say.

    Args:
        path: What the program imports from that started the server.
    """

    def __init__(self, path: Sequence[str]) -> None:
        self._path = list(path)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module that is in no package. The import system calls this."""
        if path is not None or name in sys.stdlib_module_names:
            return None
        return PathFinder.find_spec(name, self._path)
