"""What a process is called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from remote_executor.server.process_names import MAX_CHARACTERS
from tests.support.house import ROOT

SAY = """
import sys
sys.path.insert(0, {root!r})
from remote_executor.server.process_names import set_process_name
set_process_name({name!r})
print(open("/proc/self/comm").read(), end="")
"""


@pytest.mark.skipif(not Path("/proc/self/comm").exists(), reason="this system has no /proc")
@pytest.mark.parametrize("name", ["farm-server", "farm-worker-12345678901"])
def test_the_name_is_shown_as_far_as_there_is_room(name):
    program = SAY.format(root=str(ROOT), name=name)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert said.stdout == name[:MAX_CHARACTERS] + "\n"
    assert said.stderr == ""
