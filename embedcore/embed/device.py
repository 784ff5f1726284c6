"""Where the forward pass runs."""

from __future__ import annotations

import torch

from embedcore.errors import UsageError


def choose_device(spec: str = "auto") -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    ``auto`` takes the first CUDA device, else Apple's MPS, else the CPU. Raises UsageError for a device that this
    machine or this build of torch does not have.
    """
    if spec == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(spec)
    except RuntimeError as error:
        raise UsageError(f"device {spec!r} is not known: use auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(
                f"device {spec!r}: torch {torch.__version__} sees no CUDA device here; use --embed-device cpu"
            )
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise UsageError(f"device {spec!r}: this machine has {count} CUDA devices, counted from 0")
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"device {spec!r}: torch {torch.__version__} has no MPS device here; use cpu")
    if device.type not in ("cpu", "mps"):
        raise UsageError(f"device {spec!r} is not supported: use auto, cpu, cuda, cuda:N or mps")
    return device


def pin_tf32() -> None:
    """Turn TF32 off, so that fp32 means fp32 on every CUDA card and torch default."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def place(module: torch.nn.Module, device: torch.device) -> None:
    """Move a module to ``device``, its convolutions in channels-last memory (2 to 3 times faster on the CPU).

    Done tensor by tensor, since ``Module.to(memory_format=...)`` refuses modules that also have 3-D convolutions.
    """
    module.to(device)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


def device_name(device: torch.device) -> str:
    return "a processor"


def worker_device(spec: str, worker: int, cards: int) -> str:
    return f"cuda:{worker % cards}" if cards and spec in ("auto", "cuda") else spec
