"""Ranges of indices: unique, from 0, kept by who is away and given on by who has left."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remote_executor.core.places import Places


def test_servers_have_ranges_one_after_the_other():
    places = Places()

    assert [places.allot(name, 2) for name in "abc"] == [0, 2, 4]


def test_a_server_that_comes_back_has_its_range():
    places = Places()
    places.allot("a", 2)
    places.allot("b", 3)

    assert places.allot("a", 2) == 0
    assert places.allot("b", 1) == 2


def test_one_that_comes_back_with_more_workers_has_another():
    places = Places()
    places.allot("a", 2)
    places.allot("b", 3)

    assert places.allot("a", 4) == 5
    assert places.allot("c", 2) == 0


def test_the_range_of_one_that_has_left_is_given_to_whom_it_is_large_enough_for():
    places = Places()
    for name in "abc":
        places.allot(name, 2)
    places.free("b")
    places.free("nobody")

    assert places.allot("d", 3) == 6
    assert places.allot("e", 2) == 2


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 5))))
def test_ranges_never_overlap(steps):
    places = Places()
    held = {}
    for name, count in steps:
        if count:
            start = places.allot(name, count)
            if name in held and held[name][0] == start:
                count = max(count, held[name][1])
            held[name] = start, count
        else:
            places.free(name)
            held.pop(name, None)
        indices = [i for start, count in held.values() for i in range(start, start + count)]
        assert len(indices) == len(set(indices))
