"""The arithmetic of one forward pass."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from embedcore.embed.device import untuned

if TYPE_CHECKING:
    from embedcore.zoo.backbone import Backbone


def count_gmacs(backbone: Backbone) -> float:
    """Multiply-accumulates (10^9) of embedding one image: matrix products, convolutions, attention, recurrent layers.

    Counted by torch's own flop counter (2 flops a multiply-accumulate), with attention and recurrent layers taken apart
    into matrix products, since their fused kernels have formulas on some devices only: so the same on every device.
    timm's published numbers leave out the LSTMs of sequencer2d (at ``s`` 4.94 remain of 8.33), and for ghostnetv3 are
    those with the training branches merged (0.167 of 0.404 at ``100``), which loading does not do: what runs counts.
    """
    image = torch.zeros((1, *backbone.data_config.input_size), device=backbone.device)
    counter = FlopCounterMode(display=False)
    with contextlib.ExitStack() as stack:
        if any(isinstance(module, torch.nn.RNNBase) for module in backbone.module.modules()):
            # Without the libraries that have recurrent layers in one piece; convolutions then take longer.
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False, allow_tf32=None))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        with untuned(), sdpa_kernel(SDPBackend.MATH), torch.no_grad(), counter:
            backbone.embed(image)
    return counter.get_total_flops() / 2e9
