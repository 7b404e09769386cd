"""
What a worker tells those parts of the library that a task of its may use, and they tell it.

A worker sets :data:`here`; a task that makes tasks of its own finds there how to speak to its
client. It is below both, so that neither imports the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mmap
    import socket
    from collections.abc import Callable

__all__ = ["InTask", "here"]


class InTask:
    """
    A worker, for the task that it runs.

    Attributes:
        open: Makes the way by which a task and its client speak; None outside of workers.
        task: Returns the id of the task that runs now, None between two.
        stops: The exception that tells a task to stop.
        parallel: Whether cognates inside of tasks spread.
        idle: Its first byte tells how many slots of this server nobody uses; None as long as that
            is not known here.
        ended: What is to be called when a task is over, once one has made tasks.
    """

    __slots__ = ("ended", "idle", "open", "parallel", "stops", "task")

    def __init__(self) -> None:
        self.open: Callable[[], socket.socket] | None = None
        self.task: Callable[[], int | None] = _none
        self.stops: type[BaseException] | tuple[()] = ()
        self.parallel = False
        self.idle: mmap.mmap | None = None
        self.ended: Callable[[], Any] | None = None


def _none() -> None:
    return None


here = InTask()
"""This process."""
