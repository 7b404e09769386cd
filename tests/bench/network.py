"""The measurements of what lies between machines: TLS over loopback, against plain TCP there."""

from __future__ import annotations

from tests.bench.bars import Bar, Measure
from tests.bench.measures import arrays_in, arrays_out, latency

__all__ = ["NETWORK"]


def _ratio(number: str, what: str, unit: str, limit: float, least: bool) -> Bar:
    return Bar(number, what, unit, "ratio", limit, least, ("farm-tcp",), "farm-tls")


NETWORK: dict[str, Measure] = {
    "tls-arrays-in": Measure(
        arrays_in,
        ("farm-tls", "farm-tcp"),
        20,
        4,
        5,
        (_ratio("rate", "arguments of 50 MB over TLS, against plain TCP", "GB/s", 0.6, True),),
        touches=4_000_000_000,
    ),
    "tls-arrays-out": Measure(
        arrays_out,
        ("farm-tls", "farm-tcp"),
        20,
        4,
        5,
        (_ratio("rate", "results of 50 MB over TLS, against plain TCP", "GB/s", 0.6, True),),
        touches=4_000_000_000,
    ),
    "tls-latency": Measure(
        latency,
        ("farm-tls", "farm-tcp"),
        3_000,
        300,
        5,
        (_ratio("median", "round trip of one task over TLS, against plain TCP", "µs", 1.3, False),),
    ),
}
