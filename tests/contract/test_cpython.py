"""CPython's own tests of concurrent.futures, run on FarmExecutor."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from remote_executor import FarmExecutor
from tests.contract import adapter

pytestmark = pytest.mark.slow

found = adapter.find()

if found:
    globals().update(adapter.build(found, FarmExecutor, "remote_executor", __name__))


def test_cpython_has_its_tests():
    # Without them nothing runs here: say so.
    adapter.require_tests()


@pytest.mark.parametrize("name", sorted(adapter.DIFFERENCES))
def test_each_difference_is_a_case_of_this_version(name):
    difference = adapter.DIFFERENCES[name]
    cases = adapter.cases(adapter.require_tests())

    assert name in cases or not difference.expected(sys.version_info[:2])
    assert difference.reason


def test_each_difference_has_its_own_test():
    text = Path(__file__).with_name("test_differences.py").read_text(encoding="utf-8")
    named = {difference.ours for difference in adapter.DIFFERENCES.values() if difference.ours}

    assert {name for name in named if f"\ndef {name}(" not in text} == set()
