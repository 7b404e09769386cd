"""Plugins are found by name, so no import statement names them."""

from __future__ import annotations

import importlib
import pkgutil

NAMES = ("discount", "tax")


def load_all() -> None:
    found = [each.name for each in pkgutil.iter_modules(__path__)]
    assert found == list(NAMES), found
    for name in NAMES:
        importlib.import_module(f".{name}", __package__)
