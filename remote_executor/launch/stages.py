"""
How a launch goes on, and what it says when it fails. Words and decisions; no socket, no clock.

::

    client                                         host
    ------                                         ----
    resolve, connect, host key, authentication
    the command                ---- argv ---->     login shell, sh, python3 -I -S
    the first stage's source   ---- stdin --->     runs it
                               <--- {"python"} --  which Python, is the zip there
    config, secret, zip        ---- stdin --->     checks the zip, becomes the server
                               <--- {"at"} -----   import, port
                               <--- {"address"}    it listens

What the host says are lines on its standard output that carry :data:`MARK`; whatever else a login
shell prints is kept for the error.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from remote_executor.errors import LaunchFailed
from remote_executor.launch.hosts import CommandHost
from remote_executor.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.launch.hosts import SSHHost

__all__ = ["MARK", "RESOLVER_AWAY", "STAGES", "Dialogue", "Progress", "by_hand", "read_complaint"]

MARK = "remote_executor-launch:"

STAGES = (
    "configuration",
    "resolve",
    "connect",
    "host key",
    "authentication",
    "boot",
    "python not found",
    "python too old",
    "import",
    "port",
)

MOST_NOISE = 64 * 1024
MOST_WORDS = 600


class Progress:
    """
    How far the launch on one host has come.

    Args:
        host: The host.
        config: The path of the ssh_config in use, if it is not the usual one.

        report: Called with each stage that is entered.

    Attributes:
        stage: What is being done now.
        cancelled: Whether nobody wants this any more.
    """

    def __init__(
        self,
        host: SSHHost | CommandHost,
        config: str | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.host = host
        self.config = config
        self.stage = "configuration"
        self.cancelled = False
        self._report = report
        self._closes: list[Callable[[], None]] = []
        self._inner: Progress | None = None

    def enter(self, stage: str) -> None:
        """Go on to a stage."""
        if stage != self.stage:
            self.stage = stage
            if self._report is not None:
                self._report(stage)

    def hold(self, close: Callable[[], None]) -> None:
        """Say what is to be closed if nobody wants this any more."""
        self._closes.append(close)

    def follow(self, inner: Progress) -> None:
        """Say that another login is on the way to this one."""
        self._inner = inner

    def cancel(self) -> None:
        """Nobody wants this any more. Any thread may call it."""
        self.cancelled = True
        if self._inner is not None:
            self._inner.cancel()
        for close in list(self._closes):
            close()

    def failure(
        self, reason: str, stderr: str = "", stage: str | None = None, may_pass: bool = False
    ) -> LaunchFailed:
        """
        Make the error that says where it failed.

        Args:
            reason: Why.
            stderr: What the other side wrote.
            stage: Where, if not in the present stage.
            may_pass: Whether it may go well a moment later.
        """
        where = stage or self.stage
        # The other side may write what it likes, and the error is shown at a terminal.
        reason = printable(reason)
        words = printable(" ".join(stderr.split()))
        if len(words) > MOST_WORDS:
            words = f"{words[: MOST_WORDS // 3]} ... {words[-2 * MOST_WORDS // 3 :]}"
        command = by_hand(where, self.host, self.config)
        failure = LaunchFailed(str(self.host), where, reason, words, command)
        failure.may_pass = may_pass
        return failure


def by_hand(stage: str, host: SSHHost | CommandHost, config: str | None = None) -> str:
    """
    Return what to type into a shell to see the trouble for oneself.

    Args:
        stage: Where it failed.
        host: The host.
        config: The path of the ssh_config in use, if it is not the usual one.
    """
    python = _for_shell(host.python or "python3")
    setup = "" if host.setup is None else f"{host.setup} && "
    if isinstance(host, CommandHost):
        line = f"{setup}{python} -I -S -c 'print(1)'"
        return shlex.join([*host.words, *host.behind(line)])
    if stage == "resolve":
        return shlex.join(["getent", "hosts", host.name])
    words = ["ssh"]
    if config is not None:
        words += ["-F", config]
    if stage == "configuration":
        return shlex.join([*words, "-G", host.name])
    if host.port is not None:
        words += ["-p", str(host.port)]
    if host.proxy is not None:
        words += ["-J", host.proxy]
    for key in host.keys:
        words += ["-i", key]
    words.append(host.name if host.user is None else f"{host.user}@{host.name}")
    if stage in ("connect", "host key", "authentication"):
        words[1:1] = ["-v"]
        words.append("true")
    elif stage in ("python not found", "python too old"):
        words.append(f"{setup}command -v {python} && {python} --version")
    elif stage == "port":
        words[1:1] = ["-v", "-W", "127.0.0.1:22"]
    else:
        words.append(f"{setup}{python} -I -S -c 'print(1)'")
    return shlex.join(words)


def _for_shell(path: str) -> str:
    """Quote a path for a shell, which may say where home is."""
    home, slash, rest = path.partition("/")
    if slash and home in ("~", "$HOME", "${HOME}"):
        return f"~/{shlex.quote(rest)}"
    return shlex.quote(path)


def _nothing() -> str:
    return ""


class Dialogue:
    """
    What the host says, read line by line.

    Feed it with :meth:`received`, then look at the attributes.

    Args:
        progress: Told of each stage; makes the errors.
        last_words: Returns what the host has written to its standard error, once it says that it
            gives up.

    Attributes:
        python: The version there, once the first stage has said so.
        has_zip: Whether the library is there already.
        address: Where the server listens, at the end.
        noise: What else came.
    """

    def __init__(self, progress: Progress, last_words: Callable[[], str] = _nothing) -> None:
        self._progress = progress
        self._last_words = last_words
        self._line = b""
        self.python: list[int] | None = None
        self.has_zip = False
        self.address: str | None = None
        self.pid = 0
        self.noise = b""

    def received(self, data: bytes) -> None:
        """
        Take what has come.

        Raises:
            LaunchFailed: If the host says that it cannot be.
        """
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            before, mark, words = line.partition(MARK.encode())
            if not mark:
                self._make_noise(line + b"\n")
                continue
            if before.strip():
                self._make_noise(before + b"\n")
            self._hear(words.decode("utf-8", "replace").strip())
        if len(self._line) > MOST_NOISE:
            self._make_noise(self._line)
            self._line = b""

    def _make_noise(self, data: bytes) -> None:
        self.noise = (self.noise + data)[-MOST_NOISE:]

    def _hear(self, words: str) -> None:
        if words.startswith("setup"):
            raise self._failure(f"the setup line failed with exit status {words[5:].strip()}")
        if words.startswith("none"):
            found = words[4:].strip(" ;")
            if "False" in found:
                text = f"Python 3.10 or later is needed; there is {found.replace('False ', '')}"
                raise self._failure(text, "python too old")
            text = f"no Python that runs: {found}" if found else self._no_python()
            raise self._failure(text, "python not found")
        try:
            fields = json.loads(words)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise self._failure(f"it answers with what cannot be understood: {words[:200]}")
        self._learn(fields)

    def _failure(self, reason: str, stage: str | None = None) -> LaunchFailed:
        return self._progress.failure(reason, self.words(self._last_words()), stage)

    def _no_python(self) -> str:
        asked = self._progress.host.python
        if asked is None:
            return "there is no python3 in the PATH of a login there"
        where = "" if "/" in asked else " in the PATH of a login there"
        return f"there is no program {asked}{where}; python= (--python) asks for it"

    def _learn(self, fields: dict[str, Any]) -> None:
        if "error" in fields:
            at = fields.get("at")
            raise self._failure(str(fields["error"]), at if at in STAGES else None)
        if "python" in fields:
            self.python = [int(each) for each in fields["python"]]
            self.has_zip = fields.get("has_zip") is True
        elif fields.get("at") in STAGES:
            self._progress.enter(fields["at"])
        if "address" in fields:
            self.address = str(fields["address"])
            self.pid = int(fields.get("pid", 0))

    def ended(self, status: int | None, stderr: str) -> LaunchFailed:
        """
        Return the error for an end before the server was there.

        Args:
            status: The exit status of what ran there, if it is known.
            stderr: What it wrote to its standard error.
        """
        code = "" if status is None else f" with exit status {status}"
        if self.python is None:
            reason = f"the login shell there ended{code} before Python had started"
        else:
            reason = f"the server's process ended{code}"
        return self._progress.failure(reason, self.words(stderr))

    def late(self, seconds: float, stderr: str) -> LaunchFailed:
        """
        Return the error for a host that does not get on.

        Args:
            seconds: How long it was waited for.
            stderr: What it wrote to its standard error.
        """
        reason = f"no answer within {seconds:g} s"
        if self.python is None:
            reason += " from the login shell there: does it wait for input, or run tmux?"
        return self._progress.failure(reason, self.words(stderr))

    def words(self, stderr: str = "") -> str:
        """Return all that the other side has written that was not meant for us."""
        text = (self.noise + self._line).decode("utf-8", "replace")
        both = " ".join(f"{stderr} {text}".split())
        return printable(both)


RESOLVER_AWAY = ("temporary failure in name resolution", "try again")
"""What the program ssh says if the name service did not answer: of the name that says nothing."""

_COMPLAINTS = (
    ("bad configuration", "configuration", False),
    ("bad owner or permissions on", "configuration", False),
    ("could not resolve hostname", "resolve", False),
    ("name or service not known", "resolve", False),
    ("host key verification failed", "host key", False),
    ("host key is known for", "host key", False),
    ("remote host identification has changed", "host key", False),
    ("permission denied", "authentication", False),
    ("too many authentication failures", "authentication", False),
    ("unable to negotiate", "connect", False),
    ("connection refused", "connect", False),
    ("connection timed out", "connect", False),
    ("no route to host", "connect", False),
    ("network is unreachable", "connect", False),
    ("kex_exchange_identification", "connect", True),
    ("banner exchange", "connect", True),
    ("connection reset by", "connect", True),
    ("connection closed by", "connect", True),
    ("broken pipe", "connect", True),
)


def read_complaint(stderr: str) -> tuple[str, str, bool]:
    """
    Find out what the program ssh complains of.

    Args:
        stderr: What it wrote.

    Returns:
        The stage, the line that says it, and whether another try may go better.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    for words, stage, again in _COMPLAINTS:
        for line in lines:
            if words in line.lower():
                return stage, line, again
    return "connect", lines[-1] if lines else "ssh ended without a word", False
