"""Which libraries there are, and which of them a pickle names."""

from __future__ import annotations

import os
import pickle

from remote_executor.payload.libraries import changed, installed, modules_named


def test_installed_libraries_are_found_by_their_folders(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for name in ("A_b.C-1.0.dist-info", "old-2.0-py3.10.egg-info", "odd.dist-info", "module"):
        (one / name).mkdir(parents=True)
    for name in ("a_b_c-3.0.dist-info", "more-4.dist-info"):
        (other / name).mkdir(parents=True)
    path = [str(one), str(tmp_path / "not there"), str(other)]

    assert installed(path) == {"a-b-c": "1.0", "old": "2.0", "more": "4"}
    assert "cloudpickle" in installed()


def test_an_empty_entry_is_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "here-1.dist-info").mkdir()
    monkeypatch.chdir(tmp_path)

    assert installed([""]) == {"here": "1"}


def test_entries_that_are_no_folders_are_passed_over(tmp_path):
    (tmp_path / "attrs-23.1.dist-info").mkdir()

    path = [str(tmp_path / "missing"), "a\0b", None, 7, os.fsencode(tmp_path)]

    assert installed(path) == {"attrs": "23.1"}


def test_a_pickle_names_its_modules():
    body = pickle.dumps((pickle.PickleError, "some.text", "more words", 3), 5)

    assert {"_pickle", "some"} <= modules_named(body)
    assert "more words" not in modules_named(body)
    assert "_pickle" in modules_named(memoryview(body)[:40])
    assert modules_named(b"") == set()


def test_libraries_that_differ_and_are_named_count():
    """K68: with the versions of both ends."""
    body = pickle.dumps(["cloudpickle.cloudpickle", "not_installed"], 5)
    ours = {"cloudpickle": "1", "not-installed": "1", "pytest": "1", "same": "1"}
    theirs = {"cloudpickle": "2", "not-installed": "3", "pytest": "2", "same": "1"}

    assert changed([b"", body], ours, theirs) == [
        ("cloudpickle", "1", "2"),
        ("not-installed", "1", "3"),
    ]
    assert changed([body], ours, ours) == []
    assert changed([body], ours, {}) == []
