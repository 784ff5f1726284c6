"""Precision of the forward pass: fp32, or bf16/fp16 autocast."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812

from embedcore.embed.device import untuned
from embedcore.embed.timing import host_seconds
from embedcore.errors import UsageError
from embedcore.zoo.backbone import Backbone

CANARY_COSINE = 0.999
CANARY_SPEEDUP = 1.1
"""On the CPU, where a smaller gain would be lost in the noise of the canary, and another choice in the next session."""
CANARY_IMAGES = 32

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextlib.contextmanager
def autocast(precision: str, device: torch.device, module: torch.nn.Module) -> Iterator[None]:
    """Run forward passes of ``module`` in this precision, without gradients.

    In half precision each weight is cast once per context: autocast caches casts only of leaves that require a gradient
    (``cached_cast`` in torch's autocast_mode.cpp), so the weights require one inside the context.
    """
    with torch.no_grad():
        if precision == "fp32":
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
    """Return the speed of a forward pass of ``batch`` in ``precision`` over that in fp32; the better of two each."""
    seconds = {}
    for name in ("fp32", precision):
        with autocast(name, batch.device, backbone.module):
            host_seconds(backbone.embed, batch)  # casts the weights
            seconds[name] = min(host_seconds(backbone.embed, batch) for _ in range(2))
    return seconds["fp32"] / seconds[precision]


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bf16 products: CUDA from Ampere on, x86 with AMX or AVX512-BF16, ARM."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    return False


def choose_precision(spec: str, backbone: Backbone, batch: torch.Tensor) -> tuple[str, str]:
    """Return the precision for ``spec``, this backbone and the device of ``batch``, and why ``auto`` chose it.

    ``auto`` is bf16 autocast on a device that multiplies bf16, if all embeddings of the canary ``batch`` have a cosine
    of at least 0.999 with those in fp32 and, on the CPU, if it is at least 1.1 times as fast; else fp32. Raises
    UsageError.
    """
    if spec != "auto":
        if spec not in ("fp32", *_DTYPES):
            raise UsageError(f"unknown precision {spec!r}: use auto, fp32, {', '.join(_DTYPES)}")
        return spec, ""
    if not multiplies_bf16(batch.device):
        return "fp32", "the device has no bf16 products"
    cosine = canary_cosine(backbone, batch, "bf16")
    if cosine < CANARY_COSINE:
        return "fp32", f"an embedding in bf16 has a cosine of only {cosine:.4f}"
    if batch.device.type != "cpu":
        return "bf16", f"cosine at least {cosine:.5f}"
    speedup = canary_speedup(backbone, batch, "bf16")
    why = f"bf16 is {speedup:.2f} times as fast, cosine at least {cosine:.5f}"
    return ("bf16" if speedup >= CANARY_SPEEDUP else "fp32"), why
