"""Which hosts are meant, and how to log in there: words only, nothing is looked up."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from remote_executor.errors import AddressError

__all__ = [
    "CommandHost",
    "CommandLike",
    "HostLike",
    "SSHHost",
    "parse_commands",
    "parse_host",
    "parse_hosts",
    "split_jumps",
    "why_unfit_for_shell",
]

SHELL_SIGNS = frozenset("'\"`$\\;&<>|(){}*?!#~^")
"""
What a shell does not take as it stands. ssh_config hands names on to one, in ``ProxyCommand`` and
``Match exec``, and quotes nothing; OpenSSH has refused such names since 9.6 (CVE-2023-51385).
"""

USER_SIGNS = SHELL_SIGNS - frozenset("$\\")
"""Of users a few more are met: ``DOMAIN\\me``, and ``host$`` for the account of a machine."""


@dataclass(frozen=True)
class SSHHost:
    """
    A host to start a server on, and how to log in there.

    Where something is None, ``~/.ssh/config`` decides.

    Attributes:
        name: A host name, a number, or a name from ``~/.ssh/config``.
        user: Who to log in as.
        port: The port of its SSH server.
        python: The Python to run there; None means any from 3.10 on that is found: ``python3``,
            then ``python3.14`` down to ``python3.10``.
        setup: A line for ``sh`` to be run before, such as "module load python/3.12".
        workers: How many tasks it runs at a time; None means one for each of its cores.
        env: Variables for the server and its workers.
        key_filename: A private key, or several, tried before those of the agent.
        password: For the login, or as the passphrase of a key.
        proxy: A host to jump over, or several with commas between them, the nearest first; "none"
            for no jump, whatever ``~/.ssh/config`` says.
        log_file: A file on that host to which its server writes; None for none.
    """

    name: str
    user: str | None = None
    port: int | None = None
    python: str | None = None
    setup: str | None = None
    workers: int | None = None
    env: Mapping[str, str] | None = None
    key_filename: str | tuple[str, ...] | None = None
    password: str | None = field(default=None, repr=False)
    proxy: str | None = None
    log_file: str | None = None

    def __post_init__(self) -> None:
        _check(self)

    def __str__(self) -> str:
        text = f"[{self.name}]" if ":" in self.name else self.name
        if self.user is not None:
            text = f"{self.user}@{text}"
        return text if self.port is None else f"{text}:{self.port}"

    @property
    def keys(self) -> tuple[str, ...]:
        """The private keys that were given."""
        if self.key_filename is None:
            return ()
        return (self.key_filename,) if isinstance(self.key_filename, str) else self.key_filename

    def over(self, defaults: SSHHost) -> SSHHost:
        """
        Return this host, with what it leaves open taken from another.

        Args:
            defaults: Its name is of no account.
        """
        return _filled(self, defaults)


SHELL_PROGRAMS = frozenset(("ssh", "autossh", "rsh", "plink", "dropbear", "dbclient"))
"""Programs that join their arguments and have a shell on the other side read them."""


@dataclass(frozen=True)
class CommandHost:
    """
    A place where a command runs things, with standard input and output connected.

    Such as ``docker exec -i c1``, ``kubectl exec -i pod --``, ``srun -N1``, ``sudo -u other``,
    ``ssh -T host``. What is to be run there is put behind it.

    Attributes:
        argv: The command: a text, which is taken apart as a shell does, or its words.
        python: The Python to run there; None means any from 3.10 on that is found.
        setup: A line for ``sh`` to be run before.
        workers: How many tasks it runs at a time; None means one for each core there.
        env: Variables for the server and its workers.
        log_file: A file there to which its server writes; None for none.
        shell: Whether the command has a shell read what is put behind it, as ssh does; None means
            that ssh and its kin do.
    """

    argv: str | Sequence[str]
    python: str | None = None
    setup: str | None = None
    workers: int | None = None
    env: Mapping[str, str] | None = None
    log_file: str | None = None
    shell: bool | None = None

    def __post_init__(self) -> None:
        given: Any = self.argv
        if isinstance(given, str):
            try:
                given = shlex.split(given)
            except ValueError as exc:
                raise AddressError(str(given), f"it is not a command: {exc}") from None
        words = tuple(given)
        if not all(isinstance(word, str) for word in words):
            raise TypeError("a command must be a str, or a sequence of them")
        if not words or not words[0] or any("\0" in word for word in words):
            raise AddressError(shlex.join(words), "it is not a command")
        object.__setattr__(self, "argv", words)
        _check_fields(self, self.name)

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """The command, as it is typed."""
        return shlex.join(self.words)

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the command."""
        return tuple(self.argv)

    @property
    def goes_through_a_shell(self) -> bool:
        """Whether what is put behind the command is read by a shell."""
        if self.shell is not None:
            return self.shell
        return os.path.basename(self.words[0]) in SHELL_PROGRAMS

    def behind(self, line: str) -> list[str]:
        """
        Return what is put behind the command, so that a shell there runs a line.

        Args:
            line: The line.
        """
        return [line] if self.goes_through_a_shell else ["sh", "-c", line]

    def over(self, defaults: CommandHost) -> CommandHost:
        """
        Return this place, with what it leaves open taken from another.

        Args:
            defaults: Its command is of no account.
        """
        return _filled(self, defaults)


HostLike = str | SSHHost

CommandLike = str | Sequence[str] | CommandHost


H = TypeVar("H", "SSHHost", "CommandHost")


def _filled(host: H, defaults: H) -> H:
    """Return a host, with what it leaves open taken from another."""
    taken = {
        each.name: getattr(defaults, each.name)
        for each in fields(host)
        if getattr(host, each.name) is None
    }
    return replace(host, **taken)


def _check(host: SSHHost) -> None:
    """See that every field can be meant, before anything is started (PARITY S6)."""
    name: Any = host.name
    if not isinstance(name, str):
        raise TypeError(f"a host must be a str or an SSHHost, not {type(name).__name__}")
    if not name or name[0] == "-" or any(not c.isprintable() or c in " ,/@[]" for c in name):
        raise AddressError(name, "it is not the name or the number of a host")
    _check_fields(host, name)
    if host.user is not None and (host.user[0] == "-" or " " in host.user):
        raise AddressError(name, f"{host.user!r} is not the name of a user")
    unfit = why_unfit_for_shell(name, host.user)
    if unfit is not None:
        raise AddressError(name, unfit)
    if host.proxy is not None:
        try:
            split_jumps(host.proxy)
        except AddressError as exc:
            raise AddressError(name, f"proxy cannot be {host.proxy!r}: {exc.reason}") from None
    keys: tuple[Any, ...] = host.keys
    for key in keys:
        if not isinstance(key, str) or not key:
            raise TypeError("key_filename must be a str, or a tuple of them")


def _check_fields(host: SSHHost | CommandHost, name: str) -> None:
    for what in ("user", "python", "setup", "password", "proxy", "log_file"):
        value = getattr(host, what, None)
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{what} must be a str, not {type(value).__name__}")
        if value is not None and (not value or (what != "password" and not value.isprintable())):
            raise AddressError(name, f"{what} cannot be {value!r}")
    for what, most in (("port", 65535), ("workers", 1_000_000)):
        number = getattr(host, what, None)
        if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
            raise TypeError(f"{what} must be an int, not {type(number).__name__}")
        if number is not None and not 1 <= number <= most:
            raise AddressError(name, f"{what} must be from 1 to {most}, not {number}")
    if host.env is not None:
        pairs: Any = host.env.items()
        for pair in pairs:
            if not all(isinstance(each, str) and "\0" not in each for each in pair):
                raise TypeError("env must map str to str")


def why_unfit_for_shell(name: str, user: str | None) -> str | None:
    """
    Tell why a host's or a user's name must not reach a shell.

    Args:
        name: The host's.
        user: The user's, if it is known.

    Returns:
        The reason; None if both may.
    """
    odd = sorted(set(name) & SHELL_SIGNS)
    if odd:
        return f"the name of a host cannot have {' '.join(odd)} in it, which a shell would act upon"
    if name[:1] == "-" or not name.isprintable() or " " in name:
        return f"{name!r} is not the name of a host"
    if user is None:
        return None
    odd = sorted(set(user) & USER_SIGNS)
    if odd or "$" in user[:-1] or user[-1:] == "\\":
        signs = " ".join(odd) or ("$" if "$" in user[:-1] else "a backslash at its end")
        return f"the name of a user cannot have {signs} in it, which a shell would act upon"
    if user[:1] == "-" or not user.isprintable() or " " in user:
        return f"{user!r} is not the name of a user"
    return None


def parse_host(given: HostLike) -> SSHHost:
    """
    Read a host.

    Args:
        given: "host", "user@host", "user@host:port", "user@[::1]:port", any of these after "ssh://",
            or an :class:`SSHHost`. What stands before the last "@" is the user: "me@corp@host".

    Raises:
        AddressError: If it is none of these; it is a ValueError too.
        TypeError: If it is no text.
    """
    if isinstance(given, SSHHost):
        return given
    if not isinstance(given, str):
        raise TypeError(f"a host must be a str or an SSHHost, not {type(given).__name__}")
    text = given.strip()
    if text.startswith("ssh://"):
        text = text.removeprefix("ssh://").removesuffix("/")
    user, at, rest = text.rpartition("@")
    if rest.startswith("["):
        name, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and tail[0] != ":"):
            raise AddressError(given, "expected 'user@[host]:port'")
        port = tail[1:] if tail else None
    elif rest.count(":") > 1:
        name, port = rest, None  # an IPv6 number
    else:
        name, colon, tail = rest.partition(":")
        port = tail if colon else None
    if at and not user:
        raise AddressError(given, "expected 'user@host'")
    if port is not None and not (port.isascii() and port.isdigit() and len(port) < 10):
        raise AddressError(given, "the port must be a number from 1 to 65535")
    try:
        return SSHHost(name, user or None, None if port is None else int(port))
    except AddressError as exc:
        raise AddressError(given, exc.reason) from None


def parse_hosts(given: Iterable[HostLike], defaults: SSHHost) -> list[SSHHost]:
    """
    Read a list of hosts.

    Args:
        given: Each as for :func:`parse_host`.
        defaults: What a host has that says nothing of it.

    Raises:
        AddressError: If one cannot be meant or is there twice, or if there is none.
        TypeError: If it is no list of hosts.
    """
    if isinstance(given, (str, bytes, SSHHost)) or not isinstance(given, Iterable):
        raise TypeError(f"hosts must be a list of hosts, not {given!r}")
    hosts = [parse_host(each).over(defaults) for each in given]
    if not hosts:
        raise AddressError("", "there must be at least one host")
    seen: dict[Any, None] = {}
    for host in hosts:
        key = host.name, host.user, host.port
        if key in seen:
            raise AddressError(
                str(host), "it is there twice: for more workers say SSHHost(..., workers=)"
            )
        seen[key] = None
    return hosts


def parse_commands(given: Iterable[CommandLike], defaults: CommandHost) -> list[CommandHost]:
    """
    Read a list of commands.

    Args:
        given: Each a text, its words, or a :class:`CommandHost`.
        defaults: What one has that says nothing of it.

    Raises:
        AddressError: If one cannot be meant or is there twice, or if there is none.
        TypeError: If it is no list of commands.
    """
    if isinstance(given, (str, bytes, CommandHost)) or not isinstance(given, Iterable):
        raise TypeError(f"commands must be a list of commands, not {given!r}")
    hosts = [
        (each if isinstance(each, CommandHost) else CommandHost(each)).over(defaults)
        for each in given
    ]
    if not hosts:
        raise AddressError("", "there must be at least one command")
    for index, host in enumerate(hosts):
        if host.words in [other.words for other in hosts[:index]]:
            raise AddressError(
                host.name, "it is there twice: for more workers say CommandHost(..., workers=)"
            )
    return hosts


def split_jumps(text: str | None) -> list[SSHHost]:
    """
    Read a list of hosts to jump over, the nearest first.

    Args:
        text: As ``ProxyJump`` has it: hosts with commas between them, "none", or None.

    Raises:
        AddressError: If one cannot be meant.
    """
    if text is None or text.strip().lower() == "none":
        return []
    return [parse_host(part) for part in text.split(",")]
