"""What tells one copy of a module from another."""

from __future__ import annotations

from remote_executor.payload import copy_digests
from remote_executor.payload.copy_digests import copy_digest, file_signature


def test_equal_files_in_two_places_have_one_digest(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "__init__.py").write_text("X = 1\n")
        (tmp_path / folder / "sub" / "part.py").write_text("Y = 1\n")
    a, b = (str(tmp_path / folder) for folder in ("a", "b"))
    assert copy_digest(None, a) == copy_digest(None, b)
    (tmp_path / "b" / "data.txt").write_text("no source")
    (tmp_path / "b" / "__pycache__").mkdir()
    (tmp_path / "b" / "__pycache__" / "part.py").write_text("Z = 1\n")
    assert copy_digest(None, a) == copy_digest(None, b), "only what is imported counts"
    (tmp_path / "b" / "sub" / "fresh.py").write_text("")
    assert copy_digest(None, a) != copy_digest(None, b)


def test_text_cannot_move_from_file_to_file(tmp_path):
    for folder, first, second in (("a", "X", "YZ"), ("b", "XY", "Z")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.py").write_text(first)
        (tmp_path / folder / "two.py").write_text(second)
    assert copy_digest(None, str(tmp_path / "a")) != copy_digest(None, str(tmp_path / "b"))


def test_a_single_file(tmp_path):
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("X = 1\n")
    a, b = str(tmp_path / "a.py"), str(tmp_path / "b.py")
    assert copy_digest(a, None) == copy_digest(b, None)
    (tmp_path / "b.py").write_text("X = 2\n")
    assert copy_digest(a, None) != copy_digest(b, None)


def test_what_cannot_be_read_or_is_too_much_has_none(tmp_path, monkeypatch):
    assert copy_digest(None, None) != copy_digest(str(tmp_path / "gone.py"), None) is None
    (tmp_path / "a.py").write_text("X = 1\n")
    (tmp_path / "b.py").write_text("X = 1\n")
    monkeypatch.setattr(copy_digests, "MAX_FILES", 1)
    assert copy_digest(None, str(tmp_path)) is None
    monkeypatch.setattr(copy_digests, "MAX_FILES", 10)
    monkeypatch.setattr(copy_digests, "MAX_BYTES", 3)
    assert copy_digest(None, str(tmp_path)) is None


def test_a_file_is_known_by_its_links_too(tmp_path):
    (tmp_path / "a.py").write_text("X = 1\n")
    (tmp_path / "link.py").symlink_to("a.py")
    (tmp_path / "b.py").write_text("X = 1\n")
    signature = file_signature(str(tmp_path / "a.py"))
    assert signature == file_signature(str(tmp_path / "link.py"))
    assert signature != file_signature(str(tmp_path / "b.py"))
    assert file_signature(str(tmp_path / "gone.py")) is None
