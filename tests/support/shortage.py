"""
Servers and clients that are short of something: processes, descriptors, memory.

:class:`Refusals` has the system refuse a call in other processes, by a ``sitecustomize`` module,
for as long as a file is there. :func:`descriptors` lowers the limit of a process that runs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from tests.support.house import ROOT

__all__ = ["Refusals", "descriptors", "nth_fails"]

SITE = """
import errno, os, sys

_file = {file!r}
_fork = os.fork
_zygote = None


def fork():
    # The first fork of a server makes its zygote; the zygote's own are workers.
    if os.environ.get("REFUSE_FORKS") and _is_zygote() and os.path.exists(_file):
        raise OSError({number}, os.strerror({number}))
    return _fork()


def _is_zygote():
    frame = sys._getframe(2)
    return frame.f_code.co_name == "_start"


os.fork = fork
"""


class Refusals:
    """
    Has forks of workers refused in servers that are started with :attr:`env`.

    Args:
        folder: An empty folder.
        number: The error number, EAGAIN as a rule.
    """

    def __init__(self, folder: Path, number: int = errno.EAGAIN) -> None:
        self.folder = folder
        self._file = folder / "refuse"
        source = SITE.format(file=str(self._file), number=number)
        (folder / "sitecustomize.py").write_text(source, encoding="utf-8")
        self._file.touch()

    @property
    def env(self) -> dict[str, str]:
        """The environment for such a server."""
        path = os.pathsep.join([str(self.folder), str(ROOT)])
        return {**os.environ, "PYTHONPATH": path, "REFUSE_FORKS": "1", "PYTHONUNBUFFERED": "1"}

    def end(self) -> None:
        """Refuse no more."""
        self._file.unlink()


@contextlib.contextmanager
def descriptors(pid: int, most: int) -> Iterator[None]:
    """Let a process have so many descriptors at most, for a while; 0 is this process."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def nth_fails(call, n: int, number: int = errno.EMFILE):
    """
    Return ``call`` with its n-th use (from 0) refused by the system, and a list of its uses.

    Args:
        call: A function.
        n: Which of its uses is refused.
        number: By which error number.
    """
    uses: list[int] = []

    def refusing(*args, **kwargs):
        uses.append(len(uses))
        if uses[-1] == n:
            raise OSError(number, os.strerror(number))
        return call(*args, **kwargs)

    return refusing, uses
