"""Python loads this at its start where this folder is in PYTHONPATH: see the package."""

import importlib.util
import os
import sys

# By its path: the folder of the tests need not be one that this process imports from.
_path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__init__.py")
_spec = importlib.util.spec_from_file_location("_without_linux", _path)
_module = importlib.util.module_from_spec(_spec)
sys.modules["_without_linux"] = _module
_spec.loader.exec_module(_module)
