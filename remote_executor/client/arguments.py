"""
Futures among the arguments of ``submit``: the task waits until they are done, without a thread.

::

    submit: the pickler meets a future      met[thread] = {key: future}
            the task is parked              it takes no slot, shows in status(), can be cancelled
            done-callback of each future    the last one: the values are pickled, the task is queued
                                            one that failed or was cancelled: so is the task

Nothing of this costs anything where there is no future: the pickler meets it, or nobody does.
"""

from __future__ import annotations

import itertools
from _thread import get_ident
from functools import partial
from typing import TYPE_CHECKING, Any

from remote_executor.client.futures import FarmFuture
from remote_executor.client.notes import add_note
from remote_executor.client.refusals import anew
from remote_executor.payload import awaited
from remote_executor.payload.code import calls
from remote_executor.payload.failures import decode_failure, encode_failure
from remote_executor.payload.pickles import dump
from remote_executor.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from remote_executor.client.driver import Driver
    from remote_executor.core.tasks import Task

__all__ = ["Arguments", "forget_met", "in_the_call", "met", "take_met"]

met: dict[int, dict[int, FarmFuture[Any]]] = {}
"""By thread, the futures that the pickler has met, by what they are called in the pickle."""

_keys = itertools.count(1)


def _meet(future: FarmFuture[Any]) -> tuple[Any, ...]:
    key = next(_keys)
    met.setdefault(get_ident(), {})[key] = future
    return awaited.value_of, (key,)


calls.kinds[FarmFuture] = _meet


def take_met() -> dict[int, FarmFuture[Any]]:
    """Return the futures that the pickler has met in this thread since the last time."""
    return met.pop(get_ident(), {})


def forget_met() -> None:
    """A pickling has failed: what it has met does not matter."""
    met.pop(get_ident(), None)


def in_the_call(fn: Any, call: Any) -> tuple[Any, Any]:
    """
    Have a partial with futures in it travel as arguments, where futures are waited for.

    Args:
        fn: What is called.
        call: Its positional and its keyword arguments.
    """
    if type(fn) is partial and any(
        isinstance(each, FarmFuture) for each in (*fn.args, *fn.keywords.values())
    ):
        args, kwargs = call
        return fn.func, ((*fn.args, *args), {**fn.keywords, **kwargs})
    return fn, call


class Arguments:
    """
    The futures that a task waits for.

    Args:
        driver: Runs the task.
        task: The task, pickled but for their values.
        futures: By what they are called in the pickle.
    """

    def __init__(self, driver: Driver, task: Task, futures: dict[int, FarmFuture[Any]]) -> None:
        self._driver = driver
        self._task = task
        self._futures = futures
        self._names = {key: _name_of(future) for key, future in futures.items()}
        self._done = itertools.count(1)
        self._open = [None]
        """Has one entry until the task goes on, or never will."""

    def are_there(self) -> bool:
        """Whether all have results already."""
        return all(
            future.done() and not future.cancelled() and future.exception() is None
            for future in self._futures.values()
        )

    def wait(self) -> None:
        """Park the task until all are done."""
        self._driver.park(self._task, None)
        for key, future in self._futures.items():
            future.add_done_callback(partial(self._on_done, key))

    def _on_done(self, key: int, future: Future[Any]) -> None:
        """One of them is done. A done-callback: any thread, no lock held."""
        is_last = next(self._done) == len(self._futures)
        if future.cancelled():
            self._end(partial(self._driver.cancel_parked, self._task))
            return
        error = future.exception()
        if error is not None:
            made = passed_on(error, self._task.name, self._names[key])
            self._end(partial(self._driver.fail_parked, self._task, made))
        elif is_last:
            self._end(self._go_on)

    def _end(self, call: Callable[[], None]) -> None:
        try:
            self._open.pop()
        except IndexError:
            return
        if not self._task.sink.is_settled():  # it was cancelled
            call()
        self._futures = {}

    def _go_on(self) -> None:
        try:
            self.fill()
        except Exception as exc:
            self._driver.fail_parked(self._task, exc)
        else:
            self._driver.unpark(self._task)

    def fill(self) -> None:
        """
        Complete the task's pickle, now that all are done.

        Raises:
            PayloadError: If one of the values cannot be pickled again.
        """
        task = self._task
        values = [
            (key, *dump(future.result(), f"the result of {self._names[key]}"))
            for key, future in self._futures.items()
        ]
        body: Any = task.body
        buffers: Any = task.buffers
        task.body, task.buffers = awaited.filled(body, buffers, values)
        task.size = len(task.body) + sum(map(len, task.buffers))
        self._driver.find_shared(task)


def _name_of(future: FarmFuture[Any]) -> str:
    task = future._task
    name = future.name if task is None else task.name
    return f"task {printable(name)}" if name else "another task"


def passed_on(error: BaseException, name: str | None, source: str) -> BaseException:
    """
    Return the error of a task that did not run, since one whose result it takes has failed.

    Args:
        error: The other task's error, which stays as it is.
        name: The task that did not run.
        source: The other one, in words.
    """
    made = anew(error)
    if made is error:  # its class takes other arguments: by the way that it came
        made = decode_failure(*encode_failure(error))
    words = f"task {printable(name or 'task')} did not run: it takes the result of {source}"
    return add_note(made, f"{words}, which failed")
