from __future__ import annotations

from money import rounding

from ..models import Order
from ..registry import rule


@rule("discount")
def discount(order: Order, amount: int) -> int:
    return rounding.part(amount, 90) if order.amount >= 1000 else amount
