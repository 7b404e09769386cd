"""Broadcasts: a call that runs once in each worker of each server, and in those to come."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from remote_executor.client.arguments import met, take_met
from remote_executor.client.futures import FarmFuture
from remote_executor.client.presence import standings, wait_for_all
from remote_executor.client.setups import make_setup
from remote_executor.core.roll_call import RollCall
from remote_executor.core.tasks import Task
from remote_executor.payload import setups
from remote_executor.payload.code.names import names
from remote_executor.payload.functions import CODE, in_one_piece
from remote_executor.task_errors import ServersMissing

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.client.driver import Driver
    from remote_executor.options import Options
    from remote_executor.payload.functions import FunctionCache

__all__ = ["broadcast"]

log = logging.getLogger("remote_executor.client")


def broadcast(
    driver: Driver,
    cache: FunctionCache,
    options: Options,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    missing: str,
    keep: bool,
) -> list[Any]:
    """
    Run a call once in each worker; see ``FarmExecutor.broadcast``.

    Args:
        driver: Whose workers.
        cache: Pickles functions.
        options: Those of the call.
        fn: What to call.
        args: With which positional arguments.
        kwargs: With which keyword arguments.
        missing: "error" or "skip".
        keep: Whether later workers do it, too.

    Raises:
        ServersMissing: If a server does not serve and is not to be skipped.
        Exception: What a call has raised.
        TypeError: If there is a future among the arguments.
    """
    if missing not in ("error", "skip"):
        raise ValueError(f'missing must be "error" or "skip", not {missing!r}')
    driver.check_may_wait()
    name = options.name or getattr(fn, "__qualname__", None)
    setup = None
    call: Any = args, kwargs
    if keep:
        number = next(driver.setup_numbers)
        elsewhere = driver.foreign is not None
        setup_call = setups.set_up_kept, (number, fn, args, kwargs)
        setup = make_setup(number, setup_call, name or "broadcast", elsewhere=elsewhere)
        fn, call = setups.call_kept, ((number, fn, args, kwargs), {})
    elif type(fn) not in CODE or getattr(fn, "__closure__", None):
        fn, call = in_one_piece(fn, call)
    try:
        encoded, body, buffers = cache.pack(fn, call)
    finally:
        waits = take_met() if met else None
    if waits:
        raise TypeError("a broadcast does not wait for futures: give it their result()")
    generation = names.generation
    foreign = driver.foreign
    abroad = None
    if foreign is not None:
        abroad = foreign.form(cache, fn, encoded, "call", call, body, buffers)
    patience = driver.settings.connect_timeout
    wait_for_all(driver, RollCall(patience, obstinate=missing == "error" and patience is not None))
    futures: list[FarmFuture[Any]] = []
    left_out: dict[str, str] = {}

    def pin_all() -> None:
        # Here, since from now on nobody comes or goes before all are pinned.
        left_out.update(RollCall.missing(standings(driver, driver.loop.now)))
        if left_out and missing == "error":
            return
        for _, server in driver.peers():
            if not server.up:
                continue
            for index in range(server.slots):
                future: FarmFuture[Any] = FarmFuture()
                task = Task(driver.scheduler.next_id(), future, encoded, body, buffers)
                task.abroad = abroad
                task.pinned = index
                task.generation = generation
                task.retries = 0
                task.size = len(body)
                task.priority = options.level
                task.timeout = options.timeout
                task.grace = options.grace
                task.category = options.category
                task.name = name
                driver.find_shared(task)
                future._driver, future._task = driver, task
                driver.pin(server, task)
                futures.append(future)

    driver.broadcast(options.level, pin_all)
    if left_out and missing == "error":
        what = f"{name or 'the broadcast'} has run nowhere"
        raise ServersMissing(list(left_out), RollCall.words(left_out), what)
    if left_out:
        log.warning("! %s was not broadcast to %s", name, RollCall.words(left_out))
    for future in futures:
        future.wait_until_done(None)
    results = [future.result() for future in futures]
    if setup is not None:
        driver.keep(setup)
    return results
