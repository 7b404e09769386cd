"""What the exit codes of a server and of its processes say."""

from __future__ import annotations

__all__ = ["CANNOT_START", "ENDED_BY_FAILURE", "NOT_PREPARED"]

CANNOT_START = 1
"""The address cannot be had, say, or an option makes no sense with another."""

ENDED_BY_FAILURE = 3
"""A server has ended though nobody asked it to: the process that makes its workers has died."""

NOT_PREPARED = 71
"""A worker ended before the user's initializer was called: EX_OSERR."""
