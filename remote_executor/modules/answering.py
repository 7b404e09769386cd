"""
The thread that answers what servers ask the client for.

To find, read and parse modules takes up to seconds, and what is asked for may run code of the user.
On the I/O thread nothing would be sent or received meanwhile: results would wait, and servers take
the link for dead. So the I/O thread hands questions on to this thread, and gets answers back::

    I/O thread                          answering thread
    ----------                          ----------------
    WANT comes: put(work, send) ------> work()
    send(answer), when it may   <------ post

It is started by the first question, and ended by the driver.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from remote_executor.net.interruptible import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Answering"]

END_SECONDS = 5.0
"""How long the driver's end waits for an answer that is being made. Nobody wants that any more."""


class Answering:
    """
    Makes answers one after the other, in the order of the questions.

    Args:
        post: Has something called by the I/O thread; any thread may call it.
    """

    def __init__(self, post: Callable[[Callable[[], None]], None]) -> None:
        self._post = post
        self._questions: SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]] | None] = (
            SimpleQueue()
        )
        self._thread: threading.Thread | None = None
        self._closed = False

    def __repr__(self) -> str:
        state = "not started" if self._thread is None else "closed" if self._closed else "open"
        return f"<Answering {state}, {self._questions.qsize()} questions>"

    def put(self, work: Callable[[], Any], send: Callable[[Any], None]) -> None:
        """
        Have a question answered. For the I/O thread.

        Args:
            work: Makes the answer, in the answering thread. It must not raise.
            send: Is called with the answer, by the I/O thread; unless :meth:`close` came first.

        Raises:
            RuntimeError: If there are too many threads.
        """
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="remote_executor answers", daemon=True)
            start_thread(thread)
            self._thread = thread
        self._questions.put((work, send))

    def close(self) -> None:
        """Drop what was not answered, and end the thread. Does nothing the second time."""
        self._closed = True
        self._questions.put(None)
        if self._thread is not None:
            self._thread.join(END_SECONDS)

    def _run(self) -> None:
        while True:
            question = self._questions.get()
            if question is None or self._closed:
                return
            work, send = question
            answer = work()
            if not self._closed:
                self._post(lambda send=send, answer=answer: send(answer))  # type: ignore[misc]
            del question, work, send, answer  # nothing of it is kept while we wait
