"""
The executor of a task: it runs tasks of its own on the farm of its client.

A child that has not begun when its parent waits for it is taken back and run by the parent itself.
So a deep recursion needs no process for each level, and a task that runs ahead of need costs what a
call costs. That it runs once, and in one place, is the client's to say: see
:mod:`remote_executor.client.nested`.
"""

from __future__ import annotations

import os
import socket
import time
import weakref
from _thread import get_ident
from concurrent.futures import Executor, Future
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from itertools import chain, islice
from threading import main_thread
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from remote_executor.client.child_code import tell
from remote_executor.client.current import AsKernel, current, options_of, said
from remote_executor.client.futures import SafeFuture
from remote_executor.client.notes import add_note
from remote_executor.client.results import open_failure, unloadable
from remote_executor.client.task_line import line
from remote_executor.client.waits import check_may_wait
from remote_executor.errors import FarmError
from remote_executor.net.in_task import here
from remote_executor.net.interruptible import take
from remote_executor.options import Options, check_grace
from remote_executor.payload.failures import decode_failure, encode_failure
from remote_executor.payload.functions import CODE, in_one_piece, needed
from remote_executor.payload.pickles import dump_copied, dump_result, load
from remote_executor.printable import printable
from remote_executor.task_errors import NoKernelError, UnsupportedError
from remote_executor.wire.messages import encode_fields
from remote_executor.wire.nested import Said, Spawn, said_in, submit_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from queue import SimpleQueue

    from remote_executor.client.task_line import TaskLine
    from remote_executor.wire.frames import Frame

__all__ = ["NestedExecutor", "NestedFuture", "current_executor", "in_farm_task"]

P = ParamSpec("P")
T = TypeVar("T")

MAX_INLINE = 40
"""So many children run one within the other in one process; each takes some ten frames of Python's
recursion limit, which is 1,000. What is deeper waits for others to run it."""

ANSWER_SECONDS = 2.0
"""How long cancel() waits for the client."""

PARTS = 4
"""Parts a worker, where ``map`` is not told how large they shall be."""

OPTIONS = ("priority", "category", "timeout", "grace", "retries", "name")
"""What a task can say of its own."""

ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})


_Part = tuple[list[T], BaseException | None]
"""Results of a part of a map, and what one of its items has raised."""


class NestedFuture(SafeFuture[T]):
    """The future of a task that a task has made. It is for that task, and cannot be sent."""

    _line: TaskLine | None = None
    number = 0
    _call: tuple[Any, bytes] | None = None
    """What to call, if it may be called here, and the pickle of the arguments."""

    def __init__(self, line: TaskLine, number: int) -> None:
        super().__init__()
        self._line = line
        self.number = number
        self._asked = False
        self._ours: list[None] = []
        """Has an entry once the task was given back to be run here: whoever takes that, does."""

    # ---------------------------------------------------------- for who reads the line

    def heard(self, frame: Frame) -> None:
        """Take what the client says."""
        said = said_in(frame)
        line = self._line
        if said == Said.BEGUN:
            self._call = None  # it is not to be had any more
            if self.now == PENDING:
                self.now = RUNNING
            self.watchers().gates.open()
            return
        if said == Said.CANCELLED and self._asked and self._call is not None:
            self._ours.append(None)
            self.watchers().gates.open()
            return
        if line is not None:
            line.children.pop(self.number, None)
        if said == Said.RESULT:
            try:
                value = load(frame.body, frame.buffers)
            except BaseException as exc:
                self._end(error=unloadable(exc, frame.body, _NOBODY))
            else:
                self._end(value)
        elif said == Said.FAILURE:
            *buffers, note = frame.buffers
            frame.buffers = buffers
            error = open_failure(frame)
            if len(note):
                add_note(error, bytes(note).decode("utf-8", "replace"))
            self._end(error=error)
        elif said == Said.CANCELLED:
            self._end_cancelled()

    def give_up(self, error: BaseException | None) -> None:
        """Nobody will say any more what becomes of it."""
        if error is None:
            self._end_cancelled()
        else:
            self._end(error=error)

    def _end(self, value: Any = None, error: BaseException | None = None) -> None:
        self._call = None
        self._finish(FINISHED, value, error)
        self._line = None

    def _end_cancelled(self) -> None:
        self._call = None
        self._finish(CANCELLED_AND_NOTIFIED, None, None)
        self._line = None

    # ----------------------------------------------------------------------- public

    def check_may_wait(self) -> None:
        """
        Check that this is no done-callback, which runs in the thread that brings results.

        Raises:
            RuntimeError: If it is.
        """
        check_may_wait()

    def cancel(self) -> bool:
        """
        Cancel the task if it has not begun; the client and its server are asked.

        Returns:
            True if it will never run.
        """
        line = self._line
        if line is None or self.now != PENDING:
            return self.cancelled()
        if self._ours:
            self._take_ours(run=False)
            return self.cancelled()
        line.say(Spawn.CANCEL, self.number)
        until = time.monotonic() + ANSWER_SECONDS
        self.watchers().gates.wait(lambda: self.now != PENDING or self._ours, until)
        if self._ours:
            self._take_ours(run=False)
        return self.cancelled()

    def wait_until_done(self, timeout: float | None) -> bool:
        """Wait until it is over, and run it here if it has not begun; return whether it is."""
        if self.is_settled():
            return True
        if timeout is None:
            self.check_may_wait()
            if self.steal():
                return True
        return super().wait_until_done(timeout)

    def steal(self) -> bool:
        """
        Run the task here, in the thread of its parent, if it has not begun.

        Returns:
            Whether it is over now.
        """
        line = self._line
        if line is None or get_ident() != main_thread().ident:
            return self.is_settled()
        if self._call is not None and not self._asked and line.running < MAX_INLINE:
            self._asked = True
            line.say(Spawn.STEAL, self.number)
        if self._asked and self._call is not None:
            self.watchers().gates.wait(self._is_answered, None)
            self._take_ours(run=True)
        return self.is_settled()

    def _is_answered(self) -> bool:
        return bool(self._ours) or self._call is None

    def _take_ours(self, run: bool) -> None:
        """Do what was given back: run it, or let it be."""
        try:
            self._ours.pop()
        except IndexError:
            return
        line, call = self._line, self._call
        if line is None or call is None:
            return
        line.children.pop(self.number, None)
        self._call = None
        if not run:
            self._end_cancelled()
            return
        function, body = call
        self.now = RUNNING
        line.running += 1
        try:
            args, kwargs = load(body)
            value = function(*args, **kwargs)
            if type(value) not in ATOMS:
                value = load(*_owned(*dump_result(value)))
        except here.stops:
            raise  # the parent is told to stop, and this is a part of it
        except Exception as exc:
            name = printable(getattr(function, "__qualname__", "task"))
            where = f"ran in worker {os.getpid()}, within the task that waited for it"
            add_note(exc, f"task {name}, {where}")
            self._end(error=exc)  # of this process, and nobody else's
        except BaseException as exc:  # an exit is no end for the parent, as elsewhere
            self._end(error=decode_failure(*encode_failure(exc, 1, socket.gethostname)))
        else:
            self._end(value)
        finally:
            line.running -= 1

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Future cannot be sent elsewhere: send its result()")


def _owned(body: bytes, buffers: Any) -> tuple[bytes, list[bytearray]]:
    return body, [bytearray(each) for each in buffers]


class _Items(chain[Any]):
    """The results of a map, one after the other. Can be closed, as the stdlib's generator can."""

    close: Callable[[], None]
    kill: Callable[[], None]
    """As ``close``, and stops what runs."""


class _Nobody:
    def libraries(self) -> list[tuple[str, dict[str, str]]]:
        return []


_NOBODY = _Nobody()


class NestedExecutor(Executor):
    """
    The executor of the task that runs now, made by :func:`current_executor`.

    Its tasks, *children*, run on the farm of the task's client as any other task: on any server,
    again if one is lost, with priorities and categories. Where it says nothing else a child has
    the category and the priority of its parent. What they raise is raised by ``result()``, in the
    parent. While that waits others have its slot, so that nothing stands still at any depth.

    Children end with their parent, if that is killed, runs out of time, dies, or is lost with its
    server or client. If it returns, those that it has not waited for go on.

    Args:
        options: What is said of its tasks.
        lasts: Whether it stays as it is when it is shut down: it is the kernel's.
    """

    def __init__(self, options: dict[str, Any] | None = None, *, lasts: bool = False) -> None:
        self._said = options or {}
        self._lasts = lasts
        self._closed = False
        self._futures: weakref.WeakSet[NestedFuture[Any]] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<NestedExecutor {self._said or 'of the current task'}>"

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """
        Run ``fn(*args, **kwargs)`` on the farm of this task's client.

        Args:
            fn: Any callable: also a lambda or a closure that the task has made.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            A future. If something cannot be pickled, it holds the error.

        Raises:
            RuntimeError: After a shutdown, or if the task is over.
            TypeError: If ``fn`` is not callable.
        """
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if not callable(fn):
            raise TypeError(f"a task must be callable, not {fn!r}")
        way = line()
        task = way.begin()
        future: NestedFuture[T] = NestedFuture(way, way.next_number())
        call: Any = args, kwargs
        try:
            if type(fn) not in CODE or getattr(fn, "__closure__", None):
                fn, call = in_one_piece(fn, call)
            body, buffers, needs = dump_copied(call, "call")
            extra = () if needs is None else needed(needs)
            key = (id(fn), extra)
            known = way.told.get(key)
            if known is None or known[0] is not fn or not known[2].holds(fn):
                told = tell(fn, extra)
                known = fn, way.tell(key, fn, told), told
        except FarmError as exc:
            future.set_exception(exc)
            return future
        options = self._said
        how = said.get()
        if how is not None and current() is None:
            options = {**options, **_travelling(options_of(how))}
        if not buffers and not options and known[2].pure:
            future._call = fn, body
        if way.running:  # one within the other, of which the client does not know
            options = {**options, "inline": way.running}
        way.children[future.number] = future
        self._futures.add(future)
        way.send(submit_frame(task, future.number, known[1], options, body, buffers))
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """
        Map ``fn`` over the items of one or more iterables.

        Args:
            fn: Called with one item of each iterable.
            iterables: Consumed at once, unless ``buffersize`` is given.
            timeout: Seconds from now until which every result must have come.
            chunksize: Items that travel together; None for a few parts a worker.
            buffersize: At most so many items are under way or unread.

        Returns:
            An iterator over the results, in the order of the items.

        Raises:
            ValueError: If ``chunksize`` or ``buffersize`` is below 1.
            TimeoutError: From the iterator, if a result does not come in time.
        """
        return self._map(fn, zip(*iterables, strict=False), timeout, chunksize, buffersize)

    def starmap(
        self,
        fn: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        *,
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """As :meth:`map` over one iterable, each item of which is unpacked into arguments."""
        return self._map(fn, iterable, timeout, chunksize, buffersize)

    map_unordered = map

    def _map(
        self,
        fn: Callable[..., T],
        rows: Iterable[Iterable[Any]],
        timeout: float | None,
        chunksize: int | None,
        buffersize: int | None,
    ) -> Iterator[T]:
        if chunksize is not None and chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        until = None if timeout is None else time.monotonic() + timeout
        if buffersize is not None:
            size = min(chunksize or 1, buffersize)
            source = iter(rows)
            ahead = max(1, buffersize // size)
        else:
            items = list(rows)
            size = chunksize or max(1, -(-len(items) // (PARTS * self.count_workers())))
            source = iter(items)
            ahead = -(-len(items) // size)
        futures = [self._chunk(fn, part) for part in _parts(source, size, ahead)]
        batches = self._results(fn, source, size, futures, until)
        results: _Items = _Items.from_iterable(batches)  # type: ignore[assignment]
        results.close = batches.close
        results.kill = lambda: self._kill_all(futures)
        return results

    def _kill_all(self, futures: list[Future[Any]]) -> None:
        for future in futures:
            self.kill(future)

    def _chunk(self, fn: Callable[..., T], part: list[Any]) -> Future[_Part[T]]:
        return self.submit(_run_chunk, fn, part)

    def _results(
        self,
        fn: Callable[..., T],
        source: Iterator[Any],
        size: int,
        futures: list[Future[_Part[T]]],
        until: float | None,
    ) -> Generator[Iterator[T], None, None]:
        futures.reverse()
        try:
            while futures:
                future = futures.pop()
                left = None if until is None else until - time.monotonic()
                values, error = future.result(left)
                del future
                fresh = [self._chunk(fn, part) for part in _parts(source, size, 1)]
                futures[:0] = fresh
                yield iter(values)
                if error is not None:
                    raise error
        finally:
            self.cancel_all(futures)

    # ------------------------------------------------------------- options and killing

    def options(self, **changes: Any) -> NestedExecutor:
        """
        Return an executor whose tasks have these options and otherwise those of this one.

        Args:
            changes: As for :meth:`FarmExecutor.options`. A category must be a text or a number.

        Raises:
            ValueError: If one has a value that it cannot have.
            TypeError: If there is no such option, or it cannot be told to the client.
            UnsupportedError: If it is one that tasks of tasks do not have: retry, errors,
                kill_on_cancel.
        """
        Options().but(**changes)
        for name in changes:
            if name not in OPTIONS:
                raise UnsupportedError("the executor of a task", f"give its tasks {name}=")
        return NestedExecutor({**self._said, **_travelling(dict(changes))})

    def cancel_all(self, futures: Iterable[Future[Any]]) -> None:
        """Cancel those of many tasks that have not begun, and do not wait for that."""
        for future in futures:
            if isinstance(future, NestedFuture) and not future.is_settled():
                way = future._line
                if way is not None and future.number in way.children:
                    future._asked, future._call = False, None
                    way.say(Spawn.CANCEL, future.number)

    def kill(self, future: Future[Any], grace: float | None = None) -> bool:
        """
        Stop a task, also while it runs.

        Args:
            future: One that an executor of this task returned.
            grace: Seconds that it has to end by itself; see :meth:`FarmExecutor.kill`.

        Returns:
            True if the client was told.
        """
        if grace is not None:
            check_grace(grace)
        if not isinstance(future, NestedFuture):
            raise ValueError(f"{future!r} is not a future of this executor")
        way = future._line
        if way is None or future.is_settled() or future.number not in way.children:
            return False
        future._call = None
        body = b"" if grace is None else encode_fields({"grace": grace})
        way.say(Spawn.KILL, future.number, body)
        return True

    def kill_tasks(self, category: Any, dry_run: bool = False, grace: float | None = None) -> int:
        """Categories are the client's to kill."""
        raise UnsupportedError("the executor of a task", "kill all tasks of a category")

    def task_categories_running(self) -> list[Any]:
        """What runs is the client's to know."""
        raise UnsupportedError("the executor of a task", "tell what runs")

    def broadcast(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> list[T]:
        """Its own worker is busy, so a task cannot have all workers do something."""
        raise UnsupportedError("the executor of a task", "broadcast")

    def count_workers(self) -> int:
        """Return how many tasks the farm runs at a time."""
        return line().count()

    @property
    def _max_workers(self) -> int:
        return self.count_workers()

    def as_kernel(self) -> AsKernel[Executor]:
        """Return a block in which this is the current kernel of ``remote_executor.parallel``."""
        return AsKernel(self)

    def take_done(
        self, done: SimpleQueue[Future[Any]], futures: Iterable[Future[Any]], until: float | None
    ) -> Future[Any] | None:
        """
        Wait for the next of some futures that is done, and run some that have not begun.

        Args:
            done: Takes those that are done.
            futures: All that are not, in the order in which they were submitted.
            until: Monotonic seconds at which to give up; None for never.
        """
        if until is None:
            for future in list(futures):
                if not done.empty():
                    break
                if isinstance(future, NestedFuture) and future.steal():
                    break
        return take(done, until)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """
        Take no more tasks. The farm, and the task's other executors, go on.

        Args:
            wait: Whether to wait for what was submitted here.
            cancel_futures: Whether to cancel what has not begun.
        """
        self._closed = not self._lasts
        futures = list(self._futures)
        if cancel_futures:
            self.cancel_all(futures)
        if wait:
            for future in futures:
                future.wait_until_done(None)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an executor cannot be sent elsewhere; there current_executor() is the task's own"
        )


def _travelling(options: dict[str, Any]) -> dict[str, Any]:
    """Return options as they can be told to the client."""
    category = options.get("category")
    if type(category) not in (type(None), str, int, float, bool):
        raise TypeError(
            f"a task can give its tasks a category that is a text or a number, not {category!r}"
        )
    return options


def _parts(source: Iterator[Any], size: int, most: int) -> Iterator[list[Any]]:
    """Cut up to so many parts off a source."""
    for _ in range(most):
        part = list(islice(source, size))
        if not part:
            return
        yield part


def _run_chunk(fn: Callable[..., T], rows: list[Any]) -> tuple[list[T], BaseException | None]:
    """Call a function with each row; return what came, and what one of them has raised."""
    values: list[T] = []
    if len(rows) == 1:
        return [fn(*rows[0])], None
    try:
        for row in rows:
            values.append(fn(*row))  # noqa: PERF401 - what came before an error counts
    except Exception as exc:
        return values, exc
    return values, None


def in_farm_task() -> bool:
    """Whether this thread's process is a worker that runs a task of a farm."""
    return here.open is not None and here.task() is not None


def current_executor() -> Executor:
    """
    Return the executor that the code which runs now should use.

    ::

        import remote_executor
        from remote_executor import FarmExecutor

        def total(numbers):  # a task that makes tasks
            ex = remote_executor.current_executor()
            halves = [ex.submit(sum, numbers[:2]), ex.submit(sum, numbers[2:])]
            return sum(half.result() for half in halves)

        with FarmExecutor(2) as ex:
            ex.submit(total, [1, 2, 3, 4]).result()  # 10

    Inside a task of a farm it runs tasks on the farm of the task's client: a
    :class:`NestedExecutor`. While the task waits for them others have its slot. Elsewhere, and in a
    task that has made a kernel of its own, it is the executor of the current kernel: see
    ``remote_executor.parallel.make_kernel`` and :meth:`FarmExecutor.as_kernel`.

    Returns:
        An executor. To shut it down in a task ends that object alone.

    Raises:
        NoKernelError: If there is none.
    """
    found = current()
    if found is not None:
        return found.executor
    if in_farm_task():
        return NestedExecutor()
    raise NoKernelError("there is no current executor, and no task of a farm runs here")
