"""``python -m remote_executor``: the same as the command ``remote-executor``."""

from __future__ import annotations

import os
import sys

from remote_executor.cli import main

if __name__ == "__main__":
    # Python puts the current folder first, the command does not; and what a server can import
    # itself comes before the client's modules of that name.
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    sys.exit(main())
