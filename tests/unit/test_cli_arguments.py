"""What the command line takes, and what it says of each wrong value."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from remote_executor import cli, cli_arguments

ROOT = Path(__file__).parents[2]


def run(capsys, *words):
    """Run the command line; return the exit code and what it wrote to its standard error."""
    try:
        code = cli.main(words)
    except SystemExit as exc:
        code = exc.code
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["serve", "--port", "99999"], "--port: a port is a number from 0 to 65535"),
        (["serve", "--port", "-1"], "--port: a port is a number from 0 to 65535"),
        (["serve", "--port", "http"], "--port: a port is a number from 0 to 65535"),
        (["serve", "--port", "1.5"], "not '1.5'"),
        (["serve", "--port", ""], "not ''"),
        (["serve", "--workers", "0"], "--workers: it must be a whole number from 1, not '0'"),
        (["serve", "--workers", "-3"], "not '-3'"),
        (["serve", "--workers", "many"], "not 'many'"),
        (["serve", "--host", ""], "--host: '' is not the name"),
        (["serve", "--host", "a b"], "--host: 'a b' is not the name"),
        (["serve", "--unix", ""], "--unix: it must be the path of a socket"),
        (["serve", "--unix", "/no/such/folder/socket"], "there is no folder '/no/such/folder'"),
        (["serve", "--unix", "/tmp/" + "x" * 200], "a socket's path has at most 107 bytes"),
        (["serve", "--preload", "numpy;scipy"], "'numpy;scipy' is not the name of a module"),
        (["serve", "--preload", "os.pa-th"], "is not the name of a module"),
        (["serve", "--log-level", "loud"], "--log-level: invalid choice: 'loud'"),
        (["serve", "--auth", "none"], "--auth: invalid choice: 'none'"),
        (["serve", "--gssapi-users", ","], "--gssapi-users: it must name somebody"),
        (["serve", "--gssapi-service", ""], "--gssapi-service: it must not be empty"),
        (["serve", "--tls-certificate", "/no/such"], "'/no/such' cannot be read: No such file"),
        (["serve", "--tls-key", "/"], "'/' cannot be read: Is a directory"),
        (["serve", "--tls-ca", "/no/such"], "--tls-ca: '/no/such' cannot be read"),
        (["ping", "node:0x1"], "ADDRESS: bad address 'node:0x1'"),
        (["ping", "node:99999"], "the port must be a number from 0 to 65535"),
        (["ping", "::1"], "write IPv6 as '[::1]:port'"),
        (["ping", ""], "bad address ''"),
        (["ping", "node1", "--timeout", "0"], "--timeout: it must be a number of seconds above 0"),
        (["ping", "node1", "--timeout", "nan"], "not 'nan'"),
        (["ping", "node1", "--timeout", "inf"], "not 'inf'"),
        (["ping", "node1", "--timeout", "soon"], "not 'soon'"),
        (["ping", "node1", "--tls-name", " "], "--tls-name: it must not be empty"),
        (["status", "unix:"], "expected 'unix:/path'"),
        (["end", "a,b"], "bad address 'a,b'"),
        (["doctor", "--port", "0", "node1"], "a port is a number from 1 to 65535"),
        (["doctor", "--workers", "0", "node1"], "it must be a whole number from 1"),
        (["serve", "--memory-per-worker", "much"], "it must be a size such as 512M or 4G"),
        (["serve", "--memory-per-worker", "0"], "it must be a size such as 512M or 4G"),
        (["doctor", "--python", "", "node1"], "--python: it must not be empty"),
        (["doctor", "--user", "", "node1"], "--user: it must not be empty"),
        (["doctor", "--key", "/no/such", "node1"], "'/no/such' cannot be read"),
        (["doctor", "--ssh-config", "/no/such", "node1"], "'/no/such' cannot be read"),
        (["doctor", "--client", "putty", "node1"], "--client: invalid choice: 'putty'"),
        (["doctor", "--client", "openssh", "node 1"], "node 1"),
        (["launch", "--min-servers", "0", "node1"], "--min-servers: it must be a whole number"),
        (["token", "hide"], "invalid choice: 'hide'"),
        ([], "COMMAND"),
        (["doctor"], "HOST"),
    ],
)
def test_a_wrong_value_is_said_and_is_wrong_usage(capsys, words, reason):
    code, err = run(capsys, *words)

    assert code == 2
    assert reason in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["serv"], "serve"),
        (["pign", "node1"], "ping"),
        (["dcotor", "node1"], "doctor"),
        (["serve", "--wrokers", "3"], "--workers"),
        (["serve", "--wrokers=3"], "--workers"),
        (["serve", "--loglevel", "info"], "--log-level"),
        (["ping", "node1", "--time-out", "3"], "--timeout"),
        (["doctor", "--pyhton", "python3.11", "node1"], "--python"),
        (["doctor", "--pyhton", "python3.11"], "--python"),
        (["status", "node1", "--tls-cert", "x", "--tls-kye", "y"], "--tls-key"),
    ],
)
def test_what_was_meant_is_asked(capsys, words, meant):
    code, err = run(capsys, *words)

    assert code == 2
    assert f"did you mean {meant}?" in err


@pytest.mark.parametrize("words", [["cook"], ["serve", "--xyzzy"], ["ping", "node1", "node2"]])
def test_where_nothing_is_like_it_nothing_is_asked(capsys, words):
    code, err = run(capsys, *words)

    assert code == 2
    assert "did you mean" not in err
    assert words[-1] in err


def test_options_may_be_shortened_as_ever(capsys):
    code, err = run(capsys, "serve", "--work", "0")

    assert code == 2
    assert "--workers: it must be" in err


@pytest.mark.parametrize(
    "words", [["--help"], ["serve", "--help"], ["--version"], ["token", "path"], ["dance"]]
)
@pytest.mark.parametrize("which", ["stdout", "both"])
@pytest.mark.parametrize("unbuffered", ["", "1"])  # "1" as in many images of containers
def test_a_reader_that_goes_away_is_no_trouble(words, which, unbuffered, tmp_path):
    """As with ``| head -1``: here it is gone from the start."""
    read, write = os.pipe()
    os.close(read)
    # Behind both: where only one is closed, the other shows what was written to it.
    try:
        done = subprocess.run(
            [sys.executable, "-m", "remote_executor", *words],
            stdin=subprocess.DEVNULL,
            stdout=write,
            stderr=write if which == "both" else subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
            cwd=tmp_path,
            check=False,
        )
    finally:
        os.close(write)

    assert done.returncode in ((141,) if words != ["dance"] or which == "both" else (2,))
    if which == "stdout":
        assert "Traceback" not in done.stderr.decode()
        assert "Broken" not in done.stderr.decode()


def test_no_output_at_all_is_no_trouble(tmp_path):
    """As with ``>&-``."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", sys.executable, "-m", "remote_executor", "token"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        check=False,
    )

    assert done.returncode == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 4 * 2**30), ("512m", 2**29), ("1.5GiB", 3 * 2**29), ("100", 100), ("2 KB", 2048)],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert cli_arguments.size(text) == size
