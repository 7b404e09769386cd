"""A map's results say how many are still to come, as far as that is known."""

from __future__ import annotations

import operator

import pytest


def small(x):
    return x


def large(x):
    return f"{x:100}"


@pytest.mark.parametrize("fn", [small, large])
@pytest.mark.parametrize("kind", [range, lambda n: [*range(n)], lambda n: iter([*range(n)])])
@pytest.mark.parametrize("buffersize", [None, 3])
def test_how_many_results_are_to_come(farm, fn, kind, buffersize):
    results = farm.map(fn, kind(50), buffersize=buffersize)

    hints = []
    for _ in range(51):
        hints.append(operator.length_hint(results))
        next(results, None)

    assert hints == [*range(50, -1, -1)]


def test_of_what_has_no_length_what_is_known_is_said(farm):
    results = farm.map(small, (n for n in range(50)), buffersize=3)

    assert operator.length_hint(results) == 3
    assert list(results) == [*range(50)]
    assert operator.length_hint(results) == 0


def test_nothing_is_to_come_of_what_was_left_or_could_not_begin(farm):
    results = farm.map(small, range(50))
    next(results)
    results.close()

    assert operator.length_hint(results) == 0
    assert operator.length_hint(farm.map(small, [])) == 0
