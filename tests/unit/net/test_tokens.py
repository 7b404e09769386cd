"""The token file."""

from __future__ import annotations

import errno
import os
import stat
import threading

import pytest

from remote_executor.net import tokens
from remote_executor.net.tokens import (
    Token,
    load_token,
    load_tokens,
    make_token,
    renew_token,
    secrets_of,
    token_path,
)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.delenv("REMOTE_EXECUTOR_TOKEN_FILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "remote_executor" / "token"


@pytest.fixture
def named(tmp_path, monkeypatch):
    """Return the path that the environment names; nothing is there."""
    path = tmp_path / "folder" / "token"
    monkeypatch.setenv("REMOTE_EXECUTOR_TOKEN_FILE", str(path))
    return path


def write(path, data, mode=0o600):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("REMOTE_EXECUTOR_TOKEN_FILE", "some/token")
    assert token_path() == "some/token"
    monkeypatch.delenv("REMOTE_EXECUTOR_TOKEN_FILE")
    monkeypatch.setenv("XDG_CONFIG_HOME", "config")
    assert token_path() == os.path.join("config", "remote_executor", "token")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert token_path() == str(tmp_path / ".config" / "remote_executor" / "token")


def test_it_is_made_on_first_use(path):
    token = load_token()
    assert len(bytes.fromhex(token.decode())) == 32
    assert load_token() == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["token"]


def test_two_tokens_are_never_the_same():
    assert make_token() != make_token()


def test_it_is_not_made_if_it_should_be_there(path):
    with pytest.raises(FileNotFoundError, match="token"):
        load_token(create=False)
    assert not path.exists()


def test_white_space_around_it_does_not_count(path):
    write(path, b"\n  " + b"ab" * 32 + b"\n\n")
    assert load_token() == b"ab" * 32


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o777])
def test_a_file_that_others_can_see_is_refused(path, mode):
    write(path, make_token(), mode)
    with pytest.raises(PermissionError, match="chmod 600"):
        load_token()


@pytest.mark.parametrize("data", [b"", b"\n", b"short"])
def test_a_file_without_a_token_is_refused(path, data):
    write(path, data)
    with pytest.raises(ValueError, match="no token"):
        load_token()


def test_a_long_file_is_no_token(path):
    write(path, b"a" * (tokens.MOST_BYTES + 1))
    with pytest.raises(ValueError, match="too long"):
        load_token()


def test_a_file_of_another_user_is_refused(path, monkeypatch):
    write(path, make_token())
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    if path.stat().st_uid == 0:
        pytest.skip("it belongs to root")
    with pytest.raises(PermissionError, match="another user"):
        load_token()


def test_many_at_once_agree(path):
    found = []
    barrier = threading.Barrier(8)

    def load():
        barrier.wait()
        found.append(load_token())

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert os.listdir(path.parent) == ["token"]


def test_who_comes_second_takes_what_is_there(path, monkeypatch):
    write(path, b"cd" * 32)
    tokens._create(str(path))
    assert load_token() == b"cd" * 32
    assert os.listdir(path.parent) == ["token"]


def test_one_that_cannot_be_made_says_where_and_why(path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"token file {path} cannot be made: .*; name another") as at:
        load_token()
    assert at.value.errno == errno.ENOSPC
    assert list(path.parent.iterdir()) == []


def test_a_path_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REMOTE_EXECUTOR_TOKEN_FILE", "token")
    renew_token()
    assert load_token() == load_token()


def test_a_new_one_keeps_the_one_before(path):
    assert renew_token() == os.path.realpath(path)
    (first,) = load_tokens()
    renew_token()
    second, kept = load_tokens()
    assert (load_token(), kept) == (second, first)
    assert len({first, second}) == 2
    renew_token()
    assert load_tokens()[1:] == (second,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["token"]


def test_a_link_to_the_file_stays_one(path, tmp_path, monkeypatch):
    first = load_token()
    link = tmp_path / "link"
    link.symlink_to(path)
    monkeypatch.setenv("REMOTE_EXECUTOR_TOKEN_FILE", str(link))
    renew_token()
    assert link.is_symlink()
    assert load_tokens()[1] == first


def test_a_file_that_others_can_see_is_not_renewed(path):
    write(path, make_token(), 0o644)
    before = path.read_bytes()
    with pytest.raises(PermissionError, match="chmod 600"):
        renew_token()
    assert path.read_bytes() == before


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_disk_that_fails_leaves_the_old_one(path, monkeypatch, call):
    token = load_token()

    def fail(*_):
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="full"):
            renew_token()
    assert load_tokens() == (token,)
    assert os.listdir(path.parent) == ["token"]


def test_more_than_two_are_too_many(path):
    write(path, b"\n".join(make_token() for _ in range(3)))
    with pytest.raises(ValueError, match="3 tokens"):
        load_tokens()


def test_what_an_argument_means():
    assert secrets_of("words and a word") == (b"words and a word",)
    assert secrets_of(b"bytes and bytes!") == (b"bytes and bytes!",)
    assert secrets_of(["n" * 16, b"o" * 16]) == (b"n" * 16, b"o" * 16)
    for wrong in ("", [], ["a", ""], ["a", "b", "c"]):
        with pytest.raises(ValueError, match="token"):
            secrets_of(wrong)
    with pytest.raises(TypeError, match="bytes or str"):
        secrets_of([1])


@pytest.mark.parametrize(
    "given", ["x", b"x", "fifteen letters", ["long enough, this one", "short"], Token]
)
def test_a_secret_that_can_be_guessed_is_refused(given):
    with pytest.raises(ValueError, match="it must have 16 at least"):
        Token("guess me") if given is Token else secrets_of(given)
    assert secrets_of("é" * 8) == ("é".encode() * 8,)  # bytes count, not letters


@pytest.mark.parametrize(
    "load", [load_token, load_tokens, lambda: Token().client("h"), lambda: Token().server()]
)
def test_a_file_that_is_named_is_not_made_by_the_way(named, load):
    """A slip in the path must not look like a wrong token at the other end."""
    with pytest.raises(
        FileNotFoundError, match="REMOTE_EXECUTOR_TOKEN_FILE names: correct it"
    ) as e:
        load()
    assert str(named) in str(e.value)
    assert not named.parent.exists()


def test_a_token_that_was_named_at_its_making_stays_named(named, monkeypatch):
    auth = Token()
    monkeypatch.delenv("REMOTE_EXECUTOR_TOKEN_FILE")
    with pytest.raises(FileNotFoundError, match="no token file"):
        auth.client("h")
    assert not named.parent.exists()


def test_a_named_file_is_made_by_who_asks_for_a_new_token(named):
    renew_token()
    assert len(load_token()) == 64


def test_a_home_that_nobody_filled_in_is_told(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REMOTE_EXECUTOR_TOKEN_FILE", "~/token")
    with pytest.raises(FileNotFoundError, match='nothing replaces "~"'):
        load_token()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        "REMOTE_EXECUTOR_TOKENFILE",
        "REMOTE_EXECUTOR_TOKEN",
        "REMOTE_EXECUTOR_TOKEN_FLIE",
        "REMOTE_EXECUTOR_TOKEN_PATH",
        "REMOTEEXECUTOR_TOKEN_FILE",
        "remote_executor_token_file",
    ],
)
def test_a_variable_with_a_slip_makes_no_new_token(path, monkeypatch, name):
    monkeypatch.setenv(name, "/etc/farm/token")
    with pytest.raises(FileNotFoundError, match=f"{name} is set: did you mean"):
        load_token()
    assert not path.exists()
    write(path, b"ab" * 32)
    assert load_token() == b"ab" * 32  # nothing is made, so nothing is lost


def test_a_folder_is_no_token_file(tmp_path):
    with pytest.raises(IsADirectoryError, match="REMOTE_EXECUTOR_TOKEN_FILE"):
        tokens.load_tokens(path=str(tmp_path))


def test_a_path_may_be_inherited_where_no_variable_names_one(path, named, monkeypatch, tmp_path):
    monkeypatch.setattr(tokens, "_inherited", None)
    monkeypatch.delenv("REMOTE_EXECUTOR_TOKEN_FILE")
    monkeypatch.chdir(tmp_path)
    tokens.inherit_path("inherited")
    assert token_path() == str(tmp_path / "inherited")
    with pytest.raises(FileNotFoundError, match="no token file"):
        load_token()
    monkeypatch.setenv("REMOTE_EXECUTOR_TOKEN_FILE", str(named))
    assert token_path() == str(named)
