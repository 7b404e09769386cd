"""Orders, and what is added to their price."""

from .models import Order, Status
from .pricing import price

__all__ = ["Order", "Status", "price"]
