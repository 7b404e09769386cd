"""Reductions: what travels, and what is done where."""

from __future__ import annotations

import functools
import itertools
import operator
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, TimeoutError

import pytest

from remote_executor.parallel import pmap_reduce, preduce, preduce_partial
from tests.support.held import Held
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)


@pytest.fixture
def held():
    return Held()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture
def begin(held):
    """Return a function that starts a reduction in another thread and waits for its parts."""
    with ThreadPoolExecutor(1) as thread:

        def start(count, reduction, *args, **options):
            future = thread.submit(reduction, *args, **options, executor=held)
            wait_until(lambda: len(held.futures) == count or future.done())
            return future

        yield start
        for future in held.futures:
            future.cancel()


def test_each_part_carries_its_own_items_and_one_function(held, begin):
    """C28: never the whole sequence with each part; C27: by default a part for each worker."""
    found = begin(2, preduce, operator.add, list(range(5)))

    assert [args for _, args in held.calls] == [([0, 1, 2],), ([3, 4],)]
    assert held.calls[0][0] is held.calls[1][0]
    held.run(0, 1)
    assert found.result(LIMIT) == 10


def test_the_order_of_the_parts_is_kept_whatever_the_order_of_completion(held, begin):
    """C18."""
    found = begin(4, preduce, operator.add, "abcdefg", parts=4)
    held.run(2, 3, 0, 1)
    assert found.result(LIMIT) == "abcdefg"


def test_the_first_error_in_order_counts(held, begin):
    """C44."""
    found = begin(4, preduce_partial, operator.add, [1, 2, 3, "a", 4, 5, 6, None], parts=4)
    held.run(3)
    held.run(1)
    wait_until(held.futures[2].cancelled)
    held.run(0)
    with pytest.raises(TypeError, match="'int' and 'str'"):
        found.result(LIMIT)


def test_partial_results_are_reduced_in_parallel_again(held, begin):
    """C25: while there are four or more, in half as many parts at most."""
    found = begin(9, preduce, operator.add, range(18), parts=9, recurse=True)

    held.run(*range(9))
    wait_until(lambda: len(held.futures) == 9 + 4)
    held.run(*range(9, 13))
    wait_until(lambda: len(held.futures) == 9 + 4 + 2)
    held.run(13, 14)

    assert found.result(LIMIT) == sum(range(18))


def test_the_timeout_is_for_all_passes(held, begin):
    found = begin(4, preduce, operator.add, range(4), parts=4, recurse=True, timeout=scaled(0.3))
    held.run(0, 1, 2, 3)
    with pytest.raises(TimeoutError, match="2 of 2 parts"):
        found.result(LIMIT)
    assert [future.cancelled() for future in held.futures] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("parts", range(1, 9))
def test_every_bound_of_every_length(threads, parts):
    """C17, C8: also more parts than items."""
    for length in range(1, 7):
        items = [f"<{i}>" for i in range(length)]
        for start, end in itertools.combinations(range(length + 1), 2):
            options = {"start": start, "end": end, "parts": parts, "executor": threads}
            assert preduce(operator.add, items, **options) == "".join(items[start:end])
            found = preduce_partial(operator.add, items, from_end=True, initial="", **options)
            assert sorted("".join(found)) == sorted("".join(items[start:end]))
            assert len(found) == min(parts, end - start)


def test_a_closure(threads):
    """C19."""
    base = 7
    found = preduce(lambda a, b: (a + b) % base, range(20), executor=threads)
    assert found == sum(range(20)) % base


def test_an_iterator_is_read_as_far_as_it_counts(threads):
    items = iter(range(10))
    assert preduce(operator.add, items, start=1, end=3, executor=threads) == 3
    assert next(items) == 3
    assert pmap_reduce(abs, operator.add, itertools.count(), end=5, executor=threads) == 10
    with pytest.raises(ValueError, match="endless: say where to stop with end="):
        preduce(operator.add, itertools.count(), executor=threads)
    with pytest.raises(ValueError, match="do not fit a sequence of 2 items"):
        preduce(operator.add, iter([1, 2]), end=3, executor=threads)


def test_an_iterator_that_fails_midway(held):
    def broken():
        yield 1
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        preduce(operator.add, broken(), executor=held)
    assert held.futures == []


def test_nothing_is_submitted_for_nothing(held):
    """C23, C40."""
    assert preduce(operator.add, [], initial=None, executor=held) is None
    with pytest.raises(TypeError, match="empty sequence with no initial value"):
        pmap_reduce(abs, operator.add, iter([]), executor=held)
    assert held.futures == []


def test_the_example_of_the_docstring(threads):
    """C21: each part, if that is wanted."""
    for parts in (1, 2, 3):
        assert preduce(operator.add, [1, 2, 3, 4], 100, parts=parts, executor=threads) == 110
        found = preduce(
            operator.add, [1, 2], 100, initial_per_part=True, parts=parts, executor=threads
        )
        assert found == 103 + 100 * (parts > 1)


def test_with_recurse_the_initial_value_counts_in_each_pass(threads):
    """C21, C25: as in lparallel."""
    found = preduce(
        operator.add,
        [1] * 4,
        initial=10,
        initial_per_part=True,
        parts=4,
        recurse=True,
        executor=threads,
    )
    assert found == 4 + 4 * 10 + 2 * 10


def test_numpy_is_not_imported_for_what_is_not_numpys():
    code = """
import operator, sys
from concurrent.futures import ThreadPoolExecutor
from remote_executor.parallel import pcount, preduce, premove, psort
with ThreadPoolExecutor(2) as executor:
    assert preduce(operator.add, range(9), executor=executor) == 36
    assert psort([2, 1], executor=executor) == [1, 2]
    assert pcount(1, [1, 2], executor=executor) == 1
    assert premove(1, [1, 2], executor=executor) == [2]
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LIMIT)


def test_partial_results_of_an_array_are_views(held, begin, require_module):
    """C28: an array travels in slices, which are not copied before they are sent."""
    numpy = require_module("numpy")
    items = numpy.arange(10.0)

    found = begin(2, preduce, operator.add, items)

    for _, (part,) in held.calls:
        assert numpy.shares_memory(part, items)
    held.run(1, 0)
    assert found.result(LIMIT) == functools.reduce(operator.add, items)
