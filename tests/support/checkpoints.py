"""Checkpoints of small models of timm, saved as a user's training would leave them and loaded as an own model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from embedcore.zoo.backbone import Backbone, load_backbone
from embedcore.zoo.own_models import OwnModel


def trained(architecture: str, classes: int = 7, seed: int = 1, **kwargs: Any) -> nn.Module:
    """A model of timm with seeded weights, in eval mode."""
    torch.manual_seed(seed)
    return timm.create_model(architecture, num_classes=classes, **kwargs).eval()


def same(module: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Whether a module has exactly these tensors."""
    loaded = module.state_dict()
    return set(state) == set(loaded) and all(torch.equal(loaded[key], value) for key, value in state.items())


def own_model(folder: Path, architecture: str, content: object, *, file: str = "best.pth", **keys: Any) -> OwnModel:
    """The entry of a roster file whose weights are ``content``, which is saved as ``file``."""
    path = folder / file
    save_file(content, path) if file.endswith(".safetensors") else torch.save(content, path)
    return OwnModel(name="ours", arch=architecture, weights=file, folders=(str(folder),), **keys)


def loaded(folder: Path, architecture: str, content: object, point: str = "pre_logits", **keys: Any) -> Backbone:
    """The backbone of `own_model`."""
    return load_backbone(own_model(folder, architecture, content, **keys), point=point)
