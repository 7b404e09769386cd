"""Include lines, filled in."""

from __future__ import annotations

import pytest

from remote_executor.launch.ssh_config import expand, include_paths, read_file

FILES = {"one": "User a\n", "two": "Include one\nHost x\n  Port 3\n", "loop": "Include loop\n"}


def filled(text, applies=lambda block: True):
    return expand(text, applies, str.split, FILES.__getitem__).splitlines()


def test_what_includes_nothing_stays_as_it_is():
    text = "# Include one\nHost a\n\n  HostName b  \n"

    assert filled(text) == text.splitlines()


@pytest.mark.parametrize("line", ["Include one", "  include=one", "INCLUDE = one", "Include\tone"])
def test_a_file_stands_where_its_line_stood(line):
    assert filled(f"Port 1\n{line}\nPort 2\n") == ["Port 1", "User a", "Host *", "Port 2"]


def test_files_in_files():
    assert filled("Include two") == ["User a", "Host *", "Host x", "  Port 3", "Host *"]


def test_a_block_goes_on_after_what_it_includes():
    assert filled("Host a\nInclude two one\nPort 1") == [
        *("Host a", "User a", "Host *", "Host x", "  Port 3", "User a", "Host a", "Port 1"),
    ]


def test_a_block_for_another_host_includes_nothing():
    seen = []

    def applies(block):
        seen.append(block)
        return False

    assert filled("Match host b\nInclude one\n Port 1", applies) == ["Match host b", " Port 1"]
    assert seen == ["Match host b"]


def test_a_file_that_includes_itself():
    with pytest.raises(ValueError, match="deep"):
        filled("Include loop")


def test_paths(tmp_path):
    for name in ("b.conf", "a.conf", "with blank"):
        (tmp_path / name).write_text(name)
    (tmp_path / "d.conf").mkdir()
    here = str(tmp_path)

    assert include_paths("*.conf", here) == [f"{here}/a.conf", f"{here}/b.conf"]
    assert include_paths(f'"with blank" {here}/a.conf', here) == [
        f"{here}/with blank",
        f"{here}/a.conf",
    ]
    assert include_paths("none", here) == []


def test_a_file_in_some_other_encoding(tmp_path):
    (tmp_path / "config").write_bytes(b"# caf\xe9\nHost a\n")

    assert read_file(str(tmp_path / "config")).endswith("Host a\n")
