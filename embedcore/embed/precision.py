"""Precision of the forward pass: fp32, or bf16/fp16 autocast."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from types import MappingProxyType

import torch
import torch.nn.functional as F  # noqa: N812

from embedcore.embed.device import untuned
from embedcore.errors import UsageError
from embedcore.zoo.backbone import Backbone

CANARY_COSINE = 0.999
CANARY_IMAGES = MappingProxyType({"cpu": 8, "mps": 32, "cuda": 32})
"""Images of a canary batch. On the CPU the canary in fp32 needs less memory than batches in bf16, so that the peak
memory of a case does not depend on whether a canary has run."""
CANARY_ROUNDS = 3
CANARY_SPEEDUP = 1.1
CLEAR_SPEEDUP = 1.5
"""A speedup that is this many times above or below `CANARY_SPEEDUP` is not measured again."""

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextlib.contextmanager
def autocast(precision: str, device: torch.device, module: torch.nn.Module) -> Iterator[None]:
    """Run forward passes of ``module`` in this precision, without gradients.

    In half precision each weight is cast once per outermost context: autocast caches casts only of leaves that require
    a gradient (``cached_cast`` in torch's autocast_mode.cpp), so the weights require one inside the context.
    """
    with torch.no_grad():
        if precision == "fp32":
            with torch.autocast(device.type, enabled=False):
                yield
            return
        frozen = [weight for weight in module.parameters() if weight.is_floating_point() and not weight.requires_grad]
        try:
            for weight in frozen:
                weight.requires_grad_(True)
            with torch.autocast(device.type, dtype=_DTYPES[precision]):
                yield
        finally:
            for weight in frozen:
                weight.requires_grad_(False)


def canary_cosine(backbone: Backbone, batch: torch.Tensor, precision: str) -> float:
    """Return the lowest cosine between embeddings of ``batch`` [b, 3, h, w] in fp32 and in ``precision``."""
    with untuned(), autocast("fp32", batch.device, backbone.module):
        full = backbone.embed(batch)
    with untuned(), autocast(precision, batch.device, backbone.module):
        reduced = backbone.embed(batch).float()
    return float(F.cosine_similarity(full, reduced).min())


def canary_speedup(backbone: Backbone, batch: torch.Tensor, precision: str) -> float:
    """Return the seconds of a forward pass of ``batch`` [b, 3, h, w] in fp32 over those in ``precision``, on the CPU.

    Each is the fastest of up to three passes, which alternate, so that other work on the machine affects both. Both
    precisions must have run before in a context around this call, which keeps the cast weights.
    """
    seconds: dict[str, list[float]] = {"fp32": [], precision: []}
    for _ in range(CANARY_ROUNDS):
        for name, durations in seconds.items():
            with autocast(name, batch.device, backbone.module):
                begin = time.perf_counter()
                backbone.embed(batch)
                durations.append(time.perf_counter() - begin)
        speedup = min(seconds["fp32"]) / min(seconds[precision])
        if not 1 / CLEAR_SPEEDUP < speedup / CANARY_SPEEDUP < CLEAR_SPEEDUP:
            break
    return speedup


def multiplies_bf16() -> bool:
    """Whether this processor has instructions that multiply bf16, and oneDNN may use them (ONEDNN_MAX_CPU_ISA)."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    allowed = limit == "DEFAULT" or any(name in limit for name in ("BF16", "FP16", "AMX", "AVX10"))
    capabilities = torch.cpu.get_capabilities()
    return allowed and any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def choose_precision(spec: str, backbone: Backbone, batch: torch.Tensor) -> tuple[str, str]:
    """Return the precision for ``spec``, this backbone and the device of ``batch``, and why it is not bf16, or "".

    ``auto`` is bf16 autocast if the device multiplies bf16 natively (CUDA from Ampere on, and some processors) and the
    embeddings of the canary ``batch`` have a cosine of at least 0.999 with those in fp32; on the CPU also if the canary
    is at least a tenth faster. Else it is fp32, with a reason if a canary has decided. Raises UsageError.
    """
    if spec != "auto":
        if spec not in ("fp32", *_DTYPES):
            raise UsageError(f"unknown precision {spec!r}: use auto, fp32, {', '.join(_DTYPES)}")
        return spec, ""
    if not has_bf16(batch.device):
        return "fp32", ""
    with autocast("bf16", batch.device, backbone.module):
        cosine = canary_cosine(backbone, batch, "bf16")
        if not cosine >= CANARY_COSINE:  # NaN too
            return "fp32", f"fp32: an embedding in bf16 has a cosine of {cosine:.4f} with that in fp32"
        if batch.device.type == "cpu" and (speedup := canary_speedup(backbone, batch, "bf16")) < CANARY_SPEEDUP:
            return "fp32", f"fp32: bf16 runs at {speedup:.2f} times its speed"
    return "bf16", ""


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bf16 natively."""
    if device.type != "cuda":
        return device.type == "cpu" and multiplies_bf16()
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
