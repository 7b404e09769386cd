"""Errors that say which task, which item and where; maps that go on after an error."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
import threading
import traceback

import pytest

from remote_executor import (
    PayloadError,
    RemoteError,
    TaskKilled,
    TaskTimeout,
    WorkerDied,
)
from remote_executor.parallel import pmap, pstarmap
from tests.support import tasks
from tests.support.scale import scaled

LIMIT = scaled(25)


@pytest.fixture
def ex(embedded):
    """Return an executor that the module shares."""
    return embedded


def odd_ones_fail(x):
    if x % 2:
        raise ValueError(x)
    return x


def die_at(fatal, x):
    if x == fatal:
        os._exit(3)
    return x


def unloadable_at(bad, x):
    return tasks.ErrorAtUnpickle() if x == bad else x


def unpicklable_at(bad, x):
    return threading.Lock() if x == bad else x


class ReprExits:
    def __repr__(self):
        raise SystemExit(3)


class ReprIsHuge:
    def __repr__(self):
        return "x" * 10**7


def words(error):
    return "\n".join(error.__notes__)


# -- notes


def test_the_error_of_a_task_says_which_and_where(ex):
    error = ex.submit(tasks.fail, "x").exception(LIMIT)

    (note,) = error.__notes__
    assert re.fullmatch(
        rf"task fail, attempt 1, ran in worker \d+ on {re.escape(socket.gethostname())}", note
    )
    assert type(error) is RuntimeError
    assert error.args == ("x",)
    if sys.version_info >= (3, 11):
        assert note in "".join(traceback.format_exception(error))


def test_the_name_that_was_given_is_the_name(ex):
    assert "task etl," in words(ex.options(name="etl").submit(tasks.fail).exception(LIMIT))


@pytest.mark.parametrize("how", ["die", "time", "kill", "argument", "result", "unload"])
def test_whatever_became_of_it(own, how, tmp_path):
    if how == "die":
        error, kind = own.submit(tasks.die, 3).exception(LIMIT), WorkerDied
    elif how == "time":
        slow = own.options(timeout=0.1, grace=0).submit(tasks.nap, LIMIT)
        error, kind = slow.exception(LIMIT), TaskTimeout
    elif how == "kill":
        future = own.submit(tasks.hold, tmp_path / "begun", tmp_path / "go")
        tasks.wait_for(tmp_path / "begun")
        assert own.kill(future, grace=0)
        error, kind = future.exception(LIMIT), TaskKilled
    elif how == "argument":
        error, kind = own.submit(tasks.same, threading.Lock()).exception(LIMIT), PayloadError
    elif how == "result":
        error, kind = own.submit(tasks.make_lock).exception(LIMIT), PayloadError
    else:
        error, kind = own.submit(unloadable_at, 1, 1).exception(LIMIT), RemoteError

    assert type(error) is kind
    assert re.search(r"task \w+, (attempt 1, ran|did not run)", words(error))


def test_the_error_of_an_item_says_which(ex):
    results = ex.map(odd_ones_fail, range(10, 20))
    assert next(results) == 10
    with pytest.raises(ValueError, match="11") as caught:
        next(results)

    assert re.match(
        r"item 1 of odd_ones_fail \(11\), attempt 1, ran in worker \d+ on ", words(caught.value)
    )


@pytest.mark.parametrize("chunksize", [None, 1, 5])
@pytest.mark.parametrize("kind", ["starmap", "zipped", "unordered"])
def test_in_every_kind_of_map(ex, kind, chunksize):
    a, b = [6, 6, 6], [1, 0, 2]
    if kind == "starmap":
        results = ex.starmap(divmod, zip(a, b, strict=True), chunksize=chunksize)
    elif kind == "zipped":
        results = ex.map(divmod, a, b, chunksize=chunksize)
    else:
        results = ex.map_unordered(divmod, a, b, chunksize=chunksize)
    with pytest.raises(ZeroDivisionError) as caught:
        list(results)

    assert "item 1 of divmod ((6, 0))" in words(caught.value)


@pytest.mark.parametrize("item", [ReprExits(), ReprIsHuge()], ids=lambda item: type(item).__name__)
def test_a_repr_that_raises_or_is_huge_does_no_harm(ex, item):
    with pytest.raises(TypeError) as caught:
        list(ex.map(odd_ones_fail, [item]))

    assert "item 0 of odd_ones_fail (" in words(caught.value)
    assert len(words(caught.value)) < 1000


def test_of_a_batch_whose_worker_died_it_is_one_of_the_items(own):
    with pytest.raises(WorkerDied) as caught:
        list(own.starmap(die_at, [(1, i) for i in range(3)], chunksize=3))

    assert "one of items 0 to 2 of die_at, attempt 1" in words(caught.value)


def test_an_item_that_cannot_travel_is_named(ex):
    with pytest.raises(PayloadError) as caught:
        list(ex.map(tasks.same, [1, threading.Lock()], chunksize=1))

    assert "item 1 of same (<unlocked _thread.lock" in words(caught.value)


def test_in_what_is_printed_there_are_no_frames_of_a_worker(ex):
    error = ex.submit(odd_ones_fail, 1).exception(LIMIT)
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))

    assert "in odd_ones_fail" in text
    assert "worker.py" not in text
    assert os.path.join("remote_executor", "") not in text


# -- errors="return", "skip", "raise"


def maps(ex, kind):
    """Return a kind of map, as a function of function, items and options."""
    if kind == "pmap":
        return lambda fn, items, **more: pmap(fn, items, executor=ex, **more)
    if kind == "parts":
        return lambda fn, items, **more: pmap(fn, items, executor=ex, parts=3, **more)
    if kind == "pstarmap":
        return lambda fn, items, **more: pstarmap(fn, [(i,) for i in items], executor=ex, **more)
    if kind == "starmap":
        return lambda fn, items, **more: list(ex.starmap(fn, [(i,) for i in items], **more))
    if kind == "piecemeal":
        return lambda fn, items, **more: list(ex.map(fn, items, buffersize=3, **more))
    return lambda fn, items, **more: list(ex.map(fn, items, **more))


KINDS = ["map", "starmap", "piecemeal", "pmap", "parts", "pstarmap"]


@pytest.mark.parametrize("kind", KINDS)
def test_returned_errors_stand_in_their_places(ex, kind):
    found = maps(ex, kind)(odd_ones_fail, range(200), errors="return")

    assert [each for each in found if not isinstance(each, ValueError)] == list(range(0, 200, 2))
    assert all(
        found[i].args == (i,) and f"item {i} of" in words(found[i]) for i in range(1, 200, 2)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_skipped_items_are_left_out(ex, kind):
    found = maps(ex, kind)(odd_ones_fail, range(200), errors="skip")

    assert found == list(range(0, 200, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_them_may_fail(ex, kind):
    items = list(range(1, 99, 2))

    assert len(maps(ex, kind)(odd_ones_fail, items, errors="return")) == 49
    assert maps(ex, kind)(odd_ones_fail, items, errors="skip") == []


def test_unordered_maps_go_on_too(ex):
    found = list(ex.map_unordered(odd_ones_fail, range(50), errors="return"))

    assert sorted(each for each in found if isinstance(each, int)) == list(range(0, 50, 2))
    assert sorted(each.args[0] for each in found if not isinstance(each, int)) == list(
        range(1, 50, 2)
    )


async def numbers(count):
    for i in range(count):
        yield i


@pytest.mark.parametrize("source", [range, numbers])
@pytest.mark.parametrize("buffersize", [None, 3])
def test_asynchronous_maps_go_on_too(ex, source, buffersize):
    async def run(errors):
        found = ex.amap(odd_ones_fail, source(40), errors=errors, buffersize=buffersize)
        return [each async for each in found]

    assert asyncio.run(asyncio.wait_for(run("skip"), LIMIT)) == list(range(0, 40, 2))
    returned = asyncio.run(asyncio.wait_for(run("return"), LIMIT))
    assert [each if isinstance(each, int) else each.args[0] for each in returned] == list(range(40))
    with pytest.raises(ValueError, match="1"):
        asyncio.run(asyncio.wait_for(run(None), LIMIT))


def test_an_asynchronous_map_goes_on_after_a_result_that_cannot_be_unpickled(ex):
    async def run():
        return [each async for each in ex.amap(unloadable_at, [2] * 4, range(4), errors="return")]

    assert [type(each) for each in asyncio.run(run())] == [int, int, RemoteError, int]


def test_a_view_may_say_it(ex):
    assert list(ex.options(errors="skip").map(odd_ones_fail, range(5))) == [0, 2, 4]
    assert pmap(odd_ones_fail, range(5), executor=ex.options(errors="skip")) == [0, 2, 4]
    with pytest.raises(ValueError, match="1"):
        list(ex.options(errors="skip").map(odd_ones_fail, range(5), errors="raise"))


@pytest.mark.parametrize("errors", ["ignore", "", 5])
def test_another_word_is_refused(ex, errors):
    with pytest.raises(ValueError, match="errors must be one of raise, return, skip"):
        ex.map(odd_ones_fail, [1], errors=errors)
    with pytest.raises(ValueError, match="errors must be one of raise, return, skip"):
        pmap(odd_ones_fail, [1], errors=errors, executor=ex)


@pytest.mark.parametrize("chunksize", [None, 1, 10])
def test_items_and_results_that_cannot_travel_cost_no_others(ex, chunksize):
    items = [0, threading.Lock(), 2, 3]
    found = list(ex.map(tasks.same, items, errors="return", chunksize=chunksize))
    assert isinstance(found[1], PayloadError)
    assert [found[0], *found[2:]] == [0, 2, 3]

    for fn, kind in ((unpicklable_at, PayloadError), (unloadable_at, RemoteError)):
        rows = [(2, i) for i in range(5)]
        found = list(ex.starmap(fn, rows, errors="return", chunksize=chunksize))
        assert [type(each) for each in found] == [int, int, kind, int, int]
        assert found[:2] + found[3:] == [0, 1, 3, 4]


def test_an_item_that_cannot_be_unpickled_there_costs_no_others(ex):
    items = [0, tasks.ErrorAtUnpickle(), 2, 3]

    found = list(ex.map(tasks.same, items, errors="return", chunksize=4))

    assert isinstance(found[1], Exception)
    assert [found[0], *found[2:]] == [0, 2, 3]


def test_a_dead_worker_costs_its_batch(own):
    found = list(own.starmap(die_at, [(5, i) for i in range(12)], chunksize=4, errors="return"))

    assert [type(each) for each in found[4:8]] == [WorkerDied] * 4
    assert found[:4] + found[8:] == [0, 1, 2, 3, 8, 9, 10, 11]
    assert len({id(each) for each in found[4:8]}) == 4


def test_exits_in_a_task_are_errors_like_others(ex):
    found = list(ex.map(tasks.leave, [1, 2], errors="return"))

    assert [type(each) for each in found] == [SystemExit, SystemExit]


def test_large_results_among_errors(ex):
    numpy = pytest.importorskip("numpy")
    found = list(ex.map(ones_unless_odd, range(6), errors="return", chunksize=6))

    assert [type(each) for each in found[1::2]] == [ValueError] * 3
    assert all(isinstance(each, numpy.ndarray) and each.sum() == 100_000 for each in found[::2])


def ones_unless_odd(x):
    import numpy

    odd_ones_fail(x)
    return numpy.ones(100_000)


# -- what else had come


def test_what_else_had_come_is_not_lost(ex, tmp_path):
    rows = [(str(tmp_path), i) for i in range(6)]
    results = ex.starmap(last_is_first, rows, chunksize=1)
    with pytest.raises(ValueError, match="first"):
        list(results)

    rest = results.rest()

    assert isinstance(rest.pop(3), ValueError)
    assert rest
    assert all(value == index for index, value in rest.items())
    assert results.rest() == {}


def last_is_first(folder, i):
    """Return i, or fail; the first one fails when the fifth one has been done."""
    if i == 0:
        tasks.wait_for(f"{folder}/done")
        raise ValueError("first")
    if i == 3:
        raise ValueError("third")
    if i == 5:
        tasks.touch(f"{folder}/done")
    return i


def test_after_an_end_without_error_nothing_is_left(ex):
    results = ex.map(tasks.square, range(5))

    assert list(results) == [0, 1, 4, 9, 16]
    assert results.rest() == {}
