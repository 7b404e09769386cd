"""What hypothesis composes is a program, and a farm runs it as home does: some of them."""

from __future__ import annotations

import sys
from contextlib import closing, redirect_stdout
from io import StringIO
from types import ModuleType

import hypothesis
import pytest

from tests.oracle.composed import programs
from tests.oracle.runner import HERE, Oracle


@pytest.fixture(scope="module")
def helper():
    sys.path.insert(0, str(HERE / "helper"))
    import oracle

    yield oracle
    sys.path.remove(str(HERE / "helper"))
    del sys.modules["oracle"]


@hypothesis.given(programs())
@hypothesis.settings(
    max_examples=50,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_composed_programs_run_at_home(helper, program):
    helper.SHOWN.clear()
    helper.close()
    space = ModuleType("composed_program")
    sys.modules["composed_program"] = space
    try:
        with redirect_stdout(StringIO()):
            exec(compile(program.text, "composed.py", "exec"), vars(space))
    finally:
        del sys.modules["composed_program"]
    assert len(helper.SHOWN) == program.text.count("show(ex.submit") > 0


@pytest.mark.timeout(180)
def test_a_farm_runs_a_sample_of_them_as_home_does(tmp_path):
    with closing(Oracle(tmp_path, [], ["elsewhere"])) as oracle:

        @hypothesis.given(programs())
        @hypothesis.settings(max_examples=8, derandomize=True, database=None, deadline=None)
        def check(program):
            verdict = oracle.judge(program)["elsewhere"]
            assert verdict.word != "wrong", f"{program.text}\n{verdict.reason}"

        check()
