"""Which Python servers are started with, and what cannot be one."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing import spawn

import pytest

from remote_executor import interpreter
from remote_executor.errors import LaunchFailed
from remote_executor.interpreter import check_python, python_command, server_environment
from remote_executor.lineage import MARK

REAL = sys.executable
NAMES_THE_CURE = r"multiprocessing\.set_executable\(\)"


@pytest.fixture(autouse=True)
def _executable_as_it_was(monkeypatch):
    default = spawn.get_executable()
    monkeypatch.setattr(spawn, "_python_exe", default)
    # As in a program that is frozen from the start, which loads it at once.
    monkeypatch.setattr(interpreter, "_default", default)


def program(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


def test_it_is_the_python_that_runs_us():
    assert python_command()[0] == REAL


@pytest.mark.parametrize("named", [False, True])
def test_what_multiprocessing_has_by_itself_is_not_what_it_was_told(monkeypatch, tmp_path, named):
    """Where it was loaded only after this library was, which does not load it."""
    monkeypatch.setattr(interpreter, "_default", None)
    monkeypatch.setattr(sys, "executable", other := program(tmp_path, "python3", f"exec {REAL}"))
    path = program(tmp_path, "python4", f'exec "{REAL}" "$@"')
    if named:
        multiprocessing.set_executable(path)

    assert python_command()[0] == (path if named else other)


@pytest.mark.parametrize("executable", [None, ""])
def test_without_an_executable_it_says_what_to_do(monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)

    with pytest.raises(LaunchFailed, match=NAMES_THE_CURE) as caught:
        python_command()

    assert f"sys.executable is {executable!r}" in str(caught.value)


def test_a_frozen_program_is_not_started_as_a_server(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", "/opt/app/app")

    with pytest.raises(LaunchFailed, match=NAMES_THE_CURE) as caught:
        python_command()

    assert "frozen" in str(caught.value)
    assert "/opt/app/app" in str(caught.value)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("executable", [REAL, "/opt/app/app", "", None])
def test_what_multiprocessing_is_told_to_start_is_honoured(
    monkeypatch, tmp_path, frozen, executable
):
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    monkeypatch.setattr(sys, "executable", executable)
    path = program(tmp_path, "python3", f'exec "{REAL}" "$@"')

    multiprocessing.set_executable(path)

    assert python_command()[0] == path


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 keeps the very object it is given")
def test_a_frozen_program_may_name_what_is_its_executable_already(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)

    multiprocessing.set_executable(REAL)

    assert python_command()[0] == REAL


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exit 3", "ended with exit code 3"),
        ("echo I am an editor", "I am an editor"),
        ("echo no such option -c >&2; exit 2", "no such option -c"),
        ("echo Python False", "older than 3.10"),
    ],
)
def test_a_program_of_another_name_is_asked_whether_it_is_a_python(
    monkeypatch, tmp_path, text, words
):
    path = program(tmp_path, "editor", text)
    monkeypatch.setattr(sys, "executable", path)

    for _ in range(2):
        with pytest.raises(LaunchFailed, match=NAMES_THE_CURE) as caught:
            python_command()

        assert words in str(caught.value)
        assert path in str(caught.value)


def test_a_python_of_another_name_is_one(monkeypatch, tmp_path):
    path = program(tmp_path, "snake", f'exec "{REAL}" "$@"')
    monkeypatch.setattr(sys, "executable", path)

    assert python_command()[0] == path


def test_a_program_that_calls_itself_a_python_is_found_out_when_it_is_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", program(tmp_path, "python3.11", "exit 1"))

    with pytest.raises(LaunchFailed, match="is not a Python"):
        check_python()


@pytest.mark.parametrize("there", [True, False])
def test_a_file_that_cannot_be_run_is_named(monkeypatch, tmp_path, there):
    path = tmp_path / "python3"
    if there:
        path.touch(0o600)
    monkeypatch.setattr(sys, "executable", str(path))

    with pytest.raises(LaunchFailed, match="cannot be run" if there else "does not exist"):
        python_command()


def test_a_program_that_was_started_in_the_place_of_a_python_starts_nothing(monkeypatch):
    monkeypatch.setenv(MARK, "/opt/app/python-app")

    with pytest.raises(LaunchFailed, match=NAMES_THE_CURE) as caught:
        python_command()

    assert "/opt/app/python-app was started as a Python" in str(caught.value)


def test_what_is_started_has_the_mark():
    environ = server_environment(["/usr/bin/python3", "-B"])

    assert environ[MARK] == "/usr/bin/python3"
    assert MARK not in server_environment.__globals__["os"].environ


def test_the_count_of_cores_goes_along(monkeypatch):
    monkeypatch.setitem(sys._xoptions, "cpu_count", "3")

    command = python_command()

    assert command[command.index("cpu_count=3") - 1] == "-X"
