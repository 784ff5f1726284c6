from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from embedcore.measure.supervisor import descendants, kill, kill_group, kill_tree

NOBODY = 2**22 + 1  # above the largest process id of Linux


def test_descendants_of_this_process():
    child = subprocess.Popen([sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '600'])"])
    deadline = time.monotonic() + 10
    while len(descendants(child.pid)) < 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    (grandchild,) = descendants(child.pid)
    assert {child.pid, grandchild} <= set(descendants(os.getpid()))
    kill_tree(child.pid)
    assert child.wait(10) == -9
    while Path(f"/proc/{grandchild}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{grandchild}").exists()


def test_ended_processes_are_no_error():
    kill(NOBODY)
    kill_group(NOBODY)
    kill_tree(NOBODY)
    assert descendants(NOBODY) == []
