"""A short run of the hostile server; ``python -m tests.fuzz.hostile_server`` is the long one."""

from __future__ import annotations

import os

import pytest

from tests.fuzz.hostile_server import fuzz

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="servers need fork")


@pytest.mark.parametrize("seed", [1, 1000, 2000, 3000])
def test_what_a_server_says_costs_that_server_only(seed):
    report = fuzz(seed, rounds=12)

    assert report.settled >= 12
    assert report.is_clean, str(report)
