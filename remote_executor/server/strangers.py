"""
Who has connected and not yet proved who it is: so many at most, and so many from one network.

::

    SILENT ----> SPEAKING ----> (known: a stranger no more)
       |            |
       |            +-- EXPECTED   it names a session of ours that has lost its link
       +-- half of the places      SPEAKING has the other half, EXPECTED has places of its own

Whoever floods a server with connections pushes out what he brings himself. Connections that say
nothing push out others that say nothing; those that go on with the handshake push out others that
do. So a client far away has its place for as long as it takes to say its next word, and one that
comes back to its session has it in any case.
"""

from __future__ import annotations

import enum
from typing import Generic, TypeVar

__all__ = [
    "MOST_EXPECTED",
    "MOST_FROM_ONE",
    "MOST_STRANGERS",
    "Progress",
    "Strangers",
    "network_of",
]

MOST_STRANGERS = 512
"""How many there may be that are not expected. At 2,000 a second a silent one has 128 ms."""

MOST_FROM_ONE = 256
"""How many of them may come from one network."""

MOST_EXPECTED = 64
"""How many may be that are expected."""

T = TypeVar("T")


class Progress(enum.Enum):
    """How far a stranger has come."""

    SILENT = "silent"
    SPEAKING = "speaking"
    EXPECTED = "expected"

    __hash__ = object.__hash__


SILENT = Progress.SILENT
SPEAKING = Progress.SPEAKING
EXPECTED = Progress.EXPECTED

MOVES = {SILENT: (SPEAKING, EXPECTED), SPEAKING: (EXPECTED,), EXPECTED: ()}


class Strangers(Generic[T]):
    """
    Connections that have proved nothing, in the order in which they came.

    If there are too many, the oldest one of the network that has most has to go.

    Args:
        most: How many there may be that are not expected; half of them from one network.
    """

    def __init__(self, most: int = MOST_STRANGERS) -> None:
        self._most = most
        self._most_from_one = max(1, most * MOST_FROM_ONE // MOST_STRANGERS)
        self._at: dict[T, tuple[Progress, str]] = {}
        self._from: dict[Progress, dict[str, dict[T, None]]] = {each: {} for each in Progress}
        self._counts = dict.fromkeys(Progress, 0)

    def __len__(self) -> int:
        return len(self._at)

    def add(self, stranger: T, network: str) -> T | None:
        """
        Take one more, which has said nothing yet.

        Args:
            stranger: Who has come.
            network: Where it came from, see :func:`network_of`; empty for Unix sockets, which only
                have the limit of all together.

        Returns:
            Whose connection is to be closed for it, if anybody's. It is forgotten already.
        """
        self._put(stranger, SILENT, network)
        silent, speaking = self._counts[SILENT], self._counts[SPEAKING]
        if silent + speaking > self._most:
            kind = SILENT if 2 * silent > self._most else SPEAKING
            here = max(self._from[kind].values(), key=len)
        else:
            quiet = self._from[SILENT][network]
            loud = self._from[SPEAKING].get(network, {})
            if not network or len(quiet) + len(loud) <= self._most_from_one:
                return None
            here = quiet if 2 * len(quiet) > self._most_from_one else loud
        return self._drop_oldest(here)

    def advance(self, stranger: T, progress: Progress) -> T | None:
        """
        Take note how far a stranger has come. It may be as far already, or forgotten.

        Returns:
            Whose connection is to be closed, if anybody's: one more is expected than may be.
        """
        before, network = self._at.get(stranger, (EXPECTED, ""))
        if progress not in MOVES[before]:
            return None
        self.remove(stranger)
        self._put(stranger, progress, network)
        if self._counts[EXPECTED] <= MOST_EXPECTED:
            return None
        return self._drop_oldest(max(self._from[EXPECTED].values(), key=len))

    def remove(self, stranger: T) -> None:
        """Forget one: it has proved who it is, or is gone. It may be forgotten already."""
        progress, network = self._at.pop(stranger, (None, ""))
        if progress is None:
            return
        here = self._from[progress][network]
        del here[stranger]
        if not here:
            del self._from[progress][network]
        self._counts[progress] -= 1

    def _put(self, stranger: T, progress: Progress, network: str) -> None:
        self._at[stranger] = progress, network
        self._from[progress].setdefault(network, {})[stranger] = None
        self._counts[progress] += 1

    def _drop_oldest(self, here: dict[T, None]) -> T:
        victim = next(iter(here))
        self.remove(victim)
        return victim

    def check(self) -> None:
        """State what must always hold."""
        for progress, networks in self._from.items():
            assert all(networks.values())
            assert self._counts[progress] == sum(map(len, networks.values()))
        assert len(self._at) == sum(self._counts.values())
        assert self._counts[SILENT] + self._counts[SPEAKING] <= self._most
        assert self._counts[EXPECTED] <= MOST_EXPECTED


def network_of(host: str) -> str:
    """
    Return what counts as one place to come from.

    Args:
        host: An address as a socket gives it.

    Returns:
        An IPv4 address itself. Of an IPv6 address its first 64 bits: whoever has one address has
        the whole network, and so 2**64 addresses to come from.
    """
    if ":" not in host:
        return host
    import ipaddress

    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"
