"""The arithmetic of one forward pass."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from embedcore.embed.device import untuned

if TYPE_CHECKING:
    from embedcore.zoo.backbone import Backbone

# Names of operators that multiply matrices, as far as torch's counter has no formula for them. `*_cell` is what a fused
# recurrent cell does after the products, `upsample_*linear` interpolates, and `convert` is no convolution.
_PRODUCTS = re.compile(
    r"mm(_|$)|matmul|conv(?!ert)|attention|transformer|(?<!bi)(?<!tri)linear|(lstm|gru|rnn)(?!_cell)"
)


def count_gmacs(backbone: Backbone) -> float | None:
    """Return the multiply-accumulates (10^9) of embedding one image; None where an operator has no known count.

    Counted are matrix products, convolutions, attention and recurrent layers, by torch's own flop counter (2 flops a
    multiply-accumulate). Attention and recurrent layers are taken apart into matrix products, since their fused kernels
    have formulas on some devices only: so the count is the same on every device. Quantized layers, and operators that
    are not torch's own, have no formula. timm's published numbers leave out the LSTMs of sequencer2d (at ``s`` 4.94
    remain of 8.33), and for ghostnetv3 are those with the training branches merged (0.167 of 0.404 at ``100``), which
    loading does not do: what runs counts. Raises whatever the model raises, and what keeps it from being counted.
    """
    image = torch.zeros((1, *backbone.data_config.input_size), device=backbone.device)
    counter = FlopCounterMode(display=False)
    uncounted = _Uncounted(counter)
    with contextlib.ExitStack() as stack:
        if any(isinstance(module, torch.nn.RNNBase) for module in backbone.module.modules()):
            # Without the libraries that have recurrent layers in one piece; convolutions then take longer.
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False, allow_tf32=None))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        with untuned(), _transformers_apart(), sdpa_kernel(SDPBackend.MATH), torch.no_grad(), uncounted, counter:
            backbone.embed(image)
    return None if uncounted.names else counter.get_total_flops() / 2e9


class _Uncounted(TorchDispatchMode):
    """Notes the operators that count, or may, and have no formula. To be entered before the counter, which takes apart
    what it can."""

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
    """Keep torch's own transformer layers from running as one operator each, for which there is no formula."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
