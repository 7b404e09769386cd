"""Who may wait for a farm: any thread but the one that brings what is waited for."""

from __future__ import annotations

import threading
from contextvars import ContextVar

__all__ = ["IN_A_CALLBACK", "IN_A_STEP", "IOThread", "check_may_wait", "check_not_in_a_step"]

IN_A_CALLBACK = (
    "a done-callback must not wait for its executor: it runs in the thread that brings "
    "results; start a thread of your own for it"
)


IN_A_STEP: ContextVar[bool] = ContextVar("in a step of remote_executor", default=False)
"""Whether a finalizer runs in the middle of a call that sends or receives, which waits for it."""


class IOThread(threading.Thread):
    """
    An executor's I/O thread. It also runs done-callbacks.

    Attributes:
        lent: Whether it runs them now, so that another thread may take over its duty.
    """

    lent = False


def check_may_wait() -> None:
    """
    Check that the caller is not a done-callback that an I/O thread runs, nor a finalizer like that.

    Raises:
        RuntimeError: If it is: what it waits for could never come.
    """
    if isinstance(threading.current_thread(), IOThread):
        raise RuntimeError(IN_A_CALLBACK)
    check_not_in_a_step()


def check_not_in_a_step() -> None:
    """
    Check that the caller is no finalizer in the middle of a call that sends or receives.

    Raises:
        RuntimeError: If it is: what it waits for could never come.
    """
    if IN_A_STEP.get():
        raise RuntimeError(
            "a finalizer in the middle of a submit must not wait for an executor, as a "
            "done-callback must not: what it waits for could never come"
        )
