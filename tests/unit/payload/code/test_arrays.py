"""Views of numpy's arrays look at the memory that they look at here."""

from __future__ import annotations

import pickle
from textwrap import dedent

import pytest

from remote_executor.payload.code.arrays import is_array, make_view, reduce_view
from remote_executor.payload.code.steps import IS_CPYTHON
from tests.support.payload_tasks import run_main

np = pytest.importorskip("numpy")
pytestmark = pytest.mark.skipif(not IS_CPYTHON, reason="references are not counted")

VIEWS = {
    "a slice": lambda base: base[2:5],
    "backwards": lambda base: base[::-2],
    "another type": lambda base: base.view("u8"),
    "in two dimensions": lambda base: base.reshape(3, 4)[1:, ::2],
    "transposed": lambda base: base.reshape(3, 4).T,
    "not to be written": lambda base: read_only(base[3:]),
    "a byte of each": lambda base: base.view("u1")[3::8],
}


def read_only(view):
    view.flags.writeable = False
    return view


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_made_of_the_array_behind_it(name):
    base = np.arange(12.0)
    view = VIEWS[name](base)

    make, args = reduce_view(view)
    again = make(*args)

    assert args[0] is base
    assert np.shares_memory(again, base)
    assert again.tolist() == view.tolist()
    assert (again.dtype, again.strides) == (view.dtype, view.strides)
    assert again.flags.writeable == view.flags.writeable


def test_columns_of_an_array_in_fortrans_order():
    base = np.arange(12).reshape(3, 4).copy(order="F")
    view = base[1:, 2]

    make, args = reduce_view(view)

    assert make is make_view
    assert make(*args).tolist() == view.tolist()
    assert np.shares_memory(make(*args), base)


def test_objects_are_seen_as_such():
    base = np.array([1, None, "x"], dtype=object)
    view = base[1:]
    make, args = reduce_view(view)
    base[1] = "set"

    assert make(*args).tolist() == ["set", "x"]


def of_its_own():
    return np.arange(1000)[10:13]


def one_that_memory_is_lent_to():
    return np.frombuffer(bytearray(16), "u8")


@pytest.mark.parametrize("make", [of_its_own, one_that_memory_is_lent_to, lambda: np.arange(3)])
def test_what_looks_at_nobody_elses_memory_travels_by_itself(make):
    assert reduce_view(make()) is NotImplemented


def test_an_array_in_pieces_is_copied():
    base = np.zeros((2, 3, 4)).transpose(1, 0, 2).copy(order="K")
    assert not base.flags.forc
    view = base[0]

    assert reduce_view(view) is NotImplemented


def test_only_numpys_own_arrays_are_meant():
    assert is_array(np.ndarray)
    assert not is_array(np.ma.MaskedArray)
    assert not is_array(list)


def test_a_view_that_was_pickled_is_one_again():
    base = np.arange(5)
    make, args = reduce_view(base[1:3])
    again, view = pickle.loads(pickle.dumps((args[0], (make, args))))

    assert view[0](again, *view[1][1:]).tolist() == [1, 2]


PROGRAMS = {
    "globals": """
        base = np.arange(6)
        head, tail = base[:2], base[4:]
        def task():
            base[0], tail[0] = 50, 60
            return head.tolist(), base.tolist()
        with Worker() as worker:
            assert worker.call(task) == ([50, 1], [50, 1, 2, 3, 60, 5])
            base = np.arange(3)
            assert worker.call(task)[0] == [0, 1]
        """,
    "in an object, and two views of one without a name": """
        class H:
            def __init__(self):
                self.full = np.zeros(3)
                self.part = self.full[1:]
        h = H()
        one = np.arange(4)[1:]
        other = one.base[:2]
        def task():
            h.part[0] = 5
            one[0] = 9
            return h.full.tolist(), other.tolist()
        with Worker() as worker: assert worker.call(task) == ([0, 5, 0], [0, 9])
        """,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_in_two_processes(name, tmp_path):
    run_main("import numpy as np\n" + dedent(PROGRAMS[name]), tmp_path)
