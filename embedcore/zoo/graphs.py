"""What the recorded graphs of TorchScript and exported modules contain that the module itself does not tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_TRAINING_FLAGS = {"dropout": 2, "batch_norm": 5}
"""The place of the argument that says whether an operator trains."""


def is_training(made: nn.Module) -> bool:
    """Whether a recorded graph contains a dropout or a batch norm whose training mode `eval` cannot end."""
    flags: list[object] = []
    for part in made.modules():
        for name, place in _TRAINING_FLAGS.items():
            if isinstance(part, torch.jit.ScriptModule):
                flags += [inputs[place] for inputs in _in_graph(part, f"aten::{name}", _inputs)]
            elif isinstance(part, torch.fx.GraphModule):
                called = (node for node in part.graph.nodes if str(node.target) == f"aten.{name}.default")
                flags += [node.args[place] for node in called if len(node.args) > place]
    return any(flag is True for flag in flags)


def constants(module: nn.Module) -> list[torch.Tensor]:
    """The tensors in the graphs of frozen TorchScript, which are neither parameters nor buffers, nor ever moved."""

    def tensor(node: Any) -> torch.Tensor | None:
        return node.t("value") if node.hasAttribute("value") and node.kindOf("value") == "t" else None

    frozen = (part for part in module.modules() if isinstance(part, torch.jit.ScriptModule) and not part.state_dict())
    found = (value for part in frozen for value in _in_graph(part, "prim::Constant", tensor))
    return [value for value in found if value is not None]


def _inputs(node: Any) -> list[object]:
    """The inputs of an operator in a graph; None where they are not constant."""
    return [value.toIValue() for value in node.inputs()]


def _in_graph(module: torch.jit.ScriptModule, kind: str, get: Callable[[Any], Any]) -> list[Any]:
    if not hasattr(module, "forward"):
        return []
    graph: Any = module.inlined_graph  # its nodes end with it
    return [get(node) for node in graph.findAllNodes(kind)]
