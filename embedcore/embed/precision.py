"""Number formats of the forward pass: fp32, or bf16/fp16 autocast."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812

from embedcore.errors import UsageError

PRECISIONS = ("fp32", "bf16", "fp16")
CANARY_COSINE = 0.999
CANARY_IMAGES = 32

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """The context in which a forward pass of this precision runs; a no-op for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def canary_cosine(embed: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor, precision: str) -> float:
    """The lowest cosine, over the images of ``batch`` [b, 3, h, w], between embeddings in fp32 and in ``precision``."""
    full = embed(batch).float()
    with autocast(precision, batch.device):
        reduced = embed(batch).float()
    return float(F.cosine_similarity(full, reduced).min())


def choose_precision(spec: str, embed: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> str:
    """The precision that ``spec`` (``auto``, ``fp32``, ``bf16``, ``fp16``) means for this backbone and device.

    ``auto`` is fp32 on the CPU and on MPS; on CUDA it is bf16 autocast if a canary batch agrees with fp32 to a cosine
    of 0.999 for each of its images, else fp32.
    """
    if spec != "auto":
        if spec not in PRECISIONS:
            raise UsageError(f"precision {spec!r} is not known: use auto, {', '.join(PRECISIONS)}")
        return spec
    if batch.device.type != "cuda" or not torch.cuda.is_bf16_supported():
        return "fp32"
    return "bf16" if canary_cosine(embed, batch, "bf16") >= CANARY_COSINE else "fp32"
