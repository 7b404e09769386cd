"""
The pipe that says which tasks a worker may begin.

The supervisor writes *tokens*. The worker reads one and begins that task. The supervisor has the
read end open as well: a task whose token it reads itself cannot begin any more. So a token is
either here or there, never both. ::

    17  18  19  20            ids of tasks whose frames come by the wire
    LONE + 40  [21 ...]  22   a lone task: the size of its frame, then the frame

A task that comes alone, for an idle worker, takes its frame along. That is one small write and two
small reads, where token and wire together take twice the time. Whoever takes tokens back between
the two reads finds the second half of it, and puts that back.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
from termios import FIONREAD
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_executor.core.pool import PoolWorker
    from remote_executor.wire.frames import Frame

__all__ = ["LONE", "LONE_MOST", "TokenPipe", "TokenPipes"]

LONE = 1 << 63
"""Added to the size of a lone task's frame. Ids are smaller: the supervisor sees to that."""

LONE_MOST = min(2048, select.PIPE_BUF - 8)
"""Bytes of such a frame: it and its token must fit into what a pipe takes in one piece."""


class TokenPipe:
    """The supervisor's side of one worker's pipe. Call :meth:`open` first."""

    __slots__ = ("_behind", "_lone", "_read", "_reclaimed", "_write")

    def __init__(self) -> None:
        self._read = self._write = -1
        self._lone: Frame | None = None
        """The last lone task, as long as the worker may not have read it."""
        self._behind = 0
        """How many tokens were written after it."""
        self._reclaimed: Frame | None = None
        """The lone task that :meth:`reclaim` has just returned."""

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
            raise
        return theirs

    def write(self, ids: Sequence[int]) -> None:
        """Let the worker begin these tasks."""
        if self._write < 0:
            return
        if len(ids) == 1:
            self._put(ids[0].to_bytes(8, "little"))
        else:
            self._put(struct.pack(f"<{len(ids)}Q", *ids))
        self._behind += len(ids)

    def write_lone(self, frame: Frame) -> None:
        """
        Give an idle worker a task, and let it begin.

        Args:
            frame: Plain bytes, at most :data:`LONE_MOST`.
        """
        if self._write < 0:
            return
        self._lone, self._behind = frame, 0
        self._put((LONE + len(frame.raw)).to_bytes(8, "little") + frame.raw)

    def _put(self, data: bytes) -> None:
        try:
            os.write(self._write, data)
        except BrokenPipeError:
            pass  # only if we closed our own read end, too

    def reclaim(self) -> list[int]:
        """Take back all that the worker has not read; return the ids, in order."""
        self._reclaimed = None
        if self._read < 0:
            return []
        try:
            data = os.read(self._read, 65536)
        except BlockingIOError:
            return []
        ids: list[int] = []
        lone, rest = self._lone, len(data) - 8 * self._behind
        self._behind = 0
        if lone is not None and rest > 0:
            if rest <= len(lone.raw):
                self._put(data[:rest])  # the worker has read the size, and wants this now
            else:
                self._lone, self._reclaimed = None, lone
                ids.append(lone.id)
            data = data[rest:]
        else:
            self._lone = None
        return [*ids, *struct.unpack(f"<{len(data) // 8}Q", data)]

    def restore(self, ids: Sequence[int]) -> None:
        """Give back some of what :meth:`reclaim` has just returned, in order."""
        lone, self._reclaimed = self._reclaimed, None
        if lone is not None and ids and ids[0] == lone.id:
            self.write_lone(lone)
            ids = ids[1:]
        if ids:
            self.write(ids)

    def unread(self) -> int:
        """Return how many tasks the worker has not begun to read."""
        if self._read < 0:
            return 0
        size: int = struct.unpack("i", fcntl.ioctl(self._read, FIONREAD, b"\0" * 4))[0]
        rest = size - 8 * self._behind
        if self._lone is not None and rest > 0:
            return self._behind + (rest > len(self._lone.raw))
        return size // 8

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
        return [] if worker.shell is None else worker.shell.tokens.reclaim()

    def restore(self, worker: PoolWorker, ids: Sequence[int]) -> None:
        """Give back tokens that were reclaimed."""
        worker.shell.tokens.restore(ids)

    def unread(self, worker: PoolWorker) -> int:
        """Return how many tokens the worker has not read."""
        return 0 if worker.shell is None else worker.shell.tokens.unread()
