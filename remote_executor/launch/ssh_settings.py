"""
What the user's configuration of SSH says of a host: asked of ``ssh -G`` wherever there is an ssh.

Nobody else reads ``ssh_config`` as ssh does: ``Match final``, ``exec`` and ``canonical``, comments
behind values, which of two lines counts. Where there is no program ssh, paramiko's reader does what
it can, and :func:`refuse_unknown` names the lines that would mean something else there.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remote_executor.launch.hosts import SSHHost

__all__ = ["Settings", "ask_ssh", "make_settings", "refuse_unknown", "unknown_line"]

ASK_SECONDS = 20.0
"""For ``ssh -G``, which runs the commands of ``Match exec``."""

SSH_PORT = 22
STANDARD_KEYS = ("ed25519", "ecdsa", "rsa")

Words = Mapping[str, Sequence[str]]
"""What is said, by keyword in small letters; several values where a keyword may stand twice."""


@dataclass(frozen=True, slots=True)
class Settings:
    """
    What is known of a host before it is connected to. Paths are absolute, tokens are filled in.

    Attributes:
        name: Its name or number.
        port: That of its SSH server.
        user: Who logs in.
        proxy_jump: The hosts to jump over, as ``ProxyJump`` has them; None for none.
        proxy_command: What to run for a connection; None for nothing.
        identities: Private keys to try where they exist, or public ones of keys of an agent.
        identities_only: Whether no other key of an agent is to be tried.
        certificates: Certificates for them.
        agent: The socket of an agent; "" for none.
        public_keys, passwords: Whether to try these.
        known_name: What known_hosts calls it.
        known_port: Whether the port belongs to that: it does not to an alias.
        known_files: The known_hosts files; the first one takes new keys.
        revoked_file: A file of revoked keys; None for none.
        known_command: A program that tells keys; None for none.
        hashed: Whether names are added in a form that nobody can read.
        host_key_algorithms: Those that are taken, the best first; empty for the usual.
        family: The kind of addresses to connect to; AF_UNSPEC for any.
        bind_address: Where to connect from; None for anywhere.
        connect_seconds: How long a connection may take; None for the usual.
    """

    name: str
    port: int
    user: str
    proxy_jump: str | None
    proxy_command: str | None
    identities: tuple[str, ...]
    identities_only: bool
    certificates: tuple[str, ...]
    agent: str
    public_keys: bool
    passwords: bool
    known_name: str
    known_port: bool
    known_files: tuple[str, ...]
    revoked_file: str | None
    known_command: str | None
    hashed: bool
    host_key_algorithms: tuple[str, ...]
    family: socket.AddressFamily
    bind_address: str | None
    connect_seconds: float | None


def ask_ssh(program: str, host: SSHHost, config: str | None) -> dict[str, list[str]]:
    """
    Ask ssh what it would do.

    Args:
        program: Its path.
        host: Which host, and what is said of it beside the configuration.
        config: A configuration to read instead of the usual ones.

    Returns:
        What it says, for :func:`make_settings`.

    Raises:
        ValueError: If it finds fault with the configuration.
        OSError: If it cannot be run.
    """
    words = [program, "-G", "-T"]
    if config is not None:
        words += ["-F", config]
    if host.user is not None:
        words += ["-l", host.user]
    if host.port is not None:
        words += ["-p", str(host.port)]
    try:
        run = subprocess.run(
            [*words, "--", host.name],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ASK_SECONDS,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"'{shlex.join([*words, '--', host.name])}' took longer than {ASK_SECONDS:g} s: "
            "perhaps a command of Match exec does not end"
        ) from None
    if run.returncode:
        said = run.stderr.decode("utf-8", "replace").strip()
        raise ValueError(said or f"ssh -G ended with exit status {run.returncode}")
    found: dict[str, list[str]] = {}
    for line in run.stdout.decode("utf-8", "surrogateescape").splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key.lower(), []).append(value)
    return found


def make_settings(
    host: SSHHost, words: Words, environment: Mapping[str, str], home: str, filled: bool = True
) -> Settings:
    """
    Fill in what the configuration leaves open.

    Args:
        host: Which host.
        words: What the configuration says of it.
        environment: Of this process.
        home: The user's folder.
        filled: Whether the names of known_hosts files are filled in already, as ssh does it.

    Raises:
        ValueError: If something cannot be meant.
    """

    def one(key: str) -> str | None:
        values = words.get(key) or ()
        value = values[0].strip() if values else ""
        return value if value and value.lower() != "none" else None

    name = one("hostname") or host.name
    port = _number(one("port") or str(SSH_PORT), "Port")
    user = one("user") or _local_user()
    alias = one("hostkeyalias")
    fill = _Tokens(name, port, user, host.name, alias, one("proxyjump"), home)

    def path(text: str) -> str:
        return _from_home(fill(_variables(text, environment)), home)

    usual = [f"~/.ssh/id_{kind}" for kind in STANDARD_KEYS]
    identities = words.get("identityfile", usual)
    agent = one("identityagent")
    said = (words.get("identityagent") or [""])[0].strip()
    if said.lower() == "none":
        socket_path = ""
    elif agent is None or agent == "SSH_AUTH_SOCK":
        socket_path = environment.get("SSH_AUTH_SOCK", "")
    elif agent.startswith("$") and not agent.startswith("${"):
        socket_path = environment.get(agent[1:], "")
    else:
        socket_path = path(agent)
    files = (words.get("userknownhostsfile") or ["~/.ssh/known_hosts ~/.ssh/known_hosts2"])[0]
    more = (words.get("globalknownhostsfile") or ["/etc/ssh/ssh_known_hosts"])[0]
    known = [each for text in (files, more) for each in _paths(text) if each.lower() != "none"]
    if not filled:
        known = [fill(_variables(each, environment)) for each in known]
    revoked = one("revokedhostkeys")
    command = one("proxycommand")
    families = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
    seconds = one("connecttimeout")
    return Settings(
        name=name,
        port=port,
        user=user,
        proxy_jump=one("proxyjump"),
        proxy_command=None if command is None else fill(command),
        identities=tuple(path(each) for each in identities if each.strip().lower() != "none"),
        identities_only=one("identitiesonly") == "yes",
        certificates=tuple(
            path(each) for each in words.get("certificatefile", ()) if each.lower() != "none"
        ),
        agent=socket_path,
        public_keys=one("pubkeyauthentication") not in ("no", "false"),
        passwords=one("passwordauthentication") not in ("no", "false"),
        known_name=alias or name,
        known_port=alias is None,
        known_files=tuple(_from_home(each, home) for each in known),
        revoked_file=None if revoked is None else path(revoked),
        known_command=one("knownhostscommand"),
        hashed=one("hashknownhosts") == "yes",
        host_key_algorithms=_algorithms(one("hostkeyalgorithms")),
        family=families.get((one("addressfamily") or "any").lower(), socket.AF_UNSPEC),
        bind_address=one("bindaddress"),
        connect_seconds=None if seconds is None else _number(seconds, "ConnectTimeout"),
    )


def _local_user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        raise ValueError(f"user id {os.getuid()} has no name on this machine: say user=") from None


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{what} must be a number, not {text!r}")
    return int(text)


def _algorithms(text: str | None) -> tuple[str, ...]:
    """Read a list; one that only changes the usual list says nothing that is needed here."""
    return () if text is None or text[0] in "+-^" else tuple(text.split(","))


def _paths(text: str) -> list[str]:
    """
    Split what ``ssh -G`` prints of several files: it leaves out the quotes of names with blanks.

    A piece that does not begin as a path does belongs to the one before.
    """
    pieces: list[str] = []
    quoted = '"' in text
    for piece in shlex.split(text) if quoted else text.split(" "):
        if pieces and not quoted and piece[:1] not in ("/", "~", "%", "$") and piece != "none":
            pieces[-1] += f" {piece}"
        else:
            pieces.append(piece)
    return [piece for piece in pieces if piece]


def _from_home(text: str, home: str) -> str:
    if text == "~" or text.startswith("~/"):
        text = home + text[1:]
    elif text.startswith("~"):
        text = os.path.expanduser(text)
    # ssh looks for relative ones in its own folder, which is this process's.
    return os.path.abspath(text) if text else text


def _variables(text: str, environment: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in environment:
            raise ValueError(f"{text!r} names the variable {name}, which is not set")
        return environment[name]

    return re.sub(r"\$\{(\w+)\}", value, text)


class _Tokens:
    """Fills in ``%h`` and its kin."""

    def __init__(
        self,
        name: str,
        port: int,
        user: str,
        given: str,
        alias: str | None,
        jump: str | None,
        home: str,
    ) -> None:
        host = socket.gethostname()
        self._values = {
            "%": "%",
            "d": home,
            "h": name,
            "i": str(os.getuid()),
            "j": jump or "",
            "k": alias or name,
            "L": host.partition(".")[0],
            "l": host,
            "n": given,
            "p": str(port),
            "r": user,
        }

    def __call__(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            letter = match[1]
            if letter == "u":
                return _local_user()
            if letter not in self._values:
                raise ValueError(f"{text!r} has %{letter} in it, which is not known here")
            return self._values[letter]

        return re.sub(r"%(.?)", value, text)


# ---------------------------------------------------------------------- without an ssh

CRITERIA = frozenset({"all", "exec", "host", "localuser", "originalhost", "user"})
"""What paramiko knows behind ``Match``."""

UNFIT = {
    "canonicalizehostname": "names are looked up",
    "knownhostscommand": "a program tells the keys of hosts",
    "pkcs11provider": "keys come from a token",
    "revokedhostkeys": "keys were revoked",
    "tag": "Match may ask for it",
    "verifyhostkeydns": "keys come from DNS",
}
"""Settings that change who is connected to or trusted, and that paramiko passes over."""

READ = frozenset(
    {
        "addressfamily",
        "bindaddress",
        "certificatefile",
        "connecttimeout",
        "globalknownhostsfile",
        "hashknownhosts",
        "host",
        "hostkeyalgorithms",
        "hostkeyalias",
        "hostname",
        "identitiesonly",
        "identityagent",
        "identityfile",
        "include",
        "match",
        "passwordauthentication",
        "port",
        "proxycommand",
        "proxyjump",
        "pubkeyauthentication",
        "user",
        "userknownhostsfile",
    }
)
"""Settings that are heeded here. All others are for what we never ask SSH to do."""

LINE = re.compile(r"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*?)\s*$")


def refuse_unknown(text: str, applies: Callable[[str], bool]) -> None:
    """
    Refuse a configuration that paramiko would read otherwise than ssh does.

    Args:
        text: A configuration, with its ``Include`` lines filled in.
        applies: Tells whether the block below a ``Host`` or ``Match`` line is for our host.

    Raises:
        ValueError: It names the line, and what to do.
    """
    block = "Host *"
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = LINE.match(line)
        if found is None:
            raise unknown_line(line, "it is no setting")
        key, value = found[1].lower(), found[2]
        if key in ("host", "match"):
            block = line.strip()
        if key == "match":
            _check_criteria(line, value)
        elif key in READ:
            _check_value(line, value)
        if key in UNFIT and value.lower() not in ("no", "none") and applies(block):
            raise unknown_line(line, UNFIT[key])


def _check_criteria(line: str, value: str) -> None:
    try:
        words = shlex.split(value, comments=False)
    except ValueError as exc:
        raise unknown_line(line, str(exc)) from None
    takes_value = False
    for word in words:
        if takes_value:
            takes_value = False
            continue
        name = word.lstrip("!").lower()
        if name not in CRITERIA or word.startswith("!!"):
            raise unknown_line(line, f"{word!r} behind Match is not known here")
        if name == "exec":
            raise unknown_line(line, "a command decides")
        takes_value = name != "all"
    if takes_value or not words:
        raise unknown_line(line, "Match without a value")


def _check_value(line: str, value: str) -> None:
    # A command is for the shell, which reads what stands there in its own way.
    command = line.lstrip()[:12].lower() == "proxycommand"
    if command and "%%" not in value:
        return
    if " #" in value or "\t#" in value:
        raise unknown_line(line, "what stands behind '#' may be a comment or not")
    if "%%" in value:
        raise unknown_line(line, "'%%' is read in more than one way")
    if value.count('"') % 2 or "'" in value or "\\" in value:
        raise unknown_line(line, "quotes and backslashes are read in more than one way")


def unknown_line(line: str, why: str) -> ValueError:
    """
    Make the error for a line that cannot be followed.

    Args:
        line: The line.
        why: What is wrong with it here.
    """
    return ValueError(
        f"{line.strip()!r} cannot be followed here ({why}): install the program ssh, which is "
        "asked what its configuration means, or give ssh_config= a file without that line"
    )
