"""A small model and its weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import timm
import torch

MINI = "test_resnet.r160_in1k" if timm.is_model("test_resnet") else "resnet18.a1_in1k"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: tiny models are slower with several, much slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def mini() -> str:
    """The tag of a small model with a classifier."""
    return MINI


@pytest.fixture(scope="session")
def mini_state() -> dict[str, torch.Tensor]:
    """A state dict for `mini` that differs from all seeded ones."""
    torch.manual_seed(4711)
    return dict(timm.create_model(MINI).state_dict())
