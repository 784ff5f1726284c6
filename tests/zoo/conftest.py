"""A small model and its weights."""

from __future__ import annotations

import pytest
import timm
import torch

MINI = "test_resnet.r160_in1k" if timm.is_model("test_resnet") else "resnet18.a1_in1k"


@pytest.fixture(scope="session")
def mini() -> str:
    """The tag of a small model with a classifier."""
    return MINI


@pytest.fixture(scope="session")
def mini_state() -> dict[str, torch.Tensor]:
    """A state dict for `mini` that differs from all seeded ones."""
    torch.manual_seed(4711)
    return dict(timm.create_model(MINI).state_dict())
