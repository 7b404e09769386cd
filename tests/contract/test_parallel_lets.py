"""Several computations at once, on every engine."""

from __future__ import annotations

import functools
import operator
from concurrent.futures import TimeoutError

import pytest

from remote_executor.parallel import pand, pfuncall, plet, por
from tests.support import parallel_tasks as tasks
from tests.support import tasks as plain_tasks
from tests.support.scale import scaled

pytestmark = pytest.mark.usefixtures("kernel")


def late(seconds, value):
    return functools.partial(tasks.late, seconds, value)


def test_plet():
    """C1."""
    first, second = plet(late(0.05, 1), late(0, 2))
    assert (first, second) == (1, 2)
    found = plet(low=functools.partial(min, [3, 1]), high=functools.partial(max, [3, 1]))
    assert (found.low, found.high) == (1, 3)
    assert plet() == ()


def test_plet_errors():
    with pytest.raises(ValueError, match="failed with 1"):
        plet(functools.partial(tasks.nap_fail, 0.1, "failed with 1"), late(0, 2), tasks.fail)
    with pytest.raises(TypeError, match="callable"):
        plet(1, 2)
    with pytest.raises(TypeError, match="or none of them"):
        plet(int, name=int)
    with pytest.raises(TimeoutError):
        plet(late(scaled(0.5), 1), timeout=0.05)


def test_pfuncall():
    """C43."""
    assert pfuncall(operator.sub, late(0.05, 5), late(0, 3)) == 2
    assert pfuncall(dict) == {}
    with pytest.raises(TypeError, match="callable"):
        pfuncall(42, int)


def test_por_gives_the_first_true_one_to_finish(tmp_path):
    """C37."""
    release = tmp_path / "release"
    waits = functools.partial(plain_tasks.hold, tmp_path / "started", release, "late")
    assert por(waits, late(0, "soon")) == "soon"
    release.touch()
    assert por(late(0, 0), late(0.05, ""), late(0.1, "true")) == "true"
    assert por(late(0, 0), late(0.2, "")) == ""
    assert por() is None


def test_pand_gives_the_last_one_to_finish_or_the_first_false_one():
    """C37."""
    assert pand(late(0.3, "last"), late(0, "first")) == "last"
    assert pand(late(0.2, "never waited for"), late(0, 0)) == 0
    assert pand() is True


def test_an_error_before_the_answer():
    with pytest.raises(ValueError, match="failed"):
        por(tasks.fail, late(0.2, True))


def test_an_error_after_the_answer():
    assert por(functools.partial(tasks.nap_fail, scaled(0.3), 1), late(0, True)) is True


def test_a_decision_needs_functions():
    with pytest.raises(TypeError, match="callable"):
        pand(42)


def test_the_names_of_computations_are_free():
    """Also those of the options, as long as what they name can be called."""
    found = plet(timeout=functools.partial(int, 1), executor=functools.partial(int, 2))
    assert (found.timeout, found.executor) == (1, 2)

    found = plet(self=int, args=str, thunks=list, timeout=tuple, named=dict)
    assert vars(found) == {"self": 0, "args": "", "thunks": [], "timeout": (), "named": {}}

    with pytest.raises(TypeError, match="or none of them"):
        plet(int, timeout=int)
    with pytest.raises(TypeError, match="timeout must be a number"):
        plet(low=int, timeout="1")


def test_the_options_are_options_still(engine):
    assert plet(low=int, timeout=30, executor=engine).low == 0
    assert plet(int, timeout=30.0, executor=engine) == (0,)
