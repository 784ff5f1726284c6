from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import filelock
import pytest
import torch

from embedcore.embed.device import device_lock


def test_two_processes_never_time_on_one_device(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    uuids = {0: "aa", 1: "bb"}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=uuids[device.index]))
    with device_lock(torch.device("cuda", 0)):
        with pytest.raises(filelock.Timeout):
            device_lock(torch.device("cuda", 0)).acquire(timeout=0)
        for other in (torch.device("cuda", 1), torch.device("cpu")):
            device_lock(other).acquire(timeout=0).lock.release()
    device_lock(torch.device("cuda", 0)).acquire(timeout=0).lock.release()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows the cores of a process")
def test_processes_on_other_cores_do_not_wait(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cores = {0, 1}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cores)
    with device_lock(torch.device("cpu")):
        with pytest.raises(filelock.Timeout):
            device_lock(torch.device("cpu")).acquire(timeout=0)
        cores.remove(0)
        device_lock(torch.device("cpu")).acquire(timeout=0).lock.release()
