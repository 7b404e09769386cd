"""
Which Python runs the servers that this program starts.

It is the one that ``multiprocessing.set_executable()`` names, else ``sys.executable``. A program
that was frozen into one file, or that has Python built in, must name one: ``sys.executable`` is the
program itself there, and to start that as a server would run the program again, which would start
a server again, and so on. Three things prevent this:

- ``sys.frozen`` is set, or there is no such file: that is an error, before anything is started.
- A program whose name is not that of a Python is asked once whether it is one.
- Whatever we start has a mark in its environment, which our server takes off. A program that finds
  the mark was started in the place of a Python, and starts nothing.

For programs that start servers. Servers do not import this.
"""

from __future__ import annotations

import os
import subprocess
import sys

from remote_executor.errors import LaunchFailed
from remote_executor.lineage import MARK

if getattr(sys, "frozen", False):
    # So that from now on it is seen if somebody names sys.executable itself. Other programs need
    # not: it would be the same, and the import takes 2 ms.
    try:
        import multiprocessing.spawn  # noqa: F401
    except TypeError:  # Python 3.11 cannot load it while sys.executable is None
        pass

__all__ = ["check_python", "python_command", "server_environment"]

ANSWER_SECONDS = 20.0
PYTHONS = ("python", "pypy", "graalpy")
HERE = "this machine"
STAGE = "python not found"
CURE = "name a Python by multiprocessing.set_executable(), which must be able to import cloudpickle"

_answers: dict[str, str | None] = {}
"""By path: None for a Python, else what is wrong with it."""


_own = sys.executable
"""What it was when this module was loaded."""


def _multiprocessing_has() -> str | bytes | None:
    """Return the program that multiprocessing starts."""
    spawn = sys.modules.get("multiprocessing.spawn")
    return None if spawn is None else spawn.get_executable()


_default = _multiprocessing_has()
"""What multiprocessing starts as long as nobody has told it what to start, if it is loaded."""
if _default and os.fsdecode(_default) != sys.executable:
    _default = None  # somebody has, before this module was loaded


def python_command() -> list[str]:
    """
    Return the words that start a Python, with the flags of this one.

    Raises:
        LaunchFailed: If no Python is known that could be started: the reason, and what to do.
    """
    path = _path()
    if not _looks_like_python(os.path.basename(path).lower()):
        check_python(path)
    flags: list[str] = getattr(subprocess, "_args_from_interpreter_flags", list)()
    cores = sys._xoptions.get("cpu_count")
    if isinstance(cores, str) and f"cpu_count={cores}" not in flags:
        flags = [*flags, "-X", f"cpu_count={cores}"]
    return [path, *flags]


def _looks_like_python(name: str) -> bool:
    # No pattern: to compile one takes longer than the rest of all this.
    for each in PYTHONS:
        if name.startswith(each):
            return all(char.isalnum() or char in "_.+-" for char in name[len(each) :])
    return False


def server_environment(command: list[str]) -> dict[str, str]:
    """
    Return the environment for a server that is started.

    Args:
        command: What :func:`python_command` has returned.
    """
    return {**os.environ, MARK: command[0]}


def check_python(path: str | None = None) -> None:
    """
    Make sure that a program is a Python, by asking it. What it has answered is remembered.

    Args:
        path: The program; None for the one that servers are started with.

    Raises:
        LaunchFailed: If it is something else.
    """
    if path is None:
        path = _path()
    if path not in _answers:
        _answers[path] = _ask(path)
    reason = _answers[path]
    if reason is not None:
        raise LaunchFailed(HERE, STAGE, reason)


def _path() -> str:
    """Return the path of the Python to start, if there can be one."""
    mark = os.environ.get(MARK)
    if mark is not None:
        raise LaunchFailed(
            HERE, STAGE, f"{mark} was started as a Python, but has run this program instead; {CURE}"
        )
    named = _named()
    if named is None and getattr(sys, "frozen", False):
        program = sys.executable or "it"
        reason = f"this program is frozen, and {program} would only start it once more; {CURE}"
        raise LaunchFailed(HERE, STAGE, reason)
    path = named or sys.executable
    if not path:
        raise LaunchFailed(HERE, STAGE, f"sys.executable is {sys.executable!r}; {CURE}")
    if os.path.dirname(path) and not os.access(path, os.X_OK):
        what = "cannot be run" if os.path.exists(path) else "does not exist"
        raise LaunchFailed(HERE, STAGE, f"{path} {what}; {CURE}")
    return path


def _named() -> str | None:
    """Return the program that multiprocessing was told to start, if it was told."""
    named = _multiprocessing_has()
    # The same object, not an equal one: somebody may name sys.executable.
    if not named or named is _default:
        return None
    path = os.fsdecode(named)
    # Loaded only since then, multiprocessing has this by itself.
    return None if _default is None and path == _own else path


def _ask(path: str) -> str | None:
    """Return what is wrong with a program, None if it is a Python."""
    command = [path, "-c", "import sys; print('Python', sys.version_info >= (3, 10))"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=server_environment(command),
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        return f"{path} does not answer as a Python does ({exc}); {CURE}"
    if done.stdout.strip() == b"Python True":
        return None
    if done.stdout.strip() == b"Python False":
        return f"{path} is a Python older than 3.10; {CURE}"
    said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-200:]
    words = f" and wrote {said!r}" if said else ""
    return f"{path} is not a Python: it ended with exit code {done.returncode}{words}; {CURE}"
