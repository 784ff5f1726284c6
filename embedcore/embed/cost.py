"""The arithmetic of one forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from embedcore.zoo.backbone import Backbone


def count_gmacs(backbone: Backbone) -> float:
    """Multiply-accumulates (10^9) of embedding one image: matrix products, convolutions and attention.

    Counted by torch's own flop counter (2 flops a multiply-accumulate) on the device where the backbone is.
    """
    device = next(backbone.module.parameters()).device
    image = torch.zeros((1, *backbone.data_config.input_size), device=device)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        backbone.embed(image)
    return counter.get_total_flops() / 2e9
