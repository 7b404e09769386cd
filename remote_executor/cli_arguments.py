"""
What the command line takes: the values of options, and the words when one is wrong.

Each function reads one value and raises ``ArgumentTypeError`` with a reason, which the parser
prints behind the option's name; the program then ends with exit code 2.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from remote_executor.errors import AddressError
from remote_executor.net.addresses import parse_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from remote_executor.net.addresses import Address

__all__ = [
    "Parser",
    "address",
    "count",
    "file",
    "host",
    "module_names",
    "names",
    "port",
    "seconds",
    "socket_path",
    "ssh_port",
    "text",
]

LONGEST_SOCKET_PATH = 107
"""Bytes: what Linux's ``sun_path`` has room for; macOS has 103."""


class Parser(argparse.ArgumentParser):
    """A parser that says what may have been meant, when a command or an option is unknown."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands: Iterable[str] = ()
        self._words: Sequence[str] = ()

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Keep what is given, for the hints. A command's own parser is called here as well."""
        self._words = list(args) if args is not None else ()
        given, unknown = super().parse_known_args(args, namespace)
        options = [word for word in unknown if word.startswith("-")]
        if options and not self.commands:
            self.error(f"there is no option {' '.join(options)}")
        return given, unknown

    def error(self, message: str) -> NoReturn:
        """End with exit code 2, and with a hint."""
        self.print_usage(sys.stderr)
        hints = [*self._meant_options(), *self._meant_commands()]
        hint = f" (did you mean {' or '.join(hints)}?)" if hints else ""
        self.exit(2, f"{self.prog}: {message}{hint}\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """
        Write, and raise BrokenPipeError if nobody reads.

        argparse passes over that error from Python 3.11.3 on, and where output has no buffer
        (``PYTHONUNBUFFERED``) nobody would hear of it later.
        """
        try:
            (file or sys.stderr).write(message or "")
        except BrokenPipeError:
            raise
        except (AttributeError, OSError):  # as argparse does: there is nowhere to tell it
            pass

    def _meant_options(self) -> Iterable[str]:
        known = list(self._option_string_actions)
        for word in self._words:
            if word == "--":
                return
            name = word.partition("=")[0]
            if name.startswith("--") and not any(each.startswith(name) for each in known):
                yield from _close(name, known)

    def _meant_commands(self) -> Iterable[str]:
        for word in self._words:
            if not word.startswith("-"):
                if word not in self.commands:
                    yield from _close(word, list(self.commands))
                return


def _close(word: str, known: list[str]) -> list[str]:
    """Return the known word that is most like another, if one is."""
    import difflib  # not at the top: workers are forked from a process that has this module

    return difflib.get_close_matches(word, known, 1)


def _wrong(reason: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(reason)


def port(text: str) -> int:
    """Read the number of a port; 0 is any free one."""
    return _whole(text, 0, 65535, "a port is a number from 0 to 65535 (0: any free one)")


def ssh_port(text: str) -> int:
    """Read the number of a port to connect to."""
    return _whole(text, 1, 65535, "a port is a number from 1 to 65535")


def count(text: str) -> int:
    """Read how many of something."""
    return _whole(text, 1, 10**6, "it must be a whole number from 1")


def _whole(text: str, low: int, high: int, reason: str) -> int:
    words = text.strip()
    if not (words.isascii() and words.isdigit() and len(words) < 10 and low <= int(words) <= high):
        raise _wrong(f"{reason}, not {text!r}")
    return int(words)


def size(text: str) -> int:
    """Read a number of bytes: 512M, 4G, 1.5GiB; K, M, G and T are powers of 1024."""
    found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*([KMGT]?)(?:i?B)?\s*", text, re.I | re.A)
    value = float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " ") if found else 0
    if value < 1:
        raise _wrong(f"it must be a size such as 512M or 4G, not {text!r}")
    return int(value)


def seconds(text: str) -> float:
    """Read a time."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise _wrong(f"it must be a number of seconds above 0, not {text!r}")
    return value


def address(text: str) -> Address:
    """Read the address of a server."""
    try:
        return parse_address(text)
    except AddressError as exc:
        raise _wrong(f"{exc}; write host:port, [IPv6]:port or unix:/path") from None


def host(text: str) -> str:
    """Read the name or the number of an interface to listen on."""
    try:
        parse_address((text, 0))
    except AddressError as exc:
        raise _wrong(exc.reason) from None
    return text


def socket_path(text: str) -> str:
    """Read where a Unix socket is to be."""
    if not text or "\0" in text:
        raise _wrong("it must be the path of a socket")
    if len(os.fsencode(text)) > LONGEST_SOCKET_PATH:
        raise _wrong(f"a socket's path has at most {LONGEST_SOCKET_PATH} bytes; this is longer")
    folder = os.path.dirname(text) or "."
    if not os.path.isdir(folder):
        raise _wrong(f"there is no folder {folder!r}")
    return text


def file(text: str) -> str:
    """Read the path of a file that is to be read."""
    path = os.path.expanduser(text)
    try:
        with open(path, "rb"):
            pass
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise _wrong(f"{text!r} cannot be read: {reason}") from None
    return path


def text(value: str) -> str:
    """Read a word or a line, which must say something."""
    if not value.strip() or "\0" in value:
        raise _wrong("it must not be empty")
    return value


def names(value: str) -> list[str]:
    """Read names that commas or blanks separate."""
    found = value.replace(",", " ").split()
    if not found:
        raise _wrong("it must name somebody")
    return found


def module_names(value: str) -> list[str]:
    """Read names of modules that commas separate; none is fine."""
    found = [name.strip() for name in value.split(",") if name.strip()]
    for name in found:
        if not all(part.isidentifier() for part in name.split(".")):
            raise _wrong(f"{name!r} is not the name of a module; separate names by commas")
    return found
