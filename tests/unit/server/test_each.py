"""A batch in which an item that fails does not end the others."""

from __future__ import annotations

import pickle
import threading

import pytest

from remote_executor.payload.failures import decode_failure
from remote_executor.server.each import pack_each, run_each


def third(x):
    return 6 // x


def opened(packed):
    body, buffers, failed = packed
    values = pickle.loads(body, buffers=buffers)
    failures = pickle.loads(failed[1]) if failed else []
    return values, {index: decode_failure(*rest) for index, *rest in failures}


def test_the_others_go_on():
    values, failures = run_each(third, [1, 0, 2, 0], False, lambda _: False)

    assert values == [6, 3]
    assert [(index, type(exc)) for index, exc in failures] == [
        (1, ZeroDivisionError),
        (3, ZeroDivisionError),
    ]


def test_rows_of_arguments_and_a_stop_iteration():
    values, failures = run_each(
        lambda a, b: next(iter(a)) + b, [([1], 2), ([], 3)], True, lambda _: False
    )

    assert values == [3]
    assert type(failures[0][1]) is StopIteration


def test_what_is_meant_for_the_batch_ends_it():
    def kill(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_each(kill, [1], False, lambda exc: isinstance(exc, KeyboardInterrupt))


def test_all_goes_along():
    values, failures = opened(pack_each(*run_each(third, [1, 0, 2], False, lambda _: False)))

    assert values == [6, 3]
    assert list(failures) == [1]
    assert "third" in str(failures[1].__cause__)
    assert "run_each" not in str(failures[1].__cause__)


def test_without_failures_there_is_no_list_of_them():
    assert pack_each([1, 2], [])[2] is None


def test_a_value_that_cannot_be_pickled_fails_alone():
    lock = threading.Lock()
    values, failures = opened(pack_each([1, lock, 3], [(1, ValueError("x"))]))

    assert values == [1, 3]
    assert [(i, type(each).__name__) for i, each in failures.items()] == [
        (1, "ValueError"),
        (2, "PayloadError"),
    ]
