"""
Which executor is the current one: that of a block, or else the process's own.

``FarmExecutor.as_kernel`` and ``remote_executor.parallel`` use it. A block's choice is a context
variable, so that threads and asyncio tasks do not disturb each other; threads that made no choice
see the process's. Neither is inherited by a forked child, which could not use it.
"""

from __future__ import annotations

import contextlib
import os
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future
    from contextvars import Token
    from types import TracebackType

__all__ = [
    "AsKernel",
    "Current",
    "choose",
    "current",
    "direct_submit",
    "forget",
    "options_of",
    "said",
    "said_options",
    "take_back",
]

E = TypeVar("E", bound="Executor")


class Current:
    """An executor that was chosen, by which process, and the kernel that was made around it."""

    __slots__ = ("executor", "kernel", "pid")

    def __init__(self, executor: Executor, kernel: Any = None) -> None:
        self.executor = executor
        self.kernel = kernel
        self.pid = _pid


_block: ContextVar[Current | None] = ContextVar("executor of the block", default=None)
said: ContextVar[tuple[int | str | None, Any] | None] = ContextVar(
    "priority, category", default=None
)
"""What the blocks around say of their tasks, None for what none does; None for nothing at all."""
_last: ContextVar[tuple[Current, Current | None] | None] = ContextVar("last choice", default=None)
"""The last choice in this context and the one before, until it is used: see :func:`take_back`."""
_process: Current | None = None
_pid = os.getpid()


def _after_fork() -> None:
    global _pid, _process
    _pid, _process = os.getpid(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def current() -> Current | None:
    """Return the choice of the block, or else the process's; None if there is neither."""
    if _last.get() is not None:
        _last.set(None)  # it is used, so the one before is kept alive no longer
    block = _block.get()
    return block if block is not None and block.pid == _pid else _process


def direct_submit() -> Callable[..., Future[Any]] | None:
    """
    Return what takes a task for the current kernel just as it is, if nothing is special about it.

    A future should cost no more than a submit, so this is the short way; None for the long one.
    """
    block = _block.get()
    found = block if block is not None and block.pid == _pid else _process
    if found is None or found.kernel is None or said.get() is not None:
        return None
    submit: Callable[..., Future[Any]] | None = found.kernel.direct
    return submit


def choose(choice: Current) -> None:
    """Make a choice: for the rest of the block if there is one, and for the process otherwise."""
    global _process
    block = _block.get()
    if block is None or block.pid != choice.pid:
        _last.set((choice, _process))
        _process = choice
    else:
        _last.set((choice, block))
        _block.set(choice)


def said_options(executor: Executor) -> dict[str, Any]:
    """
    Return what the blocks around say of the tasks of an executor, as options.

    It is for the current executor alone, whether tasks go to it by ``parallel`` or directly: others
    have been given their options by whoever made them.

    Args:
        executor: Which one a task is given to.
    """
    how, found = said.get(), current()
    if how is None or found is None or found.executor is not executor:
        return {}
    return options_of(how)


def options_of(how: tuple[int | str | None, Any]) -> dict[str, Any]:
    """Return as options what blocks have said."""
    priority, category = how
    options: dict[str, Any] = {}
    if priority is not None:
        options["priority"] = priority
    if category is not None:
        options["category"] = category
    return options


def take_back(kernel: object) -> None:
    """
    Undo the last choice if it was of this kernel and nobody in this context has used it since.

    A ``with`` statement learns that it is one only after ``make_kernel`` has chosen: the kernel is
    for its block then, and who chose another before keeps that.

    Args:
        kernel: The one that a block begins with.
    """
    global _process
    last = _last.get()
    if last is None or last[0].kernel is not kernel:
        return
    _last.set(None)
    choice, before = last
    if _block.get() is choice:
        _block.set(before)
    elif _process is choice:
        _process = before


def forget(kernel: object) -> None:
    """The process's choice is over, if it is this kernel."""
    global _process
    if _process is not None and _process.kernel is kernel:
        _process = None


class AsKernel(Generic[E]):
    """
    A block in which an executor is the current one. It may be entered again inside itself.

    Args:
        executor: Which one. It is neither started nor ended here.
        kernel: The kernel around it, if there is one already.
    """

    def __init__(self, executor: E, kernel: Any = None) -> None:
        self.executor = executor
        self._kernel = kernel
        self._tokens: list[Token[Current | None]] = []

    def __enter__(self) -> E:
        self._tokens.append(_block.set(Current(self.executor, self._kernel)))
        return self.executor

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        token = self._tokens.pop()
        # An asynchronous generator may be finished in another context than it was begun in: there
        # the block's choice was never made.
        with contextlib.suppress(ValueError):
            _block.reset(token)
