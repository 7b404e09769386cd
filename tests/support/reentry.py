"""
Public calls in the middle of public calls, on the same thread: ``python -m tests.support.reentry``.

A finalizer runs wherever the garbage collector is at work, a signal's handler between any two
bytecodes. Neither may meet a lock that the call around it holds.
"""

from __future__ import annotations

import faulthandler
import gc
import operator
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, as_completed, wait
from typing import Any

from remote_executor import FarmExecutor
from remote_executor.errors import FarmError
from remote_executor.parallel import (
    Channel,
    chain,
    delay,
    force,
    fulfill,
    pmap,
    preduce,
    promise,
    ptree,
)

LIMIT = 20.0
SECONDS = 5.0
MOST_NESTED = 3


def same(value: Any) -> Any:
    return value


class Calls:
    """One of each public call, round and round, and what they have left to be looked at later."""

    def __init__(self, ex: FarmExecutor) -> None:
        self._ex = ex
        self.view = ex.options(priority="high")
        self.left: list[Future[Any]] = []
        self.channel = Channel(ex)
        self.room = Channel(ex, maxsize=1000)
        self.box = promise()
        self.tree = ptree()
        self._names: Iterator[int] = iter(range(1 << 30))
        self.late = delay(same, 5)
        self.calls: list[Callable[[], object]] = [
            lambda: self.left.append(ex.submit(same, 1)),
            lambda: self.left.append(self.view.submit(same, 1)),
            lambda: ex.submit(same, 2).result(LIMIT) == 2,
            lambda: self.left.append(ex.submit(len, bytearray(300_000))),
            lambda: [ex.submit(same, 1).cancel()],
            lambda: ex.submit(same, 1).add_done_callback(self.left.append),
            lambda: ex.submit(same, 1).exception(LIMIT) is None,
            lambda: [ex.submit(same, 1).done()],
            lambda: [ex.kill(ex.submit(same, 1))],
            lambda: ex.kill_tasks("none such") == 0,
            lambda: ex.status().slots == 2,
            lambda: len(ex.task_categories_running()) == 2,
            lambda: self.left.append(ex.submit(len, ex.share([1] * 9))),
            lambda: ex.options(category="mine").submit(same, 3).result(LIMIT) == 3,
            lambda: list(ex.map(same, range(9))) == [*range(9)],
            lambda: list(ex.map(same, range(9), buffersize=2)) == [*range(9)],
            lambda: next(ex.map(same, range(9))) == 0,
            lambda: not wait([ex.submit(same, 1)], LIMIT).not_done,
            lambda: len(list(as_completed([ex.submit(same, 1)], LIMIT))) == 1,
            lambda: ex.wait_for_workers(2, LIMIT),
            lambda: ex.broadcast(same, 7) == [7, 7],
            lambda: self.channel.submit(same, 1),
            lambda: self.room.submit(same, 1),
            lambda: self.channel.try_receive(),
            lambda: self.room.try_receive(),
            lambda: self.channel.cancel_timeout(self.channel.submit_timeout(100)),
            self.replace_box,
            lambda: force(self.late) == 5,
            lambda: pmap(same, [*range(9)], parts=3, executor=ex) == [*range(9)],
            lambda: preduce(operator.add, [*range(9)], parts=3, executor=ex) == 36,
            self.use_tree,
        ]

    def replace_box(self) -> None:
        box, self.box = self.box, promise()
        fulfill(box, chain(self.box))

    def use_tree(self) -> None:
        name = next(self._names)
        self.tree.define(name, [], int)
        own = ptree()
        own.define(name, [], int)
        assert own.call(name, executor=self._ex, timeout=LIMIT) == 0

    def end(self) -> None:
        """Check that all that was left comes."""
        for future in self.left:
            try:
                future.result(LIMIT)
            except (CancelledError, FarmError):
                continue
        list(self.channel)
        list(self.room)
        fulfill(self.box, 1)


class Nested:
    """Makes a call within another one; counts; keeps errors for the end."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._random = random.Random(1)
        self._depth = 0
        self.count = 0
        self.errors: list[BaseException] = []

    def __call__(self, *_: object) -> None:
        if self._depth >= MOST_NESTED:
            return
        self._depth += 1
        try:
            assert self._random.choice(self._calls.calls)() is not False
            self.count += 1
        except (CancelledError, FarmError):
            pass  # the call around it was a cancel or a kill of this very task
        except RuntimeError as exc:
            if "callback" not in str(exc):  # in the thread that brings results nobody can wait
                self.errors.append(exc)
        except BaseException as exc:
            self.errors.append(exc)
        finally:
            self._depth -= 1


class Garbage:
    """Unreachable but for itself, until the collector comes."""

    def __init__(self, nested: Nested) -> None:
        self._nested = nested
        self.me = self

    def __del__(self) -> None:
        self._nested()


def main(how: str) -> int:
    """
    Make all calls round and round for some seconds, and others within them.

    Args:
        how: "finalizer" or "handler".
    """
    with FarmExecutor(2) as ex:
        ex.wait_for_workers(2, LIMIT)
        calls = Calls(ex)
        for call in calls.calls:
            call()
        nested = Nested(calls)
        if how == "finalizer":
            gc.set_threshold(40, 2, 2)
        else:
            signal.signal(signal.SIGALRM, nested)
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            for number, call in enumerate(calls.calls):
                faulthandler.dump_traceback_later(2 * LIMIT, exit=True)
                if how == "finalizer":
                    for _ in range(3):
                        Garbage(nested)
                try:
                    assert call() is not False
                except (CancelledError, FarmError) as exc:
                    print("call", number, repr(exc))
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.set_threshold(700, 10, 10)
        gc.collect()
        calls.end()
        assert ex.submit(pow, 2, 3).result(LIMIT) == 8
        if nested.errors:
            raise nested.errors[0]
    faulthandler.cancel_dump_traceback_later()
    print("calls within calls:", nested.count)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
