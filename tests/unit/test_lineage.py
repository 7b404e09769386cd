"""What a process's environment tells about those that have started it."""

from __future__ import annotations

import pytest

from remote_executor.lineage import DEPTH, MARK, MAX_DEPTH, check_depth, depth, take_off_mark


@pytest.mark.parametrize(("text", "deep"), [(None, 0), ("", 0), ("3", 3), ("-1", 0), ("x", 0)])
def test_depth_is_read_from_the_environment(monkeypatch, text, deep):
    monkeypatch.delenv(DEPTH, raising=False)
    if text is not None:
        monkeypatch.setenv(DEPTH, text)

    assert depth() == deep


def test_executors_may_be_so_deep_and_no_deeper(monkeypatch):
    monkeypatch.setenv(DEPTH, str(MAX_DEPTH - 1))
    check_depth()

    monkeypatch.setenv(DEPTH, str(MAX_DEPTH))
    with pytest.raises(RecursionError, match="executors within executors, 10 deep"):
        check_depth()


def test_the_mark_is_taken_off_once_or_never(monkeypatch):
    monkeypatch.setenv(MARK, "/usr/bin/python3")

    take_off_mark()
    take_off_mark()

    monkeypatch.setenv(MARK, "")  # so that monkeypatch removes it in the end
