"""Multiply-accumulates of one forward pass."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from embedcore.embed.device import untuned
from embedcore.zoo.backbone import Backbone

# Names of operators that multiply matrices and may lack a formula in torch's counter. Not `*_cell`, the part of a fused
# recurrent cell after the products, nor `upsample_*linear`, nor `convert`.
_PRODUCTS = re.compile(
    r"mm(_|$)|matmul|conv(?!ert)|attention|transformer|(?<!bi)(?<!tri)linear|(lstm|gru|rnn)(?!_cell)"
)


def count_gmacs(backbone: Backbone) -> float | None:
    """Return the multiply-accumulates (10^9) of embedding one image; None if an operator has no formula.

    torch's flop counter (2 flops per multiply-accumulate) counts matrix products, convolutions, attention and recurrent
    layers. Attention and recurrent layers are decomposed into matrix products, since their fused kernels have formulas
    on some devices only: the count is the same on every device. Quantized layers and operators that are not torch's own
    have no formula. timm's published numbers leave out the LSTMs of sequencer2d (``s``: 4.94 of 8.33) and have the
    training branches of ghostnetv3 merged (``100``: 0.167 of 0.404); here both are counted as they run. Raises the
    errors of the model.
    """
    image = torch.zeros((1, *backbone.data_config.input_size), device=backbone.device)
    counter = FlopCounterMode(display=False)
    uncounted = _Uncounted(counter)
    with contextlib.ExitStack() as stack:
        if any(isinstance(module, torch.nn.RNNBase) for module in backbone.module.modules()):
            # Without the libraries whose recurrent layers are one operator; convolutions then take longer.
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False, allow_tf32=None))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        with untuned(), _transformers_apart(), sdpa_kernel(SDPBackend.MATH), torch.no_grad(), uncounted, counter:
            backbone.embed(image)
    return None if uncounted.names else counter.get_total_flops() / 2e9


class _Uncounted(TorchDispatchMode):
    """Records operators that may multiply matrices and have no formula. Enter it before the counter, which decomposes
    operators."""

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._counter = counter
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        foreign = func.namespace not in ("aten", "prim", "prims")
        if func._overloadpacket not in self._counter.flop_registry and (foreign or _PRODUCTS.search(name)):
            self.names.add(f"{func.namespace}::{name}")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _transformers_apart() -> Iterator[None]:
    """Disable torch's fused transformer layers, which have no formula."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
