"""Facts from the recorded graphs of TorchScript and exported modules: training mode, constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_TRAINING_FLAGS = {"dropout": 2, "batch_norm": 5}
"""The index of each operator's argument for training mode."""


def is_training(made: nn.Module) -> bool:
    """Return whether a recorded graph has a dropout or a batch norm in training mode, which `eval` cannot change."""
    flags: list[object] = []
    for part in made.modules():
        for name, place in _TRAINING_FLAGS.items():
            if isinstance(part, torch.jit.ScriptModule):
                inputs = _in_graph(part, f"aten::{name}", lambda node: [value.toIValue() for value in node.inputs()])
                flags += [values[place] for values in inputs]  # None where they are not constant
            elif isinstance(part, torch.fx.GraphModule):
                called = (node for node in part.graph.nodes if str(node.target) == f"aten.{name}.default")
                flags += [node.args[place] for node in called if len(node.args) > place]
    return any(flag is True for flag in flags)


def constants(module: nn.Module) -> list[torch.Tensor]:
    """Return the tensors in the graphs of frozen TorchScript: not parameters or buffers, and tied to their device."""

    def tensor(node: Any) -> torch.Tensor | None:
        return node.t("value") if node.hasAttribute("value") and node.kindOf("value") == "t" else None

    frozen = (part for part in module.modules() if isinstance(part, torch.jit.ScriptModule) and not part.state_dict())
    found = (value for part in frozen for value in _in_graph(part, "prim::Constant", tensor))
    return [value for value in found if value is not None]


def _in_graph(module: torch.jit.ScriptModule, kind: str, get: Callable[[Any], Any]) -> list[Any]:
    if not hasattr(module, "forward"):
        return []
    graph: Any = module.inlined_graph  # keep it: its nodes die with it
    return [get(node) for node in graph.findAllNodes(kind)]
