"""
The tasks that tasks make: the client's part.

::

    peer --SPAWN--> Nested --Task--> scheduler          any server runs it, as any other task
    peer <--CHILD-- Nested <-------- Child, its sink    results are passed on unopened

A child belongs to the attempt of its parent. If that is killed, runs out of time, dies or is lost
with its server, its children end with it. If it returns or raises, children that it has not waited
for go on, and nobody hears of their results. All here belongs to the I/O thread.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from remote_executor.client.child_code import resolve
from remote_executor.client.notes import note_task, note_words
from remote_executor.client.results import pid_of
from remote_executor.core.tasks import Task, TaskState
from remote_executor.errors import RemoteProtocolError
from remote_executor.options import Options
from remote_executor.payload.failures import encode_failure
from remote_executor.payload.functions import FunctionCache
from remote_executor.task_errors import NestingError, ServerLost
from remote_executor.wire.messages import Kind, decode_fields
from remote_executor.wire.nested import Said, Spawn, child_frame, said_in, submitted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from remote_executor.client.driver import Driver
    from remote_executor.client.peer import Peer
    from remote_executor.core.tasks import Server
    from remote_executor.payload.functions import Encoded
    from remote_executor.wire.frames import Buffer, Frame

__all__ = ["MAX_DEPTH", "Child", "Nested"]

log = logging.getLogger("remote_executor.client")

MAX_DEPTH = 500
"""Tasks of tasks of tasks ... beyond this are taken for an endless recursion."""

LANE = object()
"""Children take turns with what the program submits itself, so that neither waits for all others"""

RESULT = int(Kind.RESULT)


class _Function:
    """A function as a task has told it; None in place of what goes to servers until it is made."""

    __slots__ = ("encoded", "error", "waiting", "what")

    def __init__(self, what: str | None) -> None:
        self.what = what
        self.encoded: Encoded | None = None
        self.error: BaseException | None = None
        self.waiting: list[Child] = []


class _Parent:
    """An attempt at a task that has made tasks of its own."""

    __slots__ = ("children", "depth", "functions", "id", "peer", "server", "task", "waits")

    def __init__(self, peer: Peer, server: Server, task: Task) -> None:
        self.peer = peer
        self.server = server
        self.task = task
        self.id = task.id
        self.depth: int = task.sink.depth if isinstance(task.sink, Child) else 0
        self.children: dict[int, Child] = {}
        self.functions: dict[int, _Function] = {}
        self.waits = False


class Child:
    """
    The sink of a task that a task has made: what becomes of it is told to that one.

    Attributes:
        parent: Whose it is; None once that is over.
        number: What the parent calls it.
        depth: How many tasks it is nested in.
        task: The task; None as long as its function is not made.
    """

    __slots__ = ("_nested", "depth", "number", "parent", "task")

    def __init__(self, nested: Nested, parent: _Parent, number: int, inline: int) -> None:
        self._nested = nested
        self.parent: _Parent | None = parent
        self.number = number
        self.depth: int = parent.depth + inline + 1
        self.task: Task | None = None

    def arrived(
        self, task: Task, frame: Frame, error: BaseException | None = None, place: str = ""
    ) -> None:
        """Pass a result or a failure on, unopened, unless there is more to be said of it."""
        if error is not None:
            self.failed(task, error)
            return
        self._nested.post(self, *_outcome(task, frame, place))

    def failed(
        self, task: Task | None, error: BaseException, pid: int | None = None, place: str = ""
    ) -> None:
        """It has failed otherwise than by its function."""
        if self.parent is None:
            return
        if task is not None:
            note_task(error, task, pid, place)
        summary, pickled = encode_failure(error, 0)
        self._nested.post(self, Said.FAILURE, summary, (pickled, b""))

    def dropped(self, task: Task | None) -> None:
        """It was cancelled before it began."""
        if task is not None and task.lost_with:  # it may have begun there
            lost_with = ", ".join(task.lost_with)
            self.failed(task, ServerLost(task.name or "task", task.lost_with), None, lost_with)
        else:
            self._nested.post(self, Said.CANCELLED)


class Nested:
    """
    What the tasks of one executor have made.

    Args:
        driver: The executor's.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.parents: dict[int, _Parent] = {}
        """By the id of the attempt. Empty, as a rule: then nothing here costs anything."""
        self._cache = FunctionCache()
        self.making = 0
        """Functions that are being made."""
        self._asked: dict[int, list[Child]] = {}
        """Children that a server was asked to give back, by the number of the request."""

    # ------------------------------------------------------------- from the tasks

    def heard(self, peer: Peer, server: Server, frame: Frame) -> None:
        """
        Do what a task says.

        A worker has written it, which a task may have misused: no reason to part with the server.
        """
        try:
            self._heard(peer, server, frame)
        except RemoteProtocolError as exc:
            log.warning("! what a task at %s says of its tasks makes no sense: %s", peer.name, exc)

    def _heard(self, peer: Peer, server: Server, frame: Frame) -> None:
        parent = self.parents.get(frame.id)
        if parent is None:
            task = server.inflight.get(frame.id)
            if task is None:
                return  # it is over, or was lost with a server that has come back
            parent = self.parents[frame.id] = _Parent(peer, server, task)
        what = said_in(frame)
        if what == Spawn.SUBMIT:
            self._submit(parent, frame)
        elif what == Spawn.FUNCTION:
            self._function(parent, frame)
        elif what == Spawn.WAITS or what == Spawn.GOES_ON:
            self._wait(parent, what == Spawn.WAITS)
        elif what == Spawn.COUNT:
            self._say(parent, Said.COUNT, max(1, self._driver.scheduler.slots()))
        elif what == Spawn.CANCEL and not frame.aux:
            self._cancel(parent, list(parent.children.values()), silent=True)
        else:
            child = parent.children.get(frame.aux)
            if child is None:
                return  # the answer is on its way
            if what == Spawn.KILL:
                self._kill([child], _grace(frame))
            else:
                self._cancel(parent, [child])

    def _wait(self, parent: _Parent, waits: bool) -> None:
        if waits != parent.waits:
            parent.waits = waits
            self._driver.scheduler.lend(parent.server, 1 if waits else -1)

    def _function(self, parent: _Parent, frame: Frame) -> None:
        """Take a function. It is made where callbacks run, since that may run the user's code."""
        if not frame.buffers:
            raise RemoteProtocolError("SPAWN tells a function without its fields")
        fields = decode_fields(frame.buffers[0])
        what = fields.get("what")
        function = _Function(what if isinstance(what, str) else None)
        parent.functions[frame.aux] = function
        self.making += 1
        self._driver.deliver(self._make, function, fields, frame)

    def _make(self, function: _Function, fields: dict[str, Any], frame: Frame) -> None:
        error: BaseException | None = None
        encoded: Encoded | None = None
        try:
            encoded = resolve(self._cache, fields, frame.body, frame.buffers[1:])
        except BaseException as exc:
            error = exc
        self._driver.loop.post(partial(self._made, function, encoded, error))

    def _made(
        self, function: _Function, encoded: Encoded | None, error: BaseException | None
    ) -> None:
        self.making -= 1
        function.encoded, function.error = encoded, error
        waiting, function.waiting = function.waiting, []
        for child in waiting:
            if child.parent is not None or child.task is not None:
                self._go(child, function)

    def _submit(self, parent: _Parent, frame: Frame) -> None:
        number, options, body = submitted(frame)
        function = parent.functions.get(number)
        if function is None:
            raise RemoteProtocolError("SPAWN names a function that was not told")
        inline = options.pop("inline", 0)
        child = Child(self, parent, frame.aux, inline if isinstance(inline, int) else 0)
        parent.children[frame.aux] = child
        if child.depth > MAX_DEPTH:
            words = f"tasks are nested {MAX_DEPTH} deep: is this recursion without an end?"
            child.failed(None, NestingError(words))
            return
        task = child.task = self._task(parent, child, options, function.what)
        task.body = bytes(body)
        task.buffers = frame.buffers
        task.size = len(body) + sum(map(len, frame.buffers))
        if function.encoded is None and function.error is None:
            function.waiting.append(child)
        else:
            self._go(child, function)

    def _task(self, parent: _Parent, child: Child, said: dict[str, Any], what: str | None) -> Task:
        """Make the task of a child: where it says nothing, it is as its parent."""
        driver, ours = self._driver, parent.task
        try:
            options = Options(**{k: said[k] for k in _OPTIONS if said.get(k) is not None})
        except (TypeError, ValueError) as exc:
            raise RemoteProtocolError(f"SPAWN has odd options: {exc}") from exc
        task = Task(driver.scheduler.next_id(), child, None, b"")
        task.priority = options.level if "priority" in said else ours.priority
        task.category = options.category if "category" in said else ours.category
        task.retries = driver.settings.retries if options.retries is None else options.retries
        task.timeout, task.grace = options.timeout, options.grace
        task.name = options.name or what
        task.generation = ours.generation
        task.lane = LANE
        return task

    def _go(self, child: Child, function: _Function) -> None:
        """Have a child scheduled, now that its function is there."""
        task = child.task
        assert task is not None
        if function.encoded is None:
            assert function.error is not None
            child.failed(task, function.error)
            return
        driver = self._driver
        task.encoded = function.encoded
        if driver.shares is not None:
            driver.find_shared(task)
        if driver.broken is not None:
            child.failed(task, driver.broken)
            return
        driver.scheduler.submit(task)

    # --------------------------------------------------------------- to the tasks

    def _say(
        self,
        parent: _Parent,
        said: Said,
        number: int = 0,
        body: Buffer = b"",
        buffers: Sequence[Buffer] = (),
    ) -> None:
        session = parent.peer.session
        if session is not None and self.parents.get(parent.id) is parent:
            session.send(child_frame(said, parent.id, number, body, buffers))

    def tell(
        self, child: Child, said: Said, body: Buffer = b"", buffers: Sequence[Buffer] = ()
    ) -> None:
        """Tell a child's parent what has become of it. For the I/O thread, in the core."""
        parent, child.parent = child.parent, None
        child.task = None
        if parent is not None and parent.children.pop(child.number, None) is not None:
            self._say(parent, said, child.number, body, buffers)

    def post(
        self, child: Child, said: Said, body: Buffer = b"", buffers: Sequence[Buffer] = ()
    ) -> None:
        """The same from where callbacks run."""
        if child.parent is not None:
            self._driver.loop.post(partial(self.tell, child, said, body, buffers))

    def finished(self, task: Task, frame: Frame, place: str) -> None:
        """A child is done: pass its result on."""
        self.tell(task.sink, *_outcome(task, frame, place))

    def begun(self, task: Task) -> None:
        """A child has begun."""
        child: Child = task.sink
        if child.parent is not None:
            self._say(child.parent, Said.BEGUN, child.number)

    # ---------------------------------------------------------- cancelling, ending

    def _cancel(self, parent: _Parent, children: list[Child], silent: bool = False) -> None:
        """Cancel children that have not begun; say of the others that they have."""
        scheduler = self._driver.scheduler
        sent: list[Child] = []
        for child in children:
            task = child.task
            if task is None:
                continue
            if task.encoded is None or scheduler.drop(task):
                self.tell(child, Said.CANCELLED)
            elif task.state is TaskState.SENT and task.server and task.server.key.attached:
                sent.append(child)
            elif not silent:
                self._say(parent, Said.BEGUN, child.number)
        by_server: dict[Server, list[Child]] = {}
        for child in sent:
            assert child.task is not None
            assert child.task.server is not None
            by_server.setdefault(child.task.server, []).append(child)
        for asked in by_server.values():
            scheduler.ask_back([child.task for child in asked if child.task is not None])
            self._asked[scheduler.asks[-1][1]] = [] if silent else asked

    def answered(self, request: int, cancelled: Iterable[Task]) -> None:
        """A server has given back what it could: say of the rest that it has begun."""
        for child in self._asked.pop(request, ()):
            task = child.task
            if task is not None and child.parent is not None and task not in cancelled:
                task.cancelling = False
                self._say(child.parent, Said.BEGUN, child.number)

    def _kill(self, children: Iterable[Child], grace: float | None) -> None:
        tasks = []
        for child in children:
            if child.task is not None and child.task.encoded is not None:
                tasks.append(child.task)
            elif child.task is not None:
                self.tell(child, Said.CANCELLED)
        self._driver.stop_tasks(tasks, grace)

    def over(self, ids: Iterable[int]) -> None:
        """These attempts have returned or raised: what they have not waited for goes on."""
        for id in ids:
            parent = self.parents.pop(id, None)
            if parent is not None:
                self._wait(parent, False)
                for child in parent.children.values():
                    child.parent = None

    def ended(self, id: int) -> None:
        """An attempt was killed, has died or run out of time: its children end with it."""
        parent = self.parents.pop(id, None)
        if parent is None:
            return
        self._wait(parent, False)
        children = list(parent.children.values())
        for child in children:
            child.parent = None
        self._kill(children, 0.0)

    def lost(self, server: Server) -> None:
        """A server is lost: what its tasks have made ends, for they will make it anew."""
        for id, parent in list(self.parents.items()):
            if parent.server is server:
                parent.waits = False  # the scheduler has forgotten it
                self.ended(id)

    def refuse_all(self) -> None:
        """The executor is broken or closed: nobody is told any more."""
        self.parents.clear()
        self._asked.clear()


_OPTIONS = ("priority", "category", "timeout", "grace", "retries", "name")


def _outcome(task: Task, frame: Frame, place: str) -> tuple[Said, Buffer, Sequence[Buffer]]:
    """Return what a parent is told of a child that is done."""
    if frame.kind == RESULT:
        return Said.RESULT, frame.body, frame.buffers
    note = note_words(task, pid_of(frame), place)
    return Said.FAILURE, frame.body, (*frame.buffers, note.encode())


def _grace(frame: Frame) -> float | None:
    if not frame.body:
        return None
    grace = decode_fields(frame.body).get("grace")
    return grace if isinstance(grace, (int, float)) and grace >= 0 else None
