"""``python -m remote_executor``: the same as the command ``remote-executor``."""

from __future__ import annotations

import sys

from remote_executor.cli import main

if __name__ == "__main__":
    # Python puts the current folder first, the command does not. See the package's __init__.
    sys.exit(main())
