"""Who has connected and not yet proved who it is: so many at most, and so many from one address."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["MOST_FROM_ONE", "MOST_STRANGERS", "Strangers"]

MOST_STRANGERS = 64
"""How many there may be."""

MOST_FROM_ONE = 32
"""How many of them may come from one address."""

T = TypeVar("T")


class Strangers(Generic[T]):
    """
    Connections that have proved nothing, in the order in which they came.

    If there are too many, the oldest one of the address that has most has to go. So an address that
    floods a server takes room from nobody but itself.
    """

    def __init__(self) -> None:
        self._hosts: dict[T, str] = {}
        self._from: dict[str, dict[T, None]] = {}

    def __len__(self) -> int:
        return len(self._hosts)

    def add(self, stranger: T, host: str) -> T | None:
        """
        Take one more.

        Args:
            stranger: Who has come.
            host: The address it came from; empty for Unix sockets, which only have the one limit.

        Returns:
            Whose connection is to be closed for it, if anybody's. It is forgotten already.
        """
        here = self._from.setdefault(host, {})
        here[stranger] = None
        self._hosts[stranger] = host
        if len(self._hosts) > MOST_STRANGERS:
            here = max(self._from.values(), key=len)
        elif not host or len(here) <= MOST_FROM_ONE:
            return None
        victim = next(iter(here))
        self.remove(victim)
        return victim

    def remove(self, stranger: T) -> None:
        """Forget one: it has proved who it is, or is gone. It may be forgotten already."""
        host = self._hosts.pop(stranger, None)
        if host is not None:
            here = self._from[host]
            del here[stranger]
            if not here:
                del self._from[host]
