"""Sequences that travel in slices."""

from __future__ import annotations

import pickle
from array import array

import pytest

from remote_executor.payload.slices import Columns, Memory, Rows, cut


def travel(value):
    """Return a value as it is after a pickle with buffers out of band, and their bytes."""
    buffers = []
    body = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(body, buffers=buffers), buffers


@pytest.mark.parametrize(
    "items",
    [[1, 2, 3], (1, 2, 3), range(3), "abc", b"abc", bytearray(b"abc"), array("d", [1, 2, 3])],
    ids=lambda items: type(items).__name__,
)
def test_a_slice_of_one_column_is_a_slice(items):
    columns = Columns([items])

    assert len(columns) == 3
    assert columns[1:3] == items[1:3]
    assert type(columns[1:3]) is type(items)
    assert list(columns) == list(items)


def test_columns_are_as_long_as_the_shortest():
    assert len(Columns([range(5), "abc"])) == 3
    assert len(Columns([range(5), "abc"], 2)) == 2
    assert len(Columns([range(5), "abc"], 9)) == 3


def test_several_columns_give_rows():
    rows = Columns([range(5), "abcd"])[1:3]

    assert len(rows) == 2
    assert list(rows) == [(1, "b"), (2, "c")]


def test_a_slice_does_not_reach_beyond_the_length():
    assert Columns([range(5)], 2)[0:5] == range(2)


def test_rows_pickle_with_their_own_items_only():
    rows = Columns([list(range(100_000)), list(range(100_000))])[10:12]

    body = pickle.dumps(rows, protocol=5)

    assert len(body) < 200
    assert list(pickle.loads(body)) == [(10, 10), (11, 11)]
    assert type(pickle.loads(body)) is Rows


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_slice_of_a_memoryview_travels(protocol):
    part = cut(memoryview(array("d", [1, 2, 3, 4])), 1, 3)

    assert type(part) is Memory
    assert len(part) == 2
    assert list(pickle.loads(pickle.dumps(part, protocol=protocol))) == [2.0, 3.0]


def test_a_slice_of_a_memoryview_goes_out_of_band():
    part, buffers = travel(cut(memoryview(bytes(100)), 10, 30))

    assert [len(buffer.raw()) for buffer in buffers] == [20]
    assert list(part) == [0] * 20


def test_an_odd_memoryview_is_cut_into_a_list():
    assert cut(memoryview(bytes(range(6)))[::2], 1, 3) == [2, 4]
    table = memoryview(bytes(range(6))).cast("B", (3, 2))
    assert cut(table, 1, 3) == [[2, 3], [4, 5]]


def test_what_has_positions_is_cut_by_position():
    class Series:
        iloc = range(100, 110)

    assert cut(Series(), 2, 4) == range(102, 104)


def test_a_numpy_slice_is_its_own_bytes(require_module):
    numpy = require_module("numpy")

    part, buffers = travel(Columns([numpy.arange(1000.0)])[10:20])

    assert part.tolist() == list(range(10, 20))
    assert [len(buffer.raw()) for buffer in buffers] == [80]
