"""
A whole farm in one thread, with a clock of its own and all chance from one seed.

::

    Client: Scheduler, Functions                    Server: Pool, token pipes
      Line (one a server): Session, Link  <-Pipe->    Connection: Link
                                                      Entry (one a client): Session
                                                      Worker: begins, finishes, dies

The machines are the real ones, and so are the bytes between client and server. Played are the
shells round them, as thinly as they can be: ``Client`` follows client/driver.py, ``Line``
client/peer.py, ``Server`` server/supervisor.py. Streams are cut at any byte, delayed, stalled and
read in pieces; servers crash, restart, say goodbye or cannot be reached; workers die; tasks are
cancelled and killed; maps are abandoned. What is wanted and what goes wrong is made up in
sim_histories.py.
"""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from remote_executor.core.connection import (
    Attach,
    ConnectionState,
    Drop,
    Failure,
    Lasts,
    Lose,
    Open,
    Use,
)
from remote_executor.core.connection import (
    Connection as ClientConnection,
)
from remote_executor.core.known import Functions, Holdings
from remote_executor.core.pool import Give, Pool, Start, Verdict
from remote_executor.core.scheduler import Scheduler
from remote_executor.core.sources import Sources, to_send
from remote_executor.core.tasks import Feed, Task, TaskState, needed_by
from remote_executor.net.memory import Pipe
from remote_executor.wire.auth import TokenAuth
from remote_executor.wire.frames import make_frame
from remote_executor.wire.link import Link, LinkState
from remote_executor.wire.messages import (
    FIRST_NUMBERED,
    Flag,
    Kind,
    decode_fields,
    decode_ids,
    encode_fields,
    encode_ids,
    fields_for_client,
)
from remote_executor.wire.session import Session, SessionState
from tests.support.pipes import FakePipes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from remote_executor.core.connection import Action, Refuse
    from remote_executor.core.pool import PoolSession, PoolWorker
    from remote_executor.core.tasks import Server as KnownServer
    from remote_executor.wire.frames import Frame

__all__ = ["Client", "Line", "Run", "Server", "Shared", "Spec", "World"]

SECRET = b"s" * 32
LIMIT = 1 << 30
CACHE = 150
"""Bytes of functions and shared objects that a server keeps."""
BEGUN_PERIOD = 0.02
ANSWER_SECONDS = 2.0
MOST_STEPS = 60_000
CHECK_EVERY = 3
"""How many steps pass between two looks at the machines' invariants: it is what takes longest."""


def answer(label: int) -> int:
    """What the task of that number returns."""
    return label * 3 + 1


MODULES = {f"m{number}": bytes([number]) * (40 * number + 1) for number in range(12)}
"""What workers may ask for, by digest."""

MOST_HELD = 1500
"""Bytes of it that a session keeps at a server: not all."""


class Spec:
    """
    What a call does: takes some seconds, then returns, raises, or ends its worker.

    Before that it asks for so many modules, one after the other.
    """

    def __init__(self, seconds: float, how: str, imports: int = 0) -> None:
        self.seconds = seconds
        self.how = how
        self.imports = imports


class Run:
    """An attempt that began on a worker, and how that ended."""

    def __init__(self, labels: tuple[int, ...], worker: Worker) -> None:
        self.labels = labels
        self.worker = worker
        self.fate = "running"

    def __repr__(self) -> str:
        return f"<Run of {self.labels[:3]} {self.fate}>"


class World:
    """Time, chance, and what has happened: all that the machines of one history share."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now = 1000.0
        self.steps = 0
        self.clients: list[Client] = []
        self.servers: list[Server] = []
        self.specs: list[Spec] = []
        self.runs: dict[tuple[str, int], Run] = {}
        self.pipes: list[tuple[Pipe, Pipe]] = []
        self.events: deque[tuple[float, tuple[Any, ...]]] = deque(maxlen=500)
        self.delay = 0.0
        self.stride: Callable[[], int] | None = None
        self.capacity = 64 * 1024
        self.strangers = 0.0
        """How often somebody else answers for a server that has our session."""
        self.flaky = 0.0
        """How many of the new streams are cut soon after they begin."""
        self.grace = 60.0
        self._timers: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._number = count()

    def log(self, *words: Any) -> None:
        """Note what happens, for whoever must find out why it went wrong."""
        self.events.append((self.now, words))

    def story(self, last: int = 120) -> str:
        """Return the recent events, one a line."""
        lines = [f"{when:12.6f}  {' '.join(map(str, words))}" for when, words in self.events]
        return "\n".join(lines[-last:])

    def some(self, most: float) -> float:
        """Return a time between 0 and ``most``, more often a short one."""
        return self.random.random() ** 2 * most

    def later(self, seconds: float, call: Callable[..., object], *arguments: Any) -> None:
        """Call something at a later time."""
        heapq.heappush(self._timers, (self.now + seconds, next(self._number), call, arguments))

    def pipe(self) -> tuple[Pipe, Pipe]:
        """Return the two ends of a new stream."""
        ends = Pipe.pair(
            capacity=self.capacity, stride=self.stride, delay=self.delay, clock=lambda: self.now
        )
        self.pipes.append(ends)
        if self.random.random() < self.flaky:
            self.random.choice(ends).cut(self.random.randint(1, 1500))
        return ends

    def run(self, over: Callable[[], bool], seconds: float) -> None:
        """
        Let all machines act, one at a time and in any order, until it is over.

        Raises:
            AssertionError: If it is not over after so many seconds, by the clock in here.
        """
        until = self.now + seconds
        timers = self._timers
        machines: list[Machine] = [*self.clients, *self.servers]
        stale = machines
        while not over():
            self.steps += 1
            assert self.now < until, "it takes too long: something hangs"
            assert self.steps < MOST_STEPS, "too many steps: something spins"
            for machine in stale:
                machine.wake = machine.timers()
            ready = [machine for machine in machines if machine.ready(self.now)]
            due = bool(timers) and timers[0][0] <= self.now
            stale = []
            if ready and not (due and self.random.random() < 0.5):
                machine = self.random.choice(ready)
                machine.step()
                stale = [machine]
                self.now += self.random.random() * 3e-5
            elif due:
                _, _, call, arguments = heapq.heappop(timers)
                call(*arguments)
                stale = machines
            else:
                times = [machine.deadline() for machine in machines]
                times += [timers[0][0]] if timers else []
                when = min((time for time in times if time is not None), default=None)
                assert when is not None, "nothing will ever happen again"
                self.now = max(self.now, when)


class Machine:
    """A process: it has streams and timers, and acts when one of them calls for it."""

    wake: float | None = None
    """When a timer of its own is due."""

    def streams(self) -> list[tuple[Pipe, Link]]:
        """Return its streams."""
        raise NotImplementedError

    def timers(self) -> float | None:
        """Return when it wants to act even if nothing happens."""
        raise NotImplementedError

    def step(self) -> None:
        """Act: one round of its loop."""
        raise NotImplementedError

    def ready(self, now: float) -> bool:
        """Whether it has anything to do."""
        if self.wake is not None and self.wake <= now:
            return True
        for pipe, link in self.streams():
            if pipe.readable or (link.outbox.size and pipe.writable):
                return True
        return False

    def deadline(self) -> float | None:
        """Return when a timer is due or bytes arrive."""
        times = [self.wake, *(pipe.deadline() for pipe, _ in self.streams())]
        return min((time for time in times if time is not None), default=None)


# -------------------------------------------------------------------------- the client


class Shared:
    """A shared object: client/shares.py's Blob, freed with its last reference."""

    def __init__(self, client: Client, size: int) -> None:
        self.number = client.functions.next_number()
        self.size = size
        self._freed = client.freed

    def __del__(self) -> None:
        self._freed.append(self.number)


class Line:
    """What a client has at one server: client/peer.py without its sockets."""

    def __init__(self, client: Client, target: Server) -> None:
        self.client = client
        self.world = client.world
        self.target = target
        self.core = ClientConnection(self.world.grace)
        self.session: Session | None = None
        self.link: Link | None = None
        self.pipe: Pipe | None = None
        self.known = Holdings(CACHE)
        self.held: dict[str, int] = {}
        self.id = ""
        self.received_by_server = 0
        self.server: KnownServer = client.scheduler.add_server(self, target.name)

    def __repr__(self) -> str:
        return f"{self.client.name}->{self.target.name}"

    # ---------------------------------------------------------- what the core decides

    def connect(self) -> None:
        self.act(self.core.start(self.world.now))

    def act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Open):
                self.world.later(self.world.some(0.005), self.connected)
            elif isinstance(action, Attach):
                self.attach(action.resume)
            elif isinstance(action, Use):
                self.use(action.resumed)
            elif isinstance(action, Drop):
                self.drop_link(action.reason)
            elif isinstance(action, Lose):
                self.lose(action.reason)
            else:
                self.refuse(action)

    def failed(self, reason: str, lasts: Lasts = Lasts.NO) -> None:
        self.act(self.core.failed(Failure(lasts, reason), self.world.now))

    def connected(self) -> None:
        if self.core.state is not ConnectionState.CONNECTING:
            return
        target = self.target
        if self.core.has_session and self.world.random.random() < self.world.strangers:
            # Whoever answers now is not our server: a session is never lost of that.
            others = [each for each in self.world.servers if each is not target]
            if not others or self.world.random.random() < 0.5:
                self.failed("a stranger says that it refuses us", Lasts.YES)
                return
            target = self.world.random.choice(others)
        pipe = target.accept()
        if pipe is None:
            self.failed("it cannot be reached")
            return
        self.pipe = pipe
        nonce = self.world.random.randbytes(32)
        mechanism = TokenAuth("client", (SECRET,))
        self.link = Link("client", target.name, mechanism, self.world.now, nonce=nonce, limit=LIMIT)
        self.act(self.core.opened())

    def attach(self, resume: bool) -> None:
        assert self.link is not None
        if self.session is None:
            self.new_session()
        assert self.session is not None
        fields = {
            "session": self.id,
            "received": self.session.received_count,
            "resume": resume,
            "grace": self.world.grace,
            "workers": 0,
            "tasks_per_worker": self.client.tasks_per_worker,
            "host": self.client.name,
        }
        self.link.outbox.put(make_frame(Kind.ATTACH, body=encode_fields(fields)))

    def new_session(self) -> None:
        self.session = Session(self.world.now, self.world.grace)
        self.id = self.world.random.randbytes(16).hex()
        self.known = Holdings(CACHE)
        self.held = {}

    def attached(self, frame: Frame) -> None:
        fields = fields_for_client(frame.kind, frame.body)
        self.received_by_server = fields["received"]
        names = fields["server"], fields["place"]
        self.act(self.core.attached(fields["resumed"], *names, self.world.now))

    def use(self, resumed: bool) -> None:
        assert self.link is not None
        assert self.session is not None
        self.world.log(self, "= attached", "again" if resumed else "anew")
        self.session.attach(self.link.outbox, self.received_by_server)
        if not resumed:
            self.client.scheduler.server_up(self.server, self.target.pool.slots)

    def refuse(self, action: Refuse) -> None:
        """It is left out; the user removes it, and adds it again."""
        assert action.failure.lasts is Lasts.YES
        self.world.log(self, "! is left out:", action.failure.reason)
        self.core = ClientConnection(self.world.grace)
        self.connect()

    # ----------------------------------------------------------------- reading, writing

    def step(self) -> None:
        if self.pipe is not None and self.pipe.readable:
            self.readable()
        when = self.deadline()
        if when is not None and when <= self.world.now:
            self.tick(self.world.now)
        self.core.check()

    def readable(self) -> None:
        pipe, link = self.pipe, self.link
        assert pipe is not None
        assert link is not None
        try:
            for _ in range(16):
                size = pipe.receive(link.get_buffer())
                if size < 0:
                    return
                if size == 0:
                    self.failed("it closed the connection")
                    return
                self.received(link.received(size, self.world.now), size)
                if self.link is not link:
                    return
        except OSError as exc:
            self.failed(str(exc))

    def received(self, frames: list[Frame], size: int) -> None:
        state, session, link = self.core.state, self.session, self.link
        assert link is not None
        if state is ConnectionState.UP and frames:
            assert session is not None
            numbered = [frame for frame in frames if frame.kind >= FIRST_NUMBERED]
            for frame in frames:
                if frame.kind == Kind.ACK:
                    session.acknowledged(frame.id)
            if numbered:
                session.received(len(numbered), size, self.world.now)
                self.client.frames(self, numbered)
        elif state is ConnectionState.SHAKING and link.state is LinkState.OPEN:
            self.act(self.core.proved())
        elif state is ConnectionState.ATTACHING and frames:
            assert frames[0].kind == Kind.ATTACHED
            self.attached(frames[0])
            if self.link is link:
                self.received(frames[1:], size)
        up = self.core.state is ConnectionState.UP
        if link.state is LinkState.CLOSED and self.link is link and up:
            self.act(self.core.goodbye(self.world.now))

    def flush(self) -> None:
        pipe, link = self.pipe, self.link
        if pipe is None or link is None:
            return
        try:
            while link.outbox.size:
                size = pipe.send(link.outbox.chunk())
                if not size:
                    return
                link.outbox.sent(size)
        except OSError as exc:
            # It may have said why before it closed: read that first.
            self.readable()
            if self.pipe is pipe:
                self.failed(str(exc))

    # ----------------------------------------------------------------------- troubles

    def drop_link(self, reason: str) -> None:
        self.world.log(self, "! no link:", reason)
        if self.pipe is not None:
            self.pipe.close()
        self.pipe = self.link = None
        if self.session is not None:
            self.session.link_lost(self.world.now)

    def lose(self, reason: str) -> None:
        self.world.log(self, "! lost:", reason)
        self.session = None
        self.client.lost(self)

    def deadline(self) -> float | None:
        times = [self.core.deadline()]
        if self.link is not None:
            times.append(self.link.deadline())
        if self.session is not None and self.core.state is ConnectionState.UP:
            times.append(self.session.deadline())
        return min((time for time in times if time is not None), default=None)

    def tick(self, now: float) -> None:
        if self.session is not None and self.core.state is ConnectionState.UP:
            self.session.tick(now)
        if self.link is not None:
            silent = self.link.tick(now)
            if silent is not None:
                self.failed(silent)
                return
        self.act(self.core.tick(now))

    def close(self) -> None:
        self.core.close()
        if self.link is not None:
            self.link.say_goodbye()
            self.flush()
        if self.pipe is not None:
            self.drop_link("closed")
        self.session = None


class Client(Machine):
    """One executor: client/driver.py without its threads, callers and pickles."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.scheduler = Scheduler()
        self.functions = Functions(most=8)
        self.lines: list[Line] = []
        self.tasks_per_worker: int | None = None
        self.inbox: deque[Task] = deque()
        self.shared: list[Shared] = []
        """What the caller has handles of."""
        self.freed: deque[int] = deque()
        self.to_pack: list[tuple[Task, int]] = []
        self.closed = False
        # What the tests ask about.
        self.accepted: set[int] = set()
        """Labels of all calls."""
        self.attempts: dict[int, Task] = {}
        """Every attempt that was sent."""
        self.ends: dict[int, str] = {}
        """What became of each attempt."""
        self.outcomes: dict[int, str] = {}
        """What the caller heard of each call, by its label."""
        self.unwanted: set[int] = set()
        """Labels of abandoned maps: their outcome is nobody's business."""

    def __repr__(self) -> str:
        return self.name

    def streams(self) -> list[tuple[Pipe, Link]]:
        return [(line.pipe, line.link) for line in self.lines if line.pipe and line.link]

    def timers(self) -> float | None:
        if self.inbox or self.to_pack:
            return self.world.now
        times = [self.scheduler.deadline(), *(line.deadline() for line in self.lines)]
        return min((time for time in times if time is not None), default=None)

    def step(self) -> None:
        """Do one round of the I/O thread."""
        for line in self.lines:
            line.step()
        self.drive()
        # The pickling happens without the mutex: anything may happen between the two.
        if self.to_pack and self.world.random.random() < 0.7:
            self.pack()
        when = self.scheduler.deadline()
        assert when is None or when > self.world.now, "the I/O thread spins"
        if not self.world.steps % CHECK_EVERY:
            self.check()

    def drive(self) -> None:
        while self.inbox:
            self.scheduler.submit(self.inbox.popleft())
        for server, tasks in self.scheduler.fill(self.world.now):
            self.send(server, tasks)
        asks, self.scheduler.asks = self.scheduler.asks, []
        for server, request, ids, wanted in asks:
            self.world.log(self, "> take back", server, ids or wanted)
            server.key.session.send(
                make_frame(Kind.TAKE_BACK, request, encode_ids(ids), aux=wanted)
            )
        if self.functions.crowded():
            self.evict()
        while self.freed:
            number = self.freed.popleft()
            for line in self.lines:
                if line.known.discard(number):
                    self.forget(line, number)
        failures, self.scheduler.failures = self.scheduler.failures, []
        for task in failures:
            self.settle(task, "cancelled" if task.cancelling else "lost")
        for line in self.lines:
            line.flush()

    def send(self, server: KnownServer, tasks: list[Task]) -> None:
        line: Line = server.key
        assert line.session is not None
        for task in tasks:
            function = task.function = self.functions.number(task.encoded)
            if not line.known.use(function.number):
                self.hold(line, function.number, function.size)
                line.session.send(make_frame(Kind.BLOB, 0, function.body, aux=function.number))
            if task.body is None:
                if task.items is None:
                    task.items = task.sink[task.first : task.first + task.count]
                self.to_pack.append((task, task.id))
                continue
            self.world.log(self, f"> task {task.id} of {task.items[0]}.. to {server}")
            self.attempts[task.id] = task
            task.posted = True
            for blob in task.blobs:
                if not line.known.use(blob.number):
                    self.hold(line, blob.number, blob.size)
                    body = bytes(blob.size)
                    line.session.send(
                        make_frame(Kind.BLOB, 0, body, aux=blob.number, flags=Flag.SHARED)
                    )
            flags = task.flags
            if task.pinned is not None or task.blobs:
                flags |= Flag.OPTIONED
                fields: dict[str, Any] = {"blobs": [blob.number for blob in task.blobs]}
                if task.pinned is not None:
                    fields["worker"] = task.pinned
                body = encode_fields(fields)
                line.session.send(make_frame(Kind.OPTIONS, task.id, body))
            line.session.send(
                make_frame(
                    Kind.TASK, task.id, task.body, task.buffers, aux=function.number, flags=flags
                )
            )

    def hold(self, line: Line, number: int, size: int) -> None:
        if line.known.crowded(size):
            in_use = needed_by(line.server.inflight.values())
            for other in line.known.make_room(size, in_use):
                self.forget(line, other)
        line.known.add(number, size)

    def forget(self, line: Line, number: int) -> None:
        self.world.log(self, "> forget", number, "at", line.target)
        if line.session is not None:
            line.session.send(make_frame(Kind.FORGET, aux=number))

    def pack(self) -> None:
        tasks, self.to_pack = self.to_pack, []
        for task, _ in tasks:
            task.body = encode_ids(task.items)
        for task, attempt in tasks:
            self.scheduler.packed(task, len(task.body))  # type: ignore[arg-type]
            if task.id == attempt and task.state is TaskState.SENT:
                assert task.server is not None
                self.send(task.server, [task])
        self.drive()

    def evict(self) -> None:
        in_use = [task.function for task in self.scheduler.tasks.values() if task.function]
        for function in self.functions.evict(in_use):
            for line in self.lines:
                if line.known.discard(function.number):
                    self.forget(line, function.number)

    # ---------------------------------------------------------------- what servers say

    def frames(self, line: Line, frames: list[Frame]) -> None:
        scheduler, server = self.scheduler, line.server
        if line.link is not None and line.link.round_trip:
            server.round_trip = line.link.round_trip
        for frame in frames:
            kind = frame.kind
            if kind in (Kind.RESULT, Kind.FAILURE):
                (task,) = scheduler.done(server, [frame.id], frame.aux * 1e-6)
                assert task is not None, "a live server's answer is never late"
                if task.feed is not None:
                    task.feed.measured(task.count, frame.aux * 1e-6)
                self.ends[frame.id] = "result"
                if kind == Kind.FAILURE:
                    self.settle(task, "raised")
                else:
                    wanted = tuple(map(answer, task.items))
                    assert decode_ids(frame.body) == wanted, "a wrong result"
                    self.settle(task, "result")
            elif kind == Kind.BEGUN:
                scheduler.begun(server, decode_ids(frame.body))
            elif kind == Kind.TAKEN_BACK:
                given = decode_ids(frame.body)
                self.ends.update(dict.fromkeys(given, "taken back"))
                for task in scheduler.taken_back(server, frame.id, given, self.world.now):
                    self.settle(task, "cancelled")
            elif kind == Kind.WANT:
                # Files are read without the mutex, and that takes its time.
                assert line.session is not None
                wait = self.world.some(0.01)
                self.world.later(wait, self.serve, line, line.session, line.held, frame)
            else:
                assert kind == Kind.DIED
                reason = decode_fields(frame.body, reason=str)["reason"]
                died = scheduler.ended(server, frame.id)
                assert died is not None
                self.ends[frame.id] = reason
                self.settle(died, reason)

    def serve(self, line: Line, session: Session, held: dict[str, int], frame: Frame) -> None:
        """Answer a worker that asks for modules, whatever has become of the session."""
        names = decode_fields(frame.body, modules=list)["modules"]
        fields, sent = to_send({name: MODULES[name] for name in names}, held, MOST_HELD)
        session.send(make_frame(Kind.MODULES, frame.id, encode_fields(fields), sent))
        line.flush()

    def lost(self, line: Line) -> None:
        self.ends.update(dict.fromkeys(line.server.inflight, "lost"))
        self.scheduler.server_lost(line.server)

    def settle(self, task: Task, how: str) -> None:
        self.world.log(self, "=", how, task)
        if how == "lost" and not (task.feed is not None and task.feed.closed):
            assert task.retries == 0
            assert len(task.lost_with) in (1, 4), "retries, and once more"
        task.blobs = ()  # nobody but this history keeps settled tasks
        for label in task.items or task.sink[task.first : task.first + task.count]:
            assert label not in self.outcomes, f"{label}: {self.outcomes[label]} and {how}"
            self.outcomes[label] = how

    # --------------------------------------------------------------- what callers want

    def submit(
        self,
        label: int,
        function: int,
        *,
        padding: int = 0,
        retries: int = 3,
        blobs: Sequence[Shared] = (),
    ) -> Task:
        task = self.make(label, function, retries)
        task.blobs = tuple(blobs)
        if padding:
            task.buffers = (bytes(padding),)
            task.size += padding
        task.priority, task.lane = label % 3 - 1, label % 2
        self.inbox.append(task)
        return task

    def make(self, label: int, function: int, retries: int) -> Task:
        self.accepted.add(label)
        body = encode_ids([label])
        task = Task(
            self.scheduler.next_id(), None, code(self.name, function), body, retries=retries
        )
        task.items = [label]
        task.size = len(body)
        return task

    def map(self, labels: Sequence[int], function: int, chunksize: int | None) -> Feed:
        feed = Feed(labels, code(self.name, function), chunksize, lane=labels[0] % 2)
        feed.flags = int(Flag.BATCH)
        self.accepted.update(labels)
        self.scheduler.offer(feed, len(labels))
        self.drive()
        return feed

    def pin(self, line: Line, index: int, label: int) -> None:
        if line.server.up:  # otherwise nobody is asked
            self.world.log(self, f"> pin {label} to {line.target}, worker {index}")
            task = self.make(label, 0, 0)
            task.pinned = index
            self.scheduler.pin(line.server, task)
            self.send(line.server, [task])
            self.drive()

    def cancel(self, task: Task) -> None:
        self.drive()
        self.world.log(self, "> cancel", task)
        if self.scheduler.drop(task):
            self.settle(task, "cancelled")
        elif task.state is TaskState.SENT:
            self.scheduler.ask_back([task])
            self.drive()
            self.world.later(ANSWER_SECONDS, self.give_up, task)

    def give_up(self, task: Task) -> None:
        if task.state is not TaskState.SETTLED:
            task.cancelling = False

    def kill(self, task: Task) -> None:
        self.drive()
        self.world.log(self, "> kill", task)
        if self.scheduler.drop(task):
            self.settle(task, "killed")
        elif task.server is not None and task.server.key.session is not None:
            task.server.key.session.send(make_frame(Kind.KILL, task.id))
            self.drive()

    def abandon(self, feed: Feed) -> None:
        self.world.log(self, "= a map is abandoned at", feed.cut)
        self.unwanted.update(feed.sink)
        left = self.scheduler.close_feed(feed)
        self.scheduler.ask_back([task for task in left if not self.scheduler.drop(task)])
        self.drive()

    def idle(self) -> bool:
        return not (self.scheduler.unsettled or self.inbox or self.to_pack)

    def close(self) -> None:
        self.closed = True
        for line in self.lines:
            line.close()

    def check(self) -> None:
        self.scheduler.check()
        for line in self.lines:
            if line.session is not None:
                line.session.check()
            line.core.check()
            assert line.server.up == line.core.has_session or self.closed


def code(client: str, number: int) -> Any:
    """Return a pickled function, or what passes for one."""
    body = f"{client} {number}".encode()
    return SimpleNamespace(key=body, body=body, buffers=(), parts=(), pure=True)


# -------------------------------------------------------------------------- the server


class Worker:
    """A worker process: claims a token, takes its time, answers, or dies."""

    def __init__(self, server: Server, entry: Entry, pool: PoolWorker) -> None:
        self.server = server
        self.world = server.world
        self.entry = entry
        self.pool = pool
        self.number = next(server.numbers)
        self.frames: dict[int, Frame] = {}
        self.alive = True
        self.killed = False
        self.asked_to_end = False
        self.run: Run | None = None
        self.doomed: dict[int, str] = {}
        self.questions = count(1)
        self.open: tuple[int, list[str], Callable[[], None]] | None = None
        """The question that waits for its answer, and how to go on then."""

    def __repr__(self) -> str:
        return f"{self.server}/{self.number}"

    def boot(self) -> None:
        if self.alive:
            if self.world.random.random() < self.server.bad_starts:
                self.die("lost")
            else:
                self.server.news.append(("ready", self))
                self.look()

    def look(self) -> None:
        """Read a token if there is one, and run its task."""
        if not self.alive or self.run is not None:
            return
        id = self.server.tokens.claim(self.pool)
        if id is None:
            if self.asked_to_end:
                self.die("ended")
            return
        frame = self.frames.pop(id)
        # What is forgotten at the server has been forgotten here.
        assert self.entry.blobs.issuperset([frame.aux, *self.entry.needs.get(id, ())])
        self.run = Run(decode_ids(frame.body), self)
        key = (self.entry.client, id)
        assert key not in self.world.runs, "an attempt runs twice"
        assert len(self.server.running()) <= self.server.slots, "more tasks run than slots"
        self.world.runs[key] = self.run
        self.world.log(self, f"= runs {id}:", self.run.labels[:4])
        seconds, how, imports = 0.0, "return", 0
        for label in self.run.labels:
            spec = self.world.specs[label]
            seconds += spec.seconds
            imports += spec.imports
            how = spec.how
            if how != "return":
                break
        self.work(id, how, seconds, imports)

    def work(self, id: int, how: str, seconds: float, imports: int) -> None:
        """Import what is to be imported, then take the time."""
        if not imports:
            self.world.later(seconds, self.end, id, how, int(seconds * 1e6))
            return
        names = self.world.random.sample(sorted(MODULES), self.world.random.randint(1, 3))
        number = next(self.questions)
        self.open = number, names, lambda: self.work(id, how, seconds, imports - 1)
        body = encode_fields({"modules": names})
        self.server.news.append(("want", self, make_frame(Kind.WANT, number, body)))

    def answered(self, number: int, contents: list[bytes]) -> None:
        """An answer has come."""
        if self.alive:
            assert self.open is not None, "an answer came that nobody waits for"
            asked, names, go_on = self.open
            self.open = None
            assert number == asked, "an answer to another question"
            assert contents == [MODULES[name] for name in names], "wrong contents"
            go_on()

    def end(self, id: int, how: str, micros: int) -> None:
        if not self.alive:
            return
        assert self.run is not None
        if how == "die":
            self.die("died")
            return
        self.run.fate = "done"
        kind = Kind.FAILURE if how == "raise" else Kind.RESULT
        body = encode_ids([answer(label) for label in self.run.labels])
        self.server.tokens.claimed.pop(self.pool)
        self.server.news.append(("frame", self, make_frame(kind, id, body, aux=micros)))
        self.run = None
        self.world.later(self.world.some(1e-5), self.look)

    def die(self, fate: str) -> None:
        if self.alive:
            self.world.log(self, "!", fate)
            self.alive = False
            if self.run is not None:
                self.run.fate = fate
            # Its wire tells of its end, or the zygote does: whichever is looked at first.
            if self.world.random.random() < 0.5:
                self.server.news.append(("end of wire", self))
            self.world.later(self.world.some(0.003), self.bury)

    def bury(self) -> None:
        self.server.news.append(("gone", self))

    def kill(self) -> None:
        if not self.killed:
            self.killed = True
            # The zygote is told, and sends the signal.
            self.world.later(self.world.some(0.002), self.die, "killed")


class Entry:
    """A session at a server, as server/supervisor.py's ClientSession."""

    def __init__(self, id: str, wire: Session, pool: PoolSession, client: str) -> None:
        self.id = id
        self.wire = wire
        self.pool = pool
        self.client = client
        self.connection: Connection | None = None
        self.frames: dict[int, Frame] = {}
        self.blobs: set[int] = set()
        self.options: dict[int, Any] = {}
        self.needs: dict[int, list[int]] = {}
        self.sources: Sources[Worker] = Sources()


class Connection:
    """A stream from a client."""

    def __init__(self, server: Server, pipe: Pipe) -> None:
        self.server = server
        self.world = server.world
        self.pipe = pipe
        self.entry: Entry | None = None
        nonce = self.world.random.randbytes(32)
        mechanism = TokenAuth("server", (SECRET,))
        self.link = Link("server", "a client", mechanism, self.world.now, nonce=nonce, limit=LIMIT)

    def step(self) -> None:
        if self.pipe.readable:
            self.readable()
        if self in self.server.connections and self.link.deadline() <= self.world.now:
            trouble = self.link.tick(self.world.now)
            if trouble is not None:
                self.lost(trouble)

    def readable(self) -> None:
        link = self.link
        try:
            for _ in range(16):
                size = self.pipe.receive(link.get_buffer())
                if size < 0:
                    return
                if size == 0:
                    self.lost("it closed the connection")
                    return
                frames = link.received(size, self.world.now)
                if frames:
                    self.received(frames, size)
                if self not in self.server.connections:
                    return
                if link.state is LinkState.CLOSED:
                    entry = self.entry
                    self.lost("goodbye")
                    if entry is not None:
                        self.server.end_session(entry, "goodbye")
                    return
        except OSError as exc:
            self.lost(str(exc))

    def received(self, frames: list[Frame], size: int) -> None:
        while frames and self.entry is None:
            frame, *frames = frames
            assert frame.kind == Kind.ATTACH
            self.entry = self.server.attach(self, frame)
        if self.entry is not None and frames:
            self.server.frames(self.entry, frames, size)

    def flush(self) -> None:
        outbox = self.link.outbox
        try:
            while outbox.size:
                size = self.pipe.send(outbox.chunk())
                if not size:
                    return
                outbox.sent(size)
        except OSError:
            outbox.clear()  # what it said before is read in a later round

    def lost(self, reason: str) -> None:
        self.world.log(self.server, "! a link is gone:", reason)
        self.close()

    def close(self) -> None:
        self.pipe.close()
        self.server.connections.pop(self, None)
        entry = self.entry
        if entry is not None and entry.connection is self:
            entry.connection = None
            entry.wire.link_lost(self.world.now)


class Server(Machine):
    """One server: server/supervisor.py without its processes and descriptors."""

    def __init__(self, world: World, name: str, slots: int) -> None:
        self.world = world
        self.name = name
        self.slots = slots
        self.bad_starts = 0.0
        self.up = False
        self.reachable = True
        self.numbers = count(1)
        self.starts = 0
        self.start()

    def __repr__(self) -> str:
        return self.name

    def start(self) -> None:
        self.up = True
        self.starts += 1
        self.tokens = FakePipes()
        self.pool = Pool(self.slots, self.tokens)
        self.connections: dict[Connection, None] = {}
        self.sessions: dict[str, Entry] = {}
        self.workers: dict[Worker, None] = {}
        self.news: deque[tuple[Any, ...]] = deque()
        self.begun_at: float | None = None

    def crash(self) -> None:
        """The machine is gone, or its supervisor is: so are all sessions and workers."""
        if self.up:
            self.world.log(self, "! crashes")
            self.stop()

    def shut_down(self) -> None:
        """End as by SIGTERM: all are told."""
        if self.up:
            self.world.log(self, "= says goodbye")
            for connection in self.connections:
                connection.link.say_goodbye()
                connection.flush()
            self.stop()

    def stop(self) -> None:
        self.up = False
        for connection in list(self.connections):
            connection.close()
        for worker in self.workers:
            worker.alive = False
            if worker.run is not None:
                worker.run.fate = "lost"
        self.start()
        self.up = False

    def come_back(self) -> None:
        if not self.up:
            self.world.log(self, "= is back")
            self.start()

    def busy(self) -> bool:
        """Whether anybody has left anything here."""
        return bool(self.connections or self.sessions or self.workers)

    def running(self) -> list[Run]:
        """What workers run, but for those that are about to be killed."""
        return [
            worker.run
            for worker in self.workers
            if worker.run is not None and worker.alive and not worker.killed
        ]

    # ----------------------------------------------------------------------- one round

    def streams(self) -> list[tuple[Pipe, Link]]:
        return [(connection.pipe, connection.link) for connection in self.connections]

    def timers(self) -> float | None:
        if not self.up:
            return None
        if self.news:
            return self.world.now
        times = [self.pool.deadline(), self.begun_at]
        times += [connection.link.deadline() for connection in self.connections]
        times += [entry.wire.deadline() for entry in self.sessions.values()]
        return min((time for time in times if time is not None), default=None)

    def step(self) -> None:
        now = self.world.now
        for connection in list(self.connections):
            connection.step()
        for entry in list(self.sessions.values()):
            when = entry.wire.deadline()
            if when is not None and when <= now:
                entry.wire.tick(now)
                if entry.wire.state is SessionState.EXPIRED:
                    self.end_session(entry, "its client did not come back")
        while self.news:
            self.hear(*self.news.popleft())
        if self.begun_at is not None and now >= self.begun_at:
            self.report_begun(now)
        self.assign(now)
        for connection in list(self.connections):
            connection.flush()
        if not self.world.steps % CHECK_EVERY:
            self.check()

    def assign(self, now: float) -> None:
        for action in self.pool.assign(now):
            if type(action) is Give:
                self.give(action.worker, action.ids, now)
            elif type(action) is Start:
                entry = next(
                    each for each in self.sessions.values() if each.pool is action.worker.session
                )
                worker = action.worker.shell = Worker(self, entry, action.worker)
                self.workers[worker] = None
                self.world.later(self.world.some(0.05), worker.boot)
            else:
                worker = action.worker.shell
                worker.asked_to_end = True
                self.world.later(self.world.some(1e-3), worker.look)

    def give(self, chosen: PoolWorker, ids: list[int], now: float) -> None:
        worker: Worker = chosen.shell
        worker.frames.update((id, worker.entry.frames[id]) for id in ids)
        self.tokens.give(chosen, ids)
        self.world.later(self.world.some(1e-4), worker.look)
        if self.begun_at is None:
            self.begun_at = now + BEGUN_PERIOD

    def hear(self, what: str, worker: Worker, frame: Frame | None = None) -> None:
        """Take what a worker has sent, or the news that it is gone."""
        if worker not in self.workers:
            return
        entry = worker.entry
        if what == "ready":
            self.pool.ready(worker.pool)
        elif what == "frame":
            assert frame is not None
            now = self.world.now
            if not self.pool.done(worker.pool, [frame.id], frame.aux, now):
                del entry.frames[frame.id]
                entry.wire.send(frame)
        elif what == "want":
            assert frame is not None
            id = entry.sources.asked(worker, frame.id)
            entry.wire.send(make_frame(Kind.WANT, id, bytes(frame.body)))
        elif what == "end of wire":
            self.pool.stop(worker.pool)
        else:
            del self.workers[worker]
            entry.sources.gone(worker)
            for id in self.pool.gone(worker.pool):
                self.died(entry, id, worker.doomed.get(id, "died"))
            self.tokens.claimed.pop(worker.pool, None)

    def report_begun(self, now: float) -> None:
        self.begun_at = None
        found, due = self.pool.begun(now)
        for worker, id, _ in found:
            worker.shell.entry.wire.send(make_frame(Kind.BEGUN, body=encode_ids([id])))
        if due:
            self.begun_at = now + BEGUN_PERIOD

    # ------------------------------------------------------------------ what clients say

    def accept(self) -> Pipe | None:
        """Connect a client: return its end, or None if that cannot be."""
        if not self.up or not self.reachable:
            return None
        theirs, ours = self.world.pipe()
        self.connections[Connection(self, ours)] = None
        return theirs

    def attach(self, connection: Connection, frame: Frame) -> Entry | None:
        fields = decode_fields(frame.body, session=str, received=int, resume=bool)
        id, now = fields["session"], self.world.now
        entry = self.sessions.get(id)
        outbox = connection.link.outbox
        reply = {
            "resumed": fields["resume"],
            "received": 0,
            "slots": self.pool.slots,
            "server": f"{self.name}.{self.starts}",
            "place": self.name,
        }
        if entry is None and fields["resume"]:
            # Make nothing in its place: if this answer is lost, the client will ask again, and
            # would take the new session for its old one.
            outbox.put(make_frame(Kind.ATTACHED, body=encode_fields({**reply, "resumed": False})))
            return None
        if entry is not None and not fields["resume"]:
            self.end_session(entry, "it began anew")
            entry = None
        if entry is None:
            pool = self.pool.open(fields["host"], fields["workers"], fields["tasks_per_worker"])
            entry = Entry(id, Session(now, fields["grace"]), pool, fields["host"])
            self.sessions[id] = entry
        elif entry.connection is not None:
            entry.connection.close()  # a dead link, though nobody had noticed
        reply["received"] = entry.wire.received_count
        outbox.put(make_frame(Kind.ATTACHED, body=encode_fields(reply)))
        entry.wire.attach(outbox, fields["received"])
        entry.connection = connection
        return entry

    def end_session(self, entry: Entry, reason: str) -> None:
        self.world.log(self, f"= ends the session of {entry.client}:", reason)
        del self.sessions[entry.id]
        for worker in self.pool.close(entry.pool):
            worker.shell.kill()
        if entry.connection is not None:
            entry.connection.close()

    def frames(self, entry: Entry, frames: list[Frame], size: int) -> None:
        numbered = 0
        for frame in frames:
            if frame.kind == Kind.ACK:
                entry.wire.acknowledged(frame.id)
            else:
                numbered += 1
                self.frame(entry, frame)
        if numbered:
            entry.wire.received(numbered, size, self.world.now)

    def frame(self, entry: Entry, frame: Frame) -> None:
        kind, id = frame.kind, frame.id
        if kind == Kind.TASK:
            assert id not in entry.frames, "a task came twice"
            assert frame.aux in entry.blobs, "a task came before its function"
            entry.frames[id] = frame
            options = entry.options.pop(id) if frame.flags & Flag.OPTIONED else {}
            entry.needs[id] = options.get("blobs", [])
            assert entry.blobs.issuperset(entry.needs[id]), "a task came before what it refers to"
            if "worker" in options:
                self.pool.queue_pinned(entry.pool, id, options["worker"])
            else:
                chosen = self.pool.begin(entry.pool, id, self.world.now)
                if chosen is not None:
                    self.give(chosen, [id], self.world.now)
                else:
                    self.pool.queue(entry.pool, [id])
        elif kind == Kind.BLOB:
            entry.blobs.add(frame.aux)
        elif kind == Kind.FORGET:
            entry.blobs.remove(frame.aux)
        elif kind == Kind.OPTIONS:
            entry.options[id] = decode_fields(frame.body)
        elif kind == Kind.MODULES:
            found = entry.sources.answered(id, decode_fields(frame.body), frame.buffers)
            if found is not None:
                found[0].answered(*found[1:])
        elif kind == Kind.TAKE_BACK:
            ids = decode_ids(frame.body)
            if ids or not frame.aux:
                taken = self.pool.take_back(entry.pool, ids)
            else:
                taken = self.pool.take_back_newest(entry.pool, frame.aux)
            for each in taken:
                del entry.frames[each]
            entry.wire.send(make_frame(Kind.TAKEN_BACK, id, encode_ids(taken)))
        else:
            assert kind == Kind.KILL
            while self.news:  # it may be done by now
                self.hear(*self.news.popleft())
            verdict, worker = self.pool.kill(entry.pool, id)
            if verdict is Verdict.DROPPED:
                self.died(entry, id, "killed")
            elif worker is not None:
                worker.shell.doomed.setdefault(id, "killed")
                worker.shell.kill()

    def died(self, entry: Entry, id: int, reason: str) -> None:
        del entry.frames[id]
        entry.wire.send(make_frame(Kind.DIED, id, encode_fields({"reason": reason})))

    def check(self) -> None:
        self.pool.check()
        for entry in self.sessions.values():
            entry.wire.check()
            assert set(entry.frames) == set(entry.pool.tasks)
