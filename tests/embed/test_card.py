# ruff: noqa: N802 - the names are those of NVML
"""The state of a card by NVML, which is a fake here."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

from embedcore.embed.card import card_state


class Nvml:
    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    class NVMLError(Exception):
        pass

    def __init__(self, pids=(), reasons=0, fails=""):
        self.pids, self.reasons, self.fails, self.open = pids, reasons, fails, 0

    def _check(self, name):
        if self.fails == name:
            raise self.NVMLError

    def nvmlInit(self):
        self._check("init")
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid):
        assert uuid == b"GPU-12-34"
        return "card"

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        self._check("reasons")
        return self.reasons

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [SimpleNamespace(pid=pid) for pid in self.pids]

    def nvmlDeviceGetClockInfo(self, handle, kind):
        return 1980

    def nvmlDeviceGetTemperature(self, handle, sensor):
        return 61


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="12-34"))
    return torch.device("cuda", 0)


def test_the_state_of_a_card(card):
    nvml = Nvml([os.getpid(), 99], 0x01 | 0x04 | 0x40)
    assert card_state(card, nvml) == {
        "clock_mhz": 1980.0,
        "temperature_c": 61.0,
        "throttled": ["power cap", "hardware thermal slowdown"],
        "other_processes": 1,
    }
    assert nvml.open == 0
    assert card_state(card, Nvml([7, 99]))["other_processes"] == 1  # a container, with other process ids
    assert card_state(card, Nvml())["other_processes"] == 0


@pytest.mark.parametrize("fails", ["init", "reasons"])
def test_without_nvml_nothing_is_known(card, fails):
    nvml = Nvml(fails=fails)
    assert card_state(card, nvml) == {} and nvml.open == 0


def test_a_processor_has_no_such_state():
    assert card_state(torch.device("cpu"), Nvml(fails="init")) == {}
