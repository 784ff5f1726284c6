"""The trace of a forward pass, against plain torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from embedcore.compare.origin import drift_of
from embedcore.embed.trace import settings_of, summary_of, trace
from embedcore.zoo.backbone import load_backbone


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("test_vit.r160_in1k", weights="random")


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))


def test_calls_come_in_order_of_completion_and_the_model_is_last(backbone, pixels):
    calls = trace(backbone, pixels, {}).calls
    names = [call.name for call in calls]
    assert names[0] == "patch_embed.proj" and names[-1] == ""
    assert names.index("blocks.0.norm1") < names.index("blocks.0.attn.qkv") < names.index("blocks.0.attn")
    assert names.index("blocks.0.attn") < names.index("blocks.0") < names.index("blocks.1.norm1")
    assert not backbone.module.blocks[0]._forward_hooks and not backbone.module.blocks[0]._forward_pre_hooks
    norm = next(call for call in calls if call.name == "blocks.0.norm1")
    assert (norm.kind, norm.settings["eps"]) == ("LayerNorm", 1e-6)
    assert calls[-1].outputs == summary_of(backbone.embed(pixels))
    assert calls[0].inputs == summary_of(pixels)


def test_a_change_in_place_does_not_change_what_was_recorded_before():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU(inplace=True)

        def forward(self, x):
            return self.act(x - 0.5).mean((2, 3))

    from types import SimpleNamespace

    net = Net()
    x = torch.rand(2, 3, 4, 4)
    act, _ = trace(SimpleNamespace(module=net, embed=net), x, {}).calls
    assert act.inputs == summary_of(x - 0.5)
    assert act.outputs == summary_of((x - 0.5).clamp(0))


@pytest.mark.parametrize("shape", [(3,), (2, 5, 7), (2, 64, 56, 56), (3, 1 << 20)])
@pytest.mark.parametrize("size", [1.0, 1e-4])
def test_distances_of_summaries_are_those_of_the_tensors(shape, size):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=generator)
    y = x + size * torch.randn(shape, generator=generator)
    real = float((y - x).double().norm() / max(x.double().norm(), y.double().norm()))
    assert 0.4 * real < drift_of(summary_of(x), summary_of(y)) < 1.7 * real
    assert summary_of(x).norm == pytest.approx(float(x.double().norm()), rel=1e-6)


def test_a_change_of_one_element_is_seen():
    x = torch.zeros(1, 3, 700, 700)
    x[0, 1, 2, 3] = 1.0
    moved = x.clone()
    moved[0, 2, 600, 5] = 0.5
    assert drift_of(summary_of(x), summary_of(moved)) == pytest.approx(0.5 / 1.25**0.5)


def test_nested_tensors_and_numbers_that_are_not_finite():
    parts = [torch.ones(2), torch.tensor([float("inf"), float("nan"), -float("inf")])]
    nested = summary_of(({"a": parts[0]}, [parts[1], None, 3, torch.ones(2, dtype=torch.int64)]))
    assert nested.shapes == ((2,), (3,))
    assert np.isfinite(nested.sketch).all() and np.isfinite(nested.norm)
    assert summary_of(parts) != summary_of(parts[::-1])
    assert summary_of([]).shapes == ()


def test_settings_are_plain_attributes():
    module = nn.AdaptiveAvgPool2d(1)
    module.act, module.ratio, module.other = nn.functional.gelu, 0.5, object()
    assert settings_of(module) == {"output_size": 1, "act": "gelu", "ratio": 0.5}
