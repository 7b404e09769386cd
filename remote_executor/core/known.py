"""Which functions there are, what they are called on the wire, and which a server holds."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from remote_executor.wire.frames import Buffer

__all__ = ["Function", "Functions"]


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
    def pure(self) -> bool:
        """Whether a worker may rebuild it once and use it again."""


class Function:
    """A function that has a number; tasks name it by that."""

    __slots__ = ("body", "buffers", "key", "number", "pure", "size")

    def __init__(self, number: int, encoded: Encoded) -> None:
        self.number = number
        self.key = encoded.key
        self.body = encoded.body
        self.buffers = encoded.buffers
        self.pure = encoded.pure
        self.size = len(encoded.body) + sum(len(buffer) for buffer in encoded.buffers)


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

    def number(self, encoded: Encoded) -> Function:
        """Return the numbered function with these bytes."""
        function = self._by_key.get(encoded.key)
        if function is None:
            function = Function(next(self._numbers), encoded)
            self._by_key[encoded.key] = function
            self.total_bytes += function.size
        else:
            self._by_key.move_to_end(encoded.key)
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
        keep = {function.number for function in in_use}
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
