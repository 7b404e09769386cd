"""Lambdas of imported modules see their module's state; deftask sends a definition alone."""

from __future__ import annotations

import importlib
import sys

import pytest

from remote_executor import FarmExecutor
from tests.support.scale import scaled

LIMIT = scaled(20)

STATEFUL = """
import os

MODEL = None
COUNT = 0
NAMES = ()


def initialize(value):
    global MODEL, LATER, COUNT
    MODEL, LATER = value, value * 2
    COUNT += 1


def get():
    return MODEL, COUNT


use = lambda: (MODEL, COUNT)
later = lambda: LATER
with_a_module = lambda: (MODEL, os.getpid() > 0)
plain = lambda x: x + 1


def make():
    def nested():
        return MODEL, COUNT
    return nested


def set_count(value):
    global COUNT
    COUNT = value
"""

AT_HOME_ONLY = """
import {helper}
from remote_executor import deftask

FACTOR = 7


@deftask
def scaled(x, by=2):
    return x * by * FACTOR


@deftask
def shaped(x):
    import math
    return math.floor(x) + FACTOR


def usual(x):
    return x * FACTOR
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that makes a module that can be imported here."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def make(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        made.append(name)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield make
    for name in made:
        sys.modules.pop(name, None)


def test_lambdas_and_nested_functions_see_what_an_initializer_has_set(module):
    made = module("stateful_by_initializer", STATEFUL)
    with FarmExecutor(1, initializer=made.initialize, initargs=(5,)) as executor:
        for function in (made.get, made.use, made.make()):
            assert executor.submit(function).result(LIMIT) == (5, 1), function
        assert executor.submit(made.later).result(LIMIT) == 10, "also a name that home lacks"
        assert executor.submit(made.with_a_module).result(LIMIT) == (5, True)
        assert list(executor.map(made.plain, [1, 2])) == [2, 3]
    assert made.get() == (None, 0)


def test_lambdas_see_what_a_broadcast_and_a_task_have_set(module):
    made = module("stateful_by_broadcast", STATEFUL)
    with FarmExecutor(1) as executor:
        assert executor.submit(made.use).result(LIMIT) == (None, 0)
        executor.broadcast(made.initialize, 6)
        assert executor.submit(made.use).result(LIMIT) == (6, 1)
        executor.submit(made.set_count, 9).result(LIMIT)
        assert executor.submit(made.make()).result(LIMIT) == (6, 9)


def test_lambdas_of_a_module_that_the_worker_gets_from_us(module, serve):
    made = module("stateful_and_served", STATEFUL)
    with FarmExecutor(addresses=serve(workers=1).address) as executor:
        executor.broadcast(made.initialize, 7)
        assert executor.submit(made.use).result(LIMIT) == (7, 1)


def test_lambdas_of_a_module_that_the_worker_cannot_have_are_sent_with_what_they_name(
    module, serve
):
    made = module("stateful_and_never_served", STATEFUL)
    with FarmExecutor(addresses=serve(workers=1).address, modules="never") as executor:
        assert executor.submit(made.use).result(LIMIT) == (None, 0)
        assert executor.submit(made.with_a_module).result(LIMIT) == (None, True)
        assert executor.submit(made.plain, 1).result(LIMIT) == 2


def test_deftask_sends_the_definition_alone(module, serve):
    module("what_only_home_has", "")
    made = module("module_at_home", AT_HOME_ONLY.format(helper="what_only_home_has"))
    with FarmExecutor(addresses=serve(workers=1).address, modules="never") as executor:
        assert isinstance(executor.submit(made.usual, 1).exception(LIMIT), Exception)
        assert executor.submit(made.scaled, 3).result(LIMIT) == 42
        assert list(executor.map(made.scaled, [1, 2], [1, 1])) == [7, 14]
        assert executor.submit(made.shaped, 1.5).result(LIMIT) == 8
        made.FACTOR = 10
        assert executor.submit(made.scaled, 3).result(LIMIT) == 60, "as it is now"


@pytest.mark.parametrize("how", ["-c", "stdin"])
def test_deftask_in_a_program_without_a_file_is_no_worse_than_a_plain_submit(how):
    import subprocess

    from .conftest import environment

    source = (
        "from remote_executor import FarmExecutor, deftask\n"
        "@deftask\n"
        "def double(x): return x * 2\n"
        "with FarmExecutor(1) as executor:\n"
        "    print(executor.submit(double, 21).result())\n"
    )
    arguments = ["-c", source] if how == "-c" else ["-"]
    done = subprocess.run(
        [sys.executable, *arguments],
        input=source if how == "stdin" else None,
        capture_output=True,
        text=True,
        timeout=scaled(30),
        env=environment(),
        check=False,
    )
    assert done.stdout.strip() == "42", done.stderr
