from __future__ import annotations

from types import SimpleNamespace

import pytest
import timm
import torch
from timm.layers import set_fused_attn
from torch.utils.flop_counter import FlopCounterMode

from embedcore.embed.cost import count_gmacs
from embedcore.zoo.backbone import load_backbone


@pytest.fixture
def unfused():
    set_fused_attn(False)
    yield
    set_fused_attn(True)


def counted_unfused(tag):
    """Of a model that is built to do attention by matrix products."""
    model = timm.create_model(tag, num_classes=0).eval().requires_grad_(False)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.zeros(1, *model.pretrained_cfg["input_size"]))
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize("model", ["test_vit.r160_in1k", "test_vit3.r160_in1k", "test_resnet.r160_in1k"])
def test_attention_is_counted_whether_fused_or_not(model, request):
    counted = count_gmacs(load_backbone(model, weights="random"))
    request.getfixturevalue("unfused")
    assert counted == pytest.approx(counted_unfused(model), rel=1e-9)


class Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(3, 16, batch_first=True, bidirectional=True)

    def forward(self, x):
        return self.lstm(x.flatten(2).transpose(1, 2))[0].mean(dim=1)


def test_recurrent_layers_are_counted():
    module = Recurrent().requires_grad_(False)
    backbone = SimpleNamespace(
        module=module,
        embed=module,
        data_config=SimpleNamespace(input_size=(3, 8, 8)),
        point="pre_logits",
        device=torch.device("cpu"),
    )
    each_step = 4 * 16 * (3 + 16)  # four gates, from the input and from the state
    assert count_gmacs(backbone) == pytest.approx(2 * 64 * each_step / 1e9, rel=1e-9)
