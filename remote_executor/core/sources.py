"""
Contents of modules, by digest: which a server holds, and which questions it has open.

The client keeps count (:func:`to_send`) and the server obeys (:class:`Sources`), so each content
comes to a server once a session, and what a server keeps is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from remote_executor.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["HELD_BYTES", "Sources", "to_send"]

HELD_BYTES = 256 * 1024 * 1024
"""So many bytes a session may keep at its server."""

Who = TypeVar("Who")


def to_send(
    contents: Mapping[str, bytes], held: dict[str, int], limit: int = HELD_BYTES
) -> tuple[dict[str, Any], list[bytes]]:
    """
    Decide at the client what goes along with an answer.

    Args:
        contents: What the answer needs, by digest.
        held: What the server keeps, size by digest, oldest first. It is brought up to date.
        limit: How many bytes the server may keep; what this answer needs it keeps in any case.

    Returns:
        Fields for the answer and contents that the server lacks. ``"contents"`` are the digests of
        all that the answer needs, ``"sent"`` of those that come with it, ``"drop"`` of those that
        the server shall forget.
    """
    sent = [digest for digest in contents if digest not in held]
    for digest, content in contents.items():
        held.pop(digest, None)  # to the end, being the newest
        held[digest] = len(content)
    drop = []
    total = sum(held.values())
    for digest in list(held):
        if total <= limit or digest in contents:
            break
        total -= held.pop(digest)
        drop.append(digest)
    fields = {"contents": list(contents), "sent": sent, "drop": drop}
    return fields, [contents[digest] for digest in sent]


class Sources(Generic[Who]):
    """
    One session's contents and open questions, at its server.

    Questions of all workers go to the client by one way, so they are numbered anew.
    """

    __slots__ = ("_contents", "_number", "_open")

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}
        self._open: dict[int, tuple[Who, int]] = {}
        self._number = 0

    def __repr__(self) -> str:
        return f"<Sources {len(self._contents)} contents, {len(self._open)} questions>"

    def asked(self, who: Who, number: int) -> int:
        """
        Take note of a question.

        Args:
            who: The worker that asks.
            number: Its own number for the question.

        Returns:
            The number under which the client is asked.
        """
        self._number += 1
        self._open[self._number] = who, number
        return self._number

    def answered(
        self, id: int, fields: Mapping[str, Any], buffers: Sequence[Any]
    ) -> tuple[Who, int, list[bytes]] | None:
        """
        Take an answer of the client's.

        Args:
            id: The number of the question.
            fields: What :func:`to_send` made.
            buffers: The contents that came along. They are copied.

        Returns:
            The worker that asked, its number for the question, and all contents of the answer;
            None if it is gone.

        Raises:
            RemoteProtocolError: If the answer names contents that are neither in it nor here.
        """
        contents = self._contents
        for digest, buffer in zip(fields["sent"], buffers, strict=False):
            contents[digest] = bytes(buffer)
        for digest in fields["drop"]:
            contents.pop(digest, None)
        who, number = self._open.pop(id, (None, 0))
        if who is None:
            return None
        try:
            return who, number, [contents[digest] for digest in fields["contents"]]
        except (KeyError, TypeError):
            raise RemoteProtocolError("an answer names contents that never came") from None

    def gone(self, who: Who) -> None:
        """A worker has ended: its questions need no answer."""
        self._open = {id: each for id, each in self._open.items() if each[0] is not who}

    def clear(self) -> None:
        """Forget all: the session is over."""
        self._contents.clear()
        self._open.clear()

    @property
    def questions(self) -> int:
        """How many questions are open."""
        return len(self._open)
