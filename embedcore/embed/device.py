"""Devices: choice, arithmetic settings, names, a lock for timing, and memory layout of weights."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import filelock
import torch

from embedcore.errors import UnsupportedModel, UsageError, option
from embedcore.plain import counted
from embedcore.zoo.graphs import constants

ARITHMETIC: Mapping[str, int] = MappingProxyType({"tf32": False, "cudnn_benchmark": True, "cudnn_benchmark_limit": 3})
"""torch's arithmetic settings in all measurements; saved with the settings of a run.

Without TF32, fp32 means fp32 on every card. cuDNN's benchmark picks the fastest algorithm for each new shape, as in
timm's own benchmark, out of the three that its heuristics put first.
"""


def choose_device(spec: str = "auto") -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    ``auto`` is the first CUDA device, else Apple's MPS, else the CPU. Raises UsageError for a device that this machine
    or this build of torch does not have.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if spec == "auto":
        return torch.device("cuda", 0) if cuda else torch.device("mps" if mps else "cpu")
    try:
        device = torch.device(spec)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"unknown device {spec!r}: use auto, cpu, cuda, cuda:N or mps")
    if (device.type == "cuda" and not cuda) or (device.type == "mps" and not mps):
        found = f"torch {torch.__version__} finds no {device.type.upper()} device"
        raise UsageError(f"device {spec!r}: {found}; use {option('device', 'cpu')}")
    if device.type != "cuda":
        return device
    index, count = device.index or 0, torch.cuda.device_count()
    if index >= count:
        raise UsageError(f"device {spec!r}: this machine has {count} CUDA devices, numbered from 0")
    return torch.device("cuda", index)


def use_device(spec: str) -> torch.device:
    """Choose a device (:func:`choose_device`) and set torch up to measure on it.

    A card becomes the current device, on which events record. See :func:`set_arithmetic`.
    """
    device = choose_device(spec)
    set_arithmetic()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def set_arithmetic() -> None:
    """Apply `ARITHMETIC` to torch; call it again after code of the user, which may have changed the settings."""
    cudnn: Any = torch.backends.cudnn
    precision = "tf32" if ARITHMETIC["tf32"] else "ieee"
    backend: Any
    for backend in (torch.backends, cudnn, cudnn.conv, cudnn.rnn):
        backend.fp32_precision = precision
    # The older names too: reading them raises an error if they contradict the newer ones.
    torch.set_float32_matmul_precision("high" if ARITHMETIC["tf32"] else "highest")  # also for the CPU
    torch.backends.cuda.matmul.allow_tf32 = cudnn.allow_tf32 = bool(ARITHMETIC["tf32"])
    cudnn.benchmark, cudnn.benchmark_limit = bool(ARITHMETIC["cudnn_benchmark"]), ARITHMETIC["cudnn_benchmark_limit"]


def changed_arithmetic() -> str:
    """Return which of the settings in `ARITHMETIC` a model's code has changed since, as a sentence; "" for none."""
    cudnn: Any = torch.backends.cudnn
    tf32 = {torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision} != {"ieee"}
    in_force = {
        "tf32": tf32 or torch.get_float32_matmul_precision() != "highest",
        "cudnn_benchmark": cudnn.benchmark,
        "cudnn_benchmark_limit": cudnn.benchmark_limit,
    }
    changed = [f"{name} is {value}" for name, value in in_force.items() if value != ARITHMETIC[name]]
    return f"the model's code changed torch's settings while it ran: {', '.join(changed)}" if changed else ""


@contextlib.contextmanager
def untuned() -> Iterator[None]:
    """Disable cuDNN's benchmark for passes that run once: trying all algorithms takes seconds for each new shape."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def device_name(device: torch.device) -> str:
    """Return the name of the card, or of the processor with torch's number of threads, for people."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type == "mps":
        return f"Apple MPS ({platform.machine()})"
    return f"{_processor()}, {counted(torch.get_num_threads(), 'thread')}"


def _processor(info: Path = Path("/proc/cpuinfo")) -> str:
    text = info.read_text(errors="replace") if info.is_file() else ""  # Linux only
    models = (line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def device_lock(device: torch.device) -> filelock.BaseFileLock:
    """Return the lock that the processes of this user hold while they time on a card, or on the processor.

    The kernel releases it if its process dies. On the CPU the device is the set of cores that this process may use.
    """
    name = device.type
    if sys.platform == "linux" and device.type == "cpu":
        name = f"cpu-{zlib.crc32(repr(sorted(os.sched_getaffinity(0))).encode()):08x}"
    if device.type == "cuda":
        name = f"cuda-{torch.cuda.get_device_properties(device).uuid}"
    return filelock.FileLock(Path(tempfile.gettempdir()) / f"embedcore-timing-{os.getuid()}-{name}.lock")


def place(module: torch.nn.Module, device: torch.device, *, channels_last: bool = True) -> None:
    """Move a module to ``device``, with the weights of its convolutions in channels-last memory or torch's own order.

    Tensor by tensor, since ``Module.to(memory_format=...)`` refuses modules that also have 3-D convolutions. Raises
    UnsupportedModel for frozen TorchScript on another device, which cannot be moved.
    """
    fixed = next((value.device for value in constants(module) if value.device.type != device.type), None)
    if fixed is not None:
        raise UnsupportedModel(
            f"a frozen TorchScript module cannot be moved from {fixed} to {device}: freeze it there, or not at all"
        )
    module.to(device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=layout)


def choose_channels_last(device: torch.device, precision: str, seconds: Callable[[bool], float]) -> bool:
    """Return whether convolutions run in channels-last memory.

    Always on the CPU (2 to 3 times faster), on MPS, and in half precision, which CUDA's tensor cores compute in this
    layout; in fp32 on CUDA if a forward pass, which takes ``seconds(channels_last)``, is faster.
    """
    return device.type != "cuda" or precision != "fp32" or seconds(True) < seconds(False)
