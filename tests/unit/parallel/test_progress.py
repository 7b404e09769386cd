"""The progress bar, and what stands in for it."""

from __future__ import annotations

import io
import sys

import pytest

from remote_executor.parallel import make_kernel, pmap
from remote_executor.parallel.progress import watched
from remote_executor.parallel.serial import SerialExecutor


@pytest.fixture
def no_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)


def test_without_tqdm_a_line_tells_how_many(no_tqdm, capsys):
    assert list(watched("abcd", 4, "letters")) == list("abcd")

    shown = capsys.readouterr().err
    assert "letters: 4 of 4 (100%)" in shown
    assert shown.endswith("\n")


def test_the_line_ends_as_well_when_nobody_reads_on(no_tqdm, capsys):
    items = watched("abcd", None, "letters")
    next(items)
    next(items)
    items.close()

    shown = capsys.readouterr().err
    assert "letters: 1," in shown
    assert shown.endswith("\n")


@pytest.mark.parametrize("stream", [None, "closed"])
def test_no_stderr_is_no_trouble(no_tqdm, monkeypatch, stream):
    if stream:
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)

    assert list(watched("ab", 2, "letters")) == ["a", "b"]


def test_tqdm_is_used_where_it_is(require_module, capsys):
    require_module("tqdm")

    assert list(watched("abcd", 4, "letters")) == list("abcd")
    shown = capsys.readouterr().err
    assert "4/4" in shown


def test_pmap_shows_items(no_tqdm, capsys):
    with make_kernel(SerialExecutor()):
        assert pmap(abs, range(-3, 0), progress=True) == [3, 2, 1]

    shown = capsys.readouterr().err
    assert "abs: 3 of 3 (100%)" in shown
