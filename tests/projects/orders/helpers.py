"""A neighbour of the script."""

from __future__ import annotations

from orders import Order


def make(amount: int) -> Order:
    return Order(amount, notes=["made there"])
