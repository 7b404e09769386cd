"""
The user's token: the secret that clients and servers of one user share.

It is a file of 64 hex digits that only its owner can read, made when it is first needed. Copy it
to the other machines, with the same mode, or name another by ``REMOTE_EXECUTOR_TOKEN_FILE``.
"""

from __future__ import annotations

import os

__all__ = ["MOST_BYTES", "load_token", "make_token", "token_path"]

MOST_BYTES = 4096
"""A longer file is not a token: somebody gave the wrong path."""


def token_path() -> str:
    """Return where the token is, or will be."""
    named = os.environ.get("REMOTE_EXECUTOR_TOKEN_FILE")
    if named:
        return named
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(config, "remote_executor", "token")


def make_token() -> bytes:
    """Return a new token: 32 random bytes as 64 hex digits."""
    return os.urandom(32).hex().encode()


def load_token(create: bool = True) -> bytes:
    """
    Return the user's token.

    Args:
        create: Make it if there is none. If several processes do so at once, one of them wins and
            all return the same.

    Raises:
        FileNotFoundError: If there is none and none is to be made.
        PermissionError: If others could read the file, or it belongs to somebody else.
        ValueError: If what is in the file cannot be a token.
    """
    path = token_path()
    try:
        return _read(path)
    except FileNotFoundError:
        if not create:
            raise FileNotFoundError(f"there is no token file {path}") from None
    _create(path)
    return _read(path)


def _read(path: str) -> bytes:
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
    token = text.strip()
    if len(token) < 16:
        raise ValueError(f"the token file {path} holds no token: remove it to get a new one")
    return token


def _create(path: str) -> None:
    """Make the file in one step: whoever looks sees all of it or nothing."""
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, mode=0o700, exist_ok=True)
    draft = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(make_token() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            # Unlike a rename this does not replace what another process has just made.
            os.link(draft, path)
        except FileExistsError:
            pass
    finally:
        os.unlink(draft)
