from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from embedcore.measure.processes import descendants, kill, kill_group, kill_tree

NOBODY = 2**22 + 1  # above the largest process id of Linux


@st.composite
def families(draw):
    """Parents of processes 2, 3, …; each is older than its child, or is outside (1)."""
    return [draw(st.integers(1, pid - 1)) for pid in range(2, draw(st.integers(2, 30)))]


@given(families(), st.sampled_from(["python", "a) S 1 (b", "two words", ")"]))
def test_descendants_are_all_whose_way_up_meets_the_ancestor(tmp_path_factory, parents, name):
    proc = tmp_path_factory.mktemp("proc")
    (proc / "self").mkdir()
    parent_of = dict(enumerate(parents, start=2))
    for pid, parent in parent_of.items():
        (proc / str(pid)).mkdir()
        (proc / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0 -1")
    (proc / "9999").mkdir()  # a process that went while it was looked at

    def way_up(pid):
        while pid in parent_of:
            pid = parent_of[pid]
            yield pid

    for ancestor in (1, 2, 3):
        expected = {pid for pid in parent_of if ancestor in way_up(pid)}
        assert sorted(descendants(ancestor, proc)) == sorted(expected)


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


def test_processes_that_are_gone_are_no_error():
    kill(NOBODY)
    kill_group(NOBODY)
    kill_tree(NOBODY)
