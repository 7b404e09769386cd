"""
Who uses which shared memory of a session.

Arguments: a segment is lent by the client, which shares this host, or is our own, filled from a
stream. It goes along with its task to a worker, and with a task that is taken back and given to
another also to that one. It is free when the task is settled and each worker that got it has said
that nothing of it is left there. If one of them died, somebody may map it still, and it is not used
again.

Results: a segment is lent by the worker. It goes along to a client on this host, which says when
it is free; to any other client its bytes are written from here, and it is free once they are
acknowledged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from remote_executor.errors import RemoteProtocolError
from remote_executor.net.segments import (
    AVAILABLE,
    MOST_FREE,
    WORTH,
    Segment,
    SegmentPool,
    check_segment,
    is_scarce,
    layout,
    read_segment,
)
from remote_executor.payload.file_mappings import map_file
from remote_executor.wire.frames import make_frame, segment_is_lost
from remote_executor.wire.messages import AGAIN, Flag, Kind

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Sequence

    from remote_executor.server.workers import WorkerProcess
    from remote_executor.wire.frames import Buffer, Frame

__all__ = ["Incoming", "Memory", "Room", "Sharing"]

SEGMENT = int(Flag.SEGMENT)

MOST_KEPT = 128
"""Blobs of one server that stay in segments; each holds a descriptor, here and in workers."""


class Memory:
    """What the sessions of a server share: limits, and no memory."""

    def __init__(self) -> None:
        self.kept = 0
        """How many segments blobs have."""
        self.pools: dict[SegmentPool, None] = {}

    def trim(self) -> None:
        """Let go of free segments if there are too many in all; who has most loses first."""
        while self.pools:
            sizes = {pool: pool.free_bytes for pool in self.pools}
            if sum(sizes.values()) <= MOST_FREE:
                return
            max(sizes, key=sizes.__getitem__).drop_oldest()


class Room:
    """
    Where a connection's large buffers go: to its session, once there is one.

    An object of its own, since the link holds it: the connection would hold itself.
    """

    __slots__ = ("incoming",)

    def __init__(self) -> None:
        self.incoming: Incoming | None = None

    def allocate(self, sizes: Sequence[int]) -> tuple[Sequence[Buffer], object] | None:
        """Do as :meth:`Incoming.allocate` does."""
        return None if self.incoming is None else self.incoming.allocate(sizes)


class Incoming:
    """
    Room for a session's large buffers that come by a stream: in segments, to go on as such.

    Args:
        memory: What it shares with other sessions.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.pool = SegmentPool()
        memory.pools[self.pool] = None

    def back(self, segment: Segment) -> None:
        """Take a segment back: nobody maps it any more."""
        self.pool.back(segment)
        self.memory.trim()

    def close(self) -> None:
        """The session has ended: what it had is nobody else's."""
        self.memory.pools.pop(self.pool, None)
        self.pool.close()

    def allocate(self, sizes: Sequence[int]) -> tuple[Sequence[Buffer], object] | None:
        """
        Return memory for buffers of these sizes and the segment it is in, or None if it is in none.

        The system gives a segment its pages as they are written, however large it is.
        """
        if AVAILABLE and sum(sizes) >= WORTH:
            found = self.pool.lend_empty(sizes)
            if found is not None:
                return found[1], found[0]
        return None


class _Mapped:
    """The bytes of a result, for a client on another host."""

    __slots__ = ("mapping", "process")

    def __init__(self, process: WorkerProcess, mapping: mmap.mmap) -> None:
        self.process = process
        self.mapping = mapping


class _Lent:
    """A task's segment."""

    __slots__ = ("holders", "own", "settled", "spoilt")

    def __init__(self, own: Segment | None) -> None:
        self.own = own
        self.holders = 0
        self.settled = False
        self.spoilt = False


def _tell_nobody(*args: object) -> None:
    """Stand in for the ways to client and workers of a session that is over."""


class Sharing:
    """
    The shared memory of one session.

    Args:
        incoming: Where segments of our own come from.
        tell_client: Sends a frame to the client.
        tell_worker: Sends a frame to a worker.
    """

    __slots__ = ("_incoming", "_lent", "_results", "_tell_client", "_tell_worker", "host")

    def __init__(
        self,
        incoming: Incoming,
        tell_client: Callable[[Frame], None],
        tell_worker: Callable[[WorkerProcess, Frame], None],
    ) -> None:
        self.host = False
        """Whether the client is on this host, at the other end of a Unix socket."""
        self._incoming = incoming
        self._tell_client = tell_client
        self._tell_worker = tell_worker
        self._lent: dict[int, _Lent] = {}
        self._results: dict[int, WorkerProcess] = {}

    def close(self) -> None:
        """The session is over: let go of it, and of the segments that nobody has given back."""
        self._tell_client = self._tell_worker = _tell_nobody
        self._lent.clear()
        self._results.clear()

    # ----------------------------------------------------------------------- blobs

    def keep(self, frame: Frame) -> None:
        """
        A blob has come: from now on its buffers go to workers as one segment, if there is one.

        Nobody counts who maps it. It is not used again: the kernel frees it when the last one has
        let go of it.

        Raises:
            RemoteProtocolError: If the client's segment cannot be trusted.
        """
        segment = frame.segment
        if segment is None:
            return
        sizes = frame.sizes()
        _, total = layout(sizes)
        if not isinstance(segment, Segment):
            try:
                check_segment(segment.fd, total)
            except ValueError as exc:
                raise RemoteProtocolError(f"a blob cannot be used: {exc}") from None
        if self._incoming.memory.kept >= MOST_KEPT or is_scarce(segment.fd):
            self._take_out(frame, sizes)
            return
        self._incoming.memory.kept += 1
        if isinstance(segment, Segment):
            frame.set_segment(segment)
            frame.buffers = ()
            segment.mapping = None  # workers map it, and we have no more to do with it

    def _take_out(self, frame: Frame, sizes: Sequence[int]) -> None:
        """Copy a blob's buffers out of their segment."""
        buffers = read_segment(frame.segment.fd, sizes)
        frame.raw = bytearray(frame.raw)
        frame.raw[1] &= ~SEGMENT
        frame.flags &= ~SEGMENT
        frame.buffers = buffers
        frame.segment = None

    def drop(self, frame: Frame) -> None:
        """A blob is forgotten."""
        if frame.segment is not None:
            self._incoming.memory.kept -= 1

    # ------------------------------------------------------------------- arguments

    def given(self, process: WorkerProcess, frame: Frame) -> None:
        """A task with a segment goes to a worker."""
        lent = self._lent.get(frame.id)
        if lent is None:
            own = frame.segment if isinstance(frame.segment, Segment) else None
            if own is not None and not frame.flags & SEGMENT:
                frame.set_segment(own)
            lent = self._lent[frame.id] = _Lent(own)
        lent.holders += 1
        process.holds.append(frame.id)

    def arrived(self, frame: Frame) -> Frame | None:
        """
        A task has come whose segment is the client's.

        Returns:
            The task as it is to be kept; None if its descriptor was lost: it is asked for again.
        """
        if segment_is_lost(frame.segment):
            self._tell_client(make_frame(Kind.RELEASE, frame.id, aux=AGAIN))
            return None
        if not is_scarce(frame.segment.fd):
            return frame
        inline = frame.inline(read_segment(frame.segment.fd, frame.sizes()))
        self._tell_client(make_frame(Kind.RELEASE, frame.id))
        return inline

    def settled(self, frame: Frame) -> None:
        """A task with a segment is done, or gone from here."""
        lent = self._lent.get(frame.id)
        if lent is None:
            own = frame.segment if isinstance(frame.segment, Segment) else None
            lent = self._lent[frame.id] = _Lent(own)
        lent.settled = True
        self._look(frame.id, lent)

    def released(self, process: WorkerProcess, id: int) -> None:
        """A worker has nothing left of a task's segment."""
        lent = self._lent.get(id)
        if lent is not None and id in process.holds:
            process.holds.remove(id)
            lent.holders -= 1
            self._look(id, lent)

    def worker_gone(self, process: WorkerProcess) -> None:
        """A worker has died with whatever it had."""
        holds, process.holds = process.holds, []
        for id in holds:
            lent = self._lent.get(id)
            if lent is not None:
                lent.holders -= 1
                lent.spoilt = True
                self._look(id, lent)
        for id in [id for id, lender in self._results.items() if lender is process]:
            del self._results[id]

    def _look(self, id: int, lent: _Lent) -> None:
        if lent.holders or not lent.settled:
            return
        del self._lent[id]
        if lent.own is None:
            self._tell_client(make_frame(Kind.RELEASE, id, aux=int(lent.spoilt)))
        elif not lent.spoilt:
            self._incoming.back(lent.own)

    # --------------------------------------------------------------------- results

    def result(self, process: WorkerProcess, frame: Frame) -> Frame:
        """
        Return a result as it is to be sent to the client.

        Raises:
            ValueError: If the worker's segment cannot be trusted.
        """
        sizes = frame.sizes()
        if is_scarce(frame.segment.fd):
            # Not to be kept until the client has had it, which may take long.
            inline = frame.inline(read_segment(frame.segment.fd, sizes))
            self._tell_worker(process, make_frame(Kind.RELEASE, frame.id))
            return inline
        if self.host:
            self._results[frame.id] = process
            return frame
        offsets, total = layout(sizes)
        check_segment(frame.segment.fd, total)
        try:
            mapping = map_file(frame.segment.fd, total)
        except OSError:  # there is no room for a mapping; the worker has done nothing wrong
            inline = frame.inline(read_segment(frame.segment.fd, sizes))
            self._tell_worker(process, make_frame(Kind.RELEASE, frame.id))
            return inline
        view = memoryview(mapping)
        inline = make_frame(
            frame.kind,
            frame.id,
            bytes(frame.body),
            [view[at : at + size] for at, size in zip(offsets, sizes, strict=True)],
            aux=frame.aux,
            flags=frame.flags & ~SEGMENT,
        )
        inline.segment = _Mapped(process, mapping)
        return inline

    def acknowledged(self, frames: list[Frame]) -> None:
        """The client has had these frames."""
        for frame in frames:
            mapped: Any = frame.segment
            if type(mapped) is _Mapped:
                frame.buffers = ()
                frame.segment = None
                if mapped.process.answers >= 0:
                    self._tell_worker(mapped.process, make_frame(Kind.RELEASE, frame.id))

    def result_released(self, id: int) -> None:
        """The client has nothing left of a result's segment."""
        process = self._results.pop(id, None)
        if process is not None and process.answers >= 0:
            self._tell_worker(process, make_frame(Kind.RELEASE, id))
