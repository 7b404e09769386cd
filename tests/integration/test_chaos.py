"""Seconds of ``python -m tests.support.chaos``, which by hand runs for minutes."""

from __future__ import annotations

import pytest

from tests.support import chaos
from tests.support.tools import require_module


@pytest.mark.no_leak_check("a test that fails leaves servers in trouble behind")
@pytest.mark.parametrize(
    "name",
    [
        "mixed",
        pytest.param("submit", marks=pytest.mark.slow),
        pytest.param("tls", marks=pytest.mark.slow),
        pytest.param("grace", marks=pytest.mark.slow),
    ],
)
def test_no_task_is_lost_hung_wrong_or_doubled(name, token_file, tmp_path):
    if name == "tls":
        require_module("cryptography", "the extra tls")

    report = chaos.run(chaos.SCENARIOS[name], seconds=6, seed=11, folder=tmp_path)

    assert report.clean, report
    assert report.troubles
    assert report.ended["result"] > 100
