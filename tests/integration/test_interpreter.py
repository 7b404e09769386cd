"""Programs that have no Python to start, or whose executors have executors; whole programs."""

from __future__ import annotations

import sys

import pytest

FROZEN = """
import sys
{change}
with open("runs", "a") as file:
    print("run", file=file)
from remote_executor import FarmExecutor, start_server

def main():
    for make in (FarmExecutor, start_server):
        try:
            with make() as made:
                if make is FarmExecutor:
                    made.submit(abs, 1).result()
        except Exception as exc:
            print(type(exc).__name__, exc)
        else:
            print("fine")

main()
"""

CHANGES = {
    "frozen": "sys.frozen = True; sys.executable = sys.argv[1]",
    "none": "sys.executable = None",
    "empty": "sys.executable = ''",
    "other": "sys.executable = '/bin/false'",
    "unknown": "sys.executable = '/no/such/python3'",
    "itself": "sys.executable = sys.argv[1]",
}


@pytest.fixture
def itself(tmp_path):
    """Return a program that runs the test's script, whatever its arguments are."""

    def make(name):
        path = tmp_path / name
        script = tmp_path / "script_0.py"
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "{path}"\n')
        path.chmod(0o700)
        return path

    return make


def runs(folder):
    return (folder / "runs").read_text().count("run")


@pytest.mark.parametrize("kind", CHANGES)
def test_what_cannot_be_started_is_a_clear_error(run_script, tmp_path, itself, kind):
    program = itself("app")

    code, out, err = run_script(FROZEN.format(change=CHANGES[kind]), args=[program])

    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["LaunchFailed"] * 2
    assert all("multiprocessing.set_executable()" in line for line in lines)
    # "itself" is asked once whether it is a Python: it runs once more, and starts nothing.
    assert runs(tmp_path) == (2 if kind == "itself" else 1)


def test_a_program_that_passes_for_a_python_does_not_start_itself_without_end(
    run_script, tmp_path, itself
):
    program = itself("python-app")

    code, out, _ = run_script(FROZEN.format(change=CHANGES["itself"]), args=[program])

    assert code == 0
    lines = out.splitlines()
    assert {line.split()[0] for line in lines} == {"LaunchFailed"}
    assert all("multiprocessing.set_executable()" in line for line in lines)
    assert sum("is not a Python" in line for line in lines) == 2  # ours; the rest are the copies'
    assert runs(tmp_path) <= 4  # ours, one for each of the two, and one that was asked what it is


@pytest.mark.parametrize("kind", ["frozen", "none", "other"])
def test_the_python_that_is_named_is_started(run_script, itself, kind):
    named = f"multiprocessing.set_executable({sys.executable!r})"
    change = f"import multiprocessing.spawn; {CHANGES[kind]}; {named}"

    code, out, err = run_script(FROZEN.format(change=change), args=[itself("app")])

    assert (code, out, err) == (0, "fine\nfine\n", "")


DEEP = """
from remote_executor import FarmExecutor

def deeper(count):
    with FarmExecutor(1) as executor:
        return executor.submit(deeper, count + 1).result()

if __name__ == "__main__":
    try:
        deeper(0)
    except RecursionError as exc:
        print(exc)
"""


@pytest.mark.timeout(120)
def test_executors_within_executors_end_with_a_message(run_script):
    code, out, _ = run_script(DEEP, limit=90)

    assert code == 0
    assert "executors within executors, 10 deep" in out


DEEP_ELSEWHERE = """
import subprocess, sys
from remote_executor import FarmExecutor
from remote_executor.lineage import depth

def child():
    code = "from remote_executor.lineage import depth; print(depth())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).stdout.decode()

if __name__ == "__main__":
    with FarmExecutor(addresses=sys.argv[1]) as executor:
        print(depth(), executor.submit(depth).result(), executor.submit(child).result())
"""


def test_depth_is_counted_on_servers_elsewhere_and_in_what_tasks_start(run_script, server):
    code, out, err = run_script(DEEP_ELSEWHERE, args=[server.address])

    assert (code, out.split(), err) == (0, ["0", "1", "1"], "")
