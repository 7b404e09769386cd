"""
Futures as arguments on Executors that know nothing of them: by done-callbacks, without a thread.

A farm's own ``submit`` waits for futures wherever the pickler meets them. Here they are seen among
the positional and keyword arguments, and in lists, tuples and dicts that are arguments.
"""

from __future__ import annotations

import itertools
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from remote_executor.client.arguments import passed_on
from remote_executor.client.futures import FarmFuture, SafeFuture

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Later", "futures_in"]


def _is_awaited(value: object) -> bool:
    # Not promises and delays, which are futures too: somebody else has to fulfil or force them.
    return type(value) is Future or isinstance(value, (FarmFuture, Later))


def futures_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Future[Any]]:
    """Return the futures among the arguments of a call, each once."""
    found: dict[int, Future[Any]] = {}
    for value in (*args, *kwargs.values()):
        kind = type(value)
        inside = value if kind in (list, tuple) else value.values() if kind is dict else (value,)
        found.update((id(each), each) for each in inside if _is_awaited(each))
    return list(found.values())


def _resolved(value: Any) -> Any:
    kind = type(value)
    if kind in (list, tuple):
        return kind(each.result() if _is_awaited(each) else each for each in value)
    if kind is dict:
        return {key: each.result() if _is_awaited(each) else each for key, each in value.items()}
    return value.result() if _is_awaited(value) else value


class Later(SafeFuture[Any]):
    """
    The future of a task that is submitted once those among its arguments are done.

    Args:
        submit: Submits it: is given the function, the arguments and the keyword arguments.
        call: The function, the arguments and the keyword arguments.
        futures: What it waits for.
    """

    def __init__(
        self,
        submit: Callable[[Any, tuple[Any, ...], dict[str, Any]], Future[Any]],
        call: tuple[Any, tuple[Any, ...], dict[str, Any]],
        futures: list[Future[Any]],
    ) -> None:
        super().__init__()
        self._submit = submit
        self._call = call
        self._count = len(futures)
        self._done = itertools.count(1)
        self._inner: Future[Any] | None = None
        for each in futures:
            each.add_done_callback(self._on_done)

    def cancel(self) -> bool:
        """Cancel it, unless it was submitted and runs."""
        inner = self._inner
        if inner is not None:
            inner.cancel()
            return self.cancelled()
        return super().cancel()

    def running(self) -> bool:
        """Return whether the task runs now."""
        inner = self._inner
        return inner is not None and inner.running()

    def _on_done(self, future: Future[Any]) -> None:
        is_last = next(self._done) == self._count
        if self.done():
            return
        if future.cancelled():
            super().cancel()
        elif (error := future.exception()) is not None:
            name = getattr(self._call[0], "__qualname__", None)
            self._take(partial(self.set_exception, passed_on(error, name, "another task")))
        elif is_last:
            self._begin()

    def _begin(self) -> None:
        fn, args, kwargs = self._call
        try:
            args = tuple(map(_resolved, args))
            kwargs = {name: _resolved(value) for name, value in kwargs.items()}
            inner = self._inner = self._submit(fn, args, kwargs)
        except Exception as exc:
            self._take(partial(self.set_exception, exc))
            return
        inner.add_done_callback(self._finish_as)

    def _finish_as(self, inner: Future[Any]) -> None:
        if inner.cancelled():
            super().cancel()
        elif (error := inner.exception()) is not None:
            self._take(partial(self.set_exception, error))
        else:
            self._take(partial(self.set_result, inner.result()))

    def _take(self, settle: Callable[[], None]) -> None:
        if not self.done():
            settle()
