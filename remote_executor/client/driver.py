"""
The client's shell around the scheduler: one I/O thread, to which all others post.

::

    caller                          I/O thread
    ------                          ----------
    submit: pickle, Future          poll            (no mutex)
       inbox.append                 with mutex:     read, decide, write
       wake it if it sleeps         then:           pickle batches, unpickle results,
                                                    resolve futures, run callbacks

A caller that has the farm to itself takes the way of :mod:`remote_executor.client.shortcut`.

The I/O thread alone changes the scheduler, the peers and the loop; all others post to it, and who
looks at them reads copies, each of which is one call into C. So no caller ever has a lock: a ^C in
the middle of a caller's ``submit`` costs that call at most, and a ``__del__`` may submit wherever
it runs. The mutex is the I/O thread's own; user code never runs while it is held.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from remote_executor.client.duty import Duty
from remote_executor.client.foreign import (
    LATE,
    differences,
    in_their_words,
    of_other_libraries,
    survey,
)
from remote_executor.client.futures import FarmFuture
from remote_executor.client.inquiries import Inquiries, Inquiry
from remote_executor.client.nested import Child, Nested
from remote_executor.client.notes import note_task
from remote_executor.client.outcomes import Outcomes
from remote_executor.client.peer import Peer, PeerState
from remote_executor.client.refusals import anew, of_broken
from remote_executor.client.reloads import reloads
from remote_executor.client.results import open_failure, pid_of, unloadable
from remote_executor.client.retry import Delays, try_again
from remote_executor.client.shortcut import Sent, Shortcut
from remote_executor.client.waits import IN_A_CALLBACK, IOThread, check_not_in_a_step
from remote_executor.client.ways import Embedded, Way
from remote_executor.core.known import Functions
from remote_executor.core.places import Places
from remote_executor.core.scheduler import Scheduler
from remote_executor.core.sources import to_send
from remote_executor.core.tasks import Feed, Server, Task, TaskState, needed_by
from remote_executor.errors import (
    CannotShip,
    ConnectionFailed,
    FarmError,
    PayloadError,
    RemoteProtocolError,
)
from remote_executor.modules.answering import Answering
from remote_executor.modules.claims import Claims
from remote_executor.net.interruptible import Event, Gates, Turns, start_thread
from remote_executor.net.loop import Loop
from remote_executor.net.segments import WORTH, Mappings
from remote_executor.payload.libraries import installed
from remote_executor.payload.modules import served_words
from remote_executor.payload.pickles import dump, holds_code, load
from remote_executor.payload.pythons import alias_renamed, python_words
from remote_executor.printable import printable
from remote_executor.task_errors import (
    NoServerError,
    ServerLost,
    TaskKilled,
    TaskTimeout,
    WorkerDied,
)
from remote_executor.wire.frames import Frame, make_frame
from remote_executor.wire.messages import (
    AGAIN,
    GRACE,
    NO_SLOTS,
    SPOILT,
    Flag,
    Kind,
    aux_of_grace,
    check_slots,
    decode_fields,
    decode_ids,
    encode_fields,
    encode_ids,
    fields_for_client,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.client.foreign import Foreign, Form
    from remote_executor.client.setups import Setup
    from remote_executor.client.shares import Blob, Shares
    from remote_executor.core.known import Function
    from remote_executor.net.security import TLSLike
    from remote_executor.payload.modules import Modules
    from remote_executor.payload.shared import Shared
    from remote_executor.wire.auth import Auth
    from remote_executor.wire.session import Session

__all__ = ["AFTER_SHUTDOWN", "Driver", "Settings"]

log = logging.getLogger("remote_executor.client")

T = TypeVar("T")

AFTER_SHUTDOWN = "cannot schedule new futures after shutdown"
BURST = 64
"""Tasks in the inbox at which the I/O thread is woken although all slots are busy."""
CROWD = 256
"""Entries in the inbox at which a caller lets the I/O thread go first."""
ANSWER_SECONDS = 2.0
"""How long cancel() waits for a server to say whether a task has begun."""
WARN_SECONDS = 3.0
START_SECONDS = 1.0
"""How long a caller waits for another one that starts the I/O thread."""
NAP_SECONDS = 0.005
"""How long callers may use the shortcut before the I/O thread looks after it."""
RELEASE_SECONDS = 0.01
"""How often to look whether a result's shared memory is still in use."""

UNDELIVERED = "a result could not be delivered"

MOST_LENT = 64
"""Tasks under way to one server in segments, or two a slot if that is more."""

INLINE = object()
"""In place of a task's segment: there was no memory for one."""

TASK = int(Kind.TASK)
RESULT = int(Kind.RESULT)
UNLOADED = int(Flag.UNLOADED)
FINISHED = (RESULT, int(Kind.FAILURE))


class Settings:
    """What an executor was made with, for its driver."""

    def __init__(
        self,
        *,
        config: dict[str, Any],
        setup: Setup | None,
        retries: int,
        grace: float,
        connect_timeout: float | None,
        auth: Auth,
        tls: TLSLike,
        label: bool,
        modules: Modules,
        blob_cache: int,
    ) -> None:
        self.config = config
        self.setup = setup
        """The initializer."""
        self.retries = retries
        self.grace = grace
        self.connect_timeout = connect_timeout
        self.auth = auth
        self.tls = tls
        self.blob_cache = blob_cache
        self.label = label
        """Whether lines that tasks print are marked with host and task."""
        self.modules = modules
        """Answers servers that ask for modules."""


class Driver:
    """
    Drives the scheduler and the peers of one executor.

    Args:
        settings: What the executor was made with.
        ways: How to reach the servers.
    """

    def __init__(self, settings: Settings, ways: list[Way]) -> None:
        self.settings = settings
        self.scheduler = Scheduler()
        self.functions = Functions()
        self.shares: Shares | None = None
        """The shared objects, once there was one."""
        self._made: dict[str, Shares] = {}
        self._freed: deque[int] = deque()
        """Numbers of those that nobody refers to any more."""
        self.inbox: deque[Task | tuple[Feed, int] | tuple[Task, float | None]] = deque()
        """Tasks, feeds that have so many more items, and tasks to be parked: see :meth:`park`."""
        self.mutex = threading.RLock()
        self.loop = Loop()
        self._delays = Delays(self.loop, self.scheduler)
        self.closed = False
        """Whether nothing is accepted any more, and the I/O thread is gone or never was."""
        self.broken: BaseException | None = None
        self.thread: IOThread | None = None
        """The one on duty."""
        self._duty = Duty(self._run)
        self._delivering: tuple[Callable[..., None], tuple[Any, ...]] | None = None
        """What is being delivered."""
        self.up = Gates()
        """Opened when a server comes or goes."""
        self._starting = Turns()
        self._over_and_out = Event()
        """Set by the I/O thread's last act."""
        self._peers: dict[Peer, Server] = {}
        """Not changed but replaced: others look at it."""
        self._busy = False
        """Whether the I/O thread is in the core: a __del__ that runs there now must not enter."""
        self._deliveries: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._to_pack: list[tuple[Task, int]] = []
        self._broadcasts: list[tuple[int, Callable[[], None]]] = []
        """What pins tasks to workers, once nothing of a higher priority waits."""
        self._setups: dict[int, Setup] = {}
        """What each worker does before its first task, in this order."""
        if settings.setup is not None:
            self._setups[settings.setup.number] = settings.setup
        self.setup_numbers = itertools.count(1)
        """Of broadcasts that are kept; the initializer is 0."""
        self._mappings = Mappings()
        self._release_at = 0.0
        self._cancel_pending = False
        self._answers: dict[int, Event] = {}
        self._places: Places[Peer] = Places()
        self._inquiries = Inquiries()
        self.nested = Nested(self)
        self._silent: set[Server] = set()
        """Servers that owe an answer to a cancel(): the next one does not wait for them."""
        self.ending = False
        self._alone_since = 0.0
        self._warned = False
        self._libraries: dict[str, str] | None = None
        """Those that are installed here, once somebody has looked."""
        self._pid = os.getpid()
        self._watchdog = self.loop.timer(self._look_for_servers)
        self._refill = self.loop.timer(lambda _: None)
        self._reloads_seen = len(reloads.names)
        self.answering = Answering(self.loop.post)
        self.claims: Claims | None = None
        """Our own modules, of whose names servers may have others."""
        if settings.modules:
            elsewhere = not all(isinstance(way, Embedded) for way in ways)
            self.claims = Claims(settings.modules, elsewhere=elsewhere)
        self._claims_told = 0
        self.shortcut = Shortcut(self.loop, self.functions)
        self._parked: tuple[Peer, Server]
        """Where callers use the shortcut, while that is open."""
        self.outcomes = Outcomes()
        self._settled_at = 0.0
        self.keeps = False
        """Whether there ever was a task whose result is kept in a journal."""
        self.foreign: Foreign | None = None
        """The servers that run another Python, or may do so."""
        for way in ways:
            self._add_way(way)
        _drivers.add(self)

    # ------------------------------------------------------------------- starting

    def _add_way(self, way: Way) -> Peer:
        settings = self.settings
        peer = Peer(
            way,
            self.loop,
            self,
            settings.config,
            settings.grace,
            settings.blob_cache,
            settings.connect_timeout,
        )
        self._peers = {**self._peers, peer: self.scheduler.add_server(peer, peer.name)}
        self._survey()
        return peer

    def _survey(self) -> None:
        """See whether there are, or may be, servers of another Python."""
        here = sys.implementation.name, tuple(sys.version_info[:3])
        self.foreign = survey(
            here,
            (
                here if isinstance(peer.way, Embedded) else peer.python
                for peer in self._peers
                if peer.state is not PeerState.REFUSED
            ),
        )

    def start(self) -> None:
        """Start the I/O thread, which connects to the servers. Does nothing the second time."""
        self._unless_started(self._start)

    def _start(self) -> None:
        thread = self.thread = self._duty.thread(on_duty=True)
        try:
            start_thread(thread)
        except RuntimeError:  # there are too many threads: it may work later
            self.thread = None
            raise

    def _unless_started(self, act: Callable[[], None]) -> bool:
        """Do something unless there is an I/O thread; return whether there was none."""

        def act_alone() -> bool:
            if self.thread is not None or self.closed:
                return False
            act()
            return True

        until = time.monotonic() + START_SECONDS
        while self.thread is None and not self.closed and time.monotonic() < until:
            done = self._starting.attempt(act_alone)
            if done is not None:
                return done[0]
            self._starting.wait(until)  # for another thread; for this one, in a __del__, in vain
        return False

    def _connect_all(self) -> None:
        self._expect_servers(time.monotonic())
        for peer in list(self._peers):
            if peer.state is PeerState.IDLE:
                peer.connect()

    def forked(self) -> RuntimeError | None:
        """Return the error to raise if this is a forked child, where all here is the parent's."""
        if self._pid == os.getpid():
            return None
        return RuntimeError(
            f"this executor belongs to process {self._pid}, which forked this one "
            f"({os.getpid()}): make a new FarmExecutor here"
        )

    def is_embedded(self) -> bool:
        """Whether its only server is one of its own, with as many slots as it was told."""
        return all(isinstance(peer.way, Embedded) for peer in self._peers)

    def in_io_thread(self) -> bool:
        """Whether the caller is a callback that an I/O thread of this executor runs."""
        return self._duty.is_of_ours()

    def check_may_wait(self) -> None:
        """
        Check that the caller is not a callback that the I/O thread runs.

        Raises:
            RuntimeError: If it is: what it waits for could never come.
        """
        if self.in_io_thread():
            raise RuntimeError(IN_A_CALLBACK)
        check_not_in_a_step()

    def wait_for_change(self, ready: Callable[[], bool], until: float | None) -> bool:
        """
        Wait until something holds, which may change when a server comes or goes.

        Args:
            ready: Tells whether it does. Quick, and none of the user's.
            until: Monotonic seconds at which to give up; None for never.

        Returns:
            Whether it holds, or never will: then the executor is broken or closed.

        Raises:
            RuntimeError: In a callback that would have to wait.
        """

        def enough() -> bool:
            return self.broken is not None or self.closed or ready()

        if not enough():
            self.check_may_wait()
        return self.up.wait(enough, until)

    # ------------------------------------------------------------------ submitting

    def accept(self, entry: Task | tuple[Feed, int]) -> None:
        """
        Accept a task, or so many more items of a feed.

        Raises:
            RuntimeError: If the driver has ended.
        """
        self.inbox.append(entry)
        if self.closed:
            self._refuse_inbox()
            raise RuntimeError(AFTER_SHUTDOWN)
        # While all slots are busy an answer is to come, and that wakes it soon enough.
        if self.loop.asleep and (
            self.scheduler.idle_slots or not self.scheduler.tasks or len(self.inbox) >= BURST
        ):
            self.loop.wake()
        elif len(self.inbox) >= CROWD:
            time.sleep(0)  # lets go of the GIL, for which the I/O thread waits

    def _refuse_inbox(self) -> None:
        while self.inbox:
            try:
                entry = self.inbox.popleft()
            except IndexError:
                return
            if not isinstance(entry, Task):
                if not isinstance(entry[0], Task):
                    entry[0].sink.dropped(None)
                    continue
                entry = entry[0]
            if entry.feed is not None:
                entry.sink.dropped(entry)
            else:
                entry.sink.finish_cancelled()

    def ask(self, call: Callable[[], T], default: T, limit: float | None = ANSWER_SECONDS) -> T:
        """
        Have the I/O thread call something, with the core in its hands.

        Args:
            call: What to call; quick, and not the user's. It must be right as well if nobody
                waits for its answer any more, after a ^C or the limit.
            default: What to return if it cannot be called now.
            limit: Seconds for which the I/O thread may be in user code; None for any time.

        Returns:
            What the call returned.
        """
        if self._busy and threading.current_thread() is self.thread:
            return default
        if self._resume_duty():
            try:
                with self.mutex:
                    self._busy = True
                    try:
                        self._end_parking()
                        answer = call()
                        self._drive(time.monotonic())
                    finally:
                        self._busy = False
            finally:
                self._lend_duty()
            return answer
        if self.thread is None:
            return default
        answers: list[T] = []
        event = Event()

        def answer_it() -> None:
            if given_up.is_set():
                return
            try:
                answers.append(call())
            finally:
                event.set()

        given_up = Event()
        self.loop.post(answer_it)
        until = None if limit is None else time.monotonic() + limit
        while not event.wait(0.1):
            if self.closed or (until is not None and time.monotonic() >= until):
                given_up.set()
                break
        return answers[0] if answers else default

    def _empty_inbox(self) -> None:
        inbox = self.inbox
        submit, offer = self.scheduler.submit, self.scheduler.offer
        while inbox:
            entry = inbox.popleft()
            if isinstance(entry, Task):
                submit(entry)
            elif isinstance(entry[0], Task):
                self._delays.park(*entry)
            else:
                offer(*entry)

    def park(self, task: Task, seconds: float | None) -> None:
        """
        Have a task enter the queue later. It can be cancelled meanwhile, and takes no slot.

        Args:
            task: A new one, or one that has failed and is to be tried again.
            seconds: After how many; None for when :meth:`unpark` is called.
        """
        self.inbox.append((task, seconds))
        if self.closed:
            self._refuse_inbox()
        elif self.loop.asleep:
            self.loop.wake()

    def server_at(self, place: str) -> Server | None:
        """Return the server of which errors say that a task ran there."""
        return next((at for peer, at in self._peers.items() if peer.note == place), None)

    def cancel_parked(self, task: Task) -> None:
        """Cancel a task that is parked. Any thread may call this."""

        def cancel() -> None:
            if self.scheduler.drop(task):
                self._deliver_cancel(task)

        self._when_parked(cancel)

    def fail_parked(self, task: Task, error: BaseException) -> None:
        """Fail a task that is parked, for good. Any thread may call this."""

        def fail() -> None:
            if self.scheduler.drop(task):
                self.deliver(_set_exception, task.sink, error)

        self._when_parked(fail)

    def _when_parked(self, call: Callable[[], None]) -> None:
        def act() -> None:
            self._empty_inbox()  # it may be in there
            call()

        if not self.closed:
            self.loop.post(act)

    def unpark(self, task: Task) -> None:
        """Have a task that was parked enter the queue now. Any thread may call this."""
        self._when_parked(partial(self.scheduler.unpark, task))

    def _drive(self, now: float) -> None:
        """Move what is in the inbox to servers."""
        scheduler = self.scheduler
        self._empty_inbox()
        if self.has_reloaded():
            self._announce_reloads()
        for server, tasks in scheduler.fill(now):
            self._send(server, tasks)
        if self._broadcasts:
            self._begin_broadcasts()
        if scheduler.asks:
            self._send_asks()
        if self.functions.crowded():
            self._evict()
        if self._freed:
            self._forget_freed()
        if self._to_pack:
            # Before what waits there: servers are to have something to do while callbacks run.
            packs = [(self._pack, each) for each in reversed(self._to_pack)]
            self._to_pack.clear()
            self._deliveries.extendleft(packs)
        for peer in self._peers:
            if peer.link is not None and peer.link.outbox.size:
                peer.flush()
            peer.settle_interest()

    def has_reloaded(self) -> bool:
        """Whether modules were reloaded here, and workers have not been told."""
        reloads.look()
        claims = self.claims
        if claims is not None:
            if claims.may_have_changed():
                claims.look()
            if claims.version != self._claims_told:
                return True
        return self._reloads_seen != len(reloads.names)

    def _announce_reloads(self) -> None:
        """Have workers reload what this process has reloaded, before the tasks that come next."""
        names = reloads.names[self._reloads_seen :]
        self._reloads_seen += len(names)
        if self.claims is not None:
            self._claims_told = self.claims.version
        if not self.settings.modules:
            return
        body = encode_fields({"modules": names})
        for peer in self._peers:
            if peer.session is not None:
                if names:
                    peer.session.send(make_frame(Kind.RELOAD, 0, body))
                self._tell_claims(peer, peer.session)

    def _tell_claims(self, peer: Peer, session: Session) -> None:
        """Tell a server which modules are our own, so that it takes no others of these names."""
        if self.claims is not None:
            fields = self.claims.fields(elsewhere=not isinstance(peer.way, Embedded))
            if fields != peer.claimed and (peer.claimed or any(fields.values())):
                peer.claimed = fields
                log.debug("> %s: modules of our own: %s", peer.name, fields["own"])
                body = encode_fields({"modules": [], **fields})
                session.send(make_frame(Kind.RELOAD, 0, body))

    def _send(self, server: Server, tasks: list[Task]) -> None:
        peer: Peer = server.key
        session = peer.session
        assert session is not None
        known = peer.known
        frames: list[Frame] = []
        before: Any = None
        for task in tasks:
            body = task.body
            if body is None:
                self._to_pack.append((task, task.id))
                continue
            encoded, buffers = task.encoded, task.buffers
            if peer.foreign:
                form = self._form_abroad(peer, task)
                if form is None:
                    continue
                encoded, body, buffers = form
            # Numbered when it goes: until then it may be forgotten for want of room.
            fresh = encoded is not before
            if fresh:
                before, function = encoded, self.functions.number(encoded)
            task.function = function
            if fresh and not known.use(function.number):
                self._send_function(peer, server, function)
            shares = buffers is task.buffers and peer.segments and task.segment is None
            if buffers and shares and task.size >= WORTH:
                self._to_pack.append((task, task.id))
                continue
            flags = task.flags
            for blob in task.blobs:
                if not known.use(blob.number):
                    self._send_shared(peer, server, blob)
            for part in function.parts:
                if not known.use(part.number):
                    self._send_part(peer, server, part)
            needs = task.blobs or function.parts
            if needs or task.timeout is not None or task.pinned is not None or task.priority:
                flags |= Flag.OPTIONED
                self._send_options(session, task)
            frame = make_frame(TASK, task.id, body, buffers, aux=function.number, flags=flags)
            if task.segment is not None and buffers is task.buffers:
                self._share(peer, task, frame)
            task.posted = True
            frames.append(frame)
        # What they need, and what makes room for that, has gone ahead.
        session.send_all(frames)

    def _form_abroad(self, peer: Peer, task: Task) -> Form | None:
        """Return what goes to a server of another Python; None if that is not to be sent now."""
        for blob in task.blobs:
            if blob.code:
                reason = "it was pickled with functions or classes by value when it was shared"
                cure = "share data, and objects of what the server can import"
                error = CannotShip(f"the shared {blob.what}", reason, cure=cure)
                self._refuse(peer, task, error)
                return None
        form = task.abroad
        if form is None:
            if not _holds_code(task):
                return task.encoded, task.body or b"", task.buffers
            self._to_pack.append((task, task.id))
            return None
        if isinstance(form, PayloadError):
            self._refuse(peer, task, form)
            return None
        return cast("Form", form)

    def _refuse(self, peer: Peer, task: Task, error: PayloadError) -> None:
        """Fail a task that cannot go to a server of another Python."""
        assert task.server is not None
        self.scheduler.ended(task.server, task.id)
        if isinstance(error, CannotShip):
            error = error.between(python_words(), python_words(*cast("Any", peer.python)))
        self._deliver_error(task, error)

    def _make_abroad(self, task: Task) -> Form | PayloadError:
        """Make what goes to servers of another Python for a task of which that is not there."""
        name = task.name or "task"
        foreign = self.foreign
        if foreign is None:  # the server has just been removed
            return CannotShip(name, LATE, cure="submit it again")
        items = task.items if task.feed is not None else None
        return foreign.late(task.encoded, name, items, task.body or b"", task.buffers)

    def _send_function(self, peer: Peer, server: Server, function: Function) -> None:
        assert peer.session is not None
        self._hold(peer, server, function.number, function.size)
        flags = Flag.PURE if function.pure else 0
        buffers = function.buffers
        if function.parts:
            buffers = (encode_ids([part.number for part in function.parts]),)
        id = len(function.parts)
        peer.session.send(
            make_frame(Kind.BLOB, id, function.body, buffers, aux=function.number, flags=flags)
        )

    def _send_part(self, peer: Peer, server: Server, part: Function) -> None:
        assert peer.session is not None
        self._hold(peer, server, part.number, part.size)
        peer.session.send(
            make_frame(Kind.BLOB, 0, b"", part.buffers, aux=part.number, flags=Flag.PART)
        )

    def _send_shared(self, peer: Peer, server: Server, blob: Blob) -> None:
        assert peer.session is not None
        self._hold(peer, server, blob.number, blob.size)
        peer.session.send(blob.frame(peer.segments))

    def _hold(self, peer: Peer, server: Server, number: int, size: int) -> None:
        """Take note of what a server is sent now, and have it forget others for it."""
        known = peer.known
        if known.crowded(size):
            for other in known.make_room(size, needed_by(server.inflight.values())):
                self._send_forget(peer, other)
        known.add(number, size)

    def _send_forget(self, peer: Peer, number: int) -> None:
        if peer.session is not None:
            peer.session.send(make_frame(Kind.FORGET, aux=number))

    def _send_options(self, session: Session, task: Task) -> None:
        fields: dict[str, Any] = {}
        if task.timeout is not None:
            fields["timeout"] = task.timeout
            if task.grace is not None:
                fields["grace"] = task.grace
        if task.pinned is not None:
            fields["worker"] = task.pinned
        if task.priority:
            fields["priority"] = task.priority
        parts = () if task.function is None else task.function.parts
        if task.blobs or parts:
            fields["blobs"] = [each.number for each in (*task.blobs, *parts)]
        session.send(make_frame(Kind.OPTIONS, task.id, encode_fields(fields)))

    def _share(self, peer: Peer, task: Task, frame: Frame) -> None:
        """Send a task's buffers in the segment that they were copied into."""
        segment, task.segment = task.segment, None
        if segment is INLINE:
            return
        if not peer.segments:
            peer.pool.back(segment)
            return
        if not peer.pool.owns(segment):
            return  # it was filled for another session, and may have been there: the bytes go
        frame.set_segment(segment)
        peer.lent[task.id] = segment

    def _pack(self, task: Task, attempt: int) -> None:
        """
        Pickle a batch or copy large buffers, and have it sent.

        That takes as long as the user's data and ``__reduce__`` want, so it is done as callbacks
        are: without the mutex, and another thread may be on duty when it is over.
        """
        server = task.server
        if server is None or not _is_under_way(task, attempt):
            return
        try:
            if task.body is None:
                task.body, task.buffers = dump(task.items)
                self.find_shared(task)
            abroad = server.key.foreign
            if abroad and task.abroad is None and _holds_code(task):
                task.abroad = self._make_abroad(task)
            shares = server.key.segments
            if abroad and isinstance(task.abroad, tuple):
                shares = shares and task.abroad[2] is task.buffers
            if shares and sum(map(len, task.buffers)) >= WORTH:
                task.segment = INLINE
                # Each holds a descriptor, and the program wants some, too.
                if len(server.key.lent) < max(MOST_LENT, 2 * server.slots):
                    task.segment = server.key.pool.lend(task.buffers) or INLINE
        except BaseException as exc:
            with self.mutex:
                mine = self.scheduler.drop(task)
            if mine:  # else it was killed or cancelled by what its pickling called
                self._deliver_error(task, exc)
        self.loop.post(partial(self._send_packed, task, attempt))

    def _send_packed(self, task: Task, attempt: int) -> None:
        if task.body is None:
            return
        size = len(task.body) + sum(map(len, task.buffers))
        self.scheduler.packed(task, size)
        # User code ran meanwhile: it may have been cancelled, and then has another id.
        if _is_under_way(task, attempt):
            assert task.server is not None
            self._send(task.server, [task])

    def _send_asks(self) -> None:
        asks, self.scheduler.asks = self.scheduler.asks, []
        for server, request, ids, count in asks:
            session = server.key.session
            if session is not None:
                session.send(make_frame(Kind.TAKE_BACK, request, encode_ids(ids), aux=count))

    def _evict(self) -> None:
        in_use = [task.function for task in self.scheduler.tasks.values() if task.function]
        for function in self.functions.evict(in_use):
            for peer in self._peers:
                if peer.known.discard(function.number):
                    self._send_forget(peer, function.number)

    # ------------------------------------------------------------------- shared objects

    def share(self, obj: object) -> Shared:
        """Share an object; see :meth:`FarmExecutor.share`."""
        shares = self.shares
        if shares is None:
            from remote_executor.client.shares import Shares

            # Of several at once the first one's counts.
            fresh = Shares(self.functions, self._on_freed)
            shares = self.shares = self._made.setdefault("shares", fresh)
        return shares.share(obj)

    def find_shared(self, task: Task) -> None:
        """Look which shared objects a task refers to, now that it is pickled."""
        if self.shares is not None and task.body is not None:
            task.blobs = self.shares.met_in(task.encoded, task.body)

    def _on_freed(self, number: int) -> None:
        """Nobody refers to a shared object any more. Any thread at any time: no lock, no core."""
        self._freed.append(number)
        if not self.closed and self.loop.asleep:
            self.loop.wake()

    def _forget_freed(self) -> None:
        while self._freed:
            number = self._freed.popleft()
            for peer in self._peers:
                if peer.known.discard(number):
                    self._send_forget(peer, number)

    # ---------------------------------------------------------------- the I/O thread

    def _run(self, on_duty: bool) -> None:
        """What each of the I/O threads does; all but the first one begin with the watch."""
        begin = self._connect_all if on_duty else self._take_over
        while on_duty or self._duty.watch():
            self.thread = cast("IOThread", threading.current_thread())
            if self._serve(begin):
                return
            on_duty, begin = False, self._take_over

    def _take_over(self) -> None:
        """Go on where another thread is held up."""
        self._end_parking()
        held_up = self._delivering
        if held_up is not None and held_up[0] is _resolve:
            self._deliveries.appendleft(held_up)  # what else is in there is not to wait for it

    def _serve(self, begin: Callable[[], None]) -> bool:
        """Be on duty; return whether that is over, and not another thread's by now."""
        try:
            with self.mutex:
                begin()
            while True:
                self._round(None)
                if not self._deliver_all():
                    return False
                if self._over():
                    break
                resting = self.loop.now - self._settled_at < NAP_SECONDS
                if resting and not self.scheduler.unsettled and not self._park():
                    return False
        except BaseException as exc:
            # A defect of ours; whoever waits must hear of it rather than hang.
            log.exception("the I/O thread of an executor failed")
            self.broken = self.broken or exc
        try:
            self._finish()
        finally:
            self._duty.end()
            self._over_and_out.set()
        return True

    def _deliver_all(self) -> bool:
        """Deliver what waits for that; return False if another thread has taken over."""
        if not self._deliveries:
            return True
        duty, me = self._duty, cast("IOThread", threading.current_thread())
        me.lent = True
        duty.offer(me)
        while self._deliveries and duty.step(me):
            self._deliver_one()
        me.lent = False
        if duty.take_back(me):
            self._delivering = None  # else it would keep what was delivered
            return True
        self.loop.wake()  # for what was left to be delivered here
        return False

    def _resume_duty(self) -> bool:
        """Return whether a callback is in the thread on duty, which is not another's meanwhile."""
        me = threading.current_thread()
        return me is self.thread and (not self.thread.lent or self._duty.take_back(me))

    def _lend_duty(self) -> None:
        """Return to the callback."""
        me = self.thread
        if me is not None and me.lent:
            self._duty.offer(me)

    def _round(self, timeout: float | None) -> None:
        """Wait, read, decide, write. Deliveries, and what is to be pickled, are left for later."""
        ready = self.loop.poll(0.0 if self._deliveries else timeout, self.inbox)
        with self.mutex:
            self._busy = True
            try:
                self.loop.dispatch(ready)
                self._settle(self.loop.now)
            finally:
                self._busy = False

    def _park(self) -> bool:
        """
        Leave the farm to callers with single tasks, for as long as there are any.

        Returns:
            False if another thread has taken over.
        """
        if self.inbox or self.ending or self.broken is not None or self._cancel_pending:
            return True
        shortcut = self.shortcut
        for peer, server in self._peers.items():
            if server.room() and peer.is_at_rest() and not peer.foreign and shortcut.open(peer):
                break
        else:
            return True
        self._parked = peer, server
        while shortcut.is_open():
            woken = self.loop.nap(NAP_SECONDS)
            keep = not (woken or self.inbox or self.ending)
            with self.mutex:
                self._busy = True
                try:
                    shortcut.alone(lambda keep=keep: self._take_journal(keep))  # type: ignore[misc]
                finally:
                    self._busy = False
            if not self._deliver_all():
                return False
        return True

    def _take_journal(self, keep: bool) -> None:
        """Do what callers have done by the shortcut. No caller uses it meanwhile."""
        peer, server = self._parked
        self._catch_up(peer, server, *self.shortcut.take(keep))
        if self.shortcut.is_open() and not peer.is_at_rest():
            # The rest is to be written before anybody else writes.
            self._catch_up(peer, server, *self.shortcut.take(False))

    def _end_parking(self) -> None:
        """Have the stream back; for the I/O thread, which is in a callback."""
        if self.shortcut.is_open():
            self.shortcut.alone(lambda: self._take_journal(False))

    def _catch_up(self, peer: Peer, server: Server, sent: list[Sent], received: list[Any]) -> None:
        """Do what callers have done by the shortcut, as far as it has not happened yet."""
        if not sent:
            return
        session, link = peer.session, peer.link
        assert session is not None
        assert link is not None
        for task, frame, count in sent:
            task.function = self.functions.number(task.encoded)
            self.scheduler.pin(server, task)
            task.posted = True
            session.send(frame)
            link.outbox.sent(count)
        peer.resume(received)
        peer.flush()

    def _settle(self, now: float) -> None:
        """Act upon all that this round has brought."""
        if self._mappings and now >= self._release_at:
            self._release_at = now + RELEASE_SECONDS
            self._release_mappings()
        self._drive(now)
        self._refill.at(self.scheduler.deadline())
        if self.scheduler.failures:
            self._fail_lost()
        if self._cancel_pending:
            self._cancel_all()
        if self.broken is not None:
            self._fail_all(self.broken)

    def _deliver_one(self) -> None:
        try:
            self._delivering = call, arguments = self._deliveries.popleft()
        except IndexError:
            return
        try:
            call(*arguments)
        except BaseException:  # whatever it was, it is no end for all the others
            log.exception(UNDELIVERED)

    def deliver(self, call: Callable[..., None], *arguments: Any) -> None:
        """Have the I/O thread call something once the mutex is free."""
        self._deliveries.append((call, arguments))

    # --------------------------------------------------------------- what peers tell

    def peer_up(self, peer: Peer, fields: dict[str, Any]) -> None:
        """A session began: set it up and feed it. See :class:`~peer.Owner`."""
        server = self._peers[peer]
        assert peer.session is not None
        self._survey()
        if peer.foreign:
            alias_renamed()
        self._compare(peer)
        frames = []
        for setup in self._setups.values():
            frame = self._setup_frame(peer, setup)
            if isinstance(frame, PayloadError):
                self.loop.post(partial(peer.refuse, frame))
                return
            frames.append(frame)
        if self.claims is not None:
            self.claims.look()
            peer.claimed = {}
            self._tell_claims(peer, peer.session)
        if self._reloads_seen and self.settings.modules:
            # What was reloaded here may be older there: a server may have it by ``--preload``.
            body = encode_fields({"modules": reloads.names[: self._reloads_seen]})
            peer.session.send(make_frame(Kind.RELOAD, 0, body))
        place = self._places.allot(peer, fields["slots"])
        peer.session.send(make_frame(Kind.PLACE, aux=place))
        peer.session.send_all(frames)
        server.name = peer.name
        self.scheduler.server_up(server, fields["slots"])
        self._warned = False
        self.up.open()
        log.debug("= %s is up with %d slots", peer.name, fields["slots"])

    def _setup_frame(self, peer: Peer, setup: Setup) -> Frame | PayloadError:
        """Return what has a server's workers do a setup, or why it cannot be sent there."""
        made = setup.abroad if peer.foreign and setup.abroad is not None else setup.here
        if isinstance(made, PayloadError):
            if isinstance(made, CannotShip):
                return made.between(python_words(), python_words(*cast("Any", peer.python)))
            return made
        body, buffers = made
        return make_frame(Kind.SETUP, 0, body, buffers, aux=setup.number)

    def keep(self, setup: Setup) -> None:
        """Have all workers that come from now on do a setup, those of servers to come as well."""

        def keep() -> None:
            self._setups = dict(sorted({**self._setups, setup.number: setup}.items()))
            for peer, server in self._peers.items():
                if server.up and peer.session is not None:
                    frame = self._setup_frame(peer, setup)
                    if isinstance(frame, PayloadError):
                        self.loop.post(partial(self._leave_out, peer, peer.session, frame))
                    else:
                        peer.session.send(frame)

        self.ask(keep, None, limit=None)

    def libraries(self) -> list[tuple[str, dict[str, str]]]:
        """Return the names of servers and the versions of their libraries. Any thread may ask."""
        return [(peer.name, peer.libraries) for peer in self._peers]

    def _compare(self, peer: Peer) -> None:
        """Find what differs between the two ends, before anybody hears that it is up."""
        if peer.python is None or isinstance(peer.way, Embedded):
            return
        if self._libraries is None:
            self._libraries = installed()  # reads folders, so once
        here = sys.implementation.name, tuple(sys.version_info[:3])
        peer.differences = differences(here, self._libraries, peer.python, peer.libraries)
        if peer.differences:
            self.deliver(
                log.info, "= %s differs: %s", peer.name, printable("; ".join(peer.differences))
            )

    def peer_lost(self, peer: Peer, reason: str) -> None:
        """A session is gone. See :class:`~peer.Owner`."""
        refused = peer.state is PeerState.REFUSED  # then that is said in a moment
        if not refused and (not self.ending or self.scheduler.tasks):
            log.warning("! %s is lost: %s", peer.name, reason)
        peer.lent.clear()  # somebody may map them still, so they are not used again
        self._silent.discard(self._peers[peer])
        for inquiry in self._inquiries.give_up(self._peers[peer]):
            self.deliver(inquiry.answered.set)
        self.scheduler.server_lost(self._peers[peer])
        self.nested.lost(self._peers[peer])
        self._fail_lost()
        if not self.scheduler.slots():
            self._expect_servers(self.loop.now)
        self.up.open()

    def peer_failed(self, peer: Peer) -> None:
        """A try has failed, which some wait for. See :class:`~peer.Owner`."""
        self.up.open()

    def peer_refused(self, peer: Peer, error: FarmError) -> None:
        """A server will never take us. See :class:`~peer.Owner`."""
        if all(other.state is PeerState.REFUSED for other in self._peers):
            self._break(error)
        else:
            log.warning("! %s is not used: %s", peer.place, error)
        self.up.open()

    def _break(self, error: BaseException) -> None:
        self.broken = error
        self.up.open()

    def peer_frames(self, peer: Peer, frames: list[Frame]) -> None:
        """Results and other news have come. See :class:`~peer.Owner`."""
        server = self._peers[peer]
        finished: list[Frame] = []
        nonsense: RemoteProtocolError | None = None
        micros = failed = 0
        for frame in frames:
            kind = frame.kind
            if kind in FINISHED:
                finished.append(frame)
                micros += frame.aux
                if kind != RESULT:
                    failed += 1
                if frame.segment is not None:
                    self._open_segment(peer, frame)
            else:
                handler = _HANDLERS.get(kind)
                if handler is None:
                    log.warning("! %s sent a message of unknown kind %d", peer.name, kind)
                    continue
                try:
                    handler(self, peer, server, frame)
                except RemoteProtocolError as exc:
                    nonsense = exc
                    break
        if finished:
            peer.core.worked()
            self._settled_at = self.loop.now
            if peer.link is not None and peer.link.round_trip:
                server.round_trip = peer.link.round_trip
            tasks = self.scheduler.done(server, [frame.id for frame in finished], micros * 1e-6)
            if self.nested.parents:
                self.nested.over(frame.id for frame in finished)
            peer.done += len(finished) - failed
            if failed:
                self.outcomes.failed(self._peers, peer, failed)
            elif self.outcomes.suspects:
                self.outcomes.look(self._peers)
            single: deque[tuple[Task, Frame]] = deque()
            for task, frame in zip(tasks, finished, strict=True):
                if task is None:
                    continue
                feed = task.feed
                unloaded = frame.flags & UNLOADED and frame.kind != RESULT
                if unloaded and (peer.foreign or peer.libraries):
                    self.deliver(self._not_loaded, peer, task, frame)
                elif type(task.sink) is Child:
                    self.nested.finished(task, frame, peer.note)
                elif feed is None:
                    single.append((task, frame))
                else:
                    feed.measured(task.count, frame.aux * 1e-6, len(frame.raw))
                    self.deliver(task.sink.arrived, task, frame, None, peer.note)
            if single:
                self.deliver(_resolve, single, self, peer.note)
        if nonsense is not None:
            raise nonsense

    def _not_loaded(self, peer: Peer, task: Task, frame: Frame) -> None:
        """A worker could not unpickle a task: say so if another version there is why."""
        error = open_failure(frame)
        named: BaseException | None = None
        if peer.foreign and peer.python is not None:
            named = in_their_words(error, task.name or "task", python_words(*peer.python))
        if named is None or named is error:
            bodies = [task.encoded.body, task.body or b""]
            servers = [(peer.name, peer.libraries)]
            named = of_other_libraries(error, bodies, servers, "it cannot be unpickled there")
            if named is not None:
                named.__cause__ = error
        if task.feed is not None or type(task.sink) is Child:
            task.sink.arrived(task, frame, named, peer.note)
        elif named is not None:
            self._deliver_error(task, named, pid_of(frame), peer.note)
        else:
            _resolve(deque([(task, frame)]), self, peer.note)

    def _on_begun(self, peer: Peer, server: Server, frame: Frame) -> None:
        ids = decode_ids(frame.body)
        if frame.id:
            # Some may have a worker that only starts, so that they can be cancelled still.
            found = [server.inflight[id] for id in ids if id in server.inflight]
            inquiry = self._inquiries.answer(frame.id, found)
            if inquiry is not None:
                self.deliver(inquiry.answered.set)
            return
        for task in self.scheduler.begun(server, ids):
            if task.feed is None and isinstance(task.sink, FarmFuture):
                self.deliver(task.sink.set_begun)
            elif type(task.sink) is Child:
                self.nested.begun(task)

    def _on_taken_back(self, peer: Peer, server: Server, frame: Frame) -> None:
        self._silent.discard(server)
        cancelled = self.scheduler.taken_back(
            server, frame.id, decode_ids(frame.body), self.loop.now
        )
        for task in cancelled:
            self._deliver_cancel(task)
        self.nested.answered(frame.id, cancelled)
        event = self._answers.pop(frame.id, None)
        if event is not None:
            self.deliver(event.set)

    def _on_died(self, peer: Peer, server: Server, frame: Frame) -> None:
        # First: a task that is off the books would never be settled if this makes no sense.
        fields = fields_for_client(frame.kind, frame.body)
        task = self.scheduler.ended(server, frame.id)
        if task is None:
            return
        if self.nested.parents:
            self.nested.ended(frame.id)
        host, pid = printable(fields.get("host", "")), fields.get("pid") or 0
        name = task.name or "task"
        reason = fields["reason"]
        error: BaseException
        if reason == "killed":
            error = TaskKilled(name, host, pid or None, "on request")
        elif reason == "timeout":
            error = TaskTimeout(name, task.timeout or 0.0)
        else:
            error = WorkerDied(
                host=host,
                pid=pid,
                exitcode=fields.get("exitcode"),
                task=name,
                stderr=fields.get("stderr", ""),
                reason=printable(fields.get("why", ""), 300),
            )
            self.outcomes.failed(self._peers, peer, 1)
        self._deliver_error(task, error, pid, peer.note)

    def _on_release(self, peer: Peer, server: Server, frame: Frame) -> None:
        segment = peer.lent.pop(frame.id, None)
        if frame.aux == AGAIN:
            self._send_inline(peer, server.inflight.get(frame.id))
        if segment is None:
            return
        if frame.aux != SPOILT:  # otherwise a worker died, and somebody may map it still
            peer.pool.back(segment)

    def _send_inline(self, peer: Peer, task: Task | None) -> None:
        """Send a task without its segment, for whose descriptor there was no room there."""
        if task is None or task.function is None or peer.session is None:
            return
        form = task.abroad if peer.foreign else None
        body = form[1] if isinstance(form, tuple) else task.body or b""
        flags = task.flags
        needs = task.blobs or task.function.parts
        if needs or task.timeout is not None or task.pinned is not None or task.priority:
            flags |= Flag.OPTIONED  # the server has kept its options
        number = task.function.number
        peer.session.send(make_frame(TASK, task.id, body, task.buffers, aux=number, flags=flags))

    def _open_segment(self, peer: Peer, frame: Frame) -> None:
        """Map the shared memory that a result's buffers are in."""
        descriptor, frame.segment = frame.segment, None
        try:
            frame.buffers = self._mappings.map((peer, frame.id), descriptor.fd, frame.sizes())
        except (OSError, ValueError) as exc:
            log.error("! %s: a result's shared memory cannot be mapped: %s", peer.name, exc)

    def _release_mappings(self) -> None:
        """Tell servers which results' shared memory nobody uses any more."""
        for key in self._mappings.released():
            peer, id = cast("tuple[Peer, int]", key)
            if peer.session is not None:
                peer.session.send(make_frame(Kind.RELEASE, id))

    def _on_slots(self, peer: Peer, server: Server, frame: Frame) -> None:
        if frame.aux == NO_SLOTS:
            log.info("= %s drains: its tasks go elsewhere", peer.name)
            self.scheduler.server_drains(server)
        else:
            self.scheduler.server_up(server, check_slots(frame.aux))

    def _on_output(self, peer: Peer, server: Server, frame: Frame) -> None:
        label = self._label(peer, frame.aux >> 2, server.inflight.get(frame.id))
        self.deliver(_show, frame.aux & 3, label, bytes(frame.body))

    def _on_log(self, peer: Peer, server: Server, frame: Frame) -> None:
        task = server.inflight.get(frame.id)
        try:
            fields = fields_for_client(frame.kind, frame.body)
        except RemoteProtocolError as exc:
            # A worker wrote it, which a task may have misused: no reason to part with the server.
            log.warning("! %s: a line of log is dropped: %s", peer.name, exc)
            return
        fields["host"] = printable(peer.fields.get("host", peer.name))
        fields["task"] = printable(task.name) if task is not None and task.name else None
        self.deliver(_log, fields, self._label(peer, fields["process"], task))

    def _label(self, peer: Peer, pid: int, task: Task | None) -> str:
        """Return what to write before what a worker said: where it came from."""
        if not self.settings.label:
            return ""
        name = f" {printable(task.name)}" if task is not None and task.name else ""
        return f"[{printable(peer.fields.get('host', peer.name))} {pid}{name}] "

    def _on_broken(self, peer: Peer, server: Server, frame: Frame) -> None:
        host = printable(peer.fields.get("host", peer.name))
        error = of_broken(peer.name, host, frame, bool(self._setups))
        session = peer.session
        # Later: its frames are being read, and the link ends with this.
        self.loop.post(lambda: self._leave_out(peer, session, error))

    def _leave_out(self, peer: Peer, session: Session | None, error: FarmError) -> None:
        """Do without a server that has no workers for us; others may have some."""
        server = self._peers.get(peer)
        if server is None or peer.session is not session:
            return  # it was removed, or lost, and begins anew
        peer.refuse(error)
        if self.broken is not None:
            # It was the last one: all tasks are to hear why, those that it had as well.
            self._fail_all(self.broken)
        peer.lent.clear()
        self._silent.discard(server)
        self.scheduler.server_left_out(server)
        self.nested.lost(server)
        self._fail_lost()
        if not self.scheduler.slots():
            self._expect_servers(self.loop.now)

    def _on_spawn(self, peer: Peer, server: Server, frame: Frame) -> None:
        self.nested.heard(peer, server, frame)

    def _on_want(self, peer: Peer, server: Server, frame: Frame) -> None:
        session = peer.session
        assert session is not None
        make = partial(self._make_answer, peer, frame.id, bytes(frame.body))
        try:
            self.answering.put(make, session.send)
        except RuntimeError:  # there are too many threads: then once the mutex is free
            self.deliver(self._answer_here, session, make)

    def _answer_here(self, session: Session, make: Callable[[], Frame]) -> None:
        answer = make()
        self.ask(lambda: session.send(answer), None)

    def _make_answer(self, peer: Peer, id: int, question: bytes) -> Frame:
        """Answer a worker that asks for a module or name. It waits, so there must be an answer."""
        held, name = peer.sources, peer.name
        try:
            asked = decode_fields(question)
            if "name" in asked and self.settings.modules:
                fields, contents = self._serve_name(peer, asked)
            elif "lines" in asked and self.settings.modules:
                from remote_executor.payload.code.answers import lines_of

                fields, contents = {"text": "".join(lines_of(asked["lines"]))}, {}
            else:
                fields, contents = self.settings.modules.answer(asked)
        except RemoteProtocolError as exc:
            # From a worker, as a line of log is.
            log.warning("! a question for modules makes no sense: %s", exc)
            fields, contents = {"modules": []}, {}
        except Exception:
            log.exception("! a server's question for modules cannot be answered")
            fields, contents = {"modules": []}, {}
        if contents:
            log.info("> %s is served %s", name, served_words(fields))
        more, sent = to_send(contents, held)
        return make_frame(Kind.MODULES, id, encode_fields({**fields, **more}), sent)

    def _serve_name(
        self, peer: Peer, asked: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Answer a worker that lacks a name of the program."""
        from remote_executor.payload.code.answers import answer

        id = asked.get("task")
        # One step, so no lock: what it finds may be settled meanwhile, which does not matter.
        task = self.scheduler.tasks.get(id) if type(id) is int else None
        generation = None if task is None else task.generation
        pythons = [peer.python] if peer.foreign and peer.python is not None else None
        return answer(asked["name"], generation, pythons)

    # ------------------------------------------------------------------- failing tasks

    def _deliver_error(
        self, task: Task, error: BaseException, pid: int | None = None, place: str = ""
    ) -> None:
        if task.feed is not None or type(task.sink) is Child:
            self.deliver(task.sink.failed, task, error, pid, place)
        else:
            self.deliver(_fail, task, error, pid, place)

    def _deliver_cancel(self, task: Task) -> None:
        if isinstance(task.sink, FarmFuture):
            self.deliver(task.sink.finish_cancelled)
        else:
            self.deliver(task.sink.dropped, task)

    def _fail_lost(self) -> None:
        failures, self.scheduler.failures = self.scheduler.failures, []
        for task in failures:
            if task.cancelling:
                self._deliver_cancel(task)
            else:
                lost_with = ", ".join(task.lost_with)
                error = ServerLost(task.name or "task", task.lost_with)
                self._deliver_error(task, error, None, lost_with)

    def _fail_all(self, error: BaseException) -> None:
        scheduler = self.scheduler
        self._empty_inbox()
        entries: list[Task | Feed] = scheduler.drop_queued()
        for server in list(scheduler.servers.values()):
            for task in list(server.inflight.values()):
                scheduler.ended(server, task.id)
                entries.append(task)
        for failed in entries:
            # Each its own: whoever raises one adds frames and notes to it.
            if isinstance(failed, Feed):
                self.deliver(failed.sink.failed, None, anew(error))
            else:
                self._deliver_error(failed, anew(error))
        self._to_pack = []
        self._broadcasts.clear()

    def _cancel_all(self) -> None:
        """Drop what waits, here and at the servers."""
        self._cancel_pending = False
        self._broadcasts.clear()
        scheduler = self.scheduler
        self._empty_inbox()
        for entry in scheduler.drop_queued():
            if isinstance(entry, Feed):
                self.deliver(entry.sink.dropped, None)
            else:
                self._deliver_cancel(entry)
        for task in list(scheduler.tasks.values()):
            if scheduler.drop(task):
                self._deliver_cancel(task)
        scheduler.ask_back(list(scheduler.tasks.values()))
        self._send_asks()
        for peer in self._peers:
            peer.flush()
            peer.settle_interest()

    def _expect_servers(self, now: float) -> None:
        """There is no server from now on: see to it that one comes."""
        self._alone_since = now
        timeout = self.settings.connect_timeout
        self._watchdog.at(now + (WARN_SECONDS if timeout is None else min(WARN_SECONDS, timeout)))

    def _look_for_servers(self, now: float) -> None:
        """There has been no server for a while: warn, or give up if that was asked for."""
        if self.scheduler.slots() or self.broken is not None:
            return
        waited = now - self._alone_since
        reasons = "; ".join(f"{peer.name}: {peer.words}" for peer in self._peers)
        timeout = self.settings.connect_timeout
        if timeout is not None and waited >= timeout:
            names = [peer.name for peer in self._peers]
            self._break(NoServerError(names, f"none answered within {timeout:g} s ({reasons})"))
            return
        if waited >= WARN_SECONDS and not self._warned:
            self._warned = True
            log.warning("no server answers yet, tasks wait: %s", reasons)
        if timeout is not None:
            self._watchdog.at(self._alone_since + timeout)

    # -------------------------------------------------------------------- cancelling

    def cancel(self, future: FarmFuture[Any], task: Task) -> bool:
        """Cancel a task that has not begun; see :meth:`FarmFuture.cancel`."""
        event = Event()
        dropped = self.ask(lambda: self._begin_cancel(task, event), None)
        if dropped:
            future.finish_cancelled()
            return True
        if dropped is None:
            return future.cancelled()
        self._wait_for(event)
        self.ask(lambda: self._end_cancel(task, event), None)
        return future.cancelled()

    def cancel_all(self, tasks: list[Task]) -> None:
        """Cancel those that have not begun, without waiting for what servers say."""

        def cancel() -> None:
            self._empty_inbox()
            sent = []
            for task in tasks:
                if self.scheduler.drop(task):
                    self._deliver_cancel(task)
                elif task.server is not None and task.server.key.attached:
                    sent.append(task)
            self.scheduler.ask_back(sent)

        if not self.closed:
            self.loop.post(cancel)

    def _begin_cancel(self, task: Task, event: Event) -> bool | None:
        """Return True if it is done, False if a server was asked, None if it cannot be."""
        self._drive(time.monotonic())
        if self.scheduler.drop(task):
            self._deliver_cancel(task)  # once more, since the caller may have given up
            return True
        if task.state is not TaskState.SENT or task.server is None:
            return None
        if not task.server.key.attached or task.server in self._silent:
            return None  # nobody can tell now whether it has begun
        self.scheduler.ask_back([task])
        self._answers[self.scheduler.asks[-1][1]] = event
        self._drive(time.monotonic())
        return False

    def _end_cancel(self, task: Task, event: Event) -> None:
        owed = next((request for request, at in self._answers.items() if at is event), None)
        if task.state is not TaskState.SETTLED:
            task.cancelling = False  # if it comes back after all, it is run
            if owed is not None and task.server is not None:
                self._silent.add(task.server)
        elif owed is not None:
            del self._answers[owed]  # the server was lost

    def _wait_for(self, event: Event) -> None:
        """Wait for an answer, also from within a callback that the I/O thread runs."""
        until = time.monotonic() + ANSWER_SECONDS
        while not event.is_set() and time.monotonic() < until:
            if not self._resume_duty():
                event.wait(until - time.monotonic())
                return
            try:
                self._round_within(min(0.1, until - time.monotonic()))
            finally:
                self._lend_duty()

    def _round_within(self, timeout: float) -> None:
        """One round in the middle of a callback: only what settles without user code runs."""
        with self.mutex:
            self._end_parking()
        self._round(max(0.0, timeout))
        mine = deque[Any]()
        for _ in range(len(self._deliveries)):
            item = self._deliveries.popleft()
            if getattr(item[0], "__name__", "") in ("set", "finish_cancelled"):
                item[0](*item[1])
            else:
                mine.append(item)
        self._deliveries.extendleft(reversed(mine))

    def kill(self, tasks: list[Task], grace: float | None = None) -> int:
        """
        Stop tasks wherever they are; return how many were told.

        Args:
            tasks: Which.
            grace: Seconds that they have to end by themselves; None for what their options say.
        """
        return self.ask(lambda: self._kill(tasks, grace), 0)

    def kill_soon(self, tasks: list[Task]) -> None:
        """Take back those that have not begun and stop the others, without waiting for that."""

        def kill() -> None:
            self._empty_inbox()
            for task in tasks:
                if self.scheduler.drop(task):
                    self._deliver_cancel(task)
            self._kill([task for task in tasks if task.state is not TaskState.SETTLED])

        if not self.closed:
            self.loop.post(kill)

    def find_begun(
        self, tasks: list[Task], *, kill: bool = False, grace: float | None = None
    ) -> list[Task]:
        """
        Ask servers which of these tasks have begun, however young they are.

        Args:
            tasks: Which.
            kill: Whether to stop those that have.
            grace: As for :meth:`kill`.

        Returns:
            Those that have. Of a server that does not answer now it is those that it has told of.
        """
        inquiry = Inquiry()
        self.ask(lambda: self._inquire(inquiry, tasks, kill, grace), None)
        if inquiry.requests:
            self._wait_for(inquiry.answered)
            self.ask(lambda: self._inquiries.forget(inquiry), None)
        return list(inquiry.begun)

    def _inquire(
        self, inquiry: Inquiry, tasks: list[Task], kill: bool, grace: float | None
    ) -> None:
        by_server: dict[tuple[Server, int], list[int]] = {}
        for task in tasks:
            server = task.server
            if server is None or task.state not in (TaskState.SENT, TaskState.BEGUN):
                continue
            aux = 1 + aux_of_grace(_grace_of(task, grace)) if kill else 0
            by_server.setdefault((server, aux), []).append(task.id)
            if task.state is TaskState.BEGUN and not server.key.attached:
                inquiry.begun[task] = None
        for (server, aux), ids in by_server.items():
            session = server.key.session
            if session is None:
                continue
            request = self.scheduler.next_request()
            session.send(make_frame(Kind.ASK_BEGUN, request, encode_ids(ids), aux=aux))
            if server.key.attached:
                self._inquiries.ask(inquiry, request, server)
        self._drive(time.monotonic())

    def settle_down(self) -> None:
        """Have what was submitted up to now go where it goes."""
        self.ask(lambda: self._drive(time.monotonic()), None)

    def _kill(self, tasks: list[Task], grace: float | None = None) -> int:
        self._drive(time.monotonic())
        told = self.stop_tasks(tasks, grace)
        self._drive(time.monotonic())
        return told

    def stop_tasks(self, tasks: list[Task], grace: float | None = None) -> int:
        """Stop tasks that are in the scheduler's hands; return how many were told."""
        told = 0
        for task in tasks:
            if self.scheduler.drop(task):
                told += 1
                self._deliver_error(task, TaskKilled(task.name or "task", reason="while it waited"))
            elif task.server is not None and task.server.key.session is not None:
                told += 1
                aux = aux_of_grace(_grace_of(task, grace))
                task.server.key.session.send(make_frame(Kind.KILL, task.id, aux=aux))
        return told

    def terminate(self) -> None:
        """Cancel what has not begun, here and at the servers, and kill the rest."""

        def end_all() -> None:
            self._cancel_all()
            # In this order on the wire: a task that was taken back is not there to be killed.
            for task in self.scheduler.tasks.values():
                if task.server is not None and task.server.key.session is not None:
                    task.server.key.session.send(make_frame(Kind.KILL, task.id))

        self.ask(end_all, None)

    def close_feed(self, feed: Feed) -> None:
        """Cut no more batches off a feed, and take back those that have not begun."""

        def close() -> None:
            tasks = [
                task for task in self.scheduler.close_feed(feed) if not self.scheduler.drop(task)
            ]
            if tasks:
                self.scheduler.ask_back(tasks)

        if not self.closed:
            self.loop.post(close)

    def kill_feed(self, feed: Feed) -> None:
        """Stop what is left of a feed that was closed."""

        def kill() -> None:
            self._kill([task for task in self.scheduler.tasks.values() if task.feed is feed])

        if not self.closed:
            self.loop.post(kill)

    # ------------------------------------------------------------------------ ending

    def shutdown(self, cancel: bool) -> None:
        """Accept no more tasks and end when all are done. Takes no lock: see the module's text."""
        if cancel:
            self._cancel_pending = True
        self.ending = True
        if self.thread is None:
            self._finish_unstarted()
        else:
            self.loop.wake()

    def _finish_unstarted(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._refuse_inbox()
        self._close_setups()
        self.loop.close()
        _drivers.discard(self)

    def _close_setups(self) -> None:
        for setup in self._setups.values():
            setup.close()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the I/O thread; return whether it is gone. Returns at once inside of it."""
        thread = self.thread
        if thread is None or self.in_io_thread() or self._pid != os.getpid():
            return True
        # An interrupt of Thread.join() may make it believe, up to 3.12, that the thread is gone.
        if not self._over_and_out.wait(timeout):
            return False
        for each in self._duty.threads:
            if each.ident is not None:
                each.join(timeout)
        return True

    def _over(self) -> bool:
        if not self.ending or self._deliveries:
            return False
        scheduler = self.scheduler
        waits = scheduler.unsettled or self.inbox or self._to_pack or self._broadcasts
        return not waits and not self.nested.making

    def _finish(self) -> None:
        """The I/O thread's last act: close everything, leave nobody waiting."""
        with self.mutex:
            self.closed = True
            error = self.broken or RuntimeError(AFTER_SHUTDOWN)
            self._fail_all(error)
            self.nested.refuse_all()
            for peer in self._peers:
                peer.close()
                peer.lent.clear()
            self._mappings.forget()
            self.up.open()
        while self._deliveries:
            self._deliver_one()
        self._refuse_inbox()
        for event in self._answers.values():
            event.set()
        for inquiry in self._inquiries.give_up():
            inquiry.answered.set()
        for peer in list(self._peers):
            peer.way.close()
        self.answering.close()
        self._close_setups()
        self.loop.close()
        _drivers.discard(self)

    def abandon(self) -> None:
        """This is a forked child: the threads, servers and tasks are the parent's."""
        self.mutex = threading.RLock()
        self.up = Gates()
        self.shortcut.forget()
        self.closed = True
        self.thread = None
        self.inbox.clear()
        for peer in self._peers:
            peer.abandon()
        with contextlib.suppress(OSError):
            self.loop.close()

    # ------------------------------------------------------------------------ farm

    def pin(self, server: Server, task: Task) -> None:
        """Send a task to one worker of a server, past the queue. For the I/O thread."""
        task.function = self.functions.number(task.encoded)
        self.scheduler.pin(server, task)
        self._send(server, [task])

    def broadcast(self, priority: int, pin: Callable[[], None]) -> None:
        """
        Have the I/O thread pin tasks to workers, once nothing of a higher priority waits.

        Args:
            priority: That of the tasks.
            pin: Calls :meth:`pin` for each of them.

        Raises:
            RuntimeError: If the driver has ended before, or will in a callback never come to it.
        """
        self.check_may_wait()
        begun = Event()

        def begin() -> None:
            try:
                pin()
            finally:
                begun.set()

        entry = priority, begin
        self.ask(lambda: self._broadcasts.append(entry), None, limit=None)
        try:
            while not begun.wait(0.1):
                if self.broken is not None:
                    raise anew(self.broken)
                if self.closed:
                    raise RuntimeError(AFTER_SHUTDOWN)
        finally:
            with contextlib.suppress(ValueError):
                self._broadcasts.remove(entry)  # after a ^C nobody wants it

    def _begin_broadcasts(self) -> None:
        urgent = self.scheduler.queue.highest()
        for entry in self._broadcasts[:]:
            if urgent is None or entry[0] >= urgent:
                with contextlib.suppress(ValueError):
                    self._broadcasts.remove(entry)
                    entry[1]()

    def drain(self, peer: Peer, server: Server) -> None:
        """Take back what waits at a server, and wait until the rest there is done."""
        if self.thread is None:
            return
        drained = Event()

        def look(now: float) -> None:
            waiting = [t for t in server.inflight.values() if t.state is TaskState.SENT]
            if not server.inflight or not server.up:
                drained.set()
                return
            if waiting and server.asked is None:
                self.scheduler.ask_for(server, len(waiting))
            timer.at(now + 0.02)

        timer = self.loop.timer(look)
        self.loop.post(lambda: timer.at(time.monotonic()))
        while not drained.wait(0.5):
            if self.closed or self.in_io_thread():
                return

    def add_server(self, way: Way) -> None:
        """Use one more server. It also helps where all that there were had refused."""

        def add() -> None:
            if isinstance(self.broken, (ConnectionFailed, NoServerError)):
                self.broken = None
            self._add_way(way).connect()

        def add_unstarted() -> None:
            self._add_way(way)

        if not self._unless_started(add_unstarted):
            self.ask(add, None)

    def peers(self) -> list[tuple[Peer, Server]]:
        """Return the servers as of now. Any thread may ask."""
        return list(self._peers.items())

    def remove_server(self, peer: Peer) -> None:
        """Let go of a server; what is under way there is run elsewhere."""

        def remove() -> None:
            server = self._peers.get(peer)
            if server is None:
                return
            self._peers = {each: at for each, at in self._peers.items() if each is not peer}
            if server.up:
                self.scheduler.server_lost(server)
                self.nested.lost(server)
            self.scheduler.server_removed(server)
            self._places.free(peer)
            peer.close()
            self._survey()
            self.deliver(peer.way.close)
            if self._peers and all(other.state is PeerState.REFUSED for other in self._peers):
                troubles = "; ".join(f"{other.name}: {other.words}" for other in self._peers)
                names = [other.name for other in self._peers]
                self._break(NoServerError(names, f"those that are left refuse: {troubles}"))

        if not self._unless_started(remove):
            self.loop.post(remove)


_HANDLERS: dict[int, Callable[[Driver, Peer, Server, Frame], None]] = {
    Kind.BEGUN: Driver._on_begun,
    Kind.TAKEN_BACK: Driver._on_taken_back,
    Kind.DIED: Driver._on_died,
    Kind.RELEASE: Driver._on_release,
    Kind.SLOTS: Driver._on_slots,
    Kind.OUTPUT: Driver._on_output,
    Kind.LOG: Driver._on_log,
    Kind.BROKEN: Driver._on_broken,
    Kind.WANT: Driver._on_want,
    Kind.SPAWN: Driver._on_spawn,
}


def _is_under_way(task: Task, attempt: int) -> bool:
    """Tell whether a task is still to be sent where it was to be sent."""
    return task.id == attempt and task.state is TaskState.SENT


def _grace_of(task: Task, grace: float | None) -> float:
    """Return how many seconds a task has to end by itself."""
    if grace is None:
        grace = task.grace
    return GRACE if grace is None else grace


def _holds_code(task: Task) -> bool:
    return holds_code(task.encoded.body) or holds_code(task.body or b"")


def _resolve(finished: deque[tuple[Task, Frame]], driver: Driver, place: str) -> None:
    """Settle the futures of single tasks; two threads may do so if one of them is held up."""
    if driver.keeps:
        from remote_executor.client.keeping import keep_finished

        keep_finished(finished)
    while finished:
        try:
            task, frame = finished.popleft()
        except IndexError:
            return
        future = task.sink
        if future.is_settled():
            future.tell()  # by the shortcut, whose user tells nobody
            continue
        try:
            if frame.kind == RESULT:
                try:
                    if future.unloaded is not None:
                        raise future.unloaded  # who waits has tried
                    if future.keeper is not None and future.keeper.outcome is not None:
                        value, trouble = future.keeper.outcome
                        if trouble is not None:
                            future.set_exception(note_task(trouble, task, None, place))
                            continue
                    else:
                        value = load(frame.body, frame.buffers)
                except BaseException as exc:
                    future.unloaded = None
                    found = unloadable(exc, frame.body, driver)
                    future.set_exception(note_task(found, task, None, place))
                else:
                    future.set_result(value)
            else:
                error, pid = open_failure(frame), pid_of(frame)
                if task.retrying is None or not try_again(driver, task, error, pid, place):
                    future.set_exception(note_task(error, task, pid, place))
        except InvalidStateError:
            pass  # somebody set it from outside; it is theirs
        except BaseException as exc:  # a callback's sys.exit() is no end for all the others
            log.exception(UNDELIVERED)
            if not future.is_settled():
                _set_exception(future, exc)  # it was no callback's: whoever waits must hear of it


def _fail(task: Task, error: BaseException, pid: int | None, place: str) -> None:
    """Settle the future of a single task that came to another end than its own."""
    if task.retrying is not None and try_again(task.sink._driver, task, error, pid, place):
        return
    _set_exception(task.sink, note_task(error, task, pid, place))


def _set_exception(future: Future[Any], error: BaseException) -> None:
    with contextlib.suppress(InvalidStateError):
        future.set_exception(error)


def _show(fd: int, label: str, data: bytes) -> None:
    """Write what a task printed to this process's own stdout or stderr."""
    stream = sys.stdout if fd == 1 else sys.stderr
    if stream is None:
        return
    text = data.decode("utf-8", "replace")
    if label:
        text = "".join(label + line for line in text.splitlines(keepends=True))
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        pass  # closed, or full: a task's words are no reason to fail


def _log(fields: dict[str, Any], label: str) -> None:
    """Hand what a task has logged to this process's own loggers."""
    logger = logging.getLogger(fields["name"])
    if logger.isEnabledFor(fields["levelno"]):
        fields["msg"] = label + fields["msg"]
        logger.handle(logging.makeLogRecord(fields))


# ----------------------------------------------------------------- the process's life

_drivers: weakref.WeakSet[Driver] = weakref.WeakSet()


def _at_exit() -> None:
    """
    The interpreter ends: let every executor finish what it has, as the stdlib's do.

    If it ends by a ^C, only what runs is finished; a second one ends this wait.
    """
    drivers = list(_drivers)
    interrupted = isinstance(getattr(sys, "last_value", None), KeyboardInterrupt)
    for driver in drivers:
        driver.shutdown(cancel=interrupted and not hasattr(sys, "ps1"))
    for driver in drivers:
        driver.join()


def _after_fork() -> None:
    for driver in list(_drivers):
        driver.abandon()
    _drivers.clear()


def _register() -> None:
    # The same hook as concurrent.futures uses: before the interpreter joins its threads, while
    # futures can still be waited for. Where it is missing, atexit comes close.
    register = getattr(threading, "_register_atexit", None)
    if register is None:
        import atexit

        register = atexit.register
    register(_at_exit)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)


_register()
