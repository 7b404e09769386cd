"""Rules register themselves here when their module is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

RULES: dict[str, Callable[..., Any]] = {}


def rule(name: str) -> Callable[..., Any]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        assert name not in RULES, "a module was executed twice"
        RULES[name] = function
        return function

    return register
