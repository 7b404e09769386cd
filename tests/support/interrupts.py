"""
Interrupts public calls at random moments: ``python -m tests.support.interrupts 500 [case ...]``.

Each case makes one call again and again while a signal's handler raises somewhere within it, as a
^C does. What the call was about must then still come, the executor must still work, and threads
that wait for the same thing must go on. A case that hangs ends the program with all stacks.
"""

# ruff: noqa: F811 - each call() is made where it stands

from __future__ import annotations

import contextlib
import faulthandler
import operator
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, as_completed, wait
from functools import partial
from typing import Any

from remote_executor import FarmExecutor
from remote_executor.errors import FarmError
from remote_executor.parallel import (
    Channel,
    chain,
    delay,
    force,
    fulfill,
    fulfill_with,
    future,
    pfind_if,
    plet,
    pmap,
    por,
    preduce,
    promise,
    psort,
    ptree,
    speculate,
)

__all__ = ["CASES", "main"]

LIMIT = 20.0
"""Seconds for which anything may take: what is not there then never comes."""


class Tick(KeyboardInterrupt):
    """What the handler raises."""


class Interrupts:
    """
    Interrupts a call, once at most, at a random moment of it.

    Args:
        seed: For the moments.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._usual = 1e-3
        self._inside = False
        self.hits = 0
        signal.signal(signal.SIGALRM, self._tick)

    def _tick(self, *_: object) -> None:
        if self._inside:
            self._inside = False
            raise Tick

    def __call__(self, call: Callable[[], object]) -> None:
        """Make a call now; used as a decorator. No ``with``: a handler could come between."""
        begun = time.monotonic()
        try:
            self._inside = True
            signal.setitimer(signal.ITIMER_REAL, self._random.uniform(1e-6, 1.2 * self._usual))
            call()
            self._inside = False
        except Tick:
            self.hits += 1
        except BaseException:
            self._inside = False
            raise
        # The moments follow what the call takes, as well as a call that was cut short tells.
        took = time.monotonic() - begun
        self._usual = max(2e-5, min(0.05, 0.9 * self._usual + 0.1 * 1.5 * took))


Case = Callable[[FarmExecutor, Interrupts, int], None]
CASES: dict[str, Case] = {}


def case(fn: Case) -> Case:
    CASES[fn.__name__] = fn
    return fn


def same(value: Any) -> Any:
    return value


def slowly(value: Any) -> Any:
    time.sleep(0.002)
    return value


def is_late(value: int) -> bool:
    return value > 30


def until_there(probe: Callable[[], object]) -> None:
    until = time.monotonic() + LIMIT
    while not probe():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.0005)


class Beside:
    """A thread that waits for something meanwhile; :meth:`end` checks that it came."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._got: list[Any] = []
        self._thread = threading.Thread(target=lambda: self._got.append(call()), daemon=True)
        self._thread.start()

    def end(self, wanted: Any) -> None:
        self._thread.join(LIMIT)
        assert self._got == [wanted], (self._got, wanted)


# ------------------------------------------------------------------- concurrent.futures


@case
def submit(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    made = []

    @interrupted
    def call() -> None:
        made.append(ex.submit(same, i))

    assert [each.result(LIMIT) for each in made] in ([i], [])


@case
def result(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    future = ex.submit(slowly if i % 2 else same, i)

    @interrupted
    def call() -> None:
        assert future.result(LIMIT) == i

    assert future.result(LIMIT) == i


@case
def exception_and_states(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    future = ex.submit(operator.truediv, i, 0)

    @interrupted
    def call() -> None:
        future.running()
        future.done()
        future.exception(LIMIT)

    assert isinstance(future.exception(LIMIT), ZeroDivisionError)


@case
def callbacks(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    future = ex.submit(slowly if i % 2 else same, i)
    told: list[Any] = []
    future.add_done_callback(told.append)

    @interrupted
    def call() -> None:
        future.add_done_callback(partial(told.append))

    assert future.result(LIMIT) == i
    until_there(lambda: told)


@case
def cancel(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    future = ex.submit(slowly, i)

    @interrupted
    def call() -> None:
        future.cancel()

    with contextlib.suppress(CancelledError):
        assert future.result(LIMIT) == i


@case
def kill(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    queue = [ex.submit(slowly, n) for n in range(4)]

    @interrupted
    def call() -> None:
        ex.kill(queue[-1])
        ex.kill_tasks("none such")

    for each in queue:
        with contextlib.suppress(FarmError):
            each.result(LIMIT)


@case
def map_(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    @interrupted
    def call() -> None:
        assert list(ex.map(same, range(20))) == [*range(20)]


@case
def map_buffersize(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    @interrupted
    def call() -> None:
        assert list(ex.map(same, range(20), buffersize=4)) == [*range(20)]


@case
def map_unordered(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    @interrupted
    def call() -> None:
        assert sorted(ex.map_unordered(same, range(20), chunksize=3)) == [*range(20)]


@case
def wait_(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    futures = [ex.submit(slowly, n) for n in range(3)]
    beside = Beside(lambda: len(wait(futures, LIMIT).done))

    @interrupted
    def call() -> None:
        assert not wait(futures, LIMIT).not_done

    assert [each.result(LIMIT) for each in futures] == [0, 1, 2]
    beside.end(3)


@case
def as_completed_(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    futures = [ex.submit(slowly, n) for n in range(3)]
    beside = Beside(lambda: len(list(as_completed(futures, LIMIT))))

    @interrupted
    def call() -> None:
        assert len(list(as_completed(futures, LIMIT))) == 3

    assert [each.result(LIMIT) for each in futures] == [0, 1, 2]
    beside.end(3)


@case
def view(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    made = []

    @interrupted
    def call() -> None:
        with ex.options(priority="high") as each:
            made.append(each.submit(slowly, i))

    assert [each.result(LIMIT) for each in made] in ([i], [])


@case
def view_shutdown(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    each = ex.options(priority="low")
    future = each.submit(slowly, i)

    @interrupted
    def call() -> None:
        each.shutdown()

    assert future.result(LIMIT) == i


# ------------------------------------------------------------------------- the farm's


@case
def wait_for_workers(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    @interrupted
    def call() -> None:
        with contextlib.suppress(TimeoutError):
            ex.wait_for_workers(1 if i % 2 else 1000, timeout=0.01)


@case
def broadcast(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    @interrupted
    def call() -> None:
        assert ex.broadcast(same, i) == [i] * 2


@case
def share(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    @interrupted
    def call() -> None:
        shared = ex.share([i] * 100)
        assert ex.submit(len, shared).result(LIMIT) == 100


@case
def large_arguments(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    @interrupted
    def call() -> None:
        assert ex.submit(len, bytearray(300_000)).result(LIMIT) == 300_000


@case
def status(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    @interrupted
    def call() -> None:
        assert ex.status().slots == 2
        ex.task_categories_running()


@case
def whole_executor(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    """The start, the end and all between; but a tenth as often, since that takes its time."""
    if i % 10:
        return

    @interrupted
    def call() -> None:
        with FarmExecutor(1) as other:
            assert other.submit(same, i).result(LIMIT) == i


@case
def shutdown(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    if i % 10:
        return
    other = FarmExecutor(1)
    future = other.submit(same, i)

    @interrupted
    def call() -> None:
        other.shutdown()

    other.shutdown()
    with contextlib.suppress(CancelledError, FarmError):
        assert future.result(LIMIT) == i


# --------------------------------------------------------------------------- parallel


@case
def channel(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    each = Channel(ex)
    for n in range(4):
        each.submit(same, n)

    @interrupted
    def call() -> None:
        each.receive()
        each.try_receive(LIMIT)

    @interrupted
    def call() -> None:
        each.submit(same, 4)

    assert set(each) <= {0, 1, 2, 3, 4}  # ends, and so nothing is waited for that never comes
    assert not each.outstanding


@case
def channel_iteration(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    each = Channel(ex)
    for n in range(4):
        each.submit(same, n)

    @interrupted
    def call() -> None:
        assert len(list(each)) == 4

    list(each)
    assert not each.outstanding


@case
def channel_with_room(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    each = Channel(ex, maxsize=1)

    def receive() -> int:
        count = 0
        while each.try_receive(LIMIT)[0] is not None:
            count += 1
        return count

    beside = Beside(receive)
    for n in range(4):

        @interrupted
        def call(n: int = n) -> None:
            each.submit(same, n)

    each.submit(same, None)
    beside._thread.join(LIMIT)
    assert not beside._thread.is_alive()


@case
def timers(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    each = Channel(ex)
    made = []

    @interrupted
    def call() -> None:
        made.append(each.submit_timeout(0.001, "late"))
        made.append(each.submit_timeout(100, "later"))
        each.cancel_timeout(made[1], "early")

    other = Channel(ex)
    other.submit_timeout(0.001, "there")
    assert other.receive() == "there"
    for timer in made:
        each.cancel_timeout(timer)


@case
def promises(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    box = promise()
    told: list[Any] = []
    box.add_done_callback(told.append)
    beside = Beside(lambda: force(box, LIMIT))
    while not box.done():

        @interrupted
        def call() -> None:
            (fulfill if i % 2 else lambda box, i: fulfill_with(box, lambda: i))(box, i)

    @interrupted
    def call() -> None:
        assert force(box) == i

    beside.end(i)
    until_there(lambda: told)
    other = promise()
    assert fulfill(other, 1)
    assert force(other) == 1


@case
def chains(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    box, end = promise(), promise()
    beside = Beside(lambda: force(box, LIMIT))
    while box._link is None:

        @interrupted
        def call() -> None:
            fulfill(box, chain(end))

    fulfill(end, i)

    @interrupted
    def call() -> None:
        assert force(chain(box), LIMIT) == i

    beside.end(i)
    assert box.result(LIMIT) == i


@case
def delays(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    late = delay(slowly, i)
    beside = Beside(lambda: force(late, LIMIT))

    @interrupted
    def call() -> None:
        assert force(late, LIMIT) == i

    beside.end(i)
    assert force(late) == i


@case
def futures(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    @interrupted
    def call() -> None:
        with ex.as_kernel():
            assert force(future(same, i)) == i
            assert force(speculate(slowly, i), LIMIT) == i


@case
def pmap_(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    @interrupted
    def call() -> None:
        assert pmap(same, [*range(40)], parts=4, executor=ex) == [*range(40)]


@case
def reduces(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    @interrupted
    def call() -> None:
        assert preduce(operator.add, [*range(40)], parts=4, executor=ex) == 780


@case
def sorts_and_finds(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    @interrupted
    def call() -> None:
        if i % 2:
            assert psort([3, 1, 2] * 9, parts=3, executor=ex) == sorted([3, 1, 2] * 9)
        else:
            assert pfind_if(is_late, [*range(40)], parts=4, executor=ex) == 31


@case
def plet_and_por(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    @interrupted
    def call() -> None:
        if i % 2:
            assert plet(partial(same, 1), partial(slowly, 2), executor=ex) == (1, 2)
        else:
            assert por(partial(same, 0), partial(slowly, 2), executor=ex) == 2


@case
def trees(ex: FarmExecutor, interrupted: Interrupts, i: int) -> None:
    tree = ptree()
    tree.define("sum", ["left", "right"], operator.add)
    tree.define("left", [], partial(slowly, 1))

    @interrupted
    def call() -> None:
        tree.define("right", [], partial(same, 2))

    with contextlib.suppress(Exception):  # PtreeRedefinedError if that was in time
        tree.define("right", [], partial(same, 2))
    beside = Beside(lambda: tree.call("sum", executor=ex, timeout=LIMIT))

    @interrupted
    def call() -> None:
        assert tree.call("sum", executor=ex, timeout=LIMIT) == 3

    assert tree.call("sum", executor=ex, timeout=LIMIT) == 3
    beside.end(3)

    @interrupted
    def call() -> None:
        tree.clear()

    assert tree.call("sum", executor=ex, timeout=LIMIT) == 3


# ----------------------------------------------------------------------------- the whole


def main(count: int, names: list[str], seed: int) -> int:
    """
    Run cases; print a line for each.

    Args:
        count: How often each is interrupted, or not.
        names: Which; none means all.
        seed: For the moments.
    """
    total = 0
    with FarmExecutor(2) as ex:
        ex.wait_for_workers(2, LIMIT)
        for name in names or CASES:
            use = CASES[name]
            interrupted = Interrupts(seed)
            begun = time.monotonic()
            for i in range(count):
                faulthandler.dump_traceback_later(3 * LIMIT, exit=True)
                try:
                    use(ex, interrupted, i)
                    assert ex.submit(pow, 2, 3).result(LIMIT) == 8
                except BaseException:
                    print(f"{name}, number {i}", flush=True)
                    raise
            total += interrupted.hits
            took = time.monotonic() - begun
            print(f"{name} {interrupted.hits} of {count} {took:.1f} s", flush=True)
    faulthandler.cancel_dump_traceback_later()
    print("interrupts:", total)
    return 0


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    words = [word for word in sys.argv[1:] if not word.isdigit()]
    sys.exit(main(numbers[0] if numbers else 20, words, numbers[1] if numbers[1:] else 1))
