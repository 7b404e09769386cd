"""
The user's token: the secret that clients and servers of one user share.

It is a file of 64 hex digits that only its owner can read, made when it is first needed. Copy it
to the other machines, with the same mode, or name another by ``REMOTE_EXECUTOR_TOKEN_FILE``. A file
that is named must be there: were it made, a path with a slip would look like a wrong token.

To change it while farms are in use, :func:`renew_token` puts a new one in the first line and keeps
the one before in the second: a client proves that it knows the first, a server accepts both.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence

from remote_executor.wire.auth import Auth, Mechanism, TokenAuth

__all__ = [
    "LEAST_BYTES",
    "MOST_BYTES",
    "MOST_TOKENS",
    "Token",
    "inherit_path",
    "load_token",
    "load_tokens",
    "make_token",
    "renew_token",
    "secrets_of",
    "token_path",
]

MOST_BYTES = 4096
"""A longer file is not a token: somebody gave the wrong path."""

LEAST_BYTES = 16
"""
A shorter secret is refused. Whoever answers in a server's place gets a proof to guess at, as fast
as his machines can, without asking anybody.
"""

VARIABLE = "REMOTE_EXECUTOR_TOKEN_FILE"

MOST_TOKENS = 2
"""The one in use, and the one before."""


class Token(Auth):
    """
    Clients and servers that share a secret: for ``auth=``.

    Args:
        secrets: The secret, or two: the one in use, and the one before, which a server accepts as
            well; of 16 bytes at least. None means the user's token file: where it is now, with what
            it holds when a server starts or a client connects.

    Raises:
        TypeError, ValueError: If a secret cannot be one; see :func:`secrets_of`.
    """

    def __init__(self, *secrets: str | bytes) -> None:
        self._secrets = secrets_of(secrets) if secrets else None
        self._path = token_path()
        self._named = _named_path() is not None

    def __repr__(self) -> str:
        what = f"file {self._path}" if self._secrets is None else f"{len(self._secrets)} given"
        return f"<Token {what}>"

    def client(self, host: str) -> Mechanism:
        """
        Return the client's part of one handshake.

        Args:
            host: The server's; all of them share the secret.

        Raises:
            OSError, ValueError: As :func:`load_tokens`.
        """
        return TokenAuth("client", (self._secrets or self._load())[:1])

    def server(self) -> Callable[[], Mechanism]:
        """
        Return what makes a server's parts, with the secrets as they are now.

        Raises:
            OSError, ValueError: As :func:`load_tokens`.
        """
        secrets = self._secrets or self._load()
        return lambda: TokenAuth("server", secrets)

    def _load(self) -> tuple[bytes, ...]:
        return load_tokens(not self._named, self._path)


def token_path() -> str:
    """Return where the token is, or will be."""
    named = _named_path()
    if named is not None:
        return named
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(config, "remote_executor", "token")


def _named_path() -> str | None:
    return os.environ.get(VARIABLE) or _inherited


_inherited: str | None = None


def inherit_path(path: str) -> None:
    """
    Say which file is the user's in this process, where no variable names one.

    Workers of a server have no such variables, see :mod:`remote_executor.server.privacy`; but a
    task may reach the other servers of a farm as its server's account does.

    Args:
        path: The path.
    """
    global _inherited
    _inherited = os.path.abspath(path)


def make_token() -> bytes:
    """Return a new token: 32 random bytes as 64 hex digits."""
    return os.urandom(32).hex().encode()


def load_token(create: bool | None = None) -> bytes:
    """
    Return the user's token: the first line of the file.

    Args:
        create: As for :func:`load_tokens`.

    Raises:
        OSError, ValueError: As :func:`load_tokens`.
    """
    return load_tokens(create)[0]


def load_tokens(create: bool | None = None, path: str | None = None) -> tuple[bytes, ...]:
    """
    Return the tokens that a server of this user accepts: the one in use, then the one before.

    Args:
        create: Make one if there is none. If several processes do so at once, one of them wins and
            all return the same. None means: unless ``REMOTE_EXECUTOR_TOKEN_FILE`` names the file.
        path: The file; None for that of :func:`token_path`.

    Raises:
        FileNotFoundError: If there is none and none is to be made, since a file is named that does
            not exist, or a variable looks as if it were to name one.
        PermissionError: If others could read the file, or it belongs to somebody else.
        OSError: If it cannot be made.
        ValueError: If what is in the file cannot be a token.
    """
    path = path or token_path()
    if create is None:
        create = _named_path() is None
    if os.path.isdir(path):
        raise IsADirectoryError(
            f"the token file {path} is a folder: name a file by REMOTE_EXECUTOR_TOKEN_FILE"
        )
    try:
        return _read(path)
    except FileNotFoundError:
        if not create:
            raise FileNotFoundError(errno.ENOENT, _words_of_none(path)) from None
    alike = _misspelt(os.environ)
    if alike:
        raise FileNotFoundError(
            errno.ENOENT,
            f"there is no token file {path}, and none is made while {alike} is set: did you mean "
            f"{VARIABLE}?",
        )
    try:
        _create(path)
    except OSError as exc:
        raise OSError(
            exc.errno,
            f"the token file {path} cannot be made: {exc.strerror}; name another by "
            "REMOTE_EXECUTOR_TOKEN_FILE, or give auth=",
        ) from exc
    return _read(path)


def _words_of_none(path: str) -> str:
    words = f"there is no token file {path}"
    if path == os.environ.get(VARIABLE):
        words += (
            f", which {VARIABLE} names: correct it, copy the file there, or make one with "
            "'remote-executor token new'"
        )
        if path.startswith("~"):
            words += '; nothing replaces "~" here but a shell, before the variable is set'
    return words


def _misspelt(environ: Mapping[str, str]) -> str | None:
    """Return a variable that was probably to name the token file, and does not."""
    for name in sorted(environ):
        letters = "".join(c for c in name.upper() if c.isalnum())
        if name != VARIABLE and letters.startswith("REMOTEEXECUTOR") and "TOKEN" in letters:
            return name
    return None


def renew_token() -> str:
    """
    Make a new token, and keep the one in use as the one before. Return the path of the file.

    Raises:
        PermissionError: If others could read the file, or it belongs to somebody else.
        ValueError: If what is in the file cannot be a token.
    """
    path = os.path.realpath(token_path())  # a link to it stays one
    try:
        kept = _read(path)[: MOST_TOKENS - 1]
    except FileNotFoundError:
        _create(path)
        return path
    draft = _draft(path, [make_token(), *kept])
    try:
        os.replace(draft, path)  # whoever reads it sees the old file or the new one
    except OSError:
        os.unlink(draft)
        raise
    return path


def secrets_of(token: bytes | str | Sequence[bytes | str]) -> tuple[bytes, ...]:
    """
    Return the secrets that an ``auth=`` argument means, as bytes.

    Args:
        token: A secret, or several: the one in use first.

    Raises:
        ValueError: If there are none, or more than two, or one is shorter than 16 bytes.
        TypeError: If one is neither bytes nor text.
    """
    given = [token] if isinstance(token, (bytes, str)) else list(token)
    secrets = tuple(each.encode() if isinstance(each, str) else each for each in given)
    for each in secrets:
        if not isinstance(each, bytes):
            raise TypeError(f"a token must be bytes or str, not {type(each).__name__}")
        if not each:
            raise ValueError("a token must not be empty")
        if len(each) < LEAST_BYTES:
            raise ValueError(
                f"a secret of {len(each)} bytes can be guessed: it must have {LEAST_BYTES} at "
                "least, best random ones ('remote-executor token show' prints such a secret)"
            )
    if not 1 <= len(secrets) <= MOST_TOKENS:
        raise ValueError(f"there must be one token, or two, not {len(secrets)}")
    return secrets


def _read(path: str) -> tuple[bytes, ...]:
    with open(path, "rb") as file:
        # Asked of the open file, not of the path, which may lead elsewhere a moment later.
        status = os.fstat(file.fileno())
        if status.st_mode & 0o077:
            raise PermissionError(
                f"the token file {path} can be read or changed by others "
                f"(mode {status.st_mode & 0o777:03o}): do 'chmod 600 {path}', "
                "and make a new token if somebody may have seen it"
            )
        if status.st_uid not in (os.geteuid(), 0):
            raise PermissionError(f"the token file {path} belongs to another user")
        text = file.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise ValueError(f"the token file {path} is too long to be one")
    tokens = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not tokens or min(map(len, tokens)) < LEAST_BYTES:
        raise ValueError(f"the token file {path} holds no token: remove it to get a new one")
    if len(tokens) > MOST_TOKENS:
        raise ValueError(
            f"the token file {path} holds {len(tokens)} tokens: keep the one in use, and the one "
            "before if it is still needed"
        )
    return tokens


def _create(path: str) -> None:
    """Make the file in one step: whoever looks sees all of it or nothing."""
    os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
    draft = _draft(path, [make_token()])
    try:
        # Unlike a rename this does not replace what another process has just made.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(draft)


def _draft(path: str, tokens: list[bytes]) -> str:
    """Write tokens to a file beside the one that is to be, and return its path."""
    draft = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(b"".join(token + b"\n" for token in tokens))
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(draft)
        raise
    return draft
