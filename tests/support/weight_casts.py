"""How often the weights of a module are cast to half precision."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Casts(TorchDispatchMode):
    """Counts the casts of each weight to half precision."""

    def __init__(self, module):
        super().__init__()
        self.weights = {id(weight): name for name, weight in module.named_parameters()}
        self.counted = dict.fromkeys(self.weights.values(), 0)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") in (torch.bfloat16, torch.float16):
            name = self.weights.get(id(args[0]))
            if name is not None:
                self.counted[name] += 1
        return func(*args, **kwargs)
