"""How an input is divided."""

from __future__ import annotations

import itertools
import time
from array import array

import pytest

from remote_executor.parallel.parts import (
    bounds,
    columns_of,
    count_of,
    deadline_of,
    part_bounds,
    seconds_of,
    section_of,
    sequence_of,
    signature_of,
)


@pytest.mark.parametrize("parts", range(1, 12))
@pytest.mark.parametrize("size", range(12))
def test_parts_are_even_the_first_ones_longer(size, parts):
    """C8, C16: more parts than items are as many parts as items."""
    spans = list(part_bounds(size, parts, 5))
    sizes = [end - start for start, end in spans]

    assert sum(sizes) == size
    assert len(spans) == min(size, parts)
    assert sizes == sorted(sizes, reverse=True)
    assert not sizes or sizes[0] - sizes[-1] <= 1
    assert [start for start, _ in spans] == [5 + sum(sizes[:i]) for i in range(len(sizes))]


@pytest.mark.parametrize("length", range(5))
def test_bounds_are_not_clipped(length):
    """C24."""
    for start in range(7):
        for end in (None, *range(7)):
            if start <= (length if end is None else end) <= length:
                assert bounds(length, start, end) == (start, length if end is None else end)
            else:
                with pytest.raises(ValueError, match="do not fit"):
                    bounds(length, start, end)


@pytest.mark.parametrize("wrong", [-1, -10])
def test_negative_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match="start must be at least 0"):
        bounds(5, wrong)
    with pytest.raises(ValueError, match="end must be at least 0"):
        bounds(5, 0, wrong)
    with pytest.raises(ValueError, match="parts must be at least 1"):
        count_of(wrong, "parts", 1)


@pytest.mark.parametrize("wrong", [1.0, "1", True, object()])
def test_what_is_no_int_is_refused(wrong):
    with pytest.raises(TypeError, match="size must be an int"):
        count_of(wrong, "size")


@pytest.mark.parametrize("items", [[1], (1,), range(1), "a", b"a", array("i", [1])])
def test_a_sequence_is_not_copied(items):
    assert sequence_of(items) is items


def test_what_is_no_plain_sequence_is_read():
    class Liar(list):
        def __len__(self):
            return 1000

    assert sequence_of({1: 2}) == [1]
    assert sequence_of(iter("abc"), 2) == ["a", "b"]
    assert sequence_of(Liar([1, 2])) == [1, 2]
    with pytest.raises(TypeError, match="input 3 must be iterable"):
        sequence_of(42, None, "input 3")


@pytest.mark.parametrize("endless", [itertools.count(), itertools.cycle("ab"), itertools.repeat(1)])
def test_endless_inputs_need_a_size(endless):
    with pytest.raises(ValueError, match="endless"):
        sequence_of(endless)
    assert len(sequence_of(endless, 3)) == 3


def test_an_iterator_is_read_no_further_than_needed():
    source = iter(range(100))

    columns = columns_of([source, "abc"])

    assert list(columns) == [(0, "a"), (1, "b"), (2, "c")]
    assert next(source) == 3


def test_an_endless_input_beside_one_that_ends():
    assert list(columns_of([itertools.count(), iter("ab")])) == [(0, "a"), (1, "b")]
    assert list(columns_of([itertools.repeat(7), iter("ab")], 1)) == [(7, "a")]
    assert list(columns_of([itertools.repeat(7, 2), itertools.count()])) == [(7, 0), (7, 1)]


def test_a_numpy_array_is_sliced_unless_it_has_no_dimension(require_module):
    numpy = require_module("numpy")
    table = numpy.zeros((4, 2))

    assert sequence_of(table) is table
    with pytest.raises(TypeError):
        sequence_of(numpy.array(1))


def test_a_section_of_an_iterator_is_read_to_its_end_and_no_further():
    items = iter(range(9))
    assert section_of(items, 1, 3) == ([0, 1, 2], 1, 3)
    assert section_of(items, 2, whole=True) == ([3, 4, 5, 6, 7, 8], 2, 6)
    assert section_of(itertools.count(), 0, 2) == ([0, 1], 0, 2)
    assert section_of(itertools.count(), 0, 0) == ([], 0, 0)


def test_what_is_no_section():
    """C24."""
    for wrong in ((itertools.count(),), (itertools.repeat(1), 0, None)):
        with pytest.raises(ValueError, match="endless: say where to stop with end="):
            section_of(*wrong)
    for wrong in ((iter([1]), 0, 2), ([1], 2), ([1], -1), (iter([1]), 0, -1), ([1, 2], 2, 1)):
        with pytest.raises(ValueError, match=r"do not fit|at least 0"):
            section_of(*wrong)
    for wrong in ((1,), ([1], "0"), ([1], 0, 1.0)):
        with pytest.raises(TypeError, match=r"must be (iterable|an int)"):
            section_of(*wrong)


def test_time_limits():
    assert seconds_of(None) is None
    assert deadline_of(None) is None
    assert seconds_of(2) == 2.0
    before = time.monotonic()
    assert before + 5 <= deadline_of(5) <= time.monotonic() + 5
    for wrong in ("1", [], (1,)):
        with pytest.raises(TypeError, match="limit must be a number of seconds"):
            seconds_of(wrong, "limit")


def test_a_range_that_no_length_can_hold_is_read_like_an_iterator():
    assert sequence_of(range(10**20), 3) == [0, 1, 2]
    with pytest.raises(ValueError, match="endless"):
        sequence_of(range(10**20))
    assert len(columns_of([range(10**20), "abc"])) == 3


class Odd:
    """Can be called, and says nothing of how."""

    def __call__(self, *values):
        return values

    @property
    def __signature__(self):
        raise NameError("a name that only type checkers see")


def test_of_some_functions_it_is_not_known_what_they_take():
    """That is no reason not to call them."""
    assert list(signature_of(divmod).parameters) == ["x", "y"]
    assert signature_of(dict) is None
    assert signature_of(Odd()) is None
