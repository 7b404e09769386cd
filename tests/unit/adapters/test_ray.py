"""RayExecutor on something that looks like Ray: what needs no cluster."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from queue import SimpleQueue

import pytest

from remote_executor.adapters.ray import _End, _manage, _refuse, _Task
from remote_executor.net.interruptible import Event


def test_what_comes_after_the_end_is_cancelled():
    inbox, over = SimpleQueue(), Event()
    late, later = Future(), Future()
    inbox.put(_End(cancel=False))
    inbox.put(_Task(late, abs, (1,), {}))

    _manage(inbox, None, 2, over)

    assert over.is_set()
    inbox.put(_Task(later, abs, (1,), {}))
    _refuse(inbox)
    for future in (late, later):
        with pytest.raises(CancelledError):
            future.result(0)
