"""``remote_executor.Pool`` is ``multiprocessing.Pool``: its calls, its errors, its end."""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.pool
import os
import pickle
import queue
import threading
import time

import pytest

from remote_executor import Pool, WorkerDied
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)


def twice(x):
    return 2 * x


def pair(x, y=0):
    return x, y


def fail_at(x, where):
    if x == where:
        raise KeyError(x)
    return x


def mark(folder, x):
    (folder / str(x)).touch()
    if x == 1:
        raise ValueError(f"no {x}")
    return x


def nap(seconds):
    time.sleep(seconds)
    return seconds


def lock():
    return threading.Lock()


def set_value(value):
    global given
    given = value


def get_value():
    return given


@pytest.fixture(scope="module")
def pool(_leak_baseline):
    with Pool(2) as pool:
        pool.map(nap, [0.1] * 4, chunksize=1)
        pool._executor._driver.answering.put(int, abs)  # else its thread starts under a test
        yield pool
    pool.join()


@pytest.fixture
def own():
    with Pool(2) as pool:
        yield pool
    pool.join()


# ------------------------------------------------------------------------ calls


def test_a_call(pool):
    assert pool.apply(pair, (1,), {"y": 2}) == (1, 2)
    assert pool.apply(pair, [3]) == (3, 0)
    assert pool.apply(int) == 0
    assert pool.apply(lambda: 7) == 7


def test_a_call_that_fails(pool):
    with pytest.raises(KeyError) as caught:
        pool.apply(fail_at, (1, 1))
    assert type(caught.value.__cause__) is multiprocessing.pool.RemoteTraceback
    assert "fail_at" in caught.value.__cause__.tb


MAPS = {
    "map": lambda pool, fn, items, **more: pool.map(fn, items, **more),
    "map_async": lambda pool, fn, items, **more: pool.map_async(fn, items, **more).get(LIMIT),
    "imap": lambda pool, fn, items, **more: list(pool.imap(fn, items, **more)),
    "imap_unordered": lambda pool, fn, items, **more: sorted(
        pool.imap_unordered(fn, items, **more)
    ),
    "starmap": lambda pool, fn, items, **more: pool.starmap(fn, zip(items), **more),
    "starmap_async": lambda pool, fn, items, **more: pool.starmap_async(
        fn, list(zip(items)), **more
    ).get(LIMIT),
}


@pytest.mark.parametrize("kind", [list, tuple, iter, set, dict.fromkeys])
@pytest.mark.parametrize("name", MAPS)
def test_maps_of_any_iterable(pool, name, kind):
    assert MAPS[name](pool, twice, kind(range(100))) == [*range(0, 200, 2)]


@pytest.mark.parametrize("chunksize", [1, 3, 1000])
@pytest.mark.parametrize("name", MAPS)
def test_maps_in_chunks(pool, name, chunksize):
    assert MAPS[name](pool, twice, range(100), chunksize=chunksize) == [*range(0, 200, 2)]
    assert MAPS[name](pool, twice, iter(range(7)), chunksize=chunksize) == [*range(0, 14, 2)]


@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize("name", MAPS)
def test_maps_of_nothing(pool, name, kind):
    assert MAPS[name](pool, twice, kind([])) == []


@pytest.mark.parametrize("name", MAPS)
def test_maps_that_fail(pool, name):
    with pytest.raises(KeyError):
        MAPS[name](pool, MustNotBe(3), range(5), chunksize=1)


class MustNotBe:
    def __init__(self, bad):
        self.bad = bad

    def __call__(self, x):
        return fail_at(x, self.bad)


@pytest.mark.parametrize("name", MAPS)
def test_a_chunksize_below_one(pool, name):
    with pytest.raises(ValueError, match=r"(?i)chunksize must be"):
        MAPS[name](pool, twice, [1, 2], chunksize=0)


def test_starmap_unpacks(pool):
    assert pool.starmap(pair, [(1, 2), [3, 4], (5,)]) == [(1, 2), (3, 4), (5, 0)]


@pytest.mark.parametrize("how", ["map", "map_async"])
def test_a_map_that_fails_runs_all_others_first(pool, how, tmp_path):
    items = [(tmp_path, n) for n in range(6)]

    begin = pool.starmap if how == "map" else pool.starmap_async
    with pytest.raises(ValueError, match="no 1"):
        begin(mark, items, chunksize=1).get(LIMIT)

    assert len(list(tmp_path.iterdir())) == 6


def test_imap_goes_on_after_an_error(pool):
    for results in (
        pool.imap(MustNotBe(2), range(5)),
        pool.imap(MustNotBe(2), iter(range(5))),
        pool.imap_unordered(MustNotBe(2), range(5)),
    ):
        found, errors = [], 0
        while True:
            try:
                found.append(next(results))
            except KeyError:
                errors += 1
            except StopIteration:
                break
        assert (sorted(found), errors) == ([0, 1, 3, 4], 1)


def test_imap_has_timeouts_that_lose_nothing(pool):
    results = pool.imap(nap, [0.4, 0.01])

    with pytest.raises(multiprocessing.TimeoutError):
        results.next(timeout=0.01)

    assert results.next(timeout=LIMIT) == 0.4
    assert results.next() == 0.01
    with pytest.raises(StopIteration):
        results.next(LIMIT)


def test_imap_reads_an_endless_iterable_a_little_ahead(own):
    read = itertools.count()
    results = own.imap(twice, read)

    assert list(itertools.islice(results, 20)) == [*range(0, 40, 2)]
    own.terminate()
    assert next(read) < 1_000_000


def test_an_iterable_may_wait_for_results_of_its_own_imap(pool):
    """As programs do that hold back their generator by a semaphore."""
    may = threading.Semaphore(2)

    def source():
        for n in range(20):
            assert may.acquire(timeout=LIMIT)
            yield n

    found = []
    for each in pool.imap(twice, source()):
        found.append(each)
        may.release()

    assert found == [*range(0, 40, 2)]


def test_what_an_iterable_raises_comes_at_its_turn(pool):
    def source():
        yield from range(3)
        raise ZeroDivisionError

    results = pool.imap(twice, source())
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    with pytest.raises(ZeroDivisionError):
        pool.map(twice, source())


# ----------------------------------------------------------------- AsyncResult


def test_a_result_that_is_not_there(pool, tmp_path):
    call = tmp_path / "begun", tmp_path / "go", 1
    for begin in (
        lambda: pool.apply_async(tasks.hold, call),
        lambda: pool.apply_async(tasks.hold, call, callback=str),
        lambda: pool.starmap_async(tasks.hold, [call]),
        lambda: pool.starmap_async(tasks.hold, [call], callback=str),
    ):
        result = begin()
        assert not result.ready()
        with pytest.raises(ValueError, match="not ready"):
            result.successful()
        with pytest.raises(multiprocessing.TimeoutError):
            result.get(0.01)
        with pytest.raises(multiprocessing.TimeoutError):
            result.get(timeout=0)
        result.wait(0.01)
        (tmp_path / "go").touch()
        result.wait(LIMIT)
        assert result.ready()
        assert result.successful()
        assert result.get(0) in (1, [1])
        (tmp_path / "go").unlink()


def test_a_result_that_failed(pool):
    for result in (
        pool.apply_async(fail_at, (1, 1)),
        pool.apply_async(fail_at, (1, 1), error_callback=str),
        pool.map_async(MustNotBe(1), [0, 1]),
        pool.map_async(MustNotBe(1), [0, 1], error_callback=str),
    ):
        result.wait(LIMIT)
        assert result.ready()
        assert not result.successful()
        for _ in range(2):
            with pytest.raises(KeyError):
                result.get()


def test_a_timeout_of_the_callers_own_function(pool):
    with pytest.raises(TimeoutError, match="mine"):
        pool.apply_async(raise_timeout).get(LIMIT)


def raise_timeout():
    raise TimeoutError("mine")


def test_a_list_is_the_same_for_all_who_ask(pool):
    result = pool.map_async(twice, range(1000))
    found = queue.SimpleQueue()
    threads = [threading.Thread(target=lambda: found.put(result.get(LIMIT))) for _ in range(8)]
    for thread in threads:
        thread.start()
    lists = [found.get(timeout=LIMIT) for _ in threads]
    for thread in threads:
        thread.join()

    assert all(each is lists[0] for each in lists)
    assert lists[0] == [*range(0, 2000, 2)]


def test_callbacks_are_made_before_get_returns(pool):
    told = []

    assert pool.apply_async(twice, (2,), callback=told.append).get(LIMIT) == 4
    assert told == [4]
    assert pool.map_async(twice, range(3), callback=told.append).get(LIMIT) == [0, 2, 4]
    assert told == [4, [0, 2, 4]]
    with pytest.raises(KeyError) as first:
        pool.apply_async(fail_at, (1, 1), error_callback=told.append).get(LIMIT)
    with pytest.raises(KeyError) as second:
        pool.map_async(MustNotBe(1), [1], error_callback=told.append).get(LIMIT)
    assert told[2:] == [first.value, second.value]


def test_a_callback_is_made_once_for_many_chunks(pool):
    told = []
    results = [
        pool.map_async(twice, range(50), chunksize=1, callback=told.append) for _ in range(10)
    ]
    for each in results:
        each.wait(LIMIT)

    assert told == [[*range(0, 100, 2)]] * 10


def test_a_callback_that_fails_is_logged_and_holds_up_nobody(pool, caplog):
    result = pool.apply_async(twice, (2,), callback=lambda _: 1 / 0)

    assert result.get(LIMIT) == 4
    assert pool.apply(twice, (3,)) == 6
    assert "ZeroDivisionError" in caplog.text


def test_a_callback_may_give_the_pool_more_work(pool):
    found = queue.SimpleQueue()
    pool.apply_async(
        twice, (2,), callback=lambda n: pool.apply_async(twice, (n,), callback=found.put)
    )

    assert found.get(timeout=LIMIT) == 8


# --------------------------------------------------------------------- troubles


def test_a_result_that_cannot_be_pickled(pool):
    told = []
    for call in (
        lambda: pool.apply(lock),
        lambda: pool.apply_async(lock, error_callback=told.append).get(LIMIT),
        lambda: pool.map(lambda _: threading.Lock(), [1]),
        lambda: pool.map_async(lambda _: threading.Lock(), [1]).get(LIMIT),
        lambda: list(pool.imap(lambda _: threading.Lock(), [1])),
    ):
        with pytest.raises(multiprocessing.pool.MaybeEncodingError) as caught:
            call()
        assert "lock" in str(caught.value)
    assert len(told) == 1
    assert pool.apply(twice, (1,)) == 2


def test_arguments_that_cannot_be_pickled(pool):
    with pytest.raises(Exception, match="pickle"):
        pool.apply(twice, (tasks.ErrorAtPickle(),))
    with pytest.raises(Exception, match="pickle"):
        pool.map(twice, [1, tasks.ErrorAtPickle()])
    with pytest.raises(Exception, match="pickle"):
        pool.map_async(twice, [1, tasks.ErrorAtPickle()]).get(LIMIT)


class CannotBePickled:
    def __reduce__(self):
        raise LookupError("not me")


def test_what_an_object_raises_when_it_is_pickled_is_the_error(pool):
    for call in (
        lambda: pool.apply(twice, (CannotBePickled(),)),
        lambda: pool.map(twice, [CannotBePickled()]),
        lambda: pool.map_async(twice, [CannotBePickled()]).get(LIMIT),
        lambda: next(pool.imap(twice, [CannotBePickled()])),
    ):
        with pytest.raises(LookupError, match="not me"):
            call()


def test_a_worker_that_dies_fails_its_call_only(own):
    others = own.map_async(nap, [0.01] * 20)
    with pytest.raises(WorkerDied):
        own.apply(os._exit, (3,))

    assert others.get(LIMIT) == [0.01] * 20
    assert own.apply(twice, (1,)) == 2


def test_wrong_arguments_and_the_number_of_workers():
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            Pool(wrong)
    for wrong in (0, -1, 0.5, "12"):
        with pytest.raises(ValueError, match="maxtasksperchild"):
            Pool(1, maxtasksperchild=wrong)
    with pytest.raises(TypeError, match="callable"):
        Pool(1, 3)
    with Pool(3, context=multiprocessing.get_context("spawn")) as pool:
        assert pool._processes == 3
        assert "state=RUN pool_size=3" in repr(pool)
    pool.join()


def test_an_initializer():
    with Pool(2, set_value, (7,)) as pool:
        assert [pool.apply(get_value) for _ in range(4)] == [7] * 4
    pool.join()


def test_workers_are_replaced_after_so_many_calls():
    with Pool(1, maxtasksperchild=3) as pool:
        seen = [pool.apply(os.getpid) for _ in range(7)]
    pool.join()

    assert [len(list(group)) for _, group in itertools.groupby(seen)] == [3, 3, 1]


def test_on_servers_elsewhere(addresses, monkeypatch):
    monkeypatch.setenv("REMOTE_EXECUTOR_ADDRESSES", ",".join(addresses))
    with Pool() as pool:
        assert pool.map(twice, range(10)) == [*range(0, 20, 2)]
        assert pool._processes == 2
    pool.join()


# ---------------------------------------------------------------------- the end


def test_after_close_nothing_is_taken_and_all_is_done():
    pool = Pool(2)
    single = pool.apply_async(nap, (0.2,))
    several = pool.map_async(nap, [0.05] * 10, chunksize=1)
    lazy = pool.imap(nap, (0.01 for _ in range(50)))
    with pytest.raises(ValueError, match="still running"):
        pool.join()

    pool.close()

    for call in (
        lambda: pool.apply(int),
        lambda: pool.apply_async(int),
        lambda: pool.map(int, []),
        lambda: pool.map_async(int, []),
        lambda: pool.starmap(int, []),
        lambda: pool.imap(int, []),
        lambda: pool.imap_unordered(int, []),
        pool.__enter__,
    ):
        with pytest.raises(ValueError, match="Pool not running"):
            call()
    pool.join()
    pool.join()
    assert single.ready()
    assert several.ready()
    assert list(lazy) == [0.01] * 50
    assert several.get() == [0.05] * 10


def test_a_pool_that_is_closed_ends_without_a_join():
    pool = Pool(1)
    pid = pool.apply(os.getpid)
    lazy = pool.imap(twice, (n for n in range(5)))

    pool.close()

    assert list(lazy) == [0, 2, 4, 6, 8]
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 20)
    pool.join()


def test_terminate_stops_what_runs_and_makes_no_callbacks():
    pool = Pool(2)
    told = []
    results = [
        pool.apply_async(time.sleep, (600,), callback=told.append, error_callback=told.append)
        for _ in range(10)
    ]
    whole = pool.map_async(time.sleep, [600] * 10, callback=told.append, error_callback=told.append)
    lazy = pool.imap(time.sleep, itertools.repeat(600))

    begun = time.monotonic()
    pool.terminate()
    pool.join()

    assert time.monotonic() - begun < scaled(10)
    for call in (results[0].get, results[-1].get, whole.get, lazy.next):
        with pytest.raises(Exception):  # noqa: B017, PT011 - and does not wait for ever
            call()
    assert told == []
    pool.terminate()


def test_a_block_ends_by_terminate():
    with Pool(1) as pool:
        pool.apply_async(time.sleep, (600,))
    with pytest.raises(ValueError, match="not running"):
        pool.apply(int)
    pool.join()


def test_a_pool_cannot_be_pickled(pool):
    with pytest.raises(NotImplementedError, match="pool objects cannot be passed"):
        pickle.dumps(pool)


def test_a_pool_that_is_forgotten_warns_and_ends():
    pool = Pool(1)
    pid = pool.apply(os.getpid)

    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        del pool

    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 20)


def test_a_script_that_forgets_its_pool(run_script):
    code, out, err = run_script("""
from remote_executor import Pool

class A:
    def __init__(self):
        self.pool = Pool(processes=1)

if __name__ == "__main__":
    problem = A()
    print(problem.pool.map(float, tuple(range(3))))
""")

    assert (code, out) == (0, "[0.0, 1.0, 2.0]\n"), err


def test_a_script_of_multiprocessing_with_its_import_changed(run_script):
    code, out, err = run_script("""
from remote_executor import Pool, __version__
import functools, time

def f(x, y=1):
    return x * x + y

def init(word):
    print(word, flush=True)

if __name__ == "__main__":
    with Pool(processes=1, initializer=init, initargs=("hello",)) as pool:
        result = pool.apply_async(f, (10,))
        print(result.get(timeout=10))
        print(pool.map(functools.partial(f, y=2), range(3)))
        it = pool.imap(f, range(3))
        print(next(it), next(it), it.next(timeout=10))
        pool.close()
        pool.join()
    print("done")
""")

    assert (code, out) == (0, "hello\n101\n[2, 3, 6]\n1 2 5\ndone\n"), err


def test_a_map_that_is_left_early_drops_the_rest(own, monkeypatch):
    """By a ^C, for instance: here whatever falls between two batches."""
    from remote_executor.adapters import pool as module

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "open_outcome", interrupted)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        own.map(nap, [0.05] * 10_000, chunksize=1)
    monkeypatch.undo()

    assert own.apply(twice, (1,)) == 2
    assert time.monotonic() - begun < scaled(20)
