"""Cognates in one thread while another imports numpy or pandas: their types are not there yet."""

from __future__ import annotations

import operator
import sys
import types
from concurrent.futures import ThreadPoolExecutor

import pytest

from remote_executor.parallel import pmap, pmap_into, preduce, premove_if, psort


@pytest.fixture
def executor(monkeypatch):
    for name in ("numpy", "pandas"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    with ThreadPoolExecutor(2) as executor:
        yield executor


def test_cognates_take_plain_sequences_all_the_same(executor):
    numbers = [3, 1, 2]
    target = [0, 0, 0]

    assert pmap(abs, numbers, executor=executor) == [3, 1, 2]
    assert psort(numbers, executor=executor) == [1, 2, 3]
    assert preduce(operator.add, numbers, executor=executor) == 6
    assert premove_if(lambda number: number == 1, numbers, executor=executor) == [3, 2]
    assert pmap_into(target, abs, numbers, executor=executor) == [3, 1, 2]
