"""A fork is a call where no worker is idle, and a function stays what it is."""

from __future__ import annotations

import mmap

import pytest

import remote_executor.parallel as p
from remote_executor.net.in_task import here


@p.parallel_function
def fib(n):
    """Count rabbits."""
    if n < 2:
        return n
    smaller = fib.fork(n - 2)
    return fib(n - 1) + smaller.result()


def test_outside_of_a_task_a_fork_is_a_call():
    assert fib(12) == 144
    assert p.fork(pow, 2, 5).result() == 32
    assert p.fork(int, "11", base=2).result() == 3


def test_a_function_stays_what_it_is():
    assert (fib.__name__, fib.__doc__) == ("fib", "Count rabbits.")
    assert type(fib) is type(test_a_function_stays_what_it_is)


def test_the_error_of_a_fork_is_kept_for_its_result():
    failed = p.fork(int, "x")

    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            failed.result()


def test_an_exit_is_no_result():
    with pytest.raises(SystemExit):
        p.fork(exit, 3)


def test_while_all_slots_are_used_nobody_is_asked(monkeypatch):
    def refuse():
        raise AssertionError("the task was asked for")

    page = mmap.mmap(-1, mmap.PAGESIZE)
    monkeypatch.setattr(here, "idle", page)
    monkeypatch.setattr(here, "open", refuse)
    monkeypatch.setattr(here, "task", refuse)
    assert p.fork(pow, 2, 5).result() == 32

    page[0] = 1
    with pytest.raises(AssertionError, match="asked for"):
        p.fork(pow, 2, 5)


def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError, match="for functions"):
        p.parallel_function(3)  # type: ignore[type-var]
