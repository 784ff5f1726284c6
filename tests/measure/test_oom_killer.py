from __future__ import annotations

import types

import psutil
import pytest

from embedcore.measure import oom_killer
from embedcore.measure.oom_killer import MemoryWatch, available_share, oom_kills


def machine(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = {"proc/self/cgroup": "0::/user/run.scope\n", "proc/vmstat": "nr_free_pages 1\noom_kill 70\n"}
V1 = {"proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/ab\n0::/\n", "proc/vmstat": "oom_kill 70\n"}
EVENTS = "low 0\nmax 12\noom 3\noom_kill {}\noom_group_kill 9\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (V2 | {"sys/fs/cgroup/user/run.scope/memory.events": EVENTS.format(5)}, 5),
        (V2 | {"sys/fs/cgroup/memory.events": EVENTS.format(6)}, 6),
        (V2, 70),
        (V1 | {"sys/fs/cgroup/memory/docker/ab/memory.oom_control": CONTROL.format(7)}, 7),
        (V1 | {"sys/fs/cgroup/memory/memory.oom_control": CONTROL.format(8)}, 8),
        (V1 | {"sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n"}, 70),
        ({"proc/vmstat": "nr_free_pages 1\n"}, None),
        ({}, None),
    ],
    ids=["v2", "v2 in a container", "v2 root", "v1", "v1 in a container", "v1 of an old kernel", "old", "no Linux"],
)
def test_kills_of_the_nearest_control_group_are_counted(tmp_path, files, expected):
    assert oom_kills(machine(tmp_path, files)) == expected


@pytest.fixture
def machine_at(monkeypatch):
    """Fake the number of kills (None: unknown) and the available memory, of 1,000."""

    def at(kills, available):
        monkeypatch.setattr(oom_killer, "oom_kills", lambda: kills)
        memory = types.SimpleNamespace(total=1000, available=available)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)

    return at


def test_available_share(machine_at):
    assert 0 < available_share() < 1
    machine_at(None, 250)
    assert available_share() == 0.25


def test_a_watch_remembers_the_worst_moment_and_a_rising_count(machine_at):
    machine_at(2, 500)
    watch = MemoryWatch()
    watch.sample()
    assert (watch.nearly_exhausted, watch.killer_struck) == (False, False)
    machine_at(2, 20)
    watch.sample()
    machine_at(3, 900)
    watch.sample()
    assert (watch.nearly_exhausted, watch.killer_struck) == (True, True)


@pytest.mark.parametrize(("before", "after"), [(None, None), (None, 3), (3, None)])
def test_a_machine_without_a_count_of_kills(machine_at, before, after):
    machine_at(before, 500)
    watch = MemoryWatch()
    machine_at(after, 500)
    assert not watch.killer_struck
