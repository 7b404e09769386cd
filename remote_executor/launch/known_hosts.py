"""
``known_hosts`` as sshd(8) describes it and ssh reads it.

A line is ``[marker] names kind key [comment]``. Names are patterns with commas between them, or one
name that is hashed. All lines count: a host may have several keys of one kind, and one that was
revoked anywhere is refused. A host at another port than 22 is ``[host]:port``; a line that names it
without a port vouches for its key as well, and accuses nobody.
"""

from __future__ import annotations

import binascii
import hmac
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from re import IGNORECASE, Pattern, compile

__all__ = ["HostKeys", "KnownHosts", "append_line", "host_label", "name_matches"]

SSH_PORT = 22
HASHED = "|1|"
"""How a hashed name begins: then salt and HMAC-SHA1, in base64."""


@dataclass(frozen=True, slots=True)
class HostKeys:
    """
    What is known of a host. A key is its kind and its text in base64.

    Attributes:
        known: The keys that it may have.
        without_port: Those that are known of it whatever its port.
        revoked: The keys that it must not have.
        authorities: The keys of authorities that may have signed its certificate.
    """

    known: tuple[tuple[str, str], ...]
    without_port: tuple[tuple[str, str], ...]
    revoked: tuple[tuple[str, str], ...]
    authorities: tuple[tuple[str, str], ...]


def host_label(name: str, port: int) -> str:
    """
    Return what known_hosts calls a host.

    Args:
        name: Its name or number.
        port: That of its SSH server.
    """
    return name if port == SSH_PORT else f"[{name}]:{port}"


class KnownHosts:
    """
    The known_hosts files of a client; each is read again only once it has changed.

    For one thread at a time.
    """

    def __init__(self) -> None:
        self._read: dict[str, tuple[tuple[int, int, int], list[_Line]]] = {}

    def look_up(self, paths: Iterable[str], name: str, port: int) -> HostKeys:
        """
        Find what is known of a host.

        Args:
            paths: Files; those that do not exist count as empty.
            name: Its name, in small letters or not.
            port: That of its SSH server; 22 as well where ``HostKeyAlias`` names it.

        Raises:
            OSError: If a file cannot be read.
        """
        name = name.lower()
        label = host_label(name, port)
        found: dict[str, list[tuple[str, str]]] = {"": [], "@revoked": [], "@cert-authority": []}
        without_port: list[tuple[str, str]] = []
        for path in paths:
            for line in self._lines(path):
                if name_matches(line.names, label):
                    found[line.marker].append(line.key)
                elif label != name and name_matches(line.names, name):
                    if line.marker:
                        found[line.marker].append(line.key)
                    else:
                        without_port.append(line.key)
        return HostKeys(
            tuple(dict.fromkeys(found[""])),
            tuple(dict.fromkeys(without_port)),
            tuple(dict.fromkeys(found["@revoked"])),
            tuple(dict.fromkeys(found["@cert-authority"])),
        )

    def _lines(self, path: str) -> list[_Line]:
        try:
            status = os.stat(path)
            version = status.st_mtime_ns, status.st_size, status.st_ino
            before = self._read.get(path)
            if before is not None and before[0] == version:
                return before[1]
            with open(path, "rb") as file:
                text = file.read().decode("utf-8", "surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            return []
        # Not splitlines(), which would break a comment at a form feed.
        lines = [line for each in text.split("\n") if (line := _parse(each)) is not None]
        self._read[path] = version, lines
        return lines


@dataclass(frozen=True, slots=True)
class _Line:
    marker: str
    names: str
    key: tuple[str, str]


def _parse(text: str) -> _Line | None:
    """Read a line; None for a comment and for what ssh passes over."""
    parts = text.split(None, 4)
    marker = ""
    if parts and parts[0].startswith("@"):
        marker, *parts = parts
        if marker not in ("@revoked", "@cert-authority"):
            return None
    if len(parts) < 3 or parts[0].startswith("#") or parts[1].isdigit():
        return None  # a number is where a key of version 1 begins
    return _Line(marker, parts[0], (parts[1], parts[2]))


def name_matches(names: str, label: str) -> bool:
    """
    Tell whether the first word of a line means a host.

    Args:
        names: Patterns with ``*``, ``?`` and ``!``, commas between them; or one hashed name.
        label: The host as :func:`host_label` has it, in small letters.
    """
    if names.startswith("|"):
        return _is_hash_of(names, label)
    found = False
    for each in names.split(","):
        refused = each.startswith("!")
        pattern = (each[1:] if refused else each).lower()
        wild = "*" in pattern or "?" in pattern
        if pattern == label or (wild and _pattern(pattern).match(label)):
            if refused:
                return False
            found = True
    return found


@lru_cache(256)
def _pattern(text: str) -> Pattern[str]:
    # Brackets stand for themselves, as in "[host]:port"; fnmatch would take them for a set.
    return compile(translate(text.replace("[", "[[]")), IGNORECASE)


def _is_hash_of(names: str, label: str) -> bool:
    if not names.startswith(HASHED):
        return False
    salt, _, digest = names[len(HASHED) :].partition("|")
    try:
        return hmac.digest(b64decode(salt), label.encode(), "sha1") == b64decode(digest)
    except (binascii.Error, ValueError):
        return False


def append_line(path: str, name: str, key: tuple[str, str], hashed: bool) -> None:
    """
    Add a host's key to a file, which is made if there is none.

    Args:
        path: The file.
        name: The host as :func:`host_label` has it.
        key: Its kind and text.
        hashed: Whether to write the name so that nobody can read it (``HashKnownHosts``).

    Raises:
        OSError: If it cannot be written.
    """
    if hashed:
        salt = os.urandom(20)
        try:
            digest = hmac.digest(salt, name.lower().encode(), "sha1")
        except ValueError as exc:  # a FIPS policy may refuse it
            raise OSError(f"the name cannot be hashed here: {exc}") from exc
        name = f"{HASHED}{b64encode(salt).decode()}|{b64encode(digest).decode()}"
    os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with open(fd, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        # Somebody may have edited it and left the last line without an end.
        end = b"\n" if size and os.pread(fd, 1, size - 1) != b"\n" else b""
        file.write(end + f"{name} {' '.join(key)}\n".encode())
