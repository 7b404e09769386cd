"""
What is sent to a host that has nothing but Python: one command line, one text, one zip.

The command goes through the user's login shell, whatever that is: it has no quote but those around
it, no backslash, no exclamation mark and no line end, since sh, csh and fish disagree on these.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import io
import json
import re
import zipfile
from typing import TYPE_CHECKING

from remote_executor.launch.stages import MARK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.abc import Traversable

    from remote_executor.launch.hosts import CommandHost, SSHHost

__all__ = ["Bundle", "boot_command", "build_zip", "bundle", "first_stage", "quote_for_any_shell"]

PACKAGES = ("cloudpickle", "remote_executor", "tblib")
"""All that a server and its workers need. The rest of our package costs little and is there for
tasks that use it."""

PYTHONS = ("python3", *(f"python3.{minor}" for minor in range(14, 9, -1)))

# The mark in two pieces, here and in the text below: a shell that shows what it is given must not
# be taken for a host that answers.
HALVES = MARK.partition("-")

SCRIPT = (
    f"m={HALVES[0]}-; "
    # What a setup line calls, such as "module", may be there in login shells only.
    'case ${1%% *} in *=*) ;; *) command -v "${1%% *}" >/dev/null 2>&1 || '
    "{ [ -r /etc/profile ] && . /etc/profile </dev/null >&2; };; esac; "
    'set -f; eval "$1" </dev/null >&2 || '
    f'{{ s=$?; echo; echo "${{m}}{HALVES[2]} setup $s"; exit 1; }}; '
    "shift; t=; "
    'for p in "$@"; do '
    'case $p in "~"/*) p=$HOME/${p#??};; esac; '
    'command -v "$p" >/dev/null 2>&1 || continue; '
    'v=$("$p" -I -S -c '
    '"import sys;print(sys.version_info>=(3,10),sys.version.split()[0])" </dev/null 2>&1); '
    "case $v in True*) "
    'exec "$p" -I -S -c '
    '"import sys;stdin=sys.stdin.buffer;exec(stdin.read(int(stdin.readline())))";; '
    'esac; t="$t; $p: $v"; done; '
    f'echo; echo "${{m}}{HALVES[2]} none" $t; exit 1'
)

BOOT = (
    "import sys; sys.path[:] = [sys.argv[1], *filter(None, sys.path)]; "
    "from remote_executor.server.launched import main; sys.exit(main(int(sys.argv[2])))"
)


class Bundle:
    """
    The library as a zip.

    Attributes:
        data: The zip's bytes: always the same for the same library.
        digest: Its SHA-256 in hex.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.digest = hashlib.sha256(data).hexdigest()


@functools.lru_cache(maxsize=1)
def bundle() -> Bundle:
    """Return this library's zip, built once."""
    return Bundle(build_zip())


def build_zip(packages: tuple[str, ...] = PACKAGES) -> bytes:
    """
    Pack the sources of packages.

    Args:
        packages: Their names; they can be imported here.

    Returns:
        The zip: the same bytes for the same sources, wherever and whenever it is made.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for package in sorted(packages):
            root = importlib.resources.files(package)
            for name, file in sorted(_sources(root, package)):
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, file.read_bytes(), compresslevel=9)
    return buffer.getvalue()


def _sources(folder: Traversable, name: str) -> Iterator[tuple[str, Traversable]]:
    for each in folder.iterdir():
        inner = f"{name}/{each.name}"
        if each.is_dir():
            yield from _sources(each, inner)
        elif each.name.endswith(".py"):
            yield inner, each


_HOME = re.compile(r"^\$(HOME|\{HOME\})/")


def boot_command(host: SSHHost | CommandHost) -> str:
    """
    Return what the login shell is to run.

    Args:
        host: Whose ``python`` and ``setup`` count.
    """
    pythons = PYTHONS if host.python is None else (_HOME.sub("~/", host.python),)
    words = [host.setup or ":", *pythons]
    return f"exec sh -c '{SCRIPT}' sh " + " ".join(map(quote_for_any_shell, words))


def quote_for_any_shell(text: str) -> str:
    """
    Return one word for sh, csh or fish, each of which quotes in its own way (PARITY S7).

    All of them take a backslash before any sign but a letter or a digit.
    """
    return "".join(c if c.isalnum() or c in "/._-" else "\\" + c for c in text)


def first_stage(digest: str) -> bytes:
    """
    Return what goes to the standard input of the Python there: its length, then the text.

    Args:
        digest: Of the zip.
    """
    ask = json.dumps({"mark": HALVES, "digest": digest, "boot": BOOT})
    source = importlib.resources.files("remote_executor.launch").joinpath("first_stage.py")
    text = source.read_bytes() + f"\nmain(json.loads({ask!r}), stdin)\n".encode()
    return b"%d\n" % len(text) + text
