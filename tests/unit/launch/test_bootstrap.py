"""What is sent to a host that has nothing but Python."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile

import pytest

from remote_executor.launch.bootstrap import (
    SCRIPT,
    boot_command,
    build_zip,
    bundle,
    first_stage,
    quote_for_any_shell,
)
from remote_executor.launch.first_stage import cache_folder, digest_of, read_zip, store_zip
from remote_executor.launch.hosts import SSHHost
from remote_executor.launch.stages import MARK

ODD = "a b'c\"d$e`f!g\\h*i~j#k(l)m[n]o{p}q;r&s|t<u>v?w=x%y^z@é"


def test_the_zip_is_always_the_same():
    assert build_zip() == build_zip() == bundle().data
    assert digest_of(bundle().data) == bundle().digest


def test_the_zip_holds_all_that_a_server_needs_and_no_compiled_code():
    names = zipfile.ZipFile(io.BytesIO(bundle().data)).namelist()

    assert names == sorted(names)
    assert {each.partition("/")[0] for each in names} == {"cloudpickle", "remote_executor", "tblib"}
    assert {
        "remote_executor/server/launched.py",
        "cloudpickle/cloudpickle.py",
        "tblib/pickling_support.py",
    } <= set(names)
    assert all(each.endswith(".py") for each in names)
    assert len(bundle().data) < 720_000  # sent once to each host


def test_shells_agree_on_the_command():
    for sign in "'\\!\n":
        assert sign not in SCRIPT


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "tcsh", "fish"])
def test_words_survive_any_shell(shell, require):
    """PARITY S7."""
    program = require(shell, f"Debian's package {shell}")
    done = subprocess.run(
        [program, "-c", f"printf %s {quote_for_any_shell(ODD)}"], capture_output=True, timeout=60
    )

    assert done.stdout.decode() == ODD


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "tcsh", "fish"])
def test_any_login_shell_gets_to_the_first_stage(shell, require, tmp_path):
    """PARITY S7, S8: it finds a Python, and that says which it is."""
    program = require(shell, f"Debian's package {shell}")
    python = tmp_path / "a 'b' $c !d \\e"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    host = SSHHost("a", python=str(python), setup="Z='a b'; test \"$Z\" = 'a b'")
    done = subprocess.run(
        [program, "-c", boot_command(host)],
        input=first_stage(bundle().digest),
        capture_output=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)},
        timeout=60,
    )
    (line,) = [line for line in done.stdout.decode().splitlines() if line.startswith(MARK)]

    assert json.loads(line.removeprefix(MARK)) == {
        "python": list(sys.version_info[:3]),
        "has_zip": False,
    }


@pytest.mark.parametrize("shell", ["sh", "zsh", "tcsh", "fish"])
@pytest.mark.parametrize("home", ["~", "$HOME", "${HOME}"])
def test_a_python_in_the_home_there(shell, home, require, tmp_path):
    program = require(shell, f"Debian's package {shell}")
    folder = tmp_path / "c d" / "bin"
    folder.mkdir(parents=True)
    (folder / "python3").symlink_to(sys.executable)
    for python, said in ((f"{home}/c d/bin/python3", '"has_zip"'), (f"{home}/no", "none")):
        done = subprocess.run(
            [program, "-c", boot_command(SSHHost("a", python=python))],
            input=first_stage(bundle().digest),
            capture_output=True,
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)},
            timeout=60,
        )
        assert said in done.stdout.decode()


def test_a_setup_line_may_call_what_login_shells_alone_have(tmp_path):
    """As "module", a function that a file in /etc/profile.d makes."""
    profile = tmp_path / "profile"
    profile.write_text("for i in 1; do module() { echo loaded $2; OF_MODULE=1; }; done\n")
    command = boot_command(SSHHost("a", setup="module load python/3.12 && export OF_MODULE"))
    command = command.replace("/etc/profile", str(profile))
    text = b"import os; print(os.environ['OF_MODULE'])"
    done = subprocess.run(
        ["sh", "-c", command], input=b"%d\n" % len(text) + text, capture_output=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (b"1\n", b"loaded python/3.12\n")
    # Of whoever needs no such thing nothing is read that may change the PATH.
    profile.write_text("echo read\n")
    for setup in (None, "A=1; export A", "export A=1", "true && B=2"):
        again = boot_command(SSHHost("a", setup=setup)).replace("/etc/profile", str(profile))
        done = subprocess.run(
            ["sh", "-c", again], input=b"%d\n" % len(b"1") + b"1", capture_output=True, timeout=60
        )
        assert b"read" not in done.stderr, setup


def test_the_mark_is_in_nothing_that_is_sent():
    """A shell that echoes what it gets is no answer."""
    assert MARK not in boot_command(SSHHost("a"))
    assert MARK.encode() not in first_stage("0" * 64)


def test_the_first_stage_is_as_long_as_it_says():
    length, _, text = first_stage("0" * 64).partition(b"\n")

    assert int(length) == len(text)
    compile(text, "first stage", "exec")


def test_cache_folder():
    assert cache_folder({"XDG_CACHE_HOME": "/x"}) == "/x/remote_executor"
    assert cache_folder({"XDG_CACHE_HOME": "x"}) == cache_folder({})
    assert cache_folder({}).endswith("/.cache/remote_executor")


@pytest.fixture
def kept(tmp_path):
    """A zip in its folder, with its digest."""
    path = tmp_path / "cache" / "a.zip"
    assert store_zip(str(path), b"data") == (str(path), "")
    return path, digest_of(b"data")


def test_what_is_stored_is_private_and_found_again(kept):
    path, digest = kept

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]
    assert read_zip(str(path), digest)


@pytest.mark.parametrize("damage", ["gone", "bytes", "file", "folder", "link"])
def test_what_cannot_be_trusted_is_not_used(kept, damage):
    path, digest = kept
    if damage == "gone":
        path.unlink()
    elif damage == "bytes":
        path.write_bytes(b"other")
    elif damage == "file":
        path.chmod(0o620)
    elif damage == "folder":
        path.parent.chmod(0o777)
    else:
        path.rename(path.with_name("b"))
        path.symlink_to(path.with_name("b"))

    assert not read_zip(str(path), digest)


def test_a_folder_that_others_can_enter_is_closed(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o777)
    store_zip(str(folder / "a.zip"), b"data")

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_no_room(tmp_path):
    (tmp_path / "file").write_text("")
    path, folder = store_zip(str(tmp_path / "file" / "a.zip"), b"data")
    try:
        assert os.path.dirname(path) == folder
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        assert read_zip(path, digest_of(b"data"))
    finally:
        shutil.rmtree(folder)


def test_a_draft_is_not_left_behind(tmp_path):
    (tmp_path / "cache" / "a.zip").mkdir(parents=True)
    path, folder = store_zip(str(tmp_path / "cache" / "a.zip"), b"data")
    shutil.rmtree(folder)

    assert [each.name for each in (tmp_path / "cache").iterdir()] == ["a.zip"]
    assert path.endswith("a.zip")
