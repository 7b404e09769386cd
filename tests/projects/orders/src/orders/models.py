"""What an order is."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Status(enum.Enum):
    OPEN = "open"
    PRICED = "priced"


class UnknownCountryError(LookupError):
    def __init__(self, country: str) -> None:
        super().__init__(country)
        self.country = country


@dataclass
class Order:
    amount: int
    country: str = "de"
    status: Status = Status.OPEN
    notes: list[str] = field(default_factory=list)
