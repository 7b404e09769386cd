"""CPython's own tests of ``multiprocessing.Pool``, run on ``remote_executor.Pool``."""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import sys
import unittest
import unittest.mock
from pathlib import Path
from typing import NamedTuple

import pytest

from remote_executor import Pool
from tests.support.tools import missing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.no_leak_check("the cases of a class share a pool"),
    # It is forked by none of these cases; CPython's module imports what is deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

MODULE = "test._test_multiprocessing"
SUITES = ("_TestPool", "_TestPoolWorkerErrors", "_TestPoolWorkerLifetime")
OURS = Path(__file__).parents[1] / "integration" / "test_pool.py"


class Difference(NamedTuple):
    """
    A case of CPython's that is left out.

    Attributes:
        reason: Why.
        ours: Our test of our own meaning, in ``tests/integration/test_pool.py``.
    """

    reason: str
    ours: str


DIFFERENCES = {
    "_TestPool.test_make_pool": Difference(
        "it counts the private _pool", "test_wrong_arguments_and_the_number_of_workers"
    ),
    "_TestPoolWorkerErrors.test_unpickleable_result": Difference(
        "its result, a lambda, travels", "test_a_result_that_cannot_be_pickled"
    ),
    "_TestPoolWorkerLifetime.test_pool_worker_lifetime": Difference(
        "it looks at the private _pool", "test_workers_are_replaced_after_so_many_calls"
    ),
    "_TestPoolWorkerLifetime.test_worker_finalization_via_atexit_handler_of_multiprocessing": (
        Difference(
            "its script makes a pool of multiprocessing", "test_a_script_that_forgets_its_pool"
        )
    ),
}


def find():
    """Return CPython's module, None where it is not installed."""
    try:
        if importlib.util.find_spec(MODULE) is None:
            return None
        return importlib.import_module(MODULE)
    except (ImportError, unittest.SkipTest):
        return None


def build(module):
    """Join CPython's classes to our pool; return the classes by name."""
    classes = {}
    for suite in SUITES:
        tests = getattr(module, suite)
        body = {
            "TYPE": "processes",
            "Pool": Pool,
            "__module__": __name__,
            "setUp": _patched,
        }
        for name in dir(tests):
            difference = DIFFERENCES.get(f"{suite}.{name}")
            if difference is not None:
                body[name] = unittest.skip(f"by design: {difference.reason}")(lambda self: None)
        classes["Farm" + suite.strip("_")] = type(
            "Farm" + suite.strip("_"), (tests, unittest.TestCase), body
        )
    return classes


def _patched(self):
    """Have what makes a ``multiprocessing.Pool`` by that name make one of ours."""
    patch = unittest.mock.patch.object(multiprocessing, "Pool", Pool)
    patch.start()
    self.addCleanup(patch.stop)


found = find()

if found is not None:
    globals().update(build(found))


def test_cpython_has_its_tests():
    if found is None:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        missing(f"{MODULE} of Python {version}", f"Debian: libpython{version}-testsuite")


@pytest.mark.parametrize("name", DIFFERENCES)
def test_each_difference_is_a_case_and_has_a_test_of_its_own(name):
    suite, _, case = name.partition(".")
    if found is not None:
        assert hasattr(getattr(found, suite), case)
    assert f"\ndef {DIFFERENCES[name].ours}(" in OURS.read_text(encoding="utf-8")
