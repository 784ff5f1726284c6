"""Precision of the forward pass: fp32, or bf16/fp16 autocast."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812

from embedcore.embed.device import untuned
from embedcore.errors import UsageError
from embedcore.zoo.backbone import Backbone

CANARY_COSINE = 0.999
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


def choose_precision(spec: str, backbone: Backbone, batch: torch.Tensor) -> str:
    """Return the precision for ``spec``, this backbone and the device of ``batch``. Raises UsageError.

    ``auto`` is fp32 on the CPU and MPS. On a CUDA card with native bf16 (from Ampere on) it is bf16 autocast if the
    embeddings of the canary ``batch`` have a cosine of at least 0.999 with those in fp32, else fp32.
    """
    if spec != "auto":
        if spec not in ("fp32", *_DTYPES):
            raise UsageError(f"unknown precision {spec!r}: use auto, fp32, {', '.join(_DTYPES)}")
        return spec
    if batch.device.type != "cuda":
        return "fp32"
    with torch.cuda.device(batch.device):
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            return "fp32"
    return "bf16" if canary_cosine(backbone, batch, "bf16") >= CANARY_COSINE else "fp32"
