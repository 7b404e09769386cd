"""Prices orders on a farm; the address is the argument."""

from __future__ import annotations

import functools
import operator
import os
import sys
import traceback

import helpers
import orders.pricing
from orders import Order, Status, price
from orders.models import UnknownCountryError

from remote_executor import FarmExecutor

HERE = os.path.dirname(os.path.abspath(__file__))


def dearest(found: list[Order]) -> Order:
    return max(found, key=operator.attrgetter("amount"))


def main(address: str) -> None:
    with FarmExecutor(addresses=address) as executor:
        priced = list(executor.map(price, [Order(100), Order(1000, "fr"), Order(200, "pl")]))
        assert [each.amount for each in priced] == [119, 1080, 246]
        assert all(type(each) is Order and each.status is Status.PRICED for each in priced)
        assert priced[0].notes == ["discount", "tax"]
        assert executor.submit(dearest, priced).result() == priced[1]
        made = executor.submit(functools.partial(helpers.make, amount=7)).result()
        assert made == Order(7, notes=["made there"])
        words = executor.submit(orders.pricing.explain).result()
        assert words == "def price(order: Order) -> Order: five cents"
        error = executor.submit(price, Order(5, "xx")).exception()
        assert isinstance(error, UnknownCountryError)
        assert error.country == "xx"
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        place = os.path.join(HERE, "src", "orders", "plugins", "tax.py")
        assert f'File "{place}"' in str(error.__cause__)
        assert "raise UnknownCountryError(order.country) from None" in text
    print("fine")


if __name__ == "__main__":
    main(sys.argv[1])
