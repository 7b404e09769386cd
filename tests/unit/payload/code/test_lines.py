"""Lines of the client's files in a worker."""

from __future__ import annotations

import linecache
import traceback

import pytest

from remote_executor.payload.code import lines

TEXT = ["def f():\n", "    return 1 / 0\n"]


@pytest.fixture
def asked(monkeypatch):
    """Be a worker whose client knows one file; return what it was asked."""
    questions = []

    def ask(file):
        questions.append(file)
        return TEXT if file == "/nowhere/program.py" else None

    monkeypatch.setattr(lines, "files", {})
    monkeypatch.setattr(lines, "_asked", {})
    monkeypatch.setattr(linecache, "cache", {})
    monkeypatch.setattr(linecache, "updatecache", linecache.updatecache)
    monkeypatch.setattr(lines, "_ask", None)
    monkeypatch.setattr(lines, "_fall_back", None)
    lines.ask_by(ask, lambda file: linecache.cache.update({file: (1, None, ["part\n"], file)}))
    lines.take_over()
    return questions


def test_lines_are_asked_for_once_when_they_are_wanted(asked):
    assert lines.note("/nowhere/program.py")
    assert asked == []
    assert linecache.getline("/nowhere/program.py", 2) == TEXT[1]
    linecache.checkcache()
    assert linecache.getlines("/nowhere/program.py") == TEXT
    linecache.clearcache()
    assert linecache.getlines("/nowhere/program.py") == TEXT
    assert asked == ["/nowhere/program.py"]


def test_a_traceback_shows_them(asked):
    lines.note("/nowhere/program.py")
    space = {}
    exec(compile("".join(TEXT), "/nowhere/program.py", "exec"), space)
    with pytest.raises(ZeroDivisionError) as caught:
        space["f"]()
    assert traceback.extract_tb(caught.value.__traceback__)[-1].line == "return 1 / 0"


def test_of_another_file_nobody_is_asked(asked):
    lines.note("/nowhere/program.py")
    assert linecache.getline(__file__, 1).startswith('"""Lines')
    assert asked == []


def test_what_the_client_does_not_tell_is_looked_for_here(asked):
    lines.note(__file__)
    assert linecache.getline(__file__, 1).startswith('"""Lines')
    lines.note("/nowhere/other.py")
    assert linecache.getlines("/nowhere/other.py") == ["part\n"]
    assert asked == [__file__, "/nowhere/other.py"]


def test_files_that_came_before_linecache_are_known_to_it(asked, monkeypatch):
    lines.files["<cell 1>"] = None
    lines.take_over()
    assert "<cell 1>" in linecache.cache
    assert lines.Asked("/nowhere/program.py")() == ""  # no code of it has come
    lines.note("/nowhere/program.py")
    assert lines.Asked("/nowhere/program.py")() == "".join(TEXT)


def test_without_a_client_nothing_is_promised(asked):
    lines.ask_by(None)
    assert not lines.note("/nowhere/program.py")


def test_the_programs_file_is_one_of_them(asked, monkeypatch):
    import sys
    import types

    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert lines.file_of_main() is None
    main.__file__ = "/nowhere/main.py"
    assert lines.file_of_main() == "/nowhere/main.py"
    assert "/nowhere/main.py" in lines.files
