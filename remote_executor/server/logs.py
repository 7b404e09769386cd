"""
What tasks log, on its way to the client.

``logging`` has a handler of last resort, for programs that have not configured any. In a worker it
is ours and sends the record to the client, where the user's own handlers, levels and formats see to
it. A task that configures logging in its worker has it its way. Loaded after ``logging`` only.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from remote_executor.wire.messages import encode_fields

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ToClient", "install"]

MOST_CHARACTERS = 16 * 1024
"""Of a message, of a traceback and of a stack."""

PLAIN = (
    "levelname",
    "pathname",
    "filename",
    "module",
    "lineno",
    "funcName",
    "created",
    "msecs",
    "thread",
    "threadName",
)
"""What travels as it is."""


class ToClient(logging.Handler):
    """
    Send records to the client.

    Args:
        level: Those below it are not for the client.
        send: Sends the body of a LOG frame; returns False if it cannot.
        otherwise: Takes what cannot be sent.
    """

    def __init__(
        self, level: int, send: Callable[[bytes], bool], otherwise: logging.Handler | None
    ) -> None:
        super().__init__(level)
        self._send = send
        self._otherwise = otherwise
        self.formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; see :class:`logging.Handler`."""
        try:
            sent = self._send(encode_fields(self._fields(record)))
        except Exception:
            self.handleError(record)
            return
        if not sent and self._otherwise is not None:
            self._otherwise.handle(record)

    def _fields(self, record: logging.LogRecord) -> dict[str, object]:
        fields = {name: getattr(record, name) for name in PLAIN}
        fields["name"] = str(record.name)
        fields["levelno"] = int(record.levelno)
        fields["process"] = os.getpid()
        fields["msg"] = record.getMessage()[:MOST_CHARACTERS]
        if record.exc_info and not record.exc_text:
            assert self.formatter is not None
            record.exc_text = self.formatter.formatException(record.exc_info)
        for name, text in (("exc_text", record.exc_text), ("stack_info", record.stack_info)):
            if text:
                fields[name] = text[-MOST_CHARACTERS:]
        return fields


def install(level: int, send: Callable[[bytes], bool]) -> None:
    """
    Have records go to the client, where nobody else takes them.

    Args:
        level: That of the client's root logger.
        send: See :class:`ToClient`.
    """
    logging.lastResort = ToClient(level, send, logging.lastResort)
    if logging.root.level == logging.WARNING:  # as it comes
        logging.root.setLevel(level)
