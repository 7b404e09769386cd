"""Channels: tasks go in, results come out in the order in which they are done."""

from __future__ import annotations

import inspect
import logging
import time
from _thread import get_ident
from collections import deque
from concurrent.futures import TimeoutError
from functools import partial
from itertools import filterfalse, starmap
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar, final, overload

from remote_executor.client.futures import SafeFuture
from remote_executor.client.waits import check_may_wait
from remote_executor.net.interruptible import Gates, Turns, at_once, slices
from remote_executor.parallel.kernel import SERIAL, kernel_of
from remote_executor.parallel.parts import count_of, deadline_of, signature_of
from remote_executor.parallel.readers import Readers
from remote_executor.parallel.timers import Timer, after
from remote_executor.parallel.work import cancel_all, stop_all
from remote_executor.task_errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor, Future
    from types import TracebackType

    from remote_executor.parallel.kernel import Kernel

__all__ = ["Channel"]

P = ParamSpec("P")
T = TypeVar("T")

LOOK_SECONDS = 0.05
"""How often an iteration looks whether another thread has received the last result, and who waits
for room whether there is some."""

WARN_SECONDS = 10.0
"""After how long a wait for room is worth a line in the log."""

log = logging.getLogger("remote_executor.parallel")


@final
class Channel:
    """
    A queue of results: lparallel's and lfarm's channel.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            channel = p.Channel()
            for number in (1, 2, 3):
                channel.submit(abs, -number)
            results = [channel.receive() for _ in range(3)]
            sorted(results)  # [1, 2, 3]

    Each task delivers once, whatever becomes of it: a value, an error, a cancellation, a kill. Any
    number of threads may submit and receive. ``len(channel)`` is how many results are still to be
    received; iteration gives just these.

    In a ``with`` statement, what nobody has received when the block is left is cancelled, and
    stopped where the executor can do that. The channel takes no more tasks then.

    Args:
        executor: An Executor or a Kernel; None for the current kernel as of now.
        maxsize: How many results there may be that nobody has received, those that tasks are at
            work on included; 0 for any number. Whoever submits more waits until somebody receives,
            which must be another thread; where there is none, :meth:`submit` raises.

    Raises:
        NoKernelError: If there is no kernel.
        TypeError, ValueError: If ``maxsize`` is not an int from 0, or ``executor`` is none.
    """

    def __init__(self, executor: Executor | Kernel | None = None, maxsize: int = 0) -> None:
        self._maxsize = count_of(maxsize, "maxsize")
        if isinstance(executor, int):
            raise TypeError(
                f"executor must be an Executor, not {executor!r}: "
                "the number of results is said by name, Channel(maxsize=...)"
            )
        self._kernel = kernel_of(executor)
        self._done: SimpleQueue[Future[Any]] = SimpleQueue()
        self._outstanding: set[Future[Any]] = set()
        self._values: set[Future[Any]] = set()
        """What has arrived without a task, and was not received."""
        # In a task there is no other thread that could receive, and nothing to hold back.
        held = self._maxsize > 0 and self._kernel is not SERIAL
        self._readers = Readers(self._kernel.executor) if held else None
        """There where there is a limit."""
        self._submitting = Turns()
        """Had, where there is a limit, by who submits or waits for room."""
        self._room = Gates()
        """Where he waits."""
        self._closed = False

    def __repr__(self) -> str:
        return f"<Channel outstanding={self.outstanding} on {self._kernel!r}>"

    @property
    def outstanding(self) -> int:
        """How many tasks were submitted and not yet received."""
        return len(self._outstanding)

    def __len__(self) -> int:
        return len(self._outstanding) + len(self._values)

    def __enter__(self) -> Channel:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed = True
        self.cancel()
        stop_all(self._kernel, self._under_way())

    def cancel(self) -> None:
        """
        Cancel the tasks that have not begun. Each is received as a CancelledError.

        ::

            import remote_executor.parallel as p

            with p.make_kernel(2):
                channel = p.Channel()
                channel.submit(abs, -1)
                channel.cancel()

        What runs goes on; to stop that, too, see :meth:`kill`.
        """
        cancel_all(self._kernel, self._under_way())

    def kill(self) -> int:
        """
        Cancel the tasks that have not begun, and stop those that run, by ending their workers.

        ::

            import time
            import remote_executor.parallel as p

            with p.make_kernel(2):
                channel = p.Channel()
                channel.submit(time.sleep, 60)
                channel.kill()
                len(channel)  # 1

        Each is received as a CancelledError or TaskKilled. What has arrived stays.

        Returns:
            How many tasks were told to stop.

        Raises:
            UnsupportedError: If the executor cannot stop tasks that run, and some do.
        """
        self.cancel()
        running = self._under_way()
        if self._kernel.farm is None and running:
            raise UnsupportedError(type(self._kernel.executor).__name__, "kill tasks")
        farm = self._kernel.farm
        return 0 if farm is None else sum(map(farm.kill, running))

    def _under_way(self) -> list[Future[Any]]:
        return [each for each in list(self._outstanding) if not each.done()]

    # ---------------------------------------------------------------------- going in

    @overload
    def submit(
        self, fn: Callable[..., T], /, *args: Any, timeout: float | None, **kwargs: Any
    ) -> Future[T]: ...
    @overload
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """
        Submit a task (lparallel's submit-task). Take its result by :meth:`receive`.

        ::

            import remote_executor.parallel as p

            with p.make_kernel(2):
                channel = p.Channel(maxsize=1)
                channel.submit(pow, 2, 10, timeout=1)
                channel.receive()  # 1024

        Args:
            fn: What to call.
            args: Its positional arguments.
            kwargs: Its keyword arguments. All of them are the task's, but for ``timeout`` if ``fn``
                takes no argument of that name: that is for how many seconds to wait for room at
                most, None for as long as it takes, whoever may receive. A function that takes any
                keyword gets it: wrap it in a ``functools.partial`` to say both.

        Returns:
            The task's future, with which it can be cancelled, or killed on a farm.

        Raises:
            RuntimeError: If the kernel was ended or the channel's block left, or a done-callback
                would have to wait for room; and if there is no room, nothing runs any more, and no
                other thread is there that has received or was made to: it would wait for ever.
            TimeoutError: There was no room in time.
            TypeError: If ``fn`` is not callable.
        """
        if self._closed:
            raise RuntimeError("the channel's block was left: it takes no more tasks")
        until, patient = None, False
        if "timeout" in kwargs and not _takes_timeout(fn):
            until, patient = deadline_of(kwargs.pop("timeout")), True
        if self._readers is None:
            return self._submit(fn, args, kwargs)

        def submit_held() -> Future[Any]:
            self._wait_for_room(until, patient)
            return self._submit(fn, args, kwargs)

        while (done := self._submitting.attempt(submit_held)) is None:
            if self._submitting.holder() == get_ident():
                # A handler or a __del__, within the very wait: it waits by itself.
                return submit_held()
            check_may_wait()
            if until is not None and time.monotonic() >= until:
                raise self._no_room()
            self._readers.waits(True)
            try:
                self._submitting.wait(until)
            finally:
                self._readers.waits(False)
        return done[0]

    def _wait_for_room(self, until: float | None, patient: bool) -> None:
        """
        Wait until there is room.

        Args:
            until: Monotonic seconds at which to give up; None for never.
            patient: Whether to wait even if nobody seems to be there who could receive.

        Raises:
            RuntimeError: If nobody is, and in a done-callback.
            TimeoutError: The time is over.
        """
        if self._has_room():
            return
        check_may_wait()
        assert self._readers is not None
        begun = full_since = time.monotonic()
        warned = False
        self._readers.waits(True)
        try:
            while not self._has_room():
                now = time.monotonic()
                if until is not None and now >= until:
                    raise self._no_room()
                if self._done.qsize() < len(self):
                    full_since = now  # something runs, and whoever waits for it may receive it
                elif not patient:
                    patience = self._readers.patience()
                    if patience is not None and now - full_since >= patience:
                        raise RuntimeError(
                            f"the channel is full: {len(self)} of {self._maxsize} results are "
                            "there, and no other thread is known that could receive one: this "
                            "submit would wait for ever. Receive first or in another thread, "
                            "give the channel a larger maxsize, or say timeout="
                        )
                if not warned and now - begun >= WARN_SECONDS:
                    warned = True
                    log.warning("a submit waits for room: nobody receives from %r", self)
                # Short, since whoever takes a result out may be interrupted before he tells.
                look = now + LOOK_SECONDS
                self._room.wait(self._has_room, look if until is None else min(look, until))
        finally:
            self._readers.waits(False)

    def _no_room(self) -> TimeoutError:
        return TimeoutError(f"the channel had no room in time: {len(self)} of {self._maxsize}")

    def _has_room(self) -> bool:
        return len(self) < self._maxsize

    def _submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        future = self._kernel.submit(fn, *args, **kwargs)
        try:
            self._outstanding.add(future)
            future.add_done_callback(self._done.put)  # C, and never waits
        except BaseException:
            self._outstanding.discard(future)  # else an iteration would wait for it for ever
            raise
        return future

    def submit_timeout(self, seconds: float, value: Any = None) -> Timer:
        """
        Have a value arrive after some time, without the use of any worker.

        ::

            import remote_executor.parallel as p

            with p.make_kernel(2):
                channel = p.Channel()
                channel.submit_timeout(0.01, "late")
                channel.receive()  # 'late'

        Args:
            seconds: From now.
            value: What :meth:`receive` returns then.

        Returns:
            A handle for :meth:`cancel_timeout`.
        """
        return after(seconds, self._arrive, value)

    def cancel_timeout(self, timer: Timer, value: Any = None) -> bool:
        """
        Have another value arrive at once in place of a timer's.

        ::

            import remote_executor.parallel as p

            with p.make_kernel(2):
                channel = p.Channel()
                timer = channel.submit_timeout(60, "late")
                channel.cancel_timeout(timer, "now")  # True
                channel.receive()  # 'now'

        Args:
            timer: What :meth:`submit_timeout` returned.
            value: What :meth:`receive` returns.

        Returns:
            True if it counts; False if the timer's value came first, or another cancellation's.
        """
        if not timer.claim():
            return False
        self._arrive(value)
        return True

    def _arrive(self, value: Any) -> None:
        future = _Value()
        future.set_result(value)
        at_once(partial(self._values.add, future), partial(self._done.put, future))

    # -------------------------------------------------------------------- coming out

    def receive(self, timeout: float | None = None) -> Any:
        """
        Return the next result, in order of completion; wait for it.

        ::

            import remote_executor.parallel as p

            with p.make_kernel(2):
                channel = p.Channel()
                channel.submit(abs, -1)
                channel.receive(timeout=60)  # 1

        If nothing was submitted it waits until some other thread submits.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Raises:
            TimeoutError: Nothing came in time. A later result is not lost.
            Exception: What the task raised. It is received by that, and not raised again.
            RuntimeError: If a done-callback would have to wait.
        """
        future = self._next(deadline_of(timeout))
        if future is None:
            raise TimeoutError("nothing came out of the channel in time")
        return future.result()

    def try_receive(self, timeout: float | None = 0) -> tuple[Any, bool]:
        """
        Return the next result if there is one within some time.

        ::

            import remote_executor.parallel as p

            with p.make_kernel(2):
                channel = p.Channel()
                channel.try_receive(0.01)  # (None, False)

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Returns:
            ``(result, True)``, or ``(None, False)`` if nothing came. A later result is not lost.

        Raises:
            Exception: What the task raised.
            RuntimeError: If a done-callback would have to wait.
        """
        future = self._next(deadline_of(timeout))
        return (None, False) if future is None else (future.result(), True)

    def _next(self, until: float | None) -> Future[Any] | None:
        """Take out the next future that is done; None if there is none until then."""
        try:
            return self._get(0)
        except Empty:
            left = None if until is None else until - time.monotonic()
        if left is None or left > 0:
            check_may_wait()
            try:
                return self._get(left)
            except Empty:
                pass
        return None

    def receive_many(self, n: int) -> Iterator[Any]:
        """
        Yield the next ``n`` results (lparallel's do-fast-receives).

        ::

            import remote_executor.parallel as p

            with p.make_kernel(2):
                channel = p.Channel()
                for number in range(3):
                    channel.submit(abs, -number)
                sorted(channel.receive_many(3))  # [0, 1, 2]

        Args:
            n: How many.

        Raises:
            Exception: What a task raised, at its turn. Go on with a new call for the others.
        """
        for _ in range(count_of(n, "n")):
            yield self.receive()

    def __iter__(self) -> Iterator[Any]:
        """Yield results until no task is outstanding. A timer is not waited for."""
        while True:
            try:
                future = self._get(0)
            except Empty:
                if not self._outstanding:
                    return
                check_may_wait()
                try:
                    future = self._get(LOOK_SECONDS)
                except Empty:
                    continue
            yield future.result()

    def _get(self, timeout: float | None) -> Future[Any]:
        """
        Wait for the next future that is done, and take it out.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Raises:
            Empty: None came.
        """
        if self._readers is not None:
            self._readers.note()
        if timeout == 0:
            return self._take(0)
        for seconds in slices(None if timeout is None else time.monotonic() + timeout):
            try:
                return self._take(seconds)
            except Empty:
                continue
        raise Empty

    def _take(self, timeout: float) -> Future[Any]:
        """
        Take out the next future that is done.

        To wait, to take it out of one place and out of the other is one call into C: a ^C comes
        before or after it. If it comes after, what was taken is put back.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            Empty: None came.
        """
        taken: list[Future[Any]] = []
        get = starmap(self._done.get, ((timeout != 0, timeout),))
        try:
            # append() and discard() return None, so that the future goes on to the next step.
            steps = filterfalse(self._values.discard, filterfalse(taken.append, get))
            deque(map(self._outstanding.discard, steps), maxlen=0)
            if self._readers is not None:
                self._room.open()
        except BaseException:
            for future in taken:
                (self._values if type(future) is _Value else self._outstanding).add(future)
                self._done.put(future)
            raise
        return taken[0]

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Channel cannot be sent to a server: a task returns its result, and whoever "
            "submitted it receives that"
        )


class _Value(SafeFuture[Any]):
    """A value that arrives without a task."""


def _takes_timeout(fn: Callable[..., Any]) -> bool:
    """Return whether a function can be given ``timeout=``, as far as can be known."""
    signature = signature_of(fn)
    if signature is None:
        return True
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return any(
        each.kind is inspect.Parameter.VAR_KEYWORD
        or (each.name == "timeout" and each.kind in named)
        for each in signature.parameters.values()
    )
