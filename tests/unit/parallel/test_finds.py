"""Searches, on an executor whose parts are done in the order that the test wants."""

from __future__ import annotations

import itertools
import operator
from concurrent.futures import ThreadPoolExecutor, TimeoutError

import pytest

from remote_executor.parallel import (
    pcount,
    pcount_if,
    pevery,
    pfind,
    pfind_if,
    pnotany,
    pnotevery,
    premove,
    premove_if,
    psome,
)
from remote_executor.parallel.serial import in_serial
from tests.support.held import Held
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)


@pytest.fixture
def held():
    return Held()


@pytest.fixture
def begin(held):
    """Return a function that starts a search of ten items in ten parts, in another thread."""
    with ThreadPoolExecutor(1) as thread:

        def start(search, *args, **options):
            future = thread.submit(search, *args, **options, parts=10, executor=held)
            wait_until(lambda: len(held.futures) == 10 or future.done())
            assert len(held.futures) == 10, future.result()
            return future

        yield start
        for future in held.futures:
            future.cancel()


def cancelled(held):
    return [index for index, future in enumerate(held.futures) if future.cancelled()]


def test_find_cancels_what_comes_after_a_match_and_waits_for_what_comes_before(held, begin):
    """C41: the first match in order of the sequence, whichever part is done first."""
    found = begin(pfind_if, (5).__le__, range(10))

    held.run(7)
    wait_until(lambda: cancelled(held) == [8, 9])
    held.run(0, 1, 2, 6)
    assert not found.done()
    held.run(4, 3, 5)

    assert found.result(LIMIT) == 5


def test_find_from_the_end_goes_the_other_way(held, begin):
    """C41: parts are begun from the end, and those before the match are cancelled."""
    found = begin(pfind_if, (5).__ge__, range(10), from_end=True)

    assert [args[0] for _, args in held.calls] == [range(i, i + 1) for i in range(9, -1, -1)]
    held.run(6)  # the part with 3
    wait_until(lambda: cancelled(held) == [7, 8, 9])
    held.run(*range(6)[::-1])

    assert found.result(LIMIT) == 5


def test_find_kills_what_nobody_needs(held, begin):
    found = begin(pfind_if, bool, [1] * 10)

    held.begin(3)
    held.run(0)

    assert found.result(LIMIT) == 1
    assert cancelled(held) == [1, 2, *range(4, 10)]
    wait_until(lambda: held.killed == [held.futures[3]])


def test_an_error_after_the_match_does_not_matter(held, begin):
    found = begin(pfind_if, (1).__truediv__, [1, 1, 0, 1, 1, 1, 1, 1, 1, 1])

    held.run(2, 0)

    assert found.result(LIMIT) == 1


def test_an_error_before_the_match_does(held, begin):
    found = begin(pfind_if, lambda item: 6 / item > 2, [6, 0, 1, 1, 1, 1, 1, 1, 1, 1])

    held.run(2, 1, 0)

    with pytest.raises(ZeroDivisionError):
        found.result(LIMIT)


@pytest.mark.parametrize(
    ("search", "items", "answer"),
    [
        (pevery, [1, 1, 1, 1, 1, 1, 1, 0, 1, 1], False),
        (pnotevery, [1, 1, 1, 1, 1, 1, 1, 0, 1, 1], True),
        (psome, [0, 0, 0, 0, 0, 0, 0, 3, 0, 0], 3),
        (pnotany, [0, 0, 0, 0, 0, 0, 0, 3, 0, 0], False),
    ],
)
def test_the_first_part_to_know_decides(held, begin, search, items, answer):
    """C34: the rest is cancelled, and killed where it runs."""
    found = begin(search, int, items)

    held.begin(1)
    held.run(4, 7)

    assert found.result(LIMIT) is answer
    assert cancelled(held) == [0, 2, 3, 5, 6, 8, 9]
    wait_until(lambda: held.killed == [held.futures[1]])


def test_an_error_counts_unless_a_part_before_it_knows(held, begin):
    """C34, C44: what would come after an error if all were done in order counts no more."""
    found = begin(psome, lambda item: 1 // item, [2, 2, 2, 2, 0, 2, 2, 1, 2, 2])

    held.run(4)
    wait_until(lambda: cancelled(held) == [5, 6, 7, 8, 9])
    held.run(3, 0, 1)
    assert not found.done()
    held.run(2)

    with pytest.raises(ZeroDivisionError):
        found.result(LIMIT)


def test_the_first_error_in_order_counts(held, begin):
    """C44."""
    found = begin(pevery, lambda item: 1 / item, [1, 1, 0, 1, 1, "a", 1, 1, 1, 1])

    held.run(5, 2, 0, 1)

    with pytest.raises(ZeroDivisionError):
        found.result(LIMIT)


def test_an_answer_before_an_error_counts(held, begin):
    found = begin(pevery, lambda item: 1 // item, [1, 2, 0, 1, 1, 1, 1, 1, 1, 1])

    held.run(2, 1)

    assert found.result(LIMIT) is False


def test_inside_a_task_nothing_is_searched_in_vain():
    """C49: the serial kernel makes one part, which ends with the answer."""
    seen = []

    def look(item):
        seen.append(item)
        return item == 2

    with in_serial():
        assert pfind_if(look, range(9)) == 2
        assert psome(look, range(9)) is True
        assert pfind_if(look, range(9), from_end=True) == 2

    assert seen == [0, 1, 2, 0, 1, 2, 8, 7, 6, 5, 4, 3, 2]


def test_each_part_carries_its_own_items_and_one_function(held, begin):
    """C28: and what is looked for travels with them."""
    begin(pcount, "x", list("axaxaxaxax"))

    assert [args for _, args in held.calls] == [([item], "x") for item in "axaxaxaxax"]
    assert len({id(fn) for fn, _ in held.calls}) == 1
    held.run(*range(10))


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor


LENGTHS = range(6)


@pytest.mark.parametrize("parts", range(1, 8))
def test_every_bound_of_every_length(threads, parts):
    """C39, C40, C41: as the serial ones, whatever the length, the bounds and the parts."""
    for length in LENGTHS:
        items = [i % 3 for i in range(length)]
        for start, end in itertools.combinations_with_replacement(range(length + 1), 2):
            inside = items[start:end]
            options = {"start": start, "end": end, "parts": parts, "executor": threads}
            assert pcount(1, items, **options) == inside.count(1)
            assert pfind(1, items, **options) == (1 if 1 in inside else None)
            left = [item for item in inside if item != 1]
            assert premove(1, items, **options) == items[:start] + left + items[end:]


def test_an_object_is_found_that_equals_only_itself(threads):
    """C39, C40, C41."""
    mine, nan = object(), float("nan")

    assert pfind(mine, [object(), mine], executor=threads) is mine
    assert pcount(nan, [nan, 1.0], executor=threads) == 1
    assert premove(mine, [1, mine, 2], executor=threads) == [1, 2]


def test_an_iterator_is_read_as_far_as_it_counts(threads):
    items = iter(range(10))
    assert pfind_if(bool, items, end=3, executor=threads) == 1
    assert next(items) == 3
    assert pcount_if(bool, itertools.count(), end=5, executor=threads) == 4
    # What is not searched is not removed either.
    assert premove_if(bool, iter(range(5)), end=3, executor=threads) == [0, 3, 4]


def test_endless_input(threads):
    with pytest.raises(ValueError, match="endless: say where to stop with end="):
        pfind_if(bool, itertools.count(), executor=threads)
    with pytest.raises(ValueError, match="endless: say how many items with size="):
        pevery(bool, itertools.count(), executor=threads)
    assert pevery(bool, itertools.count(1), size=5, executor=threads)
    assert not pevery(bool, itertools.count(), size=5, executor=threads)
    assert pnotevery(bool, itertools.count(), size=5, executor=threads)
    assert psome(bool, itertools.count(), size=1, executor=threads) is None
    assert pnotany(operator.eq, itertools.count(1), itertools.repeat(0), size=9, executor=threads)
    with pytest.raises(ValueError, match="size"):
        pevery(bool, [1], size=-1, executor=threads)


def test_a_timeout_kills(held):
    with pytest.raises(TimeoutError, match="2 of 2 parts"):
        pcount_if(bool, [1, 2], parts=2, timeout=0, executor=held)
    assert cancelled(held) == [0, 1]


def test_kinds_of_numpy_and_pandas(threads, require_module):
    """C39: what is removed is removed from a sequence of the same kind."""
    numpy = require_module("numpy")
    for items in (numpy.arange(5.0), numpy.array(["a", "b"]), numpy.ones((3, 2))):
        if items.ndim == 1:
            left = premove(items[0], items, executor=threads)
        else:
            left = premove_if(numpy.all, items, end=1, executor=threads)
        assert left.dtype == items.dtype
        assert (left == items[1:]).all()
