"""The file of a journal."""

from __future__ import annotations

import os
import sqlite3
import threading

import pytest

from remote_executor.errors import JournalError, PayloadError
from remote_executor.journal import store
from remote_executor.journal.keys import Identity
from remote_executor.journal.store import Journal

F = Identity("m.f", {"the code of the function": "1"})
G = Identity("m.f", {"the code of the function": "2"})


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "run.db")
    yield made
    made.close()


def get(journal, *keys):
    found = journal.present(keys)
    return dict(zip(found, journal.load(list(found.items())), strict=True))


def test_what_was_put_is_there_for_others(journal):
    journal.put(F, [(b"a", 1), (b"b", [2, {"x"}])])
    other = Journal(journal.path)

    assert get(other, b"a", b"b", b"c") == {b"a": 1, b"b": [2, {"x"}]}
    other.close()


def test_a_file_that_is_not_there_has_nothing(journal):
    assert journal.present([b"a"]) == {}
    assert journal.entries() == []
    assert journal.changes(F) is None


def test_many_keys_at_once(journal):
    keys = [str(i).encode() for i in range(2000)]
    journal.put(F, [(key, int(key)) for key in keys])

    assert get(journal, *keys) == {key: int(key) for key in keys}


@pytest.mark.parametrize("count", [10, 10_000, 200_000])
def test_arrays(journal, count):
    numpy = pytest.importorskip("numpy")
    journal.put(F, [(b"a", numpy.arange(count))])

    found = get(journal, b"a")[b"a"]

    assert (found == numpy.arange(count)).all()
    found[0] = 5  # as any result


def test_large_results_are_files_beside(journal, monkeypatch):
    monkeypatch.setattr(store, "MAX_INSIDE", 10_000)
    journal.put(F, [(b"a", b"x" * 100_000), (b"b", 1)])
    (name,) = os.listdir(journal.folder)
    assert os.path.getsize(journal.path) < 100_000

    assert get(journal, b"a")[b"a"] == b"x" * 100_000
    assert [each.file for each in journal.entries()] == [name, None]
    assert journal.remove([b"a"]) == 1
    assert os.listdir(journal.folder) == []
    assert get(journal, b"a", b"b") == {b"b": 1}


def test_a_large_result_that_is_gone_or_cut_is_an_error_and_no_value(journal, monkeypatch):
    monkeypatch.setattr(store, "MAX_INSIDE", 10_000)
    journal.put(F, [(b"a", b"x" * 100_000)])
    path = os.path.join(journal.folder, os.listdir(journal.folder)[0])
    with open(path, "r+b") as file:
        file.truncate(50)
    with pytest.raises(JournalError, match="not whole"):
        get(journal, b"a")
    os.unlink(path)
    with pytest.raises(JournalError, match="cannot be read"):
        get(journal, b"a")


def test_a_value_that_cannot_be_pickled_keeps_none_of_its_batch(journal):
    with pytest.raises(PayloadError):
        journal.put(F, [(b"a", 1), (b"b", threading.Lock())])

    assert get(journal, b"a") == {}


def test_it_says_what_has_changed(journal):
    journal.put(F, [(b"a", 1)])

    assert journal.changes(F) is None
    assert journal.changes(G) == ["the code of the function"]
    assert journal.changes(Identity("m.other", {})) is None


def test_what_is_no_journal_is_an_error(tmp_path):
    (tmp_path / "text").write_text("no database, by no means, whatever its name may say" * 100)
    with pytest.raises(JournalError, match="not a database"):
        Journal(tmp_path / "text").put(F, [(b"a", 1)])
    with pytest.raises(JournalError, match="unable to open"):
        Journal(tmp_path / "no" / "folder").put(F, [(b"a", 1)])
    with pytest.raises(TypeError):
        Journal(5)
    with pytest.raises(TypeError, match="key must be callable"):
        Journal("x", key=5)


def test_a_later_version_is_left_alone(journal):
    journal.put(F, [(b"a", 1)])
    journal.close()
    with sqlite3.connect(journal.path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()

    with pytest.raises(JournalError, match="another version"):
        journal.present([b"a"])


def test_what_another_program_has_removed_is_an_error(journal):
    journal.put(F, [(b"a", "x" * 10_000)])
    found = list(journal.present([b"a"]).items())
    journal.remove([b"a"])

    with pytest.raises(JournalError, match="removed meanwhile"):
        journal.load(found)


def test_threads_may_share_it(journal):
    def work(start):
        for i in range(start, start + 50):
            journal.put(F, [(str(i).encode(), i)])

    threads = [threading.Thread(target=work, args=(n * 100,)) for n in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert len(journal.entries()) == 200
