"""``python -m remote_executor``: the same as the command ``remote-executor``."""

from __future__ import annotations

import os
import sys

from remote_executor.cli import main


def _here() -> str:
    """Return the current folder, or what ``sys.path`` has for it where it is gone."""
    try:
        return os.getcwd()
    except OSError:
        return ""


if __name__ == "__main__":
    # Python puts the current folder first, the command does not; and what a server can import
    # itself comes before the client's modules of that name.
    if sys.path and sys.path[0] in ("", _here()):
        del sys.path[0]
    sys.exit(main())
