"""Which functions there are, what they are called on the wire, and which a server holds."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from remote_executor.wire.frames import Buffer

__all__ = ["Function", "Functions", "Holdings"]


class Encoded(Protocol):
    """A pickled function, as :class:`remote_executor.payload.functions.FunctionCache` makes it."""

    @property
    def key(self) -> bytes:
        """Equal for equal bytes, and only for those."""

    @property
    def body(self) -> Buffer:
        """The pickle."""

    @property
    def buffers(self) -> Sequence[Buffer]:
        """Its out-of-band buffers."""

    @property
    def parts(self) -> Sequence[Encoded]:
        """Its out-of-band buffers where they travel apart."""

    @property
    def pure(self) -> bool:
        """Whether a worker may rebuild it once and use it again."""


class Function:
    """A function that has a number; tasks name it by that."""

    __slots__ = ("body", "buffers", "key", "number", "parts", "pure", "size")

    def __init__(self, number: int, encoded: Encoded, parts: tuple[Function, ...]) -> None:
        self.number = number
        self.key = encoded.key
        self.body = encoded.body
        self.parts = parts
        """Its buffers, where these have numbers of their own."""
        self.buffers = () if parts else encoded.buffers
        self.pure = encoded.pure
        self.size = len(encoded.body) + sum(len(buffer) for buffer in self.buffers)


class Functions:
    """
    All functions in use, the least recently used first.

    A function's bytes go to a server once. Both ends forget it when the client says so, and the
    client does when there are too many.

    Args:
        most: How many functions to keep.
        most_bytes: How many bytes of them to keep.
    """

    def __init__(self, most: int = 4096, most_bytes: int = 512 * 1024 * 1024) -> None:
        self._by_key: OrderedDict[bytes, Function] = OrderedDict()
        self._numbers = itertools.count(1)
        self._most = most
        self._most_bytes = most_bytes
        self.total_bytes = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def next_number(self) -> int:
        """Return a number that no function has or gets; any thread may ask."""
        return next(self._numbers)

    def number(self, encoded: Encoded) -> Function:
        """Return the numbered function with these bytes."""
        function = self._by_key.get(encoded.key)
        if function is None:
            number = next(self._numbers)
            function = Function(number, encoded, tuple(map(self.number, encoded.parts)))
            self._by_key[encoded.key] = function
            self.total_bytes += function.size
        else:
            self._by_key.move_to_end(encoded.key)
        for part in function.parts:  # so that none of them goes before the function does
            self._by_key.move_to_end(part.key)
        return function

    def find(self, encoded: Encoded) -> Function | None:
        """Return the function with these bytes if it has a number; any thread may ask."""
        return self._by_key.get(encoded.key)

    def crowded(self) -> bool:
        """Whether :meth:`evict` would find something to do."""
        return len(self._by_key) > self._most or self.total_bytes > self._most_bytes

    def evict(self, in_use: Iterable[Function]) -> list[Function]:
        """
        Forget the least recently used functions until three quarters of the room are left.

        Args:
            in_use: Functions of unsettled tasks, which stay.

        Returns:
            The forgotten ones, for servers to be told.
        """
        keep: set[int] = set()
        for function in in_use:
            keep.add(function.number)
            keep.update(part.number for part in function.parts)
        evicted: list[Function] = []
        for function in list(self._by_key.values()):
            if (
                len(self._by_key) <= self._most * 3 // 4
                and self.total_bytes <= self._most_bytes * 3 // 4
            ):
                break
            if function.number not in keep:
                del self._by_key[function.key]
                self.total_bytes -= function.size
                evicted.append(function)
        return evicted


class Holdings:
    """
    What one server holds of what was sent to it, the least recently used first.

    The client alone decides what a server keeps, so the two never disagree: what it has told a
    server to forget it sends again when a task needs it, and a session that begins anew begins
    with nothing.

    Args:
        most_bytes: How much the server may hold, beyond what unsettled tasks need.
    """

    __slots__ = ("_most_bytes", "_sizes", "total_bytes")

    def __init__(self, most_bytes: int) -> None:
        self._sizes: OrderedDict[int, int] = OrderedDict()
        self._most_bytes = most_bytes
        self.total_bytes = 0

    def __contains__(self, number: object) -> bool:
        return number in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def use(self, number: int) -> bool:
        """Return whether it is there; if so, it is the most recently used now."""
        if number not in self._sizes:
            return False
        self._sizes.move_to_end(number)
        return True

    def add(self, number: int, size: int) -> None:
        """Take note of what is sent now; call :meth:`crowded` and :meth:`make_room` before."""
        self._sizes[number] = size
        self.total_bytes += size

    def discard(self, number: int) -> bool:
        """Forget something; return whether it was there, so that the server is to be told."""
        size = self._sizes.pop(number, None)
        if size is None:
            return False
        self.total_bytes -= size
        return True

    def crowded(self, size: int) -> bool:
        """Whether so many bytes more are too many."""
        return bool(self._sizes) and self.total_bytes + size > self._most_bytes

    def make_room(self, size: int, in_use: Container[int]) -> list[int]:
        """
        Forget the least recently used until there is room.

        Args:
            size: How many bytes are to come.
            in_use: What unsettled tasks at that server need, which stays.

        Returns:
            The numbers of what is forgotten, for the server to be told.
        """
        evicted: list[int] = []
        for number in list(self._sizes):
            if not self.crowded(size):
                break
            if number not in in_use:
                self.discard(number)
                evicted.append(number)
        return evicted
