"""Futures in asyncio: who waits is woken once for all results that come together."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import weakref
from functools import partial

import pytest

from remote_executor.client.awaiting import Mailbox, mailbox
from remote_executor.client.futures import FarmFuture, SafeFuture
from remote_executor.parallel import fulfill, promise


def in_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def test_a_future_is_awaitable_and_is_no_future_of_asyncio():
    assert inspect.isawaitable(FarmFuture())
    assert not asyncio.isfuture(FarmFuture())


def test_a_result_that_is_there_is_returned_without_a_wait():
    future = FarmFuture()
    future.set_result(3)

    async def main():
        return await future

    with pytest.raises(StopIteration) as end:
        main().send(None)  # no loop runs
    assert end.value.value == 3


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", [FarmFuture, SafeFuture])
def test_a_result_or_an_error_is_the_coroutines(kind, late):
    async def main(finish):
        future = kind()
        if late:
            asyncio.get_running_loop().call_soon(in_thread, partial(finish, future))
        else:
            finish(future)
        return await future

    assert asyncio.run(main(lambda future: future.set_result(3))) == 3
    with pytest.raises(ValueError, match="no"):
        asyncio.run(main(lambda future: future.set_exception(ValueError("no"))))


def test_a_cancelled_future_cancels_who_awaits_it_as_one_of_asyncio_does():
    async def main():
        future = SafeFuture()
        task = asyncio.ensure_future(future)
        await asyncio.sleep(0)
        future.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())


def test_a_promise_can_be_awaited_and_is_not_cancelled_with_who_awaits_it():
    async def main():
        box = promise()
        impatient = asyncio.ensure_future(box)
        patient = asyncio.ensure_future(box)
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.sleep(0)
        fulfill(box, 3)
        assert await patient == 3
        assert impatient.cancelled()

    asyncio.run(main())


def test_a_future_of_no_task_is_cancelled_with_who_awaits_it():
    async def main():
        future = FarmFuture()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(future, 0.01)
        assert future.cancelled()

    asyncio.run(main())


class CountingLoop(asyncio.SelectorEventLoop):
    woken = 0

    def call_soon_threadsafe(self, *args, **kwargs):
        self.woken += 1
        return super().call_soon_threadsafe(*args, **kwargs)


@pytest.fixture
def loop():
    loop = CountingLoop()
    yield loop
    loop.close()


def test_many_results_that_come_together_wake_the_loop_once(loop):
    async def main():
        for _ in range(3):
            futures = [FarmFuture() for _ in range(100)]
            waiting = asyncio.gather(*futures)
            await asyncio.sleep(0)
            before = loop.woken
            in_thread(lambda futures=futures: [each.set_result(1) for each in futures])
            assert sum(await waiting) == 100
            assert loop.woken == before + 1

    loop.run_until_complete(main())


def test_a_loop_that_is_closed_before_the_results_come_is_left_alone(loop):
    future = FarmFuture()

    async def main():
        return await future

    coroutine = main()
    waits = loop.create_task(coroutine)
    loop.run_until_complete(asyncio.sleep(0))
    waits._log_destroy_pending = False  # the test's own task
    loop.close()

    future.set_result(3)  # raises nothing

    assert loop.woken == 0 or not waits.done()
    del waits
    coroutine.close()


def test_a_loop_is_not_kept_alive_by_its_mailbox():
    loop = asyncio.new_event_loop()
    box = mailbox(loop)
    gone = weakref.ref(loop)
    loop.close()

    del loop
    gc.collect()

    assert gone() is None
    box.put(None)  # nobody is there


def test_a_thread_has_a_mailbox_for_the_loop_that_it_runs():
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        assert mailbox(first) is mailbox(first)
        assert mailbox(second) is not mailbox(first)
        assert mailbox(second).loop() is second
        boxes = []
        in_thread(lambda: boxes.append(mailbox(second)))
        assert isinstance(boxes[0], Mailbox)
        assert boxes[0].loop() is second
    finally:
        first.close()
        second.close()
