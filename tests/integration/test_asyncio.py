"""The farm in asyncio: await, async with, amap, and loops that end before the results come."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from concurrent import futures

import pytest

from remote_executor import FarmExecutor, TaskKilled
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)


def run(main):
    """Run a coroutine as a program does, and fail if it takes for ever."""
    return asyncio.run(asyncio.wait_for(main, LIMIT))


@pytest.fixture(params=["farm", "view"])
def face(request, farm):
    return farm if request.param == "farm" else farm.options(name="viewed")


async def apply(executor, *call):
    return await executor.submit(*call)


async def numbers(count, *, told=None, pause=None):
    for number in range(count):
        if told is not None:
            told.append(number)
        if pause is not None:
            await asyncio.sleep(pause)
        yield number


# ------------------------------------------------------------------------------ await


def test_await_gives_the_result(face):
    assert run(apply(face, pow, 2, 5)) == 32


def test_await_raises_what_the_task_raised(face):
    with pytest.raises(ValueError, match="invalid literal"):
        run(apply(face, int, "x"))


def test_a_coroutine_for_what_wants_one(face):
    async def main():
        made = [asyncio.create_task(face.asubmit(divmod, n, 3)) for n in range(5)]
        done, _ = await asyncio.wait(made)
        with pytest.raises(ValueError, match="invalid literal"):
            await face.asubmit(int, "x")
        return sorted(each.result() for each in done)

    assert run(main()) == [divmod(n, 3) for n in range(5)]


def test_many_are_gathered(face):
    async def main():
        return await asyncio.gather(*[face.submit(abs, -each) for each in range(500)])

    assert run(main()) == [*range(500)]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup is of 3.11")
def test_a_task_group_that_fails_cancels_the_others(face, tmp_path):
    async def main():
        running = [
            face.submit(tasks.tell_and_hold, tmp_path / f"{n}", tmp_path / "go") for n in (0, 1)
        ]
        await asyncio.to_thread(
            wait_until, lambda: all((tmp_path / f"{n}").exists() for n in (0, 1)), 20
        )
        waiting = [face.submit(abs, -1) for _ in range(3)]

        async def fail():
            raise ValueError("no")

        async def one(future):
            await future

        async def use():
            async with asyncio.TaskGroup() as group:
                for each in waiting:
                    group.create_task(one(each))
                await asyncio.sleep(0)
                group.create_task(fail())

        with pytest.raises(BaseExceptionGroup):  # noqa: F821 - of 3.11
            await use()
        await asyncio.to_thread(futures.wait, waiting, LIMIT)
        assert all(each.cancelled() for each in waiting)
        (tmp_path / "go").touch()
        await asyncio.gather(*running)

    run(main())


def test_a_task_that_runs_goes_on_when_who_awaits_it_is_cancelled(face, tmp_path):
    async def main():
        future = face.submit(tasks.hold, tmp_path / "begun", tmp_path / "go", 5)
        await asyncio.to_thread(wait_until, (tmp_path / "begun").exists, 20)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(future, 0.05)
        (tmp_path / "go").touch()
        return await future

    assert run(main()) == 5


def test_a_task_that_runs_is_killed_on_request(own, tmp_path):
    async def main():
        view = own.options(kill_on_cancel=True)
        future = view.submit(tasks.hold, tmp_path / "begun", tmp_path / "never", 5)
        await asyncio.to_thread(wait_until, (tmp_path / "begun").exists, 20)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(future, 0.05)
        with pytest.raises(TaskKilled):
            await future
        waiting = [view.submit(time.sleep, 60) for _ in range(4)]
        group = asyncio.gather(*waiting)
        await asyncio.sleep(0)
        group.cancel()
        await asyncio.to_thread(futures.wait, waiting, LIMIT)
        assert all(each.cancelled() or isinstance(each.exception(), TaskKilled) for each in waiting)
        assert await view.submit(abs, -3) == 3

    run(main())


@pytest.mark.parametrize("how", ["await", "run_in_executor"])
def test_a_cancelled_await_does_not_wait_for_a_server_that_says_nothing(how, server, tmp_path):
    with FarmExecutor(addresses=[server.address]) as ex:

        def begin(*call):
            if how == "await":
                return ex.submit(*call)
            return asyncio.get_running_loop().run_in_executor(ex, *call)

        async def main():
            held = [begin(tasks.hold, tmp_path / f"{n}", tmp_path / "go", n) for n in range(4)]
            await asyncio.to_thread(wait_until, (tmp_path / "0").exists, 20)
            os.kill(server.pid, signal.SIGSTOP)
            longest, last = 0.0, time.monotonic()
            waiting = asyncio.gather(*held, return_exceptions=True)
            await asyncio.sleep(0.05)
            waiting.cancel()
            for _ in range(20):
                await asyncio.sleep(0.01)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
            os.kill(server.pid, signal.SIGCONT)
            (tmp_path / "go").touch()
            return longest

        assert run(main()) < scaled(0.5)


def test_what_run_in_executor_has_begun_is_killed_on_request(own, tmp_path):
    async def main():
        view = own.options(kill_on_cancel=True)
        call = tasks.hold, tmp_path / "begun", tmp_path / "never", 5
        held = asyncio.get_running_loop().run_in_executor(view, *call)
        await asyncio.to_thread(wait_until, (tmp_path / "begun").exists, 20)
        held.cancel()
        return await asyncio.gather(*[own.submit(abs, -n) for n in range(8)])

    assert run(main()) == [*range(8)]
    wait_until(lambda: not own.status().sent, 20)


def test_several_loops_in_several_threads(face):
    async def main(offset):
        values = await asyncio.gather(*[face.submit(abs, offset + n) for n in range(100)])
        return values + [each async for each in face.amap(abs, range(offset, offset + 100))]

    with futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda offset: run(main(offset)), range(0, 4000, 1000)))

    assert found == [[*range(n, n + 100)] * 2 for n in range(0, 4000, 1000)]


@pytest.mark.parametrize("how", ["await", "amap", "amap from a source", "run_in_executor"])
def test_a_loop_that_closes_while_results_come(how, run_script):
    code, out, err = run_script(
        f"""
import asyncio, gc, time, warnings
warnings.simplefilter("error")
from remote_executor import FarmExecutor
how = {how!r}

async def source():
    for number in range(10 ** 9):
        yield number

async def use(ex):
    if how == "await":
        await asyncio.gather(*[ex.submit(time.sleep, 0.001) for _ in range(200)])
    elif how == "run_in_executor":
        loop = asyncio.get_running_loop()
        await asyncio.gather(*[loop.run_in_executor(ex, time.sleep, 0.001) for _ in range(200)])
    else:
        items = source() if "source" in how else range(100_000)
        async for _ in ex.amap(abs, items, buffersize=100 if "source" in how else None):
            pass

async def main(ex):
    task = asyncio.ensure_future(use(ex))
    await asyncio.sleep(0.05)
    return task

if __name__ == "__main__":
    with FarmExecutor(2) as ex:
        ex.submit(abs, 1).result()
        for _ in range(5):
            loop = asyncio.new_event_loop()
            task = loop.run_until_complete(main(ex))
            task.cancel()
            try:
                loop.run_until_complete(task)
            except asyncio.CancelledError:
                pass
            loop.close()
            del task, loop
            gc.collect()
            asyncio.run(asyncio.wait_for(main(ex), 10))
        assert ex.submit(abs, -7).result() == 7
    gc.collect()
    print("fine")
""",
        limit=40,
    )

    assert (out, err, code) == ("fine\n", "", 0)


def test_an_iteration_that_outlives_its_loop(run_script):
    code, out, err = run_script(
        """
import asyncio, gc, warnings
warnings.simplefilter("error")
from remote_executor import FarmExecutor

class Endless:
    def __aiter__(self):
        return self
    async def __anext__(self):
        await asyncio.sleep(0.001)
        return 1

async def first(results):
    async for each in results:
        return each

if __name__ == "__main__":
    with FarmExecutor(2) as ex:
        results = ex.amap(abs, Endless(), buffersize=4)
        loop = asyncio.new_event_loop()
        print(loop.run_until_complete(first(results)))
        loop.close()  # the task that reads has not ended
        del results, loop
        gc.collect()
        assert ex.submit(abs, -7).result() == 7
    gc.collect()
    print("fine")
"""
    )

    assert (out, err, code) == ("1\nfine\n", "", 0)


# ------------------------------------------------------------------------- async with


def test_the_end_of_a_block_does_not_block_the_loop(tmp_path):
    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        async with FarmExecutor(2) as ex:
            future = ex.submit(tasks.nap, 0.5, 3)
            before = ticks
        assert future.done()
        assert ticks - before > 5
        ticking.cancel()
        with pytest.raises(RuntimeError, match="shutdown"):
            ex.submit(abs, 1)
        return future.result()

    assert run(main()) == 3


def test_a_view_ends_in_a_block_of_its_own(farm):
    async def main():
        async with farm.options(name="one") as view:
            future = view.submit(tasks.nap, 0.1, 3)
        assert future.done()
        with pytest.raises(RuntimeError, match="shutdown"):
            view.submit(abs, 1)
        return await farm.submit(abs, -4)

    assert run(main()) == 4


def test_nothing_was_started():
    async def main():
        async with FarmExecutor(2):
            pass

    run(main())


def test_a_block_that_is_cancelled_drops_what_has_not_begun(tmp_path):
    made = []

    async def work():
        async with FarmExecutor(1) as ex:
            made.append(ex.submit(tasks.hold, tmp_path / "begun", tmp_path / "go", 5))
            made.extend(ex.submit(time.sleep, 60) for _ in range(5))
            await asyncio.sleep(3600)

    async def main():
        task = asyncio.ensure_future(work())
        await asyncio.to_thread(wait_until, (tmp_path / "begun").exists, 20)
        task.cancel()
        await asyncio.to_thread(futures.wait, made[1:], LIMIT)
        assert not task.done(), "what runs is waited for"
        (tmp_path / "go").touch()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert made[0].result() == 5
        assert all(each.cancelled() for each in made[1:])

    run(main())


def test_a_second_cancellation_stops_what_runs(tmp_path):
    made = []

    async def work():
        async with FarmExecutor(1) as ex:
            made.append(ex.submit(tasks.hold, tmp_path / "begun", tmp_path / "never", 5))
            await asyncio.to_thread(wait_until, (tmp_path / "begun").exists, 20)

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(work(), scaled(2))
        await asyncio.to_thread(futures.wait, made, LIMIT)
        assert isinstance(made[0].exception(), TaskKilled)

    run(main())


# ------------------------------------------------------------------------------- amap


async def listed(results, found=None):
    found = [] if found is None else found
    async for each in results:
        found.append(each)
    return found


SOURCES = {
    "a list": lambda: ([*range(20)],),
    "a range": lambda: (range(20),),
    "a generator": lambda: (iter(range(20)),),
    "a source": lambda: (numbers(20),),
    "a slow source": lambda: (numbers(20, pause=0.001),),
}


@pytest.mark.parametrize("buffersize", [None, 1, 3, 1000])
@pytest.mark.parametrize("name", SOURCES)
def test_amap_gives_the_results_in_order(face, name, buffersize):
    results = face.amap(abs, *SOURCES[name](), buffersize=buffersize)

    assert run(listed(results)) == [*range(20)]


@pytest.mark.parametrize("buffersize", [None, 2])
def test_several_iterables_of_either_kind(face, buffersize):
    found = run(listed(face.amap(pow, numbers(9), range(4), buffersize=buffersize)))
    also = run(listed(face.amap(pow, [2, 3], numbers(9), buffersize=buffersize)))
    plain = run(listed(face.amap(pow, [2, 3], [1, 2, 3], buffersize=buffersize)))

    assert found == [1, 1, 4, 27]
    assert also == [1, 3]
    assert plain == [2, 9]


def test_no_items(face):
    assert run(listed(face.amap(abs, []))) == []
    assert run(listed(face.amap(abs, numbers(0)))) == []
    assert run(listed(face.amap(pow, numbers(3), []))) == []


def test_results_in_the_order_in_which_they_are_done(farm):
    results = farm.amap(tasks.nap, [0.6, 0.01, 0.02], range(3), ordered=False)

    found = run(listed(results))

    assert sorted(found) == [0, 1, 2]
    assert found[-1] == 0


@pytest.mark.parametrize("limit", [1, 5])
def test_a_source_is_read_no_faster_than_results_are_taken(face, limit):
    async def main():
        told, most, taken = [], 0, 0
        async for _ in face.amap(abs, numbers(40, told=told), buffersize=limit):
            taken += 1
            await asyncio.sleep(0.002)
            most = max(most, len(told) - taken)
        assert taken == len(told) == 40
        return most

    assert run(main()) <= limit + 1


def test_an_endless_source_of_items_that_are_there_does_not_hold_up_the_loop(face):
    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        count = 0
        results = face.amap(abs, numbers(10**9))
        async for _ in results:
            count += 1
            if count == 1000:
                break
        await results.aclose()
        ticking.cancel()
        return ticks

    assert run(main()) > 2


def test_an_error_comes_at_its_turn(face):
    async def main():
        found = []
        results = face.amap(int, ["1", "2", "x", "4"], chunksize=1)
        with pytest.raises(ValueError, match="invalid literal"):
            await listed(results, found)
        assert await listed(results) == [], "it is over"
        return found

    assert run(main()) == [1, 2]


def test_what_a_source_raises_comes_after_the_results_of_what_it_gave(face):
    async def broken():
        yield 1
        yield 2
        raise ValueError("no more")

    async def main():
        found = []
        with pytest.raises(ValueError, match="no more"):
            await listed(face.amap(abs, broken(), buffersize=5), found)
        return found

    assert run(main()) == [1, 2]


def test_a_timeout(face):
    async def main():
        found = []
        with pytest.raises(asyncio.TimeoutError, match="only 1 results"):
            await listed(face.amap(tasks.nap, [0.01, 5], timeout=1, chunksize=1), found)
        return len(found)

    begun = time.monotonic()
    assert run(main()) == 1
    assert time.monotonic() - begun < scaled(4)


@pytest.mark.parametrize("wrong", [{"chunksize": 0}, {"buffersize": 0}, {"buffersize": -1}])
def test_wrong_numbers(face, wrong):
    for items in ([1], numbers(1)):
        with pytest.raises(ValueError, match="size must be"):
            face.amap(abs, items, **wrong)
    with pytest.raises(TypeError, match="buffersize"):
        face.amap(abs, numbers(1), buffersize="two")
    with pytest.raises(TypeError, match="callable"):
        face.amap(3, numbers(1))


def test_what_cannot_be_pickled_is_an_error_of_the_iteration(face):
    with pytest.raises(Exception, match="pickle"):
        run(listed(face.amap(abs, [1, tasks.ErrorAtPickle()])))
    with pytest.raises(Exception, match="pickle"):
        run(listed(face.amap(threading.Lock().acquire, [1])))


def test_who_leaves_early_has_the_rest_dropped(own, tmp_path):
    """By break, by an error in the block, by a cancellation; with a source and without."""

    async def take(source):
        async for _ in own.amap(tasks.nap, source, chunksize=1, buffersize=100):
            break

    async def fail(source):
        async def use():
            async for _ in own.amap(tasks.nap, source, chunksize=1, buffersize=100):
                raise KeyError

        with pytest.raises(KeyError):
            await use()

    async def be_cancelled(source):
        async def use():
            async for _ in own.amap(tasks.nap, source, chunksize=1, buffersize=100):
                pass

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(use(), 0.3)

    async def naps():
        for _ in range(1000):
            yield 0.1

    async def main():
        for leave in (take, fail, be_cancelled):
            for source in ([0.1] * 1000, naps()):
                await leave(source)
                gc.collect()
                assert await own.submit(abs, -3) == 3
                await asyncio.to_thread(wait_until, lambda: not own.status().queued, 20)

    run(main())


def test_what_runs_is_killed_on_request_when_an_iteration_is_left(own, tmp_path):
    async def use():
        view = own.options(kill_on_cancel=True)
        calls = [(tmp_path / "a", tmp_path / "never", 1), (tmp_path / "b", tmp_path / "never", 2)]
        async for _ in view.amap(tasks.hold, *zip(*calls, strict=True), chunksize=1):
            pass

    async def main():
        using = asyncio.ensure_future(use())
        await asyncio.to_thread(wait_until, (tmp_path / "a").exists, 20)
        using.cancel()
        with pytest.raises(asyncio.CancelledError):
            await using
        del using
        gc.collect()
        return await asyncio.gather(*[own.submit(abs, -n) for n in range(10)])

    assert run(main()) == [*range(10)]


def test_two_that_wait_for_one_iteration_are_told(face):
    async def main():
        results = face.amap(tasks.nap, [0.3, 0.3], chunksize=1)
        first = asyncio.ensure_future(results.__anext__())
        await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="somebody else"):
            await results.__anext__()
        await first

    run(main())


def test_a_worker_that_dies(own):
    async def main():
        with pytest.raises(futures.process.BrokenProcessPool):
            await own.submit(os._exit, 3)
        with pytest.raises(futures.process.BrokenProcessPool):
            await listed(own.amap(os._exit, [3]))
        return await own.submit(abs, -3)

    assert run(main()) == 3


def test_an_executor_that_ends_under_an_iteration():
    async def main():
        ex = FarmExecutor(1)
        results = ex.amap(abs, numbers(10**9, pause=0.001))
        found = [await results.__anext__()]
        ex.shutdown(wait=False)
        with pytest.raises((RuntimeError, futures.CancelledError)):
            await listed(results, found)
        assert found == [*range(len(found))]
        await asyncio.to_thread(ex.shutdown)

    run(main())
