"""The state of a CUDA card, from NVIDIA's management library (NVML): clock, temperature, throttling, other users."""

from __future__ import annotations

import importlib
import os
from typing import Any

import torch

_REASONS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""Bits of NVML's clock event reasons that slow a card down; an idle card and clocks set by its owner are not among
them."""


def card_state(device: torch.device, nvml: Any = None) -> dict[str, Any]:
    """Return the fields of a `TimingProcess` about a card; {} without NVML, and for other devices.

    ``nvml``: the module ``pynvml`` or a replacement for tests.
    """
    if device.type != "cuda":
        return {}
    if nvml is None:
        nvml = importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:  # no driver
        return {}
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode())
        reasons = nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
        pids = {process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
        return {
            "clock_mhz": float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            "temperature_c": float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            "throttled": [name for bit, name in _REASONS.items() if reasons & bit],
            # In a container the process ids are those of the host, so this process may not be recognised.
            "other_processes": len(pids - {os.getpid()}) if os.getpid() in pids else max(0, len(pids) - 1),
        }
    except nvml.NVMLError:  # not supported by this card, or not permitted
        return {}
    finally:
        nvml.nvmlShutdown()
