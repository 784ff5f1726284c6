from __future__ import annotations

from types import SimpleNamespace

import pytest
import timm
import torch
from timm.layers import set_fused_attn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.mkldnn import to_mkldnn

from embedcore.embed.cost import count_gmacs
from embedcore.zoo.backbone import load_backbone


@pytest.fixture
def unfused():
    set_fused_attn(False)
    yield
    set_fused_attn(True)


def counted_unfused(tag):
    """Return the count for a model built with attention by matrix products."""
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


def counted(module):
    """Return the count of any module, for images of 8 × 8."""
    module = module.eval()
    backbone = SimpleNamespace(
        module=module,
        embed=torch.no_grad()(module),
        data_config=SimpleNamespace(input_size=(3, 8, 8)),
        point="pre_logits",
        device=torch.device("cpu"),
    )
    return count_gmacs(backbone)


def test_recurrent_layers_are_counted():
    each_step = 4 * 16 * (3 + 16)  # four gates, from the input and from the state
    assert counted(Recurrent()) == pytest.approx(2 * 64 * each_step / 1e9, rel=1e-9)


class Tokens(torch.nn.Module):
    """A layer on the 64 pixels as tokens of 3 or, after a projection, 16 numbers."""

    def __init__(self, layer, width=3):
        super().__init__()
        self.project = torch.nn.Linear(3, 16) if width == 16 else torch.nn.Identity()
        self.layer = layer

    def forward(self, x):
        return self.layer(self.project(x.flatten(2).transpose(1, 2))).mean(dim=1)


class Attention(torch.nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x, need_weights=False)[0]


PROJECTION = 64 * 3 * 16
ATTENTION = 64 * 16 * 16 * 4 + 2 * 64 * 64 * 16  # four projections, and two products of all pairs of tokens
ENCODER = ATTENTION + 2 * 64 * 16 * 32


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("module", "macs"),
    [
        (lambda: Tokens(Attention(16, 2, batch_first=True), 16), PROJECTION + ATTENTION),
        (
            lambda: Tokens(torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 16),
            PROJECTION + ENCODER,
        ),
        (lambda: torch.jit.script(Tokens(torch.nn.Linear(3, 16))), PROJECTION),
        (lambda: torch.nn.Conv2d(3, 16, 1), PROJECTION),
        (lambda: torch.nn.Upsample(scale_factor=2, mode="bilinear"), 0),
        (lambda: torch.nn.Sequential(torch.nn.GroupNorm(1, 3), torch.nn.GELU(), torch.nn.MaxPool2d(2)), 0),
    ],
    ids=["attention", "encoder", "script", "conv", "bilinear", "norm"],
)
def test_layers_of_torch_are_counted_in_every_mode(module, macs):
    assert torch.backends.mha.get_fastpath_enabled()
    assert counted(module()) == pytest.approx(macs / 1e9, rel=1e-9)
    assert torch.backends.mha.get_fastpath_enabled()


class IntegerProduct(torch.nn.Module):
    def forward(self, x):
        a = torch.ones(64, 16, dtype=torch.int8)
        return torch._int_mm(a, a.T.contiguous()).float()[None]


class ForeignOperator(torch.nn.Module):
    def forward(self, x):
        return torch.ops.embedcore_test.double(x)


def quantized(module):
    quantize = torch.ao.quantization.quantize_dynamic
    return quantize(module.eval(), {torch.nn.Linear, torch.nn.LSTM})


@pytest.fixture(scope="module", autouse=True)
def foreign_operator():
    torch.library.define("embedcore_test::double", "(Tensor x) -> Tensor")
    torch.library.impl("embedcore_test::double", "CPU", lambda x: 2 * x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "module",
    [
        lambda: quantized(Tokens(torch.nn.Linear(3, 16))),
        lambda: quantized(Recurrent()),
        lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 16, 1), quantized(Tokens(torch.nn.Linear(16, 4)))),
        lambda: to_mkldnn(Tokens(torch.nn.Linear(3, 16)).eval()),
        IntegerProduct,
        ForeignOperator,
    ],
    ids=["quantized", "quantized-lstm", "half-quantized", "mkldnn", "integers", "foreign"],
)
def test_operators_without_a_formula_are_not_counted_as_zero(module):
    assert counted(module()) is None
