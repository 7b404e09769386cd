"""What the exit codes of a server and of its processes say."""

from __future__ import annotations

__all__ = ["NOT_PREPARED"]

NOT_PREPARED = 71
"""A worker ended before the user's initializer was called: EX_OSERR."""
