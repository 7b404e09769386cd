"""Plugins are found by name, so no import statement names them."""

from __future__ import annotations

import importlib

NAMES = ("discount", "tax")


def load_all() -> None:
    for name in NAMES:
        importlib.import_module(f".{name}", __package__)
