"""Questions to servers which of some tasks have begun: they know it before they say so unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_executor.net.interruptible import Event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from remote_executor.core.tasks import Server, Task

__all__ = ["Inquiries", "Inquiry"]


class Inquiry:
    """
    One question, to several servers.

    Attributes:
        begun: The tasks of which it is known that they run, in no order.
        answered: Set once nobody owes an answer any more.
        requests: The numbers of the answers that are owed, which the I/O thread alone changes.
    """

    __slots__ = ("answered", "begun", "requests")

    def __init__(self) -> None:
        self.begun: dict[Task, None] = {}
        self.answered = Event()
        self.requests: set[int] = set()


class Inquiries:
    """The questions that are open. The I/O thread alone uses it."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[Server, Inquiry]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, inquiry: Inquiry, request: int, server: Server) -> None:
        """A server is asked."""
        inquiry.requests.add(request)
        self._open[request] = server, inquiry

    def answer(self, request: int, tasks: Iterable[Task]) -> Inquiry | None:
        """Take an answer; return the inquiry if it was the last one for it."""
        _, inquiry = self._open.pop(request, (None, None))
        if inquiry is None:
            return None
        inquiry.begun.update(dict.fromkeys(tasks))
        inquiry.requests.discard(request)
        return None if inquiry.requests else inquiry

    def give_up(self, server: Server | None = None) -> list[Inquiry]:
        """Expect no answer of a server that is lost, or of any; return what is over thereby."""
        over = []
        for request, (asked, _) in list(self._open.items()):
            if server is None or asked is server:
                inquiry = self.answer(request, ())
                if inquiry is not None:
                    over.append(inquiry)
        return over

    def forget(self, inquiry: Inquiry) -> None:
        """Nobody waits for it any more."""
        for request in inquiry.requests:
            self._open.pop(request, None)
