"""What multiprocessing lets processes share, in the arguments of an initializer."""

from __future__ import annotations

import ctypes
import multiprocessing
import operator
import os
import threading
from concurrent import futures
from multiprocessing import managers

import pytest

from remote_executor import FarmExecutor, PayloadError, Pool
from tests.support.scale import ALL_PARAMETERS, scaled
from tests.support.waiting import wait_until

LIMIT = scaled(40)
# What forkserver's context has made goes the same way as spawn's.
METHODS = ["fork", "forkserver", "spawn"] if ALL_PARAMETERS else ["fork", "spawn"]

pytestmark = pytest.mark.no_leak_check("multiprocessing's resource tracker and threads of queues")

given = None


def keep(*values):
    global given
    given = values


def kept(index=0):
    return given[index]


def count_up(_):
    lock, value = given
    for _ in range(20):
        with lock:
            value.value += 1
    return os.getpid()


def add_one(_):
    with given[0].get_lock():
        given[0].value += 1


def fill(index):
    given[0][index] = index + 1.5
    return given[0][:]


def acquired(block=True, timeout=None):
    return given[0].acquire(block, timeout)


def release():
    given[0].release()


def twice_in(_):
    with given[0], given[0]:
        return True


def put(value):
    given[0].put(value)


def get():
    return given[0].get(timeout=LIMIT) if hasattr(given[0], "get_nowait") else given[0].get()


def wait_for_it():
    return given[0].wait(LIMIT)


def wait_in_condition():
    condition, value = given
    with condition:
        value.value += 1
        return condition.wait(LIMIT)


def talk(word):
    given[0].send(word)
    return given[0].recv() if given[0].readable else None


@pytest.fixture(params=METHODS)
def context(request):
    return multiprocessing.get_context(request.param)


@pytest.fixture
def farm_with():
    made = []

    def make(*values, **more):
        made.append(FarmExecutor(2, initializer=keep, initargs=values, **more))
        return made[-1]

    yield make
    for executor in made:
        executor.shutdown()
    names = [thread.name for thread in threading.enumerate()]
    assert not {"remote_executor descriptors", "remote_executor proxies"} & set(names)


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_lock_keeps_others_out(context, farm_with, kind):
    value = context.RawValue("i", 0)
    lock = getattr(context, kind)()
    ex = farm_with(lock, value)

    pids = set(ex.map(count_up, range(10), chunksize=1))

    assert value.value == 200
    assert pids
    with lock:
        blocked = ex.submit(count_up, 0)
        with pytest.raises(futures.TimeoutError):
            blocked.result(0.1)
    blocked.result(LIMIT)


def test_a_lock_that_is_taken_here_is_taken_there(context, farm_with):
    lock = context.Lock()
    ex = farm_with(lock)
    lock.acquire()

    assert ex.submit(acquired, False).result(LIMIT) is False
    assert ex.submit(acquired, True, 0.05).result(LIMIT) is False
    lock.release()
    assert ex.submit(acquired).result(LIMIT) is True
    assert not lock.acquire(False)


def test_a_recursive_lock_can_be_taken_twice(context, farm_with):
    assert farm_with(context.RLock()).submit(twice_in, 0).result(LIMIT)


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
def test_a_semaphore_counts(context, farm_with, kind):
    semaphore = getattr(context, kind)(2)
    ex = farm_with(semaphore)

    assert [ex.submit(acquired, False).result(LIMIT) for _ in range(3)] == [True, True, False]
    ex.submit(release).result(LIMIT)
    assert semaphore.acquire(False)


def test_a_condition(context, farm_with):
    condition, value = context.Condition(), context.Value("i", 0)
    ex = farm_with(condition, value)
    waiting = [ex.submit(wait_in_condition) for _ in range(2)]
    wait_until(lambda: value.value == 2, 20)

    with condition:
        condition.notify_all()

    assert [each.result(LIMIT) for each in waiting] == [True, True]


def test_an_event(context, farm_with):
    event = context.Event()
    ex = farm_with(event)
    waiting = [ex.submit(wait_for_it) for _ in range(2)]

    event.set()

    assert [each.result(LIMIT) for each in waiting] == [True, True]


def test_a_value_and_an_array(context, farm_with):
    value, array = context.Value("i", 0), context.Array("d", 3)
    list(farm_with(value).map(add_one, range(50), chunksize=1))
    ex = farm_with(array)

    assert value.value == 50
    for index in range(3):
        ex.submit(fill, index).result(LIMIT)
    assert array[:] == [1.5, 2.5, 3.5]
    assert ex.submit(kept).exception(LIMIT) is not None, "it is no result"


def test_raw_values_and_arrays(context, farm_with):
    ex = farm_with(context.RawArray(ctypes.c_double, 3))

    ex.submit(fill, 1).result(LIMIT)

    assert ex.submit(fill, 0).result(LIMIT)[1] == 2.5


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "JoinableQueue"])
def test_a_queue_in_both_directions(context, farm_with, kind):
    queue = getattr(context, kind)()
    ex = farm_with(queue)

    ex.submit(put, "there").result(LIMIT)
    assert queue.get() == "there"
    queue.put(("back", 3))
    assert ex.submit(get).result(LIMIT) == ("back", 3)
    queue.close()


def test_ends_of_pipes(context, farm_with):
    here, there = context.Pipe()
    ex = farm_with(there)
    talking = ex.submit(talk, "hello")
    assert here.recv() == "hello"
    here.send("so be it")
    assert talking.result(LIMIT) == "so be it"

    reader, writer = context.Pipe(duplex=False)
    other = farm_with(writer)
    assert other.submit(talk, "one way").result(LIMIT) is None
    assert reader.recv() == "one way"
    for each in (here, there, reader, writer):
        each.close()


def test_workers_that_come_later_have_it_too(farm_with):
    value = multiprocessing.get_context("spawn").Value("i", 0)
    ex = farm_with(value, max_tasks_per_child=1)

    for _ in range(4):
        ex.submit(add_one, 0).result(LIMIT)

    assert value.value == 4


def test_within_containers_and_together_with_other_things(farm_with):
    context = multiprocessing.get_context("spawn")
    ex = farm_with({"lock": context.Lock(), "more": [context.Event(), "word"]}, lambda: 7)

    assert ex.submit(lambda: sorted(kept())).result(LIMIT) == ["lock", "more"]
    assert ex.submit(lambda: kept(1)()).result(LIMIT) == 7


def test_in_a_pool():
    value = multiprocessing.Value("i", 0)
    with Pool(2, keep, (value,)) as pool:
        pool.map(add_one, range(20), chunksize=1)
    pool.join()

    assert value.value == 20


def test_a_managers_proxies_with_their_key(addresses):
    with managers.SyncManager(authkey=b"a key of its own") as manager:
        names = manager.dict()
        for servers in (None, addresses):
            with FarmExecutor(2, initializer=keep, initargs=(names,), addresses=servers) as ex:
                ex.submit(
                    lambda where: operator.setitem(kept(), where, os.getpid()), str(servers)
                ).result(LIMIT)
        assert set(names.keys()) == {str(None), str(addresses)}


@pytest.mark.parametrize("kind", ["Lock", "Event", "Queue", "SimpleQueue", "Condition"])
def test_on_servers_elsewhere_it_says_what_to_use(context, addresses, kind):
    with pytest.raises(PayloadError, match="SyncManager") as caught:
        FarmExecutor(addresses=addresses, initializer=keep, initargs=(getattr(context, kind)(),))
    assert kind in str(caught.value)


def test_a_value_on_servers_elsewhere(context, addresses):
    for value in (context.Value("i"), context.Array("i", 3), context.RawValue("i")):
        with pytest.raises(PayloadError, match="SyncManager"):
            FarmExecutor(addresses=addresses, initializer=keep, initargs=(value,))


def test_a_barrier_of_fork_says_what_to_write():
    barrier = multiprocessing.get_context("fork").Barrier(2)

    with pytest.raises(PayloadError, match=r"get_context\(.spawn.\).Barrier"):
        FarmExecutor(1, initializer=keep, initargs=(barrier,))


def test_what_tqdms_process_map_does(run_script, require_module):
    require_module("tqdm")
    code, out, err = run_script("""
import remote_executor, tqdm.contrib.concurrent as c
from tqdm.auto import tqdm

def square(x):
    return x * x

class Farm(remote_executor.FarmExecutor):
    pass

if __name__ == "__main__":
    more = dict(lock_name="mp_lock", max_workers=2, disable=True)
    print(c._executor_map(Farm, square, range(10), **more))
    lock = tqdm.get_lock().mp_lock
    with remote_executor.FarmExecutor(2, initializer=tqdm.set_lock, initargs=(lock,)) as ex:
        print(list(tqdm(ex.map(square, range(10)), total=10, disable=True)))
""")

    assert (code, out) == (0, "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]\n" * 2), err
