"""
The pipe that says which tasks a worker may begin.

The supervisor writes *tokens*. The worker reads one and begins that task. The supervisor has the
read end open as well: a task whose token it reads itself cannot begin any more. So a token is
either here or there, never both. ::

    17  18  19                   ids of tasks whose frames come by the wire
    ALONG + 40  5  [20 ...]  21  a token that takes its task along: the size of the frame, the mark,
                                 the frame

A small task that is given singly goes along with its token. That is one write and two reads, where
token and wire together take twice the time. The *mark* is how many frames had been put on the wire
before: the worker reads the wire up to there first.

Whoever takes tokens back between the two reads finds the rest of one, and puts that back.
"""

from __future__ import annotations

import os
import select
import struct
from collections import deque
from fcntl import ioctl
from termios import FIONREAD
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_executor.core.pool import PoolWorker
    from remote_executor.wire.frames import Frame

__all__ = ["ALONG", "MARK", "TokenPipe", "TokenPipes"]

ALONG = 1 << 63
"""Added to the size of a frame that comes along. Ids are smaller: the supervisor sees to that."""

MARK = struct.Struct("<Q")

MOST_ALONG = min(2048, select.PIPE_BUF // 2)
"""Bytes of tokens with frames in the pipe: one of two pages has room for them and all others."""


class TokenPipe:
    """The supervisor's side of one worker's pipe. Call :meth:`open` first."""

    __slots__ = ("_along", "_read", "_recent", "_reclaimed", "_write")

    def __init__(self) -> None:
        self._read = self._write = -1
        self._recent: deque[tuple[int, bytes]] = deque()
        """Ids and tokens in order, from the first with a frame on that may not have been read."""
        self._along = 0
        """The bytes of those with frames."""
        self._reclaimed: dict[int, bytes] = {}
        """Those with frames that :meth:`reclaim` has just returned."""

    def open(self) -> int:
        """
        Make the pipe.

        Returns:
            The worker's end, which is not closed by :meth:`close`.

        Raises:
            OSError: If there are too many descriptors.
        """
        theirs, self._write = os.pipe()
        try:
            self._read = _second_reader(theirs)
        except OSError:
            os.close(theirs)
            self.close_writing()
            raise
        return theirs

    def write(self, ids: Sequence[int]) -> None:
        """Let the worker begin these tasks."""
        if self._write < 0:
            return
        if self._recent:
            self._recent.extend((id, id.to_bytes(8, "little")) for id in ids)
        if len(ids) == 1:
            self._put(ids[0].to_bytes(8, "little"))
        else:
            self._put(struct.pack(f"<{len(ids)}Q", *ids))

    def write_along(self, frame: Frame, mark: int) -> bool:
        """
        Let the worker begin a task whose frame goes along, if it is a small one.

        Args:
            frame: The task.
            mark: How many frames have been put on the wire.

        Returns:
            Whether it went.
        """
        raw = frame.raw
        plain = frame.tail is None and not frame.buffers and frame.segment is None
        if not plain or len(raw) > MOST_ALONG or self._write < 0:
            return False
        token = (ALONG + len(raw)).to_bytes(8, "little") + MARK.pack(mark) + raw
        if self._along + len(token) > MOST_ALONG:
            return False
        self._write_token(frame.id, token, token)
        return True

    def _write_token(self, id: int, token: bytes, rest: bytes) -> None:
        """Write what is left of a token that takes its task along."""
        self._recent.append((id, token))
        self._along += len(token)
        self._put(rest)

    def _put(self, data: bytes) -> None:
        try:
            os.write(self._write, data)
        except BrokenPipeError:
            pass  # only if we closed our own read end, too

    def answered(self, id: int) -> None:
        """Take note that a task is done: its token has been read, and all before it."""
        recent = self._recent
        if not any(found == id for found, _ in recent):
            return
        while recent:
            found, token = recent.popleft()
            if len(token) > 8:
                self._along -= len(token)
            if found == id:
                break
        if not self._along:
            recent.clear()

    def reclaim(self) -> list[int]:
        """Take back all that the worker has not read; return the ids, in order."""
        self._reclaimed = {}
        if self._read < 0:
            return []
        try:
            data = os.read(self._read, 65536)
        except BlockingIOError:
            return []
        ids: list[int] = []
        end = len(data)
        recent, self._recent, self._along = self._recent, deque(), 0
        while recent and end:
            id, token = recent.pop()
            if end < len(token):
                # The worker has read how long it is, and wants the rest now.
                self._write_token(id, token, data[:end])
                end = 0
                break
            end -= len(token)
            ids.append(id)
            if len(token) > 8:
                self._reclaimed[id] = token
        ids.reverse()
        return [*struct.unpack_from(f"<{end // 8}Q", data), *ids]

    def restore(self, ids: Sequence[int]) -> None:
        """Give back some of what :meth:`reclaim` has just returned, in order."""
        reclaimed, self._reclaimed = self._reclaimed, {}
        plain: list[int] = []
        for id in ids:
            token = reclaimed.get(id)
            if token is None:
                plain.append(id)
                continue
            if plain:
                self.write(plain)
                plain = []
            self._write_token(id, token, token)
        if plain:
            self.write(plain)

    def unread(self) -> int:
        """Return how many tasks the worker has not begun to read."""
        if self._read < 0:
            return 0
        size: int = struct.unpack("i", ioctl(self._read, FIONREAD, b"\0" * 4))[0]
        count = 0
        for _, token in reversed(self._recent):
            if size < len(token):
                return count
            size -= len(token)
            count += 1
        return count + size // 8

    def close_writing(self) -> None:
        """Have the worker end once it has nothing to do."""
        if self._write >= 0:
            os.close(self._write)
            self._write = -1

    def close(self) -> None:
        """Close our ends."""
        self.close_writing()
        if self._read >= 0:
            os.close(self._read)
            self._read = -1


def _second_reader(fd: int) -> int:
    """
    Open a pipe's read end a second time, not blocking.

    A plain dup shares the flag with the worker's end. Where the pipe cannot be opened anew, the
    worker has to live with that: it polls.
    """
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        os.set_blocking(fd, False)
        return os.dup(fd)


class TokenPipes:
    """The pool's way to the token pipes: see :class:`remote_executor.core.pool.Tokens`."""

    def reclaim(self, worker: PoolWorker) -> list[int]:
        """Take back all tokens that the worker has not read, in order."""
        if worker.shell is None:
            return []
        # A task that forges answers for tasks that have not begun must not confuse more than those.
        return [id for id in worker.shell.tokens.reclaim() if id in worker.assigned]

    def restore(self, worker: PoolWorker, ids: Sequence[int]) -> None:
        """Give back tokens that were reclaimed."""
        worker.shell.tokens.restore(ids)

    def unread(self, worker: PoolWorker) -> int:
        """Return how many tokens the worker has not read."""
        return 0 if worker.shell is None else worker.shell.tokens.unread()
