"""What workers do before their first task: the initializer, and broadcasts that are kept."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from remote_executor.client.handed_over import HandedOver, handing_over
from remote_executor.errors import PayloadError
from remote_executor.payload.pickles import dump, holds_code

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Setup", "make_setup"]


class Setup:
    """
    What workers do before their first task.

    Attributes:
        number: Which one it is; 0 for the initializer.
        here: Its pickle and buffers.
        abroad: The same for servers of another Python, or why it cannot be sent there; None if it
            is the same there.
        handed: What is kept open for workers to come; None if there is nothing.
    """

    __slots__ = ("abroad", "handed", "here", "number")

    def __init__(
        self,
        number: int,
        here: tuple[bytes, Sequence[Any]],
        abroad: tuple[bytes, Sequence[Any]] | PayloadError | None,
        handed: HandedOver | None = None,
    ) -> None:
        self.number = number
        self.here = here
        self.abroad = abroad
        self.handed = handed

    def close(self) -> None:
        """Let go of what is kept for workers: none will come any more."""
        if self.handed is not None:
            self.handed.close()


def _abroad(call: Any, what: str) -> tuple[bytes, Sequence[Any]] | PayloadError:
    """Make a setup for servers of another Python, or find out why that cannot be."""
    from remote_executor.payload.by_source import dump_abroad

    try:
        return dump_abroad(call, what, ())
    except PayloadError as error:
        return error


def make_setup(number: int, call: Any, what: str, *, elsewhere: bool) -> Setup:
    """
    Pickle a setup.

    Args:
        number: Which one it is.
        call: A function and the tuple of its arguments.
        what: What to call it in errors.
        elsewhere: Whether there may be servers of another Python.

    Raises:
        PayloadError: If it cannot be pickled.
    """
    # What is handed over is closed with the executor, and a broadcast may come to nothing before.
    block = handing_over(call, elsewhere=elsewhere) if number == 0 else nullcontext((call, None))
    with block as (call, handed):
        here = dump(call)
        abroad = _abroad(call, what) if elsewhere and holds_code(here[0]) else None
    return Setup(number, here, abroad, handed)
