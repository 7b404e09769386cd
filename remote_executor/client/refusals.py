"""Why an executor does without a server, and the errors that tell its tasks."""

from __future__ import annotations

import json
import logging
from copy import copy
from typing import TYPE_CHECKING

from remote_executor.payload.failures import decode_failure
from remote_executor.task_errors import InitializerFailed, NoServerError

if TYPE_CHECKING:
    from remote_executor.errors import FarmError
    from remote_executor.wire.frames import Frame

__all__ = ["anew", "of_broken"]

log = logging.getLogger("remote_executor.client")


def of_broken(name: str, host: str, frame: Frame, initializer: bool) -> FarmError:
    """
    Return why a server has no workers for us.

    Args:
        name: The server's name.
        host: The host that it runs on, as it says.
        frame: Its BROKEN frame.
        initializer: Whether the executor has an initializer. Where there is none, none can have
            failed, whatever the server says.

    Returns:
        An InitializerFailed with the exception as its cause; a NoServerError if no worker could
        be started there.
    """
    summary, pickled = bytes(frame.body), bytes(frame.buffers[0] if frame.buffers else b"")
    stage, message = _read(summary)
    if stage != "start" and initializer:
        cause = decode_failure(summary, pickled)
        log.critical("Exception in initializer on %s:", host, exc_info=cause)
        kept = " (what was broadcast with keep=True has raised it)" if frame.id else ""
        error = InitializerFailed(host, repr(cause) + kept)
        error.__cause__ = cause
        return error
    if stage != "start":
        message = f"it says that an initializer failed, and there is none: {message}"
    return NoServerError([name], f"{host} can start no worker: {message}")


def _read(summary: bytes) -> tuple[str, str]:
    """Return the stage and the message of a BROKEN frame, as far as they can be read."""
    try:
        fields = json.loads(summary)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        return "", "in words that cannot be read"
    return str(fields.get("stage", "")), str(fields.get("message", ""))


def anew(error: BaseException) -> BaseException:
    """
    Return a copy of an error, for one of several who are to get it.

    It has the same cause and notes, and no traceback. An exception that cannot be copied is
    returned itself.
    """
    try:
        fresh = copy(error)
    except Exception:  # it is whatever our I/O thread failed with
        return error
    if type(fresh) is not type(error):
        return error
    fresh.__traceback__ = None
    fresh.__cause__, fresh.__context__ = error.__cause__, error.__context__
    fresh.__suppress_context__ = error.__suppress_context__
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list):
        fresh.__dict__["__notes__"] = list(notes)
    return fresh
