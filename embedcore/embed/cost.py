"""The arithmetic of one forward pass."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from embedcore.zoo.backbone import Backbone


def count_gmacs(backbone: Backbone) -> float:
    """Multiply-accumulates (10^9) of embedding one image: matrix products, convolutions, attention, recurrent layers.

    Counted by torch's own flop counter (2 flops a multiply-accumulate), with attention and recurrent layers taken apart
    into matrix products, since their fused kernels have formulas on some devices only: so the same on every device.
    timm's published numbers leave the LSTMs of sequencer2d out (4.97 of 8.33 at ``s``), and for ghostnetv3 are those of
    the network after its training branches were merged, which nothing does on loading: what runs is counted here.
    """
    device = next(backbone.module.parameters()).device
    image = torch.zeros((1, *backbone.data_config.input_size), device=device)
    counter = FlopCounterMode(display=False)
    with contextlib.ExitStack() as plain:
        plain.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, torch.nn.RNNBase) for module in backbone.module.modules()):
            plain.enter_context(torch.backends.mkldnn.flags(enabled=False))
            plain.enter_context(torch.backends.cudnn.flags(enabled=False))
        with torch.no_grad(), counter:
            backbone.embed(image)
    return counter.get_total_flops() / 2e9
