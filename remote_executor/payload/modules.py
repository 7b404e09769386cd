"""
The user's own modules, which a server may not have.

Functions and classes go by reference, since that is fast and keeps a module's state in one place.
Where a server then cannot import the module, and it is the user's own, it travels by value from
then on.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

__all__ = ["travels_by_value"]


def travels_by_value(name: str) -> bool:
    """
    Have a module's functions and classes travel by value from now on, if it is the user's own.

    Args:
        name: What could not be imported elsewhere; its whole top-level package is meant.

    Returns:
        Whether they do: False for what is not loaded here, was installed, has no source, or
        belongs to Python.
    """
    import cloudpickle

    root = name.partition(".")[0]
    module = sys.modules.get(root)
    if module is None or root == "remote_executor" or not _is_own(module):
        return False
    if root not in cloudpickle.list_registry_pickle_by_value():
        cloudpickle.register_pickle_by_value(module)
    return True


def _is_own(module: object) -> bool:
    """Tell the user's own modules from Python's and from installed ones."""
    origin = getattr(module, "__file__", None)
    if origin is None:  # a package without __init__.py, or no file at all
        places = list(getattr(module, "__path__", ()))
        origin = places[0] if places else None
    if origin is None:
        return False
    path = Path(origin).resolve()
    if path.suffix not in (".py", ""):
        return False
    installed = {
        Path(place).resolve()
        for key, place in sysconfig.get_paths().items()
        if key in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    parts = {"site-packages", "dist-packages"}
    return not (parts & set(path.parts) or any(place in path.parents for place in installed))
