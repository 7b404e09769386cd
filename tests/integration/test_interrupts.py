"""No interrupt, wherever it falls, leaves anything taken: see tests/support/interrupts.py."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.interrupts import CASES
from tests.support.pythons import MINORS, environment, find_pythons
from tests.support.scale import scaled

FEW = 15
MANY = 500
GROUPS = 4
"""The short runs are made in so many programs, which several workers can share."""


def run(python, count, names, folder):
    done = subprocess.run(
        [python, "-m", "tests.support.interrupts", str(count), *names],
        env={**environment(folder), "PYTHONFAULTHANDLER": "1"},
        capture_output=True,
        text=True,
        timeout=scaled(60) if count == FEW else scaled(900),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) > count, "hardly anything was interrupted"
    return done


@pytest.mark.timeout(90)
@pytest.mark.parametrize("group", range(GROUPS))
def test_interrupts_of_each_public_call_lose_nothing(tmp_path, group):
    run(sys.executable, FEW, [*CASES][group::GROUPS], tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("minor", MINORS)
def test_500_interrupts_of_each_public_call_lose_nothing(tmp_path, minor):
    python = find_pythons().get(f"3.{minor}")
    if python is None:
        pytest.skip(f"Python 3.{minor} is not installed")
    run(python, MANY, [], tmp_path)


# ---------------------------------------------------------- handlers and finalizers


def run_reentry(how, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.reentry", how],
        env={**environment(tmp_path), "PYTHONFAULTHANDLER": "1"},
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.timeout(90)
def test_public_calls_in_a_finalizer_in_the_middle_of_public_calls(tmp_path):
    """``__del__`` runs where the garbage collector pleases: here within every few allocations."""
    assert int(run_reentry("finalizer", tmp_path).split()[-1]) > 50


@pytest.mark.timeout(90)
def test_public_calls_in_a_signal_handler_in_the_middle_of_public_calls(tmp_path):
    assert int(run_reentry("handler", tmp_path).split()[-1]) > 50
