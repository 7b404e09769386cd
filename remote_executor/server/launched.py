"""
A server that was launched over SSH for one client.

It is the process that the SSH server started: its standard input is the channel's, and tells by its
end that the channel is gone. The secret came by that way, through a pipe.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from remote_executor.server.serve import serve

__all__ = ["main"]


def main(fd: int) -> int:
    """
    Serve until the client is gone.

    Args:
        fd: The number of the descriptor from which to read what to do.

    Returns:
        The exit status.
    """
    sys.argv = sys.argv[:1]
    with open(fd, "rb") as file:
        config = json.loads(file.read())
    answers = os.dup(1)

    def tell(fields: dict[str, Any]) -> None:
        os.write(answers, (f"\n{config['mark']} {json.dumps(fields)}\n").encode())

    def ready(address: str) -> None:
        tell({"address": address, "pid": os.getpid()})
        os.close(answers)

    remove = config.get("remove", [])
    at = "boot"
    try:
        lifeline = _detach(config["log_file"])
        at = "port"
        tell({"at": at})
        kind, _, path = config["address"].partition(":")
        if kind == "unix":
            os.mkdir(os.path.dirname(path), 0o700)
            remove.append(os.path.dirname(path))
        serve(
            address=config["address"],
            workers=config["workers"],
            token=config["secret"],
            preload=config["preload"],
            log_level=config["log_level"],
            ready=ready,
            lifeline=lifeline,
            grace=config["grace"],
        )
    except (OSError, ValueError) as exc:
        try:
            tell({"error": str(exc), "at": at})
        except OSError:
            raise exc from None  # it was up already
        return 1
    finally:
        for folder in remove:
            _remove(folder)
    return 0


def _detach(log_file: str | None) -> int:
    """Let go of the channel's ends, which break when it does; return the one that tells of it."""
    lifeline = os.dup(0)
    null = os.open(os.devnull, os.O_RDWR)
    log = null
    if log_file is not None:
        log = os.open(os.path.expanduser(log_file), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for each in {null, log}:
        os.close(each)
    return lifeline


def _remove(folder: str) -> None:
    """Remove a temporary folder that was made for us."""
    try:
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    except OSError:
        pass  # somebody else cleans the temporary folder, too
