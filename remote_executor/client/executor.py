"""
``FarmExecutor``: ``concurrent.futures`` on many machines.

A thin face: it checks what it is given, pickles it in the caller's thread, and hands it to the
driver.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import weakref
from concurrent.futures import Executor, Future, TimeoutError
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar, cast

from remote_executor.client.arguments import Arguments, forget_met, in_the_call, met, take_met
from remote_executor.client.broadcasts import broadcast
from remote_executor.client.current import AsKernel, said, said_options
from remote_executor.client.driver import AFTER_SHUTDOWN, Driver, Settings
from remote_executor.client.futures import FarmFuture
from remote_executor.client.maps import MapResults
from remote_executor.client.notes import note_unsent
from remote_executor.client.peer import BLOB_CACHE, PeerState
from remote_executor.client.presence import count_slots, wait_for_all
from remote_executor.client.refusals import anew
from remote_executor.client.reloads import reloads
from remote_executor.client.retry import Retrying
from remote_executor.client.setups import make_setup
from remote_executor.client.status import FarmStatus, ServerStatus
from remote_executor.client.ways import Embedded, Remote, Way
from remote_executor.core.roll_call import RollCall
from remote_executor.core.tasks import Feed, Task, TaskState
from remote_executor.cores import usable_cores
from remote_executor.errors import PayloadError
from remote_executor.interpreter import python_command
from remote_executor.lineage import check_depth, depth
from remote_executor.net.addresses import Address, AddressLike, parse_address, parse_addresses
from remote_executor.net.security import auth_of, tls_of
from remote_executor.options import Options, TaskOptions, check_grace
from remote_executor.payload import setups
from remote_executor.payload.code.lines import file_of_main
from remote_executor.payload.code.names import main_globals, names
from remote_executor.payload.functions import CODE, FunctionCache, in_one_piece
from remote_executor.payload.modules import Modules
from remote_executor.printable import printable
from remote_executor.task_errors import ServersMissing

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterable,
        Callable,
        Coroutine,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from remote_executor.client.async_maps import AsyncMap
    from remote_executor.client.foreign import Form
    from remote_executor.launch.hosts import CommandLike, HostLike
    from remote_executor.launch.ssh import SSHWay
    from remote_executor.net.security import AuthLike, TLSLike
    from remote_executor.retry import Retry
    from remote_executor.wire.auth import Auth
    from remote_executor.wire.frames import Buffer

__all__ = ["FarmExecutor", "FarmView"]

P = ParamSpec("P")
T = TypeVar("T")

DEFAULTS = Options()


class _Face(Executor):
    """What a farm and its views have in common: they submit tasks with some options."""

    _driver: Driver
    _cache: FunctionCache
    _options: Options
    _lane: object
    _closed: bool
    _futures: weakref.WeakSet[FarmFuture[Any]] | None = None
    """What was submitted here and is not over, where somebody wants to know."""

    def _retries(self) -> int:
        given = self._options.retries
        return self._driver.settings.retries if given is None else given

    def _options_here(self) -> Options:
        """Return the options of a task that is submitted now: blocks may say more of it."""
        return self._options.but(**said_options(self))

    def _check_open(self) -> None:
        driver = self._driver
        error = driver.forked()
        if error is not None:
            raise error
        if driver.broken is not None:
            raise anew(driver.broken)
        if self._closed or driver.ending:
            raise RuntimeError(AFTER_SHUTDOWN)
        if driver.thread is None:
            driver.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """
        Run ``fn(*args, **kwargs)`` on the farm.

        What is given is pickled now, so later changes do not show (but large buffers, such as
        numpy arrays, are read when they are sent). All keyword arguments are the task's; for
        options of ours see :meth:`FarmExecutor.options`.

        Args:
            fn: Any callable. Functions of ``__main__`` and lambdas travel by value.
                Modules of the program that servers lack are sent when they are imported.
            args: Its positional arguments. Futures of executors of this library, wherever in the
                arguments they are, are waited for, without a thread: the task gets their results.
                If one fails, the task fails with its error; if one is cancelled, so is the task.
            kwargs: Its keyword arguments.

        Returns:
            A future. If something cannot be pickled, it holds the error.

        Raises:
            RuntimeError: After a shutdown, or in a forked child.
            TypeError: If ``fn`` is not callable.
            BrokenExecutor: If no server will ever serve, or the initializer failed.
        """
        driver = self._driver
        if self._closed or driver.ending or driver.thread is None or driver.broken is not None:
            self._check_open()
        if not callable(fn):
            raise TypeError(f"a task must be callable, not {fn!r}")
        future: FarmFuture[T] = FarmFuture()
        keeper = None
        if self._options is not DEFAULTS and self._options.journal is not None:
            keeper = self._keeper(future, fn, args, kwargs)
            if future.is_settled():
                return future
        call: Any = args, kwargs
        name = getattr(fn, "__qualname__", None)
        foreign = driver.foreign
        form: Form | PayloadError | None = None
        waits: dict[int, FarmFuture[Any]] | None = None
        body: Buffer
        buffers: Sequence[Buffer]
        try:
            if type(fn) not in CODE or getattr(fn, "__closure__", None):
                fn, call = in_one_piece(*in_the_call(fn, call))
            encoded, body, buffers = self._cache.pack(fn, call)
        except Exception as exc:
            if met:
                forget_met()
            if foreign is not None and foreign.sole and isinstance(exc, PayloadError):
                form = foreign.only(fn, call)
            if not isinstance(form, tuple):
                future.set_exception(note_unsent(form or exc, self._options.name or name))
                return future
            encoded, body, buffers = form
        else:
            waits = take_met() if met else None
            if foreign is not None and not waits:
                form = foreign.form(self._cache, fn, encoded, "call", call, body, buffers)
                if isinstance(form, PayloadError) and foreign.sole:
                    future.set_exception(note_unsent(form, self._options.name or name))
                    return future
        options = self._options if said.get() is None else self._options_here()
        task = Task(driver.scheduler.next_id(), future, encoded, body, buffers)
        task.abroad = form
        task.fn = fn
        task.generation = names.generation
        task.retries = self._retries()
        task.size = len(body)
        if buffers:
            task.size += sum(map(len, buffers))
        task.name = name
        if options is not DEFAULTS:
            task.priority = options.level
            task.timeout = options.timeout
            task.grace = options.grace
            task.name = options.name or task.name
            if options.kill_on_cancel:
                future.kill_on_cancel = True
            if options.retry is not None:
                task.retrying = Retrying(options.retry)
        task.lane = self._lane
        task.category = options.category
        future._driver = driver
        future._task = task
        if driver.shares is not None:
            driver.find_shared(task)
        if waits:
            arguments = Arguments(driver, task, waits)
            if not arguments.are_there():
                if keeper is not None:
                    future.keeper, driver.keeps = keeper, True
                arguments.wait()
                return self._kept(future)
            try:
                arguments.fill()
            except Exception as exc:
                future.set_exception(note_unsent(exc, task.name))
                return future
        shortcut = driver.shortcut
        if keeper is not None:
            future.keeper, driver.keeps = keeper, True
        usual = task.blobs or keeper is not None or not shortcut.is_open() or driver.has_reloaded()
        if not usual and shortcut.send(task):
            future._shortcut = shortcut
        else:
            driver.accept(task)
        return self._kept(future)

    def _keeper(
        self,
        future: FarmFuture[Any],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Return what keeps the result of a call; settle the future if that is there already."""
        from remote_executor.client.keeping import keeper_of

        try:
            keeper = keeper_of(self._options.journal, fn, args, kwargs)
            for value in keeper.find():
                future.set_result(value)
        except Exception as exc:
            future.set_exception(note_unsent(exc, getattr(fn, "__qualname__", None)))
            return None
        return keeper

    def _kept(self, future: FarmFuture[T]) -> FarmFuture[T]:
        """Keep a future that will be settled: a shutdown waits for it."""
        if self._futures is not None:
            self._futures.add(future)
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        errors: str | None = None,
        retry: Retry | None = None,
        resume: Any = None,
    ) -> Iterator[T]:
        """
        Map ``fn`` over the items of one or more iterables.

        Items travel in batches. Their size follows the measured time of an item, so neither tiny
        items nor a few long ones need a ``chunksize``.

        Args:
            fn: Called with one item of each iterable.
            iterables: Consumed at once, unless ``buffersize`` is given. The shortest one ends it.
            timeout: Seconds from now until which every result must have come.
            chunksize: Items in a batch, exactly; None for the measured size.
            buffersize: At most so many items are under way or unread; the iterables are then read
                piecemeal and may be endless.
            errors: What to do with the error of an item. "raise" raises it at its turn, which ends
                the map. "return" puts the exception in the place of the result and goes on. "skip"
                leaves the item out. None for what :meth:`options` said; "raise" by default.
            retry: A :class:`~remote_executor.Retry`: when items that failed are tried again. None
                for what :meth:`options` said.
            resume: A :class:`~remote_executor.Journal` or the path of one. Each result is written
                there before it is yielded, and items whose results are there are not run again.

        Returns:
            An iterator over the results, in the order of the items. When an error has ended it, its
            ``rest()`` returns what else had come: a dict of results by the numbers of their items,
            with exceptions in the place of those that failed.

        Raises:
            ValueError: If ``chunksize`` or ``buffersize`` is below 1, or ``errors`` is none.
            TimeoutError: From the iterator, if a result does not come in time.
        """
        items: Iterable[Any]
        if len(iterables) == 1:
            items, star = iterables[0], False
        else:
            items, star = zip(*iterables, strict=False), True
        more = self._of_map(errors, retry, resume)
        return self._map(fn, items, star, timeout, chunksize, buffersize, True, more)

    def map_unordered(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        errors: str | None = None,
        retry: Retry | None = None,
        resume: Any = None,
    ) -> Iterator[T]:
        """As :meth:`map`, with results in the order in which their batches are done."""
        items: Iterable[Any]
        if len(iterables) == 1:
            items, star = iterables[0], False
        else:
            items, star = zip(*iterables, strict=False), True
        more = self._of_map(errors, retry, resume)
        return self._map(fn, items, star, timeout, chunksize, buffersize, False, more)

    def starmap(
        self,
        fn: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        *,
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        errors: str | None = None,
        retry: Retry | None = None,
        resume: Any = None,
    ) -> Iterator[T]:
        """As :meth:`map` over one iterable, each item of which is unpacked into arguments."""
        more = self._of_map(errors, retry, resume)
        return self._map(fn, iterable, True, timeout, chunksize, buffersize, True, more)

    def _of_map(self, errors: str | None, retry: Retry | None, resume: Any) -> dict[str, Any]:
        """Return the options that a map was given as keywords."""
        more: dict[str, Any] = {}
        if errors is not None:
            more["errors"] = errors
        if retry is not None:
            more["retry"] = retry
        if resume is not None:
            more["journal"] = resume
        return more

    def asubmit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """
        Submit a task, and return a coroutine that waits for it: for ``TaskGroup.create_task``.

        It is submitted now, whenever the coroutine is awaited. ``await executor.submit(...)`` does
        the same, but is no coroutine, and type checkers take it for a future of the standard
        library, which cannot be awaited.

        Args:
            fn: As for :meth:`submit`.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Raises:
            RuntimeError: As :meth:`submit`.
        """
        from remote_executor.client.awaiting import awaited

        return awaited(cast("FarmFuture[T]", self.submit(fn, *args, **kwargs)))

    def amap(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        errors: str | None = None,
        retry: Retry | None = None,
        resume: Any = None,
    ) -> AsyncMap[T]:
        """
        Map in asyncio: ``async for result in executor.amap(fn, items)``.

        As :meth:`map`, and the loop is never blocked. Iterables may be asynchronous, too: they are
        read while results come. With ``buffersize`` they are read no faster than results are taken.

        Args:
            fn: As for :meth:`map`.
            iterables: As for :meth:`map`, or asynchronous ones; the shortest one ends it.
            timeout: As for :meth:`map`.
            chunksize: As for :meth:`map`.
            buffersize: As for :meth:`map`.
            ordered: Whether results come in the order of the items, and not as they are done.
            errors: As for :meth:`map`.
            retry: As for :meth:`map`.
            resume: As for :meth:`map`.

        Returns:
            An asynchronous iterator. When it is left early, by ``aclose()``, an error, or since the
            task that waits for it is cancelled, what has not begun is dropped; what runs goes on
            unless ``options(kill_on_cancel=True)`` says otherwise.

        Raises:
            ValueError: If ``chunksize`` or ``buffersize`` is below 1.
            TimeoutError: From the iterator, if a result does not come in time.
        """
        from remote_executor.client.async_maps import begin

        kills = self._options_here().kill_on_cancel
        begin_map = partial(self._begin_map, more=self._of_map(errors, retry, resume))
        return begin(begin_map, fn, iterables, timeout, chunksize, buffersize, ordered, kills)

    def _map(
        self,
        fn: Callable[..., T],
        items: Iterable[Any],
        star: bool,
        timeout: float | None,
        chunksize: int | None,
        buffersize: int | None,
        ordered: bool,
        more: dict[str, Any],
    ) -> Iterator[T]:
        results = self._begin_map(fn, items, star, chunksize, buffersize, ordered, more=more)
        return results.results(timeout)

    def _begin_map(
        self,
        fn: Callable[..., Any],
        items: Iterable[Any],
        star: bool,
        chunksize: int | None,
        buffersize: int | None,
        ordered: bool,
        kind: type[MapResults] = MapResults,
        more: dict[str, Any] | None = None,
    ) -> MapResults:
        if chunksize is not None and chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        if not callable(fn):
            raise TypeError(f"a task must be callable, not {fn!r}")
        self._check_open()
        options = self._options_here()
        if more:
            options = options.but(**more)
        results = kind(
            self._driver,
            items,
            star=star,
            buffersize=buffersize,
            ordered=ordered,
            errors=options.errors,
            retry=options.retry,
        )
        try:
            encoded = self._cache.encode(fn)
            if options.journal is not None:
                from remote_executor.client.keeping import Keeping

                results.resume(Keeping(options.journal, fn, star))
            foreign = self._driver.foreign
            if foreign is not None:
                # The items are pickled when they are sent; what the function captured is now.
                form = foreign.form(self._cache, fn, encoded, "object", None, None, ())
                if isinstance(form, PayloadError) and foreign.sole:
                    raise form
        except Exception as exc:
            results.failed(None, note_unsent(exc, getattr(fn, "__qualname__", None)))
            return results
        feed = Feed(
            results,
            encoded,
            chunksize,
            results.take,
            retries=self._retries(),
            priority=options.level,
            lane=self._lane,
        )
        feed.fn = fn
        feed.generation = names.generation
        feed.category = options.category
        feed.timeout = options.timeout
        feed.grace = options.grace
        feed.name = options.name or getattr(fn, "__qualname__", None)
        if buffersize is not None:
            results.keeper = self
        results.start(feed)
        return results

    def share(self, obj: Any) -> Any:
        """
        Send an object to each server once, however many tasks use it.

        ::

            model = ex.share(train())
            scores = list(ex.map(functools.partial(score, model), rows))

        It is pickled now, so later changes do not show. What is returned stands for it wherever a
        task may have an object: as an argument, within containers, as an item of a map, captured by
        a function, in an object that is shared itself. The task finds the object itself, and may
        write to it: each task has its own, those in one batch of a map have one together, and large
        arrays take no memory but for what is written. What cannot change (numbers, str, bytes,
        tuples of them) is made once in each worker. A result that holds the object is a copy.

        Servers have it from the first task that uses it until the handle and the last such task are
        gone. Beyond ``blob_cache`` a server forgets what was not used for longest, and is sent it
        again when a task needs it.

        Args:
            obj: Anything that can be pickled.

        Returns:
            A :class:`~remote_executor.Shared`, for tasks of this executor and of its views.

        Raises:
            PayloadError: If it cannot be pickled.
            RuntimeError: After a shutdown, or in a forked child.
        """
        self._check_open()
        return self._driver.share(obj)

    def refresh(self, *values: Any) -> None:
        """
        Have globals of the program pickled again at the next submit of a function that names them.

        For large values that were changed in place. Small ones are compared at each submit (see
        ``examples/guides/code.md``, "What ``__main__`` means"), of large ones only the length is; a
        name that is bound anew is always noticed.

        Args:
            values: The values, or their names as text; without any, all globals are meant.

        Raises:
            ValueError: If no global of ``__main__`` is bound to such a value.
        """
        if not values:
            names.refresh(None)
            return
        names.look()
        which = [value if type(value) is str else names.name_of(value) for value in values]
        for name, value in zip(which, values, strict=True):
            if name is None or name not in main_globals():
                raise ValueError(f"no global of __main__ is {value!r:.80}")
        names.refresh([str(name) for name in which])

    # ------------------------------------------------------------------- killing

    def cancel_all(self, futures: Iterable[Future[Any]]) -> None:
        """
        Cancel those of many tasks that have not begun, and do not wait for that.

        As ``cancel()`` of each, which returns once its server has answered. Those that cannot be
        cancelled any more go on; see :meth:`kill`.

        Args:
            futures: Some that this executor or a view of it returned.

        Raises:
            ValueError: If one is not of this executor.
        """
        self._driver.cancel_all([task for task in map(self._task_of, futures) if task is not None])

    def _task_of(self, future: Future[Any]) -> Task | None:
        """Return a future's task; None if it is done."""
        if not isinstance(future, FarmFuture) or future._driver not in (self._driver, None):
            raise ValueError(f"{future!r} is not a future of this executor")
        return None if future.done() else future._task

    def kill(self, future: Future[Any], grace: float | None = None) -> bool:
        """
        Stop a task, also while it runs. Other tasks are not affected.

        One that runs is told by an exception first: ``TaskKilled``, which is a BaseException there,
        is raised in its worker's main thread, where the task happens to be. So its ``finally`` and
        ``with`` blocks run. If it returns or fails for another reason meanwhile, that counts. The
        worker ends with it, and after ``grace`` seconds it is ended in any case.

        Args:
            future: One that this executor or a view of it returned.
            grace: Seconds that the task has to end by itself; 0 to end its worker at once, None for
                what ``options(grace=)`` said, which is half a second by default.

        Returns:
            True if the task was told to stop: its future gets TaskKilled unless it is done first.

        Raises:
            ValueError: If the future is not one of this executor, or the grace is below 0.
            TypeError: If the grace is not a number.
        """
        if grace is not None:
            check_grace(grace)
        task = self._task_of(future)
        return task is not None and self._driver.kill([task], grace) > 0

    def kill_tasks(self, category: Any, dry_run: bool = False, grace: float | None = None) -> int:
        """
        Stop all running tasks of a category (lfarm's kill-tasks). Waiting ones are not touched.

        A task runs as soon as it has a slot, however short a time ago, also while its worker is
        being started: the servers are asked.

        Args:
            category: As given to :meth:`options`; "default" for tasks without one.
            dry_run: Only count.
            grace: As for :meth:`kill`.

        Returns:
            How many tasks were stopped.

        Raises:
            ValueError: If the category is None, or the grace is below 0.
            TypeError: If the grace is not a number.
        """
        if category is None:
            raise ValueError("category must not be None")
        if grace is not None:
            check_grace(grace)
        self._driver.settle_down()
        tasks = [task for task in self._under_way() if task.category == category]
        if not tasks:
            return 0
        return len(self._driver.find_begun(tasks, kill=not dry_run, grace=grace))

    def _under_way(self) -> list[Task]:
        return list(self._driver.scheduler.tasks.values())

    def task_categories_running(self) -> list[Any]:
        """
        Return the categories of the tasks that run now, with None for each idle slot.

        A task runs as soon as it has a slot: the servers are asked.
        """
        driver = self._driver
        driver.settle_down()
        begun = set(driver.find_begun(self._under_way()))
        running: list[Any] = []
        for _, server in driver.peers():
            if server.up:
                here = [task.category for task in list(server.inflight.values()) if task in begun]
                running += here + [None] * (server.slots - len(here))
        return running

    def broadcast(
        self,
        fn: Callable[..., T],
        /,
        *args: Any,
        missing: str = "error",
        keep: bool = False,
        **kwargs: Any,
    ) -> list[T]:
        """
        Run ``fn(*args, **kwargs)`` exactly once in each worker of each server, and wait for all.

        As the first call, too: it waits until each address has answered or failed once. State that
        it leaves in a worker is there for later tasks. With ``keep=True`` it is for ever: workers
        that join later, or take the place of others, do it before their first task, after the
        initializer and in the order in which broadcasts were given. Comes from lparallel's
        broadcast-task. It has the view's options: ``timeout`` and ``name`` are each call's, and
        with a low priority it begins when nothing more urgent waits.

        Args:
            fn: Any callable. For arguments named ``missing`` or ``keep`` use ``functools.partial``.
            args: Its positional arguments.
            missing: What to do if a server does not serve. "error": wait for it for the executor's
                ``connect_timeout``, counted from its first try or its loss, or without that until
                a try has failed; then it is an error, and nothing has run. "skip": run it in the
                others; a warning in the log says where it has not.
            keep: Whether later workers do it, too. If one fails at that, its server is left out as
                if an initializer had failed.
            kwargs: Its keyword arguments.

        Returns:
            The results, one a worker.

        Raises:
            ServersMissing: If a server does not serve: which and why.
            Exception: The first error, in order of the workers, after all have finished. Then it is
                not kept.
            TypeError: If ``fn`` is not callable.
            ValueError: If ``missing`` is another word.
            RuntimeError: After a shutdown, or in a done-callback, which cannot wait.
        """
        self._check_open()
        if not callable(fn):
            raise TypeError(f"a task must be callable, not {fn!r}")
        return broadcast(
            self._driver, self._cache, self._options_here(), fn, args, kwargs, missing, bool(keep)
        )

    def wait_for_workers(self, n: int | None = None, timeout: float | None = None) -> None:
        """
        Wait until all servers serve, or those that do have at least ``n`` slots together.

        Args:
            n: How many slots; None for those of all servers.
            timeout: Seconds; None for as long as it takes, but for all servers at most the
                executor's ``connect_timeout``.

        Raises:
            TimeoutError: If they are not there in time.
            ServersMissing: If ``n`` is None and a server is left out, or the executor's
                ``connect_timeout`` is over: which and why.
            BrokenExecutor: If they never will be.
            RuntimeError: After a shutdown, or in a done-callback that would have to wait.
        """
        self._check_open()
        driver = self._driver
        until = None if timeout is None else time.monotonic() + timeout
        if n is None:
            patience = driver.settings.connect_timeout if timeout is None else None
            call = RollCall(patience, obstinate=True)
            found = wait_for_all(driver, call, until)
            missing = call.missing(found)
            if missing and not call.is_settled(found, time.monotonic()):
                words = call.words(missing)
                raise TimeoutError(f"not all servers serve within {timeout:g} s ({words})")
            if missing:
                what = "not all workers can be waited for"
                raise ServersMissing(list(missing), call.words(missing), what)
            return
        enough = driver.wait_for_change(lambda: driver.scheduler.slots() >= n, until)
        if driver.scheduler.slots() >= n:
            return
        if driver.broken is not None:
            raise anew(driver.broken)
        if not enough:
            raise TimeoutError(f"{driver.scheduler.slots()} of {n} workers within {timeout:g} s")
        raise RuntimeError(AFTER_SHUTDOWN)

    def count_workers(self) -> int:
        """
        Return how many tasks the farm runs at a time.

        Right after the start it waits until each address has answered or failed once, for three
        seconds at most. In a done-callback and after a shutdown, when there is nothing to wait for,
        it is what is known by then.
        """
        driver = self._driver
        if not (self._closed or driver.in_io_thread() or driver.is_embedded()):
            with contextlib.suppress(RuntimeError):  # it has ended, or is broken: submit says so
                self._check_open()
                count_slots(driver)
        return self._max_workers

    @property
    def _max_workers(self) -> int:
        raise NotImplementedError

    # ----------------------------------------------------------------- in asyncio

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        from remote_executor.client.awaiting import shut_down

        self._closed = True
        await shut_down(
            lambda drop: self.shutdown(True, cancel_futures=drop), self._hurry, exc_type
        )

    def _hurry(self) -> None:
        """Stop what may be stopped: nobody waits for the end any more."""
        self.shutdown(False, cancel_futures=True)

    # ------------------------------------------------------------ for parallel

    def as_joblib(self, **config: Any) -> contextlib.AbstractContextManager[Any]:
        """
        Return a block in which joblib, and with it scikit-learn, runs on this farm.

        ::

            with executor.as_joblib():
                GridSearchCV(model, parameters).fit(X, y)

        Needs joblib 1.3 or later, here and at the servers. Where nothing says ``n_jobs``, all
        workers are used. See also ``register_joblib_backend``.

        Args:
            config: More for ``joblib.parallel_config``: ``n_jobs``, ``inner_max_num_threads``,
                ``verbose``.

        Raises:
            ImportError: If joblib is not installed, or is older.
        """
        # Upwards for once, and late, as in spawn_over_ssh().
        from remote_executor.adapters.joblib_backend import as_joblib

        found = as_joblib(cast("FarmExecutor | FarmView", self), config)
        return cast("contextlib.AbstractContextManager[Any]", found)

    def as_kernel(self) -> AsKernel[Executor]:
        """
        Return a block in which this is the current kernel of ``remote_executor.parallel``.

        ::

            with FarmExecutor() as ex, ex.as_kernel():
                total = preduce(operator.add, numbers)

        The block neither starts nor ends the executor. For a kernel that is there for good see
        ``remote_executor.parallel.make_kernel``.
        """
        return AsKernel(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an executor cannot be sent to a server; a task that needs a farm makes its own"
        )


class FarmView(_Face):
    """
    The farm with other options, made by :meth:`FarmExecutor.options`.

    It is an Executor of its own, to be handed to whoever takes one. Shutting it down ends the
    view, not the farm.

    Args:
        farm: Whose view it is; kept alive.
        options: What its tasks get.
    """

    def __init__(self, farm: FarmExecutor, options: Options) -> None:
        self._farm = farm  # keeps the farm alive
        self._driver = farm._driver
        self._cache = farm._cache
        if options.journal is not None:
            from remote_executor.client.keeping import journal_of

            options = options.but(journal=journal_of(options.journal))
        self._options = options
        self._lane = self
        self._closed = False
        self._futures = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<FarmView {self._options} of {self._farm!r}>"

    @property
    def _max_workers(self) -> int:
        return self._farm._max_workers

    def options(self, **changes: Unpack[TaskOptions]) -> FarmView:
        """
        Return a view with these options and otherwise this one's.

        Args:
            changes: As for :meth:`FarmExecutor.options`.
        """
        return FarmView(self._farm, self._options.but(**changes))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """
        End this view; the farm goes on.

        Args:
            wait: Whether to wait for what was submitted through it.
            cancel_futures: Whether to cancel what has not begun.

        Raises:
            RuntimeError: In a done-callback that would have to wait. The view is ended all the
                same.
        """
        self._closed = True
        futures = list(self._futures or ())
        if cancel_futures:
            for future in futures:
                future.cancel()
        if wait:
            _wait(futures)


def _wait(futures: Iterable[FarmFuture[Any]]) -> None:
    for future in futures:
        future.wait_until_done(None)


class FarmExecutor(_Face):
    """
    An Executor that runs tasks on a farm of servers; by default on one of its own.

    It takes the place of ``ProcessPoolExecutor``: the first four arguments are the same, and so
    are the meanings of ``submit``, ``map`` and ``shutdown``. Nothing is started before it is
    needed.

    Args:
        max_workers: How many tasks run at a time on the embedded server; by default as many as
            this process may use cores. With ``addresses``: at most so many on each server.
        mp_context: Accepted for compatibility. Workers always start from a clean process.
        initializer: Called once in each worker before its first task.
        initargs: Its arguments.
        finalizer: Called once in each worker at its end, whose initializer went well: when the
            executor is shut down, the worker is replaced, or its task was killed and has ended in
            time. It has two seconds, and what it raises is shown and changes nothing. Not called in
            a worker that is ended from outside.
        finalargs: Its arguments.
        max_tasks_per_child: After so many tasks a worker is replaced by a new one.
        max_memory_per_child: A worker that has more bytes than this for itself is replaced by a new
            one once its task is done. For a limit that no task may pass see ``serve``.
        addresses: Servers that run already: "host:port", ("host", port), "[::1]:port",
            "unix:/path", or a :class:`~remote_executor.client.ways.Way` of your own. None means the
            environment variable REMOTE_EXECUTOR_ADDRESSES, and without that an embedded server.
        auth: How servers know us: a secret (``auth="..."``), :class:`Token`, :class:`GSSAPI`, or a
            mechanism of your own. None means ``REMOTE_EXECUTOR_AUTH``, and without that the user's
            token file.
        tls: True, False, :class:`TLS` or an ``ssl.SSLContext``. None means ``REMOTE_EXECUTOR_TLS``,
            and without that: TLS with servers away from this machine.
        connect_timeout: Seconds without any server, from the start or from the loss of the last
            one, after which tasks fail; None means that they wait, and a warning says for whom.
        session_grace: Seconds for which a server that cannot be reached is waited for before its
            tasks run elsewhere.
        retries: How many more times a task is tried after a server was lost with it. For tasks that
            raise, die or time out see ``options(retry=)``.
        preload: Modules that an embedded server imports once, before it makes workers.
        modules: Which modules of the program's own servers may ask for: "auto" for all, "never"
            for none, or a list of names, each with all that is in it.
        blob_cache: Bytes of functions and shared objects that each server may keep for this
            executor, beyond what unsettled tasks need. What it had to forget is sent again.
        nested: What ``remote_executor.parallel`` does inside of tasks. "serial": its tasks run then
            and there, in the worker of the task that makes them. "parallel": they run on this farm,
            as those of :func:`remote_executor.current_executor`.

    Raises:
        ValueError: If a number is out of range, an address cannot be meant, ``nested`` is another
            word, or ``auth`` or ``tls`` cannot be used.
        TypeError: If the initializer is not callable.
        LaunchFailed: If no Python is known that the embedded server could be started with, as in a
            frozen program: see ``multiprocessing.set_executable``.
        RecursionError: In a task of a task ... of executors, 10 deep.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        finalizer: Callable[..., object] | None = None,
        finalargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        addresses: Iterable[AddressLike | Way] | AddressLike | None = None,
        auth: AuthLike = None,
        tls: TLSLike = None,
        connect_timeout: float | None = None,
        session_grace: float = 60.0,
        retries: int = 3,
        preload: Iterable[str] = (),
        modules: Iterable[str] = "auto",
        blob_cache: int = BLOB_CACHE,
        nested: str = "serial",
    ) -> None:
        if nested not in ("parallel", "serial"):
            raise ValueError(f'nested must be "parallel" or "serial", not {nested!r}')
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if finalizer is not None and not callable(finalizer):
            raise TypeError(f"finalizer must be callable, not {finalizer!r}")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
        if max_memory_per_child is not None:
            if not isinstance(max_memory_per_child, int):
                raise TypeError("max_memory_per_child must be an integer: bytes")
            if max_memory_per_child <= 0:
                raise ValueError("max_memory_per_child must be >= 1")
        if blob_cache < 0:
            raise ValueError("blob_cache must be >= 0")
        self._options = DEFAULTS
        self._lane = None
        self._closed = False
        self._cache = FunctionCache()
        self._slots = max_workers or usable_cores()
        check_depth()
        auth, tls = auth_of(auth), tls_of(tls)
        served = Modules(modules)
        if served:
            reloads.start()
        ways = _ways(addresses, auth, tls, self._slots, tuple(preload))
        embedded = isinstance(ways[0], Embedded)
        if embedded:
            python_command()  # an error now, and not when the first task is submitted
        setup = None
        if initializer is not None or finalizer is not None:
            call: Any = initializer, tuple(initargs)
            if finalizer is not None:
                call = setups.set_up, (*call, finalizer, tuple(finalargs))
            setup = make_setup(0, call, "initializer", elsewhere=not embedded)
        settings = Settings(
            config={
                "workers": max_workers or 0,
                "tasks_per_worker": max_tasks_per_child,
                "memory_per_worker": max_memory_per_child,
                "initializer": initializer is not None,
                "implementation": sys.implementation.name,
                "python": list(sys.version_info[:3]),
                "versions": {},
                "modules": bool(served),
                "nested": nested == "parallel",
                "argv": list(map(str, sys.argv)),
                "file": file_of_main(),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "depth": depth() + 1,
            },
            setup=setup,
            retries=retries,
            grace=session_grace,
            connect_timeout=connect_timeout,
            auth=auth,
            tls=tls,
            label=not embedded,
            modules=served,
            blob_cache=blob_cache,
        )
        self._driver = Driver(settings, ways)
        # When nobody refers to the executor any more, what was submitted is finished and all ends.
        weakref.finalize(self, self._driver.shutdown, False).atexit = False

    @classmethod
    def spawn_over_ssh(
        cls,
        hosts: Iterable[HostLike],
        max_workers: int | None = None,
        *,
        user: str | None = None,
        port: int | None = None,
        python: str | None = None,
        setup: str | None = None,
        workers: int | None = None,
        env: Mapping[str, str] | None = None,
        key_filename: str | tuple[str, ...] | None = None,
        password: str | None = None,
        proxy: str | None = None,
        log_file: str | None = None,
        client: str = "paramiko",
        host_keys: str = "strict",
        ssh_config: str | None = None,
        tunnel: bool = True,
        min_servers: int = 1,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        finalizer: Callable[..., object] | None = None,
        finalargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        connect_timeout: float | None = None,
        session_grace: float = 60.0,
        retries: int = 3,
        preload: Iterable[str] = (),
        modules: Iterable[str] = "auto",
    ) -> FarmExecutor:
        """
        Start a server on each of these hosts over SSH, and return an executor that uses them.

        Nothing needs to be installed there but Python 3.10 or later and an SSH server that lets
        you in. The servers end with the executor. Returns once ``min_servers`` of them serve; those
        that are slower join later.

        Args:
            hosts: "host", "user@host", "user@host:port", names from ``~/.ssh/config``, or
                :class:`~remote_executor.SSHHost`.
            max_workers: How many tasks run at a time on each host; None means one for each of its
                cores.
            user: Who to log in as; this and the next nine are for hosts that do not say
                otherwise, and :class:`~remote_executor.SSHHost` says more of them.
            port: The port of the SSH server.
            python: The Python to run.
            setup: A line for ``sh`` to be run before.
            workers: The same as ``max_workers``, by the name that :class:`~remote_executor.SSHHost`
                and the command line have for it.
            env: Variables for the server and its workers.
            key_filename: A private key, or several.
            password: For the login, or as the passphrase of a key.
            proxy: A host to jump over, or several.
            log_file: A file there to which the server writes.
            client: "paramiko", the library; "openssh", your own program ``ssh``; "auto": paramiko,
                and ssh for hosts that want what paramiko cannot do. Where paramiko is not
                installed, and there is an ssh, that is used.
            host_keys: "strict": a host must be in known_hosts; "accept-new": a host that is not is
                added to it. One whose key has changed is refused in either case.
            ssh_config: A file to read instead of ``~/.ssh/config`` and the system's.
            tunnel: Whether tasks travel through the SSH connection. False, for fast networks: SSH
                starts the server and agrees on secrets, and tasks go straight to a port of the
                host, over TLS; needs the package cryptography here.
            min_servers: How many hosts must serve. Those that fail beyond that are warnings in the
                log.
            initializer: Called once in each worker before its first task.
            initargs: Its arguments.
            finalizer: Called once in each worker at its end; see :class:`FarmExecutor`.
            finalargs: Its arguments.
            max_tasks_per_child: After so many tasks a worker is replaced by a new one.
            max_memory_per_child: One that has more bytes for itself is replaced after its task.
            connect_timeout: Seconds after which it fails if not enough servers are up.
            session_grace: Seconds for which a host that cannot be reached is waited for; after
                that its server ends by itself.
            retries: How many more times a task is tried after a server was lost with it.
            preload: Modules that a server imports once, before it makes workers.
            modules: Which modules of the program's own servers may ask for.

        Raises:
            LaunchFailed: If too many hosts fail: stage, host, reason, and what to try by hand.
            AddressError: If a host cannot be meant or is there twice; it is a ValueError too.
            TypeError, ValueError: If another argument is wrong.
            NoServerError: If ``connect_timeout`` is over.
            ImportError: If ``client`` is "paramiko" and that is not installed.
        """
        # Upwards for once, and late: this class is the face of all ways to get a farm.
        from remote_executor.launch.hosts import SSHHost, parse_hosts
        from remote_executor.launch.ssh import Plan, spawn

        if workers is None:
            workers = max_workers
        elif max_workers not in (None, workers):
            raise TypeError("max_workers and workers are the same, and differ: give one of them")
        defaults = SSHHost(
            "default",
            user=user,
            port=port,
            python=python,
            setup=setup,
            workers=workers,
            env=env,
            key_filename=key_filename,
            password=password,
            proxy=proxy,
            log_file=log_file,
        )
        plan = Plan(
            client=client,
            host_keys=host_keys,
            ssh_config=ssh_config,
            grace=session_grace,
            preload=tuple(preload),
            connect_timeout=connect_timeout,
            tunnel=tunnel,
        )

        def make(ways: list[SSHWay]) -> FarmExecutor:
            return cls(
                initializer=initializer,
                initargs=initargs,
                finalizer=finalizer,
                finalargs=finalargs,
                max_tasks_per_child=max_tasks_per_child,
                max_memory_per_child=max_memory_per_child,
                addresses=ways,
                session_grace=session_grace,
                retries=retries,
                modules=modules,
            )

        executor, _ = spawn(
            make,
            parse_hosts(hosts, defaults),
            plan,
            min_servers=min_servers,
            timeout=connect_timeout,
        )
        return executor

    @classmethod
    def spawn(
        cls,
        commands: Iterable[CommandLike],
        max_workers: int | None = None,
        *,
        python: str | None = None,
        setup: str | None = None,
        workers: int | None = None,
        env: Mapping[str, str] | None = None,
        log_file: str | None = None,
        shell: bool | None = None,
        min_servers: int = 1,
        connect_timeout: float | None = None,
        preload: Iterable[str] = (),
        **options: Any,
    ) -> FarmExecutor:
        """
        Start a server behind each of these commands, and return an executor that uses them.

        Any command will do that runs things elsewhere with standard input and output connected:
        ``docker exec -i c1``, ``kubectl exec -i pod --``, ``srun -N1``, ``sudo -u other``. Nothing
        needs to be installed there but Python 3.10 or later, and nothing listens anywhere: what
        travels goes through the command's pipe. The servers end with the executor. If a pipe
        breaks, its server ends; the command is run again, and so are the tasks that were there.

        Args:
            commands: Each a text, its words, or a :class:`~remote_executor.CommandHost`.
            max_workers: How many tasks run at a time behind each; None means one for each core.
            python: The Python to run there; this and the next five are for commands that do not say
                otherwise, and :class:`~remote_executor.CommandHost` says more of them.
            setup: A line for ``sh`` to be run before.
            workers: The same as ``max_workers``.
            env: Variables for the server and its workers.
            log_file: A file there to which the server writes.
            shell: Whether a shell reads what is put behind the command, as with ssh.
            min_servers: How many must serve. Those that fail beyond that are warnings in the log.
            connect_timeout: Seconds after which it fails if not enough servers are up.
            preload: Modules that a server imports once, before it makes workers.
            options: ``initializer``, ``initargs``, ``retries``, ``modules`` and whatever else
                :class:`FarmExecutor` takes.

        Raises:
            LaunchFailed: If too many fail: stage, command, reason, and what to try by hand.
            AddressError: If a command cannot be meant or is there twice; it is a ValueError too.
            TypeError, ValueError: If another argument is wrong.
            NoServerError: If ``connect_timeout`` is over.
        """
        from remote_executor.launch.command import CommandClient
        from remote_executor.launch.hosts import CommandHost, parse_commands
        from remote_executor.launch.ssh import Plan, spawn

        if workers is None:
            workers = max_workers
        elif max_workers not in (None, workers):
            raise TypeError("max_workers and workers are the same, and differ: give one of them")
        defaults = CommandHost(("default",), python, setup, workers, env, log_file, shell)
        executor, _ = spawn(
            lambda ways: cls(addresses=ways, **options),
            parse_commands(commands, defaults),
            Plan(preload=tuple(preload), connect_timeout=connect_timeout),
            min_servers=min_servers,
            timeout=connect_timeout,
            client=CommandClient(),
        )
        return executor

    def __repr__(self) -> str:
        driver = self._driver
        scheduler = driver.scheduler
        state = "closed" if self._closed else "broken" if driver.broken else "open"
        return (
            f"<FarmExecutor {state} servers={len(scheduler.servers)} slots={scheduler.slots()} "
            f"queued={len(scheduler.queue) + len(driver.inbox)} under_way={len(scheduler.tasks)}>"
        )

    @property
    def _max_workers(self) -> int:
        """The sum of all slots: dask, joblib and others look here for a batch size."""
        return self._driver.scheduler.slots() or self._slots

    # ---------------------------------------------------------------------- views

    def options(self, **options: Unpack[TaskOptions]) -> FarmView:
        """
        Return a view: an Executor that shares this farm and gives its tasks these options.

        Args:
            options: ``priority`` ("high", "normal", "low" or an int), ``category`` (hashable),
                ``timeout`` (seconds a task may run before it is stopped with TaskTimeout),
                ``grace`` (seconds that it has to end by itself then; see :meth:`kill`),
                ``retries`` (after a lost server), ``name`` (for errors and output),
                ``kill_on_cancel`` (in asyncio: whether cancelling stops what runs), ``retry`` (a
                :class:`~remote_executor.Retry`, for tasks that raised, died or timed out),
                ``errors`` (of maps; see :meth:`map`), ``journal`` or ``resume`` (a
                :class:`~remote_executor.Journal`, or the path of one, where results are kept).

        Raises:
            TypeError, ValueError: If there is no such option, or it cannot have that value.
        """
        return FarmView(self, self._options.but(**options))

    # ------------------------------------------------------------------------ end

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """
        Accept no more tasks, finish those there are, and free everything.

        May be called from anywhere, any number of times.

        Args:
            wait: Whether to return only when all is done and every process and thread is gone.
            cancel_futures: Whether to cancel tasks that have not begun.

        Raises:
            RuntimeError: In a done-callback, if it is to wait: it runs in the thread that brings
                the results. The executor ends all the same.
        """
        self._closed = True
        self._driver.shutdown(cancel_futures)
        if wait:
            self._driver.check_may_wait()
            try:
                self._driver.join()
            except KeyboardInterrupt:
                self._driver.shutdown(True)
                with contextlib.suppress(RuntimeError):
                    self.kill_workers()
                raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The first ^C drops what waits; the second one, in the shutdown, stops what runs.
        interrupted = exc_type is not None and issubclass(exc_type, KeyboardInterrupt)
        self.shutdown(wait=True, cancel_futures=interrupted)

    def terminate_workers(self) -> None:
        """
        Stop all workers at once and shut down, as in Python 3.14.

        Futures of tasks that have begun get TaskKilled; the others are cancelled.
        """
        self._closed = True
        driver = self._driver
        driver.shutdown(True)
        driver.terminate()

    def kill_workers(self) -> None:
        """As :meth:`terminate_workers`: workers are ended by SIGKILL in either case."""
        self.terminate_workers()

    def _hurry(self) -> None:
        self.terminate_workers()

    # ----------------------------------------------------------------- the farm

    def add_server(self, address: AddressLike) -> None:
        """
        Use one more server from now on. See :meth:`status` for how it gets on.

        Args:
            address: "host:port", ("host", port), "[::1]:port", "unix:/path".

        Raises:
            AddressError: If the address cannot be meant; it is a ValueError too.
        """
        if self._closed or self._driver.ending:
            raise RuntimeError(AFTER_SHUTDOWN)
        settings = self._driver.settings
        self._driver.add_server(Remote(parse_address(address), settings.auth, settings.tls))

    def remove_server(self, address: AddressLike, drain: bool = True) -> None:
        """
        Use a server no more.

        Args:
            address: As it was given.
            drain: Whether to let tasks that have begun there finish, and wait for that; otherwise
                they run again elsewhere. What waits there goes elsewhere in any case.

        Raises:
            ValueError: If there is no such server.
            RuntimeError: In a done-callback that would have to wait for tasks there.
        """
        driver = self._driver
        found = [pair for pair in driver.peers() if pair[0].name == address]
        if not found:
            name = str(parse_address(address))
            found = [pair for pair in driver.peers() if pair[0].name == name]
        if not found:
            raise ValueError(f"{name} is not a server of this executor")
        peer, server = found[0]
        if drain and server.inflight:
            driver.check_may_wait()
        server.draining = True
        if drain:
            driver.drain(peer, server)
        driver.remove_server(peer)

    def status(self) -> FarmStatus:
        """Return what the farm looks like at this moment, as frozen values. Cheap."""
        driver = self._driver
        servers = tuple(
            ServerStatus(
                address=peer.name,
                state="draining" if server.up and server.draining else peer.state.value,
                slots=server.slots if server.up else 0,
                running=sum(
                    task.state is TaskState.BEGUN for task in list(server.inflight.values())
                ),
                sent=len(server.inflight),
                bytes_sent=server.bytes,
                task_seconds=server.seconds,
                round_trip=server.round_trip,
                host=printable(peer.fields.get("host", "")),
                pid=int(peer.fields.get("pid", 0)),
                python=".".join(map(str, peer.fields.get("python", ()))),
                trouble=None if peer.state is PeerState.UP else peer.trouble,
                implementation=str(peer.fields.get("implementation", "")),
                differences=peer.differences,
                done=peer.done,
                failed=peer.failed,
            )
            for peer, server in driver.peers()
        )
        return FarmStatus(
            servers=servers,
            slots=driver.scheduler.slots(),
            queued=len(driver.scheduler.queue) + len(driver.inbox),
            sent=len(driver.scheduler.tasks),
            functions=len(driver.functions),
            waiting=len(driver.scheduler.parked),
        )


def _ways(
    addresses: Iterable[AddressLike | Way] | AddressLike | None,
    auth: Auth,
    tls: TLSLike,
    slots: int,
    preload: tuple[str, ...],
) -> list[Way]:
    """Find out how to reach the servers that are meant."""
    named: Sequence[Address | Way]
    if addresses is None:
        named = parse_addresses(os.environ.get("REMOTE_EXECUTOR_ADDRESSES", ""))
        if not named:
            return [Embedded(slots, preload)]
    elif isinstance(addresses, str):
        named = parse_addresses(addresses)
    elif (
        isinstance(addresses, tuple)
        and len(addresses) == 2
        and isinstance(addresses[0], str)
        and isinstance(addresses[1], int)
    ):
        named = [parse_address(addresses)]
    else:
        several = cast("Iterable[Any]", addresses)
        # A way of one's own is no address; anything else that is none is an error.
        named = [each if hasattr(each, "mechanism") else parse_address(each) for each in several]
    if not named:
        raise ValueError("addresses must name at least one server")
    return [
        Remote(each, auth, tls) if isinstance(each, Address) else each
        for each in dict.fromkeys(named)
    ]
