"""
The kernel: the executor that channels, promises and cognates use when none is named.

lparallel's ``*kernel*``, on any ``concurrent.futures.Executor``. What a kernel needs beyond
``submit`` (categories, priorities, killing, broadcast) comes by the small protocol :class:`Farm`,
which ``FarmExecutor`` and its views satisfy.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, final, runtime_checkable

from remote_executor.client.current import (
    AsKernel,
    Current,
    choose,
    current,
    forget,
    options_of,
    said,
    take_back,
)
from remote_executor.client.executor import FarmExecutor
from remote_executor.net.in_task import here
from remote_executor.options import Options
from remote_executor.parallel.calls import Call
from remote_executor.parallel.engines import runs_here, worker_count
from remote_executor.parallel.parts import count_of
from remote_executor.parallel.serial import SerialExecutor
from remote_executor.parallel.waiting import Later, futures_in
from remote_executor.server.worker import worker_index
from remote_executor.task_errors import NoKernelError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from remote_executor.net.addresses import AddressLike

__all__ = [
    "Farm",
    "Kernel",
    "broadcast_task",
    "check_kernel",
    "end_kernel",
    "kernel_name",
    "kernel_of",
    "kernel_worker_count",
    "kill_tasks",
    "make_kernel",
    "task_categories_running",
    "task_category",
    "task_priority",
]

P = ParamSpec("P")
T = TypeVar("T")

MOST_VIEWS = 64
"""Views kept for the pairs of priority and category that were used last."""

_USUAL: tuple[int | str | None, Any] = (None, None)


@runtime_checkable
class Farm(Protocol):
    """What an executor must have beside ``submit`` for tasks to be told apart and stopped."""

    def options(self, **options: Any) -> Executor:
        """Return an executor that gives its tasks these options: priority, category."""

    def cancel_all(self, futures: Iterable[Future[Any]]) -> None:
        """Cancel those that have not begun; do not wait for that."""

    def kill(self, future: Future[Any]) -> bool:
        """Stop one task, also while it runs."""

    def kill_tasks(self, category: Any, dry_run: bool = False, **options: Any) -> int:
        """Stop all running tasks of a category; return how many there are."""

    def task_categories_running(self) -> list[Any]:
        """Return the categories of the tasks that run now, None for each idle worker."""

    def broadcast(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> list[T]:
        """Run a function once in each worker and return the results."""


@final
class Kernel:
    """
    An executor as channels, promises and cognates see it.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2, name="farm") as kernel:
            kernel.name, kernel.worker_count  # ('farm', 2)

    Made by :func:`make_kernel`. ``with`` makes it current for the block and its context (thread,
    asyncio task), and ends it with the block; the kernel around is current again afterwards.

    Args:
        executor: Any executor.
        name: For people.
        owned: Whether the executor was made for this kernel, and ends with it.
    """

    def __init__(self, executor: Executor, name: str = "default", *, owned: bool = False) -> None:
        self.executor = executor
        self.name = name
        self.ended = False
        """Whether it takes no more tasks."""
        self.finishing = False
        """Whether it takes no more tasks, but waits for those that it has: they can be killed."""
        self.farm: Farm | None = executor if isinstance(executor, Farm) else None
        """The executor again, if it can kill and broadcast."""
        self._owned = owned
        self.direct = executor.submit if self.farm or _is_serial(executor) else None
        """What takes a task as it is; None if it must be wrapped, and once the kernel was ended."""
        self._views: dict[tuple[int | str | None, Any], Executor] = {}
        self._block = AsKernel(executor, self)

    def __repr__(self) -> str:
        state = "finishing " if self.finishing else "ended " if self.ended else ""
        workers = worker_count(self.executor, wait=False)
        return f"<Kernel {self.name!r} {state}workers={workers} on {self.executor!r}>"

    def __enter__(self) -> Kernel:
        take_back(self)
        self._block.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.end(wait=True)
        finally:
            self._block.__exit__(exc_type, exc, traceback)

    @property
    def worker_count(self) -> int:
        """How many tasks run at a time, as far as the executor tells."""
        return worker_count(self.executor)

    def wait(self, n: int | None = None, timeout: float | None = None) -> int:
        """
        Wait until there are workers: a farm's servers may still be on their way.

        ::

            import remote_executor.parallel as p

            with p.make_kernel(2) as kernel:
                kernel.wait(2, timeout=60)  # 2

        Args:
            n: How many workers; None for what the executor itself takes for all of them.
            timeout: Seconds; None for as long as it takes.

        Returns:
            How many workers there are then.

        Raises:
            TimeoutError: They are not there in time.
            BrokenExecutor: They never will be.
            ValueError: An executor whose workers do not come later has fewer than ``n``.
            RuntimeError: If the kernel was ended.
        """
        wanted = () if n is None else (count_of(n, "n", 1),)
        if self.ended:
            raise NoKernelError(f"kernel {self.name!r} was ended")
        wait = getattr(self.executor, "wait_for_workers", None)
        if wait is not None:
            wait(*wanted, timeout=timeout)
        elif self.worker_count < (n or 1):
            raise ValueError(f"n={n}, and {self.executor!r} has {self.worker_count} workers")
        return self.worker_count

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """
        Run ``fn(*args, **kwargs)`` on the executor, with the block's priority and category.

        ::

            import remote_executor.parallel as p

            with p.make_kernel(2) as kernel:
                kernel.submit(pow, 2, 5).result()  # 32

        Args:
            fn: Any callable that the executor takes.
            args: Its positional arguments.
            kwargs: Its keyword arguments; all of them are the task's.

        Returns:
            The executor's future.

        Raises:
            RuntimeError: If the kernel or its executor was ended.
            TypeError: If ``fn`` is not callable.
        """
        return self.submitter()(fn, *args, **kwargs)

    def submitter(self) -> Callable[..., Future[Any]]:
        """Return what submits with the block's priority and category: often the executor's own."""
        if self.direct is None:
            return self._submit_call
        return self.direct if said.get() is None else self.view().submit

    def _submit_call(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        if self.ended:
            raise NoKernelError(f"kernel {self.name!r} was ended")
        if not callable(fn):
            raise TypeError(f"a task must be callable, not {fn!r}")
        waits = futures_in(args, kwargs) if args or kwargs else None
        if waits:
            later: Any = Later(self._submit_made, (fn, args, kwargs), waits)
            return cast("Future[T]", later)
        return self.executor.submit(Call(fn, args, kwargs))

    def _submit_made(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        return self.executor.submit(Call(fn, args, kwargs))

    def view(self) -> Executor:
        """Return the executor with the block's priority and category, where it knows of such."""
        how = said.get()
        if how is None or self.farm is None:
            return self.executor
        view = self._views.pop(how, None)
        if view is None:
            if len(self._views) >= MOST_VIEWS:
                self._views.pop(next(iter(self._views)), None)
            view = self.farm.options(**options_of(how))
        self._views[how] = view
        return view

    def end(self, wait: bool = False) -> None:
        """
        Take no more tasks; what was submitted is finished. A second time it does nothing.

        ::

            import remote_executor.parallel as p

            kernel = p.make_kernel(2)
            kernel.end(wait=True)
            kernel.ended  # True

        An executor that :func:`make_kernel` made is shut down; one that was given to it is not.

        Args:
            wait: Whether to return only when all is finished. Meanwhile other threads can still
                ask what runs, and kill it.
        """
        self.finishing = wait and self._owned
        self.ended = True
        self.direct = None
        self._views.clear()
        try:
            if self._owned:
                self.executor.shutdown(wait)
        finally:
            self.finishing = False
            forget(self)


def _is_serial(executor: Executor) -> bool:
    return isinstance(executor, SerialExecutor)


SERIAL = Kernel(SerialExecutor(), "serial")
"""The kernel inside a task, where its executor cannot run tasks of tasks or is not to."""

_inside: list[Kernel] = []


def _nested() -> Kernel:
    """Return the kernel inside a task of a farm: its tasks run on the farm of the task's client."""
    if not _inside:
        from remote_executor.client.nested_executor import NestedExecutor

        _inside.append(Kernel(NestedExecutor(lasts=True), "nested"))
    return _inside[0]


# ------------------------------------------------------------------ the current kernel


def make_kernel(
    what: int | Executor | AddressLike | Iterable[AddressLike] | None = None,
    *,
    name: str = "default",
    **options: Any,
) -> Kernel:
    """
    Make a kernel and make it the current one. Comes from lparallel's and lfarm's make-kernel.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.pmap(abs, [-1, -2])  # [1, 2]

    In a ``with`` statement it is current for that block alone, in this thread or asyncio task, and
    ends with it; blocks nest. A bare call makes it current for the process and all its threads, or
    for the rest of the block that it stands in, until :func:`end_kernel`.

    Args:
        what: How many workers to have on this machine, addresses of servers, or an executor;
            None for a worker for each core.
        name: For people.
        options: More arguments for ``FarmExecutor``, such as ``initializer``, or
            ``nested="parallel"`` to have cognates inside of tasks spread over the farm, too.

    Returns:
        The kernel.

    Raises:
        TypeError: If ``what`` is neither a number, nor addresses, nor an executor, or options are
            given for an executor that exists.
        ValueError: If the number or an address cannot be meant.
    """
    _check_what(what)
    if isinstance(what, Executor):
        if options:
            raise TypeError(f"an executor that exists takes no options: {', '.join(options)}")
        kernel = Kernel(what, name)
    elif what is None or isinstance(what, int):
        kernel = Kernel(FarmExecutor(what, **options), name, owned=True)
    else:
        kernel = Kernel(FarmExecutor(addresses=what, **options), name, owned=True)
    choose(Current(kernel.executor, kernel))
    return kernel


def _check_what(what: Any) -> None:
    """Refuse what looks like a number of workers, an address or an executor, and is none."""
    if isinstance(what, (bool, float)):
        raise TypeError(f"what must be a number of workers (an int), not {what!r}")
    if isinstance(what, int) and what < 1:
        raise ValueError(f"what must be at least 1 worker, not {what}")
    if isinstance(what, str) and what.strip().lstrip("+-").isdecimal():
        raise ValueError(
            f"what={what!r} is no address: a number of workers is an int, "
            f"make_kernel({int(what)}), and a host is named with its port"
        )
    if isinstance(what, type):
        raise TypeError(f"what must be an executor, not the class {what.__qualname__}: call it")
    if isinstance(what, Kernel):
        raise TypeError(f"what must be an executor, not {what!r}: a kernel is made already")


def end_kernel(wait: bool = False) -> None:
    """
    End the current kernel. Where there is none, do nothing.

    ::

        import remote_executor.parallel as p

        p.make_kernel(2)
        p.pmap(abs, [-1, -2])  # [1, 2]
        p.end_kernel()

    Args:
        wait: Whether to return only when all that was submitted is finished.
    """
    found = current()
    if found is not None and not (found.kernel is not None and found.kernel.ended):
        _kernel_in(found).end(wait)


def check_kernel() -> Kernel:
    """
    Return the current kernel.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2) as kernel:
            p.check_kernel() is kernel  # True

    Inside a task it is a serial one, unless the task made its own: what is submitted runs at once
    in that worker. So nested use is safe, and waits for nobody. On a farm with
    ``nested="parallel"`` what a task submits runs on the farm, and others have the task's slot
    while it waits.

    Raises:
        NoKernelError: If there is none.
    """
    kernel = _current_kernel()
    if kernel.ended:
        raise NoKernelError(f"kernel {kernel.name!r} was ended")
    return kernel if kernel.farm is not None else _unless_inside(kernel)


def _current_kernel() -> Kernel:
    found = current()
    if found is None:
        if worker_index() is not None:
            return _nested() if here.parallel and here.task() is not None else SERIAL
        raise NoKernelError("there is no current kernel")
    kernel: Kernel = found.kernel or _kernel_in(found)
    return kernel


def _kernel_to_ask() -> Kernel:
    """Return the current kernel, also while it only finishes what it has."""
    kernel = _current_kernel()
    return kernel if kernel.finishing else check_kernel()


def kernel_of(executor: Executor | Kernel | None) -> Kernel:
    """
    Return the kernel for an ``executor=`` argument; the current one for None.

    Raises:
        NoKernelError: If there is none.
        TypeError: If it is something else.
    """
    if executor is None:
        return check_kernel()
    if isinstance(executor, Kernel):
        return _unless_inside(executor)
    if not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor must be an Executor, not {executor!r}")
    return _unless_inside(Kernel(executor))


def _kernel_in(found: Current) -> Kernel:
    if found.kernel is None:
        found.kernel = SERIAL if _is_serial(found.executor) else Kernel(found.executor)
    kernel: Kernel = found.kernel
    return kernel


def _unless_inside(kernel: Kernel) -> Kernel:
    """Return the serial kernel to a task that runs in a thread of this very executor."""
    return SERIAL if runs_here(kernel.executor) else kernel


def kernel_name() -> str:
    """
    Return the current kernel's name.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2, name="farm"):
            p.kernel_name()  # 'farm'

    Raises:
        NoKernelError: If there is none.
    """
    return _kernel_to_ask().name


def kernel_worker_count() -> int:
    """
    Return how many tasks the current kernel runs at a time.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.kernel_worker_count()  # 2

    Raises:
        NoKernelError: If there is none.
    """
    return _kernel_to_ask().worker_count


# ------------------------------------------------------------- what is said of tasks


@contextlib.contextmanager
def task_category(category: Any) -> Iterator[None]:
    """
    Give the tasks that are submitted in a block a category, for :func:`kill_tasks`.

    ::

        import time
        import remote_executor.parallel as p

        with p.make_kernel(2):
            with p.task_category("naps"):
                nap = p.future(time.sleep, 0.01)
            p.force(nap)

    They are those of channels, promises and cognates, and of the current executor's own ``submit``,
    ``map`` and ``broadcast``. Comes from lparallel's ``*task-category*``. An executor that cannot
    kill pays no heed to it.

    Args:
        category: Any hashable value but None.

    Raises:
        ValueError: If it is None.
        TypeError: If it is not hashable.
    """
    priority, _ = said.get() or _USUAL
    token = said.set((priority, Options(category=category).category))
    try:
        yield
    finally:
        said.reset(token)


@contextlib.contextmanager
def task_priority(priority: int | str) -> Iterator[None]:
    """
    Give the tasks that are submitted in a block a priority.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            with p.task_priority("high"):
                urgent = p.future(pow, 2, 5)
            p.force(urgent)  # 32

    Comes from lparallel's ``*task-priority*``. An executor without priorities pays no heed to it.

    Args:
        priority: "high", "normal", "low", or any int; higher goes first.

    Raises:
        ValueError: If it is another word.
        TypeError: If it is neither a word nor an int.
    """
    _, category = said.get() or _USUAL
    token = said.set((Options(priority=priority).priority, category))
    try:
        yield
    finally:
        said.reset(token)


def _farm(wanted: str, kernel: Kernel) -> Farm:
    if kernel.farm is None:
        raise UnsupportedError(type(kernel.executor).__name__, wanted)
    return kernel.farm


def kill_tasks(category: Any, dry_run: bool = False, grace: float | None = None) -> int:
    """
    Stop all running tasks of a category, by ending their workers. Waiting ones are not touched.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.kill_tasks("naps", dry_run=True)  # 0

    Args:
        category: As given to :func:`task_category`; "default" for tasks without one.
        dry_run: Only count.
        grace: Seconds that tasks of a farm have to end by themselves, so that their ``finally``
            runs; 0 for none, None for what their options say.

    Returns:
        How many tasks were stopped.

    Raises:
        ValueError: If the category is None.
        NoKernelError: If there is no kernel.
        UnsupportedError: If the kernel's executor cannot kill.
    """
    farm = _farm("kill tasks", _kernel_to_ask())
    options = {} if grace is None else {"grace": grace}
    return farm.kill_tasks(category, dry_run, **options)


def task_categories_running() -> list[Any]:
    """
    Return the categories of the tasks that run now, with None for each idle worker.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2) as kernel:
            kernel.wait(2)
            p.task_categories_running()  # [None, None]

    Raises:
        NoKernelError: If there is no kernel.
        UnsupportedError: If the kernel's executor does not know.
    """
    return _farm("tell what runs", _kernel_to_ask()).task_categories_running()


def broadcast_task(
    fn: Callable[..., T],
    /,
    *args: Any,
    missing: str = "error",
    keep: bool = False,
    **kwargs: Any,
) -> list[T]:
    """
    Run ``fn(*args, **kwargs)`` exactly once in each worker, and wait for all.

    ::

        import os
        import remote_executor.parallel as p

        with p.make_kernel(2):
            len(set(p.broadcast_task(os.getpid)))  # 2

    Args:
        fn: Any callable. For arguments named ``missing`` or ``keep`` use ``functools.partial``.
        args: Its positional arguments.
        missing: "error" or "skip": what to do if a server of a farm does not serve; see
            ``FarmExecutor.broadcast``.
        keep: Whether workers that come later do it, too, before their first task.
        kwargs: Its keyword arguments.

    Returns:
        The results, one a worker.

    Raises:
        ServersMissing: If a server does not serve and is not to be skipped.
        Exception: The first error, in order of the workers, after all have finished.
        TypeError: If ``fn`` is not callable.
        NoKernelError: If there is no kernel.
        UnsupportedError: If the kernel's executor cannot, or in a task.
    """
    kernel = check_kernel()
    farm = _farm("broadcast", kernel)
    view = kernel.view()
    options = {} if missing == "error" else {"missing": missing}
    if keep:
        options["keep"] = True  # type: ignore[assignment]
    return (view if isinstance(view, Farm) else farm).broadcast(fn, *args, **options, **kwargs)
