"""Who may wait for a farm: any thread but the one that brings what is waited for."""

from __future__ import annotations

import threading

__all__ = ["IN_A_CALLBACK", "IOThread", "check_may_wait"]

IN_A_CALLBACK = (
    "a done-callback must not wait for its executor: it runs in the thread that brings "
    "results; start a thread of your own for it"
)


class IOThread(threading.Thread):
    """
    An executor's I/O thread. It also runs done-callbacks.

    Attributes:
        lent: Whether it runs them now, so that another thread may take over its duty.
    """

    lent = False


def check_may_wait() -> None:
    """
    Check that the caller is not a done-callback that an I/O thread runs.

    Raises:
        RuntimeError: If it is: what it waits for could never come.
    """
    if isinstance(threading.current_thread(), IOThread):
        raise RuntimeError(IN_A_CALLBACK)
